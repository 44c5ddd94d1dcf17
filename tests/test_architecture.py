"""The house's plan, held: imports point downward, torch stays upstairs, files stay short."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "tiepoint"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "extras", "config", "geometry", "features", "alignment", "maps", "files"}),
    frozenset(
        {
            "download",
            "pixels",
            "decoding",
            "deep_colour",
            "image",
            "masks",
            "read_ahead",
            "hub",
            "network",
            "quantization",
            "weights",
        }
    ),
    frozenset(
        {
            "processor",
            "refinement",
            "refinement_torch",
            "suppression",
            "windows",
            "postprocess",
            "postprocess_torch",
            "runtime",
            "streaming",
        }
    ),
    frozenset(
        {
            "detector",
            "superpoint",
            "image_processing",
            "compat",
            "outputs",
            "pretrained",
            "fitting",
            "superpoint_config",
            "convert",
        }
    ),
    frozenset(
        {
            "neighbours",
            "neighbours_torch",
            "steering",
            "matching",
            "pairing",
            "registration",
            "estimation",
            "planar",
            "epipolar",
            "verification",
            "warping",
            "plotting",
            "formats",
            "export",
        }
    ),
    frozenset({"training", "evaluation", "batch", "viewer"}),
    frozenset({"cli", "__main__"}),
)
"""Lowest first. A module imports from its own layer or from lower ones."""

TORCH_USERS = frozenset(
    {"network", "neighbours_torch", "postprocess_torch", "refinement_torch", "runtime.torch",
     "superpoint", "image_processing", "compat", "outputs", "convert", "export", "training",
     "cli.train", "cli.adapt"}
)  # fmt: skip

LONGEST_FILE_LINES, LONGEST_FUNCTION_LINES = 400, 60


def modules() -> dict[str, Path]:
    """Dotted name inside the package -> file."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(p for p in parts if p != "__init__")] = path
    return names


def layer_of(module: str) -> int:
    top = module.split(".", maxsplit=1)[0]
    for number, names in enumerate(LAYERS):
        if top in names:
            return number
    raise AssertionError(f"{module} stands in no layer: add it to LAYERS and docs/architecture.md")


def imports(path: Path, *, at_import_time: bool = False) -> set[str]:
    """Dotted names of everything a file imports; optionally only what runs on import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        waiting.extend(ast.iter_child_nodes(node))
    return found


@pytest.mark.parametrize("module", [name for name in modules() if name])
def test_imports_point_downward(module: str) -> None:
    own = layer_of(module)
    for imported in imports(modules()[module]):
        parts = imported.split(".")
        if parts[0] == "tiepoint" and len(parts) > 1 and parts[1] != "__version__":
            assert layer_of(parts[1]) <= own, f"{module} imports {imported} from a higher layer"


@pytest.mark.parametrize("module", list(modules()))
def test_torch_is_imported_only_where_the_plan_says(module: str) -> None:
    uses = any(name.split(".")[0] == "torch" for name in imports(modules()[module]))
    allowed = any(module == user or module.startswith(f"{user}.") for user in TORCH_USERS)
    # The runtime asks torch whether it sees a GPU, inside a function, when a driver is there.
    if module == "runtime":
        assert not any(
            name.split(".")[0] == "torch"
            for name in imports(modules()[module], at_import_time=True)
        )
    else:
        assert allowed or not uses, f"{module} imports torch"


@pytest.mark.parametrize("module", list(modules()))
def test_heavy_and_optional_libraries_load_only_when_used(module: str) -> None:
    at_start = {name.split(".")[0] for name in imports(modules()[module], at_import_time=True)}
    assert not at_start & {"huggingface_hub", "h5py", "transformers", "skimage", "matplotlib"}


@pytest.mark.parametrize("module", list(modules()))
def test_files_and_functions_stay_short(module: str) -> None:
    text = modules()[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION_LINES, f"{node.name}: {length} lines"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_tiepoint_loads_no_engine() -> None:
    heavy = "{'torch', 'openvino', 'cv2', 'numpy', 'typer', 'PIL'}"
    assert run(f"import sys, tiepoint; print({heavy} & set(sys.modules))").strip() == "set()"


def test_detecting_on_a_cpu_loads_no_torch(tmp_path: Path) -> None:
    image = tmp_path / "noise.png"
    code = f"""
import sys
import cv2, numpy as np
cv2.imwrite({str(image)!r}, np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8))
import tiepoint
features = tiepoint.Detector(device="cpu")({str(image)!r})
tiepoint.save(features, {str(tmp_path / "noise.npz")!r})
print("torch" in sys.modules, len(tiepoint.load({str(tmp_path / "noise.npz")!r})) == len(features))
"""
    assert run(code).split() == ["False", "True"]


def test_without_torch_installed_everything_but_its_engine_works(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "torch" else find(name, *a)
del sys.modules["torch"]
import builtins
load = builtins.__import__
def refuse(name, *a, **k):
    if name.split(".")[0] == "torch":
        raise ImportError(name)
    return load(name, *a, **k)
builtins.__import__ = refuse
import numpy as np, tiepoint
features = tiepoint.Detector()(np.zeros((40, 40), np.uint8))
print(features.meta["engine"], len(features))
try:
    tiepoint.Detector(engine="torch")
except tiepoint.MissingExtraError as error:
    print("tiepoint[torch]" in str(error))
import inspect
loaded = dict(inspect.getmembers(tiepoint))  # as help() does
print("Detector" in loaded, "AutoImageProcessor" in loaded)
"""
    assert run(code).split() == ["openvino", "0", "True", "True", "False"]

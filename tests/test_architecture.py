"""The packages follow the data's way; torch and optional libraries stay in their places."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "tiepoint"

ORDER = (
    "_version",
    "errors",
    "checks",
    "files",
    "architecture",
    "geometry",
    "config",
    "features",
    "images",
    "weights",
    "network",
    "keypoints",
    "streaming",
    "detector",
    "tiles",
    "formats",
    "matching",
    "plotting",
    "registration",
    "tracking",
    "hf",
    "batch",
    "evaluation",
    "integrations",
    "training",
    "reports",
    "export",
    "service",
    "notebook",
    "cli",
    "__init__",
    "__main__",
)
"""The data's way. A module or package imports only from those before it."""

MOST_ENTRIES = 32
"""Modules and packages at the top, so that the list is read at a glance."""

TORCH_USERS = (
    "network.superpoint",
    "network.torch_device",
    "network.torch_engine",
    "network.torch_inference",
    "keypoints.device_batches",
    "keypoints.on_device",
    "keypoints.on_torch",
    "keypoints.positions_torch",
    "matching.neighbours_torch",
    "matching.learned.network_torch",
    "matching.learned.torch_engine",
    "weights.convert",
    "weights.torch_files",
    "hf",
    "integrations.hloc",
    "integrations.glue_factory",
    "integrations.kornia",
    "export.torch_model",
    "export.torch_archive",
    "training",
    "cli.train",
    "cli.train_matcher",
    "cli.adapt",
)
TORCH_FREE = (
    "training.scenes",
    "training.fit_rotation",
    "training.presets",
    "training.schedule",
    "training.matcher.settings",
    "training.matcher.positions",
    "training.matcher.drawing",
    "training.matcher.workers",
    "training.matcher.bank",
    "training.sample_images",
)

LONGEST_FILE_LINES, LONGEST_FUNCTION_LINES = 400, 60
MOST_LINES_TO_READ = 1200


def modules() -> dict[str, Path]:
    """Dotted name inside the package -> file; a package's own file by its `__init__`."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        names[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return names


MODULES = modules()


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def imports(path: Path, *, at_import_time: bool = False) -> set[str]:
    """Dotted names of everything a file imports; optionally only what runs on import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        waiting.extend(ast.iter_child_nodes(node))
    return names


def module_of(imported: str) -> str | None:
    """The module of this package in which an imported name lives; None for other libraries."""
    parts = imported.split(".")
    if parts[0] != "tiepoint":
        return None
    for length in range(len(parts), 1, -1):
        name = ".".join(parts[1:length])
        if name in MODULES:
            return name
        if f"{name}.__init__" in MODULES:
            return f"{name}.__init__"
    return "__init__"


def own_imports(module: str, *, at_import_time: bool = False) -> set[str]:
    """The modules of this package that one of them imports."""
    names = imports(MODULES[module], at_import_time=at_import_time)
    return {found for found in map(module_of, names) if found is not None}


def test_the_top_lists_the_way_of_the_data_at_a_glance() -> None:
    top = {name.split(".", maxsplit=1)[0] for name in MODULES}
    assert top == set(ORDER), "list it in ORDER and in docs/architecture.md"
    assert len(top) <= MOST_ENTRIES


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module: str) -> None:
    top = module.split(".", maxsplit=1)[0]
    for imported in own_imports(module):
        below = imported.split(".", maxsplit=1)[0]
        assert ORDER.index(below) <= ORDER.index(top), f"{module} imports {imported} from above"


def test_there_are_no_circles() -> None:
    graph = {module: own_imports(module) - {module} for module in MODULES}
    while True:
        leaves = [module for module, imported in graph.items() if not imported & set(graph)]
        if not leaves:
            break
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"these import one another: {sorted(graph)}"


@pytest.mark.parametrize("module", MODULES)
def test_torch_is_imported_only_where_the_plan_says(module: str) -> None:
    # Choosing an engine asks torch whether it sees a GPU, inside a function, if a driver does.
    path, lazily = MODULES[module], module == "network.engines"
    uses = any(n.split(".")[0] == "torch" for n in imports(path, at_import_time=lazily))
    allowed = within(module, TORCH_USERS) and not within(module, TORCH_FREE)
    assert allowed or not uses, f"{module} imports torch"


@pytest.mark.parametrize("module", MODULES)
def test_heavy_and_optional_libraries_load_only_when_used(module: str) -> None:
    at_start = {name.split(".")[0] for name in imports(MODULES[module], at_import_time=True)}
    assert not at_start & {
        "huggingface_hub", "h5py", "transformers", "skimage", "matplotlib", "onnx", "onnxruntime",
        "av", "rerun",
    }  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_openvino_is_imported_only_where_its_telemetry_is_hidden(module: str) -> None:
    uses = any(name.split(".")[0] == "openvino" for name in imports(MODULES[module]))
    assert uses == (module == "network.runtime")


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_stay_short(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
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


def test_the_help_of_the_commands_loads_no_numpy() -> None:
    code = """
import sys
from tiepoint.cli import app
try:
    app(["--help"])
except SystemExit:
    print({"numpy", "cv2", "openvino", "torch", "PIL"} & set(sys.modules))
"""
    assert run(code).splitlines()[-1] == "set()"


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
print(features.provenance.engine, len(features))
try:
    tiepoint.Detector(engine="torch")
except tiepoint.MissingExtraError as error:
    print("tiepoint[torch]" in str(error))
import inspect
loaded = dict(inspect.getmembers(tiepoint))  # as help() does
print("Detector" in loaded, "AutoImageProcessor" in loaded)
"""
    assert run(code).split() == ["openvino", "0", "True", "True", "False"]


def test_scenes_are_generated_without_torch() -> None:
    code = """
import sys
import numpy as np
from tiepoint.training.scenes.pairs import training_pair
from tiepoint.training.scenes.settings import DataConfig
training_pair(DataConfig(size_hw=(64, 64)), 0, 0)
print("torch" in sys.modules)
"""
    assert run(code).strip() == "False"


def test_the_newcomers_path_is_short() -> None:
    """The files that docs/architecture.md lists to read, in their order."""
    document = PACKAGE.parents[1] / "docs" / "architecture.md"
    section = document.read_text(encoding="utf-8").split("## Reading order")[1].split("##")[0]
    files = re.findall(r"`([\w/]+\.py)`", section)
    lines = [len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in files]
    assert len(files) >= 7
    assert sum(lines) <= MOST_LINES_TO_READ

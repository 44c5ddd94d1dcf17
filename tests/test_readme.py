"""Documents are run: Python blocks in order, every `tiepoint` line of the shell.

In a Python block, `print(...)  # text` and the comment lines below it are the expected output.
A block after `<!-- not run: reason -->` is not run. A table with the columns option, default and
meaning lists all settings of a class, with their defaults.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shlex
import shutil
import tokenize
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from tiepoint import (
    DetectionConfig,
    Detector,
    MatchingConfig,
    ProcessorConfig,
    RegistrationConfig,
    TrackingConfig,
    sample_views,
)
from tiepoint.weights.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    path
    for path in (ROOT / "README.md", ROOT / "README.ko.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.is_file()
]
PHOTOGRAPHS = ("camera.png", "chelsea.png", "coffee.png", "rocket.jpg")
NOT_RUN = "<!-- not run:"


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    found = []
    for fence in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: fence.start()].rstrip().rsplit("\n", 1)[-1]
        if not before.startswith(NOT_RUN):
            line = text.count("\n", 0, fence.start()) + 1
            found.append(Block(fence[1], fence[2], line))
    return found


def promised(code: str) -> list[str]:
    """The expected output of a block."""
    lines, following = [], False
    for line in code.splitlines():
        shown = re.match(r"print\(.*\)\s+# (.*)$", line)
        if shown:
            lines.append(shown[1])
        elif following and line.startswith("# "):
            lines.append(line[2:])
        following = bool(shown) or (following and line.startswith("# "))
    return lines


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the photographs and the sample views that the documents name."""
    skimage = pytest.importorskip("skimage", reason="the examples use scikit-image's photographs")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in PHOTOGRAPHS:
        source = Path(skimage.__file__).parent / "data" / name
        shutil.copy(source, tmp_path / name)
        shutil.copy(source, photos / name)
    for view in sample_views():
        shutil.copy(view, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(line: str) -> None:
    from typer.testing import CliRunner

    from tiepoint.cli import app

    line, _, redirected = line.partition(" > ")
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}"
    if redirected:
        Path(redirected).write_bytes(result.stdout_bytes)


def is_korean(path: Path) -> bool:
    return path.name.endswith(".ko.md")


def without_comments(block: Block) -> tuple[str, list[str]]:
    """The code of a block: its tokens, or the lines of a shell."""
    if block.language != "python":
        return block.language, [line.split("#")[0].rstrip() for line in block.text.splitlines()]
    tokens = tokenize.generate_tokens(io.StringIO(block.text).readline)
    kept = [t.string for t in tokens if t.type not in (tokenize.COMMENT, tokenize.NL)]
    return block.language, kept


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if is_korean(d)], ids=lambda path: path.name
)
def test_korean_documents_have_the_examples_of_the_english_ones(document: Path) -> None:
    """The English ones are run."""
    english = blocks(document.with_name(document.name.replace(".ko.md", ".md")))
    korean = blocks(document)
    assert list(map(without_comments, korean)) == list(map(without_comments, english))
    python = [
        [promised(b.text) for b in found if b.language == "python"] for found in (korean, english)
    ]
    assert python[0] == python[1]


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if not is_korean(d)], ids=lambda path: path.name
)
def test_examples_do_what_the_document_says(
    document: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, because its figures are the same on every machine."""
    monkeypatch.setattr("tiepoint.network.engines._cpu_has_bf16", lambda: False)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(document):
        if block.language == "python":
            printed = io.StringIO()
            padded = "\n" * block.line + block.text  # so that a traceback names the right line
            with contextlib.redirect_stdout(printed):
                exec(compile(padded, str(document), "exec"), names)
            expected = promised(block.text)
            if expected:
                assert printed.getvalue().splitlines() == expected, f"line {block.line}"
        elif block.language in ("bash", "sh", "shell"):
            for line in block.text.splitlines():
                if line.startswith("tiepoint "):
                    run_shell(line)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_scripts_that_documents_name_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for script in re.findall(r"\b((?:benchmarks|examples|tests)/[\w/]+\.py)\b", text):
        assert (ROOT / script).is_file(), script


def option_tables(path: Path) -> list[dict[str, str]]:
    """Option -> default, as written, of each table whose columns are option, default, meaning."""
    tables: list[dict[str, str]] = []
    text = path.read_text(encoding="utf-8")
    for rows in re.findall(
        r"^\|[^|\n]*\|[^|\n]*\|[^|\n]*\|\n\|---\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE
    ):
        cells = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", rows, re.MULTILINE)
        if len(cells) == rows.count("\n"):
            tables.append(dict(cells))
    return tables


def written(values: dict[str, object]) -> dict[str, str]:
    return {name: repr(value).replace("'", '"') for name, value in values.items()}


def settings_of(*configs: object) -> dict[str, object]:
    return {
        field.name: getattr(config, field.name)
        for config in configs
        for field in fields(config)  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_readme_lists_all_options_of_detection_with_the_defaults_of_the_bundled_checkpoint(
    name: str,
) -> None:
    detection, _ = option_tables(ROOT / name)
    expected = settings_of(ProcessorConfig(), load_checkpoint("default").detection)
    assert detection == written(expected)


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_readme_lists_all_options_of_detector_alone_with_their_defaults(name: str) -> None:
    _, detector = option_tables(ROOT / name)
    of_a_call = settings_of(ProcessorConfig(), DetectionConfig())
    parameters = {
        parameter.name: parameter.default
        for parameter in inspect.signature(Detector).parameters.values()
        if parameter.kind == inspect.Parameter.KEYWORD_ONLY and parameter.name not in of_a_call
    }
    assert detector == written(parameters)


@pytest.mark.parametrize("name", ["matching.md", "matching.ko.md"])
def test_all_options_of_matching_are_listed_with_their_defaults(name: str) -> None:
    assert option_tables(ROOT / "docs" / name) == [written(settings_of(MatchingConfig()))]


@pytest.mark.parametrize("name", ["registration.md", "registration.ko.md"])
def test_all_options_of_registration_are_listed_with_their_defaults(name: str) -> None:
    assert option_tables(ROOT / "docs" / name) == [written(settings_of(RegistrationConfig()))]


@pytest.mark.parametrize("name", ["video.md", "video.ko.md"])
def test_all_options_of_tracking_are_listed_with_their_defaults(name: str) -> None:
    assert option_tables(ROOT / "docs" / name) == [written(settings_of(TrackingConfig()))]


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_dependencies_beside_opencv_are_listed_for_those_who_have_one(name: str) -> None:
    """The list under Install, for `pip install --no-deps`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {re.split(r"[<>=\[]", line)[0] for line in settings["project"]["dependencies"]}
    text = (ROOT / name).read_text(encoding="utf-8")
    listed = re.search(r"pip install --no-deps .*\npip install (.*)", text)
    assert listed is not None
    assert set(listed[1].split()) == needed - {"opencv-python-headless"}

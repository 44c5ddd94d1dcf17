"""What the documents show is run: Python blocks in order, and every `tiepoint` line of the shell.

In a Python block, `print(...)  # text` and the comment lines right below it are what is printed.
A block after `<!-- not run: reason -->` is shown only.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

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
    """The lines that a block says it prints."""
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
    """A folder with the photographs that the documents name."""
    skimage = pytest.importorskip("skimage", reason="the examples use scikit-image's photographs")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in PHOTOGRAPHS:
        source = Path(skimage.__file__).parent / "data" / name
        shutil.copy(source, tmp_path / name)
        shutil.copy(source, photos / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(line: str) -> None:
    from typer.testing import CliRunner

    from tiepoint.cli import app

    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_do_what_the_document_says(
    document: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers shown are float32's, the same on every machine."""
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

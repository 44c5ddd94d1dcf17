"""The built page is that of its source, and the source is what it claims to be."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WEB, PAGE = ROOT / "web", ROOT / "src" / "tiepoint" / "service" / "view" / "page"


@pytest.fixture(scope="module")
def node() -> str:
    program = shutil.which("node")
    if program is None or not (WEB / "node_modules" / "esbuild").is_dir():
        pytest.skip("building the page needs node and its packages: make web")
    return program


def test_the_built_files_are_those_of_the_source(node: str, tmp_path: Path) -> None:
    subprocess.run([node, "build.mjs", str(tmp_path)], cwd=WEB, check=True, timeout=120)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_bytes() for path in PAGE.iterdir()}
    assert built == committed, "run make web"


def test_the_source_has_no_type_error(node: str) -> None:
    checker = WEB / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [node, str(checker), "--noEmit"],
        cwd=WEB, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_no_file_names_a_registry_and_no_file_of_the_page_is_large() -> None:
    for path in (WEB / "package.json", WEB / "package-lock.json"):
        text = path.read_text(encoding="utf-8")
        assert "resolved" not in text and "registry" not in text, path.name
    sizes = {path.name: path.stat().st_size for path in PAGE.iterdir()}
    library, cell = sizes.pop("openseadragon.js"), sizes.pop("notebook.js")  # which has it too
    assert library < 400_000 and cell < library + 100_000 and sum(sizes.values()) < 150_000
    assert "openseadragon.LICENSE.txt" in sizes


def test_the_page_asks_no_other_host() -> None:
    for name in ("index.html", "view.js", "view.css"):
        text = (PAGE / name).read_text(encoding="utf-8")
        hosts = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text))
        assert hosts <= {"http://www.w3.org"}, name  # the namespace of SVG


def test_both_languages_have_texts_for_every_key_with_the_same_values() -> None:
    source = (WEB / "src" / "texts.ts").read_text(encoding="utf-8")
    english, korean = source.split("const en = {")[1].split("const ko")
    tables = [
        dict(re.findall(r'^  (\w+): "((?:[^"\\]|\\.)*)",$', part, re.MULTILINE))
        for part in (english, korean.split("export type Language")[0])
    ]
    assert tables[0].keys() == tables[1].keys() and len(tables[0]) > 100
    for key, text in tables[0].items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", tables[1][key])), key
    same = {key for key in tables[0] if tables[0][key] == tables[1][key]}
    assert same <= {"title", "scaleOption", "blinkB"}

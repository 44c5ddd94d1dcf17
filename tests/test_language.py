"""Documents, docstrings, comments and messages keep to the words of `docs/glossary.md`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.language import (
    BANNED,
    Text,
    banned_phrases,
    fragments,
    korean_words,
    long_sentences,
    texts_of,
)

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = ("src", "benchmarks", "examples", "tests")
"""Folders of Python files that are read."""

ALLOWED = ("tests/support/language.py", "tests/test_language.py")
"""Files that quote what is banned."""

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("src/**/*.md")])
KOREAN = [path for path in DOCUMENTS if path.name.endswith(".ko.md")]
ENGLISH = [path for path in DOCUMENTS if path not in KOREAN]


def sources() -> list[Path]:
    paths: set[Path] = set()
    for name in FOLDERS:
        place = ROOT / name
        paths |= {place} if place.is_file() else set(place.rglob("*.py"))
    return sorted(path for path in paths if str(path.relative_to(ROOT)) not in ALLOWED)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_docstrings_comments_and_strings_use_the_words_of_the_field(path: Path) -> None:
    texts = list(texts_of(path.read_text(encoding="utf-8")))
    assert banned_phrases(texts) == []
    assert fragments(texts) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_documents_use_the_words_of_the_field(path: Path) -> None:
    text = Text(1, path.read_text(encoding="utf-8"))
    assert banned_phrases([text]) == []
    assert fragments([text]) == []


@pytest.mark.parametrize("path", ENGLISH, ids=name_of)
def test_sentences_of_english_documents_have_at_most_25_words(path: Path) -> None:
    assert long_sentences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", KOREAN, ids=name_of)
def test_korean_documents_use_the_words_of_the_glossary(path: Path) -> None:
    assert korean_words(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", KOREAN, ids=name_of)
def test_a_korean_document_has_the_code_and_the_figures_of_the_english_one(path: Path) -> None:
    """Comments aside, which are Korean there."""
    english = path.with_name(path.name.replace(".ko.md", ".md"))
    original, korean = (file.read_text(encoding="utf-8") for file in (english, path))
    assert _code(korean) == _code(original)
    assert _figures(korean) == _figures(original)


def glossary() -> list[list[str]]:
    """The rows of the tables: English, Korean, meaning, name in the code."""
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [row for row in rows if len(row) == 4 and row[0] not in ("English", "---")]


def test_the_glossary_has_one_row_for_each_term_in_both_languages() -> None:
    terms, korean = ([row[column] for row in glossary()] for column in (0, 1))
    assert len(terms) > 60 and len(set(terms)) == len(terms)
    assert len(set(korean)) == len(korean)
    assert [term for term in korean if not re.search(r"[가-힣]", term)] == []


def test_names_of_the_glossary_are_names_of_the_code() -> None:
    code = " ".join(
        f"{path} {path.read_text(encoding='utf-8')}" for path in (ROOT / "src").rglob("*.py")
    )
    names = {
        name
        for *_, column in glossary()
        for span in re.findall(r"`([^`]+)`", column)
        for name in re.findall(r"[\w-]+", span.removeprefix("--"))
    }
    assert sorted(name for name in names if name not in code) == []


def test_every_place_that_is_done_exists() -> None:
    assert [name for name in FOLDERS if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("phrase", BANNED)
def test_each_banned_phrase_is_found_in_any_case_and_across_lines(phrase: str) -> None:
    sentence = f"Files {phrase.upper().replace(' ', chr(10))} here."
    assert [finding.passage.lower() for finding in banned_phrases([Text(1, sentence)])] == [phrase]


@pytest.mark.parametrize(
    "harmless", ["layer", "standard", "earlier", "essay", "retell", "so  much", "relies", "lied"]
)
def test_a_banned_phrase_inside_a_longer_word_is_harmless(harmless: str) -> None:
    assert banned_phrases([Text(1, f"The {harmless} is here.")]) == []


def test_of_which_is_found_where_a_sentence_begins() -> None:
    text = "Eight layers, of which two are wide. Of which\nmore below."
    assert banned_phrases([Text(1, text)]) == [(1, "Of which")]


def test_docstrings_strings_and_comments_are_read_and_code_is_not() -> None:
    source = '"""It says."""\nfile.tell()  # they lie\n# so\n# many\nx = f"{stand} told"\n'
    assert sorted(banned_phrases(texts_of(source))) == [
        (1, "says"), (2, "lie"), (3, "so many"), (5, "told"),
    ]  # fmt: skip


def test_comments_with_code_between_them_are_apart() -> None:
    assert banned_phrases(texts_of("# so\nx = 1\n# many\n")) == []


def test_a_field_that_begins_with_of_is_found() -> None:
    source = '"""Settings.\n\nAttributes:\n    temperature: Of the soft-max."""\n'
    assert fragments(texts_of(source)) == [(4, "Of the soft-max.")]
    assert fragments([Text(1, "Of two equals.")]) == [(1, "Of two equals.")]
    assert fragments([Text(1, "temperature: Temperature of the soft-max.\n  of it")]) == []


def test_korean_words_that_the_glossary_refuses_are_found() -> None:
    assert korean_words("디스크립터\n기술자와 영상") == [(2, "기술자"), (2, "영상")]
    assert korean_words("동영상의 이미지마다 디스크립터") == []


def test_a_sentence_of_26_words_is_found_and_one_of_25_is_not() -> None:
    assert long_sentences("word " * 24 + "word. " + "word " * 24 + "word.") == []
    assert [finding.line for finding in long_sentences("Short.\n\n" + "word " * 26)] == [3]


def test_list_items_and_cells_are_sentences_of_their_own() -> None:
    fifteen = "word " * 15
    assert long_sentences(f"- {fifteen}\n- {fifteen}\n") == []
    assert long_sentences(f"| {fifteen} | {fifteen} |\n") == []
    assert len(long_sentences(f"- {fifteen}\n  {fifteen}\n")) == 1


def test_code_is_no_sentence() -> None:
    assert long_sentences("```\n" + "word " * 30 + "\n```\n") == []
    assert long_sentences("word " * 24 + "`a b c d`") == []


def _code(document: str) -> list[str]:
    blocks = re.findall(r"^```\w+\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s*#.*$", "", block, flags=re.MULTILINE) for block in blocks]


def _figures(document: str) -> list[str]:
    """The cells of tables that hold figures and no words."""
    cells = [
        cell.strip()
        for line in document.splitlines()
        if line.startswith("|")
        for cell in line.strip("|").split("|")
    ]
    return [
        cell for cell in cells if re.fullmatch(r"(?:to|ms|[-\d.,/%() ])*\d(?:ms|[\d%() ])*", cell)
    ]

"""Checks of English and Korean prose: what `docs/glossary.md` and the house rules ask for."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

BANNED = (
    "so many", "anew", "whoever", "likewise", "meanwhile", "in company", "brought down",
    "held against", "lie", "lies", "lay", "stand", "stands", "stood", "tell", "tells", "told",
    "say", "says", "said", "go on", "goes on", "looked at", "as it were",
)  # fmt: skip
"""Phrases that the field has better words for; whole words, in any case."""

LONGEST_SENTENCE_WORDS = 25

_BANNED = re.compile(
    r"\b(?:" + "|".join(phrase.replace(" ", r"\s+") for phrase in BANNED) + r")\b", re.IGNORECASE
)
_SENTENCE_OF_WHICH = re.compile(r"(?:^|[.!?:]\s+)(Of which)\b")
_FRAGMENT = re.compile(r"^\s*(?:\w+:\s+)?(Of)\s", re.MULTILINE)
_KOREAN = re.compile(r"기술자|(?<!동)영상")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])[)\"']?\s+|(?<=[.!?][)\"'])\s+")


class Text(NamedTuple):
    """A string, a docstring or a block of comments, with the line it begins at."""

    line: int
    text: str


class Finding(NamedTuple):
    """A passage against the rules."""

    line: int
    passage: str


def texts_of(source: str) -> Iterator[Text]:
    """The docstrings, strings and comments of Python source; neighbouring comments are one text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(node.lineno, node.value)
    lines: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if lines and token.start[0] != last + 1:
                yield Text(last - len(lines) + 1, "\n".join(lines))
                lines = []
            last = token.start[0]
            lines.append(token.string.lstrip("#").strip())
    if lines:
        yield Text(last - len(lines) + 1, "\n".join(lines))


def banned_phrases(texts: Iterator[Text] | list[Text]) -> list[Finding]:
    findings = []
    for line, text in texts:
        for pattern, group in ((_BANNED, 0), (_SENTENCE_OF_WHICH, 1)):
            for phrase in pattern.finditer(text):
                at = line + text.count("\n", 0, phrase.start(group))
                findings.append(Finding(at, " ".join(phrase[group].split())))
    return findings


def fragments(texts: Iterator[Text] | list[Text]) -> list[Finding]:
    """Lines such as "temperature: Of the soft-max", which cannot be read alone."""
    return [
        Finding(line + text.count("\n", 0, phrase.start(1)), text[phrase.start(1) :][:40])
        for line, text in texts
        for phrase in _FRAGMENT.finditer(text)
    ]


def korean_words(document: str) -> list[Finding]:
    """기술자 in place of 디스크립터, 영상 in place of 이미지; 동영상 is a word of its own."""
    return [
        Finding(document.count("\n", 0, word.start()) + 1, word[0])
        for word in _KOREAN.finditer(document)
    ]


def long_sentences(document: str) -> list[Finding]:
    """Sentences of Markdown over 25 words; code blocks are passed over, a code span is one word."""
    document = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), document)
    findings = []
    for line, paragraph in _paragraphs(document):
        text = re.sub(r"`[^`]*`", "code", paragraph)
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
        sentences = [re.findall(r"\S*\w\S*", part) for part in _SENTENCE_END.split(text)]
        findings += [
            Finding(line, f"{len(words)} words: {' '.join(words)}")
            for words in sentences
            if len(words) > LONGEST_SENTENCE_WORDS
        ]
    return findings


def _paragraphs(document: str) -> Iterator[Text]:
    """Paragraphs, list items, headings and cells of tables, each in one line."""
    lines: list[str] = []
    first = 0
    for number, line in enumerate([*document.splitlines(), ""], 1):
        stripped = line.strip()
        starts_new = re.match(r"(?:[-*#|]|\d+\.)\s", stripped) or not stripped
        if starts_new and lines:
            yield Text(first, " ".join(lines))
            lines = []
        if stripped.startswith("|"):
            yield from (Text(number, cell) for cell in stripped.strip("|").split("|"))
        elif stripped:
            first = first if lines else number
            lines.append(stripped)

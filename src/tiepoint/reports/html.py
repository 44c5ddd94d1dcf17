"""Sections -> the page. The serializer escapes every text, and nothing is loaded from outside.

A Content-Security-Policy in the page forbids scripts and requests.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import count, groupby
from xml.etree.ElementTree import Element, SubElement, tostring

from tiepoint.reports.charts import chart_figure
from tiepoint.reports.pieces import (
    Cell,
    Chart,
    Facts,
    Message,
    Note,
    Picture,
    Piece,
    Section,
    Table,
    Verdict,
)
from tiepoint.reports.words import Words

MOST_BYTES = 10_000_000
"""Size of the page, bytes; sections that would exceed it are left out, with a note."""
MOST_LETTERS = 600
"""Longer texts are cut."""
WIDE = 2
"""Aspect ratio above which a picture takes the whole width."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
_CONTROLS = dict.fromkeys(set(range(32)) - set(b"\n\t"), "\ufffd")
"""Control characters, which no HTML may hold."""
_RESERVED = 400_000
"""Bytes for style, head and contents."""


def page(title: str, byline: str, sections: Sequence[Section], words: Words) -> bytes:
    """The HTML file, UTF-8, of at most `MOST_BYTES`."""
    ids = count(1)
    bodies: list[Element] = []
    left = MOST_BYTES - _RESERVED
    for number, section in enumerate(sections, start=1):
        made = _section(section, f"s{number}", ids, words)
        size = len(_serialized(made))
        if size > left:
            note = words(
                "Left out, because the page would be larger than {limit} MB.",
                limit=MOST_BYTES // 1_000_000,
            )
            short = Section(section.title, [Note(note)], section.verdict)
            made = _section(short, f"s{number}", ids, words)
            size = len(_serialized(made))
        left -= size
        bodies.append(made)
    root = Element("html", {"lang": words.language})
    root.append(_head(title))
    body = SubElement(root, "body")
    header = SubElement(body, "header")
    SubElement(header, "h1").text = _cut(title)
    SubElement(header, "p", {"class": "soft"}).text = byline
    if len(sections) > 1:
        body.append(_contents(sections, words))
    SubElement(body, "main").extend(bodies)
    return b"<!DOCTYPE html>\n" + _serialized(root) + b"\n"


def _serialized(element: Element) -> bytes:
    text = tostring(element, encoding="unicode", method="html").translate(_CONTROLS)
    return text.encode("utf-8", "backslashreplace")  # names of files may hold lone surrogates


def _head(title: str) -> Element:
    head = Element("head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})
    viewport = "width=device-width, initial-scale=1"
    SubElement(head, "meta", {"name": "viewport", "content": viewport})
    SubElement(head, "meta", {"name": "color-scheme", "content": "light dark"})
    SubElement(head, "title").text = _cut(title)
    style = resources.files("tiepoint.reports").joinpath("report.css")
    SubElement(head, "style").text = style.read_text(encoding="utf-8")
    return head


def _contents(sections: Sequence[Section], words: Words) -> Element:
    nav = Element("nav", {"aria-label": words("Contents")})
    items = SubElement(nav, "ol")
    for number, section in enumerate(sections, start=1):
        item = SubElement(items, "li")
        SubElement(item, "a", {"href": f"#s{number}"}).text = _cut(section.title)
        if section.summary:
            SubElement(item, "span", {"class": "soft"}).text = f" – {_cut(section.summary)}"
    return nav


def _section(section: Section, name: str, ids: count[int], words: Words, level: int = 2) -> Element:
    made = Element("section", {"id": name, "aria-labelledby": f"{name}-title"})
    heading = SubElement(made, f"h{level}", {"id": f"{name}-title"})
    SubElement(heading, "span").text = _cut(section.title)
    if section.verdict is not None:
        heading.append(_verdict(section.verdict))
    if section.summary:
        SubElement(made, "p", {"class": "soft"}).text = _cut(section.summary)
    for are_pictures, group in groupby(section.pieces, lambda one: isinstance(one, Picture)):
        place = SubElement(made, "div", {"class": "pictures"}) if are_pictures else made
        for piece in group:
            place.extend(_piece(piece, ids, words))
    for number, part in enumerate(section.parts, start=1):
        made.append(_section(part, f"{name}-{number}", ids, words, level + 1))
    return made


def _piece(piece: Piece, ids: count[int], words: Words) -> Iterator[Element]:
    if isinstance(piece, Facts):
        yield _facts(piece)
    elif isinstance(piece, Table):
        yield from _table(piece, words)
    elif isinstance(piece, Chart):
        yield chart_figure(piece, ids)
    elif isinstance(piece, Picture):
        yield _picture(piece)
    else:
        note = Element("p", {"class": "note"})
        _put(note, piece.text)
        yield note


def _facts(facts: Facts) -> Element:
    made = Element("details" if facts.folded else "div")
    SubElement(made, "summary" if facts.folded else "h4").text = facts.title
    rows = SubElement(made, "dl")
    for name, value in facts.rows:
        SubElement(rows, "dt").text = _cut(name)
        _put(SubElement(rows, "dd"), value)
    return made


def _table(table: Table, words: Words) -> Iterator[Element]:
    scroll = Element("div", {"class": "scroll", "tabindex": "0", "role": "region"})
    scroll.set("aria-label", _cut(table.title))
    made = SubElement(scroll, "table")
    SubElement(made, "caption").text = _cut(table.title)
    are_words = [
        column > 0 and not all(_is_figure(row[column]) for row in table.rows)
        for column in range(len(table.headings))
    ]
    head = SubElement(SubElement(made, "thead"), "tr")
    for heading, is_text in zip(table.headings, are_words, strict=True):
        cell = SubElement(head, "th", {"scope": "col", **({"class": "words"} if is_text else {})})
        cell.text = _cut(heading)
    body = SubElement(made, "tbody")
    for cells in table.rows:
        row = SubElement(body, "tr")
        for column, (value, is_text) in enumerate(zip(cells, are_words, strict=True)):
            row.append(_cell(value, is_name=column == 0, is_text=is_text))
    yield scroll
    notes = [table.note] if table.note else []
    if table.left_out:
        notes.append(words("{count} more rows are left out.", count=table.left_out))
    for text in notes:
        note = Element("p", {"class": "note"})
        _put(note, text)
        yield note


def _is_figure(cell: Cell) -> bool:
    return not isinstance(cell, Verdict | Message) and not any(map(str.isalpha, cell))


def _cell(cell: Cell, *, is_name: bool, is_text: bool) -> Element:
    made = Element("th", {"scope": "row"}) if is_name else Element("td")
    if is_text:
        made.set("class", "words long" if isinstance(cell, Message) and cell else "words")
    if isinstance(cell, Verdict):
        made.append(_verdict(cell))
    elif isinstance(cell, Message):
        _put(made, cell)
    else:
        first, _, interval = cell.partition("\n")
        made.text = _cut(first)
        if interval:
            SubElement(made, "small").text = _cut(interval)
    return made


def _put(element: Element, text: str) -> None:
    """Set the text; one in English is marked, for readers that pronounce it."""
    if isinstance(text, Message):
        SubElement(element, "span", {"lang": "en"}).text = _cut(text)
    else:
        element.text = _cut(text)


def _verdict(verdict: Verdict) -> Element:
    made = Element("span", {"class": f"verdict {verdict.tone}"})
    made.text = _cut(verdict.text)
    return made


def _picture(picture: Picture) -> Element:
    width, height = picture.size_wh
    figure = Element("figure", {"class": "wide"} if width > WIDE * height else {})
    source = "data:image/jpeg;base64," + base64.b64encode(picture.jpeg).decode()
    size = {"width": str(width), "height": str(height)}
    SubElement(figure, "img", {"src": source, "alt": _cut(picture.alt), **size})
    SubElement(figure, "figcaption").text = _cut(picture.caption)
    return figure


def _cut(text: str) -> str:
    """A text of bounded length."""
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"

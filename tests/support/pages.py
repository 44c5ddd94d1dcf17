"""A page of HTML as tests read it: its elements, its texts, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}

NASTY = "<script>alert(1)</script>&\"'.png"
"""A file name that a page must escape."""


class Page(HTMLParser):
    """The elements of a page in order.

    Attributes:
        elements: (name, attributes) of each.
        texts: Texts with the element they are in.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(data.decode("utf-8"))
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1] if self._open else "", data))

    @property
    def text(self) -> str:
        """All texts but the style."""
        return "\n".join(text for place, text in self.texts if place != "style")

    def all(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a name."""
        return [attributes for tag, attributes in self.elements if tag == name]

    def check(self) -> None:
        """Raise AssertionError for what a self-contained, readable page must not have."""
        names = Counter(name for name, _ in self.elements)
        for forbidden in ("script", "link", "iframe", "object", "embed", "form", "base"):
            assert not names[forbidden], forbidden
        for tag, attributes in self.elements:
            assert not [name for name in attributes if name.startswith("on")], tag
            for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
                value = attributes.get(name)
                assert value is None or value.startswith(("data:image/", "#")), value
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(set(ids)) == len(ids)
        for _, attributes in self.elements:
            for name in ("aria-labelledby",):
                assert attributes.get(name) is None or attributes[name] in ids
            target = attributes.get("href")
            assert target is None or target[1:] in ids
        assert all(image["alt"] and image["width"] for image in self.all("img"))
        assert all(cell.get("scope") in ("col", "row") for cell in self.all("th"))
        assert names["table"] == names["caption"] and names["h1"] == names["main"] == 1
        assert self.all("html")[0]["lang"] in ("en", "ko")
        levels = [int(name[1]) for name, _ in self.elements if name in ("h1", "h2", "h3", "h4")]
        assert levels[0] == 1

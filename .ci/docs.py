"""Hook of `make docs`: the menu of languages replaces each page's link to the other one."""

import re

OTHER_LANGUAGE = re.compile(r"^(한국어|English): \[.*\n\n?", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs for each page."""
    return OTHER_LANGUAGE.sub("", markdown, count=1)

"""URLs: recognised, and shown without the credentials in them."""

from __future__ import annotations

import bisect
import re

HIDDEN = "***"
"""In place of a secret."""

LONGEST_URL = 8000
"""Characters; RFC 9110, section 4.1, asks servers for as many, and few take more."""

_URL = re.compile(r"https?://", re.IGNORECASE)
_USER_OF_ALL = re.compile(r"\A(https?://)[^/?#]*@", re.IGNORECASE)
"""User and password at the very start of a text, where they may have blanks."""

# Error messages quote servers and files, so that each pattern takes linear time for any text.
_WORD = re.compile(r"\S+")
_AUTHORITY = re.compile(r"://(?=([^/?#'\"]*+))")  # the next may start with its last character
_PASSWORD = re.compile(r"[^/?#:@\[\]]++:(?!\d*+(?:[/?#]|\Z))")
_SECRET = re.compile(
    r"(?<=[?&;])((?:(?=[\w.-]*?(?:token|secret|signature|credential|password|passwd|api-?_?key))"
    r"[\w.-]++|key|sig|auth|pwd)=)[^&;#\s'\"]+",
    re.IGNORECASE,
)


def is_url(text: str) -> bool:
    """Whether this is an http or https URL, and no path."""
    return _URL.match(text) is not None


def without_credentials(text: str) -> str:
    """A URL, or a message with URLs, without user names, passwords and keys.

    `https://me:secret@a.org/x.png?token=1` becomes `https://a.org/x.png?token=***`.
    """
    if "://" not in text:
        return text
    text = _WORD.sub(_without_users, _USER_OF_ALL.sub(r"\1", text))
    return _SECRET.sub(rf"\g<1>{HIDDEN}", text)


def _without_users(word: re.Match[str]) -> str:
    """A word without the user and password before each host."""
    text, kept, end = word[0], [], 0
    ats = [found.start() for found in re.finditer("@", text)]
    quotes = [found.start() for found in re.finditer("['\"]", text)]
    for found in _AUTHORITY.finditer(text):
        start = found.start(1)
        if start < end:
            continue
        stop = _last_in(ats, start, found.end(1))
        if password := _PASSWORD.match(text, start):
            # A password with an unquoted / ends at the last @ before a quotation mark.
            quote = bisect.bisect_left(quotes, password.end())
            limit = quotes[quote] if quote < len(quotes) else len(text)
            stop = stop if stop >= 0 else _last_in(ats, password.end(), limit)
        if stop >= 0:
            kept.append(text[end:start])
            end = stop + 1
    return "".join((*kept, text[end:]))


def _last_in(positions: list[int], start: int, stop: int) -> int:
    """The last of sorted positions from `start` to before `stop`; -1 if there is none."""
    index = bisect.bisect_left(positions, stop)
    return positions[index - 1] if index and positions[index - 1] >= start else -1

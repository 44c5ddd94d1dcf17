"""URLs: recognised, and shown without the credentials in them."""

from __future__ import annotations

import re

HIDDEN = "***"
"""In place of a secret."""

_URL = re.compile(r"https?://", re.IGNORECASE)
_USER = re.compile(r"(?<=://)(?:[^/?#\s'\"]*|[^/?#\s:@\[\]]+:(?!\d*(?:[/?#]|$))[^\s'\"]*)@")
"""User and password before the host; a password with an unquoted / ends at the last @."""
_USER_OF_ALL = re.compile(r"\A(https?://)[^/?#]*@", re.IGNORECASE)
"""The same at the very start of a text, where it may have blanks."""
_SECRET = re.compile(
    r"(?<=[?&;])((?:[\w.-]*(?:token|secret|signature|credential|password|passwd|api-?_?key)[\w.-]*"
    r"|key|sig|auth|pwd)=)[^&;#\s'\"]+",
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
    text = _USER_OF_ALL.sub(r"\1", text)
    return _SECRET.sub(rf"\g<1>{HIDDEN}", _USER.sub("", text))

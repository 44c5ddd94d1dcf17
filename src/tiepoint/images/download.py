"""http(s) URL -> bytes, bounded in size and time."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from tiepoint.errors import ImageError

TIMEOUT_S = 20.0
"""Timeout for a server that sends nothing."""

TOTAL_TIMEOUT_S = 300.0
"""Timeout of a whole download, so that a server that sends a few bytes at a time ends, too."""

MAX_BYTES = 512 * 2**20
"""Largest accepted response; a 250 Mpx JPEG has about 100 MB."""

_CHUNK = 1 << 16
_URL_CHARACTERS = "/%:=&?~#+!$,;'@()*[]"


def fetch(url: str) -> bytes:
    """Download one file over http or https; spaces and non-ASCII letters are encoded.

    Raises:
        ImageError: Not reachable, refused, not found, too slow, too large, cut short.
    """
    import http.client  # on first use, because these imports take 50 ms
    import urllib.error
    import urllib.request

    from tiepoint._version import __version__

    try:
        headers = {"User-Agent": f"tiepoint/{__version__}", "Accept": "image/*,*/*"}
        request = urllib.request.Request(_encoded(url), headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return _body(response, url)
    except urllib.error.HTTPError as error:
        with error:
            hint = "check the address" if error.code in (404, 410) else "open it in a browser"
            raise ImageError(
                f"{url}: the server answered {error.code} {error.reason}, expected an image; {hint}"
            ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)  # of a URLError
        reason = f"the download failed ({type(error).__name__}: {error}); check the address"
        if isinstance(cause, TimeoutError):
            limit = f"no answer within {TIMEOUT_S:g} s"
            reason = f"{limit}; try again, or download it and pass the file"
        elif isinstance(error, urllib.error.URLError):
            reason = f"cannot be reached ({cause}); check address and network"
        raise ImageError(f"{url}: {reason}") from error


def _body(response: Any, url: str) -> bytes:
    length = response.headers.get("Content-Length", "")
    declared = int(length) if length.isdecimal() else None
    deadline = time.monotonic() + TOTAL_TIMEOUT_S
    chunks, received = [], 0
    while declared is None or declared <= MAX_BYTES:
        chunk = response.read1(_CHUNK)
        if not chunk:
            break
        chunks.append(chunk)
        received += len(chunk)
        if received > MAX_BYTES:
            break
        if time.monotonic() > deadline:
            raise ImageError(
                f"{url}: still not complete after {TOTAL_TIMEOUT_S:g} s ({received} bytes); "
                "download it and pass the file"
            )
    if max(received, declared or 0) > MAX_BYTES:
        raise ImageError(
            f"{url}: larger than {MAX_BYTES // 2**20} MiB, the limit for downloads; "
            "download it and pass the file"
        )
    if declared is not None and received < declared:
        raise ImageError(f"{url}: cut short after {received} of {declared} bytes; try again")
    return b"".join(chunks)


def _encoded(url: str) -> str:
    """The URL in ASCII, as HTTP requires."""
    parts = urlsplit(url)
    host = parts.netloc.encode("idna").decode("ascii") if not url.isascii() else parts.netloc
    path, query = (quote(text, safe=_URL_CHARACTERS) for text in (parts.path, parts.query))
    return urlunsplit((parts.scheme, host, path, query, ""))

"""http(s) URL -> bytes, bounded in size and time."""

from __future__ import annotations

import threading

from tiepoint.errors import ImageError, UnreachableError
from tiepoint.images.urls import without_credentials

TIMEOUT_S = 20.0
"""Timeout for a server that sends nothing."""

TOTAL_TIMEOUT_S = 300.0
"""Timeout of a whole download, from looking up the name to the last byte."""

MAX_BYTES = 512 * 2**20
"""Largest accepted response; a 250 Mpx JPEG has about 100 MB."""


def fetch(url: str) -> bytes:
    """Download one file over http or https; spaces and non-ASCII letters are encoded.

    A user name and password in the URL go to its own server, and into no message. The proxies of
    the environment (`http_proxy`, `https_proxy`, `no_proxy`) are used.

    The download runs on a thread of its own, because no timeout of a socket limits the look-up of
    a name, or a server that sends a byte now and then. The thread is left behind when time is up,
    and its connections are closed, which ends it.

    Raises:
        UnreachableError: Not reachable, too slow, cut short, or the server is busy.
        ImageError: Refused, not found, too large, redirected to another scheme.
    """
    from tiepoint.images.transfer import Transfer  # on first use, because its imports take 50 ms

    name = without_credentials(url)
    transfer = Transfer(url, name, timeout_s=TIMEOUT_S, max_bytes=MAX_BYTES)
    thread = threading.Thread(target=transfer.run, name="tiepoint-download", daemon=True)
    try:
        thread.start()
        thread.join(TOTAL_TIMEOUT_S)
        if thread.is_alive():
            raise UnreachableError(
                f"{name}: still not complete after {TOTAL_TIMEOUT_S:g} s "
                f"({transfer.received} bytes); download it and pass the file"
            )
    except RuntimeError as error:  # from `start`
        raise ImageError(f"{name}: no thread can be started for the download; try again") from error
    finally:
        transfer.close()
    return transfer.result()

"""One download over http or https, by the standard library; another thread may end it."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import string
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from tiepoint._version import __version__
from tiepoint.errors import ImageError, UnreachableError

_CHUNK = 1 << 16
_URL_CHARACTERS = "/%:=&?~#+!$,;'@()*[]"
MOST_REDIRECTS = 10
BUSY = (408, 425, 429)
"""Answers of a server that takes the request later, besides those from 500 on."""
_LONGEST_REASON = 200
_ANY_CREDENTIALS = re.compile(r"[^\s/'\"]+@")


class Transfer:
    """A download. `run` it on one thread; `close` and `result` are for another.

    Args:
        url: Its user name and password are sent as basic authentication.
        name: The URL in messages.
        timeout_s: Timeout for a server that sends nothing.
        max_bytes: A larger response is refused.

    Attributes:
        received: Number of bytes of the file so far.
    """

    def __init__(self, url: str, name: str, *, timeout_s: float, max_bytes: int) -> None:
        self.received = 0
        self._url, self._name = url, name
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        self._sockets: list[socket.socket] = []
        self._is_closed = False
        self._body: bytes | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Download; what it gives or raises is kept for `result`."""
        try:
            self._body = self._download()
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._error = error
        finally:
            self.close()

    def result(self) -> bytes:
        """The file, after `run`.

        Raises:
            ImageError: See `download.fetch`.
        """
        if self._error is not None:
            raise self._error
        assert self._body is not None
        return self._body

    def close(self) -> None:
        """Close all connections, whatever they wait for."""
        self._is_closed = True
        with suppress(IndexError):  # none is left; two threads may close
            while True:
                connected = self._sockets.pop()
                with suppress(OSError):  # closed by the other side
                    connected.shutdown(socket.SHUT_RDWR)
                connected.close()

    def _connect(self, *arguments: Any, **options: Any) -> socket.socket:
        """`socket.create_connection`, with a second handle for `close`: TLS takes the first one."""
        connected = socket.create_connection(*arguments, **options)
        self._sockets.append(connected.dup())
        if self._is_closed:  # while the name was looked up
            self.close()
        return connected

    def _download(self) -> bytes:
        try:
            with self._opener().open(request_of(self._url), timeout=self._timeout_s) as response:
                return self._read(response)
        except urllib.error.HTTPError as error:
            with error:
                hint = "check the address" if error.code in (404, 410) else "open it in a browser"
                is_temporary = error.code in BUSY or error.code >= 500
                raise (UnreachableError if is_temporary else ImageError)(
                    f"{self._name}: the server answered {error.code} {_shown(error.reason)}, "
                    f"expected an image; {hint}"
                ) from error
        except (ValueError, http.client.InvalidURL) as error:
            raise ImageError(f"{self._name}: {self._reason(error)}") from error
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"{self._name}: {self._reason(error)}") from error

    def _opener(self) -> urllib.request.OpenerDirector:
        """Only http and https; `build_opener` would add ftp, files and data."""
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            _Http(self._connect),
            _Https(self._connect),
            _Redirects(self._name),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(handler)
        return opener

    def _read(self, response: Any) -> bytes:
        length = response.headers.get("Content-Length", "")
        declared = int(length) if length.isdecimal() else None
        chunks = []
        while declared is None or declared <= self._max_bytes:
            chunk = response.read1(_CHUNK)
            if not chunk:
                break
            chunks.append(chunk)
            self.received += len(chunk)
            if self.received > self._max_bytes:
                break
        if max(self.received, declared or 0) > self._max_bytes:
            raise ImageError(
                f"{self._name}: larger than {self._max_bytes // 2**20} MiB, the limit for "
                "downloads; download it and pass the file"
            )
        if declared is not None and self.received < declared:
            raise UnreachableError(
                f"{self._name}: cut short after {self.received} of {declared} bytes; try again"
            )
        return b"".join(chunks)

    def _reason(self, error: Exception) -> str:
        cause = getattr(error, "reason", error)  # of a URLError
        if isinstance(cause, TimeoutError):
            limit = f"no answer within {self._timeout_s:g} s"
            return f"{limit}; try again, or download it and pass the file"
        if isinstance(error, urllib.error.URLError):
            return f"cannot be reached ({_shown(cause)}); check address, network and proxy"
        return f"the download failed ({type(error).__name__}: {_shown(error)}); check the address"


def request_of(url: str) -> urllib.request.Request:
    """The request for a URL: in ASCII as HTTP requires, its credentials in a header."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    path, query = (quote(text, safe=_URL_CHARACTERS) for text in (parts.path, parts.query))
    request = urllib.request.Request(
        urlunsplit((parts.scheme, host, path, query, "")),
        headers={"User-Agent": f"tiepoint/{__version__}", "Accept": "image/*,*/*"},
    )
    if login:
        token = base64.b64encode(unquote(login).encode()).decode("ascii")
        # Not for the server that this one may redirect to.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _shown(reason: object) -> str:
    """A reason in one short line, without the credentials of a proxy."""
    text = _ANY_CREDENTIALS.sub("", " ".join(str(reason).split()))
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


class _Redirects(urllib.request.BaseHandler):
    """Follows redirects to http and https; the library's own follows ftp, and reads their bodies.

    Credentials are sent again to the same server only.
    """

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0

    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
    ) -> Any:
        """Open the address in the header `Location`; None without one, which is an error then."""
        location = headers.get("location")
        if location is None:
            return None
        fp.close()
        self._count += 1
        if self._count > MOST_REDIRECTS:
            raise ImageError(
                f"{self._name}: more than {MOST_REDIRECTS} redirects, perhaps in a loop; open it "
                "in a browser, and pass the address where it ends"
            )
        # Headers are read as Latin-1, which keeps the bytes.
        location = quote(location, encoding="iso-8859-1", safe=string.punctuation)
        target = urljoin(req.full_url, location)
        scheme = urlsplit(target).scheme
        if scheme not in ("http", "https"):
            raise ImageError(
                f"{self._name}: the server redirects ({code}) to {_shown(scheme)}://, expected "
                "http or https; download it and pass the file"
            )
        request = request_of(target)
        login = req.unredirected_hdrs.get("Authorization")
        if login is not None and _server(target) == _server(req.full_url):
            request.add_unredirected_header("Authorization", login)
        return self.parent.open(request, timeout=req.timeout)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _server(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]


class _Http(urllib.request.HTTPHandler):
    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection: Any = partial(_connection, http.client.HTTPConnection, self._connect)
        return self.do_open(connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._connect = connect

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection: Any = partial(_connection, http.client.HTTPSConnection, self._connect)
        return self.do_open(connection, req)


def _connection(
    kind: Any, connect: Callable[..., socket.socket], *arguments: Any, **options: Any
) -> http.client.HTTPConnection:
    connection: http.client.HTTPConnection = kind(*arguments, **options)
    # The only place where the socket is known before proxy and TLS have answered.
    connection._create_connection = connect  # type: ignore[attr-defined]
    return connection

"""URLs, against servers on this machine that mean harm: each download ends, and in time."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from PIL import Image

from support.image_files import encode
from tiepoint.errors import ImageError
from tiepoint.images import download
from tiepoint.images.reading import read

PNG = encode(Image.fromarray(np.zeros((5, 7), np.uint8)), "PNG")
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
FILE = OK + b"Content-Length: %d\r\n\r\n" % len(PNG) + PNG

TOTAL_S = 0.5
LATEST_S = 10.0
"""The machine may be busy; without the deadline none of these would end."""


@contextmanager
def served(answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A server that gives each connection and the first bytes it sent to `answer`."""

    def work(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            answer(connection, connection.recv(65536))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection = listening.accept()[0]
                threading.Thread(target=work, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def drip(start: bytes, again: bytes) -> Callable[[socket.socket, bytes], None]:
    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(again)
            time.sleep(0.02)

    return answer


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TOTAL_TIMEOUT_S", TOTAL_S)
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def ends_in_time(url: str, words: str) -> None:
    start = time.monotonic()
    with pytest.raises(ImageError, match=words):
        read(url)
    assert time.monotonic() - start < LATEST_S
    threads = [t for t in threading.enumerate() if t.name == "tiepoint-download"]
    for thread in threads:
        thread.join(LATEST_S)
        assert not thread.is_alive(), "the connection was not closed"


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"HTTP/1.1 200 O", b"K"),
        (OK, b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"Content-Length: 99999\r\n\r\n", b"\x89"),
        (CHUNKED, b"1\r\nP\r\n"),
        (CHUNKED + b"1", b"0"),
        (CHUNKED + b"0\r\n", b"x: y\r\n"),
    ],
    ids=["status", "header", "100-continue", "body", "chunks", "chunk size", "trailers"],
)
def test_a_slow_or_endless_answer_ends_at_the_deadline(start: bytes, again: bytes) -> None:
    with served(drip(start, again)) as host:
        ends_in_time(f"http://{host}/a.png", "still not complete after 0.5 s|failed")


def test_endless_headers_are_refused() -> None:
    with served(drip(OK, b"x: y\r\n" * 50)) as host:
        ends_in_time(f"http://{host}/a.png", "more than 100 headers|still not complete")


def test_a_tls_handshake_has_the_deadline() -> None:
    with served(drip(b"\x16\x03\x03\x3f\x00", b"\x02")) as host:
        ends_in_time(f"https://{host}/a.png", "still not complete|cannot be reached")


def test_the_look_up_of_a_name_has_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: asked.wait(30) and [])
    start = time.monotonic()
    try:
        with pytest.raises(ImageError, match="still not complete"):
            read("http://example.invalid/a.png")
        assert time.monotonic() - start < LATEST_S
    finally:
        asked.set()


@pytest.mark.parametrize(("scheme", "start"), [("http", b"HTTP/1.1 2"), ("https", b"HTTP/1.0 2")])
def test_a_slow_proxy_has_the_deadline(
    scheme: str, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(drip(start, b"0")) as host:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://{host}")
        ends_in_time(f"{scheme}://example.invalid/a.png", "still not complete")


def test_a_proxy_gets_the_request_and_no_proxy_is_respected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def answer(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        connection.sendall(FILE)

    monkeypatch.setattr(download, "TOTAL_TIMEOUT_S", 30)
    with served(answer) as host:
        monkeypatch.setenv("http_proxy", f"http://me:secret@{host}")
        assert read("http://example.invalid/a.png").pixels.shape == (5, 7)
        assert asked[0].startswith(b"GET http://example.invalid/a.png ")
        assert base64.b64encode(b"me:secret") in asked[0]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        read(f"http://{host}/b.png")
        assert asked[1].startswith(b"GET /b.png ") and b"Proxy-" not in asked[1]


@pytest.mark.parametrize("proxy", ["ftp://me:secret@127.0.0.1:1", "socks5://me:secret@127.0.0.1:1"])
def test_a_proxy_of_another_scheme_is_refused_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ImageError, match="proxy") as caught:
        read("http://example.invalid/a.png")
    assert "secret" not in str(caught.value)


def redirect_to(location: str) -> Callable[[socket.socket, bytes], None]:
    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n".encode())

    return answer


@pytest.mark.parametrize("scheme", ["file", "ftp", "data", "gopher"])
def test_a_redirect_to_another_scheme_is_refused(scheme: str) -> None:
    with served(redirect_to(f"{scheme}://localhost/etc/passwd")) as host:
        ends_in_time(f"http://{host}/a.png", rf"redirects \(302\) to {scheme}://, expected http")


def test_a_redirect_loop_ends() -> None:
    with served(redirect_to("/a.png")) as host:
        ends_in_time(f"http://{host}/a.png", "more than 10 redirects|still not complete")


def test_the_body_of_a_redirect_is_not_read() -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        if request.startswith(b"GET /b.png"):
            return connection.sendall(FILE)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /b.png\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with served(answer) as host:
        assert read(f"http://{host}/a.png").pixels.shape == (5, 7)


def test_credentials_reach_their_own_server_and_no_name_or_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "TOTAL_TIMEOUT_S", 30)
    asked: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        if request.startswith(b"GET /moved.png"):
            return connection.sendall(b"HTTP/1.1 301 x\r\nLocation: /a.png\r\n\r\n")
        if request.startswith(b"GET /away.png"):
            host = f"localhost:{connection.getsockname()[1]}"
            moved = f"HTTP/1.1 301 x\r\nLocation: http://{host}/a.png\r\n\r\n"
            return connection.sendall(moved.encode())
        if request.startswith(b"GET /no.png"):
            return connection.sendall(b"HTTP/1.1 404 x\r\n\r\n")
        connection.sendall(FILE)

    token = base64.b64encode(b"me:se/cret")
    with served(answer) as host:
        image = read(f"http://me:se%2Fcret@{host}/moved.png")
        assert image.name == f"http://{host}/moved.png"
        assert [token in request for request in asked] == [True, True]
        read(f"http://me:se%2Fcret@{host}/away.png")
        assert [token in request for request in asked[2:]] == [True, False]
        for url in (f"http://me:secret@{host}/no.png", f"http://me:secret@{host}x/a.png"):
            with pytest.raises(ImageError) as caught:
                read(url)
            assert "secret" not in str(caught.value) and host in str(caught.value)
    for url in ("ftp://me:secret@host/a.png", "http://me:sec ret@[::1/a.png"):
        with pytest.raises(ImageError) as caught:
            read(url)
        assert "ret@" not in str(caught.value)

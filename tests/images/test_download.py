"""URLs, against a server on this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from support.image_files import encode
from tiepoint import __version__
from tiepoint.errors import ImageError
from tiepoint.images import download
from tiepoint.images.reading import read

COLOUR = np.random.default_rng(3).integers(0, 256, (9, 13, 3), dtype=np.uint8)
PNG = encode(Image.fromarray(COLOUR), "PNG")


class Handler(BaseHTTPRequestHandler):
    agents: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        type(self).agents.append(self.headers["User-Agent"])
        path = unquote(self.path)
        body, length = PNG, len(PNG)
        if path == "/missing.png":
            return self.send_error(404)
        if path == "/login.png":
            return self.send_error(403)
        if path == "/silent.png":
            time.sleep(1)
        if path in ("/moved.png", "/file.png"):
            self.send_response(302)
            self.send_header("Location", "/사진 1.png" if path == "/moved.png" else "file:///etc")
            if path == "/moved.png":
                self.headers.replace_header("Host", "x")
            self.end_headers()
            return None
        if path == "/short.png":
            length += 100
        if path == "/page.png":
            body, length = b"<html>" * 9, 54
        if path == "/empty.png":
            body, length = b"", 0
        if path == "/nonsense.png":
            self.wfile.write(b"\x00\x01\x02\r\n\r\n")
            return None
        self.send_response(200)
        if path != "/endless.png":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        while path == "/endless.png":
            self.wfile.write(b"\x89PNG" * 4)
            time.sleep(0.005)
        self.wfile.write(body)
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]
        http.block_on_close = False
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("path", ["a.png", "사진 1.png", "a%20b.png?size=1&k=가", "A.PNG#part"])
def test_a_url_is_read_and_named(server: str, path: str) -> None:
    result = read(f"{server}/{path}")
    assert result.name == f"{server}/{path}"
    np.testing.assert_array_equal(result.pixels, COLOUR)
    assert Handler.agents[-1] == f"tiepoint/{__version__}"


def test_the_scheme_may_be_written_in_capitals(server: str) -> None:
    np.testing.assert_array_equal(read(server.replace("http", "HTTP") + "/a.png").pixels, COLOUR)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.png", "404"),
        ("login.png", "403"),
        ("short.png", "cut short"),
        ("page.png", "not an image"),
        ("empty.png", "empty"),
        ("nonsense.png", "failed"),
        ("file.png", "302"),
    ],
)
def test_a_bad_answer_is_refused_with_the_url(server: str, path: str, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        read(f"{server}/{path}")
    assert f"{server}/{path}" in str(caught.value)


def test_a_silent_server_is_given_up(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    with pytest.raises(ImageError, match=r"no answer within 0\.2 s"):
        read(f"{server}/silent.png")


def test_a_trickle_is_given_up(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TOTAL_TIMEOUT_S", 0.3)
    with pytest.raises(ImageError, match="still not complete"):
        read(f"{server}/endless.png")


@pytest.mark.parametrize("path", ["a.png", "endless.png"])
def test_a_large_answer_is_refused(server: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match="limit for downloads"):
        read(f"{server}/{path}")


def test_a_refused_connection_is_reported() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ImageError, match="cannot be reached"):
            read(f"http://127.0.0.1:{port}/a.png")


@pytest.mark.parametrize("url", ["http://", "http://[::1/a.png", "http://127.0.0.1:x/a.png",
                                 "https://a..b/c.png", f"http://{'가' * 80}/a.png"])  # fmt: skip
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(ImageError, match="http"):
        read(url)

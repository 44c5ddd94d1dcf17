"""URLs: shown without credentials, which go to their own host alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import cv2
import numpy as np
import pytest

from tiepoint.errors import ImageError
from tiepoint.images import read
from tiepoint.images.urls import is_url, without_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.org/x.png", "https://a.org/x.png"),
        ("https://me:secret@a.org/x.png", "https://a.org/x.png"),
        ("HTTP://secret@a.org:80/x.png", "HTTP://a.org:80/x.png"),
        ("http://me:se@cret@a.org/x@2x.png", "http://a.org/x@2x.png"),
        ("http://me:se/cret@a.org/x.png", "http://a.org/x.png"),
        ("ftp://me:secret@a.org/x.png", "ftp://a.org/x.png"),
        ("http://me:secret@[::1/x.png", "http://[::1/x.png"),
        (
            "https://a.org/x?id=1&access_token=secret&w=5",
            "https://a.org/x?id=1&access_token=***&w=5",
        ),
        ("https://a.org/x?X-Amz-Signature=secret#top", "https://a.org/x?X-Amz-Signature=***#top"),
        ("https://a.org/x?monkey=banana", "https://a.org/x?monkey=banana"),
        ("http://a.org:8080/@me/x.png", "http://a.org:8080/@me/x.png"),
        ("folder/me:secret@x.png", "folder/me:secret@x.png"),
        ("http://a://me:secret@a.org/x.png", "http://a://a.org/x.png"),
        ("https://a.org/x?q=y?token=secret", "https://a.org/x?q=y?token=***"),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
    message = f"cannot read {url!r}: no such host"
    assert without_credentials(message) == f"cannot read {shown!r}: no such host"


def test_a_password_with_a_blank_or_after_an_apostrophe_is_not_shown() -> None:
    assert without_credentials("see ftp://o'neil:secret@a.org/") == "see ftp://a.org/"
    assert without_credentials("http://me:sec ret@[::1/x.png") == "http://[::1/x.png"


@pytest.mark.parametrize(
    "part", ["http://a:b", "://", "://a:", "@http://", "http://a:b@", "?token-", "token-", "?a."]
)
def test_a_long_text_is_searched_for_credentials_in_linear_time(part: str) -> None:
    start = time.process_time()
    without_credentials("ftp://a?" + part * 50_000)
    assert time.process_time() - start < 3


def test_an_overlong_url_is_refused_before_it_is_fetched() -> None:
    with pytest.raises(ImageError, match="a URL of 8020 characters, more than the limit of 8000"):
        read("http://127.0.0.1:1/".ljust(8020, "x"))


def test_paths_and_urls_are_told_apart() -> None:
    assert is_url("http://a.org") and is_url("HTTPS://a.org/x")
    assert not is_url("http.png") and not is_url("ftp://a.org") and not is_url("./http://x")


class Guarded(BaseHTTPRequestHandler):
    """Serves a picture to one user, and sends everybody from /away to another host."""

    asked: list[tuple[str, str | None]]
    away = ""

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization")
        self.asked.append((self.path, authorization))
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", self.away)
            self.end_headers()
            return
        allowed = authorization == "Basic bWU6c2VjcmV0" or self.path == "/open.png"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        if allowed:
            self.wfile.write(cv2.imencode(".png", np.zeros((8, 9), np.uint8))[1].tobytes())

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = HTTPServer(("127.0.0.1", 0), Guarded)
    Guarded.asked = []
    Guarded.away = f"http://localhost:{server.server_port}/open.png"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_image_behind_a_password_is_read_and_named_without_it(server: HTTPServer) -> None:
    place = f"127.0.0.1:{server.server_port}/x.png"
    image = read(f"http://me:secret@{place}")
    assert image.size_hw == (8, 9) and image.name == f"http://{place}"


def test_credentials_do_not_follow_a_redirect(server: HTTPServer) -> None:
    read(f"http://me:secret@127.0.0.1:{server.server_port}/away")
    assert Guarded.asked == [("/away", "Basic bWU6c2VjcmV0"), ("/open.png", None)]


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret@127.0.0.1:1/x.png",
        "http://me:secret@[::1/x.png",
        "http://me:secret@127.0.0.1:port/x.png",
        "http://me:secret@\u2100.example/x.png",
        "http://me:sec/ret@127.0.0.1:1/x.png",
        "http://127.0.0.1:1/x.png?token=secret",
        "ftp://me:secret@a.org/x.png",
    ],
)
def test_no_error_names_a_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ImageError) as caught:
        read(url)
    assert "secret" not in str(caught.value) and "ret@" not in str(caught.value)

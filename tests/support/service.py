"""A running service for tests, and a client that sends multipart forms as they are."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from fastapi import APIRouter, FastAPI, Request, Response
from numpy.typing import NDArray

from tiepoint.service.answers import Answer
from tiepoint.service.app import make_app
from tiepoint.service.server import StoppableServer, listen
from tiepoint.service.service import service_of
from tiepoint.service.settings import LimitConfig, ServiceSettings

BOUNDARY = "tiepoint-test-boundary"
SMALL = ServiceSettings(checkpoints=("small",), precision="f32", device="cpu")
PATIENCE_S = 60


class Part(NamedTuple):
    """A part of a form; a file if it has a file's name."""

    name: str
    value: bytes | str
    filename: str | None = None


def form(*parts: Part) -> bytes:
    """The body of a multipart request."""
    lines = []
    for name, value, filename in parts:
        named = f'; filename="{filename}"' if filename is not None else ""
        data = value.encode() if isinstance(value, str) else value
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        lines.append(head.encode() + data + b"\r\n")
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The one shape of errors, which is checked."""
        answer = self.json()
        assert list(answer) == ["error"] and {"code", "message"} <= set(answer["error"])
        assert self.headers["content-type"] == "application/json"
        error: dict[str, Any] = answer["error"]
        return error


@dataclass
class Client:
    """Sends requests to one port, each on its own connection."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = PATIENCE_S,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.request("GET", path, headers=headers)

    def post(
        self, path: str, *parts: Part, headers: Mapping[str, str] | None = None, **texts: Any
    ) -> Reply:
        """Send a form: parts, and fields by keyword; bytes are files."""
        given = [
            Part(name, value, f"{name}.png") if isinstance(value, bytes) else Part(name, str(value))
            for name, value in texts.items()
        ]
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        return self.request("POST", path, form(*parts, *given), {**kind, **(headers or {})})

    def socket(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)


class Served(NamedTuple):
    """A running service."""

    client: Client
    app: FastAPI
    server: StoppableServer


@contextmanager
def serving(
    settings: ServiceSettings = SMALL, routers: Sequence[APIRouter] = (), **limits: Any
) -> Iterator[Served]:
    """A service in a thread of this process; `limits` replace those of the settings."""
    if limits:
        settings = replace(settings, limits=replace(settings.limits, **limits))
    app = make_app(settings, routers)
    server = StoppableServer(app)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Served(Client(listener.getsockname()[1]), app, server)
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


class Gate:
    """A route, /wait, whose requests run until the gate is opened.

    Attributes:
        opened: Set it, and they end.
        begun: Released once for each that has begun.
    """

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun = threading.Semaphore(0)
        self.router = APIRouter()
        self.router.add_api_route("/wait", self._wait, methods=["POST"])

    async def _wait(self, request: Request) -> Response:
        await request.body()
        return await service_of(request).answer(request, (), self._work)

    def _work(self) -> Answer:
        self.begun.release()
        assert self.opened.wait(PATIENCE_S)
        return Answer(b"{}", "json")


@contextmanager
def gated(**limits: Any) -> Iterator[tuple[Served, Gate]]:
    """A service with a gate, which is opened at the end."""
    gate = Gate()
    with serving(SMALL, [gate.router], **limits) as served:
        try:
            yield served, gate
        finally:
            gate.opened.set()


def picture(seed: int = 0, size_hw: tuple[int, int] = (120, 160)) -> NDArray[np.uint8]:
    """An image with keypoints, another one for each seed; H W 3."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size_hw[0] // 8, size_hw[1] // 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """RGB pixels as a PNG file."""
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return bytes(cv2.imencode(".png", bgr)[1].tobytes())


def until(condition: Any, seconds: float = 20) -> bool:
    """Wait for a condition; whether it came true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


__all__ = [
    "BOUNDARY", "PATIENCE_S", "SMALL", "Client", "Gate", "LimitConfig", "Part", "Reply", "Served",
    "form", "gated", "picture", "png", "serving", "until",
]  # fmt: skip

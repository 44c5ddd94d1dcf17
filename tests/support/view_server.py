"""A running page of `tiepoint view`, images and features to show on it, and plain requests."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import tiepoint
from support.registered import SIZE_HW, two_views
from tiepoint.features import Features
from tiepoint.geometry import apply_homography
from tiepoint.service.server import StoppableServer, listen
from tiepoint.service.view import serving
from tiepoint.service.view.guard import Guard
from tiepoint.service.view.session import Session

Image = NDArray[np.uint8]

MATRIX = np.array([[0.95, 0.1, 20.0], [-0.1, 0.95, 30.0], [0, 0, 1.0]])
"""A to B of `write_pair`, px."""


@dataclass(frozen=True)
class Answer:
    """What a request was answered with."""

    status: int
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A running page."""

    guard: Guard
    session: Session

    @property
    def root(self) -> str:
        """The page without its token."""
        return f"http://127.0.0.1:{self.guard.port}/"

    def request(
        self,
        path: str,
        *,
        method: str = "GET",
        token: str | None = "",
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request with the session's token as cookie, or another one, or None."""
        sent = dict(headers or {})
        if token is not None:
            sent["Cookie"] = f"{self.guard.cookie}={token or self.guard.token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.guard.port, timeout=60)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, body=data, headers=sent)
        response = connection.getresponse()
        kept = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, response.read(), kept)
        connection.close()
        return answer


@contextmanager
def serving_of(session: Session) -> Iterator[Served]:
    """Serve a session from a thread."""
    with listen(serving.ADDRESS, 0) as bound:
        guard = Guard(bound.getsockname()[1])
        server = StoppableServer(serving.make_app(session, guard))
        thread = threading.Thread(target=lambda: server.run(sockets=[bound]), daemon=True)
        thread.start()
        try:
            yield Served(guard, session)
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(10)


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Meta and arrays of `payload.packed`, read in another way than the page does."""
    length = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + length])
    arrays, start = {}, 4 + length
    for name, (rows, columns) in head["arrays"].items():
        size = 4 * rows * columns
        arrays[name] = np.frombuffer(data[start : start + size], "<f4").reshape(rows, columns)
        start += size
    assert start == len(data)
    return head["meta"], arrays


def scene(seed: int, size_hw: tuple[int, int]) -> Image:
    """Smooth noise of three colours, on which keypoints are found."""
    height, width = size_hw
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def write_image(path: Path, pixels: Image) -> Path:
    """Write RGB pixels as PNG."""
    assert cv2.imwrite(str(path), pixels[..., ::-1])
    return path


def write_features(path: Path, image: Path, xy: Any, size_hw: tuple[int, int]) -> Path:
    """Features at chosen places, with falling scores, covariances and scales."""
    points = np.asarray(xy, np.float32).reshape(-1, 2)
    count = len(points)
    rng = np.random.default_rng(count)
    vectors = rng.normal(size=(count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    features = Features(
        points,
        np.linspace(0.9, 0.1, count, dtype=np.float32),
        vectors,
        size_hw,
        meta={"source": str(image)},
        covariance=np.tile(np.array([[0.25, 0.1], [0.1, 0.16]], np.float32), (count, 1, 1)),
        scales_px=np.where(np.arange(count) % 2, 2, 1).astype(np.float32),
    )
    tiepoint.save(features, path)
    return path


def write_two_views(folder: Path) -> list[str]:
    """Features of two views of a scene with depth by `registered.CAMERA`, and their matches.

    The last 20 of 200 are wrong. The images are dark.
    """
    size_hw = SIZE_HW
    a, b = two_views(noise_px=0.3)
    rng = np.random.default_rng(8)
    b[180:] += rng.uniform(30, 60, (20, 2))
    dark = write_image(folder / "dark.png", np.full((*size_hw, 3), 20, np.uint8))
    for name, xy in (("a", a), ("b", b)):
        write_features(folder / f"{name}.npz", dark, xy, size_hw)
    pairs = np.stack([np.arange(200)] * 2, axis=1)
    scores = np.linspace(1, 0.5, 200, dtype=np.float32)
    tiepoint.save_matches(tiepoint.Matches(pairs, scores), folder / "matches.npz")
    return [str(folder / name) for name in ("a.npz", "b.npz", "matches.npz")]


def write_pair(folder: Path) -> list[str]:
    """Two features files and their matches, of which the last ten are wrong."""
    size_hw, rng = (240, 320), np.random.default_rng(5)
    a = rng.uniform((20, 20), (240, 180), (80, 2))
    b = apply_homography(MATRIX, a)
    b[70:] += rng.uniform(25, 40, (10, 2))
    picture = scene(3, size_hw)
    warped = cv2.warpPerspective(picture, MATRIX, size_hw[::-1])
    pictures = {"a": picture, "b": np.asarray(warped // 2, np.uint8)}
    for name, xy in (("a", a), ("b", b)):
        image = write_image(folder / f"{name}.png", pictures[name])
        write_features(folder / f"{name}.npz", image, xy, size_hw)
    pairs = np.stack([np.arange(80)] * 2, axis=1)
    scores = np.linspace(1, 0.5, 80, dtype=np.float32)
    tiepoint.save_matches(tiepoint.Matches(pairs, scores), folder / "matches.npz")
    return [str(folder / name) for name in ("a.npz", "b.npz", "matches.npz")]

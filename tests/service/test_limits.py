"""Bytes, pixels, work, time and the queue are bounded."""

from __future__ import annotations

import json
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from support.service import (
    BOUNDARY,
    Part,
    form,
    gated,
    picture,
    png,
    serving,
    until,
)

KIND = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def png_bomb(width: int, height: int, rows: int) -> bytes:
    """A PNG file whose header has more pixels than its data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes((width + 1) * rows))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff_bomb(folder: Path) -> bytes:
    path = folder / "bomb.tif"
    tifffile.imwrite(path, np.zeros((8000, 8000), np.uint8), compression="zlib")
    return path.read_bytes()


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    with serving(max_pixels=1_000_000) as served:
        client = served.client
        for name, bomb in {
            "image": png_bomb(30_000, 30_000, 10),
            "mask": png_bomb(65_000, 65_000, 1),
        }.items():
            images = {"image": png(picture()), name: bomb}
            start = time.process_time()
            answer = client.post("/detect", **images)
            assert time.process_time() - start < 1
            assert (answer.status, answer.error["code"]) == (413, "too_many_pixels")
            assert answer.error["part"] == name and "TIEPOINT" not in answer.error["message"]
        answer = client.post("/match", a=png(picture()), b=tiff_bomb(tmp_path))
        assert (answer.status, answer.error["part"]) == (413, "b")
        assert client.post("/detect", image=png(picture())).status == 200


def test_an_image_of_just_the_limit_is_read() -> None:
    with serving(max_pixels=120 * 160) as served:
        assert served.client.post("/detect", image=png(picture(0, (120, 160)))).status == 200
        assert served.client.post("/detect", image=png(picture(0, (128, 160)))).status == 413


@pytest.mark.parametrize(
    "settings",
    [{"scales": "2,1.9,1.8"}, {"phases": 4, "max_side": "none"}, {"scales": "1,0.9", "phases": 2}],
)
def test_work_is_bounded_over_all_scales_and_phases(settings: dict[str, object]) -> None:
    with serving(max_input_pixels=2 * 120 * 160) as served:
        answer = served.client.post("/detect", image=png(picture()), **settings)
        assert (answer.status, answer.error["code"]) == (413, "too_many_input_pixels")
        for path in ("/match", "/register"):
            images = {"a": png(picture()), "b": png(picture())}
            assert served.client.post(path, **images, **settings).status == 413
        for methods in ("small", "sift"):  # at 120x160 px just within the limit
            images = {"a": png(picture(0, (240, 320))), "b": png(picture())}
            answer = served.client.post("/compare", **images, methods=methods)
            assert (answer.status, answer.error["code"]) == (413, "too_many_input_pixels")
        smaller = served.client.post("/detect", image=png(picture()), scales="1", phases=1)
        assert smaller.status == 200


def test_a_thin_image_counts_as_the_cells_that_it_takes() -> None:
    """The network pads a row of pixels to eight rows; 12 kB of PNG would take 10 GB."""
    one = {"scales": "1", "phases": 1}
    with serving(max_input_pixels=10_000) as served:
        for thin in (np.zeros((1, 2000), np.uint8), np.zeros((2000, 1), np.uint8)):
            answer = served.client.post("/detect", image=png(thin), max_side=2000, **one)
            assert (answer.status, answer.error["code"]) == (413, "too_many_input_pixels")
            answer = served.client.post("/detect", image=png(thin), max_side=1000, **one)
            assert answer.status == 200


def test_bytes_are_bounded_by_the_header_and_where_it_has_no_length() -> None:
    with serving(max_bytes=20_000) as served:
        client = served.client
        body = form(Part("image", bytes(30_000), "a.png"))
        answer = client.request("POST", "/detect", body, KIND)
        assert (answer.status, answer.error["limit_bytes"]) == (413, 20_000)
        pieces = (body[i : i + 1000] for i in range(0, len(body), 1000))
        chunked = client.request("POST", "/detect", pieces, KIND)
        assert (chunked.status, chunked.error["code"]) == (413, "too_many_bytes")
        assert client.post("/detect", image=png(picture(0, (40, 40)))).status == 200


def test_a_refused_body_is_not_waited_for() -> None:
    with serving(max_bytes=1000) as served, served.client.socket() as connection:
        head = "POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n"
        connection.sendall(head.encode())
        assert b"413" in connection.recv(1000)
        assert until(lambda: served.app.state.service.work.taken == 0)


def test_one_request_more_than_places_gets_429_and_the_others_are_answered() -> None:
    with gated(workers=1, queue=2) as (served, gate), ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(served.client.post, "/wait") for _ in range(3)]
        work = served.app.state.service.work
        assert until(lambda: work.taken == 3)
        refused = served.client.post("/detect", image=png(picture()))
        assert (refused.status, refused.error["code"]) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) == refused.error["retry_after_seconds"] >= 1
        assert served.client.get("/health/ready").status == 200  # full, and not broken
        gate.opened.set()
        assert [one.result().status for one in waiting] == [200] * 3
        assert until(lambda: work.taken == 0)
        assert served.client.post("/detect", image=png(picture())).status == 200


def test_who_waits_too_long_gets_503_and_who_runs_too_long_504_and_keeps_the_place() -> None:
    with gated(workers=1, queue=1, timeout_seconds=1) as (served, gate):
        with ThreadPoolExecutor(2) as threads:
            answers = [threads.submit(served.client.post, "/wait") for _ in range(2)]
            statuses = sorted(one.result().status for one in answers)
        assert statuses == [503, 504]
        codes = {one.result().error["code"] for one in answers}
        assert codes == {"waited_too_long", "too_slow"}
        work = served.app.state.service.work
        assert until(lambda: work.taken == 1)  # the thread that cannot be stopped
        with ThreadPoolExecutor(1) as threads:
            late = threads.submit(served.client.post, "/wait")
            assert until(lambda: work.taken == 2)
            assert served.client.post("/wait").status == 429
            assert late.result().status == 503
        gate.opened.set()
        assert until(lambda: work.taken == 0)
        assert served.client.post("/wait").status == 200


def test_a_client_that_leaves_gives_its_place_back() -> None:
    with gated(workers=1, queue=1) as (served, gate):
        work = served.app.state.service.work
        with served.client.socket() as running, served.client.socket() as waiting:
            post = b"POST /wait HTTP/1.1\r\nHost: localhost\r\n\r\n"
            running.sendall(post)
            assert gate.begun.acquire(timeout=30)
            waiting.sendall(post)
            assert until(lambda: work.taken == 2)
        assert until(lambda: work.taken == 1)  # what waited is forgotten, what runs is not
        gate.opened.set()
        assert until(lambda: work.taken == 0)


def test_a_client_that_reads_after_sending_all_gets_the_refusal() -> None:
    body = form(Part("image", bytes(8_000_000), "a.png"))
    with gated(workers=1, queue=0) as (served, gate), ThreadPoolExecutor(21) as threads:
        running = threads.submit(served.client.post, "/wait")
        assert gate.begun.acquire(timeout=30)
        send = [
            threads.submit(served.client.request, "POST", "/detect", body, KIND) for _ in range(20)
        ]
        assert [one.result().status for one in send] == [429] * 20
        gate.opened.set()
        assert running.result().status == 200


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_refusal_reaches_a_client_that_keeps_no_connection(version: str) -> None:
    """nginx asks like this by default; a reset would take the answer away."""
    body = form(Part("image", bytes(8_000_000), "a.png"))
    head = f"POST /detect HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: {KIND['Content-Type']}\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(max_bytes=1_000_000, receive_seconds=2) as served:
        for _ in range(5):
            with served.client.socket() as connection:
                connection.sendall(head.encode() + body)
                answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            assert answer.startswith(b"HTTP/1.1 413") and b"too_many_bytes" in answer
        with served.client.socket() as connection:  # sends no end
            connection.sendall(head.encode() + body[:-9])
            start = time.monotonic()
            assert until(lambda: served.server.server_state.connections)
            assert until(lambda: not served.server.server_state.connections)
            assert time.monotonic() - start < 10
        assert served.app.state.work.taken == 0


def test_one_connection_more_than_the_limit_is_refused() -> None:
    with serving(connections=2) as served, served.client.socket(), served.client.socket():
        assert until(lambda: len(served.server.server_state.connections) == 2)
        with served.client.socket() as third:
            head, _, body = third.recv(4000).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            assert json.loads(body)["error"]["code"] == "too_many_connections"
    with serving(connections=2) as served:
        for _ in range(5):
            assert served.client.get("/health").status == 200
            assert until(lambda: not served.server.server_state.connections)


def test_large_inputs_run_one_at_a_time_beside_small_ones() -> None:
    with serving(workers=3) as served, ThreadPoolExecutor(1) as threads:
        image = png(picture(0, (1200, 1000)))
        fields = {"phases": 1, "max_keypoints": 5}
        with served.app.state.service.work.large:  # as if one were running
            late = threads.submit(served.client.post, "/detect", image=image, scales=1.6, **fields)
            assert served.client.post("/detect", image=image, scales=1, **fields).status == 200
            assert until(lambda: served.app.state.service.work.taken == 1) and not late.done()
        assert late.result().status == 200

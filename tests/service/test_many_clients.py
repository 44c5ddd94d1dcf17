"""Many clients at once: right answers, one's own, in bounded memory, and nothing left behind."""

from __future__ import annotations

import gc
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import tiepoint
from support.service import (
    BOUNDARY,
    Client,
    Part,
    Reply,
    form,
    gated,
    picture,
    png,
    serving,
    until,
)
from tiepoint import Detector
from tiepoint.images.reading import NamedBytes

CLIENTS = 100


def test_a_hundred_clients_get_their_own_right_answers(detector: Detector) -> None:
    """Each the same bits as alone, whatever runs beside it."""
    sizes = [(120, 160), (96, 200), (160, 96), (136, 136)]
    images = [png(picture(seed, sizes[seed % len(sizes)])) for seed in range(CLIENTS)]
    expected = [detector(image, max_keypoints=50) for image in images]
    assert len({features.xy.tobytes() for features in expected}) == CLIENTS
    with serving(workers=4, queue=CLIENTS, timeout_seconds=300) as served:
        start = threading.Barrier(CLIENTS)

        def ask(index: int) -> Reply:
            start.wait()
            part = Part("image", images[index], f"{index}.png")
            return served.client.post("/detect", part, max_keypoints=50)

        with ThreadPoolExecutor(CLIENTS) as threads:
            answers = list(threads.map(ask, range(CLIENTS)))
        alone = [ask_alone(served.client, images[index], index) for index in range(5)]
    for index, (answer, features) in enumerate(zip(answers, expected, strict=True)):
        assert answer.status == 200
        values = answer.json()
        assert values["meta"]["source"] == f"{index}.png"
        np.testing.assert_array_equal(np.float32(values["xy"]), features.xy)
        np.testing.assert_array_equal(np.float32(values["scores"]), features.scores)
        np.testing.assert_array_equal(np.float32(values["descriptors"]), features.descriptors)
    assert [answer.body for answer in answers[:5]] == [answer.body for answer in alone]


def ask_alone(client: Client, image: bytes, index: int) -> Reply:
    return client.post("/detect", Part("image", image, f"{index}.png"), max_keypoints=50)


def test_more_clients_than_places_get_answers_or_429_and_all_succeed_by_trying_again() -> None:
    with serving(workers=2, queue=3) as served:
        work, most = served.app.state.service.work, 0
        images = [png(picture(seed)) for seed in range(40)]
        statuses: Counter[int] = Counter()

        def ask(index: int) -> int:
            while True:
                answer = served.client.post("/detect", image=images[index], max_keypoints=5)
                statuses[answer.status] += 1
                if answer.status != 429:
                    return answer.status
                time.sleep(0.05 * int(answer.headers["Retry-After"]))

        with ThreadPoolExecutor(40) as threads:
            answers = [threads.submit(ask, index) for index in range(40)]
            while not all(one.done() for one in answers):
                most = max(most, work.taken)
                time.sleep(0.001)
        assert {one.result() for one in answers} == {200}
        assert set(statuses) <= {200, 429} and statuses[429] > 0
        assert 0 < most <= 5


def test_answers_of_two_images_beside_each_other_are_those_alone() -> None:
    views = [view.read_bytes() for view in tiepoint.sample_views()]
    with serving(workers=4, timeout_seconds=300) as served:

        def ask(index: int) -> bytes:
            a, b = views if index % 6 < 3 else views[::-1]
            path = ("/register", "/match", "/compare")[index % 3]
            parts = Part("a", a, "a"), Part("b", b, "b")
            answer = served.client.post(path, *parts, max_side=300, max_keypoints=200)
            assert answer.status == 200
            return answer.body

        alone = [ask(index) for index in range(6)]
        with ThreadPoolExecutor(12) as threads:
            together = list(threads.map(ask, range(12)))
        assert together == alone * 2


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_no_file_of_a_request_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def of_requests() -> list[str]:
        links = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # closed since
                links.append(str(descriptor.readlink()))
        return [link for link in links if str(tmp_path) in link]

    large = bytes(3_000_000)  # beyond what is kept in memory
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    whole = form(Part("image", large, "a.png"))
    with gated() as (served, _), served.client.socket() as connection:
        client = served.client
        head = f"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind['Content-Type']}"
        connection.sendall(f"{head}\r\nContent-Length: {len(whole)}\r\n\r\n".encode() + whole[:-99])
        assert until(of_requests)  # a file while the body arrives
        connection.close()
        assert client.post("/detect", image=large).status == 422
        assert client.post("/detect", image=png(picture()) + large).status == 200
        assert client.post("/match", a=large, b=large).status == 422
        assert client.post("/match", a=large).status == 422
        assert client.post("/detect", image=large, unknown="1").status == 422
        assert client.post("/detect", mask=large, image=large, threshold="9").status == 422
        assert client.request("POST", "/detect", whole[:-99], kind).status == 400
        assert until(lambda: not of_requests())
        assert list(tmp_path.iterdir()) == []


def test_no_upload_is_kept_in_memory() -> None:
    with serving() as served:
        mark = np.random.default_rng(7).integers(0, 256, 4096, np.uint8).tobytes()
        assert served.client.post("/detect", image=png(picture()) + mark).status == 200
        assert until(lambda: served.app.state.service.work.taken == 0)
        gc.collect()
        assert not held(mark)
        kept = NamedBytes(mark, "kept")
        assert held(mark) == [kept]


def held(mark: bytes) -> list[NamedBytes]:
    """Uploads that are in memory and contain a mark."""
    uploads = [one for one in gc.get_objects() if isinstance(one, NamedBytes)]
    return [one for one in uploads if mark in one]


def test_requests_are_counted_by_route_and_status_and_never_by_path() -> None:
    with serving() as served:
        client = served.client
        client.post("/detect", image=png(picture()))
        client.post("/detect", image=b"")
        for index in range(20):
            client.get(f"/unknown-{index}")
        client.get("/health", {"Host": "evil.example"})
        text = client.get("/metrics").body.decode()
    assert 'tiepoint_requests_total{route="/detect",status="200"} 1.0' in text
    assert 'tiepoint_requests_total{route="/detect",status="422"} 1.0' in text
    assert 'tiepoint_requests_total{route="other",status="404"} 20.0' in text
    assert 'tiepoint_requests_total{route="other",status="421"} 1.0' in text
    assert 'tiepoint_request_seconds_count{route="/detect"} 2.0' in text
    assert "tiepoint_requests_in_flight 0.0" in text and "unknown-" not in text

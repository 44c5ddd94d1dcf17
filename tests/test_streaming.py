"""Many images through one detector: order, threads, memory, failures."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiepoint.detector import Detector
from tiepoint.errors import EngineError, ImageError
from tiepoint.features import Features
from tiepoint.network.engines import MOST_STREAMS
from tiepoint.streaming import READ_AHEAD


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(max_side=320, device="cpu")


def test_a_stream_keeps_order_and_reads_only_a_few_images_ahead(detector: Detector) -> None:
    asked = []

    def sources():
        for number in range(100):
            asked.append(number)
            yield np.full((16, 16), number, np.uint8)

    stream = detector.stream(sources())
    for number, (source, features) in zip(range(5), stream, strict=False):
        assert source[0, 0] == number and isinstance(features, Features)
    assert len(asked) <= 5 + READ_AHEAD + 2 * MOST_STREAMS
    stream.close()


def test_many_images_at_once_give_what_each_gives_alone(photographs) -> None:
    """More images than streams: several are in work at once, each on a part of the cores."""
    detector = Detector(device="cpu", max_side=256)
    images = [*photographs, b"no image", *(image[::-1] for image in photographs)]
    found = list(detector.stream(iter(images), on_error="return"))
    assert [source is image for (source, _), image in zip(found, images, strict=True)]
    for image, (_, together) in zip(images, found, strict=True):
        if isinstance(image, bytes):
            assert isinstance(together, ImageError)
        else:
            alone = detector(image)
            np.testing.assert_allclose(alone.xy, together.xy, atol=1e-3)
            np.testing.assert_allclose(alone.descriptors, together.descriptors, atol=1e-4)


class Watched:
    """A runtime that notes how many calls are inside at once, and may fail in company."""

    def __init__(self, network, fails: bool = False) -> None:
        self._network, self._fails, self._lock = network, fails, threading.Lock()
        self.inside, self.most, self.calls = 0, 0, 0

    def __call__(self, *arguments):
        with self._lock:
            self.inside, self.calls = self.inside + 1, self.calls + 1
            self.most = max(self.most, self.inside)
        try:
            if self._fails:
                raise RuntimeError("bad allocation")
            return self._network(*arguments)
        finally:
            with self._lock:
                self.inside -= 1

    def __getattr__(self, name):
        return getattr(self._network, name)


def watched(detector: Detector, monkeypatch, fails: bool = False) -> tuple[Watched, Watched]:
    """(alone, among others) of a detector that works on several images at once."""
    monkeypatch.setattr("tiepoint.network.engines._cores", lambda: 3)
    alone = Watched(detector._network())
    among = Watched(detector._network(many=True), fails)
    detector._runtimes = {False: alone, True: among}
    return alone, among


def test_large_images_are_worked_on_one_at_a_time(photographs, monkeypatch) -> None:
    monkeypatch.setattr("tiepoint.detector.LARGE_PX", 64 * 64)
    detector = Detector(device="cpu", max_side=None, scales=(1,))
    alone, among = watched(detector, monkeypatch)
    large, small = photographs[0], photographs[0][:64, :64]
    found = list(detector.stream(iter([large, small, large, large, small, large])))
    assert len(found) == 6
    assert (alone.calls, alone.most, among.calls) == (4, 1, 2)


def test_what_fails_in_company_is_tried_again_alone(photographs, monkeypatch) -> None:
    detector = Detector(device="cpu", max_side=64, scales=(1,))
    alone, among = watched(detector, monkeypatch, fails=True)
    found = list(detector.stream(iter(photographs)))
    assert all(isinstance(features, Features) for _, features in found)
    assert (among.calls, alone.calls, alone.most) == (4, 4, 1)


def test_threads_that_start_together_compile_one_network(photographs, monkeypatch) -> None:
    from tiepoint.network import openvino_engine

    built, real = [], openvino_engine.build_model
    monkeypatch.setattr("tiepoint.network.engines._cores", lambda: 4)
    monkeypatch.setattr(
        openvino_engine,
        "build_model",
        lambda *a, **k: (built.append(k["descriptors"]), real(*a, **k))[1],
    )
    detector = Detector(device="cpu", max_side=64)
    found = list(detector.stream(iter([*photographs, *photographs]), descriptors=False))
    assert all(features.descriptors is None for _, features in found)
    assert built.count(False) == 1


@pytest.mark.parametrize("kind", ["file", "picture", "function"])
def test_one_mask_for_all_is_used_by_one_thread_at_a_time(
    kind: str, photographs, tmp_path: Path, monkeypatch
) -> None:
    """An open file and a lazily opened picture have a place; a function may have more."""
    monkeypatch.setattr("tiepoint.network.engines._cores", lambda: 4)
    image = photographs[0][:96, :96]
    allowed = np.zeros((96, 96), np.uint8)
    allowed[:, 48:] = 255
    Image.fromarray(allowed).save(tmp_path / "mask.png")
    inside = []

    def function(source):
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.002)
        inside.pop()
        return allowed

    mask = {
        "file": lambda: (tmp_path / "mask.png").open("rb"),
        "picture": lambda: Image.open(tmp_path / "mask.png"),
        "function": lambda: function,
    }[kind]()
    detector = Detector(device="cpu", threshold=0.0)
    found = list(detector.stream(iter([image] * 12), mask=mask))
    assert all(len(features) and features.xy[:, 0].min() > 44 for _, features in found)


def test_a_stream_that_is_closed_or_fails_leaves_no_thread_at_work(photographs) -> None:
    detector = Detector(device="cpu", max_side=64)
    stream = detector.stream(iter(photographs * 5))
    next(stream)
    stream.close()

    def wrong(source):
        raise ValueError("the caller's own mistake")

    with pytest.raises(ValueError, match="own mistake"):
        list(detector.stream(iter(photographs * 3), mask=wrong))
    assert not [t for t in threading.enumerate() if t.name.startswith("tiepoint-ahead")]


def test_a_stream_may_be_followed_by_pickling_and_a_fork(photographs) -> None:
    detector = Detector(device="cpu", max_side=64)
    before = [features for _, features in detector.stream(iter(photographs))]
    again = pickle.loads(pickle.dumps(detector))
    for features, (_, other) in zip(before, again.stream(iter(photographs)), strict=True):
        np.testing.assert_allclose(features.xy, other.xy, atol=1e-3)


def test_a_stream_can_hand_over_the_error_itself(detector: Detector) -> None:
    found = list(detector.stream([np.zeros((9, 9), np.uint8), b""], on_error="return"))
    assert isinstance(found[0][1], Features) and isinstance(found[1][1], ImageError)


class Overflowing:
    """A runtime without memory for large images, as engines report it."""

    def __init__(self, network) -> None:
        self._network = network
        self.batch_size, self.at_once = 3, 1

    def __call__(self, pixels, placements, descriptors):
        if pixels.shape[0] > 1 or pixels.shape[2] > 100:
            raise RuntimeError("bad allocation\nat some line")
        return self._network(pixels, placements, descriptors)

    def __getattr__(self, name):
        return getattr(self._network, name)


def test_running_out_of_memory_costs_the_large_image_only(photographs) -> None:
    detector = Detector(device="cpu", max_side=None)
    overflowing = Overflowing(detector._network())
    detector._runtimes = {False: overflowing, True: overflowing}
    small, large = photographs[0][:64, :64], photographs[0]
    found = detector([small, large, small], on_error="skip")
    assert [item is None for item in found] == [False, True, False]
    with pytest.raises(EngineError, match=r"512x512 px.*bad allocation.*lower max_side"):
        detector(large)

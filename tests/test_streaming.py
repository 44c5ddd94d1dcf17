"""Many images through one detector: order, threads, memory, failures."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.engines import Watched, cpu_engine
from tiepoint.detector import Detector
from tiepoint.errors import EngineError, ImageError
from tiepoint.features import Features
from tiepoint.network.engines import MAX_STREAMS
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
    for number, (source, features, _) in zip(range(5), stream, strict=False):
        assert source[0, 0] == number and isinstance(features, Features)
    assert len(asked) <= 5 + READ_AHEAD + 2 * MAX_STREAMS
    stream.close()


def test_many_images_at_once_give_what_each_gives_alone(photographs) -> None:
    """More images than streams: several are in work at once, each on a part of the cores."""
    detector = Detector(device="cpu", max_side=256)
    images = [*photographs, b"no image", *(image[::-1] for image in photographs)]
    found = list(detector.stream(iter(images)))
    assert [source is image for (source, *_), image in zip(found, images, strict=True)]
    for image, (_, together, error) in zip(images, found, strict=True):
        if isinstance(image, bytes):
            assert together is None and isinstance(error, ImageError)
        else:
            alone = detector(image)
            np.testing.assert_allclose(alone.xy, together.xy, atol=1e-3)
            np.testing.assert_allclose(alone.descriptors, together.descriptors, atol=1e-4)


def test_large_images_are_processed_one_at_a_time(photographs, monkeypatch) -> None:
    monkeypatch.setattr("tiepoint.detector.LARGE_PX", 64 * 64)
    engine = Watched(cpu_engine(), in_flight=3)
    detector = Detector(engine=engine, max_side=None, scales=(1,))
    large, small = photographs[0], photographs[0][:64, :64]
    found = list(detector.stream(iter([large, small, large, large, small, large])))
    assert len(found) == 6 and all(detection.features is not None for detection in found)
    sizes = [shape[2] for shape in engine.shapes]
    assert (sizes.count(512), sizes.count(64)) == (4, 2)


def test_an_image_that_fails_among_others_is_tried_again_alone(photographs, caplog) -> None:
    engine = Watched(cpu_engine(), in_flight=3, fails=lambda inputs, earlier: earlier == 0)
    detector = Detector(engine=engine, max_side=64, scales=(1,))
    images = [photographs[0], photographs[1], photographs[2], photographs[0][:100, :60]]
    found = list(detector.stream(iter(images)))
    assert all(isinstance(detection.features, Features) for detection in found)
    assert "bad allocation" in caplog.text and "trying again" in caplog.text


def test_a_batch_that_fails_is_tried_again_one_image_at_a_time(photographs, caplog) -> None:
    engine = Watched(cpu_engine(), batch_size=2, fails=lambda inputs, earlier: len(inputs) > 1)
    detector = Detector(engine=engine, max_side=64, scales=(1,))
    found = list(detector.stream(iter([photographs[0]] * 3)))
    assert [shape[0] for shape in engine.shapes] == [2, 1, 1, 1]
    assert all(detection.features is not None for detection in found)
    assert "one image at a time" in caplog.text


def test_threads_that_start_together_compile_one_network(photographs, monkeypatch) -> None:
    from tiepoint.network import openvino_engine

    built, real = [], openvino_engine.build_model
    monkeypatch.setattr("tiepoint.network.cores._affinity", lambda: 4)
    monkeypatch.setattr(
        openvino_engine,
        "build_model",
        lambda *a, **k: (built.append(k["descriptors"]), real(*a, **k))[1],
    )
    detector = Detector(device="cpu", max_side=64)
    found = list(detector.stream(iter([*photographs, *photographs]), descriptors=False))
    assert all(features.descriptors is None for _, features, _ in found)
    assert built.count(False) == 1


@pytest.mark.parametrize("kind", ["file", "picture", "function"])
def test_one_mask_for_all_is_used_by_one_thread_at_a_time(
    kind: str, photographs, tmp_path: Path, monkeypatch
) -> None:
    """An open file and a lazily opened picture have a place; a function may have more."""
    monkeypatch.setattr("tiepoint.network.cores._affinity", lambda: 4)
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
    detector = Detector(device="cpu", threshold=0.0, noise_floor=0.0)  # the image is of the sky
    found = list(detector.stream(iter([image] * 12), mask=mask))
    assert all(len(features) and features.xy[:, 0].min() > 44 for _, features, _ in found)


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
    before = [one.require() for one in detector.stream(iter(photographs))]
    again = pickle.loads(pickle.dumps(detector))
    for features, (_, other, _) in zip(before, again.stream(iter(photographs)), strict=True):
        np.testing.assert_allclose(features.xy, other.xy, atol=1e-3)


def test_a_failed_image_of_a_stream_comes_with_its_error(detector: Detector) -> None:
    good, bad = detector.stream([np.zeros((9, 9), np.uint8), b""])
    assert good.error is None and good.require() is good.features
    assert bad.features is None and isinstance(bad.error, ImageError)
    with pytest.raises(ImageError):
        bad.require()


def test_running_out_of_memory_costs_the_large_image_only(photographs) -> None:
    engine = Watched(
        cpu_engine(), batch_size=3, fails=lambda inputs, _: len(inputs) > 1 or inputs.shape[2] > 100
    )
    detector = Detector(engine=engine, max_side=None)
    small, large = photographs[0][:64, :64], photographs[0]
    found = list(detector.stream([small, large, small]))
    assert [detection.features is None for detection in found] == [False, True, False]
    with pytest.raises(EngineError, match=r"512x512 px.*bad allocation.*lower max_side"):
        detector(large)

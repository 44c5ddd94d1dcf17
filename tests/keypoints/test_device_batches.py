"""The whole way on a device: equal to the way of the CPU, in few kernels and without waiting."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.device_counts import count
from tiepoint import Detector
from tiepoint.config import DetectionConfig, ProcessorConfig, resolve_detection
from tiepoint.features import Features
from tiepoint.images.reading import read
from tiepoint.weights.checkpoint import load_checkpoint

torch = pytest.importorskip("torch")

from tiepoint.keypoints import device_batches, on_device  # noqa: E402
from tiepoint.keypoints.device_batches import DeviceBatches  # noqa: E402
from tiepoint.network.inputs import as_grey, pyramid  # noqa: E402
from tiepoint.network.torch_engine import TorchEngine  # noqa: E402

FIELDS = ("xy", "scores", "descriptors", "covariance", "scales_px")
CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
)
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])

MOST_KERNELS = 570
"""Upper bound for a batch at two scales and two phases. With steps on the host in between it was
1,016 for images of one size, and 2,404 for 8 images of two sizes."""


def engine_of(device: str = "cpu", precision: str = "f32", **options: Any) -> TorchEngine:
    return TorchEngine(load_checkpoint("small"), device, precision, batched=True, **options)


def batches_of(engine: TorchEngine, **options: Any) -> DeviceBatches:
    checkpoint = load_checkpoint("small")
    return DeviceBatches(engine, *resolve_detection(checkpoint.detection, options), "exact")


def assert_equal(ours: Sequence[Features], theirs: Sequence[Features], atol: float = 2e-3) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert len(one) == len(other)
        for name in FIELDS:
            values, expected = getattr(one, name), getattr(other, name)
            assert (values is None) == (expected is None), name
            if values is not None:
                np.testing.assert_allclose(values, expected, atol=atol, err_msg=name)
        assert (one.meta, one.size_hw) == (other.meta, other.size_hw)
        assert one.px_per_input_px == other.px_per_input_px


def crops(photographs: Sequence[NDArray[np.uint8]]) -> list[NDArray[Any]]:
    """One of each kind: colours, grey, 16 bits, floats with gaps, odd sizes, blank, one pixel."""
    colours = photographs[1]
    grey = photographs[0]
    deep = (grey[:100, :140].astype(np.uint16) + 3) * 200
    gaps = grey[:90, :120].astype(np.float32) / 255
    gaps[20:50, 30:60] = np.nan
    return [
        colours[:120, :160],
        grey[96:216, 192:352],
        colours[:101, :147],
        deep,
        gaps,
        np.zeros((40, 60), np.uint8),
        np.full((1, 1), 7, np.uint8),
        colours[:120, :160][::-1],
    ]


@DEVICES
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_keypoints": 40},
        {"scales": (1,), "phases": 1, "subpixel": False},
        {"scales": (0.7,), "phases": 4, "max_side": 100, "covariance_scale": None},
        {"scales": (1.5, 0.5), "nms_radius": 0, "max_keypoints": 300},
        {"descriptors": False, "contrast": "stretch", "border": 11},
    ],
)
def test_a_stream_on_a_device_finds_what_the_cpu_finds(
    device: str, options: dict[str, Any], photographs: list[NDArray[np.uint8]]
) -> None:
    images = crops(photographs)
    expected = Detector("small", engine="torch", device="cpu", precision="f32", **options)(images)
    detector = Detector("small", engine=engine_of(device), **options)
    assert sum(map(len, expected)) > 60
    assert_equal(detector(images), expected)
    assert_equal([detector(images[2])], [expected[2]])  # alone


@DEVICES
def test_masks_are_kept_on_a_device(device: str, photographs: list[NDArray[np.uint8]]) -> None:
    images = [photographs[1][:120, :160], photographs[1][:101, :147]]
    mask = np.zeros((101, 147), np.uint8)
    mask[20:80, 30:100] = 1
    expected = Detector("small", engine="torch", device="cpu", precision="f32")(
        images, mask=[None, mask]
    )
    found = Detector("small", engine=engine_of(device))(images, mask=[None, mask])
    assert len(expected[1]) > 5
    assert_equal(found, expected)


@DEVICES
@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_narrow_floats_keep_most_keypoints(
    device: str, precision: str, photographs: list[NDArray[np.uint8]]
) -> None:
    image = photographs[1]
    wide, narrow = (
        Detector("small", engine=engine_of(device, kind), max_keypoints=200)(image)
        for kind in ("f32", precision)
    )
    apart = np.linalg.norm(wide.xy[:, None] - narrow.xy[None], axis=2)
    assert (apart.min(axis=1) < 0.5).mean() > 0.93


def test_no_step_waits_for_the_device(photographs: list[NDArray[np.uint8]]) -> None:
    """On a device without values: torch refuses to read one, or a length that depends on one.

    It also refuses a tensor of the CPU beside one of the device.
    """
    meta = torch.device("meta")

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(moved, value))
        return None if value is None else value.to(meta)

    engine = engine_of()
    batches = batches_of(engine)
    network = engine._network.to(meta)
    prepared = [batches.prepare(read(image)) for image in crops(photographs)[:3]]
    mixed = [prepared[0], prepared[2]]
    masks = tuple(np.ones(place.resized_hw, np.bool_) for place in mixed[0].placements)
    for images in ([prepared[0]], mixed, [mixed[0]._replace(masks=masks)]):
        plan = batches._plan(images)
        batch = on_device.Batch(*map(moved, batches._batch(images, plan)))
        with torch.inference_mode():
            found = on_device.find(network, plan, batch)
            with pytest.raises(RuntimeError):  # as a wait would
                found.total.tolist()
            with pytest.raises((RuntimeError, NotImplementedError)):
                found.total.nonzero()
        assert all(part is None or part.device == meta for part in found)
        assert found.xy.shape == (len(images), plan.places, 2)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_batch_is_downloaded_once_and_takes_few_kernels(
    mixed: bool, photographs: list[NDArray[np.uint8]]
) -> None:
    batches = batches_of(engine_of(), scales=(1, 0.6), phases=2)
    image = photographs[1][:120, :160]
    images = [image[: 104 + 16 * (n % 2)] if mixed else image for n in range(8)]
    prepared = [batches.prepare(read(np.ascontiguousarray(one))) for one in images]
    assert len({one.bucket for one in prepared}) == 1
    found = count(lambda: batches.finish(batches.start(prepared)))
    assert dict(found.waits) == {"cpu": 1}
    assert 200 < sum(found.kernels.values()) <= MOST_KERNELS


def test_more_keypoints_than_places_are_found_again(
    monkeypatch: pytest.MonkeyPatch, photographs: list[NDArray[np.uint8]]
) -> None:
    monkeypatch.setattr(device_batches, "PLACES", 16)
    image = photographs[1][:120, :160]
    expected = Detector("small", engine="torch", device="cpu", precision="f32")(image)
    assert len(expected) > 40
    assert_equal(Detector("small", engine=engine_of())([image] * 3), [expected] * 3)


@pytest.mark.parametrize("size_hw", [(97, 61), (40, 56), (3, 2), (1, 1), (64, 64)])
@pytest.mark.parametrize("scale", [0.9, 0.6, 0.5, 0.11])
def test_levels_made_on_the_device_are_opencvs(size_hw: tuple[int, int], scale: float) -> None:
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (*size_hw, 3), dtype=np.uint8) for _ in range(2)]
    images.append(random.integers(0, 256, (100, 40, 3), dtype=np.uint8))
    detection = DetectionConfig(scales=(1, scale))
    batches = DeviceBatches(engine_of(), ProcessorConfig(), detection, "exact")
    prepared = [batches.prepare(read(image)) for image in images]
    plan = batches._plan(prepared)
    made = on_device._inputs(plan, batches._batch(prepared, plan))
    greys = [as_grey(image, ProcessorConfig()) for image in images]
    for level, (expected, placements) in zip(made, pyramid(greys, (1, scale)), strict=True):
        for one, other, place in zip(level.numpy(), expected[:, 0], placements, strict=True):
            height, width = place.padded_hw
            np.testing.assert_allclose(one[:height, :width], other[:height, :width], atol=2e-6)


def test_images_of_many_sizes_keep_their_order(photographs: list[NDArray[np.uint8]]) -> None:
    random = np.random.default_rng(3)
    sizes = random.integers(40, 200, (40, 2))
    images = [photographs[1][:height, :width] for height, width in sizes.tolist()]
    detector = Detector("small", engine=engine_of(), max_keypoints=5)
    found = list(detector.stream(iter([*images, b"no image", *images])))
    assert [one.features is None for one in found] == [n == 40 for n in range(81)]
    for one, image in zip(found, [*images, None, *images], strict=True):
        assert image is None or one.require().size_hw == image.shape[:2]


def test_a_batch_that_fails_is_done_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
    photographs: list[NDArray[np.uint8]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = device_batches.find

    def find(network: Any, plan: Any, batch: Any) -> Any:
        if len(batch.starts) > 1 or plan.base_hw == (64, 64):
            raise RuntimeError("out of memory\nand more")
        return plain(network, plan, batch)

    monkeypatch.setattr(device_batches, "find", find)
    image = photographs[1]
    detector = Detector("small", engine=engine_of(), scales=(1,), max_keypoints=5)
    with caplog.at_level(logging.WARNING):
        found = list(detector.stream([image[:64, :64], image[:80, :80], image[:64, :72]] * 2))
    assert [one.features is None for one in found] == [True, False, False] * 2
    assert "out of memory" in str(found[0].error) and "lower max_side" in str(found[0].error)
    assert "one image at a time" in caplog.text


def test_spreading_takes_the_way_of_the_cpu(photographs: list[NDArray[np.uint8]]) -> None:
    """Its radius is found by trying, so the host must wait."""
    options = {"spread": True, "max_keypoints": 20, "scales": (1,)}
    images = [photographs[1][:96, :128], photographs[0][:96, :100]]
    expected = Detector("small", engine="torch", device="cpu", precision="f32", **options)(images)
    assert_equal(Detector("small", engine=engine_of(), **options)(images), expected)


def test_the_whole_way_is_one_graph_for_torch_compile(
    photographs: list[NDArray[np.uint8]],
) -> None:
    """Traced without a break, and run by torch without a compiler."""
    batches = batches_of(engine_of(), max_keypoints=30)
    prepared = [batches.prepare(read(photographs[1][:64, :80]))] * 2
    plan = batches._plan(prepared)
    batch = batches._batch(prepared, plan)
    network = batches._engine._network
    with torch.inference_mode():
        expected = on_device.find(network, plan, batch)
        traced = torch.compile(on_device.find, dynamic=False, fullgraph=True, backend="eager")
        found = traced(network, plan, batch)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_prepared_image_keeps_no_pixels_of_the_source(
    photographs: list[NDArray[np.uint8]],
) -> None:
    source = read(photographs[1])
    prepared = batches_of(engine_of(), max_side=64).prepare(source)
    assert prepared.image.size_hw == source.size_hw
    assert prepared.image.pixels.strides == (0, 0, 0)


def test_calls_of_one_engine_compile_once(
    monkeypatch: pytest.MonkeyPatch, photographs: list[NDArray[np.uint8]]
) -> None:
    compiled = []

    def compile_(function: Any, **_: Any) -> Any:
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    engine = engine_of(compiled=True)
    image = photographs[1][:64, :80]
    detector = Detector("small", engine=engine, max_keypoints=9)
    [alone] = detector([image])
    assert_equal([detector(image), *detector([image] * 3)], [alone] * 4)
    assert compiled.count(on_device.find) == 1

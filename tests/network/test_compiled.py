"""OpenVINO's networks for one size: the same answers, with fewer products in float32."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset13 as ops

from support import twins
from support.checkpoints import random_checkpoint
from tiepoint import Detector
from tiepoint.config import ProcessorConfig
from tiepoint.errors import ConfigError
from tiepoint.geometry import Placement
from tiepoint.network import openvino_engine, openvino_graph, winograd
from tiepoint.network.engines import EngineChoice, build_engine
from tiepoint.network.inputs import prepare
from tiepoint.network.openvino_graph import build_model
from tiepoint.weights.checkpoint import Checkpoint, load_checkpoint

WIDE = (4, 6, winograd.LEAST_CHANNELS, winograd.LEAST_CHANNELS)


def compiled(checkpoint: Checkpoint, precision: str = "f32") -> openvino_engine.OpenVinoEngine:
    return openvino_engine.OpenVinoEngine(checkpoint, precision, compiled=True)


def zeros(height: int, width: int) -> tuple[NDArray[np.float32], list[Placement]]:
    size_hw = height, width
    return np.zeros((1, 1, *size_hw), np.float32), [Placement(size_hw, size_hw)]


def products(model: ov.Model) -> int:
    """Multiplications of all convolutions of a graph whose sizes are known."""
    total = 0
    for node in model.get_ops():
        if node.get_type_name() in ("Convolution", "GroupConvolution"):
            # Weights are O I kh kw, or G O I kh kw; each meets every place of the output.
            weights = node.input(1).get_shape()
            total += int(np.prod(weights)) * int(np.prod(node.output(0).get_shape()[2:]))
    return total


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int] | None]:
    """The sizes that networks were built for."""
    sizes: list[tuple[int, int, int] | None] = []
    real: Callable[..., ov.Model] = openvino_engine.build_model

    def recorded(*args: object, **options: object) -> ov.Model:
        sizes.append(options["size_bhw"])
        return real(*args, **options)

    monkeypatch.setattr(openvino_engine, "build_model", recorded)
    return sizes


@pytest.mark.parametrize(("width", "pool"), [
    *((width, False) for width in (1, 2, 3, 4, 5, 8, 11)),
    *((width, True) for width in (2, 4, 6, 8, 10)),
])  # fmt: skip
@pytest.mark.parametrize("relu", [True, False])
def test_half_the_products_give_the_same_convolution(width: int, pool: bool, relu: bool) -> None:
    random = np.random.default_rng(width)
    image = random.normal(size=(5, 6, width)).astype(np.float32)
    weight = random.normal(size=(7, 5, 3, 3)).astype(np.float32)
    bias = random.normal(size=7).astype(np.float32)
    given = ops.parameter([1, *image.shape], np.float32)
    node = winograd.convolution(given.output(0), weight, bias, relu=relu, pool=pool)
    found = ov.Core().compile_model(
        ov.Model([node], [given], "one"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )(image[None])[0][0]
    expected = twins.convolve(image, weight, bias)
    if relu:
        expected = np.maximum(expected, 0)
    if pool:
        expected = expected.reshape(7, 3, 2, width // 2, 2).max(axis=(2, 4))
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("size_hw", [(8, 8), (16, 24), (32, 40)])
def test_a_network_for_one_size_equals_the_slow_twin(size_hw: tuple[int, int]) -> None:
    checkpoint = random_checkpoint(1, WIDE, hidden=winograd.LEAST_CHANNELS, length=9)
    pixels = np.random.default_rng(2).random((1, 1, *size_hw), dtype=np.float32)
    maps = compiled(checkpoint).run(pixels, [Placement(size_hw, size_hw)], descriptors=True)
    logits, descriptors = twins.network(pixels[0, 0], checkpoint.tensors)
    np.testing.assert_allclose(maps.heatmap[0], twins.heatmap(logits), atol=1e-4)
    np.testing.assert_allclose(maps.descriptors[0][0], descriptors, atol=1e-4)


@pytest.mark.parametrize("height", [16, 24, 104])
@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_maps_made_in_strips_are_the_same_to_the_last_bit(
    height: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_hw = height, 40
    pixels = np.random.default_rng(height).random((1, 1, *size_hw), dtype=np.float32)
    found, concatenations = [], []
    for strip_bytes in (2**40, 2000):
        monkeypatch.setattr(openvino_graph, "STRIP_BYTES", strip_bytes)
        try:
            network = compiled(load_checkpoint(), precision)
        except ConfigError as error:
            pytest.skip(str(error))
        maps = network.run(pixels, [Placement(size_hw, size_hw)], descriptors=True)
        found.append((maps.heatmap, *maps.descriptors))
        model = build_model(load_checkpoint(), descriptors=True, size_bhw=(1, *size_hw))
        concatenations.append(
            sum(len(n.inputs()) for n in model.get_ops() if n.get_type_name() == "Concat")
        )
    assert concatenations == [1, height // 8]
    for whole, in_strips in zip(*found, strict=True):
        np.testing.assert_array_equal(in_strips, whole)


def test_float32_saves_products_where_layers_are_wide() -> None:
    for name, saved in (("base", 0.2), ("small", 0.0)):
        plain, fewer = (
            products(
                build_model(
                    load_checkpoint(name), descriptors=True, size_bhw=(1, 480, 640),
                    use_winograd=flag,
                )
            )
            for flag in (False, True)
        )  # fmt: skip
        known = load_checkpoint(name).network.multiply_adds((480, 640))
        assert plain == pytest.approx(known, rel=1e-3)  # strips make some rows twice
        assert 1 - fewer / plain == pytest.approx(saved, abs=0.05)


def test_products_are_saved_in_float32_on_x86_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    real: Callable[..., ov.Model] = openvino_engine.build_model

    def recorded(*args: object, **options: bool) -> ov.Model:
        asked.append(options["use_winograd"])
        return real(*args, **options)

    monkeypatch.setattr(openvino_engine, "build_model", recorded)
    for processor, fewer in (("x86_64", True), ("AMD64", True), ("arm64", False)):
        monkeypatch.setattr(openvino_engine, "machine", lambda name=processor: name)
        compiled(random_checkpoint()).run(*zeros(16, 16), descriptors=True)
        assert asked.pop() is fewer
    monkeypatch.setattr(openvino_engine, "machine", lambda: "x86_64")
    openvino_engine.OpenVinoEngine(random_checkpoint(), "f32")
    assert asked.pop() is False
    if openvino_engine.has_bf16():
        compiled(random_checkpoint(), "bf16").run(*zeros(16, 16), descriptors=True)
        assert asked.pop() is False


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16", "int8"])
@pytest.mark.parametrize("descriptors", [True, False])
def test_photographs_of_mixed_sizes_give_what_they_gave(
    precision: str, descriptors: bool, photographs: list[NDArray[np.uint8]]
) -> None:
    images = [photographs[0], photographs[1][:9, :31], photographs[3][:, :100]]
    pixels, placements = prepare(images, ProcessorConfig(max_side=256))
    try:
        plain, fitted = (
            build_engine(
                load_checkpoint(), EngineChoice("openvino", "cpu", precision), compiled=flag
            )
            for flag in (False, True)
        )
    except ConfigError as error:
        pytest.skip(str(error))
    expected, found = (
        one.run(pixels, placements, descriptors=descriptors) for one in (plain, fitted)
    )
    near = {"f32": 1e-4, "bf16": 1e-3, "f16": 5e-2, "int8": 5e-2}[precision]
    np.testing.assert_allclose(found.heatmap, expected.heatmap, atol=near)
    assert (found.descriptors is None) == (not descriptors)
    if descriptors:
        far = np.abs(found.descriptors[0] - expected.descriptors[0]).max()
        assert far <= near * np.abs(expected.descriptors).max()


def test_a_size_is_compiled_once_however_many_threads_ask(
    built: list[tuple[int, int, int] | None],
) -> None:
    network = compiled(random_checkpoint())
    assert built == []
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: network.run(*zeros(16, 24), descriptors=True), range(12)))
    assert built == [(1, 16, 24)]


def test_the_last_sizes_stay_and_the_others_are_let_go(
    built: list[tuple[int, int, int] | None],
) -> None:
    network = compiled(random_checkpoint())
    sides = [8 * (1 + i) for i in range(openvino_engine.KEPT_NETWORKS)]
    for side in sides:
        network.run(*zeros(side, 8), descriptors=True)
    network.run(*zeros(sides[0], 8), descriptors=True)  # now the last one, though it was the first
    network.run(*zeros(800, 8), descriptors=True)
    assert len(built) == openvino_engine.KEPT_NETWORKS + 1
    network.run(*zeros(sides[0], 8), descriptors=True)
    assert len(built) == openvino_engine.KEPT_NETWORKS + 1
    network.run(*zeros(sides[1], 8), descriptors=True)
    assert built[-1] == (1, sides[1], 8)
    assert len(built) == openvino_engine.KEPT_NETWORKS + 2


def test_networks_for_large_sizes_do_not_fill_the_memory(
    built: list[tuple[int, int, int] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "KEPT_PX", 3 * 64)
    monkeypatch.setattr(openvino_engine, "COMPILED_PX", 2 * 64)
    network = compiled(random_checkpoint())
    for width in (8, 16, 8):  # both stay
        network.run(*zeros(8, width), descriptors=True)
    assert built == [(1, 8, 8), (1, 8, 16)]
    network.run(*zeros(16, 8), descriptors=True)  # and pushes the older ones out
    network.run(*zeros(8, 8), descriptors=True)
    assert built[2:] == [(1, 16, 8)]
    network.run(*zeros(8, 16), descriptors=True)
    assert built[3:] == [(1, 8, 16)]
    for side in (24, 32):
        network.run(*zeros(side, 8), descriptors=True)
    assert built[4:] == [None]  # one for all that are larger still


def test_a_network_that_is_let_go_finishes_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "KEPT_NETWORKS", 1)
    network, sides = compiled(random_checkpoint()), [8 * (1 + i % 3) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(lambda side: network.run(*zeros(side, 8), descriptors=True), sides))
    assert [one.heatmap.shape for one in maps] == [(1, side, 8) for side in sides]


def test_a_detector_finds_the_same_keypoints_one_by_one_and_in_a_stream(
    photographs: list[NDArray[np.uint8]],
) -> None:
    plain = Detector(engine="openvino", precision="f32", max_side=256)
    fitted = Detector(engine="openvino", precision="f32", max_side=256, compiled=True)
    fitted = pickle.loads(pickle.dumps(fitted))
    streamed = [features for _, features, _ in fitted.stream(iter(photographs))]
    for image, found in zip(photographs, streamed, strict=True):
        for other in (plain(image), fitted(image)):
            assert len(other) == len(found)
            apart = np.hypot(*(other.xy[:, None] - found.xy[None]).transpose(2, 0, 1))
            assert (apart.min(axis=1) < 0.01).mean() > 0.99

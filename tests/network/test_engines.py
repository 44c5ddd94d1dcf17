"""The engines: each equals the slow twin, each other, and itself in a batch."""

from __future__ import annotations

import shutil

import numpy as np
import openvino as ov
import pytest

from support import twins
from support.checkpoints import random_checkpoint
from tiepoint import Detector
from tiepoint.config import ProcessorConfig
from tiepoint.errors import ConfigError
from tiepoint.geometry import Placement
from tiepoint.network import engines
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.network.engine import Engine
from tiepoint.network.engines import EngineChoice, EnginePool, build_engine
from tiepoint.network.inputs import prepare
from tiepoint.network.openvino_engine import OpenVinoEngine
from tiepoint.network.openvino_graph import build_model
from tiepoint.network.pixel_bytes import byte_weights, pixel_bytes
from tiepoint.weights.checkpoint import load_checkpoint

ENGINES = ["openvino", "torch"]


def make(engine: str, checkpoint=None, precision: str = "f32") -> Engine:
    if engine == "torch":
        pytest.importorskip("torch")
    choice = EngineChoice(engine, "cpu", precision)
    return build_engine(checkpoint or load_checkpoint(), choice)


def as_arrays(maps) -> tuple[np.ndarray, np.ndarray]:
    [dense] = maps.descriptors
    return np.asarray(maps.heatmap), np.asarray(dense)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("widths", [(8, 8, 16, 16), (4, 6, 10, 12)])
def test_network_equals_the_slow_twin_at_any_width(engine: str, widths) -> None:
    checkpoint = random_checkpoint(1, widths, hidden=20, length=9)
    pixels = np.random.default_rng(2).random((1, 1, 32, 40), dtype=np.float32)
    place = Placement(image_hw=(32, 40), resized_hw=(32, 40))
    found = as_arrays(make(engine, checkpoint).run(pixels, [place], descriptors=True))
    logits, descriptors = twins.network(pixels[0, 0], checkpoint.tensors)
    for ours, theirs in zip(found, (twins.heatmap(logits), descriptors), strict=True):
        np.testing.assert_allclose(ours[0], theirs, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_of_mixed_sizes_gives_what_each_image_gives_alone(engine: str, photographs) -> None:
    network, config = make(engine), ProcessorConfig(max_side=256)
    images = [photographs[0], photographs[1], photographs[1][:9, :31], photographs[3][:, :100]]
    maps = network.run(*prepare(images, config), descriptors=True)
    _, placements = prepare(images, config)
    for index, (image, placement) in enumerate(zip(images, placements, strict=True)):
        alone = as_arrays(network.run(*prepare([image], config), descriptors=True))
        for together, single in zip(as_arrays(maps), alone, strict=True):
            h, w = single.shape[-2:]
            np.testing.assert_allclose(together[index, ..., :h, :w], single[0], atol=3e-4)
        assert alone[0].shape[-2:] == placement.padded_hw


@pytest.mark.parametrize("engine", ENGINES)
def test_the_descriptor_head_can_be_left_out(engine: str) -> None:
    pixels = np.random.default_rng(2).random((1, 1, 32, 40), dtype=np.float32)
    place = [Placement(image_hw=(32, 40), resized_hw=(32, 40))]
    network = make(engine)
    without = network.run(pixels, place, descriptors=False)
    assert without.descriptors is None
    np.testing.assert_allclose(
        np.asarray(without.heatmap),
        as_arrays(network.run(pixels, place, descriptors=True))[0],
        atol=1e-5,
    )


def test_both_engines_give_the_same_maps_of_real_photographs(photographs) -> None:
    for image in photographs:
        pixels, placements = prepare([image], ProcessorConfig(max_side=320))
        maps = [
            as_arrays(make(engine).run(pixels, placements, descriptors=True)) for engine in ENGINES
        ]
        for ours, theirs in zip(*maps, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
def test_results_do_not_change_when_the_engine_runs_again(precision: str) -> None:
    try:
        network = make("openvino", precision=precision)
    except ConfigError as error:
        pytest.skip(str(error))
    random = np.random.default_rng(2)
    pixels = random.random((1, 1, 32, 40), dtype=np.float32)
    place = [Placement(image_hw=(32, 40), resized_hw=(32, 40))]
    first = network.run(pixels, place, descriptors=True)
    kept = [part.copy() for part in as_arrays(first)]
    network.run(random.random((1, 1, 32, 40), dtype=np.float32), place, descriptors=True)
    for part, before in zip(as_arrays(first), kept, strict=True):
        np.testing.assert_array_equal(part, before)


@pytest.mark.parametrize(
    ("engine", "device", "precision", "named"),
    [
        ("tensorrt", "auto", "auto", "engine"),
        ("auto", "tpu", "auto", "device"),
        ("auto", 0, "auto", "device is '0'"),
        ("openvino", "cuda", "auto", "openvino"),
        ("auto", "auto", "f64", "precision"),
    ],
)
def test_an_unknown_engine_device_or_precision_is_refused_by_name(
    engine: str, device: str, precision: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        engines.resolve_engine(engine, device, precision)


def test_a_device_that_torch_lacks_is_refused_with_the_reason() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="cuda"):
        build_engine(load_checkpoint(), EngineChoice("torch", "cuda", "f32"))


@pytest.mark.parametrize(
    ("capabilities", "precision"), [(["FP32", "BF16"], "bf16"), (["FP32"], "f32")]
)
def test_auto_settles_on_openvino_where_there_is_no_gpu_and_on_what_the_processor_has(
    monkeypatch, capabilities: list[str], precision: str
) -> None:
    monkeypatch.setattr(engines, "_find_gpu", lambda: None)
    monkeypatch.setattr("tiepoint.network.openvino_engine.capabilities", lambda: capabilities)
    assert engines.resolve_engine("auto", "auto", "auto") == ("openvino", "cpu", precision)
    assert engines.resolve_engine("auto", "auto", "f32") == ("openvino", "cpu", "f32")


@pytest.mark.parametrize(
    ("capability", "precision"), [((9, 0), "bf16"), ((8, 6), "bf16"), ((7, 5), "f32")]
)
def test_auto_takes_a_gpu_that_torch_can_use_and_what_it_has(
    monkeypatch, capability: tuple[int, int], precision: str
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(engines, "_find_gpu", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert engines.resolve_engine("auto", "auto", "auto") == ("torch", "cuda", precision)
    assert engines.resolve_engine("auto", "cuda:1", "f32") == ("torch", "cuda:1", "f32")


def test_a_gpu_that_is_not_there_is_refused_by_the_engine_alone() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert engines.resolve_engine("auto", "cuda", "auto") == ("torch", "cuda", "f32")
    assert engines.resolve_engine("torch", "mps", "auto") == ("torch", "mps", "f32")


def test_torch_on_a_cpu_stays_in_float32_unless_told() -> None:
    pytest.importorskip("torch")
    assert engines.resolve_engine("torch", "cpu", "auto") == ("torch", "cpu", "f32")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_narrow_floats_stay_near_float32(engine: str, precision: str, photographs) -> None:
    try:
        network = make(engine, precision=precision)
    except ConfigError as error:
        pytest.skip(str(error))
    pixels, placements = prepare([photographs[0]], ProcessorConfig(max_side=256))
    narrow = as_arrays(network.run(pixels, placements, descriptors=True))
    wide = as_arrays(make(engine).run(pixels, placements, descriptors=True))
    assert narrow[0].dtype == np.float32
    low_bits = narrow[0].view(np.uint32) & 0x1FFF  # none of which a float of 16 bits has
    assert (low_bits != 0).mean() > 0.9, "the soft-max is not in float32"
    assert np.abs(narrow[0] - wide[0]).max() > 0
    assert np.corrcoef(narrow[0].ravel(), wide[0].ravel())[0, 1] > 0.999


def test_pixels_in_two_bytes_are_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).random((2, 1, 40, 48), dtype=np.float32)
    pixels[0, 0, 0, :3] = 0, 1, 254 / 255
    low, high = np.moveaxis(pixel_bytes(pixels).astype(np.float64), -1, 0)
    np.testing.assert_allclose((256 * high + low) / 65535, pixels[:, 0], atol=1.001 / 65535)
    assert high[0, 0, :2].tolist() == low[0, 0, :2].tolist() == [0, 255]


def test_weights_for_bytes_fit_into_bfloat16_and_add_up_to_what_they_did() -> None:
    weight = np.random.default_rng(1).normal(0, 0.3, (32, 1, 3, 3)).astype(np.float32)
    weight -= weight.mean(axis=(1, 2, 3), keepdims=True)  # they answer to differences alone
    found = byte_weights(weight)
    assert not (found.view(np.uint32) & 0xFFFF).any()
    np.testing.assert_array_equal(found[:, 1], 256 * found[:, 0])
    white = 255 * (found[:, 0] + found[:, 1])  # what a white pixel brings in
    np.testing.assert_allclose(white, weight[:, 0], rtol=0.02, atol=0.004)
    one_by_one = ((weight.view(np.uint32) + 0x8000) >> 16 << 16).view(np.float32)
    away, before = (np.abs(w.sum(axis=(-2, -1))) for w in (white, one_by_one[:, 0]))
    assert away.mean() < 0.25 * before.mean()


def test_a_network_takes_pixels_in_bytes() -> None:
    checkpoint = random_checkpoint()
    pixels = np.random.default_rng(0).random((1, 1, 40, 48), dtype=np.float32)
    plain, in_bytes = (
        ov.Core().compile_model(build_model(checkpoint, descriptors=True, in_bytes=flag), "CPU",
                                {"INFERENCE_PRECISION_HINT": "f32"})
        for flag in (False, True)
    )  # fmt: skip
    found = in_bytes(pixel_bytes(pixels))
    for one, other in zip(plain(pixels).values(), found.values(), strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9999


def test_the_compiled_model_takes_every_size() -> None:
    network = OpenVinoEngine(random_checkpoint(), "f32")
    for height, width in [(8, 8), (8, 320), (320, 8), (96, 64)]:
        pixels = np.zeros((1, 1, height, width), dtype=np.float32)
        maps = network.run(pixels, [Placement((height, width), (height, width))], descriptors=True)
        assert maps.heatmap.shape == (1, height, width)
        assert maps.descriptors[0].shape == (1, 16, height // 8, width // 8)


class OnTensors:
    """Hands out torch tensors, as the torch engine does on a GPU."""

    batch_size, in_flight = 3, 1

    def __init__(self) -> None:
        self._engine = make("torch")

    def run(self, inputs, placements, *, descriptors, phases=1):
        import torch

        maps = self._engine.run(inputs, placements, descriptors=descriptors, phases=phases)
        return DenseMaps(
            torch.from_numpy(maps.heatmap), tuple(map(torch.from_numpy, maps.descriptors))
        )


def test_keypoints_of_a_batch_of_tensors_are_those_of_each_image(photographs) -> None:
    """The steps of a GPU, on the CPU: the whole batch at once in torch."""
    pytest.importorskip("torch")
    images = [photographs[0], np.zeros((40, 60), np.uint8), photographs[1]]
    options = {"max_side": 256, "precision": "f32"}
    batch = Detector(engine=OnTensors(), max_side=256)(images)
    alone = Detector(engine="torch", device="cpu", **options)(images)
    for ours, theirs in zip(batch, alone, strict=True):
        assert len(ours) == len(theirs)
        for name in ("xy", "scores", "descriptors", "covariance", "scales_px"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=2e-3)


def test_a_compiled_network_answers_the_same(photographs) -> None:
    pytest.importorskip("torch")
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    checkpoint = random_checkpoint()
    plain, compiled = (
        build_engine(checkpoint, EngineChoice("torch", "cpu", "f32"), compiled=c)
        for c in (False, True)
    )
    for side in (64, 96):
        images = [photographs[0], photographs[1]]
        pixels, placements = prepare(images, ProcessorConfig(side))
        for ours, theirs in zip(
            as_arrays(compiled.run(pixels, placements, descriptors=True)),
            as_arrays(plain.run(pixels, placements, descriptors=True)),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_threads_are_openvinos() -> None:
    with pytest.raises(ConfigError, match="threads is 0, expected a whole number >= 1"):
        Detector(engine="openvino", threads=0)
    pytest.importorskip("torch")
    with pytest.raises(ConfigError, match="set_num_threads"):
        Detector(engine="torch", device="cpu", threads=1)


@pytest.mark.parametrize(
    ("cores", "threads", "expected"), [(2, None, True), (2, 1, False), (1, None, False)]
)
def test_a_helper_thread_shares_the_work_on_one_image_if_there_are_cores(
    monkeypatch, cores: int, threads: int | None, expected: bool
) -> None:
    monkeypatch.setattr("tiepoint.network.cores._affinity", lambda: cores)
    pool = EnginePool(
        random_checkpoint(), "openvino", "cpu", "f32", compiled=False, threads=threads
    )
    assert (pool.helper is not None) == expected


def test_fewer_threads_change_no_keypoint(photographs) -> None:
    one, all_of_them = (
        Detector(device="cpu", precision="f32", max_side=256, threads=threads)
        for threads in (1, None)
    )
    for image in photographs:
        np.testing.assert_allclose(one(image).xy, all_of_them(image).xy, atol=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_narrow_torch_keeps_pixels_and_logits_in_float32(precision: str, photographs) -> None:
    """Where values of 8 bits would round pixels, and make neighbours equal."""
    torch = pytest.importorskip("torch")
    pixels, _ = prepare([photographs[0]], ProcessorConfig(256))
    network, seen = make("torch", precision=precision)._network, []
    network.keypoints[-1].register_forward_hook(lambda *call: seen.append(call[2]))
    network(torch.from_numpy(pixels), descriptors=True)
    [logits] = seen
    assert logits.dtype == torch.float32
    assert ((logits.numpy().view(np.uint32) & 0xFFFF) != 0).mean() > 0.9


@pytest.mark.parametrize(
    ("cores", "threads", "expected"),
    [(1, None, 1), (2, None, 3), (6, None, 6), (7, None, 2), (64, None, 8), (2, 16, 3), (8, 2, 3)],
)
def test_a_folder_has_as_many_images_in_work_as_the_cores_can_take(
    monkeypatch, cores: int, threads: int | None, expected: int
) -> None:
    monkeypatch.setattr("tiepoint.network.cores._affinity", lambda: cores)
    choice = EngineChoice("openvino", "cpu", "f32")
    made = build_engine(random_checkpoint(), choice, "stream", threads=threads)
    assert made.in_flight == expected

"""The network as a GPU runs it: equal to the plain one, with and without its special kernels."""

from __future__ import annotations

import numpy as np
import pytest

from support.checkpoints import random_checkpoint
from tiepoint.weights.checkpoint import load_checkpoint

torch = pytest.importorskip("torch")

from tiepoint.network import torch_inference  # noqa: E402
from tiepoint.network.pixel_bytes import pixel_bytes  # noqa: E402
from tiepoint.network.superpoint import SuperPoint, cell_mask, mean_heatmap  # noqa: E402
from tiepoint.network.torch_device import MAX_COMPILED, Compiled, Download, Upload  # noqa: E402
from tiepoint.network.torch_inference import InferenceNetwork  # noqa: E402

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
)
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])
SIZES = [(64, 80), (40, 56), (64, 80)]


def pixels_of(sizes: list[tuple[int, int]]) -> torch.Tensor:
    """A batch of noise of the size of the first, 0 beyond each image."""
    pixels = torch.rand(len(sizes), 1, *sizes[0], generator=torch.Generator().manual_seed(1))
    for one, (height, width) in zip(pixels, sizes, strict=True):
        one[:, height:], one[:, :, width:] = 0, 0
    return pixels


@DEVICES
@pytest.mark.parametrize("sizes", [SIZES, SIZES[:1] * 2])
@pytest.mark.parametrize("phases", [1, 2, 4])
def test_the_network_equals_the_plain_one(
    device: str, sizes: list[tuple[int, int]], phases: int
) -> None:
    checkpoint = load_checkpoint("small")
    plain = SuperPoint(checkpoint.network).load(checkpoint.tensors).eval()
    pixels, inside = pixels_of(sizes), cell_mask(sizes, sizes[0])
    there = None if inside is None else inside.to(device)
    network = InferenceNetwork(checkpoint, "f32").to(device)
    with torch.inference_mode():
        maps = plain(pixels, inside, phases=phases)
        grids = network(pixels.to(device), there, descriptors=True, phases=phases)
        without = network(pixels.to(device), there, descriptors=False, phases=phases)
    heatmap = mean_heatmap([logits for logits, _ in maps])
    assert without.dense is None and torch.equal(without.heatmap, grids.heatmap)
    for index, (height, width) in enumerate(sizes):
        area = (index, slice(height), slice(width))
        torch.testing.assert_close(grids.heatmap[area].cpu(), heatmap[area], atol=1e-5, rtol=0)
        for (_, dense), found in zip(maps, grids.by_phase(), strict=True):
            assert found.shape == dense.shape
            own = (index, slice(None), slice(height // 8), slice(width // 8))
            torch.testing.assert_close(found[own].cpu(), dense[own], atol=1e-3, rtol=0)


def test_a_fused_relu_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN's kernel is feigned: which layers ask for it, and with what."""
    asked = []

    def feigned(features, weight, bias, padding):
        asked.append(weight.shape)
        return torch.nn.functional.conv2d(features, weight, bias, padding=padding).relu()

    monkeypatch.setattr(torch_inference, "convolved_with_relu", feigned)
    checkpoint, pixels = random_checkpoint(), pixels_of([(32, 40)])
    apart, fused = (
        InferenceNetwork(checkpoint, "f32", fused=flag)(pixels, descriptors=True)
        for flag in (False, True)
    )
    # Two of the first six pool before their ReLU; of each head's two, the last one has none.
    assert len(asked) == 8
    for one, other in zip(fused, apart, strict=True):
        torch.testing.assert_close(one, other)


def test_a_cpu_has_no_fused_kernel() -> None:
    assert not torch_inference.can_fuse(torch.device("cpu"), torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
def test_the_fused_kernel_of_a_gpu_changes_little(precision: str) -> None:
    dtype = torch_inference.NARROW.get(precision, torch.float32)
    if not torch_inference.can_fuse(torch.device("cuda"), dtype):
        pytest.skip("cuDNN has no fused kernel for this type")
    checkpoint, pixels = load_checkpoint("small"), pixels_of(SIZES[:1]).cuda()
    with torch.inference_mode():
        apart, fused = (
            InferenceNetwork(checkpoint, precision, fused=flag).cuda()(pixels, descriptors=True)
            for flag in (False, True)
        )
    torch.testing.assert_close(fused.heatmap, apart.heatmap, atol=0.01, rtol=0)


def test_pixels_enter_as_the_bytes_of_the_other_engine() -> None:
    pixels = torch.rand(2, 1, 24, 32, generator=torch.Generator().manual_seed(2))
    pixels[0, 0, 0, :3] = torch.tensor([0, 1, 254 / 255])
    entered = InferenceNetwork(random_checkpoint(), "bf16")._entered(pixels)
    assert entered.dtype == torch.bfloat16
    expected = np.moveaxis(pixel_bytes(pixels.numpy()), -1, 1)
    np.testing.assert_array_equal(entered.float().numpy(), expected)


def test_only_the_first_shapes_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(function, **options):
        assert options["dynamic"] is False
        return lambda *given: ("compiled", function(*given))

    monkeypatch.setattr(torch, "compile", compile_)
    compiled = Compiled(lambda value: value + 1, torch.device("cpu"))
    found = [compiled(shape, shape) for shape in (*range(MAX_COMPILED + 2), 0)]
    expected = [("compiled", n + 1) for n in range(MAX_COMPILED)]
    assert found == [*expected, MAX_COMPILED + 1, MAX_COMPILED + 2, ("compiled", 1)]


@DEVICES
def test_what_goes_up_comes_down(device: str) -> None:
    from tiepoint.network.torch_device import upload_stream

    place, values = torch.device(device), torch.arange(100_000)
    upload = Upload(values, place, upload_stream(place))
    assert torch.equal(Download(upload.take() * 2).wait(), values * 2)

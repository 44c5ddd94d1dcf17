"""Cell phases: the network's answers on grids of cells that are shifted by half a cell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support import twins
from support.checkpoints import random_checkpoint
from tiepoint import ConfigError, Detector
from tiepoint.architecture import PHASES
from tiepoint.geometry import Placement
from tiepoint.keypoints import describe
from tiepoint.network import winograd
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.network.engine import Engine
from tiepoint.network.engines import EngineChoice, build_engine
from tiepoint.weights.checkpoint import BUNDLED, Checkpoint, load_checkpoint

ENGINES = pytest.mark.parametrize("engine", ["openvino", "torch"])
RIM_PX = 96
"""Wider than the network's receptive field, within which it sees the image's border."""


def make(
    engine: str, checkpoint: Checkpoint, precision: str = "f32", *, compiled: bool = False
) -> Engine:
    if engine == "torch":
        pytest.importorskip("torch")
    try:
        return build_engine(checkpoint, EngineChoice(engine, "cpu", precision), compiled=compiled)
    except ConfigError as error:
        pytest.skip(str(error))


def run(engine: Engine, pixels: NDArray[np.float32], phases: int) -> DenseMaps[np.ndarray]:
    size_hw = pixels.shape[2:]
    return engine.run(pixels, [Placement(size_hw, size_hw)], descriptors=True, phases=phases)


def moved(pixels: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
    """The image without its first rows and columns, and as many of the last."""
    height, width = pixels.shape[2:]
    return np.ascontiguousarray(pixels[:, :, down : height - down, right : width - right])


@ENGINES
@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_away_from_the_border_a_phase_equals_running_the_shifted_image(
    engine: str, precision: str
) -> None:
    if (engine, precision) == ("torch", "int8"):
        pytest.skip("torch has no int8")
    network = make(engine, load_checkpoint(), precision)
    pixels = np.random.default_rng(3).random((1, 1, 256, 272), dtype=np.float32)
    dense = run(network, pixels, 4).descriptors
    assert dense is not None
    atol = 1e-4 if precision == "f32" else 0.5  # of values up to some 30
    for found, (down, right) in zip(dense[1:], PHASES[4][1:], strict=True):
        assert found.shape[2:] == (32 + (down > 0), 34 + (right > 0))
        shifted = run(network, moved(pixels, down, right), 1).descriptors
        assert shifted is not None
        # Cell (i, j) of the shifted image is cell (i + 1, j + 1) of the shifted grid.
        same = found[:, :, int(down > 0) :, int(right > 0) :]
        rim = RIM_PX // 8
        height, width = shifted[0].shape[2:]
        inner = (..., slice(rim, height - rim), slice(rim, width - rim))
        assert np.abs(same[:, :, :height, :width][inner]).max() > 1
        np.testing.assert_allclose(same[:, :, :height, :width][inner], shifted[0][inner], atol=atol)


@ENGINES
@pytest.mark.parametrize("phases", [2, 4])
def test_the_heat_map_is_the_mean_over_the_shifted_images(engine: str, phases: int) -> None:
    network = make(engine, load_checkpoint())
    pixels = np.random.default_rng(4).random((1, 1, 240, 256), dtype=np.float32)
    total = np.zeros((240, 256), np.float32)
    for down, right in PHASES[phases]:
        heatmap = run(network, moved(pixels, down, right), 1).heatmap[0]
        total += np.pad(heatmap, ((down, down), (right, right)))
    rim = slice(RIM_PX, -RIM_PX)
    mean = run(network, pixels, phases).heatmap[0]
    assert mean[rim, rim].max() > 0.01
    np.testing.assert_allclose(mean[rim, rim], total[rim, rim] / phases, atol=1e-5)


@pytest.mark.parametrize("widths", [(8, 8, 16, 16), (8, 8, winograd.LEAST_CHANNELS, 96)])
@pytest.mark.parametrize("size_hw", [(8, 8), (16, 40), (48, 56)])
@pytest.mark.parametrize("compiled", [False, True])
def test_all_engines_give_the_same_maps_of_all_phases(
    widths: tuple[int, ...], size_hw: tuple[int, int], compiled: bool
) -> None:
    checkpoint = random_checkpoint(1, widths, hidden=20, length=9)
    pixels = np.random.default_rng(5).random((2, 1, *size_hw), dtype=np.float32)
    place = [Placement(size_hw, size_hw)] * 2
    for phases in PHASES:
        maps = [
            make(name, checkpoint, compiled=compiled and name == "openvino").run(
                pixels, place, descriptors=True, phases=phases
            )
            for name in ("openvino", "torch")
        ]
        np.testing.assert_allclose(maps[0].heatmap, maps[1].heatmap, atol=1e-4)
        assert len(maps[0].descriptors) == len(maps[1].descriptors) == phases
        for one, other in zip(maps[0].descriptors, maps[1].descriptors, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


@ENGINES
def test_padding_of_a_batch_changes_no_phase_of_the_smaller_image(engine: str) -> None:
    network = make(engine, load_checkpoint())
    random, sizes = np.random.default_rng(6), [(64, 72), (96, 120)]
    pixels = random.random((2, 1, 96, 120), dtype=np.float32)
    alone = [run(network, np.ascontiguousarray(pixels[:1, :, :64, :72]), 4),
             run(network, pixels[1:], 4)]  # fmt: skip
    places = [Placement(size, size) for size in sizes]
    both = network.run(pixels, places, descriptors=True, phases=4)
    for index, (height, width) in enumerate(sizes):
        np.testing.assert_allclose(
            both.heatmap[index, :height, :width], alone[index].heatmap[0], atol=1e-5
        )
        for phase, (down, right) in enumerate(PHASES[4]):
            expected = alone[index].descriptors[phase][0]
            h, w = height // 8 + (down > 0), width // 8 + (right > 0)
            found = both.descriptors[phase][index, :, :h, :w]
            np.testing.assert_allclose(found, expected, atol=1e-3)


def test_descriptors_are_the_mean_of_what_each_phase_says_at_the_point() -> None:
    random = np.random.default_rng(7)
    shapes = [(6 + (down > 0), 7 + (right > 0)) for down, right in PHASES[4]]
    dense = [random.normal(0, 1, (8, *hw)).astype(np.float32) for hw in shapes]
    xy = random.uniform([0, 0], [55, 47], (40, 2)).astype(np.float32)
    for phases in PHASES:
        total = np.zeros((len(xy), 8))
        for one, (down, right) in zip(dense[:phases], PHASES[phases], strict=True):
            total += [twins.sample(one, x + right, y + down) for x, y in xy.astype(np.float64)]
        expected = total / np.linalg.norm(total, axis=1, keepdims=True)
        np.testing.assert_allclose(describe(dense[:phases], xy), expected, atol=1e-5)


def test_torch_samples_the_phases_as_numpy_does() -> None:
    torch = pytest.importorskip("torch")
    from tiepoint.keypoints import on_torch

    random = np.random.default_rng(8)
    shapes = [(6 + (down > 0), 7 + (right > 0)) for down, right in PHASES[2]]
    dense = [random.normal(0, 1, (1, 8, *hw)).astype(np.float32) for hw in shapes]
    xy = random.uniform([0, 0], [55, 47], (40, 2)).astype(np.float32)
    for sampling in ("exact", "superpoint"):
        found = on_torch.describe(
            [torch.from_numpy(one) for one in dense],
            torch.zeros(40, dtype=torch.long),
            torch.from_numpy(xy),
            torch.tensor([[6, 7]]),
            sampling,
        )
        expected = describe([one[0] for one in dense], xy, sampling)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_with_two_phases_descriptors_depend_less_on_the_cell(photographs) -> None:
    """The same scene points, in a crop that moves them by 2 to 6 px against the cells."""
    image = photographs[0][:240, :320]
    median = {}
    for phases in (1, 2):
        detector = Detector(precision="f32", phases=phases, scales=(1,), max_keypoints=300)
        whole, cosines = detector(image), []
        for shift in (2, 4, 6):
            crop = detector(np.ascontiguousarray(image[shift:, shift:]))
            apart = np.linalg.norm(whole.xy[:, None] - (crop.xy + shift)[None], axis=2)
            near = apart.argmin(axis=1)
            same = apart.min(axis=1) < 0.5
            assert same.sum() > 50
            cosines.append((whole.descriptors * crop.descriptors[near]).sum(axis=1)[same])
        median[phases] = np.median(np.concatenate(cosines))
    assert 1 - median[2] < 0.75 * (1 - median[1])


def test_a_checkpoint_stores_its_phases(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(BUNDLED / "small", folder)
    config = json.loads((folder / "config.json").read_text())
    config["tiepoint"]["phases"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(folder).detection.phases == 2
    detector = Detector(folder, precision="f32")
    assert detector.provenance().settings["phases"] == 2
    assert detector.provenance(phases=1).settings["phases"] == 1
    image = np.random.default_rng(9).integers(0, 256, (64, 80), dtype=np.uint8)
    given = Detector("small", precision="f32", phases=2)(image)
    np.testing.assert_array_equal(detector(image).descriptors, given.descriptors)


@pytest.mark.parametrize("phases", [0, 3, 8, True, 2.0, "2", None])
def test_other_numbers_of_phases_are_refused(phases: object) -> None:
    with pytest.raises(ConfigError, match="phases is .*expected 1, 2 or 4"):
        Detector("small", phases=phases)


def test_the_guides_classes_have_one_phase_whatever_the_checkpoint_says(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from tiepoint import SuperPointForKeypointDetection

    folder = tmp_path / "own"
    shutil.copytree(BUNDLED / "small", folder)
    config = json.loads((folder / "config.json").read_text())
    config["tiepoint"]["phases"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    pixels = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, two = (
            SuperPointForKeypointDetection.from_pretrained(path)(pixels)
            for path in (BUNDLED / "small", folder)
        )
    assert torch.equal(one.keypoints, two.keypoints)
    assert torch.equal(one.descriptors, two.descriptors)


def test_phases_are_kept_by_a_batch_of_tensors(photographs) -> None:
    """The steps of a GPU, on the CPU."""
    torch = pytest.importorskip("torch")

    class OnTensors:
        batch_size, in_flight = 2, 1

        def __init__(self) -> None:
            self._engine = make("torch", load_checkpoint())

        def run(self, inputs, placements, *, descriptors, phases=1):
            maps = self._engine.run(inputs, placements, descriptors=descriptors, phases=phases)
            dense = tuple(map(torch.from_numpy, maps.descriptors))
            return DenseMaps(torch.from_numpy(maps.heatmap), dense)

    images = [photographs[0][96:224, 192:352], photographs[1][:120, :149]]
    options = {"phases": 2, "scales": (1,)}
    found = Detector(engine=OnTensors(), **options)(images)
    expected = Detector(engine="torch", device="cpu", **options)(images)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs) > 10
        np.testing.assert_allclose(ours.xy, theirs.xy, atol=5e-3)
        np.testing.assert_allclose(ours.descriptors, theirs.descriptors, atol=1e-4)


def test_a_phase_costs_the_layers_on_its_own_cells() -> None:
    network = load_checkpoint().network
    size_hw, (h, w) = (480, 640), (60, 80)
    on_cells = (*network.cell_layers(), *network.keypoint_layers(), *network.descriptor_layers())
    a_cell = sum(layer.in_channels * layer.out_channels * layer.kernel_px**2 for layer in on_cells)
    one = network.multiply_adds(size_hw)
    assert network.multiply_adds(size_hw, 2) == one + (h + 1) * (w + 1) * a_cell
    more = (h + 1) * (w + 1) + h * (w + 1) + (h + 1) * w
    assert network.multiply_adds(size_hw, 4) == one + more * a_cell

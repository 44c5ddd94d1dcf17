"""Masks: arrays, files, lists, functions and folders of where keypoints are allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

import tiepoint
from support.image_files import encode
from support.selection import select
from tiepoint.cli import app
from tiepoint.config import DetectionConfig
from tiepoint.errors import ConfigError, ImageError
from tiepoint.features import Features
from tiepoint.geometry import Placement
from tiepoint.images.masks import MaskFolder, allowed_by, in_input
from tiepoint.images.reading import SourceImage


@pytest.fixture(scope="module")
def detector() -> tiepoint.Detector:
    return tiepoint.Detector(threshold=0.0, max_keypoints=300)


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    from skimage import data

    return np.ascontiguousarray(data.coffee()[:240, :320])


def left_half(shape: tuple[int, ...] = (240, 320)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[:, : shape[1] // 2] = True
    return mask


def only_left(features: Features) -> bool:
    return len(features) > 100 and bool((features.xy[:, 0] < 161).all())


@pytest.mark.parametrize("kind", ["bool", "uint8", "colour", "file", "pil"])
def test_no_keypoint_lies_where_a_mask_is_black(
    kind: str, detector: tiepoint.Detector, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    white = (255 * left_half()).astype(np.uint8)
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), white)
    masks = {
        "bool": left_half(),
        "uint8": left_half().astype(np.uint8),
        "colour": np.repeat(white[:, :, None], 3, axis=2),
        "file": path,
        "pil": Image.fromarray(white),
    }
    features = detector(photograph, mask=masks[kind])
    assert only_left(features)
    assert features.meta["mask"] == (str(path) if kind == "file" else "array")
    assert "mask" not in detector(photograph).meta


def drawn(colour_left: int, alpha_left: int, colour_right: int, alpha_right: int) -> Image.Image:
    """RGBA of two halves."""
    left = left_half()
    colour = np.where(left, colour_left, colour_right).astype(np.uint8)
    alpha = np.where(left, alpha_left, alpha_right).astype(np.uint8)
    return Image.fromarray(np.dstack([colour, colour, colour, alpha]))


def palette(colours: list[int], transparent: int | None = None) -> Image.Image:
    image = Image.fromarray(np.where(left_half(), 0, 1).astype(np.uint8))
    image.putpalette([level for level in colours for _ in range(3)])
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


DRAWN = {
    "white on nothing": drawn(255, 255, 0, 0),
    "white, opaque or not": drawn(255, 255, 255, 0),
    "black on nothing": drawn(0, 255, 0, 0),
    "black on translucent white": drawn(255, 90, 0, 255),
    "translucent black on white": drawn(255, 255, 0, 128),
    "palette, black last": palette([200, 0]),
    "palette, index 0 is white": palette([255, 0]),
    "palette, transparent": palette([90, 200], transparent=1),
}


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("form", ["file", "pil", "array"])
def test_no_keypoint_is_where_a_mask_is_transparent_or_black(kind: str, form: str) -> None:
    image = DRAWN[kind]
    source: Any = image
    if form == "file":
        source = encode(image, "PNG", **{k: image.info[k] for k in image.info})
    elif form == "array":
        source = np.asarray(image.convert("RGBA"))
    np.testing.assert_array_equal(allowed_by(source), left_half())


def test_a_black_mask_allows_nothing_and_a_white_one_everything() -> None:
    for image in (Image.new("L", (9, 7)), Image.new("RGBA", (9, 7), (0, 0, 0, 255))):
        assert not allowed_by(image).any()
    assert not allowed_by(Image.new("RGBA", (9, 7))).any()
    assert allowed_by(Image.new("RGBA", (9, 7), (255, 255, 255, 255))).all()


def test_the_best_keypoints_inside_are_found_though_better_ones_lie_outside(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    every = detector(photograph, max_keypoints=2000)
    found = detector(photograph, mask=left_half(), max_keypoints=50)
    assert len(found) == 50
    well_inside = found.take(found.xy[:, 0] < 155)
    expected = every.take(every.xy[:, 0] < 155).top(len(well_inside))
    assert len(well_inside) > 40
    np.testing.assert_array_equal(well_inside.xy, expected.xy)


def test_a_mask_is_as_fine_as_the_image_when_that_is_brought_down(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    features = detector(photograph, mask=left_half(), max_side=120)
    assert len(features) > 20
    assert features.xy[:, 0].max() < 160 + 2 * 320 / 120  # one px of the input and its refinement
    mask = np.zeros((100, 100), bool)
    mask[40:60, 20:80] = True
    image = SourceImage(np.zeros((100, 100), np.uint8), "array", mask=mask)
    small = in_input(image, Placement((100, 100), (50, 50)))
    assert small is not None
    rows, columns = np.nonzero(small)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 29, 10, 39)


def test_a_strong_point_outside_still_suppresses_its_slope_inside() -> None:
    x = np.arange(40)
    heatmap = np.tile(np.exp(-((x - 22) ** 2) / 18), (24, 1)).astype(np.float32)
    mask = np.zeros(heatmap.shape, bool)
    mask[:, :20] = True
    xy, _ = select(heatmap, DetectionConfig(0.1, subpixel=False), mask)
    assert not (xy[:, 0] == 19).any()


def test_masks_of_many_images(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    paths = [str(tmp_path / f"{n}.png") for n in range(3)]
    for path in paths:
        Image.fromarray(photograph).save(path)
    for masks in (
        left_half(),
        [left_half(), None, left_half()],
        lambda source: None if source == paths[1] else left_half(),
    ):
        found = detector(paths, mask=masks)
        assert only_left(found[0])
        assert only_left(found[2])
        assert only_left(found[1]) == isinstance(masks, np.ndarray)
    with pytest.raises(ConfigError, match="2 masks for 3 images"):
        detector(paths, mask=[left_half()] * 2)
    with pytest.raises(ConfigError, match="stream of unknown length"):
        list(detector.stream(iter(paths), mask=[left_half()] * 3))


def test_a_bad_mask_is_the_images_own_failure(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=r"shape \(10, 20\), expected .* \(240, 320\)"):
        detector(photograph, mask=np.ones((10, 20), bool))
    with pytest.raises(ImageError, match="its mask cannot be read"):
        detector(photograph, mask=tmp_path / "gone.png")
    stream = detector.stream([photograph] * 2, mask=[tmp_path / "gone.png", None])
    found = [detection.features for detection in stream]
    assert found[0] is None
    assert found[1] is not None


def test_a_folder_of_masks_is_named_as_colmap_does(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.jpg.png").touch()
    folder = MaskFolder(tmp_path)
    assert folder.of("a/b.jpg") == tmp_path / "a" / "b.jpg.png"
    assert folder.of("a/c.jpg") is None
    with pytest.raises(ConfigError, match="no such folder"):
        MaskFolder(tmp_path / "gone")


def test_the_command_takes_masks_and_notices_when_they_come_later(
    photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    images, masks, out = (tmp_path / name for name in ("images", "masks", "out"))
    (images / "deep").mkdir(parents=True)
    (masks / "deep").mkdir(parents=True)
    for name in ("one.png", "deep/two.png"):
        Image.fromarray(photograph).save(images / name)
    Image.fromarray(left_half()).save(masks / "deep" / "two.png.png")
    command = ["detect", str(images), "-o", str(out)]
    runner = CliRunner()
    assert runner.invoke(app, [*command, "--masks", str(masks)]).exit_code == 0
    assert only_left(tiepoint.load(out / "deep" / "two.png.npz"))
    assert not only_left(tiepoint.load(out / "one.png.npz"))
    again = runner.invoke(app, [*command, "--masks", str(masks)])
    assert again.exit_code == 0
    without = runner.invoke(app, command)
    assert without.exit_code == 1
    assert "was made with mask" in without.output


class TestTorchTwin:
    """`on_torch` masks the same points."""

    torch: Any

    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        """Not in the class's body, where it would skip the whole module."""
        type(self).torch = pytest.importorskip("torch")

    def test_masked_images_of_a_batch_give_the_same_keypoints(self) -> None:
        from tiepoint.keypoints import on_torch

        rng = np.random.default_rng(2)
        heatmaps = rng.random((2, 40, 56), dtype=np.float32)
        sizes = [(40, 56), (33, 41)]
        heatmaps[1, 33:] = heatmaps[1, :, 41:] = 0
        masks = [None, rng.random((33, 41)) > 0.5]
        config = DetectionConfig(0.2, 9, nms_radius=2, border=1)
        flat = on_torch.select(self.torch.from_numpy(heatmaps), sizes, config, masks)
        for index, (height, width) in enumerate(sizes):
            expected = select(heatmaps[index, :height, :width], config, masks[index])
            chosen = flat.image == index
            np.testing.assert_allclose(flat.xy[chosen].numpy(), expected[0], atol=1e-4)
            np.testing.assert_array_equal(flat.scores[chosen].numpy(), expected[1])

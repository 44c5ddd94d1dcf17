"""Photographs as sheets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tiepoint.errors import FormatError, ImageError
from tiepoint.training.scenes.photographs import photo_files, photograph, read_grey

SIZE = (96, 128)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photograph whose grey is x, so that a crop shows where it is from."""
    ramp = np.tile(np.arange(240, dtype=np.uint8), (240, 1))
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    return tmp_path


def sheets(folder: Path, count: int, size_hw: tuple[int, int] = SIZE) -> list:
    return [
        photograph(np.random.default_rng(seed), size_hw, (str(folder),), "all")
        for seed in range(count)
    ]


def test_a_photograph_is_a_sheet_without_corners(folder: Path) -> None:
    for sheet in sheets(folder, 4):
        assert sheet.image.shape == SIZE and sheet.image.dtype == np.uint8
        assert sheet.corners_xy.shape == (0, 2)
        assert len(sheet.positive) == len(sheet.clearance) == 0


def test_a_crop_repeats_with_its_seed(folder: Path) -> None:
    first, again = sheets(folder, 1)[0], sheets(folder, 1)[0]
    assert np.array_equal(first.image, again.image)


def test_half_of_the_crops_are_mirrored(folder: Path) -> None:
    rising = [bool(np.diff(sheet.image.astype(int), axis=1).mean() > 0)
              for sheet in sheets(folder, 40)]  # fmt: skip
    assert 10 < sum(rising) < 30


def test_scales_are_within_their_range(folder: Path) -> None:
    slopes = [abs(float(np.diff(s.image.astype(float), axis=1).mean())) for s in sheets(folder, 40)]
    assert 1 / 1.85 < min(slopes) < max(slopes) < 1 / 0.72  # greys per px of the sheet
    assert max(slopes) > 1.3 * min(slopes)


def test_crops_are_from_all_over_the_photograph(folder: Path) -> None:
    greys = np.concatenate([sheet.image[0, [0, -1]] for sheet in sheets(folder, 60, (96, 96))])
    assert greys.min() < 25 and greys.max() > 215


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (20, 20), (97, 129)])
def test_a_photograph_smaller_than_the_sheet_is_enlarged_to_fill_it(tmp_path, shape) -> None:
    values = np.random.default_rng(0).integers(60, 200, shape, dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "small.png"), values)
    for sheet in sheets(tmp_path, 4):
        assert sheet.image.shape == SIZE
        assert 30 < sheet.image.mean() < 230


def test_every_photograph_of_a_folder_is_used(tmp_path) -> None:
    for number in range(4):
        grey = np.full((150, 150), 50 + 40 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), grey)
    greys = {int(sheet.image[0, 0]) for sheet in sheets(tmp_path, 30)}
    assert greys == {50, 90, 130, 170}


def test_a_photograph_that_cannot_be_read_is_reported_once_and_left_out(tmp_path, caplog) -> None:
    for number in range(3):
        grey = np.full((150, 150), 50 + 40 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), grey)
    (tmp_path / "1.png").write_bytes(b"no picture")
    greys = {int(sheet.image[0, 0]) for sheet in sheets(tmp_path, 30)}
    assert greys == {50, 130}
    assert [record.message.count("1.png") for record in caplog.records] == [1]


def test_photographs_of_which_none_can_be_read_are_an_error(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"a\.png"):
        sheets(tmp_path, 1)


def test_photographs_of_several_folders_keep_their_order(tmp_path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        for number in (2, 1):
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), np.zeros((8, 8), np.uint8))
    files = photo_files((str(tmp_path / "b"), str(tmp_path / "a")), "all")
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "b/1.png", "b/2.png", "a/1.png", "a/2.png"
    ]  # fmt: skip


def test_a_colour_photograph_becomes_grey(tmp_path) -> None:
    colour = np.zeros((20, 20, 3), np.uint8)
    colour[..., 1] = 255  # pure green
    cv2.imwrite(str(tmp_path / "green.png"), colour)
    grey = read_grey(tmp_path / "green.png")
    assert grey.shape == (20, 20) and grey.dtype == np.uint8
    assert 100 < grey[0, 0] < 255 and (grey == grey[0, 0]).all()


def test_a_photograph_is_read_once(folder: Path) -> None:
    assert read_grey(folder / "ramp.png") is read_grey(folder / "ramp.png")


def test_a_missing_folder_is_reported(tmp_path) -> None:
    with pytest.raises(FormatError, match="no such folder"):
        sheets(tmp_path / "none", 1)


def test_a_folder_without_photographs_is_reported(tmp_path) -> None:
    with pytest.raises(FormatError):
        sheets(tmp_path, 1)


def test_a_damaged_photograph_is_reported(tmp_path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    with pytest.raises(ImageError, match=r"broken\.png"):
        sheets(tmp_path, 1)


def test_development_photographs_are_never_trained_on(shared) -> None:
    folders = (str(shared / "photos" / "free"),)
    training, development = (photo_files(folders, part) for part in ("training", "development"))
    assert training and development
    assert not set(training) & set(development)
    assert set(training) | set(development) == set(photo_files(folders, "all"))

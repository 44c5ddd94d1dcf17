"""Contact sheets of training pairs, and the report beside them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from support.fake_pairs import SHIFT_XY, squares
from tiepoint.errors import FormatError, OutputError
from tiepoint.training.scenes import samples
from tiepoint.training.scenes.pairs import TrainingPair, TrainingView
from tiepoint.training.scenes.samples import ENLARGED, contact_sheet, write_samples
from tiepoint.training.scenes.settings import DataConfig

SIZE = (64, 80)


def pairs(count: int) -> list[TrainingPair]:
    return [squares(0, index, SIZE) for index in range(count)]


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_row_has_two_pairs(count: int, rows: int) -> None:
    sheet = contact_sheet(pairs(count))
    assert sheet.shape == (rows * 64 * ENLARGED, 4 * 80 * ENLARGED, 3)
    assert sheet.dtype == np.uint8


def test_the_rest_of_the_last_row_is_black() -> None:
    sheet = contact_sheet(pairs(3))
    assert not sheet[64 * ENLARGED :, 2 * 80 * ENLARGED :].any()
    assert sheet[64 * ENLARGED :, : 2 * 80 * ENLARGED].any()


def plain_pair(corners: list[tuple[float, float]], ignore: np.ndarray | None = None):
    """A black pair without common view."""
    xy = np.array(corners, np.float32).reshape(-1, 2)
    ignored = np.zeros(SIZE, bool) if ignore is None else ignore
    view = TrainingView(np.zeros(SIZE, np.uint8), xy, ignored)
    other = TrainingView(np.zeros(SIZE, np.uint8), np.zeros((0, 2), np.float32), ignored * False)
    nowhere = np.full((*SIZE, 2), np.nan, np.float32)
    return TrainingPair(view, other, nowhere, nowhere, "shapes")


def test_an_image_is_enlarged_px_by_px() -> None:
    pair = plain_pair([])
    pair.a.image[10, 20] = 200
    sheet = contact_sheet([pair])
    rows, columns = np.nonzero(sheet[..., 0])
    assert (rows.min(), rows.max() + 1) == (10 * ENLARGED, 11 * ENLARGED)
    assert (columns.min(), columns.max() + 1) == (20 * ENLARGED, 21 * ENLARGED)
    assert (sheet[rows, columns] == 200).all()


def test_a_corner_is_a_green_ring_around_its_position() -> None:
    sheet = contact_sheet([plain_pair([(20.0, 30.0)])])
    blue, green, red = (sheet[..., channel].astype(int) for channel in range(3))
    ring = (green > 150) & (green > blue) & (green > red)
    rows, columns = np.nonzero(ring)
    assert rows.mean() == pytest.approx(30 * ENLARGED + 1, abs=0.6)
    assert columns.mean() == pytest.approx(20 * ENLARGED + 1, abs=0.6)
    assert not ring[30 * ENLARGED + 1, 20 * ENLARGED + 1]  # hollow: the px itself shows


def test_ignored_px_are_tinted_blue() -> None:
    ignore = np.zeros(SIZE, bool)
    ignore[5, 6] = True
    sheet = contact_sheet([plain_pair([], ignore)])
    rows, columns = np.nonzero(sheet[..., 0])
    assert len(rows) == ENLARGED**2
    assert (sheet[rows, columns].argmax(axis=1) == 0).all()


def yellow(sheet: np.ndarray) -> np.ndarray:
    blue, green, red = (sheet[..., channel].astype(int) for channel in range(3))
    return (red > 180) & (green > 150) & (blue < 120)


def test_numbers_are_at_corresponding_points_of_both_views() -> None:
    pair = plain_pair([(20.0, 30.0)])
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    moved = np.stack([x, y], axis=-1) + np.array(SHIFT_XY, np.float32)
    sheet = contact_sheet([TrainingPair(pair.a, pair.b, moved, moved, "shapes")])
    half = 80 * ENLARGED
    rows_a, columns_a = np.nonzero(yellow(sheet[:, :half]))
    rows_b, columns_b = np.nonzero(yellow(sheet[:, half : 2 * half]))
    assert len(rows_b) > 5
    shift_x, shift_y = columns_b.min() - columns_a.min(), rows_b.min() - rows_a.min()
    assert shift_x == pytest.approx(SHIFT_XY[0] * ENLARGED, abs=3)
    assert shift_y == pytest.approx(SHIFT_XY[1] * ENLARGED, abs=3)


def test_corners_that_the_other_view_does_not_show_have_no_number() -> None:
    assert not yellow(contact_sheet([plain_pair([(20.0, 30.0)])])).any()


def test_only_a_few_corners_are_numbered() -> None:
    pair = squares(0, 1, SIZE)
    assert len(pair.a.corners_xy) == 24
    tracked = samples.tracked_corners(pair)
    assert 1 <= len(tracked) <= samples.TRACKED
    for xy, position in tracked:
        assert np.abs(position - xy - SHIFT_XY).max() <= 0.51


def test_samples_of_each_kind_and_a_report_are_written(tmp_path) -> None:
    config = DataConfig(size_hw=(64, 64), mix=(("shapes", 0.5), ("repeats", 0.5), ("glyphs", 0.0)))
    report = write_samples(tmp_path / "new" / "folder", config, 3, 1)
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "repeats.png", "report.json", "shapes.png"
    ]  # fmt: skip
    assert json.loads((folder / "report.json").read_text()) == report
    assert set(report) == {"seed", "size_hw", "shapes", "repeats", "generated"}
    assert report["seed"] == 3 and report["size_hw"] == [64, 64]
    assert report["shapes"]["pairs"] == 1 and report["shapes"]["images"] == 2
    assert report["generated"]["pairs"] == 2
    assert cv2.imread(str(folder / "shapes.png")).shape == (64 * ENLARGED, 4 * 64 * ENLARGED, 3)


def test_samples_replace_those_of_an_earlier_run(tmp_path) -> None:
    (tmp_path / "shapes.png").write_bytes(b"old")
    (tmp_path / "other.txt").write_text("kept")
    config = DataConfig(size_hw=(64, 64), mix=(("shapes", 1.0),))
    write_samples(tmp_path, config, 0, 1)
    assert cv2.imread(str(tmp_path / "shapes.png")) is not None
    assert (tmp_path / "other.txt").read_text() == "kept"


def test_samples_cannot_be_written_over_a_file(tmp_path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OutputError):
        write_samples(file, DataConfig(size_hw=(64, 64)), 0, 1)


def test_missing_photographs_are_reported(tmp_path) -> None:
    config = DataConfig(size_hw=(64, 64), mix=(("shapes", 1.0),), photos=(str(tmp_path / "no"),))
    with pytest.raises(FormatError, match="no such folder"):
        write_samples(tmp_path / "out", config, 0, 1)

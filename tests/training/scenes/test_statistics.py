"""Image statistics: known images, slow twins, and quantiles over several."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from support.fake_pairs import squares
from tiepoint.training.scenes import statistics, textures
from tiepoint.training.scenes.pairs import TrainingView


def square_image() -> np.ndarray:
    image = np.full((80, 96), 102, np.uint8)
    image[20:51, 20:61] = 230
    return image


def test_a_flat_image_is_empty() -> None:
    flat = statistics.image_statistics(np.full((64, 64), 90, np.uint8))
    assert flat.empty == 1 and flat.peaks == 0 and flat.spread == 0
    assert np.isnan(flat.contrast) and np.isnan(flat.slope) and np.isnan(flat.kurtosis)


def test_gaussian_noise_has_kurtosis_three_and_no_empty_cell() -> None:
    rough = 128 + 20 * np.random.default_rng(0).standard_normal((128, 128))
    noisy = statistics.image_statistics(np.clip(rough, 0, 255).astype(np.uint8))
    assert noisy.kurtosis == pytest.approx(3, abs=0.2)
    assert noisy.empty < 0.05
    assert noisy.spread == pytest.approx(20 / 255, rel=0.05)
    assert noisy.slope == pytest.approx(0, abs=0.1)


def test_a_square_has_four_peaks() -> None:
    measured = statistics.image_statistics(square_image())
    assert measured.peaks == pytest.approx(100 * 4 / 120)
    assert 0.2 < measured.contrast <= 0.51  # peaks are inside the square, rings reach half out


def test_an_image_with_few_edges_has_heavy_tails() -> None:
    assert statistics.image_statistics(square_image()).kurtosis > 10


def test_inverting_an_image_changes_no_statistic() -> None:
    values = textures.noise(np.random.default_rng(1), 96, 1.2)
    image = np.clip(128 + 40 * values, 0, 255).astype(np.uint8)
    one, other = statistics.image_statistics(image), statistics.image_statistics(255 - image)
    for name in ("slope", "kurtosis", "empty", "contrast", "spread"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-3)
    assert one.peaks == pytest.approx(other.peaks, abs=1)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_slope_of_noise_is_its_exponent(exponent: float) -> None:
    values = textures.noise(np.random.default_rng(2), 256, exponent)
    assert statistics.spectrum_slope(values) == pytest.approx(exponent, abs=0.12)


def test_the_slope_does_not_depend_on_brightness_and_contrast() -> None:
    values = textures.noise(np.random.default_rng(3), 128, 1.0)
    slope = statistics.spectrum_slope(values)
    assert statistics.spectrum_slope(0.3 * values + 7) == pytest.approx(slope, abs=1e-3)


def test_the_spread_of_cells_is_that_of_the_slow_twin() -> None:
    values = np.random.default_rng(4).random((37, 29), np.float32)  # not whole cells
    padded = np.pad(values, 1, mode="reflect")
    smooth = np.array([[padded[y : y + 3, x : x + 3].mean() for x in range(29)] for y in range(37)])
    slow = [
        [smooth[8 * i : 8 * i + 8, 8 * j : 8 * j + 8].std() for j in range(3)] for i in range(4)
    ]
    assert statistics.cell_spread(values) == pytest.approx(np.array(slow), abs=1e-5)


def view_with(xy: list[tuple[float, float]], ignore: np.ndarray | None = None) -> TrainingView:
    corners = np.array(xy, np.float32).reshape(-1, 2)
    ignored = np.zeros((32, 40), bool) if ignore is None else ignore
    return TrainingView(np.zeros((32, 40), np.uint8), corners, ignored)


def test_corners_are_counted_by_their_px_in_the_cell() -> None:
    counts = statistics.in_cell_histogram(
        [view_with([(0.4, 0.0), (8.0, 8.0), (9.2, 3.0)]), view_with([(15.6, 2.6)])]
    )
    assert counts.shape == (8, 8) and counts.sum() == 4
    assert counts[0, 0] == 2 and counts[3, 1] == 1  # (row, column)
    assert counts[3, 0] == 1  # (15.6, 2.6) rounds to (16, 3)


def test_no_views_and_no_corners_count_nothing() -> None:
    assert statistics.in_cell_histogram([]).sum() == 0
    assert statistics.in_cell_histogram([view_with([])]).sum() == 0


def test_a_summary_has_three_quantiles_of_every_statistic() -> None:
    images = [np.full((64, 64), 90, np.uint8), square_image(), square_image()]
    summary = statistics.summary(images)
    assert summary["images"] == 3
    spreads = [float((image / 255).std()) for image in images]
    assert summary["spread"] == pytest.approx(np.quantile(spreads, [0.1, 0.5, 0.9]), abs=1e-3)
    assert len(summary["contrast"]) == 3  # of the two images that have any


def test_a_summary_of_nothing_counts_zero_images() -> None:
    assert statistics.summary([]) == {"images": 0}


def test_a_statistic_that_no_image_has_is_none() -> None:
    summary = statistics.summary([np.full((64, 64), 90, np.uint8)])
    assert summary["contrast"] is None and summary["empty"] == [1, 1, 1]


def test_a_pair_summary_counts_corners_ignored_cells_and_the_common_view() -> None:
    pairs = [squares(0, index, (64, 80)) for index in range(3)]
    pairs[0].a.ignore[0:8, 0:16] = True  # two of 80 cells
    summary = statistics.pair_summary(pairs)
    assert summary["pairs"] == 3
    assert summary["corners_per_100_cells"] == [30, 30, 30]  # 24 corners on 80 cells
    ignored = [2 / 80, 0, 0, 0, 0, 0]
    assert summary["ignored_cells"] == pytest.approx(
        np.quantile(ignored, [0.1, 0.5, 0.9]), abs=1e-4
    )
    assert all(0.9 < share < 1 for share in summary["common_view"])
    low, high = summary["in_cell_of_flat"]
    assert 0 <= low <= 1 <= high


def test_photographs_are_cut_from_their_middles(tmp_path) -> None:
    ramp = np.tile(np.arange(240, dtype=np.uint8), (120, 1))
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    (piece,) = statistics.photographs_at((str(tmp_path),), "all", (64, 80), 5)
    assert piece.shape == (64, 80) and piece.dtype == np.uint8
    assert float(piece.mean()) == pytest.approx(119.5, abs=1)
    assert np.diff(piece.astype(float), axis=1).mean() == pytest.approx(1.2, abs=0.02)  # at 5/6


def test_small_photographs_are_left_out(tmp_path) -> None:
    for name, side in (("small.png", 70), ("large.png", 100)):
        cv2.imwrite(str(tmp_path / name), np.full((side, side), 90, np.uint8))
    pieces = statistics.photographs_at((str(tmp_path),), "all", (64, 64), 5)
    assert len(pieces) == 1  # 70 px at 5/6 are 58


def test_photographs_that_cannot_be_read_are_reported_and_left_out(tmp_path, caplog) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), np.full((80, 80), 90, np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert len(statistics.photographs_at((str(tmp_path),), "all", (64, 64), 5)) == 1
    assert "bad.png" in caplog.text


def test_photographs_are_picked_evenly(tmp_path) -> None:
    for number in range(9):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((80, 80), 20 * number, np.uint8))
    pieces = statistics.photographs_at((str(tmp_path),), "all", (64, 64), 3)
    assert [int(piece[0, 0]) for piece in pieces] == [0, 60, 120]
    assert len(statistics.photographs_at((str(tmp_path),), "all", (64, 64), 100)) == 9

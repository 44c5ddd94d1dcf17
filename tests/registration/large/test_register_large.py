"""Large images are registered in windows: accuracy, refusals, damage, and georeferenced files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support import large_pairs
from tiepoint.config import LargeConfig
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, ImageError
from tiepoint.images.arrays import Decoded
from tiepoint.images.windows import ArrayWindows, Window
from tiepoint.registration import planar
from tiepoint.registration.large.fitting import fit_plane
from tiepoint.registration.large.matching import Points
from tiepoint.registration.large.register import register_large
from tiepoint.registration.large.result import LargeRegistration
from tiepoint.registration.register import registration_detector

Images = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return registration_detector("small", precision="f32")


@pytest.fixture(scope="module")
def bent() -> Images:
    return large_pairs.pair()


@pytest.fixture(scope="module")
def plane() -> Images:
    return large_pairs.pair(bend_px=0.0)


@pytest.fixture(scope="module")
def smooth(bent: Images, detector: Detector) -> LargeRegistration:
    return register_large(*bent, detector=detector)


def test_a_bent_pair_is_registered_to_a_fraction_of_a_pixel(smooth: LargeRegistration) -> None:
    assert smooth.success and smooth.reason == "ok" and smooth.model == "smooth"
    errors = large_pairs.errors_px(smooth.transform)
    assert np.median(errors) < 0.3 and np.quantile(errors, 0.95) < 1.0
    assert smooth.coverage > 0.9 and smooth.cells[0] >= 0.9 * smooth.cells[1]
    assert smooth.reprojection_px.median <= smooth.left_out_px.median < 1.0
    np.testing.assert_allclose(smooth.inverse(smooth.transform([700, 800])), [700, 800], atol=1e-4)


def test_a_strong_bend_is_found_by_smaller_overviews(detector: Detector) -> None:
    result = register_large(*large_pairs.pair(bend_px=25.0), detector=detector)
    assert result.success
    assert np.median(large_pairs.errors_px(result.transform, bend_px=25.0)) < 0.5


def test_the_matched_points_are_true(smooth: LargeRegistration) -> None:
    errors = np.linalg.norm(large_pairs.to_a(smooth.xy_b) - smooth.xy_a, axis=1)
    assert np.median(errors) < 0.5 and (errors[smooth.inliers] < 3).mean() > 0.99


def test_points_are_spread_over_the_common_view(smooth: LargeRegistration) -> None:
    place = smooth.xy_b // (large_pairs.SIDE / 3)
    assert len({tuple(cell) for cell in place.astype(int).tolist()}) == 9
    counts = smooth.residual_map.counts
    assert counts.max() <= LargeConfig().points_per_cell
    assert counts.sum() == len(smooth.xy_a)


@pytest.mark.parametrize("model", ["homography", "affine"])
def test_a_plane_model_is_refused_for_a_bent_pair_and_names_the_smooth_one(
    bent: Images, detector: Detector, model: Any
) -> None:
    result = register_large(*bent, detector=detector, model=model)
    assert not result.success and result.mapping is None
    assert 'the images may be bent: register with model "smooth"' in result.reason


@pytest.mark.parametrize("model", ["homography", "affine", "smooth"])
def test_a_plane_pair_is_registered_by_all_models(
    plane: Images, detector: Detector, model: Any
) -> None:
    result = register_large(*plane, detector=detector, model=model)
    assert result.success
    assert large_pairs.errors_px(result.transform, bend_px=0.0).max() < 0.5
    mapping = result.require()
    assert (mapping.deformation is not None) == (model == "smooth")
    assert mapping.is_affine == (model == "affine")


def test_left_out_residuals_of_a_plane_are_those_of_fits_without_the_window(
    plane: Images, detector: Detector
) -> None:
    result = register_large(*plane, detector=detector, model="affine")
    cells = np.repeat(np.arange(len(result.residual_map.counts)), result.residual_map.counts)
    count = len(cells)
    points = Points(
        result.xy_a, result.xy_b, np.ones(count), cells, np.zeros((9, 2)), np.ones(9, bool)
    )
    matrix, _ = planar.refine("affine", result.require().matrix, points.xy_a, points.xy_b, 3.0)
    left_out = fit_plane("affine", points, matrix, 3.0).left_out
    for cell in (0, 3):
        others = cells != cell
        rest = replace(points, xy_a=points.xy_a[others], xy_b=points.xy_b[others])
        without, _ = planar.refine("affine", matrix, rest.xy_a, rest.xy_b, 3.0)
        exact = planar._offsets(without, points.xy_a[~others], points.xy_b[~others])
        # Robust weights change a little without the window, which the closed form leaves out.
        np.testing.assert_allclose(left_out[~others], exact, atol=0.03)


def test_unrelated_images_are_refused_without_any_window(bent: Images, detector: Detector) -> None:
    result = register_large(bent[0], large_pairs.texture(seed=9), detector=detector)
    assert not result.success and result.cells == (0, 0)
    assert result.coarse is not None and result.reason == result.coarse.reason
    assert "not registered" in repr(result)


def test_a_zoom_of_four_is_found_by_smaller_overviews(bent: Images, detector: Detector) -> None:
    a = bent[0]
    part = a[500:875, 600:975]
    b = cv2.resize(part, (1500, 1500), interpolation=cv2.INTER_CUBIC)
    result = register_large(a, b, detector=detector, model="affine")
    assert result.success
    xy = np.array([[650.0, 550.0], [900.0, 800.0]])
    exact = (xy - [600, 500] + 0.5) * 4 - 0.5
    np.testing.assert_allclose(result.transform(xy), exact, atol=2.0)


class Damaged(ArrayWindows):
    """An array whose windows that touch one place cannot be read, except for the overview's."""

    def __init__(self, array: Any, place_xy: Sequence[int], whole: int) -> None:
        super().__init__(array, "damaged.tif")
        self._place, self._whole = place_xy, whole

    def read(self, window: Window, level: int = 0) -> Decoded:
        x, y = self._place
        rows, columns = window.slices
        touches = rows.start <= y < rows.stop and columns.start <= x < columns.stop
        if touches and window.width < self._whole:
            raise ImageError("damaged.tif: cannot be read there")
        return super().read(window, level)


def test_a_damaged_window_raises_or_is_left_out(bent: Images, detector: Detector) -> None:
    source = Damaged(bent[0], (750, 750), large_pairs.SIDE)
    with pytest.raises(ImageError, match=r"damaged.tif"):
        register_large(source, bent[1], detector=detector)
    result = register_large(source, bent[1], detector=detector, on_damage="skip", cell_px=256)
    assert result.success and len(result.damaged) >= 1
    name, (x, y) = result.damaged[0]
    assert name == "A" and abs(x - 750) <= 256 and abs(y - 750) <= 256
    assert np.median(large_pairs.errors_px(result.transform)) < 0.5


def test_gaps_are_passed_over(bent: Images, detector: Detector) -> None:
    a = bent[0].astype(np.float32) / 255
    a[:, :500] = np.nan
    result = register_large(a, bent[1], detector=detector)
    assert result.success and (result.xy_a[:, 0] > 495).all()


def test_files_with_a_map_position_answer_in_map_coordinates(
    bent: Images, detector: Detector, tmp_path: Path
) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")
    for name, pixels in zip("ab", bent, strict=True):
        profile = {
            "driver": "GTiff", "width": 1500, "height": 1500, "count": 1, "dtype": "uint8",
            "crs": "EPSG:25832", "transform": rasterio.Affine(0.5, 0, 1000, 0, -0.5, 2000),
        }  # fmt: skip
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as file:
            file.write(pixels, 1)
    result = register_large(tmp_path / "a.tif", tmp_path / "b.tif", detector=detector)
    place = result.georeferences[1]
    assert place is not None and place.crs == "EPSG:25832"
    x, y = result.transform([700, 800])
    np.testing.assert_allclose(
        result.to_map([700, 800]), [1000 + (x + 0.5) / 2, 2000 - (y + 0.5) / 2]
    )
    assert result.summary()["left_out_map"]["median"] == pytest.approx(
        result.left_out_px.median / 2
    )


def test_the_progress_goes_through_all_steps(bent: Images, detector: Detector) -> None:
    seen: list[tuple[str, int, int]] = []
    register_large(*bent, detector=detector, progress=lambda *state: seen.append(state))
    steps = list(dict.fromkeys(step for step, _, _ in seen))
    assert steps == ["overview", "1", "2"]
    for step in steps:
        states = [(done, total) for name, done, total in seen if name == step]
        assert [done for done, _ in states] == list(range(1, states[-1][1] + 1))


def test_the_number_of_windows_is_limited(bent: Images, detector: Detector) -> None:
    result = register_large(*bent, detector=detector, max_cells=12, cell_px=256)
    assert result.success and 6 <= result.cells[1] <= 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "spline"}, "model is 'spline'"),
        ({"max_cells": 0}, "max_cells is 0"),
        ({"cell_px": 50}, "cell_px is 50"),
        ({"points_per_cell": 2}, "points_per_cell is 2"),
        ({"overview_px": 10}, "overview_px is 10"),
        ({"threshold_px": 0}, "threshold_px is 0"),
        ({"min_cells": 0}, "min_cells is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"on_damage": "stop"}, "on_damage is 'stop'"),
        ({"tile_px": 5}, "tile_px"),
    ],
)
def test_settings_out_of_range_are_refused(settings: Any, message: str) -> None:
    image = np.zeros((64, 64), np.uint8)
    with pytest.raises(ConfigError, match=message):
        register_large(image, image, **settings)

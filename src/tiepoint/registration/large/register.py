"""Register two images of any size: overviews first, then windows where the model predicts them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack, get_args

import cv2
import numpy as np

from tiepoint.checks import check_choice
from tiepoint.config import LargeConfig, LargeOptions, RegistrationConfig, resolve
from tiepoint.detector import Detector
from tiepoint.errors import is_installed
from tiepoint.features import Features, Matches
from tiepoint.geometry import Matrix, SizeHW, resize_matrix, with_longer_side
from tiepoint.images.opening import open_windows
from tiepoint.images.reading import SourceImage
from tiepoint.images.urls import without_credentials
from tiepoint.images.windows import WindowSource
from tiepoint.matching.match import match
from tiepoint.registration.appearance import picture_of
from tiepoint.registration.fit import FORWARD
from tiepoint.registration.large import verdict
from tiepoint.registration.large.cells import Detail, Level, common_area, common_samples, frames
from tiepoint.registration.large.fitting import LargeFit, fit_plane, fit_smooth
from tiepoint.registration.large.georeference import Georeference, georeference_of
from tiepoint.registration.large.masking import masked
from tiepoint.registration.large.matching import Points, matched_points
from tiepoint.registration.large.patches import Overview, overview
from tiepoint.registration.large.result import (
    LargeRegistration,
    ResidualMap,
    residual_map,
    residuals_of,
)
from tiepoint.registration.large.transform import LargeTransform
from tiepoint.registration.register import (
    Pictured,
    ordered,
    paired,
    registered,
    registration_detector,
)
from tiepoint.registration.result import NO_RESIDUALS, OK, Registration

logger = logging.getLogger(__name__)

OnDamage = Literal["raise", "skip"]
Progress = Callable[[str, int, int], None]
"""Called with the step ("overview", "1", "2", ...), windows done, and windows of the step."""

SHARES = (
    (1.0, 1.0), (0.5, 0.5), (1.0, 0.5), (0.5, 1.0), (0.25, 0.25), (1.0, 0.25), (0.25, 1.0),
)  # fmt: skip
"""Sizes of the overviews of A and B that are tried in turn: both smaller for images that are bent
by many px of the overview, one of them smaller for images that differ in zoom."""
OVERVIEW_KEYPOINTS = 2000
STEP = 4.0
"""Largest factor of resolution from one step to the next."""
FIRST_REACH_PX, MIDDLE_REACH_PX, LAST_REACH_PX = 16.0, 12.0, 8.0
FIRST_FRAME_PX = 256
FIRST_CELLS, MIDDLE_CELLS = 64, 144
CACHE_BYTES = 128_000_000
"""GDAL's cache of blocks, which takes a share of the machine's memory otherwise."""


@dataclass(frozen=True, eq=False)
class _Job:
    """Both images with everything that all steps need."""

    sources: tuple[WindowSource, WindowSource]
    georeferences: tuple[Georeference | None, Georeference | None]
    exif_orientation: int
    detector: Detector
    config: LargeConfig
    skips: bool
    progress: Progress

    @property
    def sizes_hw(self) -> tuple[SizeHW, SizeHW]:
        """(height, width) of A and of B, px."""
        return self.sources[0].size_hw, self.sources[1].size_hw

    @property
    def names(self) -> tuple[str, str]:
        """Names of A and of B, URLs without user and password."""
        a, b = (without_credentials(source.name) for source in self.sources)
        return a, b


def register_large(
    a: Any,
    b: Any,
    *,
    detector: Detector | None = None,
    checkpoint: str | Path = "default",
    mask_a: Any = None,
    mask_b: Any = None,
    on_damage: OnDamage = "raise",
    progress: Progress | None = None,
    config: LargeConfig | None = None,
    **overrides: Unpack[LargeOptions],
) -> LargeRegistration:
    """Estimate the transform from image A to image B, of any size, in bounded memory.

    Overviews are registered first, at any rotation. Windows follow from coarse to full resolution,
    each compared with its image in B by the model so far.

    Args:
        a, b: Each a source of `open_windows`: a raster file, an array or memory map, or any other
            image. Images without smaller copies are read once for their overview.
        detector: None takes `registration_detector(checkpoint)`.
        mask_a, mask_b: Where each image is used, of its size; see `mask_windows.open_mask`.
        on_damage: Windows that cannot be read: "raise", or "skip" leaves them out and records
            them. Overviews must be readable.
        progress: Called after each window.
        config, overrides: Settings; single ones, such as `model`, replace those of `config`.

    Returns:
        LargeRegistration. Check `success`; `reason` explains a failure.

    Raises:
        ImageError: An image or a mask cannot be read, or a mask has another size.
        ConfigError: A setting out of range or unknown.
    """
    settings = resolve(config or LargeConfig(), overrides)
    check_choice("on_damage", on_damage, get_args(OnDamage))
    detector = detector or registration_detector(checkpoint)
    with (
        _bounded_cache(),
        open_windows(a) as whole_a,
        open_windows(b) as whole_b,
        masked(whole_a, mask_a) as source_a,
        masked(whole_b, mask_b) as source_b,
    ):
        places = georeference_of(a), georeference_of(b)
        job = _Job(
            (source_a, source_b), places, getattr(whole_a, "exif_orientation", 1), detector,
            settings, on_damage == "skip", progress or (lambda step, done, total: None),
        )  # fmt: skip
        return _registered(job)


@contextmanager
def _bounded_cache() -> Iterator[None]:
    if not is_installed("rasterio"):
        yield
        return
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        yield


def _registered(job: _Job) -> LargeRegistration:
    views = []
    for number, source in enumerate(job.sources, 1):
        views.append(overview(source, job.config.overview_px))
        job.progress("overview", number, 2)
    coarse, found = _coarse((views[0], views[1]), job)
    if found is None:
        return _failed(job, coarse, coarse.reason)
    transform = LargeTransform(found.matrix)
    details = Detail(views[0]), Detail(views[1])
    levels = _levels(transform, found.overview_px, job)
    points: Points | None = None
    for number, level in enumerate(levels, 1):
        step = str(number)
        windows = frames(transform, *job.sizes_hw, level, details)
        points = matched_points(
            job.sources, windows, level, job.detector, skips=job.skips,
            points_per_cell=job.config.points_per_cell,
            progress=partial(job.progress, step),
        )  # fmt: skip
        logger.info("step %s: %d of %d windows agree", step, points.agreeing.sum(), len(windows))
        objection = verdict.objection_to_points(points, job.config)
        if objection is not None:
            if number < len(levels):  # coarse windows are few; the next step decides
                continue
            return _failed(job, coarse, objection, points)
        if number < len(levels):
            within = job.config.threshold_px * max(1.0, level.px * max(1.0, _scale(transform, job)))
            area = common_area(transform, *job.sizes_hw)
            transform = fit_smooth(points, transform.matrix, within, area).transform
    assert points is not None
    return _finished(job, coarse, points, transform)


class _Start(NamedTuple):
    """A matrix from A to B, and px of A and of B per px of the overviews that gave it."""

    matrix: Matrix
    overview_px: tuple[float, float]


def _coarse(views: tuple[Overview, Overview], job: _Job) -> tuple[Registration, _Start | None]:
    """The registration of the overviews, and what the windows start from."""
    settings = RegistrationConfig(max_keypoints=OVERVIEW_KEYPOINTS, seed=job.config.seed)
    first: Registration | None = None
    pictures: dict[tuple[int, float], tuple[Pictured, Matrix]] = {}
    for shares in SHARES:
        sides = []
        for index, share in enumerate(shares):
            if (index, share) not in pictures:
                image, to_full = _reduced(views[index], share)
                features = job.detector(image, max_side=None, max_keypoints=OVERVIEW_KEYPOINTS)
                pictures[index, share] = Pictured(features, picture_of(image)), to_full
            sides.append(pictures[index, share])
        (one, to_a), (two, to_b) = sides
        low, high, names = ordered(one, two)
        matches = match(low.features, high.features)
        result = registered(paired(low, high, names, matches, settings), guided=True)
        if result.success:
            assert result.matrix is not None
            matrix = to_b @ result.matrix @ np.linalg.inv(to_a)
            return result, _Start(matrix, (float(to_a[0, 0]), float(to_b[0, 0])))
        first = first or result
    assert first is not None
    return first, None


def _reduced(view: Overview, share: float) -> tuple[SourceImage, Matrix]:
    """An overview at a share of its size, and its map to the image."""
    if share == 1:
        return view.image, view.to_full
    size_hw = view.image.size_hw
    small_hw = with_longer_side(size_hw, max(1, round(max(size_hw) * share)))
    pixels = cv2.resize(view.image.pixels, small_hw[::-1], interpolation=cv2.INTER_AREA)
    valid = view.image.valid
    if valid is not None:
        shares = cv2.resize(valid.astype(np.float32), small_hw[::-1], interpolation=cv2.INTER_AREA)
        valid = shares > 0.99
    image = replace(view.image, pixels=pixels, valid=valid)
    return image, view.to_full @ resize_matrix(small_hw, size_hw)


def _scale(transform: LargeTransform, job: _Job) -> float:
    """Pixels of B per pixel of A, median over the common view."""
    samples, _ = common_samples(transform, *job.sizes_hw)
    if len(samples) == 0:
        return 1.0
    return float(np.median(np.sqrt(np.abs(np.linalg.det(transform.slopes(samples))))))


def _levels(transform: LargeTransform, overview_px: tuple[float, float], job: _Job) -> list[Level]:
    """The steps from the overviews to full resolution."""
    scale = _scale(transform, job)
    of_a, of_b = overview_px
    first = max(1.0, max(of_a, of_b / scale) / max(1.0, 1 / scale))
    count = max(1, math.ceil(math.log(first) / math.log(STEP) - 1e-9))
    config = job.config
    levels = [Level(first, FIRST_FRAME_PX, FIRST_REACH_PX, min(FIRST_CELLS, config.max_cells))]
    for number in range(1, count):
        px = first ** (1 - number / count)
        most = min(MIDDLE_CELLS, config.max_cells)
        levels.append(Level(px, config.cell_px, MIDDLE_REACH_PX, most))
    return [*levels, Level(1.0, config.cell_px, LAST_REACH_PX, config.max_cells)]


def _finished(
    job: _Job, coarse: Registration, points: Points, transform: LargeTransform
) -> LargeRegistration:
    """The final model, and the verdict on it."""
    config, model = job.config, job.config.model
    area = common_area(transform, *job.sizes_hw)
    if model == "smooth":
        fit = fit_smooth(points, transform.matrix, config.threshold_px, area)
    else:
        plane = _plane(points, job)
        if plane.matrix is None:
            bent = plane.inlier_ratio < verdict.LEAST_FITTING
            reason = f"{plane.reason}; {verdict.BENT}" if bent else plane.reason
            return _failed(job, coarse, reason, points)
        fit = fit_plane(model, points, plane.matrix, config.threshold_px)
    evidence = verdict.Evidence(points, fit, config, job.sizes_hw)
    return _result(job, coarse, points, fit, evidence.coverage, verdict.objection_to(evidence))


def _plane(points: Points, job: _Job) -> Registration:
    """The plane model and the verdict of `register` on all points."""
    config = job.config
    assert config.model != "smooth"
    settings = RegistrationConfig(
        model=config.model, threshold_px=config.threshold_px, seed=config.seed, guided=False
    )
    count = len(points)
    variance = np.zeros((count, 2, 2), np.float32)
    variance[:, [0, 1], [0, 1]] = np.square(points.deviation_px)[:, None]
    sides = [
        Features(xy.astype(np.float32), np.ones(count, np.float32), None, source.size_hw,
                 covariance=covariance)
        for xy, source, covariance in zip(
            (points.xy_a, points.xy_b), job.sources, (np.zeros_like(variance), variance),
            strict=True,
        )
    ]  # fmt: skip
    pairs = np.repeat(np.arange(count)[:, None], 2, axis=1)
    matches = Matches(pairs, np.ones(count, np.float32))
    pair = paired(Pictured(sides[0]), Pictured(sides[1]), FORWARD, matches, settings)
    return registered(pair, guided=False)


def _result(
    job: _Job,
    coarse: Registration,
    points: Points,
    fit: LargeFit,
    coverage: float,
    objection: str | None,
) -> LargeRegistration:
    return LargeRegistration(
        success=objection is None,
        reason=objection or OK,
        model=job.config.model,
        mapping=fit.transform if objection is None else None,
        coarse=coarse,
        xy_a=points.xy_a,
        xy_b=points.xy_b,
        inliers=fit.inliers,
        residual_map=residual_map(points, fit.left_out),
        reprojection_px=residuals_of(fit.residuals[fit.inliers]),
        left_out_px=residuals_of(fit.left_out),
        cells=(int(points.agreeing.sum()), len(points.centres_xy)),
        coverage=coverage,
        names=job.names,
        sizes_hw=job.sizes_hw,
        georeferences=job.georeferences,
        exif_orientation=job.exif_orientation,
        damaged=points.damaged,
    )


def _failed(
    job: _Job, coarse: Registration, reason: str, points: Points | None = None
) -> LargeRegistration:
    none = np.empty((0, 2))
    xy_a, xy_b = (none, none) if points is None else (points.xy_a, points.xy_b)
    cells = (0, 0)
    if points is not None:
        cells = int(points.agreeing.sum()), len(points.centres_xy)
    return LargeRegistration(
        success=False,
        reason=reason,
        model=job.config.model,
        mapping=None,
        coarse=coarse,
        xy_a=xy_a,
        xy_b=xy_b,
        inliers=np.zeros(len(xy_a), bool),
        residual_map=ResidualMap(none, none, np.empty(0), np.empty(0, np.int64)),
        reprojection_px=NO_RESIDUALS,
        left_out_px=NO_RESIDUALS,
        cells=cells,
        coverage=0.0,
        names=job.names,
        sizes_hw=job.sizes_hw,
        georeferences=job.georeferences,
        exif_orientation=job.exif_orientation,
        damaged=() if points is None else points.damaged,
    )

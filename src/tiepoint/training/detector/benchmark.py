"""The held-out benchmark of a run: generated pairs of photographs that are not trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tiepoint.detector import Detector
from tiepoint.errors import FormatError, TiepointError
from tiepoint.evaluation.calibration import calibrate
from tiepoint.evaluation.generated import generated_pairs
from tiepoint.evaluation.homography import HOMOGRAPHY
from tiepoint.evaluation.homography_pairs import HomographyPair
from tiepoint.evaluation.methods import Method, checkpoint_methods, method
from tiepoint.evaluation.run import evaluate
from tiepoint.evaluation.settings import FrameSize, HomographySettings
from tiepoint.evaluation.summary import rows
from tiepoint.images.photographs import list_photos

SETTINGS = HomographySettings(k=500, frame=FrameSize(long_side=480), seeds=1)
"""Smaller than `tiepoint evaluate`'s: these figures compare the states of one run."""

YARDSTICKS = ("sift", "orb")
SEED = 7
"""Different from the seed of `tiepoint evaluate generated`, whose pairs give the final figures."""

TARGET_KEYPOINTS, TARGET_SIDE_PX = 600, 640
"""Number of keypoints that a photograph of this longer side should have: enough for any use, with
few spurious ones."""

MOST_PHOTOS = 64
"""Photographs that the threshold is chosen on, evenly from all."""
THRESHOLDS = (1e-4, 0.2)
"""Range of the calibrated threshold."""

logger = logging.getLogger(__name__)


class Benchmark:
    """Pairs from the development part of photographs, and SIFT's and ORB's figures on them."""

    def __init__(self, folders: Sequence[Path], count: int) -> None:
        photos: list[Path] = []
        for folder in folders:
            try:
                photos += list_photos(folder, "development")
            except FormatError as error:  # a folder may have no such part
                logger.info("no held-out photographs: %s", error)
        self.photos = photos
        self.pairs: Sequence[HomographyPair] = (
            generated_pairs(photos, count, SEED) if photos else ()
        )
        self._yardsticks: dict[str, dict[str, float]] = {}

    def measure(self, checkpoint: Path) -> dict[str, dict[str, float]]:
        """Evaluate a checkpoint (`tiepoint`), SIFT and ORB on the pairs; empty without pairs.

        Returns:
            Name of each method -> its `within_3px`, `repeatability` and `precision`, 0..1.
        """
        if not self.pairs:
            return {}
        if not self._yardsticks:
            self._yardsticks = self._figures([method(name) for name in YARDSTICKS])
        figures = self._figures(checkpoint_methods([str(checkpoint)]))
        if not figures or not self._yardsticks:  # no held-out photograph can be read
            return {}
        return {"tiepoint": next(iter(figures.values())), **self._yardsticks}

    def threshold(self, checkpoint: Path) -> float | None:
        """The threshold that gives the median held-out photograph `TARGET_KEYPOINTS` keypoints.

        Runs differ in the level of their probabilities, so one threshold for all would give some
        of them hardly any keypoints and others thousands.

        Returns:
            A threshold in `THRESHOLDS`, to two significant digits; None without a photograph that
            can be read.
        """
        photos = self.photos[:: max(1, len(self.photos) // MOST_PHOTOS)][:MOST_PHOTOS]
        if not photos:
            return None
        detector = Detector(
            checkpoint, device="cpu", precision="f32", max_side=TARGET_SIDE_PX, scales=(1.0,),
            descriptors=False,
        )  # fmt: skip
        results = []
        for one in detector.stream(photos, threshold=0.0, max_keypoints=TARGET_KEYPOINTS):
            if one.features is not None:
                results.append(one.features)
            else:
                logger.warning("left out of the choice of the threshold: %s", one.error)
        if not results:
            return None
        lowest = [float(features.scores[-1]) for features in results if len(features)]
        median = float(np.median(lowest)) if lowest else THRESHOLDS[0]
        return float(f"{min(max(median, THRESHOLDS[0]), THRESHOLDS[1]):.2g}")

    def covariance_scale(self, checkpoint: Path) -> float | None:
        """`DetectionConfig.covariance_scale` of a checkpoint; None without pairs or matches."""
        try:
            return calibrate(checkpoint, self.pairs).scale if self.pairs else None
        except TiepointError as error:  # too few matches, or photographs that have been deleted
            logger.warning("positions are not calibrated: %s", error)
            return None

    def _figures(self, methods: Sequence[Method]) -> dict[str, dict[str, float]]:
        figures: dict[str, dict[str, float]] = {}
        for row in rows(evaluate(HOMOGRAPHY, self.pairs, methods, SETTINGS)):
            if row.method not in figures:  # the first row of a method covers all groups
                figures[row.method] = {
                    "within_3px": round(row.means.within[3.0].mean, 4),
                    "repeatability": round(row.means.repeatability.mean, 4),
                    "precision": round(row.means.precision.mean, 4),
                }
        return figures

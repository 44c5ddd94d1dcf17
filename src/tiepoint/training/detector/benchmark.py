"""A held-out benchmark while training: generated pairs of photographs that are not trained on."""

from __future__ import annotations

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
"""Not the seed of `tiepoint evaluate generated`, whose pairs are kept for the final figures."""

WITHIN_PX = 3.0

POINTS, POINTS_SIDE = 600, 640
"""Keypoints that suit a photograph of this longer side in px: enough for any use, few strays."""

THRESHOLDS = (1e-4, 0.2)


class Benchmark:
    """Pairs, and what SIFT and ORB reach on them, computed once.

    Args:
        folders: With photographs; only their development part is used.
        count: Pairs.
    """

    def __init__(self, folders: Sequence[Path], count: int) -> None:
        photos: list[Path] = []
        for folder in folders:
            try:
                photos += list_photos(folder, "development")
            except FormatError:  # a folder may have no such part
                continue
        self.photos = photos
        self.pairs: Sequence[HomographyPair] = (
            generated_pairs(photos, count, SEED) if photos else ()
        )
        self._yardsticks: dict[str, dict[str, float]] = {}

    def measure(self, checkpoint: Path) -> dict[str, dict[str, float]]:
        """Name of the method -> its figures; the checkpoint's own stand under `tiepoint`.

        Returns:
            Empty without pairs. `within_3px`, `repeatability` and `precision` are in 0..1.
        """
        if not self.pairs:
            return {}
        if not self._yardsticks:
            self._yardsticks = self._figures([method(name) for name in YARDSTICKS])
        [own] = self._figures(checkpoint_methods([str(checkpoint)])).values()
        return {"tiepoint": own, **self._yardsticks}

    def threshold(self, checkpoint: Path) -> float | None:
        """The threshold at which the median held-out photograph, seen once, keeps `POINTS` points.

        Weights differ in how sure they sound: one threshold for all would give some of them
        hardly a point, and others thousands.

        Returns:
            Two significant digits, in `THRESHOLDS`; None without photographs.
        """
        if not self.photos:
            return None
        detector = Detector(
            checkpoint, device="cpu", precision="f32", max_side=POINTS_SIDE, scales=(1.0,),
            descriptors=False,
        )  # fmt: skip
        detections = detector.stream(self.photos, threshold=0.0, max_keypoints=POINTS)
        every = [detection.require() for detection in detections]
        last = [float(features.scores[-1]) for features in every if len(features)]
        middle = float(np.median(last)) if last else THRESHOLDS[0]
        return float(f"{min(max(middle, THRESHOLDS[0]), THRESHOLDS[1]):.2g}")

    def covariance_scale(self, checkpoint: Path) -> float | None:
        """`DetectionConfig.covariance_scale`; None without pairs, or without matches."""
        try:
            return calibrate(checkpoint, self.pairs).scale if self.pairs else None
        except TiepointError:  # too few matches, or photographs that are gone by now
            return None

    def _figures(self, methods: Sequence[Method]) -> dict[str, dict[str, float]]:
        found = rows(evaluate(HOMOGRAPHY, self.pairs, methods, SETTINGS))
        all_pairs: dict[str, dict[str, float]] = {}
        for row in found:
            if row.method not in all_pairs:  # the first row of a method stands for all groups
                all_pairs[row.method] = {
                    "within_3px": round(row.means.within[WITHIN_PX].mean, 4),
                    "repeatability": round(row.means.repeatability.mean, 4),
                    "precision": round(row.means.precision.mean, 4),
                }
        return all_pairs

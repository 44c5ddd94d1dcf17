"""A model fitted to the matches of two images, with the figures that the verdict uses."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import CELL_PX
from tiepoint.config import RegistrationConfig
from tiepoint.features import Features, Matches, covariances_of
from tiepoint.geometry import Matrix, apply_homography, inside
from tiepoint.matching import neighbours
from tiepoint.matching.guided import aligned_descriptors
from tiepoint.matching.near import within
from tiepoint.registration import appearance, derivatives, epipolar, planar, verification
from tiepoint.registration.appearance import Picture
from tiepoint.registration.estimation import Estimate, matched_xy
from tiepoint.registration.models import MODELS, ModelFacts, inlier_px

SHARED_ERRORS = 1.4
"""Factor of all deviations for errors that neighbouring keypoints share. benchmarks/registration.py
prints the share of pairs whose true error is within two standard deviations."""

ANSWER_PX, ANSWER_SIMILARITY = 4.0, 0.75
"""Distance, px of the network's input, and cosine of a keypoint that answers another one."""

LEAST_SD = 0.05
"""Least standard deviation, px of the network's input."""

BLOCKS_PX, BLOCKS_ONLY = 1.4, 0.2
"""Standard deviation by JPEG's 8x8 blocks, px of the image, and the share of all gradients at their
edges from which it is reached. Then keypoints follow the blocks, up to 4 px off (measured)."""

WHOLE_BLOCK_PX = 0.75
"""Largest distance of a movement from a multiple of 8 px."""

Names = tuple[str, str]
FORWARD: Names = ("A", "B")


@dataclass(frozen=True, eq=False, kw_only=True)
class Pair:
    """Two images and their M matches.

    Attributes:
        settings: Model and limits.
        cameras: (K_A, K_B) for "essential", else None.
        pictures: Both images, reduced for comparison; None if only their features are known.
        names: The caller's names of the first and the second image.
    """

    features_a: Features
    features_b: Features
    matches: Matches
    settings: RegistrationConfig
    cameras: epipolar.Cameras | None = None
    pictures: tuple[Picture, Picture] | None = None
    names: Names = FORWARD

    def reversed(self) -> Self:
        """The same from B to A."""
        return replace(
            self,
            features_a=self.features_b,
            features_b=self.features_a,
            matches=self.matches.reversed(),
            cameras=None if self.cameras is None else self.cameras[::-1],
            pictures=None if self.pictures is None else self.pictures[::-1],
            names=self.names[::-1],
        )

    def fitted(self, estimate: Estimate) -> Fit:
        """These images with a model."""
        shared = {field.name: getattr(self, field.name) for field in fields(Pair)}
        return Fit(**shared, estimate=estimate)

    @property
    def facts(self) -> ModelFacts:
        return MODELS[self.settings.model]

    @property
    def input_px(self) -> float:
        """Unit of the limits: px of B per px of the network's input; of both for epipolar lines."""
        units = self.features_a.px_per_input_px, self.features_b.px_per_input_px
        return units[1] if self.facts.kind == "plane" else max(units)

    @property
    def within_px(self) -> float:
        """Inlier threshold, px of B; from the epipolar line for two-view models."""
        return inlier_px(self.settings) * self.input_px

    @cached_property
    def xy(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """M 2 in A and in B, px: all matches."""
        return matched_xy(self.features_a, self.features_b, self.matches.pairs)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fit(Pair):
    """A model fitted to the matches, for plane models towards the image that shows less detail."""

    estimate: Estimate

    def __str__(self) -> str:
        return f"{self.inliers} of {len(self.matches)} matches fit {self.facts.phrase}"

    def reversed(self) -> Self:
        """The same model from B to A."""
        return replace(super().reversed(), estimate=self.estimate.reversed(self.settings.model))

    @cached_property
    def inliers_xy(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """I 2 in A and in B, px: the inliers."""
        xy_a, xy_b = self.xy
        return xy_a[self.estimate.inliers], xy_b[self.estimate.inliers]

    @property
    def inliers(self) -> int:
        """I, the number of inliers."""
        return int(self.estimate.inliers.sum())

    @cached_property
    def lines(self) -> Matrix:
        """3x3, x_B^T F x_A = 0 in px, of a two-view model."""
        matrix = self.estimate.matrix
        return matrix if self.cameras is None else epipolar.pixel_matrix(matrix, self.cameras)

    @cached_property
    def common(self) -> verification.CommonView:
        """The common view of a plane model."""
        a_hw, b_hw = self.features_a.size_hw, self.features_b.size_hw
        return verification.common_view(self.estimate.matrix, *self.inliers_xy, a_hw, b_hw)

    @cached_property
    def share_alike(self) -> float | None:
        """See `appearance.share_alike`; None without pictures."""
        if self.pictures is None:
            return None
        xy_a, xy_b = self.features_a.xy, self.features_b.xy
        return appearance.share_alike(*self.pictures, self.estimate.matrix, xy_a, xy_b)

    @cached_property
    def share_of_inliers_alike(self) -> float | None:
        """See `appearance.share_of_matches_alike`; None without pictures."""
        if self.pictures is None:
            return None
        xy_a, xy_b = self.inliers_xy
        there = planar.overall_similarity(xy_a, xy_b)
        back = planar.overall_similarity(xy_b, xy_a)
        if there is None or back is None:
            return 0.0
        # Among many wrong inliers, one direction shrinks the image onto a dense group of them.
        return max(
            appearance.share_of_matches_alike(*self.pictures, similarity, xy_a, xy_b)
            for similarity in (there, np.asarray(np.linalg.inv(back)))
        )

    @property
    def block_share(self) -> float:
        """See `Picture.block_share`; the lower of both images, 0 without pictures."""
        return min((picture.block_share for picture in self.pictures or ()), default=0.0)

    @property
    def blocks_px(self) -> float:
        """Standard deviation by the blocks of heavy JPEG compression, which bind all keypoints."""
        return BLOCKS_PX * min(1.0, (self.block_share / BLOCKS_ONLY) ** 2)

    @property
    def by_whole_blocks(self) -> float:
        """Share of the inliers that move by a multiple of JPEG's blocks in x and in y, 0..1."""
        xy_a, xy_b = self.inliers_xy
        blocks = (xy_b - xy_a) / CELL_PX  # I 2
        near = np.abs(blocks - np.rint(blocks)) <= WHOLE_BLOCK_PX / CELL_PX
        return float(near.all(axis=1).mean()) if len(near) else 0.0

    @cached_property
    def descriptors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """N_A D and N_B D, with those of A rotated as the matches are; None without them."""
        a, b = self.features_a, self.features_b
        if a.descriptors is None or b.descriptors is None:
            return None
        return aligned_descriptors(a, b, self.matches.turned_deg)

    @cached_property
    def answered_cells(self) -> NDArray[np.float64] | None:
        """See `verification.answered_cells`; None without descriptors."""
        if self.descriptors is None:
            return None
        a, b = self.features_a, self.features_b
        mapped = apply_homography(self.estimate.matrix, a.xy)  # N_A 2
        answered = np.zeros(len(a), bool)
        for pairs in within(mapped, b.xy, ANSWER_PX * self.input_px):
            cosines = neighbours.cosines(*self.descriptors, pairs)
            answered[pairs[cosines >= ANSWER_SIMILARITY, 0]] = True
        shown = inside(mapped, b.size_hw)
        return verification.answered_cells(a.xy, a.size_hw, shown, answered)

    @cached_property
    def covariance(self) -> planar.ModelCovariance:
        """How well a plane model is known, without the errors that neighbours share."""
        model, matrix, (xy_a, xy_b) = self.settings.model, self.estimate.matrix, self.xy
        covariances = covariances_of(self.features_a, self.features_b, self.matches.pairs)
        deviation_px = None
        if covariances is not None:
            deviation_px = planar.match_deviation_px(matrix, xy_a, *covariances)
        return planar.model_covariance(model, matrix, xy_a, xy_b, self.within_px, deviation_px)

    def deviations_px(
        self, places_xy: NDArray[np.float64], *, in_a: bool = False
    ) -> NDArray[np.float64]:
        """P: standard deviation of a plane model at places of A, P 2, px of B or of A."""
        matrix = self.estimate.matrix
        covariance = SHARED_ERRORS**2 * self.covariance.at(places_xy)  # P 2 2
        common_px = math.hypot(LEAST_SD * self.input_px, self.blocks_px)
        covariance = covariance + np.eye(2) * common_px**2 / 2
        known = np.isfinite(covariance).all(axis=(1, 2))  # P
        covariance[~known] = 0
        if in_a:
            slopes = np.linalg.pinv(derivatives.local_jacobian(matrix, places_xy[known]))
            covariance[known] = slopes @ covariance[known] @ slopes.transpose(0, 2, 1)
        deviations = np.sqrt(np.trace(covariance, axis1=1, axis2=2))  # P
        return np.where(known, deviations, np.inf)

    @cached_property
    def overlap_sd_px(self) -> float:
        """Standard deviation of a plane model over the common view: rms, px of B."""
        return rms(self.deviations_px(self.common.places_xy))


def rms(values: NDArray[np.float64]) -> float:
    """Root of the mean square; infinite without values."""
    with np.errstate(over="ignore"):
        return float(np.sqrt((values**2).mean())) if len(values) else math.inf

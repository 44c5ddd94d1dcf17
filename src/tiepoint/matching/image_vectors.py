"""Descriptors of an image's keypoints -> one vector for the image, to find similar images by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_whole
from tiepoint.errors import ConfigError
from tiepoint.features import Features

CENTRES = 64
"""Centres of a vocabulary. Twice the number finds no more (benchmarks/retrieval.py)."""
LENGTH = 512
"""Length of a projected vector."""

_PER_CENTRE = 64  # descriptors that a centre needs at least
_STEPS = 15
_ROWS = 16_384  # of a table of similarities at a time
_LEAST_VARIANCE = 1e-6  # relative to the largest, which float32 vectors still resolve


class Projection(NamedTuple):
    """Projection of vectors onto fewer values.

    Attributes:
        mean: G float32, subtracted first.
        matrix: G L float32, with the whitening in it.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What the vectors of a collection are made with.

    Attributes:
        centres: K D float32, the descriptors that residuals are taken from.
        projection: Projection of the K D values; None keeps them.
    """

    centres: NDArray[np.float32]
    projection: Projection | None = None

    @property
    def length(self) -> int:
        """Number of values of a vector."""
        return self.centres.size if self.projection is None else self.projection.matrix.shape[1]

    def vector(self, features: Features) -> NDArray[np.float32]:
        """The vector of an image: residuals to the nearest centres (VLAD), projected.

        Each descriptor's difference from its nearest centre is added to the sum of that centre. The
        sums get signed square roots, so that repeated texture does not outweigh the rest.

        Args:
            features: With descriptors N D.

        Returns:
            float32 of unit length; zeros if there is no keypoint, or all are the centres
            themselves.

        Raises:
            ConfigError: Features without descriptors, with values that are not finite, or of
                another length than the centres.

        Source:
            Jégou et al., Aggregating local descriptors into a compact image representation, CVPR
            2010. The roots: Perronnin et al., Improving the Fisher Kernel, ECCV 2010.
        """
        descriptors = checked_descriptors(features)
        if descriptors.shape[1] != self.centres.shape[1]:
            raise ConfigError(
                f"its descriptors have {descriptors.shape[1]} values, those of other images "
                f"{self.centres.shape[1]}: detect again"
            )
        nearest = np.argmax(descriptors @ self.centres.T, axis=1)  # N
        chosen = np.zeros((len(self.centres), len(descriptors)), np.float32)  # K N
        chosen[nearest, np.arange(len(descriptors))] = 1
        sums = chosen @ descriptors - chosen.sum(axis=1)[:, None] * self.centres  # K D
        pooled = _unit((np.sign(sums) * np.sqrt(np.abs(sums))).ravel())  # K D values
        if self.projection is None or not pooled.any():
            return pooled[: self.length]
        return _unit((pooled - self.projection.mean) @ self.projection.matrix)


def checked_descriptors(features: Features) -> NDArray[np.float32]:
    """The descriptors of features, N D.

    Raises:
        ConfigError: There are none, or some values are not finite.
    """
    if features.descriptors is None:
        raise ConfigError(
            "features have no descriptors, which similarity needs: detect with descriptors=True"
        )
    if not np.isfinite(features.descriptors).all():
        raise ConfigError("features have descriptors that are not finite: detect again")
    return features.descriptors.astype(np.float32, copy=False)


def learned_centres(descriptors: NDArray[np.float32]) -> Vocabulary:
    """A vocabulary of up to 64 centres, by spherical k-means.

    Args:
        descriptors: M D of unit length, a sample of the collection's. Fewer than 128 give the
            origin as the only centre, so that a vector is the sum of descriptors.
    """
    count = min(CENTRES, len(descriptors) // _PER_CENTRE)
    if count < 2:
        return Vocabulary(np.zeros((1, descriptors.shape[1]), np.float32))
    return Vocabulary(spherical_means(descriptors, count))


def with_projection(
    vocabulary: Vocabulary, vectors: NDArray[np.float32], length: int = LENGTH
) -> Vocabulary:
    """A vocabulary that also projects onto principal components.

    The components are divided by the fourth root of their variance: halfway to whitening, which
    overrates components that a sample hardly determines.

    Args:
        vocabulary: Without a projection.
        vectors: M (K D), vectors of a sample of images made with it, more than `length`.
        length: Number of components, fewer if the vectors span fewer.

    Source:
        Jégou and Chum, Negative evidences and co-occurrences in image retrieval: the benefit of PCA
        and whitening, ECCV 2012.
    """
    check_whole("length", length, minimum=1, unit="components")
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = vectors - mean
    # M < K D vectors have fewer products with each other than covariances.
    variances, combinations = np.linalg.eigh((centred @ centred.T).astype(np.float64))  # M, M M
    variances, combinations = variances[::-1][:length], combinations[:, ::-1][:, :length]
    kept = variances > _LEAST_VARIANCE * max(variances[0], 0)
    if not kept.any():  # copies of one image
        return vocabulary
    variances, combinations = variances[kept], combinations[:, kept]
    axes = centred.T @ (combinations / np.sqrt(variances)).astype(np.float32)  # (K D) L
    weights = (variances / len(vectors)) ** -0.25
    projection = Projection(mean, axes * weights.astype(np.float32))
    return Vocabulary(vocabulary.centres, projection)


def spherical_means(
    vectors: NDArray[np.float32], count: int, *, steps: int = _STEPS, seed: int = 0
) -> NDArray[np.float32]:
    """Centres of unit length by k-means with cosines; deterministic for a seed.

    Args:
        vectors: M G of unit length, M >= count.
        count: Number of centres, which begin at vectors drawn at random.
        steps: Number of steps.
        seed: Seed of the draw.

    Returns:
        count G float32. A centre that no vector is nearest to keeps its place.
    """
    rng = np.random.default_rng(seed)
    centres = vectors[np.sort(rng.choice(len(vectors), count, replace=False))].copy()
    for _ in range(steps):
        nearest = nearest_centres(vectors, centres)
        order = np.argsort(nearest, kind="stable")
        used, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(vectors[order], starts, axis=0)
        lengths = np.linalg.norm(sums, axis=1)
        moved = lengths > 0
        centres[used[moved]] = sums[moved] / lengths[moved, None]
    return centres


def nearest_centres(
    vectors: NDArray[np.float32], centres: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Index of the centre with the greatest cosine for each vector; the first of equal ones."""
    starts = range(0, len(vectors), _ROWS)
    parts = [np.argmax(vectors[start : start + _ROWS] @ centres.T, axis=1) for start in starts]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _unit(vector: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    length = np.linalg.norm(vector)
    result: NDArray[np.float32] = (vector / (length or 1)).astype(np.float32)
    return result

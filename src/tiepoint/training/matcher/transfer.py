"""A matcher of one detector as the first weights of a matcher for another one.

Only the first map sees descriptors. A linear map from the new descriptors to the old ones, fitted
where both detectors find the same keypoints, takes their place in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiepoint.detector import Detector
from tiepoint.errors import TrainingError
from tiepoint.features import Features
from tiepoint.matching.learned.folder import MatcherCheckpoint
from tiepoint.matching.near import within
from tiepoint.matching.neighbours import among
from tiepoint.training.matcher.drawing import draw_views
from tiepoint.training.matcher.settings import MatcherData
from tiepoint.training.matcher.trainer import as_tensors
from tiepoint.weights.checkpoint import Checkpoint

SCENES = 24
"""Scenes in which both detectors detect: some ten thousand common keypoints."""
SEED = 1 << 41
"""Added to the seed of these scenes."""
SAME_PX = 1.0
"""Largest distance of two keypoints that are the same."""
RIDGE = 1e-3
"""Weight of the penalty for large coefficients, relative to the descriptors' mean variance."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DescriptorMap:
    """old = new @ matrix + offset, about.

    Attributes:
        matrix: D_new D_old.
        offset: D_old.
        explained: Share of the variance of the old descriptors that the map explains, 0..1.
    """

    matrix: Float64
    offset: Float64
    explained: float


def transferred(
    matcher: MatcherCheckpoint, old: Checkpoint, new: Checkpoint, data: MatcherData, seed: int
) -> tuple[dict[str, Tensor], float]:
    """The state dict of a matcher for `new` that decides about as the given one does for `old`.

    Args:
        matcher: Matcher of `old`, with an input projection.
        data, seed: Scenes in which the detectors are compared.

    Returns:
        state dict; and `DescriptorMap.explained`.

    Raises:
        TrainingError: A matcher without input projection, or too few common keypoints.
    """
    first = matcher.config.input_projection()
    width, length = matcher.config.width, new.network.descriptor_decoder_dim
    if first is None or width == length:
        raise TrainingError(
            f"{matcher.name}: its width {width} is the length of descriptors, so it has no map of "
            "them that could be replaced; start from a matcher of another width, or train without "
            "--start"
        )
    found = descriptor_map(*common_descriptors(old, new, data, seed))
    weights = as_tensors(matcher)
    weight = weights[f"{first.name}.weight"].double()  # C D_old
    matrix, offset = torch.from_numpy(found.matrix), torch.from_numpy(found.offset)
    weights[f"{first.name}.weight"] = (weight @ matrix.T).float()  # C D_new
    weights[f"{first.name}.bias"] += (weight @ offset).float()  # C
    return weights, found.explained


def common_descriptors(
    old: Checkpoint, new: Checkpoint, data: MatcherData, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """K D_old and K D_new: descriptors of keypoints that both detectors find in drawn scenes."""
    detectors = [Detector(one, engine="openvino", device="cpu") for one in (old, new)]
    most, least_score = data.max_keypoints, data.threshold
    pairs = []
    for index in range(SCENES):
        for image in draw_views(data, seed + SEED, index).images[:2]:
            a, b = (
                detector(image, max_keypoints=most, threshold=least_score) for detector in detectors
            )
            pairs.append(_of_same_keypoints(a, b))
    of_old, of_new = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return of_old, of_new


def descriptor_map(old: NDArray[np.float32], new: NDArray[np.float32]) -> DescriptorMap:
    """The ridge regression of K D_old on K D_new; raises TrainingError if K is too small."""
    count, length = new.shape
    if count < 4 * length:
        raise TrainingError(
            f"the two detectors have {count} keypoints in common, expected at least {4 * length}: "
            "start from a matcher of a more similar detector, or train without --start"
        )
    x, y = new.astype(np.float64), old.astype(np.float64)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x, y = x - mean_x, y - mean_y
    penalty = RIDGE * np.square(x).sum() / length
    matrix = np.linalg.solve(x.T @ x + penalty * np.eye(length), x.T @ y)
    explained = 1 - np.square(y - x @ matrix).sum() / max(np.square(y).sum(), 1e-12)
    return DescriptorMap(matrix, mean_y - mean_x @ matrix, float(explained))


def _of_same_keypoints(a: Features, b: Features) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Descriptors of mutually nearest keypoints within `SAME_PX`, each K D."""
    assert a.descriptors is not None
    assert b.descriptors is not None
    near = [np.empty((0, 2), np.int64), *within(a.xy.astype(np.float64), b.xy, SAME_PX)]
    pairs = np.concatenate(near)  # P 2
    apart = np.linalg.norm(a.xy[pairs[:, 0]] - b.xy[pairs[:, 1]], axis=1)  # P
    of_a, of_b = among((len(a), len(b)), pairs, -apart)
    own = np.arange(len(a))
    kept = np.isfinite(of_a.score)
    kept[kept] = of_b.index[of_a.index[kept]] == own[kept]
    return a.descriptors[own[kept]], b.descriptors[of_a.index[kept]]

"""Pairs that are rendered and exposed view by view, and the same as one batch before its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tiepoint.training.on_device.exposure import ExposedBatch
from tiepoint.training.on_device.rendering import Corners
from tiepoint.training.scenes import composition
from tiepoint.training.scenes.packed_exposures import PackedExposures, pack_exposures
from tiepoint.training.scenes.pairs import TrainingPair, labelled_pair, rendered_pair
from tiepoint.training.scenes.photometry import draw_exposure, expose
from tiepoint.training.scenes.settings import DataConfig


@dataclass(frozen=True, eq=False)
class ExposedPairs:
    """P pairs, and their 2P views as a batch: all A before all B."""

    pairs: list[TrainingPair]
    images: torch.Tensor  # 2P H W, whole greys before photometry
    packed: PackedExposures
    exposed: ExposedBatch
    corners: Corners
    flows: torch.Tensor  # 2P H W 2


def exposed_pairs(config: DataConfig, seed: int, count: int, rows: int = 0) -> ExposedPairs:
    """The pairs that `training_pair` draws; the batch has at least `rows` rows of corners."""
    pairs, drawn, exposures, exposed, flows = [], [], [], [], []
    for index in range(count):
        scene = composition.scene(config, seed, index)
        rng = np.random.default_rng([seed, index, 1])
        views, forth_and_back = rendered_pair(scene, config, rng)
        settings = [draw_exposure(rng, config.size_hw, config.photometry) for _ in views]
        recorded = [expose(view.image, each) for view, each in zip(views, settings, strict=True)]
        pairs.append(labelled_pair(views, recorded, forth_and_back, config, scene.kind))
        for values, new in zip(
            (drawn, exposures, exposed, flows), (views, settings, recorded, forth_and_back),
            strict=True,
        ):  # fmt: skip
            values.append(new)
    views, exposures, exposed, flows = (
        [each[number] for number in (0, 1) for each in values]
        for values in (drawn, exposures, exposed, flows)
    )
    batch = ExposedBatch(
        torch.from_numpy(np.stack([view.image for view in exposed])).float() / 255,
        torch.from_numpy(np.stack([view.clean for view in exposed])),
        torch.from_numpy(np.stack([view.covered for view in exposed])),
    )
    images = torch.from_numpy(np.stack([view.image for view in views])).float()
    xy, positive = [view.corners_xy for view in views], [view.positive for view in views]
    flow = torch.from_numpy(np.stack(flows))
    return ExposedPairs(
        pairs, images, pack_exposures(exposures), batch, padded(xy, positive, rows), flow
    )


def padded(xy: list[np.ndarray], positive: list[np.ndarray], rows: int = 0) -> Corners:
    """Corners of several views in as many rows as the most have, at least `rows`."""
    rows = max(rows, 1, *map(len, xy))
    result = Corners(
        torch.zeros(len(xy), rows, 2),
        torch.zeros(len(xy), rows, dtype=torch.bool),
        torch.zeros(len(xy), rows, dtype=torch.bool),
    )
    for number, (points, sure) in enumerate(zip(xy, positive, strict=True)):
        result.xy[number, : len(points)] = torch.from_numpy(points)
        result.positive[number, : len(points)] = torch.from_numpy(sure)
        result.valid[number, : len(points)] = True
    return result


def unequal(points: np.ndarray, others: np.ndarray, apart_px: float = 0.02) -> int:
    """How many points of either set have no counterpart in the other."""
    if len(points) == 0 or len(others) == 0:
        return len(points) + len(others)
    gaps = np.hypot(*(points[:, None] - others[None]).transpose(2, 0, 1))
    return int((gaps.min(axis=1) > apart_px).sum() + (gaps.min(axis=0) > apart_px).sum())

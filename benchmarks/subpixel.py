"""Which sub-pixel refinement is best: behind `postprocess.subpixel_shift` and `refinement`.

The same keypoints on the same generated pairs, refined in different ways. Prints how far matched
points are from the truth, and how many homographies come out within 1 and 3 px.

    python benchmarks/subpixel.py --photos ../shared/photos --count 300
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionConfig, ProcessorConfig
from tiepoint.evaluation import metrics
from tiepoint.evaluation.generated import generated_pairs
from tiepoint.evaluation.homography import measure
from tiepoint.evaluation.settings import HomographySettings
from tiepoint.features import Features
from tiepoint.geometry import apply_homography
from tiepoint.images.photographs import list_photos
from tiepoint.keypoints import (
    candidates,
    describe,
    heat_mass,
    hessian_response,
    pixel_centres,
    positions,
    top_k,
)
from tiepoint.keypoints.selection import Pixels
from tiepoint.matching.match import match
from tiepoint.network.engine import Engine
from tiepoint.network.engines import EngineChoice, build_engine
from tiepoint.network.inputs import prepare
from tiepoint.weights.checkpoint import Checkpoint, load_checkpoint

Float32 = NDArray[np.float32]
Whole = NDArray[np.intp]
Refine = Callable[[Float32, Whole, Whole], Float32]


def none(heatmap: Float32, rows: Whole, columns: Whole) -> Float32:
    return np.zeros((len(rows), 2), np.float32)


def parabola(heatmap: Float32, rows: Whole, columns: Whole, log: bool) -> Float32:
    """One parabola along each axis, through three probabilities or their logarithms."""
    v = window(heatmap, rows, columns, 1)  # N 3 3
    v = np.log(np.maximum(v, 1e-12)) if log else v
    shift = np.zeros((len(rows), 2), np.float32)
    for axis, (before, after) in enumerate(((v[:, 1, 0], v[:, 1, 2]), (v[:, 0, 1], v[:, 2, 1]))):
        bend = 2 * v[:, 1, 1] - before - after
        good = bend > 0
        shift[good, axis] = ((after - before)[good] / (2 * bend[good])).clip(-0.5, 0.5)
    return shift


def newton(heatmap: Float32, rows: Whole, columns: Whole) -> Float32:
    """Vertex of a two-dimensional quadric through the 3x3 log probabilities."""
    v = np.log(np.maximum(window(heatmap, rows, columns, 1), 1e-12)).astype(np.float64)  # N 3 3
    gx, gy = (v[:, 1, 2] - v[:, 1, 0]) / 2, (v[:, 2, 1] - v[:, 0, 1]) / 2
    xx = v[:, 1, 2] + v[:, 1, 0] - 2 * v[:, 1, 1]
    yy = v[:, 2, 1] + v[:, 0, 1] - 2 * v[:, 1, 1]
    xy = (v[:, 2, 2] + v[:, 0, 0] - v[:, 0, 2] - v[:, 2, 0]) / 4
    determinant = xx * yy - xy * xy
    good = (determinant > 1e-9) & (xx < 0)
    safe = np.where(good, determinant, 1)
    shift = np.stack([(xy * gy - yy * gx) / safe, (xy * gx - xx * gy) / safe], axis=1)  # N 2
    return np.where(good[:, None], np.clip(shift, -0.5, 0.5), 0).astype(np.float32)


def centroid(heatmap: Float32, rows: Whole, columns: Whole, radius: int) -> Float32:
    """Centre of mass of the probabilities in a window (soft-argmax of temperature 1)."""
    mass = window(heatmap, rows, columns, radius)  # N s s
    offsets = np.arange(-radius, radius + 1)
    total = mass.sum(axis=(1, 2))
    x = (mass.sum(axis=1) * offsets).sum(axis=1) / total
    y = (mass.sum(axis=2) * offsets).sum(axis=1) / total
    return np.stack([x, y], axis=1).astype(np.float32)  # N 2


def mean_shift(
    heatmap: Float32, rows: Whole, columns: Whole, sigma: float, reach: int, rounds: int
) -> Float32:
    """The nearest peak of the heat map smoothed by a Gaussian (Comaniciu and Meer 2002)."""
    mass = window(heatmap, rows, columns, reach).astype(np.float64)  # N s s
    offsets = np.arange(-reach, reach + 1)
    shift = np.zeros((len(rows), 2))
    for _ in range(rounds):
        near_x, near_y = np.exp(-((offsets - shift.T[:, :, None]) ** 2) / (2 * sigma**2))
        weight = mass * near_y[:, :, None] * near_x[:, None, :]
        total = weight.sum(axis=(1, 2))
        x = (weight.sum(axis=1) * offsets).sum(axis=1) / total
        y = (weight.sum(axis=2) * offsets).sum(axis=1) / total
        shift = np.stack([x, y], axis=1)
    return shift.astype(np.float32)


def window(heatmap: Float32, rows: Whole, columns: Whole, radius: int) -> Float32:
    offsets = np.arange(-radius, radius + 1)
    padded = np.pad(heatmap, radius, mode="edge")
    y = rows[:, None, None] + radius + offsets[None, :, None]
    x = columns[:, None, None] + radius + offsets[None, None, :]
    values: Float32 = padded[y, x]  # N s s
    return values


def tiepoint_centroid(heatmap: Float32, rows: Whole, columns: Whole) -> Float32:
    return positions.centroids(heat_mass(heatmap, Pixels(rows, columns)))


VARIANTS: dict[str, Refine] = {
    "none": none,
    "parabola, p": partial(parabola, log=False),
    "parabola, log p": partial(parabola, log=True),
    "quadric 3x3, log p": newton,
    "centroid 5x5": tiepoint_centroid,
    "none, settled": none,
    "centroid 5x5, settled (tiepoint)": tiepoint_centroid,
    "centroid 7x7, settled": partial(centroid, radius=3),
    "centroid 7x7": partial(centroid, radius=3),
    "centroid 9x9": partial(centroid, radius=4),
    "mean shift 1, 7x7, 5": partial(mean_shift, sigma=1, reach=3, rounds=5),
    "mean shift 1.5, 7x7, 5": partial(mean_shift, sigma=1.5, reach=3, rounds=5),
    "mean shift 2, 9x9, 10": partial(mean_shift, sigma=2, reach=4, rounds=10),
}


class Dense:
    """The network's maps of one image, from which every variant reads its own features."""

    def __init__(
        self, checkpoint: Checkpoint, engine: Engine, image: NDArray[np.uint8], k: int
    ) -> None:
        inputs, (self.placement,) = prepare([image], ProcessorConfig(max_side=None))
        maps = engine.run(
            inputs, [self.placement], descriptors=True, phases=checkpoint.detection.phases
        )
        height, width = self.placement.resized_hw
        self.heatmap = np.ascontiguousarray(maps.heatmap[0, :height, :width])
        assert maps.descriptors is not None
        self.descriptors = [one[0] for one in maps.descriptors]
        edge = checkpoint.detection.border
        inner = np.pad(np.ones((height - 2 * edge, width - 2 * edge), np.float32), edge)
        image_part = np.ascontiguousarray(inputs[0, 0, :height, :width])
        self.response = hessian_response(image_part) * inner
        self.radius_px = checkpoint.detection.nms_radius
        config: DetectionConfig = replace(
            checkpoint.detection, threshold=0.0, max_keypoints=4 * k, subpixel=False
        )
        self.pixels = top_k(self.heatmap, candidates(self.heatmap, config), config.max_keypoints)
        self.scores = self.heatmap[self.pixels]

    def features(self, refine: Refine, settles: bool) -> Features:
        xy = pixel_centres(self.pixels) + refine(self.heatmap, *self.pixels)  # N 2
        if settles:
            xy = positions.mean_shift(self.response, self.pixels, xy, self.radius_px)
        described = describe(self.descriptors, xy)
        return Features(xy, self.scores, described, self.placement.image_hw)


def crowding(xy: Float32) -> float:
    """Share of points with another within 2 px: points that a refinement drew together."""
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)  # N N
    np.fill_diagonal(apart, np.inf)
    return float((apart.min(axis=1, initial=np.inf) < 2).mean()) if len(xy) else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--checkpoint", default="default")
    options = parser.parse_args()
    settings = HomographySettings()
    checkpoint = load_checkpoint(options.checkpoint)
    engine = build_engine(checkpoint, EngineChoice("openvino", "cpu", "f32"))
    distances: dict[str, list[float]] = {name: [] for name in VARIANTS}
    errors: dict[str, list[float]] = {name: [] for name in VARIANTS}
    crowded: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for pair in generated_pairs(list_photos(options.photos), options.count):
        loaded = pair.load(settings.frame)
        a, b = (
            Dense(checkpoint, engine, image, settings.k)
            for image in (loaded.image_a, loaded.image_b)
        )
        for name, refine in VARIANTS.items():
            one, other = (dense.features(refine, "settled" in name) for dense in (a, b))
            crowded[name].append(crowding(one.top(settings.k).xy))
            errors[name].append(measure(one, other, loaded, settings).error_px)
            best_one, best_other = one.top(settings.k), other.top(settings.k)
            i, j = match(best_one, best_other).pairs.T
            truth = apply_homography(loaded.homography, best_one.xy[i])
            apart = np.linalg.norm(truth - best_other.xy[j], axis=1)
            distances[name] += apart[apart < settings.correct_px].tolist()
    print(f"{options.count} generated pairs, {settings.k} points, matches within 3 px of the truth")
    print(f"{'refinement':34s}   median px   rms px   H 1 px   H 3 px  crowded")
    for name in VARIANTS:
        apart, error = np.array(distances[name]), np.array(errors[name])
        rms = np.sqrt((apart**2).mean())
        low, high = metrics.mean_interval((error <= 1).astype(float))
        figures = (np.median(apart), rms, np.mean(error <= 1), np.mean(error <= 3))
        row = "".join(f"{figure:9.3f}" for figure in (*figures, np.mean(crowded[name])))
        print(f"{name:34s}   {row}   (H 1 px: {low:.3f}..{high:.3f})")


if __name__ == "__main__":
    main()

"""The whole way from image to keypoints as one ONNX graph, with the outputs of each profile."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tiepoint._version import __version__
from tiepoint.config import DetectionConfig
from tiepoint.errors import ConfigError
from tiepoint.export.descriptors import describe
from tiepoint.export.graph import Graph, Value, concatenate, rows_of
from tiepoint.export.network import dense_maps
from tiepoint.export.pixels import resize, to_cells, to_grey, without_padding
from tiepoint.export.positions import centres, refine
from tiepoint.export.selection import Limits, fixed_limits, inside_border, select
from tiepoint.weights.checkpoint import Checkpoint

Profile = Literal["generic", "colmap", "opencv"]
"""Contract of the file's inputs and outputs."""

MAX_KEYPOINTS = 1000
"""Number of keypoints of a file whose settings keep all: it needs a number."""

COLMAP_MIN_SCORE = 0.2
"""COLMAP's default of `AlikedExtraction.min_score`."""

LEAST_THRESHOLD, HIGHEST_THRESHOLD = 1e-6, 0.9
"""Range of thresholds that `colmap_exponent` can map to COLMAP's default."""

Shapes = Mapping[str, tuple[Value, Sequence[int | str]]]
"""Outputs of a graph: name -> value and shape."""


class Keypoints(NamedTuple):
    """Keypoints of a batch, best score first.

    Attributes:
        xy: B K 2, px of the image.
        scores: B K, 0 where there is no keypoint.
        descriptors: B K D of unit length.
    """

    xy: Value
    scores: Value
    descriptors: Value


def build_model(checkpoint: Checkpoint, detection: DetectionConfig, profile: Profile) -> Any:
    """The graph of a checkpoint as `onnx.ModelProto`.

    Args:
        detection: Settings that are written into the file.

    Raises:
        ConfigError: A setting that a file cannot have.
    """
    check_detection(detection)
    build = {"generic": _generic, "colmap": _colmap, "opencv": _opencv}[profile]
    graph = Graph()
    outputs = build(graph, checkpoint, detection)
    return graph.model(outputs, notes_of(checkpoint, detection, profile))


def notes_of(
    checkpoint: Checkpoint, detection: DetectionConfig, profile: Profile
) -> dict[str, str]:
    """Metadata of a file."""
    return {
        "tiepoint": __version__,
        "profile": profile,
        "checkpoint": checkpoint.name,
        "weights_sha256": checkpoint.sha256,
        "settings": json.dumps({**vars(detection), "scales": list(detection.scales)}),
    }


def check_detection(detection: DetectionConfig) -> None:
    """Raise ConfigError for settings that a file cannot have."""
    if detection.spread:
        raise ConfigError("spread is True, which needs a search that a file cannot hold; omit it")
    if max(detection.scales) > 1:
        raise ConfigError(
            f"scales is {detection.scales}, expected scales up to 1: a file does not enlarge "
            "images; give scales=(1,)"
        )


def _generic(graph: Graph, checkpoint: Checkpoint, detection: DetectionConfig) -> Shapes:
    """Any batch of colour or grey images -> K places each, and the number that are in use."""
    count, length = max_places(detection), checkpoint.network.descriptor_decoder_dim
    image = graph.input("image", "float", ("batch", "channels", "height", "width"))
    limits = fixed_limits(graph, detection, count)
    xy, scores, descriptors = _detect(to_grey(image), checkpoint, detection, limits)
    used = scores.above(0)
    each = used.reshape(used.size(0), -1, 1)
    return {
        "keypoints": (xy.where(each), ("batch", count, 2)),
        "scores": (scores, ("batch", count)),
        "descriptors": (descriptors.where(each), ("batch", count, length)),
        "count": (used.to("int").sum(1), ("batch",)),
    }


def _colmap(graph: Graph, checkpoint: Checkpoint, detection: DetectionConfig) -> Shapes:
    """The contract of COLMAP's ALIKED extractor, version 4."""
    image = graph.input("image", "float", (1, 3, "height", "width"))
    max_keypoints = graph.input("max_keypoints", "int", ())
    min_score = graph.input("min_score", "float", ())
    exponent = colmap_exponent(detection)
    lowest = graph.node("Pow", min_score, graph.constant(1 / exponent))
    limits = Limits(lowest.maximum(detection.noise_floor), max_keypoints.reshape(1))
    grey = to_grey(without_padding(image), 3)
    xy, scores, descriptors = _only_used(_detect(grey, checkpoint, detection, limits))
    mapped = graph.node("Pow", scores, graph.constant(exponent))
    # At the threshold itself, rounding must not drop a keypoint that was selected.
    mapped = mapped.maximum(min_score)
    width, height = (image.size(axis).to("float") for axis in (3, 2))
    sides = concatenate([width, height], axis=0) - 1
    return {
        "keypoints": (xy * 2 / sides.maximum(1) - 1, (1, "count", 2)),
        "descriptors": (descriptors, (1, "count", checkpoint.network.descriptor_decoder_dim)),
        "scores": (mapped, (1, "count")),
    }


def _opencv(graph: Graph, checkpoint: Checkpoint, detection: DetectionConfig) -> Shapes:
    """The contract of `cv2.ALIKED` in OpenCV 5.0."""
    length = checkpoint.network.descriptor_decoder_dim
    image = graph.input("image", "float", (1, 3, "height", "width"))
    limits = fixed_limits(graph, detection, max_places(detection))
    xy, scores, descriptors = _only_used(_detect(to_grey(image, 3), checkpoint, detection, limits))
    width, height = (image.size(axis).to("float") for axis in (3, 2))
    sides = concatenate([width, height], axis=0)
    return {
        "keypoints": ((xy * 2 / sides - 1).reshape(-1, 2), ("count", 2)),
        "descriptors": (descriptors.reshape(-1, length), ("count", length)),
        "scores": (scores.reshape(-1, 1), ("count", 1)),
    }


def colmap_exponent(detection: DetectionConfig) -> float:
    """The power of a score that maps the settings' own threshold to COLMAP's default.

    It keeps the order, and 0 and 1.
    """
    threshold = min(max(detection.min_score, LEAST_THRESHOLD), HIGHEST_THRESHOLD)
    return math.log(COLMAP_MIN_SCORE) / math.log(threshold)


def max_places(detection: DetectionConfig) -> int:
    """Maximum number of keypoints of a file."""
    return MAX_KEYPOINTS if detection.max_keypoints is None else detection.max_keypoints


def _detect(
    grey: Value, checkpoint: Checkpoint, detection: DetectionConfig, limits: Limits
) -> Keypoints:
    """B 1 H W -> the best keypoints of all scales."""
    levels = []
    for scale in detection.scales:
        with grey.graph.scope(f"scale_{scale:g}"):
            pixels = grey if scale == 1 else resize(grey, scale)
            keypoints = _level(pixels, checkpoint, detection, limits)
            if scale != 1:
                keypoints = keypoints._replace(xy=_in_image(keypoints.xy, pixels, grey))
            levels.append(keypoints)
    return levels[0] if len(levels) == 1 else _merged(levels, limits)


def _level(
    pixels: Value, checkpoint: Checkpoint, detection: DetectionConfig, limits: Limits
) -> Keypoints:
    """The keypoints of B 1 H W in its px; see `Detector._level`."""
    H, W = pixels.size(2), pixels.size(3)
    maps = dense_maps(to_cells(pixels), checkpoint, detection.phases)
    heatmap = maps.heatmap.slice(2, 0, H).slice(3, 0, W)  # B 1 H W
    allowed = inside_border(heatmap, detection.border)
    chosen = select(heatmap, allowed, detection.nms_radius, limits)
    if detection.subpixel:
        xy = refine(chosen, heatmap, pixels, allowed, detection.nms_radius)
    else:
        xy = centres(chosen)
    descriptors = describe(maps.descriptors, xy, checkpoint.sampling)
    return Keypoints(xy, chosen.scores, descriptors)


def _in_image(xy: Value, pixels: Value, grey: Value) -> Value:
    """B K 2 in px of `pixels` -> in px of `grey`; see `geometry.resize_xy`."""
    ratios = [grey.size(axis).to("float") / pixels.size(axis).to("float") for axis in (3, 2)]
    return (xy + 0.5) * concatenate(ratios, axis=0) - 0.5


def _merged(levels: Sequence[Keypoints], limits: Limits) -> Keypoints:
    """The best keypoints of several scales."""
    xy, scores, descriptors = (concatenate(parts, axis=1) for parts in zip(*levels, strict=True))
    best, index = limits.top_k(scores)
    return Keypoints(rows_of(xy, index), best, rows_of(descriptors, index))


def _only_used(keypoints: Keypoints) -> Keypoints:
    """The keypoints of one image, without empty places."""
    count = keypoints.scores.above(0).to("int").sum(1)
    return Keypoints(*(part.slice(1, 0, count) for part in keypoints))

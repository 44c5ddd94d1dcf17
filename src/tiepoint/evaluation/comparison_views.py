"""A comparison as a table, as JSON, and as a picture."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from tiepoint._version import __version__
from tiepoint.evaluation.compare import ComparedMethod, Comparison
from tiepoint.evaluation.summary import Line, table_of
from tiepoint.features import Matches
from tiepoint.images.urls import without_credentials
from tiepoint.plotting import plot_matches, write_text
from tiepoint.registration.models import PLANE_MODELS

ROW_SIDE_PX = 480
"""Longer side of each image in the picture, px."""
BAR_PX = 26
"""Height of the caption above each row, px."""
LETTER_PX = 9
"""Width of a letter of a caption, px."""
REGISTERED, REFUSED, ODD = (20, 110, 40), (170, 30, 30), (190, 90, 0)
"""RGB of captions."""
UNKNOWN = "-"

Picture = NDArray[np.uint8]
"""H W 3, RGB."""


def comparison_table(comparison: Comparison) -> Table:
    """A row per method for a terminal; reasons are in `reasons`."""
    is_timed = comparison.settings.repeats > 0
    lines = [Line([one.name], _cells(one, is_timed=is_timed)) for one in comparison.methods]
    return table_of(
        "Methods on one pair, without ground truth", _caption(comparison), ["method"], lines
    )


def reasons(comparison: Comparison) -> list[str]:
    """A line for each method that is not registered: why."""
    return [
        f"{one.name}: {verdict(one)}: {one.reason}" for one in comparison.methods if not one.success
    ]


def verdict(one: ComparedMethod) -> str:
    """The verdict in a word or two."""
    if one.error is not None:
        return "failed"
    return "registered" if one.success else "not registered"


def conclusion(comparison: Comparison) -> str:
    """The agreement of the methods in a sentence."""
    registered = [one for one in comparison.methods if one.success]
    if comparison.config.model not in PLANE_MODELS:
        return f"a {comparison.config.model} matrix maps points to lines: agreement is not measured"
    if len(registered) < 2:
        count = f"{len(registered)} of {len(comparison.methods)} methods"
        return f"{count} registered the images: no agreement to measure"
    apart = f"at most {_px(comparison.spread_px)} px apart"
    if not comparison.consensus:
        return f"no majority agrees within {comparison.agree_px:.3g} px: {apart}"
    odd = [one.name for one in registered if one.in_consensus is False]
    if not odd:
        return f"all {len(registered)} registered methods agree: {apart}"
    agreeing = ", ".join(comparison.consensus)
    return f"{agreeing} agree within {comparison.agree_px:.3g} px; odd: {', '.join(odd)}"


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain values: images, settings, methods, distances, consensus."""
    return {
        "kind": "comparison",
        "a": without_credentials(comparison.image_a.name),
        "b": without_credentials(comparison.image_b.name),
        "size_hw": [list(image.size_hw) for image in (comparison.image_a, comparison.image_b)],
        "versions": {"tiepoint": __version__, "opencv": cv2.__version__},
        "settings": {**asdict(comparison.config), **asdict(comparison.settings)},
        "threads": {"network": comparison.threads[0], "opencv": comparison.threads[1]},
        "agree_px": comparison.agree_px,
        "consensus": list(comparison.consensus),
        "conclusion": conclusion(comparison),
        "spread_px": _finite(comparison.spread_px),
        "distances_px": [
            [_finite(value) for value in row] for row in comparison.distances_px.tolist()
        ],
        "methods": [_method_json(one) for one in comparison.methods],
    }


def comparison_picture(comparison: Comparison) -> Picture:
    """A row per method: A on the left, B on the right, lines between the inliers."""
    rows = [_row(comparison, one) for one in comparison.methods]
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    return np.concatenate(padded)


def _method_json(one: ComparedMethod) -> dict[str, Any]:
    result = {} if one.registration is None else one.registration.summary()
    return {
        **result,
        "name": one.name,
        "verdict": verdict(one),
        "success": one.success,
        "reason": one.reason,
        "settings": dict(one.settings),
        "times_ms": None if one.times is None else asdict(one.times),
        "from_others_px": _finite(one.from_others_px),
        "in_consensus": one.in_consensus,
    }


def _cells(one: ComparedMethod, *, is_timed: bool) -> dict[str, str]:
    result, times = one.registration, one.times
    cells = dict.fromkeys(("keypoints", "matches", "inliers"), UNKNOWN)
    cells["verdict"], cells["sd px"] = verdict(one), UNKNOWN
    if result is not None:
        counts = len(result.features_a), len(result.features_b)
        cells["keypoints"] = "/".join(map(str, counts))
        cells["matches"], cells["inliers"] = str(len(result.matches)), str(one.inliers)
        if result.success and math.isfinite(result.overlap_sd_px):
            cells["sd px"] = f"{result.overlap_sd_px:.2f}"
    cells["others px"] = _px(one.from_others_px)
    cells["consensus"] = {True: "yes", False: "no", None: UNKNOWN}[one.in_consensus]
    for heading in ("detect", "match", "fit") if is_timed else ():
        cells[f"{heading} ms"] = UNKNOWN if times is None else f"{getattr(times, heading):.1f}"
    return cells


def _caption(comparison: Comparison) -> str:
    settings, (network, opencv) = comparison.settings, comparison.threads
    side = "native size" if settings.max_side is None else f"at most {settings.max_side} px"
    parts = [
        f"k = {comparison.config.max_keypoints}, images {side}, {comparison.config.model}. Sd: "
        "standard deviation of the transform over the overlap. Others: median distance from the "
        "other registered transforms over the overlap, px of B. Consensus: the majority within "
        f"{comparison.agree_px:.3g} px.",
    ]
    if settings.repeats:
        parts.append(
            f"Times: median of {settings.repeats} runs after one untimed run, both images; network "
            f"on {network} CPU threads, OpenCV on {opencv}."
        )
    return " ".join(parts)


def _row(comparison: Comparison, one: ComparedMethod) -> Picture:
    result = one.registration
    if result is None:
        return _captions([f"{one.name}: failed", *_wrapped(one.reason)], REFUSED, 2 * ROW_SIDE_PX)
    matches = result.matches
    inliers = Matches(matches.pairs[result.inliers], matches.scores[result.inliers])
    picture = plot_matches(
        comparison.image_a,
        comparison.image_b,
        result.features_a,
        result.features_b,
        inliers,
        max_side=ROW_SIDE_PX,
    )
    text = f"{one.name}: {verdict(one)}, {one.inliers} of {len(matches)} matches fit"
    colour = REGISTERED if one.success else REFUSED
    if one.in_consensus is not None:
        text += ", in the consensus" if one.in_consensus else ", odd one out"
        colour = REGISTERED if one.in_consensus else ODD
    lines = [text] if one.success else [text, *_wrapped(one.reason)]
    return np.concatenate([_captions(lines, colour, picture.shape[1]), picture])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 2 * ROW_SIDE_PX // LETTER_PX)


def _captions(lines: list[str], colour: tuple[int, int, int], width_px: int) -> Picture:
    """Lines of text on white, the first in its colour."""
    panel = np.full((BAR_PX * len(lines), width_px, 3), 255, np.uint8)
    for number, line in enumerate(lines):
        tone = (60, 60, 60) if number else colour
        write_text(panel, line, (8, BAR_PX * number + 18), tone, 0.5)
    return panel


def _px(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.2f}" if value < 100 else f"{value:.3g}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

"""HTML tables of facts, which notebooks show for results."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tiepoint.features.matches import Matches
    from tiepoint.features.result import Features

_LONGEST_TEXT = 120
_STYLE = "text-align:left"


def facts_html(title: str, facts: Mapping[str, Any]) -> str:
    """A table of two columns; facts that are None are left out, and all text is escaped."""
    rows = "".join(
        f'<tr><th style="{_STYLE}">{escape(name)}</th><td style="{_STYLE}">{_cell(value)}</td></tr>'
        for name, value in facts.items()
        if value is not None
    )
    return f"<table><caption>{escape(title)}</caption><tbody>{rows}</tbody></table>"


def features_html(features: Features) -> str:
    """The facts of features: counts, image, scores, scales and origin."""
    height, width = features.size_hw
    described, provenance = features.descriptors, features.provenance
    facts = {
        "keypoints": len(features),
        "descriptors": "none" if described is None else f"{described.shape[1]}-D",
        "image": f"{width} x {height} px",
        "scores": _range(features.scores),
        "scales": _each_scale(features.scales_px),
        "covariance": None if features.covariance is None else "yes",
        "source": features.meta.get("source"),
        "checkpoint": None if provenance is None else provenance.checkpoint,
    }
    return facts_html("Features", facts)


def matches_html(matches: Matches) -> str:
    """The facts of matches: counts, range of scores, and the two images."""
    sources, keypoints = matches.meta.get("sources"), matches.meta.get("keypoints")
    a, b = sources if isinstance(sources, list) and len(sources) == 2 else (None, None)
    facts = {
        "matches": len(matches),
        "scores": _range(matches.scores),
        "image A": a,
        "image B": b,
        "keypoints": keypoints and " and ".join(map(str, keypoints)),
        "rotation of A": f"{matches.turned_deg} degrees" if matches.turned_deg else None,
    }
    return facts_html("Matches", facts)


def _cell(value: Any) -> str:
    text = str(value)
    return escape(text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}...")


def _range(values: NDArray[np.float32]) -> str | None:
    return f"{values.min():.3f} to {values.max():.3f}" if len(values) else None


def _each_scale(scales_px: NDArray[np.float32] | None) -> str | None:
    if scales_px is None or not len(scales_px):
        return None
    values, counts = np.unique(scales_px, return_counts=True)
    pairs = zip(values.tolist(), counts.tolist(), strict=True)
    return ", ".join(f"{count} at {value:.3g} px" for value, count in pairs)

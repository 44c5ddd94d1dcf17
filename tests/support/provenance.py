"""Provenance of features that were made for a test."""

from __future__ import annotations

from typing import Any

from tiepoint.features import Provenance


def made(**changes: Any) -> Provenance:
    """A provenance with some entries changed."""
    values: dict[str, Any] = {
        "checkpoint": "fake",
        "weights_sha256": "0" * 64,
        "rules": "exact",
        "settings": {"threshold": 0.0015, "max_side": None},
        "engine": "openvino",
        "device": "cpu",
        "precision": "f32",
        "tiepoint_version": "0",
    }
    return Provenance(**{**values, **changes})

"""Fields that several routes have."""

from __future__ import annotations

from typing import Any

from tiepoint.config import DetectionConfig, ProcessorConfig
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.formats.fields import CONVENTION

CHECKPOINT = "checkpoint"

MOST_LEARNED_KEYPOINTS = 4096
"""Keypoints per image for a learned matcher, whose memory and time grow with their square."""

OF_DETECTION = tuple(
    name for config in (ProcessorConfig, DetectionConfig) for name in config.__dataclass_fields__
)
"""Settings of `Detector`."""

CHECKPOINT_SCHEMA: dict[str, Any] = {
    "type": "string",
    "description": "Checkpoint: one of those that /health lists. Default: the first.",
}

FACTS: dict[str, Any] = {"convention": CONVENTION}
"""What every answer of two images states."""


def check_learned(method: str, *counts: int) -> None:
    """Raise ConfigError for more keypoints than a learned matcher may get here."""
    if method == "learned" and max(counts) > MOST_LEARNED_KEYPOINTS:
        raise ConfigError(
            f"max_keypoints is {max(counts)}, expected at most {MOST_LEARNED_KEYPOINTS} for "
            "method 'learned' by this service"
        )


def sizes(a: Features, b: Features) -> dict[str, Any]:
    """Sizes and numbers of keypoints of two images."""
    return {"size_hw": [list(a.size_hw), list(b.size_hw)], "keypoints": [len(a), len(b)]}

"""The six models of `register` and their properties, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tiepoint.config import Model, RegistrationConfig


@dataclass(frozen=True)
class ModelFacts:
    """One geometric model.

    Attributes:
        phrase: The model in a sentence, with its article.
        kind: "plane" models map each point of A to a point of B; "two-view" models map it to an
            epipolar line.
        sample_size: Matches that determine the model.
        solutions: Models that one minimal sample may give.
        degrees_of_freedom: Free parameters.
        inlier_px: Default inlier threshold, px of the network's input; from the epipolar line
            for two-view models.
    """

    phrase: str
    kind: Literal["plane", "two-view"]
    sample_size: int
    solutions: int
    degrees_of_freedom: int
    inlier_px: float


MODELS: dict[Model, ModelFacts] = {
    "homography": ModelFacts("a homography", "plane", 4, 1, 8, 3.0),
    "affine": ModelFacts("an affine transform", "plane", 3, 1, 6, 3.0),
    "similarity": ModelFacts("a similarity", "plane", 2, 1, 4, 3.0),
    "translation": ModelFacts("a translation", "plane", 1, 1, 2, 3.0),
    "fundamental": ModelFacts("a fundamental matrix", "two-view", 7, 3, 7, 2.0),
    "essential": ModelFacts("an essential matrix", "two-view", 5, 10, 5, 1.0),
}

PLANE_MODELS = tuple(name for name, facts in MODELS.items() if facts.kind == "plane")
TWO_VIEW_MODELS = tuple(name for name, facts in MODELS.items() if facts.kind == "two-view")


def inlier_px(config: RegistrationConfig) -> float:
    """The inlier threshold of a config: `threshold_px`, or the model's own."""
    if config.threshold_px is not None:
        return config.threshold_px
    return MODELS[config.model].inlier_px

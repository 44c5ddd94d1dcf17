"""Settings of matching: which pairs of images, by which method, and which matches are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from tiepoint.checks import check_choice, check_whole, check_within
from tiepoint.config.basics import setting
from tiepoint.errors import ConfigError

RotationMode = Literal["auto", "none"]
MatchScore = Literal["cosine", "dual-softmax"]

MIN_TEMPERATURE = 1e-3
"""Cosines are exact to 6e-8; at lower temperatures only the best of a row counts."""


@dataclass(frozen=True)
class MatchingConfig:
    """Selection of matches among nearest neighbours."""

    mutual: bool = setting(
        True,
        "Keep mutual nearest neighbours only, not the one-sided nearest neighbours of A.",
    )
    ratio: float | None = setting(
        None,
        "Lowe's ratio test, 0..1: maximum distance to the nearest neighbour relative to the second "
        "nearest; 0.8 in his paper. Cosine only.",
        metavar="R",
    )
    min_similarity: float | None = setting(None, "Minimum cosine similarity, -1..1.", metavar="C")
    scores: MatchScore = setting(
        "cosine",
        "Score of a match: the cosine similarity, or the dual soft-max, the probability that two "
        "keypoints choose each other.",
    )
    temperature: float = setting(
        # As in DeDoDe (3DV 2024), which has unit descriptors too.
        0.05,
        "Soft-max temperature; lower is more selective. Dual soft-max only.",
        metavar="T",
    )
    min_probability: float | None = setting(
        None, "Minimum probability, 0..1. Dual soft-max only.", metavar="P"
    )
    rotation: RotationMode = setting(
        "auto",
        "'auto' also tries A rotated in steps of 45 degrees, if the checkpoint has a rotation "
        "matrix; 'none' does not.",
    )

    def __post_init__(self) -> None:
        check_choice("rotation", self.rotation, get_args(RotationMode))
        check_choice("scores", self.scores, get_args(MatchScore))
        if self.ratio is not None:
            check_within("ratio", self.ratio, 0, 1, "a share of the second distance")
        if self.ratio == 0:
            raise ConfigError("ratio is 0, which no match passes; Lowe uses 0.8")
        if self.min_similarity is not None:
            check_within("min_similarity", self.min_similarity, -1, 1, "a cosine")
        if self.min_probability is not None:
            check_within("min_probability", self.min_probability, 0, 1, "a probability")
        check_within("temperature", self.temperature, MIN_TEMPERATURE, 1000, "a temperature")
        if self.scores == "cosine" and self.min_probability is not None:
            raise ConfigError(
                "min_probability needs scores='dual-softmax'; for cosines give min_similarity"
            )
        if self.scores == "dual-softmax" and self.ratio is not None:
            raise ConfigError(
                "ratio needs scores='cosine', because the soft-max compares all neighbours itself; "
                "give min_probability"
            )


@dataclass(frozen=True)
class PairConfig:
    """Choice of the pairs to match among many images."""

    pairs: str = setting(
        "all",
        "Pairs to match: 'all'; 'sequential', in the order of the names; 'similar', by global "
        "descriptors; or a text file with two names per line.",
        metavar="WHICH",
    )
    window: int = setting(
        # As in COLMAP.
        10, "'sequential': number of following images that each image is matched with.", metavar="N"
    )  # fmt: skip
    quadratic: bool = setting(
        False, "'sequential': also match with the images 1, 2, 4, 8, ... further on."
    )
    k: int = setting(
        20, "'similar': number of most similar images that each image is matched with.", metavar="K"
    )

    def __post_init__(self) -> None:
        check_whole("window", self.window, minimum=1, unit="images")
        check_whole("k", self.k, minimum=1, unit="images")


class MatchingOptions(TypedDict, total=False):
    """Settings of `MatchingConfig` by keyword."""

    mutual: bool
    ratio: float | None
    min_similarity: float | None
    scores: MatchScore
    temperature: float
    min_probability: float | None
    rotation: RotationMode

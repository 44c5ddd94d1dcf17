"""Settings of matching: which pairs of images, by which method, and which matches are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from tiepoint.checks import check_choice, check_positive, check_whole, check_within
from tiepoint.config.basics import setting
from tiepoint.errors import ConfigError

MatchMethod = Literal["nearest", "learned"]
RotationMode = Literal["auto", "none"]
MatchScore = Literal["cosine", "dual-softmax"]

MIN_TEMPERATURE = 1e-3
"""Cosines are exact to 6e-8; at lower temperatures only the best of a row counts."""

METHOD_TEXT = (
    "Nearest neighbours of descriptors, or a learned matcher, which also weighs the positions and "
    "all other keypoints of both images."
)
LAYERS_TEXT = (
    "Number of layers of the learned matcher that run; fewer are faster and less accurate. None "
    "runs all."
)

ONLY_NEAREST = ("mutual", "ratio", "min_similarity", "scores", "temperature")
"""Settings of `MatchingConfig` that a learned matcher does not have."""


@dataclass(frozen=True)
class MatchingConfig:
    """How two images are matched, and which matches are kept."""

    method: MatchMethod = setting("nearest", METHOD_TEXT)
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
        None,
        "Minimum probability, 0..1, of dual soft-max or a learned matcher. None keeps all of the "
        "former, and takes the latter's own minimum.",
        metavar="P",
    )
    rotation: RotationMode = setting(
        "auto",
        "'auto' also tries A rotated in steps of 45 degrees, if the checkpoint has a rotation "
        "matrix; 'none' does not.",
    )
    layers: int | None = setting(None, LAYERS_TEXT, metavar="N")

    def __post_init__(self) -> None:
        check_method(self.method, self.layers)
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
        if self.method == "learned":
            self._check_learned()
        elif self.scores == "cosine" and self.min_probability is not None:
            raise ConfigError(
                "min_probability needs scores='dual-softmax' or method='learned'; for cosines give "
                "min_similarity"
            )
        if self.scores == "dual-softmax" and self.ratio is not None:
            raise ConfigError(
                "ratio needs scores='cosine', because the soft-max compares all neighbours itself; "
                "give min_probability"
            )

    def _check_learned(self) -> None:
        for name in ONLY_NEAREST:
            if getattr(self, name) != getattr(MatchingConfig, name):
                raise ConfigError(
                    f"{name} needs method='nearest', because a learned matcher compares all "
                    "keypoints itself; give min_probability"
                )


def check_method(method: str, layers: int | None) -> None:
    """Raise ConfigError for an unknown method, or a number of layers that it does not have."""
    check_choice("method", method, get_args(MatchMethod))
    if layers is None:
        return
    check_whole("layers", layers, minimum=1, unit="layers, or None for all")
    if method != "learned":
        raise ConfigError("layers needs method='learned', because only learned matchers have some")


@dataclass(frozen=True)
class PairConfig:
    """Choice of the pairs to match among many images."""

    pairs: str = setting(
        "all",
        "Pairs to match: 'all'; 'sequential', in the order of the names of each folder; 'similar', "
        "by what the images show; 'gps', by where they were taken; or a text file with two names "
        "per line. Several with commas between give the pairs of each.",
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
    gps_k: int | None = setting(
        20,
        "'gps': number of nearest images that each image is matched with. None takes all within "
        "`gps_metres`.",
        metavar="K",
    )
    gps_metres: float | None = setting(
        None, "'gps': largest distance of two images. None has no limit.", metavar="METRES"
    )

    def __post_init__(self) -> None:
        check_whole("window", self.window, minimum=1, unit="images")
        check_whole("k", self.k, minimum=1, unit="images")
        if self.gps_k is not None:
            check_whole("gps_k", self.gps_k, minimum=1, unit="images")
        if self.gps_metres is not None:
            check_positive("gps_metres", self.gps_metres)
        elif self.gps_k is None:
            raise ConfigError("gps_k and gps_metres are None, expected one of them at least")


class MatchingOptions(TypedDict, total=False):
    """Settings of `MatchingConfig` by keyword."""

    method: MatchMethod
    mutual: bool
    ratio: float | None
    min_similarity: float | None
    scores: MatchScore
    temperature: float
    min_probability: float | None
    rotation: RotationMode
    layers: int | None

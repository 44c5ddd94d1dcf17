"""Features of an image -> what the matcher's network takes, and what it returns."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tiepoint.geometry import SizeHW

Float32 = NDArray[np.float32]


class MatcherInput(NamedTuple):
    """Keypoints of one image.

    Attributes:
        xy: N 2 float32, normalised by `normalised`.
        descriptors: N D float32.
    """

    xy: Float32
    descriptors: Float32


class MatcherOutput(NamedTuple):
    """The states of one image after its last layer, through that layer's head.

    Attributes:
        projected: N C float32; the product of two images' is the similarity, a logit.
        matchability: N float32, the logit of having a match in the other image.
    """

    projected: Float32
    matchability: Float32


class MatcherEngine(Protocol):
    """Runs the network; decides nothing."""

    def run(self, a: MatcherInput, b: MatcherInput) -> tuple[MatcherOutput, MatcherOutput]:
        """Run the network on the keypoints of two images; neither may be empty."""


def normalised(xy: Float32, size_hw: SizeHW) -> Float32:
    """Positions relative to the image, as LightGlue has them.

    The longer side is 2 long, and 0 is at half the size. Pixel centres would have their middle half
    a pixel before that. The network sees only differences of positions, so it does not matter.

    Args:
        xy: N 2, px.
        size_hw: (height, width) of the image, px.

    Returns:
        N 2 float32, about -1..1.
    """
    height, width = size_hw
    half = np.array([width, height], np.float64) / 2
    relative: Float32 = ((xy - half) / half.max()).astype(np.float32)
    return relative


def angles(xy: Float32, weight: Float32) -> Float32:
    """N 2 normalised -> the angle of each pair of channels of a head, N C/2 float32, radians.

    Summed without a matrix product, which engines may round to bfloat16 or TF32.
    """
    turns: Float32 = xy[:, :1] * weight[:, 0] + xy[:, 1:] * weight[:, 1]
    return turns

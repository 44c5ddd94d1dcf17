"""The settings of one call, and keypoints -> features with what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionConfig, ProcessorConfig
from tiepoint.features import Features, Provenance
from tiepoint.geometry import SizeHW, fit_inside
from tiepoint.images.arrays import ChannelOrder
from tiepoint.images.masks import MaskSource
from tiepoint.images.ranges import Range
from tiepoint.images.reading import SourceImage
from tiepoint.keypoints.result import Keypoints

Float32 = NDArray[np.float32]


class ImageHead(NamedTuple):
    """An image without its pixels; see `reading.SourceImage`."""

    name: str
    size_hw: SizeHW
    exif_orientation: int
    mask_name: str | None


@dataclass(frozen=True)
class Request:
    """The settings of one call, resolved once.

    Attributes:
        processor: How images become inputs.
        detection: What becomes a keypoint.
        masks: See `masks.mask_of`.
        channel_order: Order of the channels of arrays.
        provenance: Provenance of the features that the request gives.
    """

    processor: ProcessorConfig
    detection: DetectionConfig
    masks: MaskSource
    channel_order: ChannelOrder
    provenance: Provenance

    def features(
        self,
        image: SourceImage | ImageHead,
        value_range: Range | None,
        keypoints: Keypoints[Float32],
    ) -> Features:
        """The features of an image.

        Args:
            value_range: See `GreyImage`.
            keypoints: In px of the image.
        """
        meta: dict[str, Any] = {"source": image.name, "exif_orientation": image.exif_orientation}
        if image.mask_name is not None:
            meta["mask"] = image.mask_name
        if value_range is not None:
            meta["value_range"] = list(value_range)
        input_side = max(fit_inside(image.size_hw, self.processor.max_side))
        return Features(
            xy=keypoints.xy,
            scores=keypoints.scores,
            descriptors=keypoints.descriptors,
            covariance=keypoints.covariance,
            size_hw=image.size_hw,
            meta=meta,
            provenance=self.provenance,
            px_per_input_px=max(image.size_hw) / (input_side * max(self.detection.scales)),
            scales_px=keypoints.scales_px,
        )


def failure_message(
    images: Sequence[SourceImage], max_side: int | None, error: BaseException
) -> str:
    """The message of an `EngineError`: which images, why, and what to do."""
    names = ", ".join(f"{i.name} ({i.size_hw[1]}x{i.size_hw[0]} px)" for i in images)
    reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
    return (
        f"{names}: the engine failed at max_side={max_side} ({reason[0]}); "
        "if memory ran out, lower max_side"
    )

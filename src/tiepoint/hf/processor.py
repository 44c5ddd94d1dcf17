"""The processor for keypoint detection: images -> inputs of the model, its outputs -> px."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import ArrayLike
from torch import Tensor

from tiepoint.hf import transformers_rules
from tiepoint.hf.image_processor import (
    KeypointImageProcessor,
    prepare_exact,
    required,
    sizes_of,
    to_px,
)
from tiepoint.hf.outputs import BatchFeature, SuperPointKeypointDescriptionOutput, stack
from tiepoint.weights.folder import PROCESSOR_CLASS


@dataclass(kw_only=True, eq=False, repr=False)
class SuperPointImageProcessor(KeypointImageProcessor):
    """Converts images to the model's inputs, and its outputs to px of the images.

    Built in code it follows the exact rules. Each image is downscaled to fit inside `size`, with
    its aspect kept, and converted to grey. Images of different sizes share a padded batch with a
    mask. With `tiepoint=None` it follows transformers 5.23.0; see `docs/compat.md`.

    Images are any source that `tiepoint.Detector` reads, a list of these, or one array or tensor
    with four axes; under transformers' rules those of transformers. Calling it returns
    `pixel_values`, B 3 H W float32 in 0..1. Under the exact rules its three channels are equal, H
    and W are those of the largest image, and there is also `pixel_mask`, B H W int64, 1 for the
    image and 0 for padding.

    Args:
        do_resize: False keeps the native size.
        size: px. `{"height": 480, "width": 640}`, or (height, width). The exact rules also have
            `max_height` and `max_width`, or `longest_edge`; transformers' rules have those of
            transformers.
        resample: Pillow's number of the filter; the exact rules always average the area.
        do_rescale, rescale_factor: Under transformers' rules values are multiplied by the factor.
            Under the exact rules the type decides the range: 0..255, 0..65535, or floats in 0..1.
        do_grayscale: None is True under the exact rules, which have no other way, and False
            under transformers'.
        tiepoint: Mark of the exact rules, or None for transformers' rules.

    Unknown settings of a preprocessor_config.json become attributes and are saved again.

    Raises:
        ConfigError: A setting out of range.
    """

    type_name: ClassVar = PROCESSOR_CLASS
    grey_as_transformers: ClassVar = False

    def _prepare(
        self, images: Any, settings: transformers_rules.Preparation, return_tensors: str | None
    ) -> BatchFeature:
        if self.rules == "transformers":
            pixel_values = transformers_rules.prepare(images, settings, return_tensors)
            return BatchFeature({"pixel_values": pixel_values})
        values, mask = prepare_exact(images, settings)
        pixel_values, pixel_mask = stack(values, return_tensors), stack(mask, return_tensors)
        return BatchFeature({"pixel_values": pixel_values, "pixel_mask": pixel_mask})

    def post_process_keypoint_detection(
        self,
        outputs: SuperPointKeypointDescriptionOutput,
        target_sizes: Sequence[Sequence[int]] | ArrayLike | Tensor,
        *,
        round: bool = False,  # noqa: A002 - the word people look for
    ) -> list[dict[str, Tensor]]:
        """The model's outputs -> keypoints in px of the original images, without padding.

        Args:
            target_sizes: One (height, width) per image, px; any sequence, array or tensor. Under
                transformers' rules a list of tuples or a tensor.
            round: Whole px, int32, instead of float32; transformers' rules always return int32.

        Returns:
            A dict for each image: `keypoints` N 2 (x, y), `scores` N, `descriptors` N D.

        Raises:
            ConfigError: Not one size for each image.
        """
        keypoints, scores, descriptors, mask = (
            required(outputs, name) for name in ("keypoints", "scores", "descriptors", "mask")
        )
        if self.rules == "transformers":
            absolute = transformers_rules.absolute_xy(keypoints, target_sizes)
        else:
            sizes_wh = sizes_of(target_sizes, (len(mask), 2)).flip(1).to(mask.device)  # B 2
            absolute = to_px(keypoints, sizes_wh, whole=round)
        real = mask.bool()
        return [
            {"keypoints": xy[kept], "scores": score[kept], "descriptors": described[kept]}
            for xy, score, described, kept in zip(absolute, scores, descriptors, real, strict=True)
        ]

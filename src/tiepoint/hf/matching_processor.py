"""The processor for keypoint matching: pairs of images -> inputs, outputs -> matches in px."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from tiepoint.checks import check_within
from tiepoint.errors import ConfigError, ImageError
from tiepoint.files.paths import is_file
from tiepoint.hf import transformers_rules
from tiepoint.hf.image_processor import (
    KeypointImageProcessor,
    prepare_exact,
    required,
    sizes_of,
    to_px,
)
from tiepoint.hf.outputs import BatchFeature, LightGlueKeypointMatchingOutput, stack
from tiepoint.hf.pairs import draw_pair, flat_pairs, in_pairs, read_rgb
from tiepoint.matching.learned.folder import MODEL_TYPE, PAIR_PROCESSOR_CLASS
from tiepoint.weights.folder import CONFIG_FILE, EXACT, read_json, rules_of


@dataclass(kw_only=True, eq=False, repr=False)
class LightGlueImageProcessor(KeypointImageProcessor):
    """Converts pairs of images to the model's inputs, and its outputs to matches in px.

    Images are a list of two, or a list of such pairs; each image as for `SuperPointImageProcessor`,
    which also describes the settings. `do_grayscale` is True by default under both rules. Calling
    it returns `pixel_values`, B 2 3 H W float32 in 0..1, and under the exact rules `pixel_mask`,
    B 2 H W int64, 1 for the image and 0 for padding.

    Raises:
        ConfigError: A setting out of range.
    """

    type_name: ClassVar = PAIR_PROCESSOR_CLASS
    grey_as_transformers: ClassVar = True

    def _prepare(
        self, images: Any, settings: transformers_rules.Preparation, return_tensors: str | None
    ) -> BatchFeature:
        flat = flat_pairs(images)
        if self.rules == "transformers":
            return BatchFeature({"pixel_values": _as_transformers(flat, settings, return_tensors)})
        values, mask = prepare_exact(flat, settings)
        pairs = (len(flat) // 2, 2)
        return BatchFeature(
            {
                "pixel_values": stack(values.reshape(*pairs, *values.shape[1:]), return_tensors),
                "pixel_mask": stack(mask.reshape(*pairs, *mask.shape[1:]), return_tensors),
            }
        )

    def post_process_keypoint_matching(
        self,
        outputs: LightGlueKeypointMatchingOutput,
        target_sizes: Sequence[Sequence[Sequence[int]]] | ArrayLike | Tensor,
        threshold: float = 0.0,
        *,
        round: bool = False,  # noqa: A002 - the word people look for
    ) -> list[dict[str, Tensor]]:
        """The model's outputs -> matches in px of the original images, without padding.

        Args:
            target_sizes: ((height, width), (height, width)) of each pair, px; any nested sequence,
                array or tensor.
            threshold: Probability that a match must exceed, besides the config's
                `filter_threshold`.
            round: Whole px, int32, instead of float32; transformers' rules always return int32.

        Returns:
            A dict for each pair: `keypoints0` and `keypoints1` M 2 (x, y), `matching_scores` M.
            Under the exact rules the best match is first. Under transformers' rules they have the
            order of the first image's keypoints.

        Raises:
            ConfigError: Not two sizes for each pair.
        """
        keypoints, matches, scores, mask = (
            required(outputs, name) for name in ("keypoints", "matches", "matching_scores", "mask")
        )
        sizes = sizes_of(target_sizes, (len(mask), 2, 2)).flip(-1).to(mask.device)  # B 2 2
        if self.rules == "transformers":
            absolute = (keypoints.float() * sizes[:, :, None]).to(torch.int32)  # B 2 N 2
        else:
            check_within("threshold", threshold, 0, 1, "a probability")
            flat = to_px(keypoints.flatten(0, 1), sizes.flatten(0, 1), whole=round)
            absolute = flat.reshape(keypoints.shape)  # B 2 N 2
        is_match = mask[:, 0].bool() & (matches[:, 0] >= 0) & (scores[:, 0] > threshold)  # B N
        results = []
        for xy, of_a, score, kept in zip(absolute, matches[:, 0], scores[:, 0], is_match,
                                         strict=True):  # fmt: skip
            index = torch.nonzero(kept)[:, 0]  # M
            if self.rules == "exact":
                index = index[torch.argsort(-score[index], stable=True)]
            results.append(
                {
                    "keypoints0": xy[0, index],
                    "keypoints1": xy[1, of_a[index]],
                    "matching_scores": score[index],
                }
            )
        return results

    def visualize_keypoint_matching(
        self, images: Any, keypoint_matching_output: Sequence[Mapping[str, Tensor]]
    ) -> list[Image.Image]:
        """Draw each pair side by side with a line for each match, from red (0) to green (1).

        Args:
            images: The pairs, as given to the processor.
            keypoint_matching_output: Results of `post_process_keypoint_matching`.

        Returns:
            A PIL image for each pair, RGB, in the original size.

        Raises:
            ImageError: An image cannot be read, or no pairs.
            ConfigError: Not one result for each pair.
        """
        pictures = read_rgb(flat_pairs(images))
        if 2 * len(keypoint_matching_output) != len(pictures):
            raise ConfigError(
                f"{len(keypoint_matching_output)} results for {len(pictures) // 2} pairs, expected "
                "one for each pair"
            )
        drawn = []
        for (a, b), result in zip(in_pairs(pictures), keypoint_matching_output, strict=True):
            ends_a, ends_b, scores = (
                result[name].detach().float().cpu().numpy()
                for name in ("keypoints0", "keypoints1", "matching_scores")
            )
            # Under the exact rules the best match is first, and it is drawn over the others.
            order = slice(None, None, -1 if self.rules == "exact" else 1)
            drawn.append(draw_pair(a, b, ends_a[order], ends_b[order], scores[order]))
        return drawn

    @classmethod
    def _settings_without_file(cls, folder: Path) -> Mapping[str, Any]:
        path = folder / CONFIG_FILE
        config = read_json(path) if is_file(path) else {}
        detector = config.get("keypoint_detector_config")
        if config.get("model_type") != MODEL_TYPE or not isinstance(detector, Mapping):
            return super()._settings_without_file(folder)
        return {"tiepoint": EXACT} if rules_of(detector, path) == "exact" else {}


def _as_transformers(
    images: list[Any], settings: transformers_rules.Preparation, return_tensors: str | None
) -> Any:
    """Images -> B 2 C H W, or a list of pairs of C H W; see `transformers_rules.prepare`."""
    for index, image in enumerate(images):
        if not isinstance(image, str | Image.Image) and getattr(image, "ndim", 3) != 3:
            raise ImageError(
                f"item {index} of {len(images)}: an array of shape {tuple(image.shape)}: "
                "transformers' rules take C H W or H W C; give a grey image one channel, "
                "array[None]"
            )
    pixels = transformers_rules.prepare(images, settings, None)
    if return_tensors is None:
        return [list(pair) for pair in in_pairs(pixels)]
    batch = transformers_rules.stack_equal(pixels, return_tensors)  # 2B C H W
    return batch.reshape(-1, 2, *batch.shape[1:])

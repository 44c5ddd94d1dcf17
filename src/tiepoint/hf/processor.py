"""The guide's processor: images -> inputs for the model, and the model's outputs -> px.

Under the exact rules it adapts `image.read` and `processor`; under transformers' rules `compat`
does the work.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.files import make_folder
from tiepoint.hf import images as guide_images
from tiepoint.hf import transformers_rules
from tiepoint.hf.outputs import BatchFeature, SuperPointKeypointDescriptionOutput, stack
from tiepoint.hf.pretrained import EXACT, Publishable, locate_checkpoint, write_json
from tiepoint.weights.checkpoint import Rules, read_json, rules_of
from tiepoint.weights.hub import PREPROCESSOR_FILE, Token

PROCESSOR_TYPE = "SuperPointImageProcessor"
_KNOWN_TYPES = (PROCESSOR_TYPE, f"{PROCESSOR_TYPE}Pil", f"{PROCESSOR_TYPE}Fast")


class SuperPointImageProcessor(Publishable):
    """Turns images into the model's inputs, and its outputs into px of the images.

    Built in code it follows the exact rules: each image is fitted inside `size`, aspect kept,
    never enlarged, and turned grey; images of different size share a batch, padded, with a mask.
    With `tiepoint=None` it follows transformers 5.23.0, see `docs/transformers_rules.md`.

    Args:
        do_resize: False keeps the native size.
        size: px. `{"height": 480, "width": 640}`, or (height, width); under the exact rules also
            `max_height` and `max_width`, or `longest_edge`; under transformers' rules what
            transformers takes.
        resample: Pillow's number of the filter; the exact rules always average the area.
        do_rescale, rescale_factor: Under transformers' rules values are multiplied by the factor.
            Under the exact rules the type tells the range: 0..255, 0..65535, or floats in 0..1.
        do_grayscale: None is True under the exact rules, which know nothing else, and False
            under transformers'.
        tiepoint: The mark of the exact rules, or None for transformers' rules.

    Further settings of a preprocessor_config.json are kept as attributes and saved again.

    Raises:
        ConfigError: A setting out of range.
    """

    model_input_names = ("pixel_values", "pixel_mask")
    _commit_message = "Upload an image processor with tiepoint"

    def __init__(
        self,
        *,
        do_resize: bool = True,
        size: guide_images.Size | None = None,
        resample: int = 2,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_grayscale: bool | None = None,
        tiepoint: Mapping[str, Any] | None = EXACT,
    ) -> None:
        self.tiepoint = None if tiepoint is None else dict(tiepoint)
        exact = self.rules == "exact"
        self.do_resize = do_resize
        self.size = guide_images.size_dict({"height": 480, "width": 640} if size is None else size)
        self.resample = resample
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.do_grayscale = exact if do_grayscale is None else do_grayscale
        if exact:
            guide_images.box_hw(self.size)
            _require_grey(self.do_grayscale)

    @property
    def rules(self) -> Rules:
        """ "exact" or "transformers"."""
        return rules_of({"tiepoint": self.tiepoint}, Path(PROCESSOR_TYPE))

    def __call__(
        self,
        images: Any,
        *,
        return_tensors: str | None = None,
        do_resize: bool | None = None,
        size: guide_images.Size | None = None,
        resample: int | None = None,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        do_grayscale: bool | None = None,
    ) -> BatchFeature:
        """Images -> inputs for the model.

        Args:
            images: Whatever `tiepoint.Detector` reads, or a list of these, or one array or tensor
                with four axes; under transformers' rules what transformers takes.
            return_tensors: "pt" for torch, "np" for NumPy, None for a list of arrays.
            do_resize, size, resample, do_rescale, rescale_factor, do_grayscale: For this call
                only; None leaves the processor's own.

        Returns:
            `pixel_values`, B 3 H W float32 in 0..1, under the exact rules three equal channels
            and H and W those of the largest image; there also `pixel_mask`, B H W int64, 1 for
            the image and 0 for padding.

        Raises:
            ImageError: An image cannot be read; in a list its index is named.
            ConfigError: A setting out of range.
        """
        settings = transformers_rules.Preparation(
            self.do_resize if do_resize is None else do_resize,
            self.size if size is None else guide_images.size_dict(size),
            self.resample if resample is None else resample,
            self.do_rescale if do_rescale is None else do_rescale,
            self.rescale_factor if rescale_factor is None else rescale_factor,
            self.do_grayscale if do_grayscale is None else do_grayscale,
        )
        if self.rules == "transformers":
            pixel_values = transformers_rules.prepare(images, settings, return_tensors)
            return BatchFeature({"pixel_values": pixel_values})
        _require_grey(settings.do_grayscale)
        box = guide_images.box_hw(settings.size) if settings.do_resize else None
        values, mask = guide_images.prepare(guide_images.read_all(images), box)
        return BatchFeature(
            {
                "pixel_values": stack(values, return_tensors),
                "pixel_mask": stack(mask, return_tensors),
            }
        )

    preprocess = __call__

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
            round: Whole px, int32, instead of float32. Transformers' rules give int32 anyway.

        Returns:
            A dict for each image: `keypoints` N 2 (x, y), `scores` N, `descriptors` N D.

        Raises:
            ConfigError: Not one size for each image.
        """
        keypoints, scores, descriptors, mask = (
            _required(outputs, name) for name in ("keypoints", "scores", "descriptors", "mask")
        )
        if self.rules == "transformers":
            return transformers_rules.post_process(
                keypoints, scores, descriptors, mask, target_sizes
            )
        sizes_wh = _target_sizes(target_sizes, len(mask)).flip(1).to(mask.device)  # B 2
        absolute = keypoints.float() * sizes_wh[:, None] - 0.5  # B N 2
        if round:
            last = (sizes_wh[:, None] - 1).expand_as(absolute)  # B N 2
            absolute = torch.minimum(absolute.round().clamp(min=0), last).int()
        real = mask.bool()
        return [
            {"keypoints": xy[kept], "scores": score[kept], "descriptors": described[kept]}
            for xy, score, described, kept in zip(absolute, scores, descriptors, real, strict=True)
        ]

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | PathLike[str] | None = None,
        *,
        revision: str | None = None,
        token: Token = None,
        cache_dir: str | PathLike[str] | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> SuperPointImageProcessor:
        """The processor of a checkpoint.

        Args:
            name_or_path: A bundled name, a folder, or a Hub id; None for the bundled default.
            revision, token, cache_dir, local_files_only: For a Hub id.
            settings: Replace those of the checkpoint; named as in the constructor. `use_fast`
                is taken and without effect: there is one implementation.

        Raises:
            CheckpointError: Nothing of that name, or no processor's settings there.
            ConfigError: A setting out of range.
        """
        settings.pop("use_fast", None)
        unknown = sorted(set(settings) - _SETTINGS)
        if unknown:
            raise ConfigError(
                f"unknown setting {', '.join(unknown)}; there are {', '.join(sorted(_SETTINGS))}"
            )
        folder = locate_checkpoint(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return cls.from_dict({**_read_settings(folder), **settings})

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> SuperPointImageProcessor:
        """The processor that a parsed preprocessor_config.json describes."""
        kind = settings.get("image_processor_type", PROCESSOR_TYPE)
        if kind not in _KNOWN_TYPES:
            raise CheckpointError(f"image_processor_type is {kind!r}, expected {PROCESSOR_TYPE!r}")
        values = {name: value for name, value in settings.items() if value is not None}
        values.pop("image_processor_type", None)
        known = {name: values.pop(name) for name in _SETTINGS & set(values)}
        made = cls(**{"tiepoint": None, **known})
        vars(made).update(values)
        return made

    def to_dict(self) -> dict[str, Any]:
        """The settings as in preprocessor_config.json."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        return {**values, "image_processor_type": PROCESSOR_TYPE}

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write preprocessor_config.json into a folder, which is made if need be.

        Raises:
            FormatError: It cannot be written.
        """
        write_json(make_folder(folder) / PREPROCESSOR_FILE, self.to_dict())

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.to_dict().items())
        return f"{type(self).__name__}({settings})"


_SETTINGS = set(inspect.signature(SuperPointImageProcessor).parameters)


class AutoImageProcessor:
    """The guide's way to a checkpoint's processor; there is one kind here."""

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str] | None = None, **options: Any
    ) -> SuperPointImageProcessor:
        """See `SuperPointImageProcessor.from_pretrained`."""
        return SuperPointImageProcessor.from_pretrained(name_or_path, **options)


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / PREPROCESSOR_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing, so this checkpoint names no processor; "
            "use SuperPointImageProcessor() for the exact rules' own"
        )
    return read_json(path)


def _require_grey(do_grayscale: bool) -> None:
    if not do_grayscale:
        raise ConfigError(
            "do_grayscale is False: the exact rules always turn images grey; leave it out (in a "
            "checkpoint, take it out of preprocessor_config.json), or build the processor with "
            "tiepoint=None for transformers' rules"
        )


def _required(outputs: SuperPointKeypointDescriptionOutput, name: str) -> Tensor:
    value = getattr(outputs, name, None)
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"outputs is of type {type(outputs).__name__} and {name} in it of type "
            f"{type(value).__name__}, expected what the model returns with return_dict=True"
        )
    return value


def _target_sizes(target_sizes: Any, batch: int) -> Tensor:
    """Any sequence, array or tensor of (height, width) -> B 2 float32."""
    if not isinstance(target_sizes, Tensor):
        try:
            target_sizes = torch.tensor([[float(side) for side in size] for size in target_sizes])
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"target_sizes is {target_sizes!r}, expected one (height, width) for each image"
            ) from error
    if target_sizes.shape != (batch, 2):
        raise ConfigError(
            f"target_sizes has shape {tuple(target_sizes.shape)}, expected ({batch}, 2): one "
            "(height, width) for each image"
        )
    sizes: Tensor = target_sizes.float()
    if not bool((sizes >= 1).all()):
        raise ConfigError(f"target_sizes is {sizes.tolist()}, expected at least 1 px")
    return sizes

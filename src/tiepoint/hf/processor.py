"""The guide's processor: images -> inputs of the model, and its outputs -> px of the images.

The exact rules are those of `hf.inputs`, transformers' rules those of `transformers_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from tiepoint.checks import check_whole, check_within
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.files.paths import is_file
from tiepoint.hf import inputs, transformers_rules
from tiepoint.hf.outputs import BatchFeature, SuperPointKeypointDescriptionOutput, stack
from tiepoint.hf.pretrained import (
    JsonSettings,
    LoadOptions,
    Publishable,
    build,
    locate_checkpoint,
)
from tiepoint.weights.folder import (
    EXACT,
    PREPROCESSOR_FILE,
    PROCESSOR_CLASS,
    PROCESSOR_SIZE,
    Rules,
    read_json,
    rules_of,
    write_files,
)

_KNOWN_TYPES = (PROCESSOR_CLASS, f"{PROCESSOR_CLASS}Pil", f"{PROCESSOR_CLASS}Fast")


class ProcessorOptions(LoadOptions, total=False):
    """Arguments of `from_pretrained`: those of loading, and settings that replace the stored ones.

    Attributes: See `SuperPointImageProcessor`; `use_fast` and `backend` have no effect, because
        there is one implementation.
    """

    do_resize: bool
    size: inputs.Size
    resample: int
    do_rescale: bool
    rescale_factor: float
    do_grayscale: bool | None
    tiepoint: Mapping[str, Any] | None
    use_fast: bool
    backend: str


@dataclass(kw_only=True, eq=False, repr=False)
class SuperPointImageProcessor(JsonSettings, Publishable):
    """Converts images to the model's inputs, and its outputs to px of the images.

    Built in code it follows the exact rules. Each image is downscaled to fit inside `size`, with
    its aspect kept, and converted to grey. Images of different sizes share a padded batch with a
    mask. With `tiepoint=None` it follows transformers 5.23.0; see `docs/compat.md`.

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

    model_input_names: ClassVar = ("pixel_values", "pixel_mask")
    _commit_message = "Upload an image processor with tiepoint"

    do_resize: bool = True
    size: inputs.Size = field(default_factory=lambda: PROCESSOR_SIZE)
    resample: int = 2
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_grayscale: bool | None = None
    tiepoint: Mapping[str, Any] | None = field(default_factory=lambda: EXACT)

    def __post_init__(self) -> None:
        self.tiepoint = None if self.tiepoint is None else dict(self.tiepoint)
        for name, default in _DEFAULTS.items():
            if getattr(self, name) is None:
                setattr(self, name, default)
        self.size = inputs.size_dict(self.size)
        check_whole("resample", self.resample, minimum=0, maximum=5, unit="Pillow's filter")
        check_within("rescale_factor", self.rescale_factor, -1e6, 1e6, "a factor")
        is_exact = self.rules == "exact"
        self.do_grayscale = is_exact if self.do_grayscale is None else self.do_grayscale
        if is_exact:
            inputs.box_hw(self.size)
            _require_grey(self.do_grayscale)

    @property
    def rules(self) -> Rules:
        """ "exact" or "transformers"."""
        return rules_of({"tiepoint": self.tiepoint}, Path(PROCESSOR_CLASS))

    def __call__(
        self,
        images: Any,
        *,
        return_tensors: str | None = None,
        do_resize: bool | None = None,
        size: inputs.Size | None = None,
        resample: int | None = None,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        do_grayscale: bool | None = None,
    ) -> BatchFeature:
        """Images -> inputs of the model.

        Args:
            images: Any source that `tiepoint.Detector` reads, a list of these, or one array or
                tensor with four axes; under transformers' rules those of transformers.
            return_tensors: "pt" for torch, "np" for NumPy, None for a list of arrays.
            do_resize, size, resample, do_rescale, rescale_factor, do_grayscale: Settings of this
                call; None is the processor's own.

        Returns:
            `pixel_values`, B 3 H W float32 in 0..1. Under the exact rules its three channels are
            equal, H and W are those of the largest image, and there is also `pixel_mask`, B H W
            int64, 1 for the image and 0 for padding.

        Raises:
            ImageError: An image cannot be read; in a list the error names its index.
            ConfigError: A setting out of range.
        """
        settings = transformers_rules.Preparation(
            self.do_resize if do_resize is None else do_resize,
            inputs.size_dict(self.size if size is None else size),
            self.resample if resample is None else resample,
            self.do_rescale if do_rescale is None else do_rescale,
            self.rescale_factor if rescale_factor is None else rescale_factor,
            bool(self.do_grayscale if do_grayscale is None else do_grayscale),
        )
        if self.rules == "transformers":
            pixel_values = transformers_rules.prepare(images, settings, return_tensors)
            return BatchFeature({"pixel_values": pixel_values})
        _require_grey(settings.do_grayscale)
        box = inputs.box_hw(settings.size) if settings.do_resize else None
        values, mask = inputs.prepare(inputs.read_all(images), box)
        pixel_values, pixel_mask = stack(values, return_tensors), stack(mask, return_tensors)
        return BatchFeature({"pixel_values": pixel_values, "pixel_mask": pixel_mask})

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
            round: Whole px, int32, instead of float32; transformers' rules always return int32.

        Returns:
            A dict for each image: `keypoints` N 2 (x, y), `scores` N, `descriptors` N D.

        Raises:
            ConfigError: Not one size for each image.
        """
        keypoints, scores, descriptors, mask = (
            _required(outputs, name) for name in ("keypoints", "scores", "descriptors", "mask")
        )
        if self.rules == "transformers":
            absolute = transformers_rules.absolute_xy(keypoints, target_sizes)
        else:
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
        cls, name_or_path: str | PathLike[str] | None = None, **options: Unpack[ProcessorOptions]
    ) -> SuperPointImageProcessor:
        """Load the processor of a checkpoint.

        Args:
            name_or_path: A bundled name, a folder, or a Hub id; None is the bundled default.
            options: Arguments of the Hub, see `HubOptions`, and settings that replace those of the
                checkpoint.

        Raises:
            CheckpointError: Nothing of that name, or no processor's settings there.
            ConfigError: A setting out of range, or an unknown one.
        """
        options.pop("use_fast", None)
        options.pop("backend", None)
        folder, settings = locate_checkpoint(name_or_path, options, _SETTINGS)
        path = folder / PREPROCESSOR_FILE
        if not is_file(path):
            raise CheckpointError(
                f"{path}: missing, so this checkpoint has no processor; "
                "use SuperPointImageProcessor() for the exact rules' own"
            )
        try:
            return cls.from_dict({**read_json(path), **settings})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> SuperPointImageProcessor:
        """Build the processor that a parsed preprocessor_config.json describes.

        Raises:
            CheckpointError: Another type of processor, or unknown rules.
            ConfigError: A setting out of range.
        """
        kind = settings.get("image_processor_type", PROCESSOR_CLASS)
        if kind not in _KNOWN_TYPES:
            raise CheckpointError(f"image_processor_type is {kind!r}, expected {PROCESSOR_CLASS!r}")
        values = {name: value for name, value in settings.items() if value is not None}
        values.pop("image_processor_type", None)
        known = {name: values.pop(name) for name in _SETTINGS & set(values)}
        return build(cls, {"tiepoint": None, **known}, values)

    def to_dict(self) -> dict[str, Any]:
        """The settings as in preprocessor_config.json."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        return {**values, "image_processor_type": PROCESSOR_CLASS}

    def save_pretrained(self, folder: str | PathLike[str]) -> list[str]:
        """Write preprocessor_config.json into a new or existing folder; may raise OutputError.

        Returns:
            The path of the file, in a list as in transformers.
        """
        write_files(folder, {PREPROCESSOR_FILE: self.to_dict()}, sort_keys=True)
        return [str(Path(folder) / PREPROCESSOR_FILE)]

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.to_dict().items())
        return f"{type(self).__name__}({settings})"


_SETTINGS = frozenset(SuperPointImageProcessor.__dataclass_fields__)
_DEFAULTS = {
    "size": PROCESSOR_SIZE,
    **{
        f.name: f.default
        for f in fields(SuperPointImageProcessor)
        if isinstance(f.default, int | float)
    },
}
"""Values of settings that are None in a constructor or a file."""


class AutoImageProcessor:
    """Loads the processor of a checkpoint, as the guide does; there is one type."""

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str] | None = None, **options: Unpack[ProcessorOptions]
    ) -> SuperPointImageProcessor:
        """See `SuperPointImageProcessor.from_pretrained`."""
        return SuperPointImageProcessor.from_pretrained(name_or_path, **options)


def _require_grey(do_grayscale: bool) -> None:
    if not do_grayscale:
        raise ConfigError(
            "do_grayscale is False: the exact rules always convert to grey; leave it out (in a "
            "checkpoint, remove it from preprocessor_config.json), or build the processor with "
            "tiepoint=None for transformers' rules"
        )


def _required(outputs: SuperPointKeypointDescriptionOutput, name: str) -> Tensor:
    value = getattr(outputs, name, None)
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"outputs is of type {type(outputs).__name__} and its {name} of type "
            f"{type(value).__name__}, expected the model's output with return_dict=True"
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

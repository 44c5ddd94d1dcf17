"""The part that the guides' processors share: settings, their file, and images -> pixel values.

The exact rules are those of `hf.inputs`, transformers' rules those of `transformers_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiepoint.checks import check_whole, check_within, shown
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.files.paths import is_file
from tiepoint.hf import inputs, transformers_rules
from tiepoint.hf.outputs import BatchFeature, ModelOutput
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
    PROCESSOR_SIZE,
    Rules,
    read_json,
    rules_of,
    write_files,
)


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
class KeypointImageProcessor(JsonSettings, Publishable):
    """Base of the processors; `SuperPointImageProcessor` describes the settings.

    Unknown settings of a preprocessor_config.json become attributes and are saved again.
    """

    type_name: ClassVar[str]
    """`image_processor_type` in preprocessor_config.json: the name in transformers."""
    grey_as_transformers: ClassVar[bool]
    """Default of `do_grayscale` in transformers."""
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
        default_grey = is_exact or self.grey_as_transformers
        self.do_grayscale = default_grey if self.do_grayscale is None else self.do_grayscale
        if is_exact:
            inputs.box_hw(self.size)
            _require_grey(self.do_grayscale)

    @property
    def rules(self) -> Rules:
        """ "exact" or "transformers"."""
        return rules_of({"tiepoint": self.tiepoint}, Path(self.type_name))

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
            images: See the class.
            return_tensors: "pt" for torch, "np" for NumPy, None for a list of arrays.
            do_resize, size, resample, do_rescale, rescale_factor, do_grayscale: Settings of this
                call; None is the processor's own.

        Returns:
            `pixel_values`, and under the exact rules `pixel_mask`; see the class.

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
        if self.rules == "exact":
            _require_grey(settings.do_grayscale)
        return self._prepare(images, settings, return_tensors)

    preprocess = __call__

    def _prepare(
        self, images: Any, settings: transformers_rules.Preparation, return_tensors: str | None
    ) -> BatchFeature:
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str] | None = None, **options: Unpack[ProcessorOptions]
    ) -> Self:
        """Load the processor of a checkpoint.

        Args:
            name_or_path: A bundled name, a folder, or a Hub id; None is the bundled default.
            options: Arguments of the Hub, see `HubOptions`, and settings that replace those of the
                checkpoint.

        Raises:
            CheckpointError: Nothing of that name, or no processor's settings there.
            ConfigError: A setting out of range, or an unknown one.
        """
        return cls.in_folder(*locate_processor(name_or_path, options))

    @classmethod
    def in_folder(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        """The processor of a folder, with settings that replace the stored ones."""
        path = folder / PREPROCESSOR_FILE
        stored = read_json(path) if is_file(path) else cls._settings_without_file(folder)
        try:
            return cls.from_dict({**stored, **settings})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def _settings_without_file(cls, folder: Path) -> Mapping[str, Any]:
        """The settings of a folder that has no preprocessor_config.json."""
        raise CheckpointError(
            f"{folder / PREPROCESSOR_FILE}: missing, so this checkpoint has no processor; "
            f"use {cls.__name__}() for the exact rules' own"
        )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Build the processor that a parsed preprocessor_config.json describes.

        Raises:
            CheckpointError: Another type of processor, or unknown rules.
            ConfigError: A setting out of range.
        """
        kind = settings.get("image_processor_type", cls.type_name)
        if not cls.is_type(kind):
            raise CheckpointError(
                f"image_processor_type is {shown(kind)}, expected {cls.type_name!r}"
            )
        values = {name: value for name, value in settings.items() if value is not None}
        values.pop("image_processor_type", None)
        known = {name: values.pop(name) for name in _SETTINGS & set(values)}
        return build(cls, {"tiepoint": None, **known}, values)

    @classmethod
    def is_type(cls, name: object) -> bool:
        """Whether this class has the settings of an `image_processor_type`."""
        return name in (cls.type_name, f"{cls.type_name}Pil", f"{cls.type_name}Fast")

    def to_dict(self) -> dict[str, Any]:
        """The settings as in preprocessor_config.json."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        return {**values, "image_processor_type": self.type_name}

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


_SETTINGS = frozenset(KeypointImageProcessor.__dataclass_fields__)
_DEFAULTS = {
    "size": PROCESSOR_SIZE,
    **{
        f.name: f.default
        for f in fields(KeypointImageProcessor)
        if isinstance(f.default, int | float)
    },
}
"""Values of settings that are None in a constructor or a file."""


def locate_processor(
    name_or_path: str | PathLike[str] | None, options: Mapping[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """The folder that `from_pretrained` names, and the given settings; see `locate_checkpoint`."""
    without_effect = ("use_fast", "backend")
    given = {name: value for name, value in options.items() if name not in without_effect}
    return locate_checkpoint(name_or_path, given, _SETTINGS)


def prepare_exact(
    images: Any, settings: transformers_rules.Preparation
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images -> B 3 H W float32 and their mask B H W, by the exact rules."""
    box = inputs.box_hw(settings.size) if settings.do_resize else None
    return inputs.prepare(inputs.read_all(images), box)


def required(outputs: ModelOutput, name: str) -> Tensor:
    """A field of a model's output; ConfigError if there is none."""
    value = getattr(outputs, name, None)
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"outputs is of type {type(outputs).__name__} and its {name} of type "
            f"{type(value).__name__}, expected the model's output with return_dict=True"
        )
    return value


def sizes_of(target_sizes: Any, shape: tuple[int, ...]) -> Tensor:
    """Any nested sequence, array or tensor of (height, width) -> float32.

    Args:
        shape: The expected shape, B 2 for images or B 2 2 for pairs.

    Raises:
        ConfigError: Another shape, or sides below 1 px.
    """
    each = "image" if len(shape) == 2 else "image of each pair"
    if not isinstance(target_sizes, Tensor):
        try:
            target_sizes = torch.tensor(_floats(target_sizes, len(shape)))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"target_sizes is {shown(target_sizes)}, expected one (height, width) for each "
                f"{each}"
            ) from error
    if target_sizes.shape != shape:
        raise ConfigError(
            f"target_sizes has shape {tuple(target_sizes.shape)}, expected {shape}: one "
            f"(height, width) for each {each}"
        )
    sizes: Tensor = target_sizes.float()
    if not bool((sizes >= 1).all()):
        raise ConfigError(f"target_sizes is {sizes.tolist()}, expected at least 1 px")
    return sizes


def _floats(values: Any, depth: int) -> Any:
    """Numbers in lists of lists, `depth` levels."""
    return [_floats(value, depth - 1) for value in values] if depth else float(values)


def to_px(keypoints: Tensor, sizes_wh: Tensor, *, whole: bool) -> Tensor:
    """Relative keypoints of the exact rules -> px of the original images.

    Args:
        keypoints: B N 2 (x, y).
        sizes_wh: B 2 (width, height) px.
        whole: Nearest pixels of the image, int32, instead of float32.
    """
    absolute = keypoints.float() * sizes_wh[:, None] - 0.5  # B N 2
    if not whole:
        return absolute
    last = (sizes_wh[:, None] - 1).expand_as(absolute)  # B N 2
    return torch.minimum(absolute.round().clamp(min=0), last).int()


def _require_grey(do_grayscale: bool) -> None:
    if not do_grayscale:
        raise ConfigError(
            "do_grayscale is False: the exact rules always convert to grey; leave it out (in a "
            "checkpoint, remove it from preprocessor_config.json), or build the processor with "
            "tiepoint=None for transformers' rules"
        )

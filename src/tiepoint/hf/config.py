"""The config of a detector: widths and detection settings, in transformers' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, Unpack

import torch

from tiepoint.architecture import NetworkConfig
from tiepoint.checks import check_within
from tiepoint.config import DetectionConfig
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.hf.pretrained import (
    JsonSettings,
    LoadOptions,
    Publishable,
    as_dtype,
    build,
    locate_checkpoint,
)
from tiepoint.weights.folder import (
    CONFIG_FILE,
    EXACT,
    INITIALIZER_RANGE,
    Rules,
    detection_config,
    network_config,
    read_json,
    rules_of,
    write_files,
)

Parsed = TypeVar("Parsed")


class ConfigOptions(LoadOptions, total=False):
    """Arguments of `from_pretrained`: those of loading, and settings that replace the stored ones.

    Attributes: See `SuperPointConfig`.
    """

    encoder_hidden_sizes: Sequence[int]
    decoder_hidden_size: int
    keypoint_decoder_dim: int
    descriptor_decoder_dim: int
    keypoint_threshold: float
    max_keypoints: int
    nms_radius: int
    border_removal_distance: int
    initializer_range: float
    output_hidden_states: bool
    return_dict: bool
    tiepoint: Mapping[str, Any] | None


@dataclass(kw_only=True, eq=False, repr=False)
class ModelConfig(JsonSettings, Publishable):
    """Reading and writing of config.json, for a dataclass of settings in transformers' names.

    Unknown keys of a config.json become attributes and are saved again.
    """

    model_type: ClassVar[str]
    _commit_message = "Upload a config with tiepoint"
    _left_out: ClassVar[Mapping[str, Any]] = {
        "output_hidden_states": False, "return_dict": True, "dtype": None, "tiepoint": None,
    }  # fmt: skip
    """Settings that config.json leaves out if they have this value."""
    _left_out_means: ClassVar[Mapping[str, Any]] = {"tiepoint": None}
    """Settings that mean something else than the class's default if config.json has none."""

    output_hidden_states: bool = False
    return_dict: bool = True
    dtype: torch.dtype | str | None = None
    tiepoint: Mapping[str, Any] | None = None

    @classmethod
    def _load(
        cls,
        name_or_path: str | PathLike[str] | None,
        dtype: torch.dtype | str | None,
        options: Mapping[str, object],
    ) -> Self:
        folder, settings = locate_checkpoint(name_or_path, options, setting_names(cls))
        if dtype is not None:
            settings["dtype"] = dtype
        path = cls.place(folder) / CONFIG_FILE
        try:
            return cls.from_dict({**read_json(path), **settings})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def place(cls, folder: Path) -> Path:
        """The folder of this kind of model in that of a checkpoint."""
        return folder

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Build the config that a parsed config.json describes.

        Raises:
            ConfigError: It describes another kind of model, or a setting is out of range.
        """
        values = dict(settings)
        kind = values.pop("model_type", cls.model_type)
        if kind != cls.model_type:
            raise ConfigError(f"model_type is {kind!r}, expected {cls.model_type!r}")
        former_name = values.pop("torch_dtype", None)
        if former_name is not None:
            values.setdefault("dtype", former_name)
        names = setting_names(cls)
        known = {name: values.pop(name) for name in names & set(values)}
        return build(cls, {**cls._left_out_means, **known}, values)

    def to_dict(self) -> dict[str, Any]:
        """The settings as in config.json, without defaults that such files leave out."""
        values = {**vars(self), "model_type": self.model_type}
        values["dtype"] = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        left_out = self._left_out
        return {k: v for k, v in values.items() if k not in left_out or v != left_out[k]}

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write config.json into a new or existing folder; may raise OutputError."""
        write_files(folder, {CONFIG_FILE: self.to_dict()}, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment] # settings may change

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


def setting_names(config_class: type[ModelConfig]) -> frozenset[str]:
    """Names of the settings that a dataclass of settings has."""
    return frozenset(each.name for each in fields(config_class))


@dataclass(kw_only=True, eq=False, repr=False)
class SuperPointConfig(ModelConfig):
    """The contents of a SuperPoint checkpoint's config.json.

    Built in code it follows the exact rules; with `tiepoint=None`, transformers' rules. Unknown
    keys of a config.json become attributes and are saved again.

    Args:
        encoder_hidden_sizes: Channels of the four encoder blocks.
        decoder_hidden_size: Channels between the two layers of each head.
        keypoint_decoder_dim: Always 65.
        descriptor_decoder_dim: Descriptor length D.
        keypoint_threshold: Probability that a keypoint must exceed, 0..1.
        max_keypoints: Number of best keypoints to keep per image; -1 keeps all.
        nms_radius: NMS radius, px of the input.
        border_removal_distance: Least distance of a keypoint from the borders, px of the input.
        initializer_range: Standard deviation of a new model's random weights.
        output_hidden_states: Whether the model returns them, unless a call overrides it.
        return_dict: Whether the model returns its output class, unless a call overrides it.
        dtype: Type of the loaded weights, a torch.dtype or its name; None is the file's.
        tiepoint: Mark of the exact rules, or None for transformers' rules.

    Raises:
        ConfigError: A setting out of range.
    """

    model_type: ClassVar = "superpoint"

    encoder_hidden_sizes: Sequence[int] = NetworkConfig.encoder_hidden_sizes
    decoder_hidden_size: int = NetworkConfig.decoder_hidden_size
    keypoint_decoder_dim: int = NetworkConfig.keypoint_decoder_dim
    descriptor_decoder_dim: int = NetworkConfig.descriptor_decoder_dim
    keypoint_threshold: float = DetectionConfig.threshold
    max_keypoints: int = -1
    nms_radius: int = DetectionConfig.nms_radius
    border_removal_distance: int = DetectionConfig.border
    initializer_range: float = INITIALIZER_RANGE
    output_hidden_states: bool = False
    return_dict: bool = True
    dtype: torch.dtype | str | None = None
    tiepoint: Mapping[str, Any] | None = field(default_factory=lambda: EXACT)

    def __post_init__(self) -> None:
        self.encoder_hidden_sizes = list(self.encoder_hidden_sizes)
        self.tiepoint = None if self.tiepoint is None else dict(self.tiepoint)
        self.dtype = None if self.dtype in (None, "auto") else as_dtype(self.dtype)
        self.network()
        check_within("initializer_range", self.initializer_range, 0, 1000, "a deviation")
        if self.rules == "exact":
            self.detection()

    @property
    def rules(self) -> Rules:
        """`"exact"` or `"transformers"`."""
        return rules_of(vars(self), Path(type(self).__name__))

    def network(self) -> NetworkConfig:
        """The widths; ConfigError if they make no network."""
        return self._parsed(network_config)

    def detection(self) -> DetectionConfig:
        """The detection settings under the exact rules; ConfigError if one is out of range.

        The noise floor is 0, because the guide's only limit of scores is `keypoint_threshold`.
        """
        return replace(self._parsed(detection_config), noise_floor=0.0)

    def _parsed(self, parse: Callable[[Mapping[str, Any], Path], Parsed]) -> Parsed:
        try:
            return parse(vars(self), Path(type(self).__name__))
        except CheckpointError as error:
            raise ConfigError(str(error)) from error

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | PathLike[str] | None = None,
        *,
        dtype: torch.dtype | str | None = None,
        **options: Unpack[ConfigOptions],
    ) -> SuperPointConfig:
        """Load the config of a checkpoint; like the model's `from_pretrained`."""
        return cls._load(name_or_path, dtype, options)

"""The guide's config: the network's widths and what counts as a keypoint, in its own names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from tiepoint.architecture import NetworkConfig
from tiepoint.config import DetectionConfig
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.files import make_folder
from tiepoint.hf.pretrained import EXACT, locate_checkpoint, write_json
from tiepoint.weights.checkpoint import Rules, detection_config, network_config, read_json, rules_of
from tiepoint.weights.hub import CONFIG_FILE, Token


class SuperPointConfig:
    """What a SuperPoint checkpoint's config.json says.

    Built in code it follows the exact rules; with `tiepoint=None`, transformers' rules. Further
    keys of a config.json are kept as attributes and saved again.

    Args:
        encoder_hidden_sizes: Channels of the four encoder blocks.
        decoder_hidden_size: Channels between the two layers of each head.
        keypoint_decoder_dim: Always 65.
        descriptor_decoder_dim: Descriptor length D.
        keypoint_threshold: A keypoint's probability must exceed this, 0..1.
        max_keypoints: Keep the best so many of each image; -1 keeps all.
        nms_radius: px of the input.
        border_removal_distance: No keypoint nearer than this to a border, px of the input.
        initializer_range: Standard deviation of a new model's random weights.
        output_hidden_states: Whether the model returns them when a call does not say.
        return_dict: Whether the model returns its output class when a call does not say.
        dtype: The type that weights are loaded in, as "float32"; None takes the file's.
        tiepoint: The mark of the exact rules, or None for transformers' rules.

    Raises:
        ConfigError: A setting out of range.
    """

    model_type = "superpoint"

    def __init__(
        self,
        *,
        encoder_hidden_sizes: Sequence[int] = (64, 64, 128, 128),
        decoder_hidden_size: int = 256,
        keypoint_decoder_dim: int = 65,
        descriptor_decoder_dim: int = 256,
        keypoint_threshold: float = 0.005,
        max_keypoints: int = -1,
        nms_radius: int = 4,
        border_removal_distance: int = 4,
        initializer_range: float = 0.02,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        dtype: str | None = None,
        tiepoint: Mapping[str, Any] | None = EXACT,
    ) -> None:
        self.encoder_hidden_sizes = list(encoder_hidden_sizes)
        self.decoder_hidden_size = decoder_hidden_size
        self.keypoint_decoder_dim = keypoint_decoder_dim
        self.descriptor_decoder_dim = descriptor_decoder_dim
        self.keypoint_threshold = keypoint_threshold
        self.max_keypoints = max_keypoints
        self.nms_radius = nms_radius
        self.border_removal_distance = border_removal_distance
        self.initializer_range = initializer_range
        self.output_hidden_states = output_hidden_states
        self.return_dict = return_dict
        self.dtype = dtype
        self.tiepoint = None if tiepoint is None else dict(tiepoint)
        self.network()
        if self.rules == "exact":
            self.detection()

    @property
    def rules(self) -> Rules:
        """`"exact"` or `"transformers"`."""
        return rules_of(vars(self), Path(type(self).__name__))

    def network(self) -> NetworkConfig:
        """The widths.

        Raises:
            ConfigError: They make no network.
        """
        try:
            return network_config(vars(self), Path(type(self).__name__))
        except CheckpointError as error:
            raise ConfigError(str(error)) from error

    def detection(self) -> DetectionConfig:
        """What counts as a keypoint under the exact rules.

        Raises:
            ConfigError: A setting out of range.
        """
        try:
            return detection_config(vars(self), Path(type(self).__name__))
        except CheckpointError as error:
            raise ConfigError(str(error)) from error

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
    ) -> SuperPointConfig:
        """The config of a checkpoint; the arguments are those of the model's `from_pretrained`.

        Raises:
            CheckpointError: Nothing of that name, or no readable config there.
            ConfigError: A setting out of range, or an unknown one.
        """
        folder = locate_checkpoint(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return cls.read(folder, **settings)

    @classmethod
    def read(cls, folder: Path, **settings: Any) -> SuperPointConfig:
        """The config in a checkpoint's folder, some of its settings replaced."""
        unknown = sorted(set(settings) - _SETTINGS)
        if unknown:
            raise ConfigError(
                f"unknown setting {', '.join(unknown)}; there are {', '.join(sorted(_SETTINGS))}"
            )
        return cls.from_dict({**read_json(folder / CONFIG_FILE), **settings})

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> SuperPointConfig:
        """The config that a parsed config.json describes.

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
        known = {name: values.pop(name) for name in _SETTINGS & set(values)}
        made = cls(**{"tiepoint": None, **known})
        vars(made).update(values)
        return made

    def to_dict(self) -> dict[str, Any]:
        """The settings as in config.json, without defaults that such files leave out."""
        values = {**vars(self), "model_type": self.model_type}
        for name, default in _LEFT_OUT.items():
            if values[name] == default:
                del values[name]
        return values

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write config.json into a folder, which is made if need be.

        Raises:
            FormatError: It cannot be written.
        """
        write_json(make_folder(folder) / CONFIG_FILE, self.to_dict())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SuperPointConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment] # settings may change

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


_SETTINGS = set(inspect.signature(SuperPointConfig).parameters)
_LEFT_OUT: dict[str, Any] = {
    "output_hidden_states": False,
    "return_dict": True,
    "dtype": None,
    "tiepoint": None,
}

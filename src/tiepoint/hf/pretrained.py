"""Loading, saving and publishing, shared by the guides' models, configs and processors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, Unpack, cast

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.files.paths import is_folder
from tiepoint.files.writing import write_bytes
from tiepoint.weights.checkpoint import bundled_checkpoints, locate
from tiepoint.weights.folder import CONFIG_FILE, WEIGHTS_FILE, read_json, write_files
from tiepoint.weights.hub import HubOptions, PushOptions, push

Built = TypeVar("Built")

DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in ("float64", "float32", "float16", "bfloat16")
}

_IN_FILE = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class LoadOptions(HubOptions, total=False):
    """Arguments of `from_pretrained` that find a checkpoint.

    Attributes:
        subfolder: Folder inside a local or bundled checkpoint's folder; not for Hub ids.
    """

    subfolder: str


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """A type of weights by its name in torch; ConfigError if there is none."""
    known = DTYPES.get(str(dtype).removeprefix("torch."))
    if known is None:
        raise ConfigError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}, or 'auto'")
    return known


def load_dtype(folder: Path, *choices: torch.dtype | str | None) -> torch.dtype:
    """The type of a model's weights: the first choice that is one, or else that of the file."""
    chosen = next((d for d in choices if d not in (None, "auto")), None)
    return as_dtype(_dtype_in(folder / WEIGHTS_FILE) if chosen is None else chosen)


def _dtype_in(path: Path) -> str:
    """Type of the tensors in a verified file."""
    with safe_open(path, framework="pt") as file:
        first = next(iter(file.keys()))
        return _IN_FILE[file.get_slice(first).get_dtype()]


def load_device(
    device: torch.device | str | None, device_map: torch.device | str | None
) -> torch.device | str | None:
    """The device that one of the two arguments of `from_pretrained` names; None is the CPU."""
    if device is not None and device_map is not None:
        raise ConfigError("device and device_map are both given, expected one of them")
    if isinstance(device_map, dict):
        raise ConfigError(
            f"device_map is {device_map}, expected one device: the network is not split"
        )
    if device_map == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device if device_map is None else device_map


def locate_checkpoint(
    name_or_path: str | PathLike[str] | None,
    options: Mapping[str, object],
    settings: Collection[str],
) -> tuple[Path, dict[str, Any]]:
    """The folder of the checkpoint that `from_pretrained` names, and the given settings.

    Args:
        name_or_path: A bundled name, a folder, or a Hub id; None is the bundled default.
        options: Arguments of the Hub and settings, mixed.
        settings: Names of all settings that the class has.

    Raises:
        CheckpointError: Nothing of that name.
        ConfigError: An unknown setting.
    """
    of_hub = HubOptions.__annotations__
    known = {*of_hub, "subfolder"}
    given = {name: value for name, value in options.items() if name not in known}
    unknown = sorted(set(given) - set(settings))
    if unknown:
        raise ConfigError(
            f"unknown setting {', '.join(unknown)}; there are {', '.join(sorted(settings))}"
        )
    hub = {name: value for name, value in options.items() if name in of_hub}
    checkpoint = "default" if name_or_path is None else name_or_path
    subfolder = str(options.get("subfolder") or "")
    is_local = checkpoint in ("default", *bundled_checkpoints()) or is_folder(Path(checkpoint))
    if subfolder and not is_local:
        raise CheckpointError(
            f"subfolder {subfolder!r} of {checkpoint}: only a local folder has subfolders; "
            "download the repository and give its folder"
        )
    if subfolder:
        return locate(locate(checkpoint) / subfolder, **cast("HubOptions", hub)), given
    return locate(checkpoint, **cast("HubOptions", hub)), given


def build(
    kind: Callable[..., Built], known: Mapping[str, Any], unknown: Mapping[str, Any]
) -> Built:
    """A config or processor of the settings in a file; unknown ones become attributes.

    Raises:
        ConfigError: A setting of the wrong type, or one with the name of a method.
    """
    methods = sorted(name for name in unknown if hasattr(kind, name))
    if methods:
        raise ConfigError(f"unknown setting {', '.join(methods)}, a name that the class needs")
    try:
        built = kind(**known)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"a setting of the wrong type ({error})") from error
    vars(built).update(unknown)
    return built


class JsonSettings:
    """JSON as text and in a file of any name, for a class with `to_dict` and `from_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """The settings as in their file."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Build from the settings in a file."""
        raise NotImplementedError

    def to_json_string(self) -> str:
        """The settings as JSON, as `save_pretrained` writes them."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | PathLike[str]) -> None:
        """Write the settings as JSON to a file of any name; may raise OutputError."""
        write_bytes(json_file_path, self.to_json_string().encode())

    @classmethod
    def from_json_file(cls, json_file: str | PathLike[str]) -> Self:
        """The reverse of `to_json_file`.

        Raises:
            CheckpointError: No such file, or not a JSON object.
            ConfigError: A setting out of range.
        """
        return cls.from_dict(read_json(Path(json_file)))


class Publishable:
    """`push_to_hub` for a class with `save_pretrained`."""

    _commit_message: ClassVar[str | None] = None
    """Default message of an upload; None is that of `hub.push`."""

    def save_pretrained(self, folder: str | PathLike[str]) -> list[str] | None:
        """Write the files into a folder."""
        raise NotImplementedError

    def push_to_hub(self, repo_id: str, **options: Unpack[PushOptions]) -> str:
        """Upload the files of `save_pretrained` to the Hub; like `hub.push`."""
        if options.get("commit_message") is None:
            options["commit_message"] = self._commit_message
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push(folder, repo_id, **options)


class PretrainedModel(nn.Module, Publishable):
    """Habits of transformers' models, for a network with a config."""

    main_input_name = "pixel_values"

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Number of weights; optionally only of those that have gradients."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    def _write(
        self,
        folder: str | PathLike[str],
        settings: Mapping[str, Any],
        dtype: torch.dtype | str,
    ) -> None:
        """Write config.json, stating float32, and model.safetensors in a type."""
        in_file, state = as_dtype(dtype), self.state_dict()
        tensors = {name: state[name].detach().to("cpu", in_file).contiguous() for name in state}
        weights = save(tensors, metadata={"format": "pt"})
        config = {**settings, "dtype": "float32"}
        write_files(folder, {WEIGHTS_FILE: weights, CONFIG_FILE: config}, sort_keys=True)

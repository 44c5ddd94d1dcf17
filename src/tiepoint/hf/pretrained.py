"""Loading, saving and publishing, shared by the guide's model, config and processor."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, Unpack, cast

import torch

from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.files.paths import is_folder
from tiepoint.files.writing import write_bytes
from tiepoint.weights.checkpoint import locate
from tiepoint.weights.folder import read_json
from tiepoint.weights.hub import HubOptions, PushOptions, push

Built = TypeVar("Built")

DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in ("float64", "float32", "float16", "bfloat16")
}


class LoadOptions(HubOptions, total=False):
    """Arguments of `from_pretrained` that find a checkpoint.

    Attributes:
        subfolder: Folder inside a local checkpoint's folder; not for Hub ids.
    """

    subfolder: str


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """A type of weights by its name in torch; ConfigError if there is none."""
    known = DTYPES.get(str(dtype).removeprefix("torch."))
    if known is None:
        raise ConfigError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}, or 'auto'")
    return known


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
    if subfolder and not is_folder(Path(checkpoint)):
        raise CheckpointError(
            f"subfolder {subfolder!r} of {checkpoint}: only a local folder has subfolders; "
            "download the repository and give its folder"
        )
    return locate(Path(checkpoint) / subfolder if subfolder else checkpoint,
                  **cast("HubOptions", hub)), given  # fmt: skip


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

"""Loading from and publishing to the Hub, shared by the guide's model, config and processor."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, TypeVar, Unpack, cast

from tiepoint.errors import ConfigError
from tiepoint.weights.checkpoint import locate
from tiepoint.weights.hub import HubOptions, PushOptions, push

Built = TypeVar("Built")


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
    given = {name: value for name, value in options.items() if name not in of_hub}
    unknown = sorted(set(given) - set(settings))
    if unknown:
        raise ConfigError(
            f"unknown setting {', '.join(unknown)}; there are {', '.join(sorted(settings))}"
        )
    hub = {name: value for name, value in options.items() if name in of_hub}
    checkpoint = "default" if name_or_path is None else name_or_path
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


class Publishable:
    """`push_to_hub` for a class with `save_pretrained`."""

    _commit_message: ClassVar[str | None] = None
    """Default message of an upload; None is that of `hub.push`."""

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write the files into a folder."""
        raise NotImplementedError

    def push_to_hub(self, repo_id: str, **options: Unpack[PushOptions]) -> str:
        """Upload the files of `save_pretrained` to the Hub; like `hub.push`."""
        if options.get("commit_message") is None:
            options["commit_message"] = self._commit_message
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push(folder, repo_id, **options)

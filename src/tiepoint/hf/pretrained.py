"""Saving and publishing, as the guide's model, config and processor share them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from tiepoint.errors import FormatError
from tiepoint.files import write_bytes
from tiepoint.weights.checkpoint import RULES_VERSION, locate
from tiepoint.weights.hub import Token, push

EXACT: Mapping[str, Any] = MappingProxyType({"version": RULES_VERSION, "rules": "exact"})
"""The key "tiepoint" of a config that follows the exact rules."""


def locate_checkpoint(
    name_or_path: str | PathLike[str] | None,
    *,
    revision: str | None,
    token: Token,
    cache_dir: str | PathLike[str] | None,
    local_files_only: bool,
) -> Path:
    """The folder of a checkpoint; None is the bundled default. See `weights.locate`."""
    return locate(
        as_checkpoint(name_or_path),
        revision=revision,
        token=token,
        cache_dir=None if cache_dir is None else Path(cache_dir),
        local_files_only=local_files_only,
    )


def as_checkpoint(name_or_path: str | PathLike[str] | None) -> str | Path:
    """What the functions of `weights` call a checkpoint; only text can be a Hub id."""
    if name_or_path is None:
        return "default"
    return name_or_path if isinstance(name_or_path, str) else Path(name_or_path)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a config file, keys sorted.

    Raises:
        FormatError: It cannot be written, or a value is none of JSON's.
    """
    try:
        text = json.dumps(dict(values), indent=2, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: a setting cannot be written as JSON ({error})") from error
    write_bytes(path, f"{text}\n".encode())


class Publishable:
    """What can be saved into a folder can be uploaded, too."""

    _commit_message: ClassVar[str | None] = None
    """Of an upload without a message of its own; None is that of `hub.push`."""

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write the files into a folder."""
        raise NotImplementedError

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = None,
        token: Token = None,
        revision: str | None = None,
    ) -> str:
        """Upload to the Hub what `save_pretrained` writes; returns the commit's address.

        Args:
            repo_id: "org/name"; made if it does not exist.
            private: Whether a new repository is private; None takes the account's default.
            token: A token, or True or None for the stored one.
            revision: Branch; None is the main one.

        Raises:
            CheckpointError: The Hub refuses or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder))
            return push(
                folder,
                repo_id,
                token=token,
                private=private,
                revision=revision,
                commit_message=commit_message or self._commit_message,
            )

"""The errors that tiepoint raises for a user's mistake; each is a `TiepointError`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any


class TiepointError(Exception):
    """Base of all errors that the caller can correct."""


class ImageError(TiepointError):
    """An image could not be read: missing, not an image, truncated, empty, NaN, wrong type."""


class TooManyPixelsError(ImageError):
    """An image has more pixels than the limit; found by its header, before decoding."""


class UnreachableError(ImageError):
    """A server or disk did not give an image now, and may at the next attempt."""


class CheckpointError(TiepointError):
    """A checkpoint is missing, damaged, or lacks tensors that its config names."""


class ConfigError(TiepointError, ValueError):
    """A setting is out of range or unknown."""


class EngineError(TiepointError):
    """The engine failed on an image, most often because memory ran out."""


class FormatError(TiepointError):
    """A given file or folder is missing, damaged, or of an unknown format."""


class OutputError(TiepointError):
    """A file or folder could not be written; `__cause__` is the OSError, if there is one."""


class RegistrationError(TiepointError, ValueError):
    """Registration failed, or its model cannot answer the request."""


class TrainingError(TiepointError):
    """A training run cannot start or continue, or is not worth continuing."""


def reason_of(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def how_to_install(extra: str) -> str:
    """The commands that install an extra."""
    return f'pip install "tiepoint[{extra}]", or in a clone pip install ".[{extra}]"'


class MissingExtraError(TiepointError, ImportError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra '{extra}', which is not installed: {how_to_install(extra)}"
        )
        self.what = what
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.what, self.extra)


class OpenCvError(TiepointError, ImportError):
    """OpenCV is not installed, or does not load."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"OpenCV cannot be imported ({reason}): pip install opencv-python-headless, or for "
            "windows opencv-python; a missing libGL is not needed by the first"
        )
        self.reason = reason

    def __reduce__(self) -> tuple[type[OpenCvError], tuple[str]]:
        return type(self), (self.reason,)


class MissingProgramError(TiepointError, ImportError):
    """A program that an integration connects to is not installed."""

    def __init__(self, program: str, remedy: str) -> None:
        super().__init__(f"{program} is not installed: {remedy}")
        self.program = program
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[MissingProgramError], tuple[str, str]]:
        return type(self), (self.program, self.remedy)


def import_extra(library: str, what: str, extra: str) -> Any:
    """Import an optional library; MissingExtraError if it is not installed."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise MissingExtraError(what, extra) from error


def is_installed(library: str) -> bool:
    """Whether `import library` would succeed."""
    # An imported module may have no spec, for which find_spec raises.
    return sys.modules.get(library) is not None or importlib.util.find_spec(library) is not None

"""What the adapters share: importing another program, subclassing its class, and its images."""

from __future__ import annotations

import types
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, ImageError, MissingProgramError

if TYPE_CHECKING:
    from tiepoint.detector import Detector


def load_module(name: str, program: str, remedy: str) -> Any:
    """Import a module of another program.

    Args:
        name: Dotted name of the module.
        program: Name of the program, for the error.
        remedy: How to install it, for the error.

    Raises:
        MissingProgramError: The program is not installed. A program that is installed and fails to
            import one of its own dependencies raises its own ImportError.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise MissingProgramError(program, remedy) from error


def subclass(name: str, base: type, module: str, members: Mapping[str, Any]) -> type:
    """A subclass of another program's class, as if a `class` statement in `module` made it."""

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(members, __module__=module, __qualname__=name)

    return types.new_class(name, (base,), {}, fill)


def make_detector(settings: Mapping[str, Any]) -> Detector:
    """A detector from a program's configuration: arguments of `Detector`, and `options`.

    Raises:
        ConfigError: An unknown setting.
    """
    from tiepoint.detector import Detector

    names = ("engine", "device", "precision", "threads")
    arguments = {name: settings[name] for name in names if settings.get(name) is not None}
    options = {**(settings.get("options") or {}), "descriptors": True}
    try:
        return Detector(settings.get("checkpoint") or "default", **arguments, **options)
    except TypeError as error:
        raise ConfigError(f"options {options}: {error}") from error


def as_bytes(image: Any) -> NDArray[np.uint8]:
    """A tensor C H W of values in 0..1 -> H W or H W 3 uint8.

    Eight bits, because programs read them from a file and divide by 255. So the keypoints equal
    those of the file.

    Raises:
        ImageError: Another shape.
    """
    values = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image, np.float32)
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        raise ImageError(f"an image of shape {values.shape}, expected 1 H W or 3 H W")
    pixels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))

"""tiepoint: local keypoints, scores and descriptors from any image.

    >>> import tiepoint
    >>> detector = tiepoint.Detector()
    >>> features = detector("bee.jpg")

Names load on first use, so that `import tiepoint` is quick and imports no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiepoint.alignment import Registration as Registration
    from tiepoint.config import DetectionConfig as DetectionConfig
    from tiepoint.config import MatchingConfig as MatchingConfig
    from tiepoint.config import NetworkConfig as NetworkConfig
    from tiepoint.config import ProcessorConfig as ProcessorConfig
    from tiepoint.config import RegistrationConfig as RegistrationConfig
    from tiepoint.detector import Detector as Detector
    from tiepoint.errors import CheckpointError as CheckpointError
    from tiepoint.errors import ConfigError as ConfigError
    from tiepoint.errors import EngineError as EngineError
    from tiepoint.errors import FormatError as FormatError
    from tiepoint.errors import ImageError as ImageError
    from tiepoint.errors import MissingExtraError as MissingExtraError
    from tiepoint.errors import RegistrationError as RegistrationError
    from tiepoint.errors import TiepointError as TiepointError
    from tiepoint.features import Features as Features
    from tiepoint.features import Matches as Matches
    from tiepoint.formats import load as load
    from tiepoint.formats import load_matches as load_matches
    from tiepoint.formats import save as save
    from tiepoint.formats import save_matches as save_matches
    from tiepoint.image_processing import AutoImageProcessor as AutoImageProcessor
    from tiepoint.image_processing import SuperPointImageProcessor as SuperPointImageProcessor
    from tiepoint.matching import match as match
    from tiepoint.plotting import plot as plot
    from tiepoint.plotting import plot_matches as plot_matches
    from tiepoint.registration import register as register
    from tiepoint.superpoint import SuperPointConfig as SuperPointConfig
    from tiepoint.superpoint import SuperPointForKeypointDetection as SuperPointForKeypointDetection
    from tiepoint.superpoint import (
        SuperPointKeypointDescriptionOutput as SuperPointKeypointDescriptionOutput,
    )
    from tiepoint.warping import warp as warp

__version__ = "0.1.0"

_HOME = {
    "AutoImageProcessor": "image_processing",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DetectionConfig": "config",
    "Detector": "detector",
    "EngineError": "errors",
    "Features": "features",
    "FormatError": "errors",
    "ImageError": "errors",
    "Matches": "features",
    "MatchingConfig": "config",
    "MissingExtraError": "errors",
    "NetworkConfig": "config",
    "ProcessorConfig": "config",
    "Registration": "alignment",
    "RegistrationConfig": "config",
    "RegistrationError": "errors",
    "SuperPointConfig": "superpoint",
    "SuperPointForKeypointDetection": "superpoint",
    "SuperPointImageProcessor": "image_processing",
    "SuperPointKeypointDescriptionOutput": "superpoint",
    "TiepointError": "errors",
    "load": "formats",
    "load_matches": "formats",
    "match": "matching",
    "plot": "plotting",
    "plot_matches": "plotting",
    "save": "formats",
    "save_matches": "formats",
    "register": "registration",
    "warp": "warping",
}

_NEEDS_TORCH = ("superpoint", "image_processing")

# A star import must work without torch, so it leaves the guide's names out.
__all__ = [  # noqa: PLE0604 - all are strings
    *sorted(name for name, home in _HOME.items() if home not in _NEEDS_TORCH),
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tiepoint' has no attribute {name!r}")
    if _HOME[name] in _NEEDS_TORCH:
        _require_torch(name)
    value = getattr(import_module(f"tiepoint.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from tiepoint.extras import is_installed

    # help() and inspect load all that is named here.
    has_torch = is_installed("torch")
    usable = {name for name, home in _HOME.items() if has_torch or home not in _NEEDS_TORCH}
    return sorted({*globals(), *usable})


def _require_torch(name: str) -> None:
    from tiepoint.extras import is_installed

    if not is_installed("torch"):
        from tiepoint.errors import MissingExtraError

        raise MissingExtraError(f"tiepoint.{name}", "torch")

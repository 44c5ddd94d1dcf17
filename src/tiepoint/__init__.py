"""tiepoint: local keypoints, scores and descriptors from any image.

    >>> import tiepoint
    >>> detector = tiepoint.Detector()
    >>> features = detector("bee.jpg")

The way of the data: images -> network -> keypoints -> matching -> registration. The packages
follow it; docs/architecture.md describes them.

Names load on first use, so that `import tiepoint` is quick and imports no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tiepoint._version import __version__

if TYPE_CHECKING:
    from tiepoint.architecture import NetworkConfig as NetworkConfig
    from tiepoint.config import DetectionConfig as DetectionConfig
    from tiepoint.config import MatchingConfig as MatchingConfig
    from tiepoint.config import ProcessorConfig as ProcessorConfig
    from tiepoint.config import RegistrationConfig as RegistrationConfig
    from tiepoint.config import TrackingConfig as TrackingConfig
    from tiepoint.detector import Detector as Detector
    from tiepoint.errors import CheckpointError as CheckpointError
    from tiepoint.errors import ConfigError as ConfigError
    from tiepoint.errors import EngineError as EngineError
    from tiepoint.errors import FormatError as FormatError
    from tiepoint.errors import ImageError as ImageError
    from tiepoint.errors import MissingExtraError as MissingExtraError
    from tiepoint.errors import OutputError as OutputError
    from tiepoint.errors import RegistrationError as RegistrationError
    from tiepoint.errors import TiepointError as TiepointError
    from tiepoint.features import Features as Features
    from tiepoint.features import Matches as Matches
    from tiepoint.formats import load as load
    from tiepoint.formats import load_matches as load_matches
    from tiepoint.formats import save as save
    from tiepoint.formats import save_matches as save_matches
    from tiepoint.hf.auto import AutoImageProcessor as AutoImageProcessor
    from tiepoint.hf.auto import AutoModelForKeypointMatching as AutoModelForKeypointMatching
    from tiepoint.hf.matching_model import LightGlueConfig as LightGlueConfig
    from tiepoint.hf.matching_model import (
        LightGlueForKeypointMatching as LightGlueForKeypointMatching,
    )
    from tiepoint.hf.matching_model import (
        LightGlueKeypointMatchingOutput as LightGlueKeypointMatchingOutput,
    )
    from tiepoint.hf.matching_processor import LightGlueImageProcessor as LightGlueImageProcessor
    from tiepoint.hf.model import SuperPointConfig as SuperPointConfig
    from tiepoint.hf.model import SuperPointForKeypointDetection as SuperPointForKeypointDetection
    from tiepoint.hf.model import (
        SuperPointKeypointDescriptionOutput as SuperPointKeypointDescriptionOutput,
    )
    from tiepoint.hf.processor import SuperPointImageProcessor as SuperPointImageProcessor
    from tiepoint.images.samples import sample_views as sample_views
    from tiepoint.integrations.opencv import OpenCVFeature as OpenCVFeature
    from tiepoint.matching.match import match as match
    from tiepoint.plotting import plot as plot
    from tiepoint.plotting import plot_matches as plot_matches
    from tiepoint.registration.large.register import register_large as register_large
    from tiepoint.registration.large.result import LargeRegistration as LargeRegistration
    from tiepoint.registration.register import register as register
    from tiepoint.registration.result import Registration as Registration
    from tiepoint.registration.stitching.stitch import Panorama as Panorama
    from tiepoint.registration.stitching.stitch import stitch as stitch
    from tiepoint.registration.warping import warp as warp
    from tiepoint.tiles.detection import detect_tiled as detect_tiled
    from tiepoint.tracking.result import TrackedFrame as TrackedFrame
    from tiepoint.tracking.track import track as track
    from tiepoint.tracking.tracks_file import load_tracks as load_tracks

_HOME = {
    "AutoImageProcessor": "hf.auto",
    "AutoModelForKeypointMatching": "hf.auto",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DetectionConfig": "config",
    "Detector": "detector",
    "EngineError": "errors",
    "Features": "features",
    "FormatError": "errors",
    "ImageError": "errors",
    "LargeRegistration": "registration.large.result",
    "LightGlueConfig": "hf.matching_model",
    "LightGlueForKeypointMatching": "hf.matching_model",
    "LightGlueImageProcessor": "hf.matching_processor",
    "LightGlueKeypointMatchingOutput": "hf.matching_model",
    "Matches": "features",
    "MatchingConfig": "config",
    "MissingExtraError": "errors",
    "OpenCVFeature": "integrations.opencv",
    "OutputError": "errors",
    "NetworkConfig": "architecture",
    "Panorama": "registration.stitching.stitch",
    "ProcessorConfig": "config",
    "Registration": "registration.result",
    "RegistrationConfig": "config",
    "RegistrationError": "errors",
    "SuperPointConfig": "hf.model",
    "SuperPointForKeypointDetection": "hf.model",
    "SuperPointImageProcessor": "hf.processor",
    "SuperPointKeypointDescriptionOutput": "hf.model",
    "TiepointError": "errors",
    "TrackedFrame": "tracking.result",
    "TrackingConfig": "config",
    "detect_tiled": "tiles.detection",
    "load": "formats",
    "load_matches": "formats",
    "load_tracks": "tracking.tracks_file",
    "match": "matching.match",
    "plot": "plotting",
    "plot_matches": "plotting",
    "sample_views": "images.samples",
    "save": "formats",
    "save_matches": "formats",
    "register": "registration.register",
    "register_large": "registration.large.register",
    "stitch": "registration.stitching.stitch",
    "track": "tracking.track",
    "warp": "registration.warping",
}

_NEEDS_TORCH = (
    "hf.auto", "hf.matching_model", "hf.matching_processor", "hf.model", "hf.processor",
)  # fmt: skip

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
    try:
        value = getattr(import_module(f"tiepoint.{_HOME[name]}"), name)
    except ImportError as error:
        if error.name != "cv2":
            raise
        from tiepoint.errors import OpenCvError

        raise OpenCvError(str(error)) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from tiepoint.errors import is_installed

    # help() and inspect load all that is named here.
    has_torch = is_installed("torch")
    usable = {name for name, home in _HOME.items() if has_torch or home not in _NEEDS_TORCH}
    return sorted({*globals(), *usable})


def _require_torch(name: str) -> None:
    from tiepoint.errors import is_installed

    if not is_installed("torch"):
        from tiepoint.errors import MissingExtraError

        raise MissingExtraError(f"tiepoint.{name}", "torch")

"""Settings with default, unit and range. Each config checks its values when it is created.

The text of a field is also its `--help` on the command line, where `field` becomes `--field`.
Functions with settings take a config, and single settings by keyword that replace its values:
see `resolve`.
"""

from tiepoint.config.basics import (
    DeviceName,
    resolve,
    setting,
)
from tiepoint.config.detection import (
    IN_CHECKPOINT,
    MAX_BORDER_PX,
    MAX_RADIUS_PX,
    MAX_SCALE,
    MAX_SCALES,
    Contrast,
    DescriptorSampling,
    DetectionConfig,
    DetectionOptions,
    EngineName,
    Precision,
    ProcessorConfig,
    resolve_detection,
)
from tiepoint.config.large import LargeConfig, LargeModel, LargeOptions
from tiepoint.config.matching import (
    MIN_TEMPERATURE,
    MatchingConfig,
    MatchingOptions,
    MatchMethod,
    MatchScore,
    PairConfig,
    RotationMode,
)
from tiepoint.config.registration import (
    Model,
    PoseSearch,
    RegistrationConfig,
    RegistrationOptions,
    SurfaceName,
)
from tiepoint.config.tracking import TrackingConfig, TrackingOptions

__all__ = [
    "IN_CHECKPOINT",
    "MAX_BORDER_PX",
    "MAX_RADIUS_PX",
    "MAX_SCALE",
    "MAX_SCALES",
    "MIN_TEMPERATURE",
    "Contrast",
    "DescriptorSampling",
    "DetectionConfig",
    "DetectionOptions",
    "DeviceName",
    "EngineName",
    "LargeConfig",
    "LargeModel",
    "LargeOptions",
    "MatchMethod",
    "MatchScore",
    "MatchingConfig",
    "MatchingOptions",
    "Model",
    "PairConfig",
    "PoseSearch",
    "Precision",
    "ProcessorConfig",
    "RegistrationConfig",
    "RegistrationOptions",
    "RotationMode",
    "SurfaceName",
    "TrackingConfig",
    "TrackingOptions",
    "resolve",
    "resolve_detection",
    "setting",
]

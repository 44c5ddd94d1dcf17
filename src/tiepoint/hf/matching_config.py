"""The config of a learned matcher with its detector, in transformers' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack

import torch

from tiepoint.checks import check_within, shown
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.files.paths import is_file
from tiepoint.hf.config import ModelConfig, SuperPointConfig
from tiepoint.hf.pretrained import LoadOptions, as_dtype
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.folder import (
    DEFAULT_THRESHOLD,
    MODEL_TYPE,
    NEVER,
    TRANSFORMERS_DEFAULTS,
    matcher_config,
    named_detector,
)
from tiepoint.weights.folder import CONFIG_FILE, INITIALIZER_RANGE, MATCHER_FOLDER, Rules

EARLY: Mapping[str, float] = {"depth_confidence": 0.95, "width_confidence": 0.99}
"""transformers' defaults, for a config.json that leaves them out."""
_DERIVED = ("hidden_size", "intermediate_size")
"""Keys that transformers writes and computes again when it loads them."""


class MatchingConfigOptions(LoadOptions, total=False):
    """Arguments of `from_pretrained`: those of loading, and settings that replace the stored ones.

    Attributes: See `LightGlueConfig`.
    """

    keypoint_detector_config: SuperPointConfig | Mapping[str, Any]
    descriptor_dim: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None
    depth_confidence: float
    width_confidence: float
    filter_threshold: float
    initializer_range: float
    hidden_act: str
    attention_dropout: float
    attention_bias: bool
    output_hidden_states: bool
    output_attentions: bool
    return_dict: bool
    tiepoint: Mapping[str, Any] | None


@dataclass(kw_only=True, eq=False, repr=False)
class LightGlueConfig(ModelConfig):
    """The contents of a LightGlue checkpoint's config.json.

    The rules are those of the detector inside: exact, or transformers' if its config lacks the key
    "tiepoint". Unknown keys of a config.json become attributes and are saved again.

    Args:
        keypoint_detector_config: The detector, or its settings as in a config.json. None is
            `SuperPointConfig()`, which follows the exact rules.
        descriptor_dim: Channels of the matcher's states.
        num_hidden_layers: Number of layers.
        num_attention_heads: Attention heads; each has an even number of channels.
        num_key_value_heads: None, or the number of heads.
        depth_confidence, width_confidence: Early stopping and pruning of keypoints in transformers.
            They have no effect: every layer runs on every keypoint, as with 1.0 in transformers.
            Values outside 0..1 mean never and become 1.0.
        filter_threshold: Probability that a match must exceed, 0..1.
        initializer_range: Standard deviation of a new model's random weights.
        hidden_act: Always "gelu".
        attention_dropout: 0..1; no effect, because this class does not train.
        attention_bias: Always True.
        output_hidden_states, output_attentions: Always False; the model refuses True.
        return_dict: Whether the model returns its output class, unless a call overrides it.
        dtype: Type of the loaded weights, a torch.dtype or its name; None is the file's.
        tiepoint: Version and SHA-256 of the detector's weights that the matcher was trained with,
            as `save_matcher` writes them; or None.

    Raises:
        ConfigError: A setting out of range, or a variant that tiepoint does not have.
    """

    model_type: ClassVar = MODEL_TYPE
    _left_out: ClassVar = {**ModelConfig._left_out, "output_attentions": False}
    _left_out_means: ClassVar = {"tiepoint": None, "keypoint_detector_config": {}, **EARLY}

    keypoint_detector_config: SuperPointConfig | Mapping[str, Any] | None = None
    descriptor_dim: int = TRANSFORMERS_DEFAULTS["descriptor_dim"]
    num_hidden_layers: int = TRANSFORMERS_DEFAULTS["num_hidden_layers"]
    num_attention_heads: int = TRANSFORMERS_DEFAULTS["num_attention_heads"]
    num_key_value_heads: int | None = None
    depth_confidence: float = NEVER
    width_confidence: float = NEVER
    filter_threshold: float = DEFAULT_THRESHOLD
    initializer_range: float = INITIALIZER_RANGE
    hidden_act: str = "gelu"
    attention_dropout: float = 0.0
    attention_bias: bool = True
    output_hidden_states: bool = False
    output_attentions: bool = False
    return_dict: bool = True
    dtype: torch.dtype | str | None = None
    tiepoint: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.keypoint_detector_config = _detector_config(self.keypoint_detector_config)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        self.dtype = None if self.dtype in (None, "auto") else as_dtype(self.dtype)
        self.tiepoint = None if self.tiepoint is None else dict(self.tiepoint)
        for name in EARLY:
            confidence = getattr(self, name)
            check_within(name, confidence, -1000, 1000, "a confidence")
            setattr(self, name, confidence if 0 < confidence < NEVER else NEVER)
        check_within("filter_threshold", self.filter_threshold, 0, 1, "a probability")
        check_within("attention_dropout", self.attention_dropout, 0, 1, "a probability")
        check_within("initializer_range", self.initializer_range, 0, 1000, "a deviation")
        self.matcher()

    @property
    def rules(self) -> Rules:
        """`"exact"` or `"transformers"`: the rules of the detector."""
        return self.detector.rules

    @property
    def detector(self) -> SuperPointConfig:
        """`keypoint_detector_config`, which is always a config after construction."""
        assert isinstance(self.keypoint_detector_config, SuperPointConfig)
        return self.keypoint_detector_config

    @property
    def hidden_size(self) -> int:
        """transformers' second name for `descriptor_dim`."""
        return self.descriptor_dim

    @property
    def intermediate_size(self) -> int:
        """Channels between the two maps of each MLP."""
        return 2 * self.descriptor_dim

    def matcher(self) -> MatcherConfig:
        """The sizes of the matcher; ConfigError if they make no network."""
        path, values = Path(type(self).__name__), self.to_dict()
        try:
            named_detector(values, path)
            return matcher_config(values, path)[0]
        except CheckpointError as error:
            raise ConfigError(str(error)) from error

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | PathLike[str] | None = None,
        *,
        dtype: torch.dtype | str | None = None,
        **options: Unpack[MatchingConfigOptions],
    ) -> LightGlueConfig:
        """Load the config of a matcher; like the model's `from_pretrained`."""
        return cls._load(name_or_path, dtype, options)

    @classmethod
    def place(cls, folder: Path) -> Path:
        """A checkpoint may have its matcher in a folder inside."""
        inner = folder / MATCHER_FOLDER
        return inner if is_file(inner / CONFIG_FILE) else folder

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """See `SuperPointConfig.from_dict`."""
        values = {name: value for name, value in settings.items() if name not in _DERIVED}
        if values.get("keypoint_detector_config", {}) is None:
            del values["keypoint_detector_config"]
        return super().from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """The settings as in config.json, without defaults that such files leave out."""
        return {**super().to_dict(), "keypoint_detector_config": self.detector.to_dict()}


def _detector_config(given: SuperPointConfig | Mapping[str, Any] | None) -> SuperPointConfig:
    if given is None:
        return SuperPointConfig()
    if isinstance(given, SuperPointConfig):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"keypoint_detector_config is {shown(given)}, expected a SuperPointConfig or its "
            "settings as a dict"
        )
    try:
        return SuperPointConfig.from_dict(given)
    except ConfigError as error:
        raise ConfigError(f"keypoint_detector_config: {error}") from error

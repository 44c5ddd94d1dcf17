"""Configs: their ranges, their texts, and single settings that replace their values."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from tiepoint.config import (
    MAX_SCALE,
    MIN_TEMPERATURE,
    DetectionConfig,
    DetectionOptions,
    LargeConfig,
    LargeOptions,
    MatchingConfig,
    MatchingOptions,
    MatchScore,
    Model,
    PairConfig,
    ProcessorConfig,
    RegistrationConfig,
    RegistrationOptions,
    RotationMode,
    resolve,
)
from tiepoint.errors import ConfigError

CONFIGS = (
    ProcessorConfig, DetectionConfig, MatchingConfig, PairConfig, RegistrationConfig, LargeConfig,
)  # fmt: skip
FIELDS = [(config, field) for config in CONFIGS for field in fields(config)]


def name_of(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else value.name


@pytest.mark.parametrize("config", CONFIGS)
def test_the_defaults_are_in_range(config: Any) -> None:
    assert config() == config()
    assert pickle.loads(pickle.dumps(config())) == config()


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_cannot_be_changed(config: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(config(), fields(config)[0].name, 1)


@pytest.mark.parametrize(("config", "field"), FIELDS, ids=name_of)
def test_every_field_has_a_text_that_is_a_sentence(config: Any, field: Any) -> None:
    text = field.metadata["help"]
    assert text[0].isupper() or text[0] == "'"
    assert text.endswith(".") and text.split()[0] != "Of" and "  " not in text


@pytest.mark.parametrize(("config", "field"), FIELDS, ids=name_of)
def test_a_number_has_a_placeholder_for_the_command_line(config: Any, field: Any) -> None:
    kind = get_type_hints(config)[field.name]
    if {int, float} & {kind, *get_args(kind)}:
        needs = field.name not in ("max_false_alarms",)
        assert bool(field.metadata["metavar"]) or not needs


@pytest.mark.parametrize(("config", "field"), FIELDS, ids=name_of)
def test_a_text_names_none_if_and_only_if_none_is_a_value_with_a_meaning(
    config: Any, field: Any
) -> None:
    optional = type(None) in get_args(get_type_hints(config)[field.name])
    if "None" in field.metadata["help"]:
        assert optional


@pytest.mark.parametrize(
    ("options", "configs"),
    [
        (DetectionOptions, (ProcessorConfig, DetectionConfig)),
        (MatchingOptions, (MatchingConfig,)),
        (RegistrationOptions, (RegistrationConfig,)),
        (LargeOptions, (LargeConfig,)),
    ],
)
def test_the_keywords_are_the_fields_of_the_configs(options: Any, configs: Any) -> None:
    kinds = {name: kind for config in configs for name, kind in get_type_hints(config).items()}
    keywords = get_type_hints(options)
    assert set(keywords) == set(kinds)
    assert not options.__required_keys__
    for name in set(kinds) - {"scales"}:  # any sequence as a keyword, a tuple in the config
        assert keywords[name] == kinds[name], name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_side": 0}, r"max_side is 0, expected a whole number >= 1 \(px, or None"),
        ({"max_side": 1.5}, "max_side is 1.5"),
        ({"max_side": True}, "max_side is True"),
        ({"max_side": "none"}, "max_side is 'none'"),
    ],
)
def test_a_processor_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProcessorConfig(**settings)


def test_the_smallest_side_and_native_size_are_accepted() -> None:
    assert ProcessorConfig(1).max_side == 1
    assert ProcessorConfig(None).max_side is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": -0.01}, "threshold is -0.01, expected a probability in 0..1"),
        ({"threshold": 1.01}, "threshold is 1.01"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"threshold": "0.5"}, "threshold is '0.5'"),
        ({"noise_floor": -0.01}, "noise_floor is -0.01, expected a probability in 0..1"),
        ({"noise_floor": None}, "noise_floor is None"),
        ({"max_keypoints": 0}, r"max_keypoints is 0, .* \(keypoints, or None for all\)"),
        ({"max_keypoints": -1}, "max_keypoints is -1"),
        ({"max_keypoints": 10.0}, "max_keypoints is 10.0"),
        ({"nms_radius": -1}, r"nms_radius is -1, expected a whole number >= 0 \(px\)"),
        ({"nms_radius": 1.5}, "nms_radius is 1.5"),
        ({"border": -1}, "border is -1"),
        ({"covariance_scale": 0}, "covariance_scale is 0, expected a number above 0"),
        ({"covariance_scale": math.inf}, "covariance_scale is inf"),
        ({"spread": True}, "spread needs max_keypoints"),
        (
            {"spread": True, "max_keypoints": 5, "scales": (1, 0.5)},
            r"spread goes with one scale, got scales \(1.0, 0.5\)",
        ),
        ({"scales": ()}, r"scales is \(\), expected at least one"),
        ({"scales": (1, 1.0)}, "none twice"),
        ({"scales": (0,)}, "scales holds 0, expected numbers above 0, up to 2"),
        ({"scales": (2.1,)}, "scales holds 2.1"),
        ({"scales": (math.nan,)}, "scales holds nan"),
        ({"scales": (True,)}, "scales holds True"),
        ({"scales": "1,0.5"}, "scales is '1,0.5', expected a list of numbers"),
        ({"scales": 1.0}, "scales is 1.0, expected a list"),
    ],
)
def test_detection_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DetectionConfig(**settings)


def test_detection_accepts_the_ends_of_each_range() -> None:
    config = DetectionConfig(
        threshold=1, max_keypoints=1, nms_radius=0, border=0, covariance_scale=1e-9, spread=True,
        scales=(MAX_SCALE,), noise_floor=1,
    )  # fmt: skip
    assert DetectionConfig(threshold=0).threshold == 0
    assert config.scales == (2.0,)


def test_the_higher_one_of_threshold_and_noise_floor_limits_the_scores() -> None:
    assert DetectionConfig(threshold=0.3).min_score == 0.3
    assert DetectionConfig(threshold=0, noise_floor=0.2).min_score == 0.2
    assert DetectionConfig(threshold=0.3, noise_floor=0.2).min_score == 0.3


@pytest.mark.parametrize("scales", [[1, 0.5], (1, 0.5), np.array([1, 0.5]), iter([1, 0.5])])
def test_scales_of_any_sequence_become_a_tuple_of_floats(scales: Any) -> None:
    config = DetectionConfig(scales=scales)
    assert config.scales == (1.0, 0.5)
    assert {type(scale) for scale in config.scales} == {float}
    assert hash(config) == hash(DetectionConfig(scales=(1, 0.5)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0}, "ratio is 0, which no match passes"),
        ({"ratio": 1.1}, "ratio is 1.1, expected a share of the second distance in 0..1"),
        ({"min_similarity": -1.1}, "min_similarity is -1.1, expected a cosine in -1..1"),
        ({"min_probability": 2, "scores": "dual-softmax"}, "min_probability is 2"),
        ({"temperature": 0}, "temperature is 0, expected a temperature in 0.001..1000"),
        ({"scores": "l2"}, "scores is 'l2', expected one of cosine, dual-softmax"),
        ({"rotation": "all"}, "rotation is 'all', expected one of auto, none"),
        ({"rotation": None}, "rotation is None"),
        ({"min_probability": 0.1}, "min_probability needs scores='dual-softmax'"),
        ({"ratio": 0.8, "scores": "dual-softmax"}, "ratio needs scores='cosine'"),
    ],
)
def test_matching_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MatchingConfig(**settings)


def test_matching_accepts_the_ends_of_each_range_and_every_choice() -> None:
    MatchingConfig(ratio=1, min_similarity=-1)
    MatchingConfig(min_similarity=1, temperature=MIN_TEMPERATURE)
    MatchingConfig(scores="dual-softmax", min_probability=0, temperature=1000)
    for score in get_args(MatchScore):
        assert MatchingConfig(scores=score).scores == score
    for rotation in get_args(RotationMode):
        assert MatchingConfig(rotation=rotation).rotation == rotation


def test_a_choice_of_pairs_needs_a_neighbour_at_least() -> None:
    assert PairConfig(window=1, k=1).pairs == "all"
    for name in ("window", "k"):
        with pytest.raises(ConfigError, match=f"{name} is 0, expected a whole number >= 1"):
            replace(PairConfig(), **{name: 0})
    with pytest.raises(ConfigError, match="gps_k is 0, expected a whole number >= 1"):
        PairConfig(gps_k=0)
    with pytest.raises(ConfigError, match="gps_metres is nan, expected a number above 0"):
        PairConfig(gps_metres=float("nan"))
    with pytest.raises(ConfigError, match="expected one of them at least"):
        PairConfig(gps_k=None)
    assert PairConfig(gps_k=None, gps_metres=50.0).gps_k is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "spline"}, "model is 'spline', expected one of homography, affine, similarity"),
        ({"pose_search": "magic"}, "pose_search is 'magic', expected one of opencv, poselib"),
        ({"max_keypoints": 0}, "max_keypoints is 0"),
        ({"max_keypoints": None}, "max_keypoints is None"),
        ({"min_inliers": 0}, r"min_inliers is 0, expected a whole number >= 1 \(matches\)"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"max_false_alarms": 0}, "max_false_alarms is 0, expected a number above 0"),
        ({"max_overlap_sd_px": -1}, "max_overlap_sd_px is -1"),
        ({"threshold_px": 0}, "threshold_px is 0"),
        ({"threshold_px": math.nan}, "threshold_px is nan"),
    ],
)
def test_registration_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegistrationConfig(**settings)


def test_registration_accepts_every_model_and_limits_that_switch_a_check_off() -> None:
    for model in get_args(Model):
        assert RegistrationConfig(model=model).model == model
    config = RegistrationConfig(max_overlap_sd_px=math.inf, max_false_alarms=math.inf)
    assert config.max_overlap_sd_px == math.inf


def test_no_overrides_leave_a_config_as_it_is() -> None:
    config = MatchingConfig(ratio=0.8)
    assert resolve(config, {}) == config


def test_an_override_replaces_one_setting_and_none_is_a_value() -> None:
    config = DetectionConfig(max_keypoints=100, threshold=0.5)
    assert resolve(config, {"threshold": 0.1}) == DetectionConfig(0.1, 100)
    assert resolve(config, {"max_keypoints": None}) == DetectionConfig(0.5, None)
    assert config == DetectionConfig(0.5, 100)


def test_overrides_are_checked_like_the_fields() -> None:
    with pytest.raises(ConfigError, match="seed is -1"):
        resolve(RegistrationConfig(), {"seed": -1})
    with pytest.raises(ConfigError, match="unknown option max_keypoint; there are model, method"):
        resolve(RegistrationConfig(), {"max_keypoint": 5})
    with pytest.raises(ConfigError, match="spread needs max_keypoints"):
        resolve(DetectionConfig(max_keypoints=5, spread=True), {"max_keypoints": None})


def test_numpy_scalars_become_python_numbers() -> None:
    config = resolve(
        DetectionConfig(),
        {"threshold": np.float64(0.25), "max_keypoints": np.int32(7), "descriptors": np.False_},
    )
    assert config == DetectionConfig(0.25, 7, descriptors=False)
    kinds = [type(v) for v in (config.threshold, config.max_keypoints, config.descriptors)]
    assert kinds == [float, int, bool]


def test_configs_are_read_without_numpy() -> None:
    """The command line reads them for `--help`, which has to be fast."""
    source = str(Path(__file__).resolve().parent.parent / "src")
    code = "import sys, tiepoint.config; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, check=True)

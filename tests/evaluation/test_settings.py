"""Settings refuse nonsense; named profiles stay as they were published."""

from __future__ import annotations

from typing import Any

import pytest

from tiepoint.errors import ConfigError
from tiepoint.evaluation.settings import (
    LARGE_SEQUENCES,
    PROFILES,
    FrameSize,
    HomographySettings,
    PoseSettings,
    StereoSettings,
)


@pytest.mark.parametrize("settings", [HomographySettings, PoseSettings, StereoSettings])
@pytest.mark.parametrize("k", [0, -3, 1.5, True, "many", None])
def test_a_number_of_points_that_is_none_is_refused(settings: type[Any], k: object) -> None:
    with pytest.raises(ConfigError, match="k is .*, expected a whole number >= 1"):
        settings(k=k)


@pytest.mark.parametrize("settings", [HomographySettings, PoseSettings])
@pytest.mark.parametrize("seeds", [0, 1.5])
def test_a_number_of_seeds_that_is_none_is_refused(settings: type[Any], seeds: object) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        settings(seeds=seeds)


def test_an_estimator_or_size_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="estimator is 'guess', expected one of refined"):
        HomographySettings(estimator="guess")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="long_side"):
        PoseSettings(long_side=0)


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"long_side": True},
        {"long_side": 0},
        {"short_side": 2.0},
        {"long_side": 1, "short_side": 1},
        {"short_side": 1, "crop_hw": (3, 3)},
        {"crop_hw": (0, 1)},
    ],
)
def test_a_frame_has_exactly_one_size(frame: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="frame|long_side|short_side|crop_hw"):
        FrameSize(**frame)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (FrameSize(long_side=640), "long side 640 px"),
        (FrameSize(short_side=480), "short side 480 px"),
        (FrameSize(crop_hw=(240, 320)), "320x240 px cut out"),
    ],
)
def test_a_frame_reads_as_tables_show_it(frame: FrameSize, text: str) -> None:
    assert str(frame) == text


def test_profiles_are_those_that_were_published() -> None:
    assert list(PROFILES) == ["tiepoint", "classic", "glue-factory"]
    ours, classic, glue = PROFILES.values()
    assert ours == HomographySettings()
    assert (classic.frame.crop_hw, classic.estimator, classic.estimator_px) == (
        (480, 640), "ransac", 3.0,
    )  # fmt: skip
    assert (classic.repeat_k, classic.nms_radius, classic.without_large) == (300, 4, False)
    assert (glue.frame.short_side, glue.k, glue.estimator_px) == (480, 1024, 1.0)
    assert glue.without_large
    assert len(LARGE_SEQUENCES) == 8


def test_settings_are_values() -> None:
    assert HomographySettings(k=5) == HomographySettings(k=5)
    assert len({FrameSize(long_side=3), FrameSize(long_side=3), FrameSize(short_side=3)}) == 2
    with pytest.raises(AttributeError):
        PoseSettings().k = 3  # type: ignore[misc]

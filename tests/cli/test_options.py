"""Options generated from the configs: defaults, texts, and the settings that they give."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from support.commands import commands
from tiepoint import Detector
from tiepoint.cli import options
from tiepoint.config import (
    IN_CHECKPOINT,
    DetectionConfig,
    LargeConfig,
    MatchingConfig,
    Model,
    PairConfig,
    ProcessorConfig,
    RegistrationConfig,
    TrackingConfig,
    setting,
)
from tiepoint.errors import ConfigError

DETECTION = {"max_side", "scales", "phases", "max_keypoints", "threshold", "nms_radius", "spread"}
OFFERED = {
    "detect": {
        ProcessorConfig: {"max_side", "contrast"},
        DetectionConfig: DETECTION - {"max_side"} | {"descriptors"},
    },
    "match": {
        ProcessorConfig: {"max_side", "contrast"},
        DetectionConfig: DETECTION - {"max_side"},
        MatchingConfig: {field.name for field in fields(MatchingConfig)},
        PairConfig: {field.name for field in fields(PairConfig)},
    },
    "register": {
        ProcessorConfig: {"max_side", "contrast"},
        DetectionConfig: {"scales", "phases"},
        RegistrationConfig: {
            "model", "method", "layers", "max_keypoints", "threshold_px", "min_inliers", "guided",
            "seed",
        },
    },
    "stitch": {
        ProcessorConfig: {"max_side", "contrast"},
        DetectionConfig: {"scales", "phases"},
        RegistrationConfig: {
            "method", "layers", "max_keypoints", "threshold_px", "min_inliers", "guided", "seed",
        },
    },
    "track": {
        ProcessorConfig: {"max_side", "contrast"},
        DetectionConfig: DETECTION - {"max_side", "spread"},
        TrackingConfig: {field.name for field in fields(TrackingConfig)},
    },
    "register-large": {
        ProcessorConfig: {"contrast"},
        DetectionConfig: {"phases"},
        LargeConfig: {field.name for field in fields(LargeConfig)},
    },
}  # fmt: skip
"""Settings that each command offers, by config."""

CASES = [
    (command, config, name)
    for command, configs in OFFERED.items()
    for config, names in configs.items()
    for name in sorted(names)
]


def option_of(command: str, name: str) -> Any:
    (option,) = (one for one in commands(command)[command].params if one.name == name)
    return option


def field_of(config: Any, name: str) -> Any:
    return next(field for field in fields(config) if field.name == name)


@pytest.mark.parametrize(("command", "config", "name"), CASES)
def test_an_option_has_the_name_default_and_text_of_its_setting(
    command: str, config: Any, name: str
) -> None:
    option, field = option_of(command, name), field_of(config, name)
    assert option.opts == ["--" + name.replace("_", "-")]
    if config is DetectionConfig and name in IN_CHECKPOINT:
        assert option.default is None
        assert option.show_default == "the checkpoint's"
    else:
        assert option.default == field.default
    words = field.metadata["help"].replace("None", "'none'").replace("`", "").split()
    assert (
        option.help.replace("--max-side", "max_side")
        .replace("--max-keypoints", "max_keypoints")
        .replace("--gps-metres", "gps_metres")
        .replace("tiepoint ", "tiepoint ")
        .split()
        == words
    )
    if field.metadata["metavar"]:
        assert option.metavar == field.metadata["metavar"]


@pytest.mark.parametrize("command", OFFERED)
def test_a_command_offers_no_other_setting(command: str) -> None:
    known = {
        field.name
        for config in (DetectionConfig, ProcessorConfig, MatchingConfig, PairConfig)
        for field in fields(config)
    }
    offered = {option.name for option in commands(command)[command].params} & known
    assert offered <= {name for names in OFFERED[command].values() for name in names}


@pytest.mark.parametrize("command", OFFERED)
def test_the_engine_options_have_the_defaults_of_the_detector(command: str) -> None:
    library = inspect.signature(Detector).parameters
    for name in ("checkpoint", "engine", "device", "precision"):
        assert option_of(command, name).default == library[name].default
    if command == "detect":
        assert option_of(command, "threads").default == library["threads"].default
        assert option_of(command, "compiled").default == library["compiled"].default


def test_a_choice_lists_its_values() -> None:
    result = CliRunner().invoke(typer_app(), ["--help"])
    assert "|".join(get_args(Model)) in result.stdout.replace("\n", "").replace(" ", "")


@dataclass(frozen=True)
class Sample:
    """A config with every kind of field."""

    count: int = setting(3, "Count.", metavar="N")
    limit: int | None = setting(7, "Limit; None has none.", metavar="N")
    share: float | None = setting(None, "Share, with `count`.", metavar="R")
    flag: bool = setting(True, "Flag.")
    weak_flag: bool = setting(False, "Weak flag.")
    model: Model = setting("affine", "Model.")
    text: str = setting("all", "Text.")


GIVEN: list[dict[str, Any]] = []


def typer_app() -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @options.command(app)
    def sample(
        name: str = "x",
        *,
        settings: Annotated[dict[str, Any], options.Settings(Sample)],
        detection: Annotated[
            dict[str, Any],
            options.detection("max_side", "max_keypoints", "threshold", "scales", "spread"),
        ],
        last: bool = False,
    ) -> None:
        """A sample."""
        GIVEN.append({"name": name, "last": last, **settings, **detection})

    return app


def settings_of(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(typer_app(), arguments)
    assert result.exit_code == 0, result.output
    return GIVEN.pop()


DEFAULTS = {
    "name": "x", "last": False, "count": 3, "limit": 7, "flag": True, "weak_flag": False,
    "model": "affine", "text": "all", "max_side": 1024, "spread": False,
}  # fmt: skip


def test_without_options_the_settings_of_the_checkpoint_are_left_out() -> None:
    assert settings_of() == DEFAULTS
    assert not {"threshold", "max_keypoints", "scales"} & set(DEFAULTS)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["--count", "4"], {"count": 4}),
        (["--limit", "none"], {"limit": None}),
        (["--limit", "NONE"], {"limit": None}),
        (["--share", "0.5"], {"share": 0.5}),
        (["--share", "none"], {"share": None}),
        (["--no-flag"], {"flag": False}),
        (["--weak-flag"], {"weak_flag": True}),
        (["--no-weak-flag"], {"weak_flag": False}),
        (["--max-keypoints", "5"], {"max_keypoints": 5}),
        (["--max-keypoints", "none"], {"max_keypoints": None}),
        (["--max-side", "none"], {"max_side": None}),
        (["--max-side", "640"], {"max_side": 640}),
        (["--threshold", "0.005"], {"threshold": 0.005}),
        (["--spread"], {"spread": True}),
        (["--scales", "1,0.5"], {"scales": (1.0, 0.5)}),
        (["--scales", "2"], {"scales": (2.0,)}),
        (["--model", "essential"], {"model": "essential"}),
        (["--text", "none"], {"text": "none"}),
        (["--name", "y", "--last"], {"name": "y", "last": True}),
    ],
)
def test_an_option_gives_its_setting(arguments: list[str], settings: dict[str, Any]) -> None:
    assert settings_of(*arguments) == {**DEFAULTS, **settings}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "none"], "'--count': 'none', expected a whole number"),
        (["--count", "1.5"], "'--count': '1.5', expected a whole number"),
        (["--limit", "few"], "'--limit': 'few', expected a whole number or 'none'"),
        (["--share", "half"], "'--share': 'half', expected a number or 'none'"),
        (["--scales", "1,,2"], "'--scales': '1,,2', expected numbers separated by commas"),
        (["--scales", ""], "'--scales': '', expected numbers separated by commas"),
        (["--model", "spline"], "'spline' is not one of 'homography', 'affine'"),
        (["--unknown", "1"], "No such option: --unknown"),
    ],
)
def test_a_wrong_value_is_named_with_the_option_and_the_expectation(
    arguments: list[str], message: str
) -> None:
    result = CliRunner().invoke(typer_app(), arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("limit is 0, expected a number, or None", "--limit is 0, expected a number, or 'none'"),
        ("weak_flag needs model='one-two'", "--weak-flag needs --model one-two"),
        ("share goes with weak_flag and flag", "--share goes with --weak-flag and flag"),
        ("images have scales, a count and None", "images have scales, a count and None"),
        ("limits are unknown", "limits are unknown"),
    ],
)
def test_an_error_names_settings_as_options(message: str, printed: str) -> None:
    app = typer.Typer(add_completion=False)

    @options.command(app)
    def fail(settings: Annotated[dict[str, Any], options.Settings(Sample)]) -> None:
        """Fails."""
        raise ConfigError(message)

    assert str(CliRunner().invoke(app, []).exception) == printed


def test_a_text_names_values_and_options_as_they_are_typed() -> None:
    text = " ".join(CliRunner().invoke(typer_app(), ["--help"]).stdout.split())
    assert "Limit; 'none' has none." in text
    assert "Share, with --count." in text
    assert "--flag / --no-flag Flag. [default: flag]" in text
    assert "that a keypoint must exceed, a probability in 0..1. [default: (the" in text


def test_a_group_may_take_some_fields_in_another_order() -> None:
    group = options.Settings(Sample, only=("text", "count"))
    assert [parameter.name for parameter in group.parameters] == ["text", "count"]
    assert group.given({"count": 1, "text": "none", "limit": 9}) == {"text": "none", "count": 1}


def test_a_group_of_an_unknown_field_is_refused() -> None:
    with pytest.raises(KeyError, match="colour"):
        options.Settings(Sample, only=("colour",))


def test_scales_that_are_not_given_stay_none() -> None:
    assert options.parse_scales(None) is None
    assert options.parse_scales(" 1 , 0.5") == (1.0, 0.5)


def test_a_file_to_write_is_checked(tmp_path: Any) -> None:
    file = tmp_path / "a.png"
    options.check_file("-o", file, [".png"], overwrite=False)
    options.check_file("-o", tmp_path / "A.PNG", [".png"], overwrite=False)
    options.check_file("-o", tmp_path / "anything", None, overwrite=False)
    file.write_bytes(b"")
    options.check_file("-o", file, [".png"], overwrite=True)
    (tmp_path / "folder.png").mkdir()
    for path, overwrite, message in [
        (file, False, "exists; name another file, or give --overwrite"),
        (tmp_path / "a.jpg", True, "the ending picks the format, one of .png, .tif"),
        (tmp_path / "folder.png", True, "is a folder; name a file"),
    ]:
        with pytest.raises(ConfigError, match=rf"^-o .*{message}$"):
            options.check_file("-o", path, [".png", ".tif"], overwrite=overwrite)

"""Settings of the training data: nonsense is refused, shares sum to one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, fields, replace

import pytest

from tiepoint.errors import ConfigError
from tiepoint.training.lineage import data_from_json
from tiepoint.training.scenes.settings import KINDS, PARTS, DataConfig, Geometry, Photometry


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"size_hw": (100, 160)}, "size_hw"),
        ({"size_hw": (32, 32)}, "size_hw"),
        ({"size_hw": (64,)}, "size_hw"),
        ({"size_hw": (64.0, 64)}, "size_hw"),
        ({"mix": (("leafs", 1.0),)}, "mix"),
        ({"mix": (("photo", 1.0),)}, "mix"),
        ({"mix": ()}, "mix"),
        ({"mix": (("leaves", 0.0),)}, "mix"),
        ({"mix": (("leaves", -1.0),)}, "mix"),
        ({"mix": (("leaves", float("inf")),)}, "mix"),
        ({"part": "test"}, "part"),
        ({"bank": 0}, "bank"),
        ({"bank": True}, "bank"),
        ({"reuse": 1.5}, "reuse"),
        ({"photo_share": 1.5}, "photo_share"),
        ({"photo_share": float("nan")}, "photo_share"),
        ({"min_contrast": -0.1}, "min_contrast"),
        ({"cover_px": 9}, "cover_px"),
    ],
)
def test_nonsense_in_the_data_is_refused(changes: dict, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*expected"):
        DataConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"scale": (2.0, 0.5)}, "scale"),
        ({"scale": (0.0, 2.0)}, "scale"),
        ({"common_scale": (0.1, 1.43)}, "scale"),
        ({"common_scale": (1.0, 1.0)}, "scale"),
        ({"common_share": 2}, "common_share"),
        ({"min_overlap": -1}, "min_overlap"),
        ({"shift_share": 1.1}, "shift_share"),
        ({"tilt_deg": 89}, "tilt_deg"),
        ({"own_tilt_deg": -1}, "own_tilt_deg"),
        ({"roll_deg": 181}, "roll_deg"),
        ({"own_roll_deg": float("nan")}, "own_roll_deg"),
    ],
)
def test_nonsense_in_the_geometry_is_refused(changes: dict, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*expected"):
        Geometry(**changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"gamma": 0.5}, "gamma"),
        ({"contrast": (0.0, 1.8)}, r"contrast\[0\]"),
        ({"contrast": (0.3, 0.9)}, r"contrast\[1\]"),
        ({"blur_px": -1}, "blur_px"),
        ({"motion_px": 31}, "motion_px"),
        ({"jpeg": float("nan")}, "jpeg"),
        ({"jpeg_quality": 0}, "jpeg_quality"),
        ({"jpeg_quality": 96}, "jpeg_quality"),
        *(({name: 1.01}, name) for name in ("shadow", "motion", "rescale", "patches", "pepper")),
        *(({name: 0.95}, name) for name in ("bias", "shading", "vignette", "noise")),
    ],
)
def test_nonsense_in_the_photometry_is_refused(changes: dict, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*expected"):
        Photometry(**changes)


def test_limits_themselves_are_allowed() -> None:
    Photometry(gamma=1, contrast=(1, 1), bias=0.9, shadow=1, blur_px=20, jpeg_quality=95)
    Geometry(scale=(0.7, 1.43), tilt_deg=70, min_overlap=1, roll_deg=180)
    DataConfig(size_hw=(64, 64), bank=1, reuse=1, photo_share=1.0, cover_px=4)


def test_an_error_names_the_value() -> None:
    with pytest.raises(ConfigError, match=r"tilt_deg is 89, expected degrees in 0\.\.70"):
        Geometry(tilt_deg=89)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        DataConfig().bank = 3  # type: ignore[misc]


def test_equal_settings_are_one_key() -> None:
    assert hash(DataConfig()) == hash(DataConfig())
    assert DataConfig() == replace(DataConfig(), bank=128)
    assert DataConfig() != DataConfig(bank=127)


def test_shares_sum_to_one_and_photographs_take_theirs() -> None:
    plain = DataConfig().shares()
    assert sum(plain.values()) == pytest.approx(1) and "photo" not in plain
    mixed = DataConfig(photos=("x",), photo_share=0.25).shares()
    assert sum(mixed.values()) == pytest.approx(1) and mixed["photo"] == 0.25
    for kind, share in plain.items():
        assert mixed[kind] == pytest.approx(0.75 * share)


def test_shares_need_not_be_normalised() -> None:
    shares = DataConfig(mix=(("shapes", 30.0), ("leaves", 10.0))).shares()
    assert shares == pytest.approx({"shapes": 0.75, "leaves": 0.25})


def test_a_kind_may_be_named_twice() -> None:
    shares = DataConfig(mix=(("shapes", 1.0), ("leaves", 2.0), ("shapes", 1.0))).shares()
    assert shares == pytest.approx({"shapes": 0.5, "leaves": 0.5})


def test_a_kind_without_share_is_left_out() -> None:
    assert DataConfig(mix=(("shapes", 1.0), ("leaves", 0.0))).shares() == {"shapes": 1.0}


def test_photographs_alone_need_no_mix() -> None:
    config = DataConfig(mix=(), photos=("x",), photo_share=1.0)
    assert config.shares() == {"photo": 1.0}
    with pytest.raises(ConfigError, match="mix is empty"):
        DataConfig(mix=(), photos=("x",), photo_share=0.9)


def test_shares_are_in_the_order_of_the_kinds() -> None:
    """A scene's kind is drawn from this order, so it decides the data of a seed."""
    config = DataConfig(mix=(("boxes", 1.0), ("leaves", 1.0)), photos=("x",))
    assert list(config.shares()) == ["leaves", "boxes", "photo"]
    assert KINDS == ("leaves", "shapes", "glyphs", "repeats", "boxes", "photo")


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_photographs_can_be_used(part: str) -> None:
    assert DataConfig(part=part).part == part


def test_settings_survive_a_json_file() -> None:
    config = DataConfig(
        size_hw=(64, 96), mix=(("shapes", 1.0),), photos=("a", "b"),
        geometry=Geometry(scale=(0.6, 1.9)), photometry=Photometry(contrast=(0.5, 1.5)),
    )  # fmt: skip
    assert data_from_json(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("kind", [DataConfig, Geometry, Photometry])
def test_every_setting_is_documented(kind: type) -> None:
    documented = kind.__doc__ or ""
    assert all(field.name in documented for field in fields(kind))


def test_reading_the_settings_loads_nothing_heavy() -> None:
    heavy = "{'cv2', 'numpy', 'torch', 'PIL'}"
    code = f"import sys, tiepoint.training.scenes.settings; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

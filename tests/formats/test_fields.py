"""The checks that all formats share: each names the file, what came and what was expected."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from support.features_files import JSON_VALUES
from tiepoint.errors import FormatError
from tiepoint.formats import as_json, fields


@given(value=JSON_VALUES)
def test_json_values_stay_as_they_are(value: Any) -> None:
    assert as_json(value) == value
    assert json.loads(json.dumps(as_json(value))) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (np.float64(0.5), 0.5),
        (np.int8(-3), -3),
        (np.bool_(False), False),
        (np.zeros((1, 2), np.int16), [[0, 0]]),
        (np.array("text"), "text"),
        (Path("a") / "b", str(Path("a", "b"))),
        (PurePosixPath("a/b"), "a/b"),
        ({"a": ({"b": np.float32(0.25)},)}, {"a": [{"b": 0.25}]}),
        ({}, {}),
        ([], []),
    ],
)
def test_tuples_numpy_values_and_paths_become_json_values(value: Any, expected: Any) -> None:
    converted = as_json(value)
    assert converted == expected
    assert json.loads(json.dumps(converted)) == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": {"b": [0, {1}]}}, r"meta\.a\.b\[1\] is of type set"),
        (np.array([1.0, np.inf]), r"meta\[1\] is inf"),
        (b"bytes", "meta is of type bytes"),
        ({"a": np.datetime64("2026-01-01")}, r"meta\.a is of type date"),
        (1j, "meta is of type complex"),
        ({None: 1}, "meta: key None is not text"),
    ],
)
def test_values_without_a_json_form_are_refused_by_their_place(value: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        as_json(value)


def test_meta_is_one_line_of_json_and_comes_back() -> None:
    meta = {"name": "두\n줄", "sizes": (1, 2)}
    text = fields.meta_text(features_from(meta=meta))
    assert "\n" not in text
    stored = {"name": "두\n줄", "sizes": [1, 2], "px_per_input_px": 1.0}
    assert fields.parse_meta(text, "x.npz") == stored


@pytest.mark.parametrize(
    ("text", "words"), [("{", "meta is not JSON"), ("[1]", "meta is a list"), ("3", "a int")]
)
def test_meta_that_is_no_object_is_refused(text: str, words: str) -> None:
    with pytest.raises(FormatError, match=f"x.npz: not a whole features file .*{words}"):
        fields.parse_meta(text, "x.npz")


def test_only_our_convention_passes() -> None:
    fields.check_convention("center0", "x.npz")
    with pytest.raises(FormatError, match="names no pixel convention"):
        fields.check_convention(None, "x.npz")
    for other in ("center0.5", "", 0):
        with pytest.raises(FormatError, match=f'convention is {other!r}, expected "center0"'):
            fields.check_convention(other, "x.npz")


@pytest.mark.parametrize("value", [(480, 640), [480, 640], np.array([480, 640]), ("480", "640")])
def test_sizes_of_any_container_are_whole_numbers(value: Any) -> None:
    assert fields.check_size(value, "x.npz") == (480, 640)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "size_hw is None"),
        (480, "size_hw is 480"),
        ((1, 2, 3), r"size_hw is \(1, 2, 3\)"),
        (("a", "b"), r"expected \(height, width\)"),
        ((0, 5), r"size_hw is \(0, 5\), expected at least 1 px"),
        ((5, -1), "at least 1 px"),
    ],
)
def test_what_is_no_size_is_refused(value: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        fields.check_size(value, "x.npz")


def test_missing_keys_are_listed() -> None:
    fields.require([], {}, "x.npz")
    fields.require(["xy"], {"xy": None, "more": 1}, "x.npz")
    with pytest.raises(FormatError, match=r"x\.npz: not a whole .* file \(lacks xy, scores\)"):
        fields.require(["xy", "meta", "scores"], {"meta": 1}, "x.npz")


def features_from(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "xy": [[1, 2], [3, 4]],
        "scores": [0.5, 0.25],
        "descriptors": None,
        "size_hw": (8, 8),
        "meta": {},
    }
    return fields.features_from("x.npz", **{**values, **changes})


def test_numbers_of_any_type_become_float32() -> None:
    for kind in ("f2", "f4", "f8", "i4", "u1"):
        features = features_from(xy=np.ones((2, 2), kind), descriptors=np.zeros((2, 3), kind))
        assert features.xy.dtype == features.scores.dtype == features.descriptors.dtype == "f4"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"xy": [[1, 2]]}, "xy has shape"),
        ({"xy": [["a", "b"], ["c", "d"]]}, "expected numbers"),
        ({"xy": [[1, 2], [3]]}, "not a whole"),
        ({"scores": [1e300, 0]}, "overflow"),
        ({"scores": [True, False]}, "an array of bool"),
        ({"descriptors": [[1.0]]}, "descriptors have shape"),
        ({"covariance": np.zeros((2, 2))}, "covariance has shape"),
        ({"size_hw": None}, "size_hw is None"),
    ],
)
def test_arrays_that_do_not_fit_one_another_are_refused(changes: Any, words: str) -> None:
    with pytest.raises(FormatError, match=rf"x\.npz: .*{words}"):
        features_from(**changes)


@pytest.mark.parametrize(("holds", "remedy"), [("features", "detect"), ("matches", "match")])
def test_a_librarys_errors_become_ones_that_name_file_and_remedy(holds: Any, remedy: str) -> None:
    words = rf"x\.h5: not a whole {holds} file \(bad magic\); {remedy} again"
    with (
        pytest.raises(FormatError, match=words) as caught,
        fields.as_damaged("x.h5", (ValueError,), holds),
    ):
        raise ValueError("bad magic")
    assert isinstance(caught.value.__cause__, ValueError)


def test_own_and_other_errors_pass_unchanged() -> None:
    own = FormatError("y.h5: damaged")
    for error in (own, KeyError("a"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, fields.as_damaged("x.h5", (ValueError,)):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("error", "reason"),
    [(FileNotFoundError(2, "gone"), "no such file"), (PermissionError(13, "closed"), "closed")],
)
def test_an_error_of_the_system_is_no_damage(error: OSError, reason: str) -> None:
    with (
        pytest.raises(FormatError, match=rf"x\.npz: cannot be read \({reason}\); check the path"),
        fields.as_damaged("x.npz", (ValueError,)),
    ):
        raise error

"""Checks of settings: each passes what is in range, and names the rest with what was expected."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tiepoint.checks import (
    check_choice,
    check_known,
    check_positive,
    check_whole,
    check_within,
    is_number,
)
from tiepoint.errors import ConfigError

NOT_NUMBERS = [True, np.True_, "1", None, [1], 1j, np.array([1, 2])]


@pytest.mark.parametrize("value", [3, 4, 10**30, np.int64(3), np.uint8(200)])
def test_a_whole_number_from_the_minimum_on_passes(value: Any) -> None:
    check_whole("k", value, minimum=3, unit="images")


@pytest.mark.parametrize("value", [2, -1, 3.0, 3.5, np.float32(3), math.nan, *NOT_NUMBERS])
def test_other_values_than_whole_numbers_from_the_minimum_on_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^k is .*expected a whole number >= 3 \(images\)$"):
        check_whole("k", value, minimum=3, unit="images")


@pytest.mark.parametrize("value", [-1, 0, 0.5, 1, np.float32(0.25), Fraction(1, 3), np.int8(1)])
def test_both_ends_of_a_range_and_what_is_between_pass(value: Any) -> None:
    check_within("c", value, -1, 1, "a cosine")


@pytest.mark.parametrize("value", [-1.0001, 1.0001, math.inf, -math.inf, math.nan, *NOT_NUMBERS])
def test_values_outside_a_range_are_refused_with_the_range(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^c is .*expected a cosine in -1\.\.1$"):
        check_within("c", value, -1, 1, "a cosine")


@pytest.mark.parametrize("value", [5e-324, 1, 1e308, np.float32(2), np.float16(6e4)])
@pytest.mark.parametrize("finite", [False, True])
def test_numbers_above_zero_are_positive(value: Any, finite: bool) -> None:
    check_positive("t", value, finite=finite)


@pytest.mark.parametrize("value", [0, -0.0, -1e-9, math.nan, -math.inf, *NOT_NUMBERS])
def test_zero_negative_numbers_and_nan_are_not_positive(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^t is .*expected a number above 0$"):
        check_positive("t", value)


def test_infinity_is_positive_unless_finite_is_required() -> None:
    for value in (math.inf, np.float32(np.inf), 10**400):
        check_positive("t", value)
        with pytest.raises(ConfigError, match="expected a number above 0"):
            check_positive("t", value, finite=True)


def test_a_choice_is_one_of_the_strings() -> None:
    check_choice("mode", "b", iter(["a", "b"]))
    for value in ("c", "A", "", None, 1):
        with pytest.raises(ConfigError, match=f"^mode is {value!r}, expected one of a, b$"):
            check_choice("mode", value, iter(["a", "b"]))


def test_known_names_pass_and_unknown_ones_are_listed_in_order() -> None:
    check_known([], ["a", "b"])
    check_known({"b": 1}, ["a", "b"])
    with pytest.raises(ConfigError, match="^unknown option x, z; there are a, b$"):
        check_known(["z", "a", "x", "z"], iter(["a", "b"]))


@pytest.mark.parametrize("value", [0, -1.5, math.nan, np.float16(1), np.int64(2), Fraction(1, 2)])
def test_real_numbers_of_python_and_numpy_are_numbers(value: Any) -> None:
    assert is_number(value)


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_booleans_strings_arrays_and_complex_numbers_are_not(value: Any) -> None:
    assert not is_number(value)

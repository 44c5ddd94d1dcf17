"""Parts of every config: fields with a default and a text, and single settings replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tiepoint.checks import check_known

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DeviceName = Literal["auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "mps"]
"""Every GPU "cuda:N" is accepted; a type can list only some of them."""

Value = TypeVar("Value")
Config = TypeVar("Config", bound="DataclassInstance")


def setting(default: Value, text: str, *, metavar: str | None = None) -> Value:
    """A field of a config, with its default and its text.

    Args:
        text: Noun phrase or imperative that is complete without the field's name.
        metavar: Placeholder of the value on the command line, such as PX.
    """
    described: Value = field(default=default, metadata={"help": text, "metavar": metavar})
    return described


def resolve(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A config with single settings replaced; NumPy scalars become Python numbers.

    Raises:
        ConfigError: An unknown setting, or one out of range.
    """
    import numpy as np  # here, because `tiepoint --help` reads the configs too

    check_known(overrides, [f.name for f in fields(config)])
    plain = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in overrides.items()
    }
    return replace(config, **plain)

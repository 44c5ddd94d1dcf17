"""Settings of a request, derived from the dataclasses of `tiepoint.config`.

A form field has the name of the setting, and its value as text: `none` for None, `true` and
`false`, and numbers with commas between them for a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tiepoint.checks import shown
from tiepoint.config import IN_CHECKPOINT, DetectionConfig
from tiepoint.service.problems import ProblemError

NONE = "none"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Parameters:
    """The form fields of a group of settings.

    Args:
        configs: Dataclasses with fields made by `tiepoint.config.setting`.
        only: Names of the fields; None takes all.
    """

    def __init__(self, *configs: type, only: Iterable[str] | None = None) -> None:
        known: dict[str, tuple[type, Field[Any], Any]] = {}
        for config in configs:
            kinds = get_type_hints(config)
            known |= {each.name: (config, each, kinds[each.name]) for each in fields(config)}
        self._known = {name: known[name] for name in (known if only is None else only)}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the settings."""
        return tuple(self._known)

    def given(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """The values of the settings of this group among a form's fields.

        Raises:
            ProblemError: A text that is no value of the setting.
        """
        return {
            name: _value(name, texts[name], kind)
            for name, (_, _, kind) in self._known.items()
            if name in texts
        }

    def schemas(self) -> dict[str, Any]:
        """JSON schema of each field, by name."""
        return {name: _schema(*parts) for name, parts in self._known.items()}


def _value(name: str, text: str, kind: Any) -> Any:
    kinds = {kind, *get_args(kind)}
    expected = _expected(kind)
    if NoneType in kinds and text.lower() == NONE:
        return None
    try:
        if get_origin(kind) is tuple:
            return tuple(_number(float, part) for part in text.split(","))
        if bool in kinds:
            return _BOOLEANS[text.lower()]
        if int in kinds:
            return _number(int, text)
        if float in kinds:
            return _number(float, text)
    except (ValueError, KeyError) as error:
        raise ProblemError(
            422,
            "invalid_setting",
            f"{name} is {shown(text)}, expected {expected}",
            setting=name,
            got=shown(text),
            expected=expected,
        ) from error
    return text  # a choice, which the config checks


def _number(kind: type[int] | type[float], text: str) -> int | float:
    """A number in ASCII digits; Python also reads 1_000, and digits of other scripts."""
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return kind(text)


def _expected(kind: Any) -> str:
    kinds = {kind, *get_args(kind)}
    if get_origin(kind) is tuple:
        return "numbers separated by commas, such as 1,0.5"
    if bool in kinds:
        return "true or false"
    number = "a whole number" if int in kinds else "a number"
    return f"{number} or '{NONE}'" if NoneType in kinds else number


def _schema(config: type, each: Field[Any], kind: Any) -> dict[str, Any]:
    kinds = get_args(kind) if NoneType in get_args(kind) else (kind,)
    plain = next(one for one in kinds if one is not NoneType)
    schema: dict[str, Any]
    if get_origin(plain) is tuple:
        schema = {"type": "string", "pattern": r"^[0-9.eE+-]+(,[0-9.eE+-]+)*$"}
    elif get_origin(plain) is Literal:
        schema = {"type": "string", "enum": list(get_args(plain))}
    else:
        schema = {"type": {bool: "boolean", int: "integer", float: "number"}[plain]}
    if NoneType in kinds:
        schema = {"anyOf": [schema, {"type": "string", "const": NONE}]}
    text = each.metadata["help"]
    if config is DetectionConfig and each.name in IN_CHECKPOINT:
        return {**schema, "description": f"{text} Default: the checkpoint's."}
    default = NONE if each.default is None else each.default
    return {**schema, "description": text, "default": default}

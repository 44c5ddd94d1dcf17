"""Options that several commands share, and options generated from the fields of the configs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import Field, fields
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from tiepoint.cli.output import verbosity
from tiepoint.config import IN_CHECKPOINT, DetectionConfig, DeviceName, EngineName, ProcessorConfig
from tiepoint.config import Precision as PrecisionName
from tiepoint.errors import ConfigError
from tiepoint.files.paths import exists, is_folder, is_same

NONE = "none"
"""Spelling of the value None on the command line."""
GIVEN_NONE = object()
"""None as parsed, because None itself is an option that was not given."""

CHECKPOINT = "default"
AUTO: Literal["auto"] = "auto"
_WHICH = "Name of a bundled checkpoint, folder of a checkpoint, or Hub id org/name."

Checkpoint = Annotated[str, typer.Option("--checkpoint", "-c", metavar="NAME", help=_WHICH)]
Engine = Annotated[EngineName, typer.Option(help="Engine that runs the network.")]
Device = Annotated[
    DeviceName,  # a parser, because GPUs are numbered without limit
    typer.Option(
        metavar="NAME", parser=str, help="Device of the network: auto, cpu, cuda, cuda:N or mps."
    ),
]
Precision = Annotated[
    PrecisionName,
    typer.Option(
        help="Precision of the network. auto is bf16 on a CPU with bfloat16 arithmetic, else f32; "
        "int8 needs a checkpoint prepared by `tiepoint quantize`."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Maximum number of CPU cores for the network.", min=1, show_default="all"
    ),
]
Matcher = Annotated[
    str | None,
    typer.Option(
        "--matcher",
        metavar="DIR",
        help="Learned matcher: its folder, or the folder or name of a checkpoint with one.",
        show_default="the checkpoint's",
    ),
]
Intrinsics = Annotated[
    str | None,
    typer.Option(
        metavar="FX,FY,CX,CY",
        help="Camera of both images for --model essential, px; 8 numbers for A and then B.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="Compile the network for each image size; faster for many of one size."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print results on stdout as JSON, one object per line.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print errors only, and what --json or -o - prints.")
]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, show_default=False,
        help="Print what is decided on the way; -vv prints more.",
    ),
]  # fmt: skip


class Settings:
    """Marks a parameter of a command as a group of settings: one option for each field.

    Args:
        configs: Dataclasses with fields made by `tiepoint.config.setting`.
        only: Names of the fields, in the order of `--help`; None takes all.
    """

    def __init__(self, *configs: type, only: Iterable[str] | None = None) -> None:
        known: dict[str, tuple[type, Field[Any], Any]] = {}
        for config in configs:
            kinds = get_type_hints(config)
            known |= {field.name: (config, field, kinds[field.name]) for field in fields(config)}
        self.names = list(known if only is None else only)
        self.parameters = [_parameter(*known[name]) for name in self.names]

    def given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of this group among the values of a command's parameters.

        A setting that is None by default, or stored in the checkpoint, is left out if not given.
        """
        return {
            name: None if values[name] is GIVEN_NONE else values[name]
            for name in self.names
            if values[name] is not None
        }


OF_KEYPOINTS = (
    "max_side", "scales", "phases", "max_keypoints", "threshold", "nms_radius", "spread",
    "contrast",
)  # fmt: skip
"""Settings of `Detector` that decide which keypoints an image has."""


def detection(*names: str) -> Settings:
    """A group of settings of `Detector`."""
    return Settings(ProcessorConfig, DetectionConfig, only=names)


def cameras(text: str | None) -> list[list[list[float]]] | None:
    """The camera matrices of A and B of `--intrinsics`, 3x3 each; None without the option."""
    from tiepoint.registration.epipolar import cameras_of_text

    try:
        return None if text is None else cameras_of_text(text)
    except ConfigError as error:
        raise ConfigError(f"--{error}") from error


def command(app: typer.Typer, *examples: str) -> Callable[[Callable[..., None]], Any]:
    """Register a function as a command, with the options that all commands have.

    Each parameter annotated with `Settings` is replaced by the options of the group. A
    `ConfigError` of the command names the options as they are typed.

    Args:
        examples: Lines at the end of `--help`.
    """
    epilog = "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)])

    def register(function: Callable[..., None]) -> Any:
        return app.command(epilog=epilog)(_with_options(function))

    return register


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Settings] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        marks = getattr(parameter.annotation, "__metadata__", ())
        group = next((mark for mark in marks if isinstance(mark, Settings)), None)
        if group is None:
            parameters.append(parameter)
        else:
            groups[parameter.name] = group
            parameters += group.parameters

    names = [name for group in groups.values() for name in group.names]
    parameters = [*parameters, *_EVERYWHERE]

    @wraps(command)
    def run(*, quiet: bool, verbose: int, **values: Any) -> None:
        settings = {name: group.given(values) for name, group in groups.items()}
        other = {name: value for name, value in values.items() if name in signature.parameters}
        try:
            with verbosity(quiet=quiet, verbose=verbose):
                command(**other, **settings)
        except ConfigError as error:
            raise ConfigError(_as_typed(str(error), names)) from error

    generated: Any = run
    generated.__signature__ = signature.replace(parameters=parameters)
    generated.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _everywhere(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=annotation)


_EVERYWHERE = (_everywhere("quiet", Quiet, False), _everywhere("verbose", Verbose, 0))


def _parameter(config: type, field: Field[Any], kind: Any) -> inspect.Parameter:
    """The option of one field, with the field's default and text."""
    optional, kinds = NoneType in get_args(kind), {kind, *get_args(kind)}
    parser: Callable[[Any], Any] | None = None
    if get_origin(kind) is tuple:
        parser = parse_scales
    elif kinds & {int, float}:
        parser = _number_parser(int if int in kinds else float, optional=optional)
    in_checkpoint = config is DetectionConfig and field.name in IN_CHECKPOINT
    option = typer.Option(
        help=_help(field.metadata["help"]),
        metavar=field.metadata["metavar"],
        parser=parser,
        show_default="the checkpoint's" if in_checkpoint else True,
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if in_checkpoint else field.default,
        annotation=Annotated[Any if parser else kind | None, option],
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(text: str) -> str:
    """The text of a field with names and values as they are typed."""
    return _none_as_typed(re.sub(r"`(\w+)`", lambda match: _flag(match[1]), text))


def _as_typed(message: str, names: Collection[str]) -> str:
    """A message about settings with names and values as they are typed.

    Names that are ordinary words are replaced only at the start and before a value.
    """

    def pair(match: re.Match[str]) -> str:
        return f"{_flag(match[1])} {match[2]}" if match[1] in names else match[0]

    def word(match: re.Match[str]) -> str:
        certain = "_" in match[0] or match.start() == 0
        return _flag(match[0]) if certain and match[0] in names else match[0]

    if message.partition(" ")[0] in names:
        message = _none_as_typed(message)
    message = re.sub(r"\b(\w+)='([\w-]+)'", pair, message)
    return re.sub(r"(?<![\w-])\w+", word, message)


def _none_as_typed(text: str) -> str:
    return re.sub(r"\bNone\b", f"'{NONE}'", text)


def parse_scales(text: str | None) -> tuple[float, ...] | None:
    """The numbers between commas; None stays None.

    Raises:
        typer.BadParameter: Not a list of numbers.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r}, expected numbers separated by commas, such as 1,0.5"
        ) from error


def _number_parser(kind: type, *, optional: bool) -> Callable[[Any], Any]:
    expected = "a whole number" if kind is int else "a number"

    def parse(value: Any) -> Any:
        if not isinstance(value, str):  # the default
            return value
        if optional and value.lower() == NONE:
            return GIVEN_NONE
        try:
            return kind(value)
        except ValueError as error:
            alternative = f" or '{NONE}'" if optional else ""
            raise typer.BadParameter(f"{value!r}, expected {expected}{alternative}") from error

    return parse


def check_file(
    option: str,
    path: Path,
    endings: Collection[str] | None,
    *,
    overwrite: bool,
    inputs: Iterable[str | Path | None] = (),
) -> None:
    """Require the path of a file that can be written.

    Args:
        option: The option that names it, for the message.
        path: The path given.
        endings: Endings that it may have; None allows any.
        overwrite: Allow an existing file.
        inputs: Images and files that the command reads, which it never replaces.

    Raises:
        ConfigError: A wrong ending, a folder, an input, or an existing file.
    """
    if endings is not None and path.suffix.lower() not in endings:
        expected = ", ".join(endings)
        raise ConfigError(f"{option} {path}: the ending picks the format, one of {expected}")
    if is_folder(path):
        raise ConfigError(f"{option} {path} is a folder; name a file")
    if any(is_same(path, one) for one in inputs if one is not None):
        raise ConfigError(f"{option} {path} is one of the inputs; name another file")
    if exists(path) and not overwrite:
        raise ConfigError(f"{option} {path} exists; name another file, or give --overwrite")

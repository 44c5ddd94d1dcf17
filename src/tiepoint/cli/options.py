"""The options that set up a Detector, as every command spells them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from tiepoint.config import DeviceName, EngineName, ProcessorConfig
from tiepoint.config import Precision as PrecisionName

NATIVE = "none"

CHECKPOINT = "default"
AUTO: Literal["auto"] = "auto"
MAX_SIDE = NATIVE if ProcessorConfig.max_side is None else str(ProcessorConfig.max_side)

_WHICH = "A bundled name, a checkpoint's folder, or a Hub id org/name."

Checkpoint = Annotated[str, typer.Option("--checkpoint", "--model", "-c", help=_WHICH)]
CheckpointAlone = Annotated[str, typer.Option("--checkpoint", "-c", help=_WHICH)]
"""For a command whose `--model` is another one."""
Engine = Annotated[EngineName, typer.Option(help="auto, openvino or torch.")]
Device = Annotated[DeviceName, typer.Option(parser=str, help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[
    PrecisionName,
    typer.Option(help="auto (bf16 where the processor has it, else f32), f32, bf16, f16 or int8."),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", help="Most CPU cores that the network takes; else all.", min=1),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the network for each size of images: quicker where many have the same one.",
    ),
]
MaxSide = Annotated[
    str,
    typer.Option(
        metavar="PX", help=f"Bring the longer side down to PX first; '{NATIVE}' keeps the size."
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(
        metavar="S,S,...",
        help="Parts of that size at which each image is looked at, such as 1 or 1,0.7,0.5: "
        "several are a pyramid, for images that differ in zoom. Above 1 enlarges. Else the "
        "checkpoint's: 1,0.6 for the bundled ones.",
    ),
]
MaxKeypoints = Annotated[
    int | None, typer.Option(metavar="N", help="Keep the best N; else the checkpoint's limit.")
]
Threshold = Annotated[
    float | None,
    typer.Option(metavar="P", help="Least probability, 0..1; else the checkpoint's."),
]
NmsRadius = Annotated[
    int | None,
    typer.Option(
        metavar="PX", help="Keypoints of one size are farther apart than this; else its own."
    ),
]

Spread = Annotated[
    bool,
    typer.Option(
        "--spread", help="Spread --max-keypoints evenly over the image, seen at one size."
    ),
]


def parse_scales(text: str | None) -> tuple[float, ...] | None:
    """The numbers between the commas; None stays None.

    Raises:
        typer.BadParameter: Not numbers.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a list of numbers such as 1,0.5", param_hint="--scales"
        ) from error


def parse_max_side(text: str) -> int | None:
    """px, or None for "none".

    Raises:
        typer.BadParameter: Neither a whole number nor "none".
    """
    if text.lower() == NATIVE:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(
            f"{text!r} is neither a whole number of px, at least 1, nor '{NATIVE}'",
            param_hint="--max-side",
        )
    return int(text)


def given(**settings: Any) -> dict[str, Any]:
    """The settings that were given on the command line."""
    return {name: value for name, value in settings.items() if value is not None}

"""`tiepoint warp`: apply a transform of `register-large` to an image or to annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import show
from tiepoint.cli.progress import Steps
from tiepoint.cli.report import stop
from tiepoint.errors import ConfigError, FormatError, ImageError, RegistrationError
from tiepoint.files.paths import is_file, is_folder

if TYPE_CHECKING:
    from tiepoint.registration.large.result import LargeRegistration

app = typer.Typer(add_completion=False, rich_markup_mode=None)

ANNOTATIONS, IMAGES = (".geojson", ".json"), (".tif", ".tiff")
MAX_BYTES = 400_000_000

TransformFile = Annotated[
    Path, typer.Argument(metavar="TRANSFORM", help="File of `register-large --transform`.")
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="INPUT", help="Image A, or annotations of it: .geojson or .json; B with --back."
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="FILE",
        help="File to write: .tif (COG) or .ome.tif for an image, .geojson for annotations.",
    ),
]  # fmt: skip
Back = Annotated[bool, typer.Option("--back", help="From image B to image A.")]
Other = Annotated[
    str | None,
    typer.Option(
        metavar="IMAGE", help="Image with the resolution of the result.",
        show_default="as recorded in TRANSFORM",
    ),
]  # fmt: skip
Fill = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE", help="Value of pixels outside the image.",
        show_default="the image's value without data, or 0",
    ),
]  # fmt: skip
Origin = Annotated[
    Literal["centre", "corner"],
    typer.Option(
        help="Place of px (0, 0) in annotations without map coordinates: the centre of the first "
        "pixel, or its outer corner as in QuPath."
    ),
]


@options.command(
    app,
    "tiepoint warp transform.json scan.tif -o aligned.tif",
    "tiepoint warp transform.json cells.geojson -o cells_on_b.geojson --origin corner",
    "tiepoint warp transform.json regions_of_b.geojson -o regions_of_a.geojson --back",
)
def warp(
    transform: TransformFile,
    source: Source,
    *,
    out: Out,
    back: Back = False,
    other: Other = None,
    fill: Fill = None,
    origin: Origin = "centre",
    overwrite: options.Overwrite = False,
) -> None:
    """Carry an image or GeoJSON annotations over to the other image of a registration.

    Exit status: 0 done, 2 wrong usage, 3 a file cannot be read.
    """
    carries = Path(source).suffix.lower() in ANNOTATIONS
    endings = ANNOTATIONS if carries else IMAGES
    options.check_file("-o", out, endings, overwrite=overwrite, inputs=[transform, source, other])
    if not is_folder(out.absolute().parent):
        raise ConfigError(f"-o {out}: no such folder; create it first")
    if carries and (fill is not None or other is not None):
        raise ConfigError("--fill and --other are for images, and INPUT has annotations")
    from tiepoint.registration.large.record import load_transform

    try:
        registration = load_transform(transform)
        if carries:
            count = _carry(Path(source), out, registration, back=back, origin=origin)
            show(f"{count} features written to {out}")
            return
        _warp(source, out, registration, back=back, other=other, fill=fill)
    except (ImageError, FormatError) as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    except RegistrationError as error:
        stop(str(error), exit_codes.USAGE)
    show(f"image {'B' if back else 'A'} written to {out}")


def _carry(
    source: Path,
    out: Path,
    registration: LargeRegistration,
    *,
    back: bool,
    origin: Literal["centre", "corner"],
) -> int:
    from tiepoint.files.reading import read_json
    from tiepoint.files.writing import write_bytes
    from tiepoint.registration.large.annotations import carry_annotations

    try:
        annotations = read_json(source, most_bytes=MAX_BYTES)
    except OSError as error:
        raise ImageError(f"{source}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise FormatError(f"{source}: not JSON ({error})") from error
    carried = carry_annotations(annotations, registration, back=back, origin=origin)
    write_bytes(out, json.dumps(carried, ensure_ascii=False).encode() + b"\n")
    return len(carried.get("features", [carried]))


def _warp(
    source: str,
    out: Path,
    registration: LargeRegistration,
    *,
    back: bool,
    other: str | None,
    fill: float | None,
) -> None:
    from tiepoint.registration.large.output import write_warped

    recorded = registration.names[0 if back else 1]
    found: Any = other if other is not None else recorded if is_file(recorded) else None
    image_a, image_b = (found, source) if back else (source, found)
    with Steps() as steps:
        write_warped(
            out, image_a, image_b, registration, back=back, fill=fill,
            progress=lambda done, total: steps.show("warp", done, total),
        )  # fmt: skip

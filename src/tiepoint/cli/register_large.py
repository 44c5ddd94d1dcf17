"""`tiepoint register-large`: two images of any size -> a transform file, points, a warped image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import show
from tiepoint.cli.progress import Steps
from tiepoint.cli.report import stop
from tiepoint.config import DetectionOptions, LargeConfig, LargeOptions
from tiepoint.errors import ConfigError, ImageError
from tiepoint.files.paths import is_folder

if TYPE_CHECKING:
    from tiepoint.registration.large.result import LargeRegistration

app = typer.Typer(add_completion=False, rich_markup_mode=None)

IMAGES = (".tif", ".tiff")
ENDINGS = {
    "-o": IMAGES, "--transform": (".json",), "--points": (".points",), "--gcps": (".vrt",),
}  # fmt: skip
"""Endings of the files, by option."""

ImageA = Annotated[str, typer.Argument(metavar="A", help="Image to align; a path or URL.")]
ImageB = Annotated[str, typer.Argument(metavar="B", help="Reference image; a path or URL.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE.tif",
        help="Write A warped to B, in windows: .tif is a cloud optimised GeoTIFF (extra geo) with "
        "B's map position, .ome.tif an OME-TIFF.",
    ),
]  # fmt: skip
Transform = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json", help="Write the transform, for `tiepoint warp` and load_transform."
    ),
]
Points = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.points", help="Write ground control points for QGIS's georeferencer."
    ),
]
Gcps = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.vrt", help="Write A with ground control points for GDAL, as a virtual file."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print figures and reason on stdout as JSON.")]
OnDamage = Annotated[
    Literal["raise", "skip"],
    typer.Option(help="A window that cannot be read: raise ends the run, skip leaves it out."),
]
MaskA = Annotated[
    str | None,
    typer.Option(
        "--mask-a", metavar="FILE", help="Mask of A; black and transparent pixels are excluded."
    ),
]
MaskB = Annotated[str | None, typer.Option("--mask-b", metavar="FILE", help="Mask of B.")]
Settings = Annotated[LargeOptions, options.Settings(LargeConfig)]
Detection = Annotated[DetectionOptions, options.detection("phases", "contrast")]


@options.command(
    app,
    "tiepoint register-large scan.tif orthophoto.tif -o aligned.tif --transform transform.json",
    "tiepoint register-large old_map.tif map.tif --points old_map.points --gcps old_map.vrt",
    "tiepoint register-large slide1.tif slide2.tif --model affine -o slide1_on_2.ome.tif",
)
def register_large(
    a: ImageA,
    b: ImageB,
    *,
    out: Out = None,
    transform: Transform = None,
    points: Points = None,
    gcps: Gcps = None,
    as_json: Json = False,
    overwrite: options.Overwrite = False,
    registration: Settings,
    mask_a: MaskA = None,
    mask_b: MaskB = None,
    on_damage: OnDamage = "raise",
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    detection: Detection,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    threads: options.Threads = None,
) -> None:
    """Align image A with image B, of any size, from overviews to windows at full resolution.

    Exit status: 0 registered, 2 wrong usage, 3 an image cannot be read, 4 not registered: no
    file is written, and --json prints the reason.
    """
    config = LargeConfig(**registration)
    given = {"-o": out, "--transform": transform, "--points": points, "--gcps": gcps}
    wanted = {option: path for option, path in given.items() if path is not None}
    _check_files(wanted, [a, b, mask_a, mask_b], overwrite=overwrite)
    from tiepoint.registration.large import register
    from tiepoint.registration.register import registration_detector

    detector = registration_detector(
        checkpoint, engine=engine, device=device, precision=precision, threads=threads, **detection
    )
    try:
        with Steps() as steps:
            result = register.register_large(
                a, b, detector=detector, mask_a=mask_a, mask_b=mask_b, on_damage=on_damage,
                config=config, progress=steps.show,
            )  # fmt: skip
            if result.success:
                _write(wanted, a, b, result, steps)
    except ImageError as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    if as_json:
        typer.echo(json.dumps(result.summary(), ensure_ascii=False))
    if not result.success:
        stop(f"not registered: {result.reason}", exit_codes.NOT_REGISTERED)
    show(_sentence(result), on_stderr=as_json)


def _check_files(
    files: Mapping[str, Path], inputs: Sequence[str | None], *, overwrite: bool
) -> None:
    """Raise for output that cannot be written, before any work."""
    for option, path in files.items():
        options.check_file(option, path, ENDINGS[option], overwrite=overwrite, inputs=inputs)
        if list(files.values()).count(path) > 1:
            raise ConfigError(f"{option} {path}: two options name this file; rename one")
        if not is_folder(path.absolute().parent):
            raise ConfigError(f"{option} {path}: no such folder; create it first")


def _write(
    files: Mapping[str, Path], a: str, b: str, result: LargeRegistration, steps: Steps
) -> None:
    from tiepoint.integrations import ground_control
    from tiepoint.registration.large.output import write_warped
    from tiepoint.registration.large.record import save_transform

    place = result.georeferences[1]
    crs = "" if place is None else place.crs
    for option, path in files.items():
        if option == "--transform":
            save_transform(path, result)
        elif option == "-o":
            write_warped(
                path, a, b, result, progress=lambda done, total: steps.show("warp", done, total)
            )
        else:
            control = ground_control.ground_control(result)
            if option == "--points":
                ground_control.write_qgis_points(path, control, crs)
            else:
                ground_control.write_gcp_vrt(path, a, control, crs)


def _sentence(result: LargeRegistration) -> str:
    agreeing, compared = result.cells
    sentence = (
        f"registered: {int(result.inliers.sum())} of {len(result.xy_a)} points in {agreeing} of "
        f"{compared} windows fit the {result.model} model, median error "
        f"{result.reprojection_px.median:.2f} px, {result.left_out_px.median:.2f} px for windows "
        f"left out of the fit; coverage {result.coverage:.0%}"
    )
    place = result.georeferences[1]
    if place is None:
        return sentence
    return f"{sentence}; {result.left_out_px.median * place.unit_per_px:.3g} map units"

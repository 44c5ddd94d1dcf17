"""`tiepoint stitch`: several overlapping images -> one panorama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import STDOUT, show, write_stdout
from tiepoint.cli.progress import with_progress
from tiepoint.cli.report import complain, stop
from tiepoint.config import DetectionOptions, RegistrationConfig, RegistrationOptions, SurfaceName
from tiepoint.errors import ConfigError, ImageError, RegistrationError
from tiepoint.files.paths import is_folder

if TYPE_CHECKING:
    from tiepoint.registration.stitching.stitch import Panorama

app = typer.Typer(add_completion=False, rich_markup_mode=None)

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")

Images = Annotated[list[str], typer.Argument(metavar="A B ...", help="Two or more images or URLs.")]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="FILE", help="Panorama: .png, .tif, .jpg or .webp; - is stdout."
    ),
]
Surface = Annotated[
    SurfaceName,
    typer.Option(
        help="Surface of the panorama: plane; sphere, for a camera that turns far; auto chooses."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print members, reasons and figures on stdout as JSON.")
]
Settings = Annotated[
    RegistrationOptions,
    options.Settings(
        RegistrationConfig,
        only=("method", "layers", "max_keypoints", "threshold_px", "min_inliers", "guided", "seed"),
    ),
]
Detection = Annotated[
    DetectionOptions, options.detection("max_side", "scales", "phases", "contrast")
]


@options.command(
    app,
    "tiepoint stitch left.jpg middle.jpg right.jpg -o pano.png",
    "tiepoint stitch *.jpg -o pano.jpg --surface sphere --json > pano.json",
)
def stitch(
    images: Images,
    *,
    out: Out,
    surface: Surface = "auto",
    overwrite: options.Overwrite = False,
    as_json: Json = False,
    registration: Settings,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    detection: Detection,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    threads: options.Threads = None,
) -> None:
    """Stitch overlapping images of a flat scene, or of a camera that turns around its centre.

    Exit status: 0 all stitched, 1 some images do not belong and are named with the reason, 2 wrong
    usage, 3 an image cannot be read, 4 no two images belong together.
    """
    _check(out, images, as_json=as_json, overwrite=overwrite)
    from tiepoint.images import encoding
    from tiepoint.registration.register import registration_detector
    from tiepoint.registration.stitching.stitch import stitch as stitched

    detector = registration_detector(
        checkpoint, engine=engine, device=device, precision=precision, threads=threads, **detection
    )
    config = RegistrationConfig(**registration)
    pairs = len(images) * (len(images) - 1) // 2
    try:
        panorama = with_progress(
            "pairs",
            pairs,
            lambda done: stitched(
                images, surface=surface, detector=detector, config=config, on_pair=done
            ),
        )
    except ImageError as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    except RegistrationError as error:
        stop(f"not stitched: {error}; nothing was written to {out}", exit_codes.NOT_REGISTERED)
    if out == STDOUT:
        write_stdout(encoding.encoded_picture(panorama.picture))
    else:
        encoding.write_picture(out, panorama.picture)
    if as_json:
        typer.echo(json.dumps(_summary(panorama, images), ensure_ascii=False))
    for image, reason in panorama.left_out.items():
        complain(f"left out: {images[image]}: {reason}")
    height, width = panorama.picture.shape[:2]
    show(
        f"{len(panorama.members)} of {len(images)} images, {width}x{height} px on a "
        f"{panorama.surface}, median distance of matches {panorama.residual_px:.2f} px",
        on_stderr=as_json or out == STDOUT,
    )
    raise typer.Exit(exit_codes.FAILED if panorama.left_out else exit_codes.DONE)


def _check(out: Path, images: list[str], *, as_json: bool, overwrite: bool) -> None:
    """Raise for output that cannot be written, before any work."""
    if out == STDOUT:
        if as_json:
            raise ConfigError("--json and -o - both write to stdout: give -o a file")
        return
    options.check_file("-o", out, ENDINGS, overwrite=overwrite, inputs=images)
    if not is_folder(out.absolute().parent):
        raise ConfigError(f"-o {out}: no such folder; create it first")


def _summary(panorama: Panorama, images: list[str]) -> dict[str, object]:
    return {
        "members": [images[image] for image in panorama.members],
        "left_out": {images[image]: reason for image, reason in panorama.left_out.items()},
        "kind": panorama.kind,
        "surface": panorama.surface,
        "size_hw": list(panorama.picture.shape[:2]),
        "residual_px": panorama.residual_px,
        "pairs": [
            {
                "a": images[a],
                "b": images[b],
                "success": one.success,
                "reason": one.reason,
                "inliers": int(one.inliers.sum()),
            }
            for (a, b), one in panorama.registrations.items()
        ],
    }

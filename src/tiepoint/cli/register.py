"""`tiepoint register`: two images -> A aligned with B, or the reason why not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import STDOUT, show, write_stdout
from tiepoint.cli.report import stop
from tiepoint.config import DetectionOptions, RegistrationConfig, RegistrationOptions
from tiepoint.errors import ConfigError, ImageError
from tiepoint.files.paths import is_folder
from tiepoint.registration.models import MODELS, TWO_VIEW_MODELS

if TYPE_CHECKING:
    from tiepoint.images.reading import SourceImage
    from tiepoint.registration.result import Registration

app = typer.Typer(add_completion=False, rich_markup_mode=None)

ENDINGS = {
    "-o": (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp"),
    "--overlay": (".png",),
    "--checkerboard": (".png",),
}
"""Endings of the images, by option."""
LOSSY_ENDINGS = (".jpg", ".jpeg", ".webp")

ImageA = Annotated[str, typer.Argument(metavar="A", help="Image to align; a path or URL.")]
ImageB = Annotated[str, typer.Argument(metavar="B", help="Reference image; a path or URL.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Write A warped to B: .png, .tif (floats too), .jpg or .webp (8 bits), with A's "
        "profile and EXIF, and B's resolution and map position; - writes it to stdout.",
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(
        metavar="1..100", help="Quality of a .jpg or .webp.", min=1, max=100, show_default="95"
    ),
]
Fill = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE",
        help="Value of pixels outside A, in A's range.",
        show_default="A's value without data, or 0",
    ),
]
Canvas = Annotated[
    bool, typer.Option("--canvas", help="Write both images to OUT instead, whole and blended.")
]
Overlay = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png", help="Write A in red over B in cyan; aligned structures are grey."
    ),
]
Checkerboard = Annotated[
    Path | None, typer.Option(metavar="FILE.png", help="Write alternating squares of A and B.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print matrix, figures and reason on stdout as JSON.")
]
Points = Annotated[
    bool,
    typer.Option("--points", help="Add the matched points to --json, for `tiepoint report`."),
]
MaskA = Annotated[
    Path | None,
    typer.Option(
        "--mask-a", metavar="FILE", help="Mask of A; black and transparent pixels are excluded."
    ),
]
MaskB = Annotated[Path | None, typer.Option("--mask-b", metavar="FILE", help="Mask of B.")]
Settings = Annotated[
    RegistrationOptions,
    options.Settings(
        RegistrationConfig,
        only=(
            "model",
            "method",
            "layers",
            "max_keypoints",
            "threshold_px",
            "min_inliers",
            "guided",
            "seed",
        ),
    ),
]
Detection = Annotated[
    DetectionOptions, options.detection("max_side", "scales", "phases", "contrast")
]


@options.command(
    app,
    "tiepoint register a.jpg b.jpg -o a_on_b.png --overlay check.png",
    "tiepoint register a.jpg b.jpg --json --points > registration.json",
    "tiepoint register scan1.tif scan2.tif --model similarity --max-side none -o aligned.tif",
    "tiepoint register scan1.jpg scan2.jpg -o aligned.jpg --quality 90 --fill 255",
    "tiepoint register left.jpg right.jpg --model essential --intrinsics 1200,1200,960,540",
)
def register(
    a: ImageA,
    b: ImageB,
    *,
    out: Out = None,
    canvas: Canvas = False,
    quality: Quality = None,
    fill: Fill = None,
    overlay: Overlay = None,
    checkerboard: Checkerboard = None,
    as_json: Json = False,
    points: Points = False,
    overwrite: options.Overwrite = False,
    registration: Settings,
    matcher: options.Matcher = None,
    intrinsics: options.Intrinsics = None,
    mask_a: MaskA = None,
    mask_b: MaskB = None,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    detection: Detection,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    threads: options.Threads = None,
) -> None:
    """Align image A with image B and report the accuracy, or the reason why they do not align.

    Exit status: 0 registered, 2 wrong usage, 3 an image cannot be read, 4 not registered: no
    image is written, and --json prints the reason.
    """
    config = RegistrationConfig(**registration)
    images = {"-o": out, "--overlay": overlay, "--checkerboard": checkerboard}
    wanted = {option: path for option, path in images.items() if path is not None}
    inputs = [a, b, mask_a, mask_b]
    _check_files(wanted, inputs, as_json=as_json, points=points, overwrite=overwrite)
    written = ", ".join(map(str, wanted.values()))
    _check_options(config.model, written, out, canvas=canvas, quality=quality, fill=fill)
    cameras = options.cameras(intrinsics)
    from tiepoint.images.reading import read
    from tiepoint.registration import register as pipeline

    detector = pipeline.registration_detector(
        checkpoint, engine=engine, device=device, precision=precision, threads=threads, **detection
    )
    try:
        image_a, image_b = read(a), read(b)
        _check_pixels(image_a, None if canvas else out, fill)
        result = pipeline.register(
            image_a, image_b, matcher=matcher, detector=detector, mask_a=mask_a, mask_b=mask_b,
            intrinsics=cameras, config=config,
        )  # fmt: skip
    except ImageError as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    if as_json:
        _print_json(a, b, result, config, cameras, points=points)
    if not result.success:
        unwritten = f"; nothing was written to {written}" if wanted else ""
        stop(f"not registered: {result.reason}{unwritten}", exit_codes.NOT_REGISTERED)
    _draw(wanted, Drawn(a, b, image_a, image_b, result, canvas, quality, fill))
    show(_sentence(result), on_stderr=as_json or out == STDOUT)


def _check_files(
    images: Mapping[str, Path],
    inputs: Sequence[str | Path | None],
    *,
    as_json: bool,
    points: bool,
    overwrite: bool,
) -> None:
    """Raise for output that cannot be written, before any work."""
    if points and not as_json:
        raise ConfigError("--points adds to the output of --json, which is not given")
    if as_json and images.get("-o") == STDOUT:
        raise ConfigError("--json and -o - both write to stdout: give -o a file")
    given = {option: path for option, path in images.items() if (option, path) != ("-o", STDOUT)}
    for option, path in given.items():
        options.check_file(option, path, ENDINGS.get(option), overwrite=overwrite, inputs=inputs)
        if list(given.values()).count(path) > 1:
            raise ConfigError(f"{option} {path}: two options name this file; rename one")
        if not is_folder(path.absolute().parent):
            raise ConfigError(f"{option} {path}: no such folder; create it first")


class Drawn(NamedTuple):
    """What pictures are made from: names, images, the result, and the options of `-o`."""

    a: str
    b: str
    image_a: SourceImage
    image_b: SourceImage
    result: Registration
    canvas: bool
    quality: int | None
    fill: float | None


def _draw(paths: Mapping[str, Path], drawn: Drawn) -> None:
    from tiepoint.images import encoding
    from tiepoint.registration import warping

    images = drawn.image_a, drawn.image_b, drawn.result
    for option, path in paths.items():
        if option == "--overlay":
            encoding.write_picture(path, warping.overlay(*images))
        elif option == "--checkerboard":
            encoding.write_picture(path, warping.checkerboard(*images))
        else:
            _write_aligned(path, drawn)


def _write_aligned(path: Path, drawn: Drawn) -> None:
    """The image of `-o`, with what its file carries."""
    from tiepoint.images import encoding
    from tiepoint.registration import aligned

    picture, carried = aligned.picture_of(
        drawn.a, drawn.b, drawn.result, blended=drawn.canvas, fill=drawn.fill,
        images=(drawn.image_a, drawn.image_b),
    )  # fmt: skip
    if path == STDOUT:
        write_stdout(encoding.encoded_picture(picture, None, carried))
        return
    quality = drawn.quality or encoding.DEFAULT_QUALITY
    encoding.write_picture(path, picture, carried, quality=quality)


def _check_options(
    model: str,
    written: str,
    out: Path | None,
    *,
    canvas: bool,
    quality: int | None,
    fill: float | None,
) -> None:
    """Raise for options that contradict each other, before any work."""
    if written and model in TWO_VIEW_MODELS:
        raise ConfigError(f"--model {model} warps no image: leave out {written}")
    given = {"--canvas": canvas, "--quality": quality is not None, "--fill": fill is not None}
    for option in (name for name, is_given in given.items() if is_given and out is None):
        raise ConfigError(f"{option} changes the image of -o, which is not given")
    if quality is not None and out is not None and out.suffix.lower() not in LOSSY_ENDINGS:
        raise ConfigError(f"--quality is for {', '.join(LOSSY_ENDINGS)}, and -o is {out}: drop it")


def _check_pixels(image_a: SourceImage, out: Path | None, fill: float | None) -> None:
    """Raise for a file that does not hold the pixels of A, or a fill outside their range."""
    from tiepoint.images.encoding import check_depth
    from tiepoint.images.metadata import Metadata
    from tiepoint.registration.aligned import fill_value

    if out not in (None, STDOUT):
        check_depth(out, image_a.pixels.dtype)
        fill_value(Metadata(), image_a.pixels.dtype, fill)


def _print_json(
    a: str,
    b: str,
    result: Registration,
    config: RegistrationConfig,
    cameras: Sequence[Any] | None,
    *,
    points: bool,
) -> None:
    from tiepoint.images.urls import without_credentials
    from tiepoint.registration.record import record_json

    names = without_credentials(a), without_credentials(b)
    values = record_json(*names, result, config, points=points)
    if cameras is not None:
        values["intrinsics"] = cameras
    typer.echo(json.dumps(values, ensure_ascii=False))


def _sentence(result: Registration) -> str:
    inliers, model = int(result.inliers.sum()), MODELS[result.model].phrase
    sentence = (
        f"registered: {inliers} of {len(result.matches)} matches fit {model}, "
        f"median error {result.reprojection_px.median:.2f} px"
    )
    if result.model in TWO_VIEW_MODELS:
        return sentence
    return (
        f"{sentence}; standard deviation {result.overlap_sd_px:.2f} px over the overlap, "
        f"coverage {result.coverage:.0%}"
    )

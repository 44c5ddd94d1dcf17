"""`tiepoint register`: two images -> the first laid over the second, or the reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.config import Model as ModelName
from tiepoint.config import RegistrationConfig
from tiepoint.errors import ConfigError, ImageError
from tiepoint.registration.models import MODELS, PLANE_MODELS, TWO_VIEW_MODELS

if TYPE_CHECKING:
    from tiepoint.registration.result import Registration

app = typer.Typer(add_completion=False, rich_markup_mode=None)

DEFAULTS = RegistrationConfig()
PICTURE_ENDINGS = (".png", ".tif", ".tiff")
STDOUT = Path("-")

ImageA = Annotated[str, typer.Argument(metavar="A", help="The image to be moved; a path or URL.")]
ImageB = Annotated[str, typer.Argument(metavar="B", help="The image that stays.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Write A as B would show it: .png, or .tif for floats."),
]
WholeCanvas = Annotated[
    bool,
    typer.Option("--canvas", help="In OUT: both images whole, one fading into the other."),
]
Overlay = Annotated[
    Path | None,
    typer.Option(help="Write A in red over B in cyan as .png: what lines up is grey."),
]
Checkerboard = Annotated[
    Path | None, typer.Option(help="Write squares of A and B in turn, as .png.")
]
Json = Annotated[
    Path | None,
    typer.Option("--json", help="Write matrix, figures and reason to this file; - prints them."),
]
Model = Annotated[
    ModelName,
    typer.Option(help=f"{', '.join(PLANE_MODELS)}; or without pictures: fundamental, essential."),
]
Intrinsics = Annotated[
    str | None,
    typer.Option(
        metavar="FX,FY,CX,CY",
        help="For essential: the camera of both images, px; 8 numbers for A and B.",
    ),
]
MaxKeypoints = Annotated[int, typer.Option(min=1, help="Match the best so many of each image.")]
ThresholdPx = Annotated[
    float | None,
    typer.Option(metavar="PX", help="A match this near the model fits; else the model's own."),
]
MinInliers = Annotated[int, typer.Option(min=1, help="Fewer matches that fit are refused.")]
Guided = Annotated[
    bool,
    typer.Option(
        "--guided/--not-guided", help="Match once more near where a plane model that holds says."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Another seed, another search.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]


@app.command()
def register(
    a: ImageA,
    b: ImageB,
    out: Out = None,
    canvas: WholeCanvas = False,
    overlay: Overlay = None,
    checkerboard: Checkerboard = None,
    as_json: Json = None,
    model: Model = DEFAULTS.model,
    intrinsics: Intrinsics = None,
    max_keypoints: MaxKeypoints = DEFAULTS.max_keypoints,
    threshold_px: ThresholdPx = DEFAULTS.threshold_px,
    min_inliers: MinInliers = DEFAULTS.min_inliers,
    guided: Guided = DEFAULTS.guided,
    seed: Seed = DEFAULTS.seed,
    overwrite: Overwrite = False,
    checkpoint: options.CheckpointAlone = options.CHECKPOINT,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    max_side: options.MaxSide = options.MAX_SIDE,
    scales: options.Scales = None,
) -> None:
    """Bring image A into line with image B, and say how well; or say why they do not line up.

    Exit status: 0 registered, 2 wrong usage, 3 an image cannot be read, 4 not registered: then
    no picture is written, and --json says why.
    """
    pictures = [path for path in (out, overlay, checkerboard) if path is not None]
    _check(out, overlay, checkerboard, as_json, overwrite=overwrite)
    config = RegistrationConfig(
        model=model, max_keypoints=max_keypoints, threshold_px=threshold_px,
        min_inliers=min_inliers, guided=guided, seed=seed,
    )  # fmt: skip
    _check_pictures(pictures, model, whole=canvas and out is None)
    cameras = _cameras(intrinsics)
    side = options.parse_max_side(max_side)
    from tiepoint.detector import Detector
    from tiepoint.images.reading import read
    from tiepoint.registration import register as registration

    detector = Detector(
        checkpoint, engine=engine, device=device, precision=precision, max_side=side,
        threshold=0.0, **options.given(scales=options.parse_scales(scales)),
    )  # fmt: skip
    try:
        pixels_a, pixels_b = read(a).pixels, read(b).pixels
    except ImageError as error:
        _stop(str(error), exit_codes.NOTHING_READABLE)
    result = registration.register(
        pixels_a, pixels_b, detector=detector, intrinsics=cameras, config=config
    )
    if as_json is not None:
        _write_json(as_json, result, a, b)
    if not result.success:
        left = f"; nothing was written to {_named(pictures)}" if pictures else ""
        _stop(f"not registered: {result.reason}{left}", exit_codes.NOT_REGISTERED)
    _draw(pixels_a, pixels_b, result, out, overlay, checkerboard, canvas=canvas)
    typer.echo(_sentence(result), err=as_json == STDOUT)


def _check_pictures(pictures: list[Path], model: str, *, whole: bool) -> None:
    if pictures and model in TWO_VIEW_MODELS:
        raise ConfigError(f"--model {model} moves no image: leave out {_named(pictures)}")
    if whole:
        raise ConfigError("--canvas is about the picture of -o, which is not given")


def _check(
    out: Path | None,
    overlay: Path | None,
    checkerboard: Path | None,
    as_json: Path | None,
    *,
    overwrite: bool,
) -> None:
    """Raise for a name that cannot be written, before any work."""
    named = [("-o", out), ("--overlay", overlay), ("--checkerboard", checkerboard)]
    for option, path in named:
        endings = PICTURE_ENDINGS if option == "-o" else (".png",)
        if path is not None and path.suffix.lower() not in endings:
            raise ConfigError(
                f"{option} {path}: the ending picks the format, one of {', '.join(endings)}"
            )
    files = [*named, ("--json", None if as_json == STDOUT else as_json)]
    seen: set[Path] = set()
    for option, path in files:
        if path is None:
            continue
        if path in seen:
            raise ConfigError(f"{option} {path}: two files of one name; rename one")
        seen.add(path)
        if path.exists() and (not overwrite or path.is_dir()):
            raise ConfigError(f"{option} {path} is there already: another name, or --overwrite")
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"{option} {path}: no such folder; make it first")


def _cameras(text: str | None) -> list[list[list[float]]] | None:
    """Four numbers, or eight, as one camera matrix for each image."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (4, 8):
        raise ConfigError(
            f"--intrinsics is {text!r}, expected FX,FY,CX,CY of both images, or of A and then of B"
        )
    cameras = [numbers[:4], numbers[-4:]]
    return [[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] for fx, fy, cx, cy in cameras]


def _draw(
    pixels_a: Any,
    pixels_b: Any,
    result: Registration,
    out: Path | None,
    overlay: Path | None,
    checkerboard: Path | None,
    *,
    canvas: bool,
) -> None:
    from tiepoint.registration import warping

    if out is not None:
        if canvas:
            picture = warping.blend(*warping.alike(pixels_a, pixels_b), result)
        else:
            picture = warping.warp(pixels_a, result)
        warping.write_picture(out, picture)
    if overlay is not None:
        warping.write_picture(overlay, warping.overlay(pixels_a, pixels_b, result))
    if checkerboard is not None:
        warping.write_picture(checkerboard, warping.checkerboard(pixels_a, pixels_b, result))


def _write_json(path: Path, result: Registration, a: str, b: str) -> None:
    import json

    from tiepoint.files import write_bytes

    text = json.dumps({"a": a, "b": b, **result.summary()}, ensure_ascii=False)
    if path == STDOUT:
        typer.echo(text)
    else:
        write_bytes(path, f"{text}\n".encode())


def _sentence(result: Registration) -> str:
    inliers, name = int(result.inliers.sum()), MODELS[result.model].phrase
    found = f"{inliers} of {len(result.matches)} matches fit {name}"
    off = f"median {result.reprojection_px.median:.2f} px off"
    if result.model in TWO_VIEW_MODELS:
        return f"registered: {found}, {off}"
    known = f"the common view is known to {result.overlap_sd_px:.2f} px"
    return f"registered: {found}, {off}; {known}, {result.coverage:.0%} of it covered"


def _named(paths: list[Path]) -> str:
    return ", ".join(map(str, paths))


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(f"tiepoint: {message}", err=True)
    raise typer.Exit(code)

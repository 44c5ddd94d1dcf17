"""`tiepoint export`: a checkpoint -> an ONNX file or a torch archive for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.evaluate_options import Matching
from tiepoint.cli.output import show
from tiepoint.cli.sample_options import Count, Photos, Seed, load_images
from tiepoint.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(add_completion=False, rich_markup_mode=None)

SETTINGS = ("max_keypoints", "threshold", "nms_radius", "border", "scales", "phases")

ENDINGS = (".onnx", ".pt2")

Output = Annotated[
    Path, typer.Argument(metavar="MODEL", help="File to write: .onnx, or .pt2 of torch.export.")
]
ProfileName = Annotated[
    Literal["generic", "colmap", "opencv"],
    typer.Option(
        help="Inputs and outputs. generic: px, fixed size, a count; colmap: ALIKED and LightGlue "
        "of COLMAP 4; opencv: cv2.ALIKED and cv2.LightGlueMatcher of OpenCV 5."
    ),
]
MatcherName = Annotated[
    str | None,
    typer.Option(
        "--matcher",
        metavar="DIR",
        help="Export this learned matcher in place of the detector: its folder, or the folder or "
        "name of a checkpoint with one.",
    ),
]
Detection = Annotated[dict[str, Any], options.detection(*SETTINGS)]


@options.command(
    app,
    "tiepoint export keypoints.onnx --max-keypoints 2000",
    "tiepoint export keypoints.pt2 -c small",
    "tiepoint export colmap.onnx --profile colmap",
    "tiepoint export opencv.onnx -c small --profile opencv",
    "tiepoint export matcher.onnx --matcher my_matcher --profile colmap",
)
def export(
    output: Output,
    *,
    settings: Detection,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    matcher: MatcherName = None,
    matching: Matching,
    profile: ProfileName = "generic",
    photos: Photos = None,
    count: Count = 4,
    seed: Seed = 0,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Export a checkpoint as one file, from the image to its keypoints; or a matcher.

    MODEL.onnx is an ONNX file, MODEL.pt2 a torch.export archive. The file is written if ONNX
    Runtime and OpenVINO, or torch, find the keypoints of `tiepoint detect` with it in the sample
    images. Without a number of keypoints, it has 1000. With --matcher the file
    has a learned matcher, from keypoints of two images to their matches; --threshold is then the
    least probability of a match. Exit status: 0 done, 1 results differ, 2 wrong usage.
    """
    from tiepoint.cli.report import complain
    from tiepoint.export.write import export_matcher_onnx, export_onnx, export_torch

    _check_settings(matcher, settings, matching)
    options.check_file("MODEL", output, ENDINGS, overwrite=overwrite)
    is_archive = output.suffix.lower() == ".pt2"
    if is_archive:
        _check_archive(output, matcher, profile)
    images = _varied(load_images(photos, count, seed))
    try:
        agreements: Sequence[object]
        if is_archive:
            agreements = export_torch(
                output, checkpoint, images=images, threads=threads, **settings
            )
        elif matcher is None:
            agreements = export_onnx(
                output, checkpoint, profile=profile, images=images, threads=threads, **settings
            )
        else:
            agreements = export_matcher_onnx(
                output, matcher, profile=profile, images=images, threads=threads,
                checkpoint=None if checkpoint == options.CHECKPOINT else checkpoint,
                layers=matching.get("layers"), **settings,
            )  # fmt: skip
    except EngineError as error:
        complain(str(error))
        raise typer.Exit(exit_codes.FAILED) from error
    for agreement in agreements:
        show(str(agreement))
    show(f"wrote {output}")


def _check_settings(
    matcher: str | None, settings: Mapping[str, Any], matching: Mapping[str, Any]
) -> None:
    """Refuse options of the detector for a matcher, and the other way round."""
    if matcher is None and matching:
        raise ConfigError("layers needs --matcher: only a learned matcher has such layers")
    unused = [name for name in settings if name != "threshold"]
    if matcher is not None and unused:
        raise ConfigError(f"{', '.join(unused)} cannot be given with --matcher: it detects nothing")


def _check_archive(output: Path, matcher: str | None, profile: str) -> None:
    """Refuse what only ONNX files can have."""
    if matcher is not None:
        raise ConfigError(f"{output}: a matcher is exported as an ONNX file; give a name in .onnx")
    if profile != "generic":
        raise ConfigError(
            f"{output}: profile {profile} is a contract of ONNX files; give a name in .onnx, or "
            "omit --profile"
        )


def _varied(images: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Grey images in odd sizes, every second one in colour."""
    import numpy as np

    for index, image in enumerate(images):
        grey = image[: -1 - 2 * index or None, : -3 - 4 * index or None]
        yield grey if index % 2 else np.stack([grey, grey // 2, 255 - grey], axis=2)

"""`tiepoint export`: a checkpoint -> an ONNX file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import show
from tiepoint.cli.sample_options import Count, Photos, Seed, load_images
from tiepoint.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(add_completion=False, rich_markup_mode=None)

SETTINGS = ("max_keypoints", "threshold", "nms_radius", "border", "scales", "phases")

ENDINGS = (".onnx",)

Output = Annotated[Path, typer.Argument(metavar="MODEL", help="File to write, ending in .onnx.")]
ProfileName = Annotated[
    Literal["generic", "colmap", "opencv"],
    typer.Option(
        help="Inputs and outputs. generic: px, fixed size, a count; colmap: ALIKED of COLMAP 4; "
        "opencv: cv2.ALIKED of OpenCV 5."
    ),
]
Detection = Annotated[dict[str, Any], options.detection(*SETTINGS)]


@options.command(
    app,
    "tiepoint export keypoints.onnx --max-keypoints 2000",
    "tiepoint export colmap.onnx --profile colmap",
    "tiepoint export opencv.onnx -c small --profile opencv",
)
def export(
    output: Output,
    *,
    settings: Detection,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    profile: ProfileName = "generic",
    photos: Photos = None,
    count: Count = 4,
    seed: Seed = 0,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Export a checkpoint as one ONNX file, from the image to its keypoints.

    The file is written if ONNX Runtime and OpenVINO find the keypoints of `tiepoint detect` with
    it in the sample images. Without a number of keypoints, it has 1000. Exit status: 0 done,
    1 keypoints differ, 2 wrong usage.
    """
    from tiepoint.cli.report import complain
    from tiepoint.export.write import export_onnx

    options.check_file("MODEL", output, ENDINGS, overwrite=overwrite)
    images = _varied(load_images(photos, count, seed))
    try:
        agreements = export_onnx(
            output, checkpoint, profile=profile, images=images, threads=threads, **settings
        )
    except EngineError as error:
        complain(str(error))
        raise typer.Exit(exit_codes.FAILED) from error
    for agreement in agreements:
        show(str(agreement))
    show(f"wrote {output}")


def _varied(images: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Grey images in odd sizes, every second one in colour."""
    import numpy as np

    for index, image in enumerate(images):
        grey = image[: -1 - 2 * index or None, : -3 - 4 * index or None]
        yield grey if index % 2 else np.stack([grey, grey // 2, 255 - grey], axis=2)

"""`tiepoint view`: images, features, stores and registrations in the browser."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tiepoint.cli import options
from tiepoint.cli.output import show
from tiepoint.config import DetectionOptions, RegistrationConfig, RegistrationOptions

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Images, folders or globs; features files or a store; registrations of `tiepoint "
        "register --json`; or two features files and their matches. Two images are a pair.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder of the images of features, if they are not where the features state.",
    ),
]
Port = Annotated[
    int, typer.Option(metavar="N", min=0, max=65535, help="Port of the page; 0 takes a free one.")
]
NoBrowser = Annotated[
    bool, typer.Option("--no-browser", help="Print the URL of the page and open nothing.")
]
Settings = Annotated[
    RegistrationOptions,
    options.Settings(RegistrationConfig, only=("model", "method", "threshold_px", "min_inliers")),
]
Detection = Annotated[
    DetectionOptions,
    options.detection("max_side", "scales", "max_keypoints", "nms_radius", "contrast"),
]


@options.command(
    app,
    "tiepoint view photo.jpg",
    "tiepoint view a.jpg b.jpg --model fundamental",
    "tiepoint view features.store --images photos",
    "tiepoint register a.jpg b.jpg --json > registration.json && tiepoint view registration.json",
)
def view(
    inputs: Inputs,
    *,
    images: Images = None,
    port: Port = 0,
    no_browser: NoBrowser = False,
    registration: Settings,
    intrinsics: options.Intrinsics = None,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    detection: Detection,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    threads: options.Threads = None,
) -> None:
    """Show keypoints, matches and registrations in the browser, until Ctrl-C.

    A process on this machine serves the page at 127.0.0.1. The printed URL contains a token,
    without which nothing is shown.
    """
    from tiepoint.detector import Detector
    from tiepoint.service.settings import check_installed

    check_installed("tiepoint view")
    from tiepoint.service.server import listen
    from tiepoint.service.view import serving
    from tiepoint.service.view.guard import Guard
    from tiepoint.service.view.inputs import open_session

    make_detector = partial(
        Detector, checkpoint, engine=engine, device=device, precision=precision, threads=threads,
        **detection,
    )  # fmt: skip
    config = RegistrationConfig(**registration)
    session = open_session(
        inputs, images=images, config=config, intrinsics=options.cameras(intrinsics),
        make_detector=make_detector,
    )  # fmt: skip
    for note in session.notes:
        show(f"tiepoint: {note}", on_stderr=True)
    with listen(serving.ADDRESS, port) as bound:
        guard = Guard(bound.getsockname()[1])
        print(guard.url, flush=True)
        show("Ctrl-C ends it", on_stderr=True)
        if not no_browser:
            serving.open_browser(guard)
        serving.serve(session, bound, guard)

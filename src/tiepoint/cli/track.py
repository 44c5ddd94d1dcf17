"""`tiepoint track`: keypoints of a video, matched over time into tracks."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import show
from tiepoint.cli.progress import with_progress
from tiepoint.cli.report import complain, stop
from tiepoint.config import DetectionOptions, TrackingConfig, TrackingOptions
from tiepoint.errors import ConfigError, ImageError, OutputError
from tiepoint.files.paths import is_file, is_folder, is_same

if TYPE_CHECKING:
    from tiepoint.detector import Detector
    from tiepoint.tracking.result import TrackedFrame

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Video = Annotated[
    str,
    typer.Argument(
        metavar="VIDEO",
        help="A video file, a folder of images, a URL of a stream, or camera (camera:1, ...).",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="FILE.h5", help="Write the tracks.")
]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE.mp4", help="Write the video with its tracks drawn as trails."),
]
Keyframes = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write the keyframes as DIR/000012.png, by frame number."),
]
Rerun = Annotated[
    Path | None,
    typer.Option(metavar="FILE.rrd", help="Write frames and tracks for the viewer of Rerun."),
]
MaxFrames = Annotated[
    int | None,
    typer.Option(metavar="N", help="End after this number of frames.", min=1, show_default="all"),
]
Mask = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Mask of all frames; black pixels are excluded."),
]
Tracking = Annotated[TrackingOptions, options.Settings(TrackingConfig)]
Detection = Annotated[
    DetectionOptions,
    options.detection(
        "max_side", "scales", "phases", "max_keypoints", "threshold", "nms_radius", "contrast"
    ),
]


class Outputs(NamedTuple):
    """The files of a run; None for those that are not wanted."""

    out: Path | None
    plot: Path | None
    keyframes: Path | None
    rrd: Path | None


@options.command(
    app,
    "tiepoint track video.mp4 -o tracks.h5 --plot tracks.mp4",
    "tiepoint track frames/ -o tracks.h5 --keyframes keyframes",
    "tiepoint track camera --max-frames 300 -c small -o tracks.h5",
)
def track(
    video: Video,
    *,
    out: Out = None,
    plot: Plot = None,
    keyframes: Keyframes = None,
    rrd: Rerun = None,
    max_frames: MaxFrames = None,
    mask: Mask = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    tracking: Tracking,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    detection: Detection,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    threads: options.Threads = None,
) -> None:
    """Track the keypoints of a video: one id for each physical point, in each frame that shows it.

    Exit status: 0 all frames tracked, 1 some frames are broken, 2 wrong usage, 3 nothing
    readable, 130 interrupted: the files have the frames up to there.
    """
    outputs = Outputs(out, plot, keyframes, rrd)
    _check(outputs, video, mask, as_json=as_json, overwrite=overwrite)
    config = TrackingConfig(**tracking)
    from tiepoint.tracking.track import track as tracked
    from tiepoint.tracking.track import tracking_detector

    try:
        detector = tracking_detector(
            checkpoint, engine=engine, device=device, precision=precision, threads=threads,
            **detection,
        )  # fmt: skip
        is_stored = is_folder(video) or is_file(video)
        frames = tracked(
            video, detector=detector, read_ahead=is_stored, mask=mask, config=config
        )  # fmt: skip
    except ImageError as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    summary = Summary()
    try:
        with ExitStack() as files:
            sinks = _sinks(outputs, video, config, detector, files)
            _follow(
                islice(frames, max_frames), [*sinks, _print_json] if as_json else sinks, summary
            )
    except ImageError as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    except OutputError as error:
        stop(f"stopped after {summary.frames} frames: {error}", exit_codes.FAILED)
    except KeyboardInterrupt:
        stop(f"interrupted; the files have {summary.frames} frames", exit_codes.INTERRUPTED)
    show(summary.sentence(), on_stderr=as_json)
    if summary.frames and summary.broken == summary.frames:
        raise typer.Exit(exit_codes.NOTHING_READABLE)
    raise typer.Exit(exit_codes.FAILED if summary.broken else exit_codes.DONE)


def _follow(
    frames: Iterator[TrackedFrame],
    sinks: Sequence[Callable[[TrackedFrame], None]],
    summary: Summary,
) -> None:
    """Pass each frame to all sinks."""

    def run(advance: Callable[[], None]) -> None:
        for frame in frames:
            summary.add(frame)
            for sink in sinks:
                sink(frame)
            advance()

    with_progress("frames", None, run)


def _check(
    outputs: Outputs, video: str, mask: Path | None, *, as_json: bool, overwrite: bool
) -> None:
    """Raise for output that cannot be written, before any work."""
    from tiepoint.images.video_writing import VIDEO_ENDINGS

    if not as_json and not any(outputs):
        raise ConfigError("nothing to write: give -o FILE.h5, --plot, --keyframes, --rrd or --json")
    endings = {"-o": (".h5",), "--plot": VIDEO_ENDINGS, "--rrd": (".rrd",)}
    paths = {"-o": outputs.out, "--plot": outputs.plot, "--rrd": outputs.rrd}
    for option, path in paths.items():
        if path is None:
            continue
        options.check_file(option, path, endings[option], overwrite=overwrite, inputs=[video, mask])
        if not is_folder(path.absolute().parent):
            raise ConfigError(f"{option} {path}: no such folder; create it first")
    if outputs.keyframes is not None:
        _check_keyframes(outputs.keyframes, video, overwrite=overwrite)


def _check_keyframes(folder: Path, video: str, *, overwrite: bool) -> None:
    """Raise for a folder whose images are the input, or of an earlier run."""
    from tiepoint.images.photographs import is_image_name

    if is_same(folder, video):
        raise ConfigError(f"--keyframes {folder} is the folder of the frames; name another folder")
    if not is_folder(folder) or not any(is_image_name(path.name) for path in folder.iterdir()):
        return
    if not overwrite:
        raise ConfigError(
            f"--keyframes {folder} has images; name another folder, or give --overwrite"
        )
    complain(f"--keyframes {folder}: images of other names stay there")


def _sinks(
    outputs: Outputs, video: str, config: TrackingConfig, detector: Detector, files: ExitStack
) -> list[Callable[[TrackedFrame], None]]:
    """What is done with each frame; `files` closes the files."""
    sinks: list[Callable[[TrackedFrame], None]] = []
    if outputs.out is not None:
        from tiepoint.tracking.tracks_file import TracksWriter

        writer = TracksWriter(outputs.out, video, config, detector.provenance())
        sinks.append(files.enter_context(writer).add)
    if outputs.plot is not None:
        sinks.append(_painted(outputs.plot, files))
    if outputs.keyframes is not None:
        sinks.append(_keyframes_in(outputs.keyframes))
    if outputs.rrd is not None:
        from tiepoint.tracking.rerun_log import RerunLog

        sinks.append(files.enter_context(RerunLog(outputs.rrd)).add)
    return sinks


def _painted(path: Path, files: ExitStack) -> Callable[[TrackedFrame], None]:
    from tiepoint.images.video_writing import VideoWriter
    from tiepoint.tracking.drawing import TrailPainter

    painter, video = TrailPainter(), files.enter_context(VideoWriter(path))

    def draw(frame: TrackedFrame) -> None:
        picture = painter(frame)
        if picture is not None:
            video.add(picture, frame.time_s)

    return draw


def _keyframes_in(folder: Path) -> Callable[[TrackedFrame], None]:
    from tiepoint.files.writing import make_folder
    from tiepoint.images.encoding import write_picture
    from tiepoint.images.reading import read

    make_folder(folder)

    def write(frame: TrackedFrame) -> None:
        if frame.is_keyframe:
            write_picture(folder / f"{frame.index:06d}.png", read(frame.source).pixels)

    return write


def _print_json(frame: TrackedFrame) -> None:
    values = {
        "frame": frame.index,
        "time_s": None if frame.time_s != frame.time_s else round(frame.time_s, 6),
        "tracks": len(frame),
        "new": int((frame.ages == 1).sum()),
        "static": int(frame.static.sum()),
        "keyframe": frame.is_keyframe,
        "cut": frame.is_cut,
        "error": None if frame.error is None else str(frame.error),
    }
    print(json.dumps(values, ensure_ascii=False), flush=True)


class Summary:
    """Counts what was tracked."""

    def __init__(self) -> None:
        self.frames = self.broken = 0
        self._counts: Counter[str] = Counter()
        self._start = time.perf_counter()

    def add(self, frame: TrackedFrame) -> None:
        """Count a frame; a broken one is reported."""
        self.frames += 1
        if frame.error is not None:
            self.broken += 1
            complain(f"frame {frame.index}: {frame.error}")
        self._counts["points"] += len(frame)
        self._counts["tracks"] += int((frame.ages == 1).sum())
        self._counts["keyframes"] += frame.is_keyframe
        self._counts["cuts"] += frame.is_cut

    def sentence(self) -> str:
        """The figures in one line."""
        seconds = time.perf_counter() - self._start
        counts = self._counts
        length = counts["points"] / max(1, counts["tracks"])
        broken = f" ({self.broken} broken)" if self.broken else ""
        cuts = f", {counts['cuts']} cuts" if counts["cuts"] else ""
        return (
            f"{self.frames} frames{broken}, {counts['tracks']} tracks of {length:.1f} frames on "
            f"average, {counts['keyframes']} keyframes{cuts} in {seconds:.1f} s "
            f"({self.frames / max(seconds, 1e-9):.1f} frames/s)"
        )

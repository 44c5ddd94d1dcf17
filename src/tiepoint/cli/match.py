"""`tiepoint match`: two images or features files, or many pairs of a features .h5 file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import STDOUT, show, write_stdout
from tiepoint.cli.pairs import checked_choice, choose
from tiepoint.cli.report import pair_report, stop
from tiepoint.config import (
    DetectionOptions,
    DeviceName,
    MatchingConfig,
    MatchingOptions,
    PairConfig,
)
from tiepoint.errors import ConfigError, FormatError, ImageError, OutputError
from tiepoint.files.paths import is_folder

if TYPE_CHECKING:
    from tiepoint.batch.pair_choice import ChosenPairs
    from tiepoint.detector import Detector
    from tiepoint.features import Features
    from tiepoint.matching.learned.matcher import LearnedMatcher

app = typer.Typer(add_completion=False, rich_markup_mode=None)

MATCHES_ENDINGS, COLLECTION_ENDING = (".npz", ".csv", ".parquet"), ".h5"

Images = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="A B", help="Two images, or features files of one image: .npz, .json or .h5."
    ),
]
FeaturesFile = Annotated[
    Path | None,
    typer.Option(
        "--features",
        metavar="PATH",
        help="Match pairs of the images in this .h5 file, store or folder of features files.",
    ),
]
PairsOut = Annotated[
    Path | None,
    typer.Option(
        "--pairs-out",
        metavar="FILE.txt",
        help="Write the names of the chosen pairs, two per line, as hloc reads them. Without -o "
        "nothing is matched.",
    ),
]
ImageFolder = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="Folder of the images, whose EXIF blocks 'gps' reads.",
        show_default="their paths at detection",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Matches: .npz, or a table with positions as .csv or .parquet, of two images; .h5 of "
        "many (as hloc); - writes the .npz to stdout.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot", metavar="FILE.png", help="Draw A and B side by side, with lines between matches."
    ),
]
MatchingDevice = Annotated[
    DeviceName,
    typer.Option(metavar="NAME", parser=str, help="Device for matching: cpu, cuda or cuda:N."),
]
Pairing = Annotated[dict[str, Any], options.Settings(PairConfig)]
Matching = Annotated[MatchingOptions, options.Settings(MatchingConfig)]
Detection = Annotated[
    DetectionOptions,
    options.detection(*options.OF_KEYPOINTS),
]


class Means(NamedTuple):
    """What images are matched with."""

    config: MatchingConfig
    matcher: LearnedMatcher | None
    device: DeviceName


_GEOMETRIES = {
    "planar or panoramic": "{} of them fit one homography",
    "uncalibrated": "{} of them fit two views of a scene with depth",
    "calibrated": "{} of them fit two views of a scene with depth",
    "degenerate": "which agree on no geometry",
}
"""What is printed of the geometry between two images, with the number of inliers."""


@options.command(
    app,
    "tiepoint match a.jpg b.jpg --plot matches.png",
    "tiepoint match a.jpg b.jpg -o matches.csv",
    "tiepoint match a.jpg b.jpg --method learned --matcher runs/matcher",
    "tiepoint match --features features.h5 -o matches.h5",
    "tiepoint match --features features.store --pairs sequential --window 5 -o matches.h5",
    "tiepoint match --features features.store --pairs gps,similar --k 10 --pairs-out pairs.txt",
)
def match(
    images: Images = None,
    *,
    features: FeaturesFile = None,
    pairing: Pairing,
    image_folder: ImageFolder = None,
    pairs_out: PairsOut = None,
    out: Out = None,
    plot: Plot = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    matching: Matching,
    matcher: options.Matcher = None,
    matching_device: MatchingDevice = "cpu",
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    detection: Detection,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    threads: options.Threads = None,
) -> None:
    """Match the keypoints of two images, or of many pairs of images with stored features.

    A stopped run over many pairs resumes with the same command. Exit status: 0 all done, 1 some
    pairs failed, 2 wrong usage, 3 nothing readable, 130 interrupted.
    """
    pairs = checked_choice(PairConfig(**pairing))
    means = _means(MatchingConfig(**matching), matcher, matching_device, threads)
    if features is not None:
        _check_collection(features, images, plot, out, pairs_out)
        chosen = _choose(features, pairs, image_folder, threads)
        if pairs_out is not None:
            _write_pairs(pairs_out, chosen, overwrite=overwrite, as_json=as_json, alone=out is None)
        if out is None:
            raise typer.Exit(exit_codes.DONE)
        code = _match_collection(
            chosen, out, means, overwrite=overwrite, as_json=as_json, threads=threads
        )
        raise typer.Exit(code)
    for option, value in (("--images", image_folder), ("--pairs-out", pairs_out)):
        if value is not None:
            raise ConfigError(f"{option} is for many pairs: give --features PATH")
    names = _check_two(images, out, plot, overwrite=overwrite, as_json=as_json)

    def make_detector() -> Detector:
        from tiepoint.detector import Detector

        return Detector(
            checkpoint, engine=engine, device=device, precision=precision, threads=threads,
            **detection,
        )  # fmt: skip

    from tiepoint.batch.sources import load_or_detect

    try:
        a, b = load_or_detect(names, make_detector)
    except (ImageError, FormatError) as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    _match_two(names, a, b, out, plot, means, as_json=as_json)


def _means(
    config: MatchingConfig, matcher: str | None, device: DeviceName, threads: int | None
) -> Means:
    """The settings with the learned matcher, loaded before any other work."""
    from tiepoint.matching.match import check_device

    check_device(device)
    if matcher is None:
        return Means(config, None, device)
    from tiepoint.matching.learned.choice import checked_matcher

    loaded = checked_matcher(
        config.method, matcher, layers=config.layers, device=device, threads=threads
    )
    return Means(config, loaded, device)


def _match_two(
    names: Sequence[str],
    a: Features,
    b: Features,
    out: Path | None,
    plot: Path | None,
    means: Means,
    *,
    as_json: bool,
) -> None:
    from tiepoint.formats import matches_npz, matches_table, save_matches
    from tiepoint.images.urls import without_credentials
    from tiepoint.matching.match import match as match_features
    from tiepoint.registration.two_view import verify

    images = None if plot is None else (_image_of(names[0], a), _image_of(names[1], b))
    matches = match_features(a, b, **means._asdict())
    if out == STDOUT:
        write_stdout(matches_npz.encode(matches))
    elif out is not None and out.suffix.lower() in matches_table.ENDINGS:
        matches_table.save_matches_table(matches, a, b, out)
    elif out is not None:
        save_matches(matches, out)
    if images is not None:
        from tiepoint.plotting import plot_matches

        plot_matches(*images, a, b, matches, plot)
    shown = [without_credentials(name) for name in names]
    result = verify(a, b, matches)
    inliers = int(result.inliers.sum())
    if as_json:
        facts = {"image_a": shown[0], "image_b": shown[1], "keypoints": [len(a), len(b)]}
        files = {"output": out and str(out), "plot": plot and str(plot)}
        found = {"matches": len(matches), "inliers": inliers, "geometry": result.geometry}
        typer.echo(json.dumps({**facts, **found, **files}))
        return
    for name, features in zip(shown, (a, b), strict=True):
        show(f"{name}: {len(features)} keypoints", on_stderr=out == STDOUT)
    agreeing = _GEOMETRIES[result.geometry].format(inliers)
    show(f"{len(matches)} matches, {agreeing}", on_stderr=out == STDOUT)
    for path in (out, plot):
        if path not in (None, STDOUT):
            show(f"wrote {path}", on_stderr=out == STDOUT)


def _image_of(name: str, features: Features) -> str:
    from tiepoint.batch.sources import image_of

    image = image_of(name, features)
    if image is None:
        raise ConfigError(
            f"--plot: the image of {name} is no longer at its path; give the images themselves, or "
            "drop --plot"
        )
    return image


def _check_two(
    images: Sequence[str] | None,
    out: Path | None,
    plot: Path | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> Sequence[str]:
    """The names of A and B; raises for wrong arguments before any work."""
    if as_json and out == STDOUT:
        raise ConfigError("--json and -o - both write to stdout: give -o a file")
    if not images or len(images) != 2:
        raise ConfigError(
            f"expected two images or features files, got {len(images or [])}; for many pairs give "
            "--features PATH"
        )
    for option, path, endings in (("-o", out, MATCHES_ENDINGS), ("--plot", plot, (".png",))):
        if path is None or (option, path) == ("-o", STDOUT):
            continue
        options.check_file(option, path, endings, overwrite=overwrite, inputs=images)
        if path.suffix.lower() == ".parquet":
            from tiepoint.formats import features_parquet

            features_parquet.load_pyarrow()
    return images


def _check_collection(
    features: Path,
    images: Sequence[str] | None,
    plot: Path | None,
    out: Path | None,
    pairs_out: Path | None,
) -> None:
    """Raise ConfigError for wrong arguments before any work."""
    if images or plot is not None:
        raise ConfigError("--features matches many images: drop A and B, and --plot")
    if out is None and pairs_out is None:
        raise ConfigError(
            f"--features needs a file for the matches: -o NAME{COLLECTION_ENDING}, or for the "
            "pairs alone: --pairs-out NAME.txt"
        )
    if out is not None and out.suffix.lower() != COLLECTION_ENDING:
        raise ConfigError(f"--features needs a file for the matches: -o NAME{COLLECTION_ENDING}")
    if pairs_out is not None:
        options.check_file("--pairs-out", pairs_out, [".txt"], overwrite=True)
    if features.suffix.lower() != COLLECTION_ENDING and not is_folder(features):
        raise ConfigError(
            f"--features {features}: expected a {COLLECTION_ENDING} file, a store or a folder, as "
            f"written by tiepoint detect -o NAME{COLLECTION_ENDING}"
        )
    if out is not None and features.resolve() == out.resolve():
        raise ConfigError(f"-o {out} is the features file; name another file for the matches")


class _Chosen(NamedTuple):
    """Features and the pairs to match among them."""

    features: Mapping[str, Features]
    pairs: ChosenPairs


def _choose(path: Path, choice: PairConfig, images: Path | None, threads: int | None) -> _Chosen:
    """The chosen pairs; exits if there are none."""
    from tiepoint.formats.many_images import read_features

    try:
        features = read_features(path)
    except FormatError as error:
        stop(str(error), exit_codes.NOTHING_READABLE)
    pairs = choose(features, choice, images, threads)
    if not pairs:
        stop(f"{path}: no pair to match in {len(features)} images", exit_codes.NOTHING_READABLE)
    return _Chosen(features, pairs)


def _match_collection(
    chosen: _Chosen,
    out: Path,
    means: Means,
    *,
    overwrite: bool,
    as_json: bool,
    threads: int | None,
) -> int:
    """Match the images of a features file in pairs; returns the exit code."""
    from tiepoint.batch import match_pairs
    from tiepoint.files.writing import make_folder
    from tiepoint.formats import H5MatchesWriter

    features, pairs = chosen
    make_folder(out.parent, advice="choose another folder with -o")
    try:
        writer = H5MatchesWriter(out)
    except OutputError as error:  # most often another run
        stop(str(error), exit_codes.FAILED)
    try:
        with pair_report(as_json=as_json, count=lambda: len(pairs)) as report:
            records = match_pairs(
                features, pairs, writer, means.config, device=means.device,
                matcher=means.matcher, overwrite=overwrite, threads=threads,
            )  # fmt: skip
            report.follow(records)
    finally:
        writer.suspend()  # an interrupted run resumes from its journal
    return report.exit_code


def _write_pairs(
    path: Path, chosen: _Chosen, *, overwrite: bool, as_json: bool, alone: bool
) -> None:
    """Write the names of the pairs; a resumed run finds its own file.

    Args:
        alone: Whether nothing is matched, so that the counts are printed.
    """
    from tiepoint.files.paths import is_file
    from tiepoint.files.writing import write_bytes
    from tiepoint.matching.pairing import pairs_text

    content = pairs_text(chosen.pairs).encode()
    if is_file(path) and not overwrite and path.read_bytes() != content:
        raise ConfigError(
            f"--pairs-out {path} exists and has other pairs; name another file, or give --overwrite"
        )
    write_bytes(path, content)
    images, pairs = len(chosen.features), len(chosen.pairs)
    if alone and as_json:
        typer.echo(json.dumps({"images": images, "pairs": pairs, "output": str(path)}))
    elif alone:
        show(f"wrote {pairs} pairs of {images} images to {path}")

"""`tiepoint match`: two images or features files, or all pairs of a features .h5 file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.config import DeviceName, MatchingConfig
from tiepoint.errors import ConfigError, FormatError, ImageError, TiepointError
from tiepoint.matching.pairing import SEQUENTIAL_WINDOW, SIMILAR_IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tiepoint.detector import Detector
    from tiepoint.features import Features
    from tiepoint.formats import H5Features

app = typer.Typer(add_completion=False, rich_markup_mode=None)

ALL, SEQUENTIAL, SIMILAR = "all", "sequential", "similar"
ONE_ENDING, MANY_ENDING = ".npz", ".h5"


class Scores(StrEnum):
    """What keypoints are compared by."""

    COSINE = "cosine"
    DUAL_SOFTMAX = "dual-softmax"


class Rotations(StrEnum):
    """Whether turned images are tried."""

    AUTO = "auto"
    NONE = "none"


Images = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="A B",
        help="Two images, or features files of one image: .npz, .json or .h5.",
    ),
]
FeaturesFile = Annotated[
    Path | None, typer.Option("--features", help="A .h5 file: match its images in pairs.")
]
PairsOption = Annotated[
    str,
    typer.Option(
        "--pairs",
        metavar="WHICH",
        help=f"With --features: '{ALL}'; '{SEQUENTIAL}', in the order of the names; '{SIMILAR}', "
        "the most alike; or a text file with two names per line.",
    ),
]
Window = Annotated[
    int, typer.Option(help=f"'{SEQUENTIAL}': following images matched with each.", min=1)
]
Quadratic = Annotated[
    bool, typer.Option("--quadratic", help=f"'{SEQUENTIAL}': also those 1, 2, 4, 8, ... further.")
]
Alike = Annotated[int, typer.Option("--k", help=f"'{SIMILAR}': images matched with each.", min=1)]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Matches of two images: .npz; of many pairs: .h5 (hloc's)."),
]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="Draw A and B side by side with lines, as PNG.")
]
NotMutual = Annotated[
    bool, typer.Option("--not-mutual", help="Keep every keypoint's choice in A, unanswered too.")
]
Ratio = Annotated[
    float | None,
    typer.Option(metavar="R", help="Lowe's test on distances, 0..1, both ways; 0.8 is his own."),
]
MinSimilarity = Annotated[float | None, typer.Option(metavar="C", help="Least cosine, -1..1.")]
ScoresOption = Annotated[Scores, typer.Option(help="What keypoints are compared by.")]
Temperature = Annotated[float, typer.Option(metavar="T", help="Of the dual soft-max.")]
MinProbability = Annotated[
    float | None, typer.Option(metavar="P", help="Least probability of the dual soft-max, 0..1.")
]
RotationOption = Annotated[
    Rotations,
    typer.Option(
        "--rotation", help="'auto' also tries A turned by 45, 90, ... degrees; 'none' does not."
    ),
]
MatchingDevice = Annotated[DeviceName, typer.Option(help="Where to match: cpu, cuda or cuda:N.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results that are already there.")
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object per pair, for machines.")]


@app.command()
def match(
    images: Images = None,
    features: FeaturesFile = None,
    pairs: PairsOption = ALL,
    window: Window = SEQUENTIAL_WINDOW,
    quadratic: Quadratic = False,
    k: Alike = SIMILAR_IMAGES,
    out: Out = None,
    plot: Plot = None,
    not_mutual: NotMutual = not MatchingConfig.mutual,
    ratio: Ratio = MatchingConfig.ratio,
    min_similarity: MinSimilarity = MatchingConfig.min_similarity,
    scores: ScoresOption = Scores(MatchingConfig.scores),  # noqa: B008 - an enumeration's member
    temperature: Temperature = MatchingConfig.temperature,
    min_probability: MinProbability = MatchingConfig.min_probability,
    rotation: RotationOption = Rotations(MatchingConfig.rotation),  # noqa: B008 - likewise
    matching_device: MatchingDevice = "cpu",
    overwrite: Overwrite = False,
    as_json: Json = False,
    checkpoint: options.Checkpoint = options.CHECKPOINT,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    max_side: options.MaxSide = options.MAX_SIDE,
    scales: options.Scales = None,
    max_keypoints: options.MaxKeypoints = None,
    threshold: options.Threshold = None,
    nms_radius: options.NmsRadius = None,
    spread: options.Spread = False,
) -> None:
    """Match the keypoints of two images, or of many pairs of images in a features .h5 file.

    A stopped run over many pairs goes on when it is started again. Exit status: 0 all done, 1 some
    pairs failed, 2 wrong usage, 3 nothing readable, 130 interrupted.
    """
    config = MatchingConfig(
        not not_mutual, ratio, min_similarity, scores.value, temperature, min_probability,
        rotation.value,
    )  # fmt: skip
    if features is not None:
        _check_many(features, images, plot, out)
        assert out is not None
        which = _Which(pairs, window, quadratic, k)
        raise typer.Exit(_many(features, which, out, config, matching_device, overwrite, as_json))
    _check_two(images, out, plot, overwrite)
    assert images is not None
    side = options.parse_max_side(max_side)

    def make() -> Detector:
        from tiepoint.detector import Detector

        return Detector(
            checkpoint, engine=engine, device=device, precision=precision, max_side=side,
            spread=spread,
            **options.given(
                scales=options.parse_scales(scales), max_keypoints=max_keypoints,
                threshold=threshold, nms_radius=nms_radius,
            ),
        )  # fmt: skip

    _two(images, make, out, plot, config, matching_device, as_json)


def _two(
    names: Sequence[str],
    make: Callable[[], Detector],
    out: Path | None,
    plot: Path | None,
    config: MatchingConfig,
    device: DeviceName,
    as_json: bool,
) -> None:
    """Match two images or features files."""
    from tiepoint.formats import save_matches
    from tiepoint.matching.match import match as match_features

    try:
        a, b = _features_of(names, make)
        pictures = [_picture(name, one) for name, one in zip(names, (a, b), strict=True)]
    except (ImageError, FormatError) as error:
        _stop(str(error), exit_codes.NOTHING_READABLE)
    if plot is not None:
        _require_pictures(names, pictures)
    matches = match_features(a, b, config=config, device=device)
    if out is not None:
        save_matches(matches, out)
    if plot is not None:
        from tiepoint.plotting import plot_matches

        plot_matches(pictures[0], pictures[1], a, b, matches, plot)
    if as_json:
        facts = {"image_a": names[0], "image_b": names[1], "keypoints": [len(a), len(b)]}
        written = {"output": out and str(out), "plot": plot and str(plot)}
        typer.echo(json.dumps({**facts, "matches": len(matches), **written}))
        return
    for name, one in zip(names, (a, b), strict=True):
        typer.echo(f"{name}: {len(one)} keypoints")
    typer.echo(f"{len(matches)} matches")
    for path in (out, plot):
        if path is not None:
            typer.echo(f"wrote {path}")


def _features_of(names: Sequence[str], make: Callable[[], Detector]) -> list[Features]:
    """Read features files, and detect in images."""
    from tiepoint.formats import load

    detector = None if all(map(_is_features_file, names)) else make()
    found = []
    for name in names:
        if _is_features_file(name):
            found.append(load(name))
        else:
            assert detector is not None
            found.append(detector(name))
    return found


def _is_features_file(name: str) -> bool:
    from tiepoint.formats import ALL_FORMATS

    return Path(name).suffix.lower() in ALL_FORMATS


def _picture(name: str, features: Features) -> str | None:
    """The image to draw over; of features from a file, the one that they say they come from."""
    if not _is_features_file(name):
        return name
    source = features.meta.get("source")
    return source if isinstance(source, str) and Path(source).is_file() else None


def _require_pictures(names: Sequence[str], pictures: Sequence[str | None]) -> None:
    for name, picture in zip(names, pictures, strict=True):
        if picture is None:
            raise ConfigError(
                f"--plot: the image that {name} was made from is not where it was; give the images "
                "themselves, or drop --plot"
            )


def _check_two(
    images: Sequence[str] | None, out: Path | None, plot: Path | None, overwrite: bool
) -> None:
    """Raise for what is wrong before any work is done."""
    if not images or len(images) != 2:
        raise ConfigError(
            f"{len(images or [])} images given, expected two; for many pairs give --features "
            "FILE.h5"
        )
    for option, path, ending in (("-o", out, ONE_ENDING), ("--plot", plot, ".png")):
        if path is None:
            continue
        if path.suffix.lower() != ending:
            raise ConfigError(f"{option} {path}: the name must end in {ending}")
        if path.exists() and not overwrite:
            raise ConfigError(f"{option} {path}: is there already; give --overwrite to replace it")
        if str(path.resolve()) in [str(Path(image).resolve()) for image in images]:
            raise ConfigError(f"{option} {path}: is one of the two that are matched")


def _check_many(
    features: Path, images: Sequence[str] | None, plot: Path | None, out: Path | None
) -> None:
    if images or plot is not None:
        raise ConfigError("--features matches many images: drop A and B, and --plot")
    if out is None or out.suffix.lower() != MANY_ENDING:
        raise ConfigError(f"--features needs a file for the matches: -o NAME{MANY_ENDING}")
    if features.suffix.lower() != MANY_ENDING:
        raise ConfigError(
            f"--features {features}: expected a {MANY_ENDING} file, as tiepoint detect -o "
            f"NAME{MANY_ENDING} makes it"
        )
    if features.resolve() == out.resolve():
        raise ConfigError(f"-o {out}: is the features file; name another for the matches")


@dataclass(frozen=True)
class _Which:
    """The choice of pairs, as typed."""

    pairs: str
    window: int
    quadratic: bool
    k: int


def _many(
    path: Path,
    which: _Which,
    out: Path,
    config: MatchingConfig,
    device: DeviceName,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Match the images of a features file in pairs; returns the exit code."""
    from tiepoint.batch import match_pairs
    from tiepoint.cli.report import PairReport
    from tiepoint.files import make_folder
    from tiepoint.formats import H5MatchesWriter, read_h5
    from tiepoint.matching.match import check_device

    check_device(device)
    try:
        features = read_h5(path)
    except FormatError as error:
        _stop(str(error), exit_codes.NOTHING_READABLE)
    names = list(features)
    pairs = [(names[i], names[j]) for i, j in _pairs(features, which).tolist()]
    if not pairs:
        _stop(f"{path}: {len(names)} images give no pair to match", exit_codes.NOTHING_READABLE)
    make_folder(out.parent, advice="choose another place with -o")
    writer = H5MatchesWriter(out)
    try:
        with PairReport(as_json=as_json, count=lambda: len(pairs)) as report:
            report.follow(
                match_pairs(features, pairs, writer, config, device=device, overwrite=overwrite)
            )
    finally:
        writer.suspend()  # an interrupted run goes on from its journal
    return report.exit_code


def _pairs(features: H5Features, which: _Which) -> NDArray[np.int64]:
    """P 2 indices of images."""
    from tiepoint.matching import pairing

    names = list(features)
    if which.pairs == ALL:
        return pairing.all_pairs(len(names))
    if which.pairs == SEQUENTIAL:
        return pairing.sequential_pairs(len(names), which.window, quadratic=which.quadratic)
    if which.pairs == SIMILAR:
        return _similar(features, which.k)
    if not Path(which.pairs).is_file():
        raise ConfigError(
            f"--pairs {which.pairs}: expected '{ALL}', '{SEQUENTIAL}', '{SIMILAR}', or a text file "
            "with two names per line, and there is no such file"
        )
    return pairing.listed_pairs(which.pairs, names)


def _similar(features: H5Features, k: int) -> NDArray[np.int64]:
    """The most alike; images that cannot be read are said and stand in no pair."""
    import numpy as np

    from tiepoint.cli.report import complain
    from tiepoint.matching import pairing

    described: dict[int, NDArray[np.float32]] = {}
    for number, name in enumerate(features):
        try:
            described[number] = pairing.global_descriptor(features[name])
        except TiepointError as error:
            complain(f"left out: {error}")
    if not described:
        return np.empty((0, 2), np.int64)
    length = max(map(len, described.values()))
    table = np.zeros((len(features), length), np.float32)  # n G
    for number, descriptor in described.items():
        if len(descriptor) != length:
            raise ConfigError("the images have descriptors of different lengths: detect again")
        table[number] = descriptor
    return pairing.similar_pairs(table, k)


def _stop(message: str, code: int) -> NoReturn:
    typer.echo(f"tiepoint: {message}", err=True)
    raise typer.Exit(code)

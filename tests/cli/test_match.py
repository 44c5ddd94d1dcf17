"""`tiepoint match`: two images, two features files, and all pairs of a features file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from typer.testing import CliRunner

from support.detect_runs import COMMAND, ENVIRONMENT, files_below
from support.features_files import names_in
from support.provenance import made
from tiepoint import Detector, load_matches, save
from tiepoint import match as match_features
from tiepoint.cli import app
from tiepoint.features import Features
from tiepoint.formats import H5MatchesWriter, H5Writer, read_h5, read_matches_h5


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["match", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def views(here: Path) -> Path:
    """A picture, and the same moved by 16 px."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    picture = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
    for name, image in [("a.png", picture), ("b.png", np.roll(picture, 16, axis=1))]:
        (here / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return here


def image_features(seed: int, count: int = 40, length: int | None = 8, **changes: Any) -> Features:
    rng = np.random.default_rng(seed)
    described = None
    if length is not None:
        rows = rng.standard_normal((count, length)) + np.eye(length)[seed % length] * 2
        described = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    xy = rng.uniform(0, 100, (count, 2)).astype(np.float32)
    scores = np.sort(rng.random(count).astype(np.float32))[::-1].copy()
    return Features(xy, scores, described, (100, 100), provenance=made(**changes))


NAMES = ("left/0.jpg", "left/1.jpg", "right/2.jpg", "right/3.jpg")


@pytest.fixture
def collection(here: Path) -> Path:
    """features.h5 with four images."""
    pytest.importorskip("h5py")
    write(here / "features.h5", {name: image_features(n) for n, name in enumerate(NAMES)})
    return here


def write(path: Path, images: dict[str, Features]) -> None:
    path.unlink(missing_ok=True)
    with H5Writer(path) as writer:
        for name, features in images.items():
            writer.add(name, features)


def assert_equals_library(path: Path, features: Path, **settings: Any) -> None:
    images = read_h5(features)
    for (a, b), found in read_matches_h5(path).items():
        expected = match_features(images[a], images[b], **settings)
        np.testing.assert_array_equal(found.pairs, expected.pairs)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_two_images_are_matched_drawn_and_saved(views: Path) -> None:
    result = run("a.png", "b.png", "--plot", "out.png", "-o", "m.npz", "--max-keypoints", 100)
    assert result.exit_code == 0, result.output
    detector = Detector(max_keypoints=100)
    a, b = detector("a.png"), detector("b.png")
    expected, found = match_features(a, b), load_matches("m.npz")
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    assert f"{len(expected)} matches" in result.stdout and len(expected) > 10
    moved = (b.xy[found.pairs[:, 1]] - a.xy[found.pairs[:, 0]])[:10]
    assert np.abs(np.median(moved, axis=0) - [16, 0]).max() < 0.5
    picture = cv2.imdecode(np.fromfile("out.png", np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] > 2 * 320


def test_the_matches_that_agree_on_a_geometry_are_counted(views: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320), dtype=np.uint8)
    cv2.imwrite("noise.png", cv2.GaussianBlur(noise, None, 2))
    shifted, other = run("a.png", "b.png"), run("a.png", "noise.png", "--json")
    matches, fitting = map(
        int, re.search(r"(\d+) matches, (\d+) of them fit one hom", shifted.stdout).groups()
    )
    assert 0.9 * matches < fitting <= matches
    printed = json.loads(other.stdout)
    assert printed["geometry"] == "degenerate" and printed["inliers"] == 0
    assert "agree on no geometry" in run("a.png", "noise.png").stdout


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_matches_of_two_images_are_a_table_with_positions(views: Path, ending: str) -> None:
    pandas = pytest.importorskip("pandas")
    assert run("a.png", "b.png", "-o", f"m{ending}").exit_code == 0
    read = pandas.read_csv if ending == ".csv" else pandas.read_parquet
    table = read(f"m{ending}")
    assert len(table) > 20 and (table.x_b - table.x_a - 16).abs().median() < 0.2
    refused = run("a.png", "b.png", "-o", f"m{ending}")
    assert refused.exit_code == 2 and "--overwrite" in refused.output


def test_matches_go_to_stdout_and_words_to_stderr(views: Path) -> None:
    done = run("a.png", "b.png", "-o", "-")
    assert done.exit_code == 0 and " matches" in done.stderr
    (views / "piped.npz").write_bytes(done.stdout_bytes)
    run("a.png", "b.png", "-o", "m.npz")
    np.testing.assert_array_equal(load_matches("piped.npz").pairs, load_matches("m.npz").pairs)
    refused = run("a.png", "b.png", "-o", "-", "--json")
    assert refused.exit_code == 2 and "both write to stdout" in refused.stderr


def test_features_files_give_what_the_images_give(views: Path) -> None:
    detector = Detector()
    save(detector("a.png"), "a.npz")
    save(detector("b.png"), "b.json")
    assert run("a.png", "b.png", "-o", "images.npz", "--ratio", 0.9).exit_code == 0
    mixed = run("a.npz", "b.png", "-o", "mixed.npz", "--ratio", 0.9)
    files = run("a.npz", "b.json", "-o", "files.npz", "--ratio", 0.9, "--plot", "p.png", "--json")
    assert mixed.exit_code == files.exit_code == 0
    images = load_matches("images.npz")
    for name in ("mixed.npz", "files.npz"):
        np.testing.assert_array_equal(load_matches(name).pairs, images.pairs)
    printed = json.loads(files.stdout)
    assert printed["matches"] == len(images) and printed["output"] == "files.npz"
    assert printed["keypoints"] == images.meta["keypoints"]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], {}),
        (["--no-mutual"], {"mutual": False}),
        (["--ratio", "0.9"], {"ratio": 0.9}),
        (["--min-similarity", "0.5"], {"min_similarity": 0.5}),
        (
            ["--scores", "dual-softmax", "--temperature", "0.1", "--min-probability", "0.05"],
            {"scores": "dual-softmax", "temperature": 0.1, "min_probability": 0.05},
        ),
    ],
)
def test_every_option_does_what_the_library_does(
    collection: Path, options: list[str], settings: dict[str, Any]
) -> None:
    result = run("--features", "features.h5", "-o", "m.h5", *options)
    assert result.exit_code == 0, result.output
    assert len(read_matches_h5("m.h5")) == 6
    assert_equals_library(collection / "m.h5", collection / "features.h5", **settings)


def pairs_of(path: str) -> set[tuple[int, int]]:
    return {(NAMES.index(a), NAMES.index(b)) for a, b in read_matches_h5(path)}


def test_pairs_are_chosen_as_asked(collection: Path) -> None:
    (collection / "pairs.txt").write_text("right/3.jpg left/1.jpg\n")
    common = ("--features", "features.h5", "--pairs")
    assert run(*common, "sequential", "--window", 1, "-o", "s.h5").exit_code == 0
    assert pairs_of("s.h5") == {(0, 1), (2, 3)}  # each folder is a sequence
    assert run(*common, "sequential", "--window", 2, "--quadratic", "-o", "q.h5").exit_code == 0
    assert pairs_of("q.h5") == {(0, 1), (2, 3)}
    assert run(*common, "pairs.txt", "-o", "l.h5").exit_code == 0
    assert pairs_of("l.h5") == {(3, 1)}
    assert run(*common, "similar", "--k", 1, "-o", "k.h5").exit_code == 0
    assert 2 <= len(pairs_of("k.h5")) <= 3
    assert run(*common, "sequential,pairs.txt", "-o", "u.h5").exit_code == 0
    assert pairs_of("u.h5") == {(0, 1), (3, 1), (2, 3)}


def test_pairs_are_chosen_by_where_the_images_were_taken(collection: Path) -> None:
    for name, latitude in zip(NAMES[:3], (48.0, 48.001, 48.0015), strict=True):
        exif = Image.Exif()
        gps = {1: "N", 2: (latitude, 0.0, 0.0), 3: "E", 4: (11.0, 0.0, 0.0)}
        exif[int(ExifTags.IFD.GPSInfo)] = gps
        (collection / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(collection / "photos" / name, exif=exif)
    common = ("--features", "features.h5", "--pairs", "gps", "--images", "photos")
    result = run(*common, "--gps-metres", 100, "-o", "g.h5")
    assert result.exit_code == 0 and pairs_of("g.h5") == {(1, 2)}
    assert "left out: gps: right/3.jpg: its image is not at the path" in result.stderr
    result = run(*common, "--gps-k", "none", "--gps-metres", 120, "--pairs-out", "p.txt")
    assert result.exit_code == 0 and "wrote 2 pairs of 4 images to p.txt" in result.stdout
    assert Path("p.txt").read_text() == "left/0.jpg left/1.jpg\nleft/1.jpg right/2.jpg\n"
    assert sorted(path.name for path in collection.glob("*.*")) == ["features.h5", "g.h5", "p.txt"]
    wrong = run(*common, "--gps-k", "none", "-o", "w.h5")
    assert wrong.exit_code == 2 and "--gps-k and --gps-metres are 'none'" in wrong.stderr
    counts = run(*common, "--pairs-out", "p.txt", "--overwrite", "--json")
    assert json.loads(counts.stdout) == {"images": 4, "pairs": 3, "output": "p.txt"}


def test_the_chosen_pairs_are_written_for_hloc(collection: Path) -> None:
    chosen = ("--features", "features.h5", "--pairs", "sequential", "--window", 1, "-o", "s.h5")
    assert run(*chosen, "--pairs-out", "p.txt").exit_code == 0
    lines = [tuple(line.split()) for line in Path("p.txt").read_text().splitlines()]
    assert lines == [NAMES[:2], NAMES[2:]]
    assert run(*chosen, "--pairs-out", "p.txt").exit_code == 0  # a resumed run
    Path("p.txt").write_text("mine\n")
    again = run(*chosen, "--pairs-out", "p.txt")
    assert again.exit_code == 2 and "p.txt exists and has other pairs" in again.stderr
    assert run(*chosen, "--pairs-out", "p.txt", "--overwrite").exit_code == 0
    assert run(*chosen, "--pairs-out", "p.json").exit_code == 2


def test_a_second_run_skips_what_is_there_and_adds_the_rest(collection: Path) -> None:
    common = ("--features", "features.h5", "-o", "m.h5")
    assert run(*common, "--pairs", "sequential", "--window", 1).exit_code == 0
    again = run(*common, "--json")
    assert again.exit_code == 0 and "4 done, 2 skipped" in again.stderr
    rows = [json.loads(line) for line in again.stdout.splitlines()]
    images = read_h5("features.h5")
    for row in rows:
        expected = match_features(images[row["image_a"]], images[row["image_b"]])
        assert row["matches"] == len(expected)
    stamp = Path("m.h5").stat().st_mtime_ns
    assert "6 skipped" in run(*common).stderr and Path("m.h5").stat().st_mtime_ns == stamp


def test_matches_of_other_settings_or_features_are_refused(collection: Path) -> None:
    common = ("--features", "features.h5", "-o", "m.h5")
    assert run(*common).exit_code == 0
    other = run(*common, "--ratio", 0.9)
    assert other.exit_code == 1 and "6 refused" in other.stderr
    assert "settings.ratio differ); replace them with --overwrite" in other.stderr
    images = {name: image_features(n) for n, name in enumerate(NAMES)}
    images[NAMES[0]] = image_features(99)  # as many keypoints, in other places
    write(collection / "features.h5", images)
    changed = run(*common)
    assert changed.exit_code == 1 and "3 skipped, 3 refused" in changed.stderr
    assert "features_crc32 differ" in changed.stderr
    assert run(*common, "--ratio", 0.9, "--overwrite").exit_code == 0
    assert_equals_library(collection / "m.h5", collection / "features.h5", ratio=0.9)


def test_one_bad_image_does_not_stop_the_others(collection: Path) -> None:
    images = {name: image_features(n) for n, name in enumerate(NAMES)}
    images[NAMES[1]] = image_features(1, length=None)
    write(collection / "features.h5", images)
    result = run("--features", "features.h5", "-o", "m.h5")
    assert result.exit_code == 1 and "3 done, 3 failed" in result.stderr
    assert "left/0.jpg, left/1.jpg: features B have no descriptors" in result.stderr
    assert pairs_of("m.h5") == {(0, 2), (0, 3), (2, 3)}
    alike = run("--features", "features.h5", "-o", "k.h5", "--pairs", "similar")
    assert alike.exit_code == 0 and "similar: left/1.jpg: features have no" in alike.stderr
    assert pairs_of("k.h5") == {(0, 2), (0, 3), (2, 3)}


def test_an_interrupted_run_resumes_where_it_stopped(
    collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = H5MatchesWriter.add

    def interrupt(self: H5MatchesWriter, *arguments: Any) -> None:
        add(self, *arguments)
        if len(self) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(H5MatchesWriter, "add", interrupt)
    stopped = run("--features", "features.h5", "-o", "m.h5")
    assert stopped.exit_code == 130 and "repeat the same command to resume" in stopped.stderr
    assert names_in(collection) == ["features.h5", "m.h5.partial"]
    monkeypatch.setattr(H5MatchesWriter, "add", add)
    rest = run("--features", "features.h5", "-o", "m.h5")
    assert rest.exit_code == 0 and "4 done, 2 skipped" in rest.stderr
    assert names_in(collection) == ["features.h5", "m.h5"] and len(pairs_of("m.h5")) == 6


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_run_keeps_every_finished_pair(collection: Path) -> None:
    many = {f"{n:03}.jpg": image_features(n, count=300) for n in range(40)}
    write(collection / "features.h5", many)
    arguments = ["match", "--features", "features.h5", "-o", "m.h5", "--json"]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, env=ENVIRONMENT, text=True
    ) as process:
        assert process.stdout is not None
        printed = [json.loads(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
    with H5MatchesWriter(collection / "m.h5") as writer:
        assert all((row["image_a"], row["image_b"]) in writer for row in printed)
    rest = run("--features", "features.h5", "-o", "m.h5")
    assert rest.exit_code == 0 and len(read_matches_h5("m.h5")) == 40 * 39 // 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got 0; for many pairs give --features PATH"),
        (["a.png"], "expected two images or features files, got 1"),
        (["a.png", "b.png", "-o", "m.h5"], "-o m.h5: the ending picks the format, one of .npz"),
        (
            ["a.png", "b.png", "--plot", "p.jpg"],
            "--plot p.jpg: the ending picks the format",
        ),
        (["a.png", "c.png", "--plot", "b.png"], "--plot b.png exists; name another file, or give"),
        (["a.png", "b.png", "--plot", "./b.png", "--overwrite"], "is one of the inputs"),
        (["a.png", "b.png", "-o", "."], "-o .: the ending picks the format"),
        (["a.png", "b.png", "--window", "0"], "--window is 0"),
        (["a.png", "b.png", "--ratio", "2"], "tiepoint: --ratio is 2.0, expected a share"),
        (
            ["a.png", "b.png", "--min-probability", "0.2"],
            "--min-probability needs --scores dual-softmax",
        ),
        (["a.png", "b.png", "--matching-device", "mps"], "device is 'mps'"),
        (["a.png", "b.png", "--features", "f.h5", "-o", "m.h5"], "drop A and B"),
        (["--features", "f.h5"], "-o NAME.h5"),
        (["a.png", "b.png", "--pairs-out", "p.txt"], "--pairs-out is for many pairs"),
        (["a.png", "b.png", "--images", "d"], "--images is for many pairs"),
        (["--features", "f.h5", "--pairs-out", "p.csv"], "--pairs-out p.csv: the ending"),
        (["--features", "f.npz", "-o", "m.h5"], "expected a .h5 file"),
        (["--features", "f.h5", "-o", "f.h5"], "is the features file"),
    ],
)
def test_wrong_usage_is_reported_before_any_work(
    views: Path, arguments: list[str], message: str
) -> None:
    before = {path: path.read_bytes() for path in views.iterdir()}
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert {path: path.read_bytes() for path in views.iterdir()} == before


def test_an_unknown_choice_of_pairs_and_a_wrong_list_are_wrong_usage(collection: Path) -> None:
    common = ("--features", "features.h5", "-o", "m.h5", "--pairs")
    unknown = run(*common, "some")
    assert "expected 'all', 'sequential', 'similar', 'gps', or a text file" in unknown.stderr
    Path("pairs.txt").write_text("left/0.jpg nobody.jpg\n")
    wrong = run(*common, "pairs.txt")
    assert wrong.exit_code == 2 and "pairs.txt, line 1: no image 'nobody.jpg'" in wrong.stderr
    assert files_below(collection) == ["features.h5", "pairs.txt"]


def test_what_cannot_be_read_exits_with_three(here: Path) -> None:
    (here / "text.png").write_text("no image")
    assert run("no.png", "text.png").exit_code == 3
    assert run("no.npz", "text.png").exit_code == 3
    pytest.importorskip("h5py")
    assert run("--features", "no.h5", "-o", "m.h5").exit_code == 3
    write(here / "one.h5", {"a.jpg": image_features(0)})
    alone = run("--features", "one.h5", "-o", "m.h5")
    assert alone.exit_code == 3 and "no pair to match in 1 images" in alone.stderr


def test_an_image_that_is_gone_is_reported_before_matching(views: Path) -> None:
    save(Detector()("a.png"), "a.npz")
    (views / "a.png").unlink()
    result = run("a.npz", "b.png", "--plot", "p.png", "-o", "m.npz")
    assert result.exit_code == 2 and "give the images themselves" in result.stderr
    assert not (views / "m.npz").exists()


def test_pairs_of_different_weights_are_refused_by_name(here: Path) -> None:
    pytest.importorskip("h5py")
    write(here / "f.h5", {"a": image_features(0), "b": image_features(1, weights_sha256="y")})
    result = run("--features", "f.h5", "-o", "m.h5")
    assert result.exit_code == 3 and "different weights" in result.stderr


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(
    collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = H5MatchesWriter.add

    def full(self: H5MatchesWriter, *arguments: Any) -> None:
        if len(self) == 2:
            from tiepoint.files.writing import unwritable

            raise unwritable(self.partial, OSError(28, "x")) from OSError(28, "No space left")
        add(self, *arguments)

    monkeypatch.setattr(H5MatchesWriter, "add", full)
    stopped = run("--features", "features.h5", "-o", "m.h5")
    assert stopped.exit_code == 1 and "stopped:" in stopped.stderr
    assert names_in(collection) == ["features.h5", "m.h5.partial"]

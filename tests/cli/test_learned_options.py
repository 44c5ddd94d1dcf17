"""`--method learned` of the commands, from their arguments to their exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from support.learned_matchers import saved
from tiepoint import load_matches
from tiepoint.cli import app
from tiepoint.weights.checkpoint import BUNDLED, load_checkpoint
from tiepoint.weights.folder import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the bundled checkpoint "small"."""
    return saved(tmp_path_factory.mktemp("matcher"), load_checkpoint("small"))


@pytest.fixture
def views(here: Path, photographs: list[NDArray[np.uint8]]) -> Path:
    """A photograph, and the same moved by 10 px to the left and 20 px up."""
    image = cv2.resize(photographs[0], (256, 256), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(here / "a.png"), image[:200, :200])
    cv2.imwrite(str(here / "b.png"), image[20:220, 10:210])
    other_weights(here / "alone")
    return here


def other_weights(folder: Path) -> None:
    """A checkpoint that has no learned matcher: that of "small" with another bias."""
    folder.mkdir()
    for name in (CONFIG_FILE, PREPROCESSOR_FILE):
        shutil.copy(BUNDLED / "small" / name, folder)
    tensors = load_file(BUNDLED / "small" / WEIGHTS_FILE)
    bias = next(name for name in tensors if name.endswith("bias"))
    save_file(
        {**tensors, bias: tensors[bias] + tensors[bias].dtype.type(0.01)}, folder / WEIGHTS_FILE
    )


SMALL = ("-c", "small", "--scales", "1")
TWO = ("a.png", "b.png", *SMALL)


def test_two_images_are_matched_by_the_given_matcher(views: Path, matcher: Path) -> None:
    result = run("match", *TWO, "--method", "learned", "--matcher", matcher, "-o", "m.npz")
    assert result.exit_code == 0, result.stderr
    settings = load_matches(views / "m.npz").meta["settings"]
    assert (settings["method"], settings["layers"]) == ("learned", 2)
    fewer = run(
        "match", *TWO, "--method", "learned", "--matcher", matcher, "--layers", 1,
        "--min-probability", 0.9, "-o", "f.npz",
    )  # fmt: skip
    assert fewer.exit_code == 0, fewer.stderr
    settings = load_matches(views / "f.npz").meta["settings"]
    assert (settings["min_probability"], settings["layers"]) == (0.9, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-c", "alone", "--method", "learned"), "no learned matcher for checkpoint "),
        (("--method", "learned", "--matcher", "nothing"), "matcher 'nothing'"),
        (("--method", "learned", "--ratio", 0.8), "--ratio needs --method nearest"),
        (("--method", "learned", "--no-mutual"), "--mutual needs --method nearest"),
        (("--layers", 2), "--layers needs --method learned"),
        (("--matcher", "nothing"), "matcher is given for --method nearest"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    arguments: tuple[object, ...], message: str, views: Path
) -> None:
    result = run("match", *TWO, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_registration_takes_the_matcher_of_the_checkpoint(views: Path, matcher: Path) -> None:
    shutil.copytree(BUNDLED / "small", views / "mine", ignore=shutil.ignore_patterns("matcher"))
    shutil.copytree(matcher, views / "mine" / "matcher")
    result = run("register", "a.png", "b.png", "-c", "mine", "--method", "learned", "--json")
    assert result.exit_code == 0, result.stderr
    matrix = np.array(json.loads(result.stdout)["matrix"])
    np.testing.assert_allclose(matrix[:2, 2], [-10, -20], atol=1.5)


def test_pairs_of_a_file_resume_with_the_same_matcher_only(views: Path, matcher: Path) -> None:
    pytest.importorskip("h5py")
    assert run("detect", "a.png", "b.png", *SMALL, "-o", "features.h5").exit_code == 0
    common = ("match", "--features", "features.h5", "-o", "m.h5", "--method", "learned")
    assert run(*common, "--matcher", matcher).exit_code == 0
    again = run(*common, "--matcher", matcher, "--json")
    assert again.exit_code == 0 and '"skipped"' in again.stdout
    other = saved(views / "other", load_checkpoint("small"), temperature=0.1)
    refused = run(*common, "--matcher", other)
    assert refused.exit_code == 1
    assert "matcher_sha256 differ" in refused.stderr


def test_colmap_takes_a_matcher_and_asks_for_one_before_any_work(
    views: Path, matcher: Path
) -> None:
    (views / "photos").mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(views / name, views / "photos" / name)
    common = ("colmap", "photos", "-o", "d.db", *SMALL, "--method", "learned")
    missing = run(*common, "-c", "alone")
    assert missing.exit_code == 2 and "no learned matcher" in missing.stderr
    assert not (views / "d.db").exists()
    result = run(*common, "--matcher", matcher)
    assert result.exit_code == 0, result.stderr
    refused = run("colmap", "photos", "-o", "d.db", *SMALL)
    assert refused.exit_code == 1 and "settings.method" in refused.stderr


@pytest.fixture
def wall(views: Path) -> Path:
    (views / "pairs.txt").write_text("a.png b.png 1 0 -10 0 1 -20 0 0 1\n")
    return views


def test_evaluation_has_rows_for_both_ways_of_matching(wall: Path, matcher: Path) -> None:
    result = run(
        "evaluate", "homography", wall, *SMALL, "--methods", "tiepoint,learned", "--k", 150,
        "--matcher", matcher, "--layers", 1, "-o", "report.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    report = json.loads((wall / "report.json").read_text())
    nearest, learned = report["rows"][:2]
    assert (nearest["method"], learned["method"]) == ("small", "small + learned")
    assert nearest["keypoints"] == learned["keypoints"]
    assert learned["matches"]["mean"] != nearest["matches"]["mean"]
    assert learned["precision"]["mean"] > 0.8
    settings = report["methods"]["small + learned"]
    assert settings["matcher_layers"] == 1 and len(settings["matcher_sha256"]) == 64
    assert "matcher_sha256" not in report["methods"]["small"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("homography", ".", "--matcher", "m"), "--matcher needs 'learned' among --methods"),
        (("homography", ".", "--layers", 1), "--layers needs 'learned' among --methods"),
        (
            ("homography", ".", "-c", "alone", "--methods", "learned"),
            "no learned matcher for checkpoint ",
        ),
        (("speed", "--photos", ".", "--methods", "learned"), "speed times detection only"),
    ],
)
def test_evaluation_refuses_a_matcher_without_its_method(
    arguments: tuple[object, ...], message: str, wall: Path
) -> None:
    result = run("evaluate", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr

"""Which learned matcher is taken, how long it is kept, and in which processes it works."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.checkpoints import random_checkpoint
from support.learned_matchers import related_features, saved
from support.provenance import made
from tiepoint import load, save
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.features import Features
from tiepoint.matching.learned import choice
from tiepoint.matching.learned.choice import given_matcher, matcher_for, matcher_of
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.matching.match import match
from tiepoint.weights import checkpoint as checkpoints

OWN, OTHER = "0" * 64, "1" * 64
"""SHA-256 of the weights of `random_checkpoint` and of others."""


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    choice._kept.cache_clear()
    choice._detector_sha256.cache_clear()


def made_by(checkpoint: object, sha256: str = OWN) -> tuple[Features, Features]:
    provenance = made(checkpoint=str(checkpoint), weights_sha256=sha256)
    a, b = (replace(one, provenance=provenance) for one in related_features(30, 16))
    return a, b


def checkpoint_folder(folder: Path) -> Path:
    """As far as a matcher is concerned: a folder with config.json."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_the_matcher_in_the_folder_of_the_checkpoint_is_found(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(checkpoint_folder(here / "mine") / "matcher")
    for number, features in enumerate(made_by(here / "mine")):
        save(features, here / f"{number}.npz")
    a, b = load(here / "0.npz"), load(here / "1.npz")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    matches = match(a, b, method="learned")
    assert len(matches) > 15
    assert matches.meta["matcher_sha256"] == given_matcher(folder).checkpoint.sha256


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundled checkpoint "base" with a matcher, and "bare" without."""
    place = tmp_path / "bundled"
    place.mkdir()
    saved(checkpoint_folder(place / "base") / "matcher")
    checkpoint_folder(place / "bare")
    for module in (checkpoints, choice):
        monkeypatch.setattr(module, "BUNDLED", place)
    return place


@pytest.mark.parametrize("checkpoint", ["base", "org/gone", "/no/such/folder"])
def test_a_bundled_matcher_is_found_by_the_weights_whatever_their_name(
    checkpoint: str, bundled: Path
) -> None:
    matcher = matcher_for(*made_by(checkpoint))
    assert matcher.checkpoint.name == str((bundled / "base" / "matcher").resolve())


def test_one_image_with_a_provenance_is_enough(bundled: Path) -> None:
    a, b = made_by("base")
    blank = replace(a, provenance=None)
    assert matcher_for(blank, b) is matcher_for(a, b)


@pytest.mark.parametrize(
    "name",
    [
        lambda bundled: "base",
        lambda bundled: bundled / "base",
        lambda bundled: bundled / "base" / "matcher",
        lambda bundled: os.path.relpath(bundled / "base" / "matcher"),
    ],
)
def test_a_matcher_is_given_by_name_or_by_either_folder(
    name: Callable[[Path], str | Path], bundled: Path
) -> None:
    assert given_matcher(name(bundled)) is given_matcher("base")


@pytest.mark.parametrize("name", ["bare", "nothing/here"])
def test_a_name_without_a_matcher_is_refused_with_the_remedy(name: str, bundled: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"matcher '{name}'.*tiepoint train-matcher"):
        given_matcher(name)


def test_without_a_matcher_the_error_names_the_weights_and_the_ways_out(bundled: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        match(*made_by("mine", OTHER), method="learned")
    for part in ("'mine'", OTHER, "tiepoint train-matcher", "--matcher", "method='nearest'"):
        assert part in str(refused.value)


def test_a_matcher_of_earlier_weights_in_the_folder_is_named(tmp_path: Path) -> None:
    folder = saved(checkpoint_folder(tmp_path / "mine") / "matcher")
    with pytest.raises(ConfigError, match=rf"{OTHER}; {folder} is for {OWN}"):
        match(*made_by(tmp_path / "mine", OTHER), method="learned")


def test_features_of_unknown_weights_need_a_given_matcher(tmp_path: Path) -> None:
    a, b = (replace(one, provenance=None) for one in made_by("base"))
    with pytest.raises(ConfigError, match="without provenance"):
        match(a, b, method="learned")
    assert len(match(a, b, method="learned", matcher=saved(tmp_path / "m"))) > 15


def test_a_damaged_matcher_is_reported_by_its_file(tmp_path: Path) -> None:
    folder = saved(checkpoint_folder(tmp_path / "mine") / "matcher")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"matcher.model\.safetensors"):
        match(*made_by(tmp_path / "mine"), method="learned")


def test_a_matcher_of_other_weights_is_refused_before_images_are_detected(tmp_path: Path) -> None:
    folder, detector = saved(tmp_path / "m"), random_checkpoint()
    assert matcher_of(detector, folder).checkpoint.detector_sha256 == detector.sha256
    with pytest.raises(ConfigError, match=f"trained for weights_sha256 {OWN}"):
        matcher_of(replace(detector, sha256=OTHER), folder)


def test_a_matcher_is_loaded_once_and_again_after_its_files_have_changed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    first = given_matcher(folder)
    assert given_matcher(folder) is first
    assert given_matcher(folder, layers=1) is not first
    saved(folder, temperature=0.1)
    os.utime(folder / "model.safetensors", ns=(1, 1))  # a coarse clock may not have moved
    again = given_matcher(folder)
    assert again is not first
    assert again.checkpoint.sha256 != first.checkpoint.sha256


def test_a_few_matchers_are_kept(tmp_path: Path) -> None:
    folders = [saved(tmp_path / f"{n}", layers=1) for n in range(choice.KEPT_MATCHERS + 1)]
    loaded = [given_matcher(folder) for folder in folders]
    assert given_matcher(folders[-1]) is loaded[-1]
    assert given_matcher(folders[0]) is not loaded[0]


def test_threads_share_a_matcher(tmp_path: Path) -> None:
    a, b = made_by("base")
    matcher = LearnedMatcher(saved(tmp_path / "m"), threads=1)
    expected = match(a, b, method="learned", matcher=matcher)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(match, a, b, method="learned", matcher=matcher) for _ in range(12)]
    for run in runs:
        np.testing.assert_array_equal(run.result().pairs, expected.pairs)
        np.testing.assert_array_equal(run.result().scores, expected.scores)


def test_a_pickled_matcher_gives_the_same(tmp_path: Path) -> None:
    a, b = made_by("base")
    folder = saved(tmp_path / "m")
    matcher = LearnedMatcher(folder, layers=1)
    pickled = pickle.dumps(matcher)
    shutil.rmtree(folder)  # the weights travel along
    copy = pickle.loads(pickled)
    assert copy.layers == 1
    left, right = matcher(a, b), copy(a, b)
    np.testing.assert_array_equal(left.pairs, right.pairs)
    np.testing.assert_array_equal(left.scores, right.scores)


FORK = """
import os, signal, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from support.learned_matchers import related_features
from tiepoint import match
from tiepoint.errors import EngineError
a, b = related_features(30, 16)

def outcome():
    child = os.fork()
    if child == 0:
        signal.alarm(300)
        try:
            found = match(a, b, method="learned", matcher=sys.argv[1])
        except EngineError as error:
            os._exit(2 if "spawn" in str(error) else 1)
        os._exit(0 if len(found) > 15 else 3)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "works", 2: "refused", -signal.SIGALRM: "hangs"}.get(code, f"fails {code}")

print(outcome())
match(a, b, method="learned", matcher=sys.argv[1])
print(outcome())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_works_before_the_first_pair_and_is_refused_after_it(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FORK, str(saved(tmp_path / "m"))],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["works", "refused"]

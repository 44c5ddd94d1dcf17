"""Matches of many pairs in hloc's layout: what goes in comes out, and damage is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.features_files import names_in
from support.matches_files import assert_equal, make
from tiepoint.errors import FormatError
from tiepoint.features import Matches
from tiepoint.formats import H5MatchesWriter, read_matches_h5, save_matches


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py")


@pytest.mark.parametrize("count", [0, 1, 9])
def test_matches_come_back_from_h5(tmp_path: Path, count: int, h5py: Any) -> None:
    matches = make(count, note="왼쪽")
    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        writer.add("left/사진 1.jpg", "right/b.jpg", matches)
        assert_equal(writer.read(("left/사진 1.jpg", "right/b.jpg")), matches)
    found = read_matches_h5(tmp_path / "m.h5")
    assert list(found) == [("left/사진 1.jpg", "right/b.jpg")]
    assert_equal(found["left/사진 1.jpg", "right/b.jpg"], matches)
    assert found.meta(("left/사진 1.jpg", "right/b.jpg")) == matches.meta


def test_the_file_has_hlocs_layout(tmp_path: Path, h5py: Any) -> None:
    pairs = np.array([[7, 40_000], [2, 5]])
    matches = Matches(pairs, np.array([0.75, 0.5], np.float32), {"keypoints": [9, 50_000]})
    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        writer.add("db/a.jpg", "query/b.jpg", matches)
    with h5py.File(tmp_path / "m.h5") as file:
        group = file["db-a.jpg"]["query-b.jpg"]
        assert group["matches0"][()].tolist() == [-1, -1, 5, -1, -1, -1, -1, 40_000, -1]
        assert group["matches0"].dtype.kind == "i"
        assert group["matching_scores0"][()].tolist() == [0, 0, 0.5, 0, 0, 0, 0, 0.75, 0]


def test_hlocs_own_file_is_read(tmp_path: Path, h5py: Any) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("db-a.jpg/query-b.jpg")
        group["matches0"] = np.array([3, -1, 0], np.int16)
        group["matching_scores0"] = np.array([0.25, 0, 0.5], np.float16)
    found = read_matches_h5(tmp_path / "m.h5")["db-a.jpg", "query-b.jpg"]
    assert found.pairs.tolist() == [[2, 0], [0, 3]] and found.scores.tolist() == [0.5, 0.25]
    assert found.meta == {}


def test_pairs_join_those_of_a_finished_file_and_replace_their_like(
    tmp_path: Path, h5py: Any
) -> None:
    path = tmp_path / "m.h5"
    with H5MatchesWriter(path) as writer:
        writer.add("a", "b", make(1))
        writer.add("a", "c", make(2))
    with H5MatchesWriter(path) as writer:
        assert ("a", "b") in writer and ("b", "a") not in writer and len(writer) == 2
        writer.add("a", "b", make(3))
        writer.add("b", "c", make(4))
    found = read_matches_h5(path)
    assert {names: len(matches) for names, matches in found.items()} == {
        ("a", "b"): 3,
        ("a", "c"): 2,
        ("b", "c"): 4,
    }


def test_an_interrupted_writer_goes_on_from_its_journal(tmp_path: Path, h5py: Any) -> None:
    path = tmp_path / "m.h5"
    with pytest.raises(KeyboardInterrupt), H5MatchesWriter(path) as writer:
        writer.add("a", "b", make(2))
        writer.add("a", "c", make(3))
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ["m.h5.partial"]
    partial = tmp_path / "m.h5.partial"
    os.truncate(partial, partial.stat().st_size - 1)  # as a kill tears it
    with H5MatchesWriter(path) as writer:
        assert ("a", "b") in writer and ("a", "c") not in writer
        assert writer.meta(("a", "b")) == make(2).meta
    assert names_in(tmp_path) == ["m.h5"] and list(read_matches_h5(path)) == [("a", "b")]


def test_names_with_one_group_in_hlocs_layout_are_refused(tmp_path: Path, h5py: Any) -> None:
    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        writer.add("x/a", "b", make())
        with pytest.raises(FormatError, match="is that of x/a and b too; rename"):
            writer.add("x-a", "b", make())
    with (
        H5MatchesWriter(tmp_path / "m.h5") as writer,
        pytest.raises(FormatError, match="is that of x/a and b too; rename"),
    ):
        writer.add("x-a", "b", make())


def test_what_the_layout_cannot_hold_is_refused(tmp_path: Path, h5py: Any) -> None:
    twice = Matches(np.array([[0, 1], [0, 2]]), np.ones(2, np.float32))
    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        with pytest.raises(FormatError, match="a keypoint of a has two matches"):
            writer.add("a", "b", twice)
        with pytest.raises(FormatError, match="expected a path below"):
            writer.add("../a", "b", make())
        with pytest.raises(FormatError, match="hold at most"):
            writer.add("a", "b", make(note="x" * 70_000))
    assert names_in(tmp_path) == []


def test_files_without_matches_and_features_journals_are_refused(tmp_path: Path, h5py: Any) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file["a/keypoints"] = np.zeros((1, 2))
    with pytest.raises(FormatError, match="no group has matches0"):
        read_matches_h5(path)
    with pytest.raises(FormatError, match="no group has matches0"):
        H5MatchesWriter(path)
    (tmp_path / "n.h5.partial").write_bytes(b"tiepoint journal 1\n")
    with pytest.raises(FormatError, match="not a journal that tiepoint wrote"):
        H5MatchesWriter(tmp_path / "n.h5")


@pytest.mark.parametrize(
    ("partners", "scores"),
    [(np.zeros(2), np.zeros(2)), (np.zeros(2, int), np.zeros(3)), (np.zeros((1, 2), int), None)],
)
def test_a_damaged_pair_is_named(tmp_path: Path, partners: Any, scores: Any, h5py: Any) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a/b/matches0"] = partners
        if scores is not None:
            file["a/b/matching_scores0"] = scores
    with pytest.raises(FormatError, match="a/b: not a whole matches file"):
        read_matches_h5(tmp_path / "m.h5")["a", "b"]


@pytest.mark.parametrize(
    ("pairs", "scores", "words"),
    [
        ([[-1, 2]], [0.5], "expected whole numbers from 0"),
        ([[1.5, 2.0]], [0.5], "expected whole numbers from 0"),
        ([[1, 2]], [np.nan], "scores hold NaN"),
    ],
)
def test_a_pair_that_no_reader_would_take_is_refused_at_once_and_costs_no_other(
    tmp_path: Path, pairs: Any, scores: Any, words: str, h5py: Any
) -> None:
    bad = Matches(np.array(pairs), np.array(scores, np.float32), {})
    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        writer.add("a.jpg", "b.jpg", make(3))
        with pytest.raises(FormatError, match=words):
            writer.add("a.jpg", "c.jpg", bad)
    assert list(read_matches_h5(tmp_path / "m.h5")) == [("a.jpg", "b.jpg")]
    with pytest.raises(FormatError, match=words):
        save_matches(bad, tmp_path / "m.npz")


@pytest.mark.parametrize("stated", [True, -5, 10**12, "a", None])
def test_a_count_of_keypoints_that_is_none_costs_no_file(
    tmp_path: Path, stated: Any, h5py: Any
) -> None:
    matches = Matches(np.array([[0, 2]]), np.ones(1, np.float32), {"keypoints": [stated, 3]})
    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        writer.add("a.jpg", "b.jpg", matches)
    assert read_matches_h5(tmp_path / "m.h5")["a.jpg", "b.jpg"].pairs.tolist() == [[0, 2]]

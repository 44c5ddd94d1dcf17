"""Matches files: what goes in comes out, hloc reads it, and damage is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.features_files import JSON_VALUES, names_in
from tiepoint import load_matches, save_matches
from tiepoint.errors import FormatError
from tiepoint.features import Matches
from tiepoint.formats import H5MatchesWriter, read_matches_h5


def make(count: int = 5, keypoints: int = 9, seed: int = 0, **meta: Any) -> Matches:
    """Matches in the order that `match` gives: best first, ties by the index in A."""
    rng = np.random.default_rng(seed)
    index_a = np.sort(rng.permutation(keypoints)[:count])
    scores = rng.choice([0.25, 0.5, 0.9], count).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    pairs = np.stack([index_a, rng.integers(0, 50_000, count)], axis=1)[order]
    return Matches(pairs, scores[order], {"keypoints": [keypoints, 50_000], **meta})


def assert_equal(left: Matches, right: Matches) -> None:
    np.testing.assert_array_equal(left.pairs, right.pairs)
    np.testing.assert_array_equal(left.scores, right.scores)
    assert left.pairs.dtype == np.int64 and left.scores.dtype == np.float32
    assert left.pairs.shape == right.pairs.shape and left.meta == right.meta


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), max_size=4),
    meta=st.dictionaries(st.text(), JSON_VALUES, max_size=3),
)
def test_any_matches_come_back_from_npz(
    tmp_path: Path, rows: list[tuple[int, int]], meta: dict[str, Any]
) -> None:
    pairs = np.array(rows, np.int64).reshape(-1, 2)
    matches = Matches(pairs, np.linspace(-1, 1, len(rows), dtype=np.float32), meta)
    save_matches(matches, tmp_path / "x.npz")
    assert_equal(load_matches(tmp_path / "x.npz"), matches)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    for call in (lambda: save_matches(make(), tmp_path / "x.csv"), lambda: load_matches("x.h5")):
        with pytest.raises(FormatError, match=r"kept in \.npz files; those of many in \.h5"):
            call()
    assert names_in(tmp_path) == []


def test_files_that_hold_no_matches_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(FormatError, match="no such file"):
        load_matches(path)
    save_matches(make(), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match="not a whole matches file"):
            load_matches(path)
    for arrays in [
        {"pairs": np.zeros((1, 2), int)},
        {"kind": "other", "meta": "{}", "pairs": np.zeros((1, 2), int), "scores": np.ones(1)},
        {"kind": "tiepoint matches", "meta": "{}", "pairs": np.zeros((1, 2)), "scores": [1.0]},
        {"kind": "tiepoint matches", "meta": "{}", "pairs": [[0, -1]], "scores": [1.0]},
        {"kind": "tiepoint matches", "meta": "{}", "pairs": [[0, 1]], "scores": [1.0, 2.0]},
        {"kind": "tiepoint matches", "meta": "{}", "scores": [1.0, 2.0]},
    ]:
        np.savez(path, **{key: np.asarray(value) for key, value in arrays.items()})
        with pytest.raises(FormatError, match="not a whole matches file"):
            load_matches(path)


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py")


@pytest.mark.parametrize("count", [0, 1, 9])
def test_matches_come_back_from_h5(tmp_path: Path, count: int, h5py: Any) -> None:
    matches = make(count, note="왼쪽")
    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        writer.add("left/사진 1.jpg", "right/b.jpg", matches)
        assert_equal(writer_read(writer, "left/사진 1.jpg", "right/b.jpg"), matches)
    found = read_matches_h5(tmp_path / "m.h5")
    assert list(found) == [("left/사진 1.jpg", "right/b.jpg")]
    assert_equal(found["left/사진 1.jpg", "right/b.jpg"], matches)
    assert found.meta(("left/사진 1.jpg", "right/b.jpg")) == matches.meta


def writer_read(writer: H5MatchesWriter, *names: str) -> Matches:
    return writer._read_new((names[0], names[1]))


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


def test_closing_twice_is_closing_once(tmp_path: Path, h5py: Any) -> None:
    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        writer.add("a", "b", make())
        writer.close()
    assert len(read_matches_h5(tmp_path / "m.h5")) == 1 and names_in(tmp_path) == ["m.h5"]


def test_names_that_hloc_cannot_tell_apart_are_refused(tmp_path: Path, h5py: Any) -> None:
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

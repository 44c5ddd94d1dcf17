"""Matches of one pair in an .npz: what goes in comes out, and damage is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.features_files import JSON_VALUES, META_KEYS, names_in
from support.matches_files import assert_equal, make
from tiepoint import load_matches, save_matches
from tiepoint.errors import FormatError, OutputError
from tiepoint.features import Matches

FIXTURE = [HealthCheck.function_scoped_fixture]


@settings(suppress_health_check=FIXTURE)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), max_size=4),
    meta=st.dictionaries(META_KEYS, JSON_VALUES, max_size=3),
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
        with pytest.raises(FormatError, match=r"the ending \.npz .*many pairs in one \.h5"):
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


@pytest.mark.parametrize("count", [0, 1, 9])
def test_none_one_and_many_matches_keep_their_shapes(tmp_path: Path, count: int) -> None:
    save_matches(make(count), tmp_path / "x.npz")
    assert_equal(load_matches(tmp_path / "x.npz"), make(count))
    assert names_in(tmp_path) == ["x.npz"]


def test_the_keys_are_the_field_names_and_the_kind(tmp_path: Path) -> None:
    save_matches(make(3, note="왼쪽"), str(tmp_path / "x.NPZ"))
    with np.load(tmp_path / "x.NPZ", allow_pickle=False) as arrays:
        assert set(arrays) == {"kind", "meta", "pairs", "scores"}
        assert str(arrays["kind"]) == "tiepoint matches"


def test_pairs_and_scores_of_other_number_types_are_read(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz",
        kind="tiepoint matches",
        meta="{}",
        pairs=np.array([[3, 4]], np.uint8),
        scores=np.array([1], np.int16),
    )
    assert_equal(
        load_matches(tmp_path / "x.npz"), Matches(np.array([[3, 4]]), np.ones(1, np.float32), {})
    )


@settings(max_examples=100, deadline=None, suppress_health_check=FIXTURE)
@given(data=st.data())
def test_a_damaged_file_loads_or_is_refused_but_never_breaks(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "x.npz"
    save_matches(make(2), path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        load_matches(path)
    except FormatError as error:
        assert str(path) in str(error)


def test_a_features_file_is_no_matches_file(tmp_path: Path) -> None:
    from support.features_files import make as make_features
    from tiepoint import load, save

    save(make_features(), tmp_path / "features.npz")
    with pytest.raises(FormatError, match=r"kind is None, expected 'tiepoint matches'"):
        load_matches(tmp_path / "features.npz")
    save_matches(make(), tmp_path / "matches.npz")
    with pytest.raises(FormatError, match="names no pixel convention"):
        load(tmp_path / "matches.npz")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    pairs = np.array([[object(), 1]], dtype=object)
    np.savez(
        tmp_path / "x.npz",
        allow_pickle=True,
        kind="tiepoint matches",
        meta="{}",
        pairs=pairs,
        scores=[1.0],
    )
    with pytest.raises(FormatError, match="not a whole matches file"):
        load_matches(tmp_path / "x.npz")


def test_meta_that_json_cannot_hold_and_a_missing_folder_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"meta\.note is nan"):
        save_matches(make(note=float("nan")), tmp_path / "x.npz")
    with pytest.raises(OutputError, match="check that the folder exists"):
        save_matches(make(), tmp_path / "no" / "x.npz")
    assert names_in(tmp_path) == []

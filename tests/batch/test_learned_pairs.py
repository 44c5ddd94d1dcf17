"""Many pairs by a learned matcher: one matcher for all, resumable, and never mixed with others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.learned_matchers import random_features, related_features, saved
from tiepoint import match
from tiepoint.batch import PairRecord, match_pairs
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.formats import H5MatchesWriter, read_matches_h5
from tiepoint.matching.learned.matcher import LearnedMatcher

pytest.importorskip("h5py")

A, B = related_features(40, 16)
IMAGES = {"a.jpg": A, "b.jpg": B, "c.jpg": random_features(20, 16, 7)}
PAIRS = [("a.jpg", "b.jpg"), ("a.jpg", "c.jpg"), ("b.jpg", "c.jpg")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("matcher"))


def match_all(path: Path, **options: Any) -> list[PairRecord]:
    with H5MatchesWriter(path) as writer:
        return list(match_pairs(IMAGES, PAIRS, writer, **{"method": "learned", **options}))


def statuses(records: list[PairRecord]) -> list[str]:
    return [record.status for record in records]


def test_every_pair_equals_match_and_is_skipped_the_next_time(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "m.h5"
    assert statuses(match_all(path, matcher=folder)) == ["done"] * 3
    stored = read_matches_h5(path)
    for a, b in PAIRS:
        single = match(IMAGES[a], IMAGES[b], method="learned", matcher=folder)
        np.testing.assert_array_equal(stored[a, b].pairs, single.pairs)
        np.testing.assert_array_equal(stored[a, b].scores, single.scores)
    assert len(stored[PAIRS[0]]) > 15
    given = LearnedMatcher(folder)
    assert statuses(match_all(path, matcher=given)) == ["skipped"] * 3
    assert statuses(match_all(path, matcher=given, layers=2)) == ["skipped"] * 3
    assert statuses(match_all(path, matcher=given, min_probability=0.1)) == ["skipped"] * 3


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"layers": 1}, "settings.layers"),
        ({"min_probability": 0.5}, "settings.min_probability"),
        ({"other": True}, "matcher_sha256"),
        ({"method": "nearest", "matcher": None}, "settings.method"),
    ],
)
def test_other_settings_are_refused_by_name(
    changes: dict[str, Any], difference: str, tmp_path: Path, folder: Path
) -> None:
    path = tmp_path / "m.h5"
    match_all(path, matcher=folder)
    before = path.read_bytes()
    if changes.pop("other", False):
        changes["matcher"] = saved(tmp_path / "other", temperature=0.1)
    records = match_all(path, **{"matcher": folder, **changes})
    assert statuses(records) == ["refused"] * 3 and path.read_bytes() == before
    assert records[0].error is not None and difference in records[0].error


def test_a_wrong_matcher_stops_the_run_before_the_first_pair(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "m.h5"
    with pytest.raises(CheckpointError, match="no config.json"):
        match_all(path, matcher=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="layers is 9"):
        match_all(path, matcher=folder, layers=9)
    with pytest.raises(ConfigError, match="matcher is given for method='nearest'"):
        match_all(path, matcher=folder, method="nearest")


def test_pairs_without_a_matcher_fail_one_by_one(tmp_path: Path) -> None:
    records = match_all(tmp_path / "m.h5")
    assert statuses(records) == ["failed"] * 3
    assert all("tiepoint train-matcher" in str(record.error) for record in records)

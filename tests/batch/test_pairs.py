"""Many pairs into one file: resumable, refused under other settings, one bad image alone."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.features_files import names_in
from support.matches_files import assert_equal
from tiepoint import match
from tiepoint.batch import PairRecord, match_pairs
from tiepoint.config import MatchingConfig
from tiepoint.errors import ConfigError, OutputError
from tiepoint.features import Features, Matches
from tiepoint.files.writing import unwritable
from tiepoint.formats import H5MatchesWriter, H5Writer, read_h5, read_matches_h5
from tiepoint.network.cores import usable_cores

pytest.importorskip("h5py")

NAMES = ("left/0.jpg", "left/1.jpg", "right/2.jpg", "right/3.jpg")
PAIRS = [(a, b) for a in NAMES for b in NAMES if a < b]


def features_of(seed: int, count: int = 40, length: int = 8, **meta: Any) -> Features:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, length)) + 2 * np.eye(length)[seed % length]
    descriptors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    xy = rng.uniform(0, 100, (count, 2)).astype(np.float32)
    scores = np.sort(rng.random(count).astype(np.float32))[::-1].copy()
    return Features(xy, scores, descriptors, (100, 100), meta)


IMAGES = {name: features_of(number) for number, name in enumerate(NAMES)}


class CountingImages(dict[str, Features]):
    """Images that count how often they are read."""

    reads = 0

    def __getitem__(self, name: str) -> Features:
        self.reads += 1
        return super().__getitem__(name)


def match_all(
    path: Path, images: Any = IMAGES, pairs: Any = PAIRS, **options: Any
) -> list[PairRecord]:
    with H5MatchesWriter(path) as writer:
        return list(match_pairs(images, pairs, writer, **options))


def statuses(records: list[PairRecord]) -> list[str]:
    return [record.status for record in records]


def test_no_pairs_leave_no_file(tmp_path: Path) -> None:
    assert match_all(tmp_path / "m.h5", pairs=[]) == []
    assert names_in(tmp_path) == []


def test_every_pair_equals_match_and_has_its_record(tmp_path: Path) -> None:
    records = match_all(tmp_path / "m.h5")
    assert [(record.image_a, record.image_b) for record in records] == PAIRS
    assert statuses(records) == ["done"] * 6
    stored = read_matches_h5(tmp_path / "m.h5")
    assert set(stored) == set(PAIRS)
    for record in records:
        a, b = record.image_a, record.image_b
        matches, single = stored[a, b], match(IMAGES[a], IMAGES[b])
        np.testing.assert_array_equal(matches.pairs, single.pairs)
        np.testing.assert_array_equal(matches.scores, single.scores)
        assert record.matches == len(single) == matches.meta["matches"]
        assert record.milliseconds is not None and record.milliseconds > 0
        assert record.error is None


def test_features_may_come_from_a_file(tmp_path: Path) -> None:
    with H5Writer(tmp_path / "features.h5") as writer:
        for name, features in IMAGES.items():
            writer.add(name, features)
    match_all(tmp_path / "from_file.h5", read_h5(tmp_path / "features.h5"))
    match_all(tmp_path / "from_memory.h5")
    left, right = (
        read_matches_h5(tmp_path / f"{name}.h5") for name in ("from_file", "from_memory")
    )
    for names in PAIRS:
        assert_equal(left[names], right[names])


def test_pairs_are_matched_as_they_are_asked_for(tmp_path: Path) -> None:
    def endless() -> Iterator[tuple[str, str]]:
        while True:
            yield PAIRS[0]

    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        records = match_pairs(IMAGES, endless(), writer)
        assert statuses([next(records) for _ in range(3)]) == ["done", "skipped", "skipped"]


def test_pairs_are_examined_by_the_threads_that_match_them(tmp_path: Path) -> None:
    main, asked, examined = threading.get_ident(), [], {}

    def examine(names: tuple[str, str]) -> Callable[[Matches], None]:
        assert threading.get_ident() == main
        asked.append(names)

        def note(matches: Matches) -> None:
            assert threading.get_ident() != main
            examined[names] = len(matches)

        return note

    records = match_all(tmp_path / "m.h5", threads=2, examine=examine)
    assert statuses(records) == ["done"] * 6
    assert asked == PAIRS
    assert examined == {(one.image_a, one.image_b): one.matches for one in records}
    match_all(tmp_path / "m.h5", threads=2, examine=examine)
    assert asked == PAIRS  # finished ones are not examined again


def test_a_pair_that_cannot_be_examined_fails_alone(tmp_path: Path) -> None:
    def examine(names: tuple[str, str]) -> Callable[[Matches], None]:
        def refuse(_: Matches) -> None:
            if names == PAIRS[1]:
                raise ConfigError("no such camera")

        return refuse

    records = match_all(tmp_path / "m.h5", examine=examine)
    assert statuses(records) == ["done", "failed", *["done"] * 4]
    assert records[1].error is not None and "no such camera" in records[1].error


def test_pairs_in_parallel_give_the_same_file_in_the_same_order(tmp_path: Path) -> None:
    many = [(a, b) for a in NAMES for b in NAMES if a != b]
    wanted = [*many, ("left/0.jpg", "missing.png"), many[0]]  # the last one is done already
    runs = {
        threads: match_all(tmp_path / f"{threads}.h5", pairs=wanted, threads=threads)
        for threads in (1, 2, 5)
    }
    expected = ["done"] * len(many) + ["failed", "skipped"]
    for threads, records in runs.items():
        assert statuses(records) == expected
        assert [(record.image_a, record.image_b) for record in records] == wanted
        left, right = (read_matches_h5(tmp_path / f"{n}.h5") for n in (1, threads))
        for names in many:
            assert_equal(left[names], right[names])


def test_matching_in_parallel_runs_on_one_core_per_pair(tmp_path: Path) -> None:
    from threadpoolctl import threadpool_info

    def blas_threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before = blas_threads()
    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        records = match_pairs(IMAGES, PAIRS, writer, threads=2)
        next(records)
        assert blas_threads() == {1} or usable_cores(2) == 1
        list(records)
    assert blas_threads() == before


def test_a_second_run_skips_and_a_longer_one_continues(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    first = match_all(path, pairs=PAIRS[:2])
    before = path.read_bytes()
    again = match_all(path, pairs=PAIRS[:2])
    assert statuses(again) == ["skipped"] * 2 and path.read_bytes() == before
    assert [record.matches for record in again] == [record.matches for record in first]
    assert {record.milliseconds for record in again} == {None}
    assert statuses(match_all(path)) == ["skipped"] * 2 + ["done"] * 4


def test_a_stopped_run_resumes_from_its_journal(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    writer = H5MatchesWriter(path)
    records = match_pairs(IMAGES, PAIRS, writer)
    assert statuses([next(records) for _ in range(4)]) == ["done"] * 4
    records.close()
    writer.suspend()
    assert names_in(tmp_path) == ["m.h5.partial"]
    assert statuses(match_all(path)) == ["skipped"] * 4 + ["done"] * 2
    assert names_in(tmp_path) == ["m.h5"]


def test_other_settings_are_refused_by_name_and_overwritten_on_request(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    match_all(path)
    before = path.read_bytes()
    refused = match_all(path, ratio=0.9)
    assert statuses(refused) == ["refused"] * 6 and path.read_bytes() == before
    assert refused[0].error is not None and refused[0].matches is None
    assert "settings.ratio differ" in refused[0].error and "--overwrite" in refused[0].error
    assert statuses(match_all(path, ratio=0.9, overwrite=True)) == ["done"] * 6
    assert read_matches_h5(path)[PAIRS[0]].meta["settings"]["ratio"] == 0.9


def test_settings_by_config_and_by_keyword_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    match_all(path, config=MatchingConfig(ratio=0.9, mutual=False))
    assert statuses(match_all(path, ratio=0.9, mutual=False)) == ["skipped"] * 6
    replaced = match_all(path, config=MatchingConfig(ratio=0.5, mutual=False), ratio=0.9)
    assert statuses(replaced) == ["skipped"] * 6
    with pytest.raises(ConfigError, match="unknown option rattio"):
        match_all(path, rattio=0.9)


def test_matches_of_other_features_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    match_all(path)
    changed = {**IMAGES, NAMES[0]: features_of(99)}
    records = match_all(path, changed)
    assert statuses(records) == ["refused"] * 3 + ["skipped"] * 3
    assert "features_crc32 differ" in str(records[0].error)


def test_pairs_of_an_image_that_changed_are_matched_again(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    before = {
        name: features_of(number, image_file={"bytes": number}) for number, name in enumerate(NAMES)
    }
    match_all(path, before)
    changed = {**before, NAMES[0]: features_of(99, image_file={"bytes": 99})}
    records = match_all(path, changed)
    assert statuses(records) == ["done"] * 3 + ["skipped"] * 3
    assert [record.redone for record in records] == ["the image changed"] * 3 + [None] * 3
    assert statuses(match_all(path, changed)) == ["skipped"] * 6
    same_image = {**changed, NAMES[0]: features_of(7, image_file={"bytes": 99})}
    assert statuses(match_all(path, same_image)) == ["refused"] * 3 + ["skipped"] * 3


def test_pairs_of_an_image_whose_mask_changed_are_matched_again(tmp_path: Path) -> None:
    path, image = tmp_path / "m.h5", {"bytes": 5}
    before = {name: features_of(number, image_file=image) for number, name in enumerate(NAMES)}
    before[NAMES[0]] = features_of(0, image_file=image, mask_file={"bytes": 1})
    match_all(path, before)
    changed = {**before, NAMES[0]: features_of(99, image_file=image, mask_file={"bytes": 2})}
    records = match_all(path, changed)
    assert [record.redone for record in records] == ["the image changed"] * 3 + [None] * 3


def test_a_damaged_pair_is_matched_again(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "m.h5"
    match_all(path)
    with h5py.File(path, "a") as file:
        file["left-0.jpg/left-1.jpg"].attrs["meta"] = np.bytes_("{")
    records = match_all(path)
    assert statuses(records) == ["done"] + ["skipped"] * 5
    assert records[0].redone == "the output was damaged"


def test_features_at_another_path_are_the_same_features(tmp_path: Path) -> None:
    first = {n: features_of(i, source=f"here/{n}") for i, n in enumerate(NAMES)}
    moved = {n: features_of(i, source=f"there/{n}") for i, n in enumerate(NAMES)}
    match_all(tmp_path / "m.h5", first)
    assert statuses(match_all(tmp_path / "m.h5", moved)) == ["skipped"] * 6


def test_one_bad_image_harms_no_other_pair(tmp_path: Path) -> None:
    bad = Features(IMAGES[NAMES[1]].xy, IMAGES[NAMES[1]].scores, None, (100, 100))
    records = match_all(tmp_path / "m.h5", {**IMAGES, NAMES[1]: bad})
    failed = {(r.image_a, r.image_b) for r in records if r.status == "failed"}
    assert failed == {names for names in PAIRS if NAMES[1] in names}
    assert all("left/1.jpg" in str(r.error) for r in records if r.status == "failed")
    assert set(read_matches_h5(tmp_path / "m.h5")) == set(PAIRS) - failed


def test_an_unknown_image_and_a_name_that_is_no_path_fail_alone(tmp_path: Path) -> None:
    images = {**IMAGES, "../up.jpg": features_of(5)}
    pairs = [(NAMES[0], "no.jpg"), (NAMES[0], "../up.jpg"), (NAMES[0], NAMES[1])]
    unknown, outside, good = match_all(tmp_path / "m.h5", images, pairs)
    assert "no features of an image 'no.jpg'" in str(unknown.error)
    assert "expected a path below" in str(outside.error)
    assert [unknown.status, outside.status, good.status] == ["failed", "failed", "done"]


def test_an_image_of_no_keypoints_has_no_matches(tmp_path: Path) -> None:
    images = {**IMAGES, "empty.jpg": features_of(7, count=0)}
    (record,) = match_all(tmp_path / "m.h5", images, [(NAMES[0], "empty.jpg")])
    assert (record.status, record.matches) == ("done", 0)
    assert len(read_matches_h5(tmp_path / "m.h5")[NAMES[0], "empty.jpg"]) == 0


def test_features_are_read_once_while_they_fit(tmp_path: Path) -> None:
    images = CountingImages(IMAGES)
    match_all(tmp_path / "m.h5", images)
    assert images.reads == len(NAMES)


def test_a_small_cache_reads_again_and_changes_nothing(tmp_path: Path) -> None:
    images = CountingImages(IMAGES)
    match_all(tmp_path / "large.h5")
    match_all(tmp_path / "small.h5", images, cache_bytes=1)
    assert len(NAMES) < images.reads <= 2 * len(PAIRS)
    large, small = (read_matches_h5(tmp_path / f"{name}.h5") for name in ("large", "small"))
    for names in PAIRS:
        assert_equal(small[names], large[names])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_stops_the_run_and_keeps_what_is_done(tmp_path: Path, code: int) -> None:
    class FullWriter(H5MatchesWriter):
        def add(self, name_a: str, name_b: str, matches: Matches) -> None:
            if len(self) == 2:
                error = OSError(code, "no more")
                raise unwritable(self.partial, error) from error
            super().add(name_a, name_b, matches)

    with (
        pytest.raises(OutputError, match="no more"),
        FullWriter(tmp_path / "m.h5") as writer,
    ):
        list(match_pairs(IMAGES, PAIRS, writer))
    assert statuses(match_all(tmp_path / "m.h5")) == ["skipped"] * 2 + ["done"] * 4


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_a_number_of_threads_below_one_is_refused(tmp_path: Path, threads: Any) -> None:
    with pytest.raises(ConfigError, match="threads is"):
        match_all(tmp_path / "m.h5", threads=threads)

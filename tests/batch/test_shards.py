"""Shards: the same bytes from any number of workers, one bad image a row, nothing lost or twice."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fake_detector import FakeDetector
from support.store_runs import (
    fill,
    names_of,
    numbered,
    picture,
    pictures,
    shard_bytes,
    statuses,
    store_job,
)
from tiepoint.batch import patience
from tiepoint.batch.listing import Listing, Worker, list_sources
from tiepoint.batch.shards import make_shard
from tiepoint.batch.store_run import run_store
from tiepoint.errors import FormatError, OutputError, UnreachableError
from tiepoint.files.lock import LockedError, WriteLock
from tiepoint.formats.features_store import StoreFeatures, read_manifest, records, shard_path
from tiepoint.images.masks import MaskFolder
from tiepoint.streaming import Detection

pytest.importorskip("h5py")

SHARDS = 5


@pytest.fixture
def photos(here: Path) -> Path:
    return pictures(here / "photos", numbered(40))


def failures(folder: Path) -> list[Any]:
    listed = records(folder, read_manifest(folder).identity)
    return [failure for record in listed for failure in record.failures]


def test_every_image_is_in_the_store_once_with_its_features(photos: Path, here: Path) -> None:
    found = fill(here / "a.store", "photos", shards=SHARDS)
    assert statuses(found) == {"done": 40}
    features = StoreFeatures(here / "a.store")
    assert list(features) == sorted(numbered(40))
    for name in features:
        assert features[name].size_hw[1] // 10 == len(features[name])
        assert features[name].meta["source"] == f"photos/{name}"
    assert "0/0.png" not in features and len(features) == 40


@pytest.mark.parametrize("layout", ["h5", "parquet"])
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    photos: Path, here: Path, layout: str
) -> None:
    if layout == "parquet":
        pytest.importorskip("pyarrow")
    fill(here / "one.store", "photos", shards=SHARDS, layout=layout)
    time.sleep(1.1)  # a time in a file has seconds
    for index in (2, 0, 1):
        fill(here / "three.store", "photos", shards=SHARDS, layout=layout, worker=f"{index}/3")
    assert shard_bytes(here / "one.store") == shard_bytes(here / "three.store")
    assert len(shard_bytes(here / "one.store")) == SHARDS


def test_workers_share_the_shards_without_a_common_one(photos: Path) -> None:
    listing = Listing(list_sources(["photos"]))
    parts = [[s.name for s in listing.shards(SHARDS, Worker(i, 3))] for i in range(3)]
    assert sorted(name for part in parts for name in part) == [f"{n:05}" for n in range(SHARDS)]
    assert sum(listing.count(SHARDS, Worker(index, 3)) for index in range(3)) == 40


def test_a_shard_is_made_by_a_function_of_its_arguments_that_can_be_pickled(
    photos: Path, here: Path
) -> None:
    listing = Listing(list_sources(["photos"]))
    job = store_job(here / "a.store", listing, shards=2)
    shard = next(listing.shards(2, Worker()))
    record = make_shard(*pickle.loads(pickle.dumps((shard, job))))
    assert [row.name for row in record.images] == [name for name, _ in shard.sources]
    assert next(records(here / "a.store", job.manifest.identity)) == record
    assert record.seconds >= 0 and record.started.startswith("20")


def test_a_second_run_does_nothing_and_says_so(photos: Path, here: Path) -> None:
    fill(here / "a.store", "photos", shards=SHARDS)
    stamps = {path: path.stat().st_mtime_ns for path in (here / "a.store").iterdir()}
    detector = FakeDetector()
    again = fill(here / "a.store", "photos", detector=detector)
    assert statuses(again) == {"skipped": 40} and detector.sources == []
    assert {row.source for row in again} == {f"photos/{name}" for name in numbered(40)}
    assert all(row.keypoints and row.size_hw for row in again)
    assert stamps == {path: path.stat().st_mtime_ns for path in (here / "a.store").iterdir()}


def test_new_images_join_their_shards_and_the_others_are_not_detected_again(
    photos: Path, here: Path
) -> None:
    fill(here / "a.store", "photos", shards=SHARDS)
    pictures(photos, ["new/1.png", "new/2.png"])
    detector = FakeDetector()
    more = fill(here / "a.store", "photos", detector=detector)
    assert statuses(more) == {"done": 2, "skipped": 40} and len(detector.sources) == 2
    fill(here / "b.store", "photos", shards=SHARDS)
    assert shard_bytes(here / "a.store") == shard_bytes(here / "b.store")


def test_a_corrupt_image_is_a_row_with_its_reason_and_its_shard_is_whole(
    photos: Path, here: Path
) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    found = fill(here / "a.store", "photos", shards=1)
    assert statuses(found) == {"done": 40, "failed": 1}
    assert [tuple(row) for row in failures(here / "a.store")] == [
        ("bad.png", "photos/bad.png: not an image", False)
    ]
    assert len(StoreFeatures(here / "a.store")) == 40
    detector = FakeDetector()
    again = fill(here / "a.store", "photos", detector=detector)
    assert statuses(again) == {"skipped": 40, "failed": 1} and detector.sources == []
    assert any("--retry-failed" in str(row.error) for row in again)


def test_failures_are_tried_again_when_asked_and_nothing_else_is(photos: Path, here: Path) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    fill(here / "a.store", "photos", shards=SHARDS)
    (photos / "bad.png").write_bytes(picture(50))
    detector = FakeDetector()
    retried = fill(here / "a.store", "photos", detector=detector, retry_failed=True)
    assert statuses(retried) == {"done": 1, "skipped": 40} and len(detector.sources) == 1
    fill(here / "b.store", "photos", shards=SHARDS)
    assert shard_bytes(here / "a.store") == shard_bytes(here / "b.store")
    assert failures(here / "a.store") == []


def test_a_bad_image_that_was_removed_is_no_failure_of_later_runs(photos: Path, here: Path) -> None:
    (photos / "bad.png").write_bytes(b"bad")
    for status in ("done", "skipped"):
        assert statuses(fill(here / "a.store", "photos")) == {status: 40, "failed": 1}
    (photos / "bad.png").unlink()
    assert statuses(fill(here / "a.store", "photos")) == {"skipped": 40}


def test_a_shard_of_bad_images_has_a_record_and_no_file(here: Path) -> None:
    (here / "photos").mkdir()
    (here / "photos" / "bad.png").write_bytes(b"")
    assert statuses(fill(here / "a.store", "photos")) == {"failed": 1}
    assert names_of(here / "a.store") == ["00000.json"]
    assert statuses(fill(here / "a.store", "photos")) == {"failed": 1}
    with pytest.raises(FormatError, match="no image has features yet"):
        StoreFeatures(here / "a.store")


def test_a_source_that_does_not_answer_is_tried_again_then_left_to_the_next_run(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "DELAYS_S", (0.0, 0.0))
    asked: list[str] = []
    answers = {"https://a.org/x.png": 3, "https://a.org/y.png": 2}  # attempts that fail

    def fetch(url: str) -> bytes:
        asked.append(url)
        if asked.count(url) <= answers[url]:
            raise UnreachableError(f"{url}: cannot be reached")
        return picture()

    monkeypatch.setattr("tiepoint.batch.shards.fetch", fetch)
    found = fill(here / "a.store", *answers, shards=1)
    assert statuses(found) == {"done": 1, "failed": 1}
    assert asked.count("https://a.org/x.png") == 3
    [failure] = failures(here / "a.store")
    assert failure.is_temporary and failure.name == "a.org/x.png"
    assert statuses(fill(here / "a.store", *answers)) == {"done": 1, "skipped": 1}
    assert set(StoreFeatures(here / "a.store")) == {"a.org/x.png", "a.org/y.png"}


def test_an_image_that_another_run_has_is_left_to_the_next_run(photos: Path, here: Path) -> None:
    class Busy(FakeDetector):
        def stream(self, sources: Iterable[str], **more: Any) -> Iterator[Detection]:
            for number, one in enumerate(super().stream(sources, **more)):
                error = LockedError("its tiles: another run is writing it")
                yield one._replace(features=None, error=error) if number == 1 else one

    found = fill(here / "a.store", "photos", shards=1, detector=Busy())
    assert statuses(found) == {"done": 39, "failed": 1}
    assert statuses(fill(here / "a.store", "photos")) == {"done": 1, "skipped": 39}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"detector": FakeDetector(threshold=0.25)}, "settings.threshold 0.5 instead of 0.25"),
        ({"detector": FakeDetector(precision="bf16")}, "precision 'f32' instead of 'bf16'"),
        ({"shards": 3}, "shards 5 instead of 3"),
        ({"half": True}, "half False instead of True"),
    ],
)
def test_other_settings_are_refused_by_name_until_overwritten(
    photos: Path, here: Path, change: dict[str, Any], named: str
) -> None:
    fill(here / "a.store", "photos", shards=SHARDS)
    before = shard_bytes(here / "a.store")
    with pytest.raises(FormatError, match=named):
        fill(here / "a.store", "photos", **change)
    assert shard_bytes(here / "a.store") == before
    again = fill(here / "a.store", "photos", overwrite=True, **change)
    assert statuses(again) == {"done": 40} and len(StoreFeatures(here / "a.store")) == 40


def test_weights_of_the_same_name_are_known_by_their_sum(photos: Path, here: Path) -> None:
    class OtherWeights(FakeDetector):
        def provenance(self, **options: Any) -> Any:
            from dataclasses import replace

            return replace(super().provenance(**options), weights_sha256="1" * 64)

    fill(here / "a.store", "photos")
    with pytest.raises(FormatError, match="weights_sha256 '0000"):
        fill(here / "a.store", "photos", detector=OtherWeights())


def test_shards_of_a_replaced_store_are_not_read(photos: Path, here: Path) -> None:
    fill(here / "a.store", "photos", shards=SHARDS)
    other: dict[str, Any] = {"detector": FakeDetector(0.25), "overwrite": True}
    fill(here / "a.store", "photos", shards=SHARDS, worker="0/5", **other)
    settings = {
        f.provenance.settings["threshold"] for f in StoreFeatures(here / "a.store").values()
    }
    assert settings == {0.25} and len(StoreFeatures(here / "a.store")) < 40


def test_two_writers_of_one_shard_are_refused(photos: Path, here: Path) -> None:
    listing = Listing(list_sources(["photos"]))
    job = store_job(here / "a.store", listing, shards=2)
    lock = WriteLock(shard_path(here / "a.store", "00000", "h5"))
    try:
        with pytest.raises(LockedError, match=r"00000\.h5: another run is writing it"):
            make_shard(next(listing.shards(2, Worker())), job)
        found = list(run_store(listing, job))
    finally:
        lock.release()
    counts = statuses(found)
    assert counts["done"] + counts["refused"] == 40
    assert {row.reason for row in found if row.status == "refused"} == {
        "another run is writing the shard"
    }
    assert statuses(run_store(listing, job)) == {
        "done": counts["refused"], "skipped": counts["done"],
    }  # fmt: skip


def test_a_damaged_or_foreign_shard_is_made_again(photos: Path, here: Path) -> None:
    store = here / "a.store"
    fill(store, "photos", shards=3)
    good = shard_bytes(store)
    (store / "00000.h5").write_bytes(good["00000.h5"][:1000])
    (store / "00001.json").write_text('{"shard"')
    (store / "00002.h5").unlink()
    again = fill(store, "photos")
    assert statuses(again) == {"done": 40} and shard_bytes(store) == good
    assert {row.redone for row in again} == {"the output was damaged"}


def test_features_that_cannot_be_kept_are_made_by_the_next_run(photos: Path, here: Path) -> None:
    store = here / "a.store"
    fill(store, "photos", shards=1)
    size = (store / "00000.h5").stat().st_size
    (store / "00000.h5").write_bytes(bytes(size))
    pictures(photos, ["new.png"])
    assert statuses(fill(store, "photos")) == {"done": 1, "failed": 40}
    assert statuses(fill(store, "photos")) == {"done": 40, "skipped": 1}


def test_a_name_that_another_image_has_is_refused_and_the_first_stays(here: Path) -> None:
    for folder, width in (("one", 20), ("two", 90)):
        (here / folder).mkdir()
        (here / folder / "x.png").write_bytes(picture(width))
    fill(here / "a.store", "one")
    second = fill(here / "a.store", "two")
    assert statuses(second) == {"skipped": 1, "failed": 1}
    assert "belongs to another image" in str([row.error for row in second])
    assert StoreFeatures(here / "a.store")["x.png"].size_hw == (10, 20)
    assert statuses(fill(here / "a.store", "two")) == {"skipped": 1, "failed": 1}
    assert statuses(fill(here / "a.store", here / "one")) == {"skipped": 1}
    both = fill(here / "b.store", here / "one" / "x.png", here / "two" / "x.png")
    assert statuses(both) == {"done": 1, "failed": 1}
    apart = fill(here / "c.store", "one", "two")
    assert statuses(apart) == {"done": 2}
    assert set(StoreFeatures(here / "c.store")) == {"one/x.png", "two/x.png"}


def test_a_store_that_moved_with_its_photographs_goes_on(photos: Path, here: Path) -> None:
    fill(here / "a.store", "photos")
    assert statuses(fill(here / "a.store", here / "photos")) == {"skipped": 40}
    photos.rename(here / "pictures")
    assert statuses(fill(here / "a.store", "pictures")) == {"skipped": 40}


def test_masks_are_applied_and_belong_to_the_settings(photos: Path, here: Path) -> None:
    pictures(here / "masks", ["0/000.png.png"])
    detector = FakeDetector()
    found = fill(here / "a.store", "photos", masks=MaskFolder(here / "masks"), detector=detector)
    assert statuses(found) == {"done": 40}
    masked = [source for source in detector.sources if not isinstance(source, str)]
    assert [Path(image.mask_name).name for image in masked] == ["000.png.png"]
    with pytest.raises(FormatError, match="masks '"):
        fill(here / "a.store", "photos")


def test_a_full_disk_stops_the_run_and_leaves_no_half_shard(
    photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fill(here / "a.store", "photos", shards=2, worker="0/2")
    with monkeypatch.context() as patch:
        patch.setattr("tiepoint.files.writing._flush", full)
        with pytest.raises(OutputError, match="No space left"):
            fill(here / "a.store", "photos")
    assert names_of(here / "a.store") == ["00000.h5", "00000.json"]
    assert statuses(fill(here / "a.store", "photos"))["skipped"] > 0


class SlowDetector(FakeDetector):
    """Takes a moment for each image, so that a kill meets it at work."""

    def stream(self, sources: Iterable[Any], **options: Any) -> Iterator[Detection]:
        for detection in super().stream(sources, **options):
            time.sleep(0.004)
            yield detection


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_workers_lose_nothing_and_make_nothing_twice(photos: Path, here: Path) -> None:
    """Two workers at once, without parts of their own, killed at random moments."""
    fill(here / "whole.store", "photos", shards=SHARDS)
    draw = random.Random(4)
    store, kills = here / "a.store", 0
    for _ in range(12):
        workers = []
        for _ in range(2):
            if (pid := os.fork()) == 0:
                try:
                    fill(store, "photos", shards=SHARDS, detector=SlowDetector())
                finally:
                    os._exit(0)
            workers.append(pid)
        time.sleep(draw.uniform(0.02, 0.25))
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            kills += os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert kills > 2
    last = fill(store, "photos")
    assert sum(statuses(last).values()) == 40 and not set(statuses(last)) - {"done", "skipped"}
    assert shard_bytes(store) == shard_bytes(here / "whole.store")
    left = [name for name in names_of(store) if not name.endswith(".lock")]
    assert left == names_of(here / "whole.store")


def test_an_interrupt_keeps_whole_shards_and_removes_the_half_one(photos: Path, here: Path) -> None:
    listing = Listing(list_sources(["photos"]))
    job = store_job(here / "a.store", listing, shards=2)
    run = run_store(listing, job)
    done = [next(run) for _ in range(len(next(listing.shards(2, Worker())).sources) + 3)]
    run.close()  # as Ctrl-C does
    assert statuses(done) == {"done": len(done)}
    assert names_of(here / "a.store") == ["00000.h5", "00000.json"]
    assert statuses(run_store(listing, job))["skipped"] == len(done) - 3


def test_memory_does_not_grow_with_the_number_of_images(here: Path) -> None:
    peaks = []
    for count in (50, 350):
        folder = pictures(here / f"photos-{count}", [f"{number:05}.png" for number in range(count)])
        tracemalloc.start()
        sum(1 for _ in fill_lazily(here / f"{count}.store", folder, count // 50))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        shutil.rmtree(folder)
    names_bytes = 300 * 400  # each name, in the listing
    assert peaks[1] < peaks[0] + names_bytes + 300_000, peaks


def fill_lazily(store: Path, folder: Path, shards: int) -> Iterator[Any]:
    listing = Listing(list_sources([str(folder)]))
    return run_store(listing, store_job(store, listing, shards=shards))

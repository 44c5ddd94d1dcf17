"""The vectors of a collection, kept beside its features."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.provenance import made
from tiepoint.batch import image_vectors
from tiepoint.batch.left_out import LeftOut
from tiepoint.batch.pair_choice import choose_pairs
from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features
from tiepoint.files.lock import LockedError, WriteLock
from tiepoint.formats import H5Writer, read_h5
from tiepoint.formats.features_store import (
    ImageRow,
    Manifest,
    ShardRecord,
    shard_path,
    write_manifest,
    write_record,
)
from tiepoint.formats.many_images import read_features
from tiepoint.formats.shard_files import shard_writer

COUNT = 40


def image(seed: int, count: int = 60, length: int = 8) -> Features:
    """Descriptors around those of the image's scene; four images show one scene."""
    scene = np.random.default_rng(seed // 4).standard_normal((count, length))
    rows = scene + 0.3 * np.random.default_rng(seed + 1000).standard_normal((count, length))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    zeros = np.zeros((count, 2), np.float32)
    return Features(
        zeros, np.ones(count, np.float32), rows.astype(np.float32), (8, 8), provenance=made()
    )


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collections of more than 20 images are large, with vectors of 12 values."""
    monkeypatch.setattr(image_vectors, "SAMPLE", 20)
    monkeypatch.setattr(image_vectors, "_AT_ONCE", 4)
    projected = image_vectors.with_projection
    monkeypatch.setattr(image_vectors, "with_projection", lambda v, rows: projected(v, rows, 12))


@pytest.fixture
def file(here: Path, large: None) -> Path:
    pytest.importorskip("h5py")
    path = here / "features.h5"
    with H5Writer(path) as writer:
        for number in range(COUNT):
            writer.add(f"{number:03}.jpg", image(number, 0 if number == 7 else 60))
    return path


def vectors(path: Path, **options: Any) -> Any:
    return image_vectors.image_vectors(read_features(path), LeftOut(""), **options)


def in_memory(path: Path) -> Any:
    features = dict(read_features(path))
    return image_vectors.image_vectors(features, LeftOut(""))


def test_vectors_are_kept_and_equal_those_made_in_memory(file: Path) -> None:
    left_out = LeftOut("similar")
    seen: list[int] = []
    found = image_vectors.image_vectors(
        read_features(file), left_out, on_image=lambda: seen.append(1)
    )
    assert found.shape == (COUNT, 12) and found.dtype == np.float16 and len(seen) == COUNT
    np.testing.assert_array_equal(found, in_memory(file))
    np.testing.assert_array_equal(found.any(axis=1), np.arange(COUNT) != 7)
    assert "007.jpg" in str(next(left_out.errors()))
    pairs = choose_pairs(read_features(file), PairConfig("similar", k=2))
    right = [int(a[:3]) // 4 == int(b[:3]) // 4 for a, b in pairs]
    assert np.mean(right) > 0.9
    names = sorted(path.name for path in Path(f"{file}.similar").iterdir())
    assert names == ["head.json", "vectors.f16", "vocabulary.npz"]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_nothing(file: Path, threads: int) -> None:
    np.testing.assert_array_equal(vectors(file, threads=threads), in_memory(file))


def test_an_interrupted_run_continues_and_reports_what_it_skipped(file: Path) -> None:
    class Stopping(type(read_h5(file))):  # type: ignore[misc]
        def __getitem__(self, name: str) -> Features:
            if name == "030.jpg" and (folder / "vectors.f16").exists():
                raise KeyboardInterrupt
            return super().__getitem__(name)

    folder = Path(f"{file}.similar")
    with pytest.raises(KeyboardInterrupt):
        image_vectors.image_vectors(Stopping(file), LeftOut(""), threads=1)
    stored = folder / "vectors.f16"
    assert 16 * 24 <= stored.stat().st_size < 30 * 24
    with stored.open("ab") as opened:
        opened.write(b"torn")
    read: list[str] = []

    class Counting(type(read_h5(file))):  # type: ignore[misc]
        def __getitem__(self, name: str) -> Features:
            read.append(name)
            return super().__getitem__(name)

    left_out, seen = LeftOut("similar"), []
    found = image_vectors.image_vectors(Counting(file), left_out, on_image=lambda: seen.append(1))
    np.testing.assert_array_equal(found, in_memory(file))
    assert "000.jpg" not in read and "039.jpg" in read and len(seen) == COUNT
    assert "007.jpg" in str(next(left_out.errors()))


def test_an_image_that_failed_is_tried_again(file: Path) -> None:
    class Failing(type(read_h5(file))):  # type: ignore[misc]
        def __getitem__(self, name: str) -> Features:
            if name == "003.jpg":
                raise FormatError("the disk did not answer")
            return super().__getitem__(name)

    # A vocabulary from all images, then vectors of all but one.
    vectors(file)
    stored = Path(f"{file}.similar") / "vectors.f16"
    stored.write_bytes(b"")
    found = image_vectors.image_vectors(Failing(file), LeftOut(""))
    assert not found[3].any()
    np.testing.assert_array_equal(vectors(file), in_memory(file))


@pytest.mark.parametrize("damage", ["head.json", "vocabulary.npz"])
def test_damaged_files_are_made_again(file: Path, damage: str) -> None:
    vectors(file)
    path = Path(f"{file}.similar") / damage
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    np.testing.assert_array_equal(vectors(file), in_memory(file))


def test_other_features_get_other_vectors(file: Path) -> None:
    before = np.array(vectors(file))
    with H5Writer(file) as writer:
        writer.add("999.jpg", image(999))
    after = vectors(file)
    assert len(after) == COUNT + 1 and len(before) == COUNT
    np.testing.assert_array_equal(after, in_memory(file))


def test_two_runs_do_not_write_one_file(file: Path) -> None:
    folder = Path(f"{file}.similar")
    folder.mkdir()
    lock = WriteLock(folder / "vectors.f16")
    with pytest.raises(LockedError, match="another run is writing it"):
        vectors(file)
    lock.release()


def test_a_place_that_cannot_be_written_keeps_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path(f"{file}.similar").write_text("in the way")
    np.testing.assert_array_equal(vectors(file), in_memory(file))
    assert "image vectors are not kept" in caplog.text


def test_a_large_collection_without_descriptors_has_no_vectors(here: Path, large: None) -> None:
    pytest.importorskip("h5py")
    bare = Features(np.zeros((1, 2), np.float32), np.ones(1, np.float32), None, (8, 8))
    with H5Writer(here / "f.h5") as writer:
        for number in range(30):
            writer.add(f"{number}.jpg", bare)
    left_out = LeftOut("similar")
    found = image_vectors.image_vectors(read_features(here / "f.h5"), left_out)
    assert not found.any() and len(found) == 30
    assert "similar: 30 images, the first 0.jpg: features have no" in str(next(left_out.errors()))


def test_a_store_keeps_its_vectors_beside_it(here: Path, large: None) -> None:
    pytest.importorskip("h5py")
    folder = here / "some.store"
    folder.mkdir()
    manifest = Manifest(2, "h5", False, None, made())
    write_manifest(folder, manifest)
    for shard in ("00000", "00001"):
        numbers = range(COUNT // 2) if shard == "00000" else range(COUNT // 2, COUNT)
        path = shard_path(folder, shard, "h5")
        with shard_writer(path, "h5") as add:
            for number in numbers:
                add(f"{number:03}.jpg", image(number))
        rows = tuple(ImageRow(f"{number:03}.jpg", 60, 8, 8, "") for number in numbers)
        size = path.stat().st_size
        write_record(folder, ShardRecord(shard, manifest.identity, {}, rows, file_bytes=size))
    found = vectors(folder)
    np.testing.assert_array_equal(found, in_memory(folder))
    assert (here / "some.store.similar" / "vectors.f16").stat().st_size == found.nbytes
    assert len(read_features(folder)) == COUNT
    shutil.rmtree(here / "some.store.similar")
    np.testing.assert_array_equal(found, vectors(folder))


def test_small_collections_leave_no_files(here: Path) -> None:
    pytest.importorskip("h5py")
    with H5Writer(here / "f.h5") as writer:
        for number in range(6):
            writer.add(f"{number}.jpg", image(number))
    assert vectors(here / "f.h5").dtype == np.float32
    assert [path.name for path in here.iterdir()] == ["f.h5"]


def test_descriptors_of_several_lengths_are_refused() -> None:
    images = {"a": image(0), "b": image(1, length=6)}
    with pytest.raises(ConfigError, match="descriptors of different lengths"):
        image_vectors.image_vectors(images, LeftOut(""))

"""HDF5 files on a full disk: a clear error, and nothing lost that was there before."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tiepoint import Features, Matches, save
from tiepoint.errors import OutputError
from tiepoint.formats import H5MatchesWriter, H5Writer, hdf5_writing, read_h5, read_matches_h5
from tiepoint.formats.shard_files import shard_writer

h5py = pytest.importorskip("h5py", reason=".h5 files need the extra hdf5")

NAMES = [f"{index % 3}/{index}.png" for index in range(60)]


def features(seed: int, count: int = 300) -> Features:
    random = np.random.default_rng(seed)
    descriptors = random.normal(size=(count, 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    scores = np.sort(random.random(count, np.float32))[::-1].copy()
    xy = random.random((count, 2), np.float32) * 400
    return Features(xy=xy, scores=scores, size_hw=(500, 500), descriptors=descriptors, meta={})


def limit(room: int) -> None:
    """No file of this process grows beyond this size, bytes; a write beyond it fails."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def write_one(path: Path, room: int) -> None:
    limit(room)
    save(features(0, 20_000), path)


def write_images(path: Path, room: int) -> None:
    with H5Writer(path) as writer:
        for seed, name in enumerate(NAMES):
            writer.add(name, features(seed))
        limit(room)


def write_more_images(path: Path, room: int) -> None:
    with H5Writer(path) as writer:
        writer.add("first.png", features(99))
    write_images(path, room)


def write_matches(path: Path, room: int) -> None:
    pairs = np.stack([np.arange(20_000)] * 2, axis=1)
    with H5MatchesWriter(path) as writer:
        for name in NAMES:
            writer.add("a.png", name, Matches(pairs, np.ones(20_000, np.float32)))
        limit(room)


def write_shard(path: Path, room: int) -> None:
    limit(room)
    with shard_writer(path, "h5") as add:
        for seed, name in enumerate(NAMES):
            add(name, features(seed))


WRITERS = {
    one.__name__: one
    for one in (write_one, write_images, write_more_images, write_matches, write_shard)
}

PROCESS = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from formats import test_hdf5_full_disk as test
from tiepoint.errors import OutputError
if sys.argv[5] == "zeros":
    vars(os).pop("posix_fallocate", None)
try:
    test.WRITERS[sys.argv[2]](Path(sys.argv[3]), int(sys.argv[4]))
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("way", ["allocated", "zeros"])
@pytest.mark.parametrize("room", [0, 3_000, 1_500_000])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_named_and_costs_nothing(
    tmp_path: Path, writer: str, room: int, way: str
) -> None:
    pytest.importorskip("resource", reason="this system has no limits of file sizes")
    path, tests = tmp_path / "all.h5", str(Path(__file__).resolve().parents[1])
    ended = subprocess.run(
        [sys.executable, "-c", PROCESS, tests, writer, str(path), str(room), way],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "all.h5: cannot be written (File too large)" in ended.stdout
    kept = {"write_images": 60, "write_more_images": 60, "write_matches": 60}.get(writer, 0)
    assert not list(tmp_path.glob(".*.partial"))  # nothing half-written
    if writer == "write_more_images":
        np.testing.assert_array_equal(read_h5(path)["first.png"].xy, features(99).xy)
    if kept:  # the next run, with room, has all from the journal
        (H5MatchesWriter if writer == "write_matches" else H5Writer)(path).close()
        stored = read_matches_h5(path) if writer == "write_matches" else read_h5(path)
        assert len(stored) == kept + (writer == "write_more_images")


def test_reserved_space_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for way in ("allocated", "zeros"):
        if way == "zeros":
            monkeypatch.delattr(os, "posix_fallocate", raising=False)
        path = tmp_path / f"{way}.h5"
        with hdf5_writing.writing(path, "w") as file:
            file["a"] = np.arange(1000)
            file.flush()
            hdf5_writing.reserve(file, 5_000_000)
            assert path.stat().st_size > 5_000_000
        sizes.append(path.stat().st_size)
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["a"], np.arange(1000))
    assert sizes[0] == sizes[1] < 20_000


def test_a_file_system_that_allocates_nothing_in_advance_gets_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refused, raising=False)
    with hdf5_writing.writing(tmp_path / "a.h5", "w") as file:
        hdf5_writing.reserve(file, 3_000_000)
        assert (tmp_path / "a.h5").stat().st_size > 3_000_000


def test_an_error_that_is_not_h5py_s_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="of the network"), shard_writer(tmp_path / "a.h5", "h5"):
        raise RuntimeError("of the network")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="none"):
        save(features(0), tmp_path / "none" / "a.h5")

"""Damage inside HDF5 files costs no other entry; failing disks and other programs cost nothing."""

from __future__ import annotations

import contextlib
import errno
import io
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from support import matches_files
from support.features_files import names_in
from support.hdf5_kinds import BOTH, FEATURES, MATCHES, Kind
from tiepoint.errors import FormatError
from tiepoint.formats import (
    DamagedError,
    H5MatchesWriter,
    hdf5_reading,
    read_matches_h5,
)

h5py = pytest.importorskip("h5py")


@BOTH
def test_a_damaged_file_is_set_aside_and_made_again(
    tmp_path: Path, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.h5"
    kind.write(path, 0, 1)
    whole = path.read_bytes()
    rests = [b"", b"\0" * 50, whole[:100], whole[: len(whole) // 2], whole[:-1]]
    for number, rest in enumerate(rests, start=1):
        path.write_bytes(rest)
        kind.write(path, 0)
        assert list(kind.read(path)) == [kind.key(0)]
        assert (tmp_path / f"x.h5.damaged{number}").read_bytes() == rest
        assert f"is now x.h5.damaged{number}" in caplog.text
    assert len(names_in(tmp_path)) == 1 + len(rests)


def _readable(kind: Kind, path: Path) -> set[Any]:
    try:
        mapping = kind.read(path)
    except FormatError:
        return set()
    readable = set()
    for key in mapping:
        with contextlib.suppress(FormatError):
            mapping[key]
            readable.add(key)
    return readable


@BOTH
def test_damage_inside_a_file_costs_no_entry_that_can_still_be_read(
    tmp_path: Path, kind: Kind
) -> None:
    path, aside = tmp_path / "x.h5", tmp_path / "x.h5.damaged1"
    kind.write(path, *range(4))
    whole, random = path.read_bytes(), np.random.default_rng(3)
    set_aside = 0
    for _ in range(100):  # a block of the disk that was never written
        start = int(random.integers(len(whole) // 256)) * 256
        damaged = whole[:start] + bytes(256) + whole[start + 256 :]
        path.write_bytes(damaged)
        readable = _readable(kind, path)
        for _ in range(2):
            kind.write(path, 0)
        assert _readable(kind, path) >= {kind.key(0), *readable}
        if aside.exists():
            assert aside.read_bytes() == damaged
            set_aside += 1
        aside.unlink(missing_ok=True)
        assert names_in(tmp_path) == ["x.h5"]
    assert 10 < set_aside < 100


@BOTH
@pytest.mark.parametrize("member", [0, 1])
@pytest.mark.parametrize("place", [0, 24], ids=["header", "message"])
def test_one_damaged_entry_is_named_and_made_again(
    tmp_path: Path, kind: Kind, member: int, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.h5"
    kind.write(path, 0, 1, 2)
    _damage(path, _parts(kind)[member], place)
    before = path.read_bytes()
    mapping = kind.read(path)
    with pytest.raises(DamagedError, match=r"x\.h5"):
        mapping[kind.key(1)]
    assert len(mapping[kind.key(0)]) == 1 and len(mapping[kind.key(2)]) == 3
    with kind.writer(path) as writer:
        with pytest.raises(DamagedError, match=r"x\.h5"):
            writer.read(kind.key(1))
        kind.add(writer, 1)
    assert [len(kind.read(path)[kind.key(number)]) for number in range(3)] == [1, 2, 3]
    assert (tmp_path / "x.h5.damaged1").read_bytes() == before
    assert "is now x.h5.damaged1, and its readable parts are kept" in caplog.text
    assert {record.levelname for record in caplog.records} == {"ERROR"}  # in spite of --quiet


def _parts(kind: Kind) -> list[str]:
    """The group of entry 1, and a data set in it."""
    if kind is FEATURES:
        return ["1.jpg", "1.jpg/keypoints"]
    return ["a.jpg/1.jpg", "a.jpg/1.jpg/matches0"]


def _damage(path: Path, name: str, place: int) -> None:
    """Overwrite eight bytes of the header of a group or data set."""
    with h5py.File(path) as file:
        start = h5py.h5o.get_info(file[name].id).addr + place
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"\xab" * 8 + data[start + 8 :])


def test_the_pairs_of_a_damaged_first_image_are_named_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    MATCHES.write(path, 0, 1)
    with H5MatchesWriter(path) as writer:
        writer.add("b.jpg", "c.jpg", matches_files.make(4))
    _damage(path, "a.jpg", 0)
    mapping = read_matches_h5(path)
    assert len(mapping["b.jpg", "c.jpg"]) == 4
    with pytest.raises(DamagedError, match=r"x\.h5"):
        mapping["a.jpg", ""]
    MATCHES.write(path, 0)
    assert list(read_matches_h5(path)) == [("a.jpg", "0.jpg"), ("b.jpg", "c.jpg")]


def test_a_damaged_pair_whose_names_have_slashes_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    for _ in range(2):
        with H5MatchesWriter(path) as writer:
            writer.add("l/a.jpg", "r/b.jpg", matches_files.make(4))
            writer.add("l/a.jpg", "r/c.jpg", matches_files.make(4))
        _damage(path, "l-a.jpg/r-b.jpg", 0)
    with H5MatchesWriter(path) as writer:
        assert ("l/a.jpg", "r/b.jpg") not in writer and ("l/a.jpg", "r/c.jpg") in writer


@pytest.mark.parametrize("text", [b'["l/a.jpg", "\xff"]', b'["l/a.jpg"', b"5", b'["l/a.jpg"]'])
def test_damaged_names_of_a_pair_cost_that_pair_alone(tmp_path: Path, text: bytes) -> None:
    path, names = tmp_path / "x.h5", ("l/a.jpg", "r/b.jpg")
    with H5MatchesWriter(path) as writer:
        writer.add(*names, matches_files.make(4))
        writer.add("l/a.jpg", "r/c.jpg", matches_files.make(4))
    with hdf5_reading.load_h5py().File(path, "a") as file:
        file["l-a.jpg/r-b.jpg"].attrs["names"] = np.bytes_(text)
    found = read_matches_h5(path)
    assert set(found) == {("l-a.jpg", "r-b.jpg"), ("l/a.jpg", "r/c.jpg")}
    with pytest.raises(DamagedError, match="match again"):
        found["l-a.jpg", "r-b.jpg"]
    with H5MatchesWriter(path) as writer:
        assert names not in writer
        writer.add(*names, matches_files.make(5))
    assert set(read_matches_h5(path)) == {names, ("l/a.jpg", "r/c.jpg")}


@BOTH
def test_what_other_programs_put_into_a_damaged_file_is_kept(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    kind.write(path, 0, 1)
    with h5py.File(path, "a") as file:
        file["other/deep/values"] = np.arange(3)
        file["other/again"] = file["other/deep"]
        file["other/deep/circle"] = file["other"]
        file["soft"] = h5py.SoftLink("/other/deep")
        file["outside"] = h5py.ExternalLink("secret.h5", "/x")
        file.attrs["note"] = np.bytes_("kept")
    with h5py.File(path, "a") as file:
        del file["other/deep/circle"], file["other/again"]  # which reading refuses
        file["other/deep/again"] = file["other/deep/values"]
    _damage(path, _parts(kind)[0], 0)
    kind.write(path, 1)
    with h5py.File(path) as file:
        assert file["other/deep/values"][()].tolist() == [0, 1, 2]
        assert file["other/deep/again"] == file["other/deep/values"]
        assert file["soft/values"][()].tolist() == [0, 1, 2]
        assert isinstance(file.get("outside", getlink=True), h5py.ExternalLink)
        assert file.attrs["note"] == b"kept"


class _Failing(io.RawIOBase):
    """A file on a disk that fails after some reads."""

    def __init__(self, file: BinaryIO, reads: int) -> None:
        self.file, self.reads = file, reads

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readinto(self, buffer: Any) -> int:
        self.reads -= 1
        if self.reads < 0:
            raise OSError(errno.EIO, "Input/output error")
        return self.file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]


@BOTH
@pytest.mark.parametrize("reads", [0, 5, 12])
def test_a_disk_that_fails_for_a_moment_costs_no_file(
    tmp_path: Path, kind: Kind, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    kind.write(path, 0, 1)
    before, real = path.read_bytes(), hdf5_reading.open_regular
    monkeypatch.setattr(hdf5_reading, "open_regular", lambda path: _Failing(real(path), reads))
    for use in (kind.writer, kind.read):
        with pytest.raises(FormatError, match="cannot be read") as caught:
            use(path)
        assert not isinstance(caught.value, DamagedError)
    assert path.read_bytes() == before and names_in(tmp_path) == ["x.h5"]


@BOTH
def test_a_file_open_in_a_program_that_takes_no_lock_is_not_set_aside(
    tmp_path: Path, kind: Kind
) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest", locking=False) as file:
        file["a/keypoints"] = np.zeros((1, 2))
        file.flush()
        shutil.copyfile(path, tmp_path / "y.h5")  # as a program that was killed leaves it
    with pytest.raises(FormatError, match=r"open for writing; .* run h5clear -s y\.h5") as caught:
        kind.writer(tmp_path / "y.h5")
    assert not isinstance(caught.value, DamagedError)
    assert names_in(tmp_path) == ["x.h5", "y.h5"]

"""What both kinds of HDF5 files share: lazy groups, journals, errors that name the kind."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from support import features_files, matches_files
from support.features_files import names_in
from tiepoint.errors import FormatError, MissingExtraError, OutputError
from tiepoint.formats import (
    DamagedError,
    H5MatchesWriter,
    H5Writer,
    hdf5_reading,
    read_h5,
    read_matches_h5,
)

h5py = pytest.importorskip("h5py")


@dataclass(frozen=True)
class Kind:
    """One kind of file: its writer, its reader, and entries for numbers."""

    name: str
    writer: Callable[[Path], Any]
    read: Callable[[Path], Mapping[Any, Any]]
    key: Callable[[int], Any]
    make: Callable[[int], Any]
    add: Callable[[Any, int], None]

    def write(self, path: Path, *numbers: int) -> None:
        with self.writer(path) as writer:
            for number in numbers:
                self.add(writer, number)

    def leave(self, path: Path, *numbers: int) -> None:
        """Leave what an interrupted run leaves."""
        writer = self.writer(path)
        for number in numbers:
            self.add(writer, number)
        writer.suspend()


FEATURES = Kind(
    "features",
    H5Writer,
    read_h5,
    lambda number: f"{number}.jpg",
    lambda number: features_files.make(number + 1),
    lambda writer, number: writer.add(f"{number}.jpg", features_files.make(number + 1)),
)
MATCHES = Kind(
    "matches",
    H5MatchesWriter,
    read_matches_h5,
    lambda number: ("a.jpg", f"{number}.jpg"),
    lambda number: matches_files.make(number + 1),
    lambda writer, number: writer.add("a.jpg", f"{number}.jpg", matches_files.make(number + 1)),
)
BOTH = pytest.mark.parametrize("kind", [FEATURES, MATCHES], ids=["features", "matches"])


# Reading


@BOTH
def test_a_mapping_reads_each_entry_when_it_is_asked_for(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    kind.write(path, 0, 1, 2)
    mapping = kind.read(path)
    assert len(mapping) == 3 and set(mapping) == {kind.key(number) for number in range(3)}
    assert kind.key(0) in mapping and kind.key(7) not in mapping and 7 not in mapping
    with pytest.raises(KeyError):
        mapping[kind.key(7)]
    kind.write(path, 5)  # into the same file
    assert kind.key(5) not in mapping and len(mapping[kind.key(1)]) == 2
    assert f"x.h5', 3 {'images' if kind is FEATURES else 'pairs'})" in repr(mapping)


@BOTH
def test_a_file_that_vanished_is_named_when_an_entry_is_read(tmp_path: Path, kind: Kind) -> None:
    kind.write(tmp_path / "x.h5", 0)
    mapping = kind.read(tmp_path / "x.h5")
    (tmp_path / "x.h5").unlink()
    with pytest.raises(FormatError, match=r"x\.h5: cannot be read \(no such file\)"):
        mapping[kind.key(0)]


@BOTH
@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"\x89HDF\r\n\x1a\n" + b"\x00" * 90])
def test_what_is_no_hdf5_is_named_by_its_kind(tmp_path: Path, kind: Kind, content: bytes) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=rf"x\.h5: not a whole {kind.name} file"):
        kind.read(path)
    assert path.read_bytes() == content


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


@BOTH
def test_a_symbolic_link_stays_and_both_names_share_a_lock(tmp_path: Path, kind: Kind) -> None:
    path, link = tmp_path / "real" / "x.h5", tmp_path / "link.h5"
    path.parent.mkdir()
    kind.write(path, 0)
    link.symlink_to(path)
    with kind.writer(link) as writer:
        kind.add(writer, 1)
        with pytest.raises(OutputError, match="another run is writing it"):
            kind.writer(path)
    assert link.is_symlink() and names_in(tmp_path) == ["link.h5", "real"]
    assert names_in(path.parent) == ["x.h5"] and len(kind.read(path)) == 2
    path.write_bytes(path.read_bytes()[:-1])
    kind.write(link, 0)
    assert link.is_symlink() and names_in(path.parent) == ["x.h5", "x.h5.damaged1"]


@BOTH
def test_a_file_of_another_program_is_refused_and_stays(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"somebody's own")
    with pytest.raises(FormatError, match=rf"x\.h5: not a whole {kind.name} file"):
        kind.writer(path)
    assert path.read_bytes() == b"somebody's own" and names_in(tmp_path) == ["x.h5"]


@BOTH
def test_a_whole_file_that_another_program_writes_is_not_set_aside(
    tmp_path: Path, kind: Kind
) -> None:
    path = tmp_path / "x.h5"
    kind.write(path, 0)
    code = f"import h5py; f = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    try:
        with pytest.raises(FormatError, match=r"x\.h5"):
            kind.writer(path)
    finally:
        process.communicate("\n")
    assert names_in(tmp_path) == ["x.h5"] and len(kind.read(path)) == 1


@BOTH
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_the_file_is_refused_at_once(tmp_path: Path, kind: Kind) -> None:
    os.mkfifo(tmp_path / "x.h5")
    with pytest.raises(FormatError, match=r"x\.h5: a named pipe \(FIFO\), expected"):
        kind.writer(tmp_path / "x.h5")


@BOTH
def test_a_file_of_the_other_kind_is_refused(tmp_path: Path, kind: Kind) -> None:
    other = MATCHES if kind is FEATURES else FEATURES
    other.write(tmp_path / "x.h5", 0, 1)
    for read in (kind.read, kind.writer):
        with pytest.raises(FormatError, match="no group has (keypoints|matches0)"):
            read(tmp_path / "x.h5")


@BOTH
def test_a_damaged_entry_spares_the_others(tmp_path: Path, kind: Kind) -> None:
    kind.write(tmp_path / "x.h5", 0, 1)
    group = "1.jpg" if kind is FEATURES else "a.jpg/1.jpg"
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file[group].attrs["meta"] = np.bytes_("{")
    mapping = kind.read(tmp_path / "x.h5")
    with pytest.raises(FormatError, match="meta is not JSON"):
        mapping[kind.key(1)]
    assert len(mapping[kind.key(0)]) == 1


def test_text_of_variable_length_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["fixed"], file.attrs["variable"] = np.bytes_("한글".encode()), "text"
        file.attrs["number"] = 3
        assert hdf5_reading.text_attribute(file, "fixed") == "한글"
        for name in ("variable", "number"):
            with pytest.raises(ValueError, match="expected text of fixed length"):
                hdf5_reading.text_attribute(file, name)


# Writing


@BOTH
def test_the_file_appears_when_the_writer_is_closed(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    with kind.writer(path) as writer:
        assert names_in(tmp_path) == [".x.h5.lock"]
        kind.add(writer, 0)
        assert names_in(tmp_path) == [".x.h5.lock", "x.h5.partial"] and writer.partial.exists()
        writer.close()
        assert names_in(tmp_path) == ["x.h5"]
    assert names_in(tmp_path) == ["x.h5"] and len(kind.read(path)) == 1


@BOTH
def test_a_writer_knows_what_it_holds_from_journal_and_file(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    kind.write(path, 0)
    kind.leave(path, 1)
    with kind.writer(path) as writer:
        kind.add(writer, 2)
        assert len(writer) == 3
        for number in range(3):
            assert kind.key(number) in writer
            assert len(writer.read(kind.key(number))) == number + 1
        assert kind.key(3) not in writer
        with pytest.raises(KeyError):
            writer.read(kind.key(3))
    assert set(kind.read(path)) == {kind.key(number) for number in range(3)}


@BOTH
def test_entries_are_the_same_from_journal_and_file(tmp_path: Path, kind: Kind) -> None:
    equal = features_files.assert_equal if kind is FEATURES else matches_files.assert_equal
    with kind.writer(tmp_path / "x.h5") as writer:
        kind.add(writer, 3)
        equal(writer.read(kind.key(3)), kind.make(3))
    equal(kind.read(tmp_path / "x.h5")[kind.key(3)], kind.make(3))
    with kind.writer(tmp_path / "x.h5") as writer:
        equal(writer.read(kind.key(3)), kind.make(3))


@BOTH
def test_a_later_entry_replaces_one_in_journal_or_file(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    for _ in range(2):
        with kind.writer(path) as writer:
            kind.add(writer, 0)
            kind.add(writer, 0)
            assert len(writer) == 1
    assert len(kind.read(path)) == 1


@BOTH
def test_an_exception_suspends_and_the_next_writer_resumes(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    with pytest.raises(KeyboardInterrupt), kind.writer(path) as writer:
        kind.add(writer, 0)
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ["x.h5.partial"]
    kind.write(path, 1)
    assert len(kind.read(path)) == 2 and names_in(tmp_path) == ["x.h5"]


@BOTH
def test_a_kill_at_any_byte_keeps_every_whole_entry(tmp_path: Path, kind: Kind) -> None:
    path, ends = tmp_path / "x.h5", []
    writer = kind.writer(path)
    for number in range(3):
        kind.add(writer, number)
        ends.append(writer.partial.stat().st_size)
    writer.suspend()
    data = writer.partial.read_bytes()
    for length in sorted({*range(0, len(data), 61), *ends, *(end - 1 for end in ends)}):
        writer.partial.write_bytes(data[:length])
        resumed = kind.writer(path)
        whole = sum(end <= length for end in ends)
        assert len(resumed) == whole, f"{length} bytes"
        assert all(len(resumed.read(kind.key(number))) == number + 1 for number in range(whole))
        resumed.suspend()


@BOTH
def test_groups_of_other_programs_stay_in_the_file(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    kind.write(path, 0)
    with h5py.File(path, "a") as file:
        file["other/global_descriptor"] = np.arange(3)
        file.attrs["note"] = "kept"
    kind.write(path, 1)
    with h5py.File(path) as file:
        assert file["other/global_descriptor"][()].tolist() == [0, 1, 2]
        assert file.attrs["note"] == "kept"
    assert len(kind.read(path)) == 2


@BOTH
def test_a_writer_that_adds_nothing_touches_nothing(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    kind.write(path)
    assert names_in(tmp_path) == []
    kind.write(path, 0)
    before = path.read_bytes(), path.stat().st_mtime_ns
    kind.write(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@BOTH
def test_a_journal_of_the_other_kind_is_refused_and_stays(tmp_path: Path, kind: Kind) -> None:
    other = MATCHES if kind is FEATURES else FEATURES
    other.leave(tmp_path / "x.h5", 0)
    before = (tmp_path / "x.h5.partial").read_bytes()
    with pytest.raises(FormatError, match="not a journal that tiepoint wrote"):
        kind.writer(tmp_path / "x.h5")
    assert (tmp_path / "x.h5.partial").read_bytes() == before


@BOTH
def test_a_damaged_file_leaves_the_journal_to_the_next_writer(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    kind.leave(path, 0)
    path.write_bytes(b"damaged")
    with pytest.raises(FormatError, match="not a whole"):
        kind.writer(path)
    path.unlink()
    kind.write(path)
    assert list(kind.read(path)) == [kind.key(0)]


@BOTH
def test_a_file_that_cannot_be_written_keeps_the_journal(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    writer = kind.writer(path)
    kind.add(writer, 0)
    path.mkdir()  # in the place of the file
    with pytest.raises(OutputError, match=r"x\.h5: cannot be written"):
        writer.close()
    assert names_in(tmp_path) == ["x.h5", "x.h5.partial"]
    path.rmdir()
    kind.write(path)
    assert list(kind.read(path)) == [kind.key(0)]


@BOTH
def test_one_writer_at_a_time(tmp_path: Path, kind: Kind) -> None:
    with kind.writer(tmp_path / "x.h5") as writer:
        for _ in range(2):  # before the first entry, too
            with pytest.raises(OutputError, match="another run is writing it"):
                kind.writer(tmp_path / "x.h5")
            kind.add(writer, 0)
    assert len(kind.read(tmp_path / "x.h5")) == 1


@BOTH
def test_meta_is_refused_when_it_is_added_not_at_the_end(tmp_path: Path, kind: Kind) -> None:
    if kind is FEATURES:
        long, odd = features_files.make(note="x" * 61_000), features_files.make(note={1})
        arguments = ["a.jpg"]
    else:
        long, odd = matches_files.make(note="x" * 61_000), matches_files.make(note={1})
        arguments = ["a.jpg", "b.jpg"]
    with kind.writer(tmp_path / "x.h5") as writer:
        with pytest.raises(FormatError, match=r"meta takes 61\d+ bytes, .* at most 60000"):
            writer.add(*arguments, long)
        with pytest.raises(FormatError, match=r"meta\.note is of type set"):
            writer.add(*arguments, odd)
        assert len(writer) == 0
    assert names_in(tmp_path) == []


@BOTH
@pytest.mark.parametrize("name", ["../x", "/x", "x/", "a//b", ".", "", "a\x00b", "\udcff.jpg"])
def test_names_that_are_no_relative_paths_are_refused(
    tmp_path: Path, kind: Kind, name: str
) -> None:
    with kind.writer(tmp_path / "x.h5") as writer:
        arguments = [name] if kind is FEATURES else ["a.jpg", name]
        with pytest.raises(FormatError, match="image name"):
            writer.add(*arguments, kind.make(0))
    assert names_in(tmp_path) == []


@BOTH
def test_without_h5py_the_extra_is_named(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    for use in (kind.read, kind.writer):
        with pytest.raises(MissingExtraError, match=r"tiepoint\[hdf5\]"):
            use(tmp_path / "x.h5")
    assert names_in(tmp_path) == []

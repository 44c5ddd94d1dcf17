"""What both kinds of HDF5 files share: lazy groups, journals, errors that name the kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support import features_files, matches_files
from support.features_files import names_in
from support.hdf5_kinds import BOTH, FEATURES, MATCHES, Kind
from tiepoint.errors import FormatError, MissingExtraError, OutputError
from tiepoint.formats import (
    hdf5_reading,
)

h5py = pytest.importorskip("h5py")


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

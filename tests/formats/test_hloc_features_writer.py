"""Many images in one HDF5 file: no kill, full disk or second writer costs a finished one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.features_files import assert_equal, half_written_h5, make, names_in, write_h5
from tiepoint.errors import FormatError, OutputError
from tiepoint.formats import H5Writer, fields, hloc_features_writer, load, read_h5, save

h5py = pytest.importorskip("h5py")


def full(*_: object) -> None:
    """A full disk."""
    raise OSError(28, "No space left on device")


def test_an_exception_keeps_what_is_finished_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with pytest.raises(KeyboardInterrupt), H5Writer(path) as writer:
        writer.add("a.jpg", make(2))
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ["x.h5.partial"]
    with H5Writer(path) as writer:
        assert "a.jpg" in writer and "b.jpg" not in writer
        assert writer.summarise("a.jpg").keypoints == 2
        assert_equal(writer.read("a.jpg"), make(2))
        writer.add("b.jpg", make(3))
    assert set(read_h5(path)) == {"a.jpg", "b.jpg"}


def test_a_journal_cut_off_anywhere_keeps_every_whole_image(tmp_path: Path) -> None:
    path, partial = tmp_path / "x.h5", tmp_path / "x.h5.partial"
    ends = []
    writer = H5Writer(path)
    for number in range(3):
        writer.add(f"{number}.jpg", make(number + 1))
        ends.append(partial.stat().st_size)
    writer.suspend()
    data = partial.read_bytes()
    for length in [*range(0, len(data), 97), *ends]:
        partial.write_bytes(data[:length])
        path.unlink(missing_ok=True)
        whole = sum(end <= length for end in ends)
        with H5Writer(path) as writer:
            assert len(writer) == whole
            writer.add("new.jpg", make(7))
        found = read_h5(path)
        assert set(found) == {*(f"{number}.jpg" for number in range(whole)), "new.jpg"}
        assert all(len(found[f"{number}.jpg"]) == number + 1 for number in range(whole))


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_process_loses_no_finished_image(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[1])]!r}
from support.features_files import make
from tiepoint.formats import H5Writer
writer = H5Writer({str(tmp_path / "x.h5")!r})
for number in range(10**9):
    writer.add(f"{{number}}.jpg", make(50, 64))
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = [int(process.stdout.readline()) for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    printed += [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    with H5Writer(tmp_path / "x.h5") as writer:
        assert len(writer) in (len(printed), len(printed) + 1)
    assert {f"{number}.jpg" for number in printed} <= set(read_h5(tmp_path / "x.h5"))


def test_more_images_join_those_of_a_finished_file(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_h5(path, "a.jpg")
    with h5py.File(path, "a") as file:
        file["a.jpg"]["global_descriptor"] = np.ones(3)  # of another program
    before = path.read_bytes()
    half_written_h5(path, "b.jpg", "c.jpg")
    assert path.read_bytes() == before
    with H5Writer(path) as writer:
        assert len(writer) == 3
    assert set(read_h5(path)) == {"a.jpg", "b.jpg", "c.jpg"}
    with h5py.File(path, "r") as file:
        assert file["a.jpg"]["global_descriptor"][()].tolist() == [1, 1, 1]


def test_a_file_that_cannot_be_written_keeps_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    writer = H5Writer(path)
    writer.add("a.jpg", make())

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OutputError, match="No space left on device"):
            writer.close()
    assert names_in(tmp_path) == ["x.h5.partial"]
    write_h5(path)
    assert list(read_h5(path)) == ["a.jpg"]


def test_a_foreign_partial_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.h5.partial").write_bytes(b"something of the user's own")
    with pytest.raises(FormatError, match="not a journal"):
        H5Writer(tmp_path / "x.h5")
    assert (tmp_path / "x.h5.partial").read_bytes() == b"something of the user's own"
    with pytest.raises(OutputError, match="cannot be written"):
        H5Writer(tmp_path / "no" / "x.h5")


def visible(folder: Path) -> list[str]:
    return [name for name in names_in(folder) if not name.startswith(".")]


def test_large_features_go_into_the_file_at_once_with_all_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    monkeypatch.setattr(hloc_features_writer, "LARGE_BYTES", make(50, 64).descriptors.nbytes)
    monkeypatch.setattr(fields, "ROWS_AT_A_TIME", 7)
    write_h5(path, "old.jpg")
    writer = H5Writer(path)
    writer.add("a.jpg", make(2))
    writer.add("large.jpg", make(50, 64))
    assert visible(tmp_path) == ["x.h5"]
    assert set(read_h5(path)) == {"old.jpg", "a.jpg", "large.jpg"}
    assert_equal(writer.read("large.jpg"), make(50, 64))
    assert writer.summarise("a.jpg").keypoints == 2
    writer.add("b.jpg", make(3))
    assert visible(tmp_path) == ["x.h5", "x.h5.partial"]
    writer.suspend()  # as a kill leaves it
    with H5Writer(path) as writer:
        assert len(writer) == 4 and "b.jpg" in writer and "large.jpg" in writer
        writer.add("a.jpg", make(60, 64))  # once more, larger
    assert_equal(read_h5(path)["a.jpg"], make(60, 64))
    assert set(read_h5(path)) == {"old.jpg", "a.jpg", "large.jpg", "b.jpg"}


def test_large_features_that_cannot_be_written_leave_the_file_and_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    monkeypatch.setattr(hloc_features_writer, "LARGE_BYTES", 100)
    write_h5(path, "old.jpg")
    before = path.read_bytes()
    with H5Writer(path) as writer:
        monkeypatch.setattr(hloc_features_writer, "LARGE_BYTES", 10**6)
        writer.add("a.jpg", make(2))
        monkeypatch.setattr(hloc_features_writer, "LARGE_BYTES", 100)
        features = make(50, 64)
        bad = features.scores.copy()
        bad[30] = np.nan
        with pytest.raises(FormatError, match="scores hold NaN"):
            writer.add("bad.jpg", replace(features, scores=bad))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            with pytest.raises(OutputError, match="No space left on device"):
                writer.add("large.jpg", features)
        assert path.read_bytes() == before
        assert writer.summarise("old.jpg").keypoints > 0 and "large.jpg" not in writer
        assert visible(tmp_path) == ["x.h5", "x.h5.partial"]
    assert set(read_h5(path)) == {"old.jpg", "a.jpg"}


def test_rows_are_written_in_parts_as_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = make(50, 64)
    files = []
    for rows in (7, 50, 1000):
        monkeypatch.setattr(fields, "ROWS_AT_A_TIME", rows)
        files.append(tmp_path / f"{rows}.h5")
        save(features, files[-1])
        assert_equal(load(files[-1]), features)
    assert len({file.read_bytes() for file in files}) == 1

"""The journal: whole results survive a kill at any byte, and nothing else is ever returned."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.features_files import names_in
from tiepoint.errors import FormatError, OutputError
from tiepoint.files.journal import Journal

TITLE = b"test journal 1\n"


def written(path: Path, *results: tuple[str, bytes]) -> list[int]:
    """Write a journal; returns where each record ends, in bytes."""
    journal, ends = Journal(path.with_suffix(""), TITLE), []
    for name, payload in results:
        journal.add(name, payload)
        ends.append(path.stat().st_size)
    journal.release()
    return ends


def contents(path: Path) -> dict[str, bytes]:
    """Everything that the next run reads, in order."""
    journal = Journal(path.with_suffix(""), TITLE)
    results = {name: journal.read(name) for name in journal}
    journal.release()
    return results


THREE = (("a.jpg", b"first"), ("sub/나.jpg", b""), ("c.jpg", b"third result"))


def test_a_journal_without_results_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x", TITLE)
    assert len(journal) == 0 and list(journal) == [] and "a" not in journal
    journal.release()
    journal.remove()
    assert names_in(tmp_path) == []


def test_one_result_comes_back_in_this_run_and_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    journal = Journal(path.with_suffix(""), TITLE)
    journal.add("a.jpg", b"payload")
    assert journal.read("a.jpg") == b"payload" and "a.jpg" in journal
    journal.release()
    assert contents(path) == {"a.jpg": b"payload"}
    assert path.read_bytes().startswith(TITLE)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    results=st.lists(st.tuples(st.text(max_size=4), st.binary(max_size=40)), max_size=6),
    stop=st.integers(0, 6),
)
def test_any_results_and_a_stop_equal_a_dict(
    tmp_path: Path, results: list[tuple[str, bytes]], stop: int
) -> None:
    results = [(name, data) for name, data in results if name.isprintable()]
    path = tmp_path / "x.partial"
    path.unlink(missing_ok=True)
    written(path, *results[:stop])
    written(path, *results[stop:])
    expected: dict[str, bytes] = {}
    for name, payload in results:
        expected.pop(name, None)
        expected[name] = payload
    found = contents(path)
    assert found == expected and list(found) == list(expected)


def test_a_result_given_again_replaces_the_earlier_and_moves_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    written(path, ("a", b"old"), ("b", b"other"), ("a", b"new"))
    assert contents(path) == {"b": b"other", "a": b"new"}
    assert list(contents(path)) == ["b", "a"]


def test_an_unknown_name_is_a_key_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x", TITLE)
    with pytest.raises(KeyError):
        journal.read("a")
    journal.add("a", b"")
    with pytest.raises(KeyError):
        journal.read("b")
    journal.release()


def test_a_kill_at_every_byte_keeps_every_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    ends = written(path, *THREE)
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = [result for result, end in zip(THREE, ends, strict=True) if end <= length]
        assert contents(path) == dict(whole), f"{length} bytes"


def test_after_a_kill_at_every_byte_the_next_result_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    ends = written(path, *THREE)
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        written(path, ("new", b"after the kill"))
        whole = [result for result, end in zip(THREE, ends, strict=True) if end <= length]
        assert contents(path) == {**dict(whole), "new": b"after the kill"}, f"{length} bytes"


def test_a_changed_byte_never_gives_a_wrong_result(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    ends = written(path, *THREE)
    data = path.read_bytes()
    for position in range(len(TITLE), len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x41
        path.write_bytes(changed)
        before = [result for result, end in zip(THREE, ends, strict=True) if end <= position]
        assert contents(path) == dict(before), f"byte {position}"


@pytest.mark.parametrize("content", [b"something of the user's own", b"test journal 2\n", b"t\n"])
def test_a_foreign_file_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.partial"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"x\.partial: not a journal that tiepoint wrote"):
        Journal(path.with_suffix(""), TITLE)
    assert path.read_bytes() == content


def test_release_keeps_results_and_remove_deletes_them(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    journal = Journal(path.with_suffix(""), TITLE)
    journal.add("a", b"1")
    journal.release()
    journal.release()
    assert names_in(tmp_path) == ["x.partial"]
    journal = Journal(path.with_suffix(""), TITLE)
    journal.remove()
    assert "a" not in journal and names_in(tmp_path) == [".x.lock"]
    journal.add("b", b"2")  # it may be used again
    journal.release()
    assert contents(path) == {"b": b"2"}


def test_a_second_journal_of_the_same_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    journal = Journal(path.with_suffix(""), TITLE)
    with pytest.raises(OutputError, match="another run is writing it; wait"):
        Journal(path.with_suffix(""), TITLE)  # before there is any result
    journal.add("a", b"1")
    with pytest.raises(OutputError, match="another run is writing it; wait"):
        Journal(path.with_suffix(""), TITLE)
    journal.add("b", b"2")
    journal.release()
    assert contents(path) == {"a": b"1", "b": b"2"}
    assert names_in(tmp_path) == ["x.partial"]  # the lock goes too


def test_a_foreign_file_does_not_keep_the_lock(tmp_path: Path) -> None:
    (tmp_path / "x.partial").write_bytes(b"something of the user's own")
    with pytest.raises(FormatError):
        Journal(tmp_path / "x", TITLE)
    assert names_in(tmp_path) == ["x.partial"]


def test_a_journal_used_after_its_release_keeps_what_another_wrote_meanwhile(
    tmp_path: Path,
) -> None:
    first = Journal(tmp_path / "x", TITLE)
    first.add("a", b"1")
    first.release()
    written(tmp_path / "x.partial", ("b", b"2"))
    first.add("c", b"3")
    first.release()
    assert contents(tmp_path / "x.partial") == {"a": b"1", "b": b"2", "c": b"3"}


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_where_the_file_system_has_no_locks_a_second_journal_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    journal = Journal(tmp_path / "x", TITLE)
    with pytest.raises(OutputError, match="another run is writing it"):
        Journal(tmp_path / "x", TITLE)
    journal.add("a", b"1")
    journal.release()
    assert names_in(tmp_path) == ["x.partial"]
    assert contents(tmp_path / "x.partial") == {"a": b"1"}


def append_alone(target: Path, name: str) -> str | None:
    """Add one result in a process of its own; returns why it could not."""
    try:
        journal = Journal(target, TITLE)
    except OutputError as error:
        return str(error)
    try:
        assert name not in journal
        journal.add(name, name.encode() * 1000)
        return None
    finally:
        journal.release()


def test_processes_started_together_lose_no_result_and_write_none_twice(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(60)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=spawn) as pool:
        refusals = list(pool.map(append_alone, [tmp_path / "x"] * len(names), names))
    done = [name for name, refusal in zip(names, refusals, strict=True) if refusal is None]
    assert done and all("another run is writing it" in text for text in refusals if text)
    assert contents(tmp_path / "x.partial") == {name: name.encode() * 1000 for name in done}
    assert names_in(tmp_path) == ["x.partial"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_the_journal_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.partial")
    with pytest.raises(FormatError, match=r"a named pipe \(FIFO\), not a journal"):
        Journal(tmp_path / "x", TITLE)


@contextmanager
def limited_file_size(count: int) -> Iterator[None]:
    """No file of this process grows beyond this size, in bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_named_and_costs_only_the_last_result(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    journal = Journal(path.with_suffix(""), TITLE)
    journal.add("a", b"1")
    whole_bytes = path.stat().st_size
    with limited_file_size(whole_bytes + 25):
        with pytest.raises(OutputError, match=r"x\.partial: cannot be written \(") as caught:
            journal.add("b", b"too much" * 10)
        assert path.stat().st_size == whole_bytes + 25  # a part of it was written
    assert isinstance(caught.value.__cause__, OSError)
    assert "b" not in journal and journal.read("a") == b"1"
    journal.add("c", b"3")  # over the part that was written
    journal.release()
    assert contents(path) == {"a": b"1", "c": b"3"}


def test_a_missing_folder_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="check that the folder exists"):
        Journal(tmp_path / "no" / "x", TITLE)


def test_a_folder_in_the_place_of_the_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.partial").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path / "x", TITLE)


def test_a_record_that_another_program_changed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    journal = Journal(path.with_suffix(""), TITLE)
    journal.add("a", b"payload")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="the record of a was changed by another program"):
        journal.read("a")
    journal.release()


def test_resuming_and_a_torn_record_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.partial"
    ends = written(path, *THREE)
    with caplog.at_level(logging.INFO, "tiepoint"):
        contents(path)
    assert "resumes with 3 results" in caplog.text and "drops" not in caplog.text
    path.write_bytes(path.read_bytes()[: ends[1] + 5])
    caplog.clear()
    with caplog.at_level(logging.INFO, "tiepoint"):
        contents(path)
    assert "drops a torn record of 5 bytes" in caplog.text
    assert "resumes with 2 results" in caplog.text
    assert path.stat().st_size == ends[1]


def test_a_record_whose_name_is_no_text_ends_the_sound_part(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    journal = Journal(path.with_suffix(""), TITLE)
    journal.add("a", b"payload")
    journal.release()
    name, payload = b"\xff\xfe", b"x"
    head = struct.pack("<IQI", len(name), len(payload), zlib.crc32(payload, zlib.crc32(name)))
    path.write_bytes(path.read_bytes() + head + name + payload)
    journal = Journal(path.with_suffix(""), TITLE)
    assert list(journal) == ["a"]
    journal.release()


def test_a_journal_may_have_a_path_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.tiles"
    journal = Journal(path, TITLE, path=path)
    journal.flush()  # nothing yet
    journal.add("a", b"payload")
    journal.flush()
    journal.release()
    assert names_in(tmp_path) == ["x.tiles"]
    journal = Journal(path, TITLE, path=path)
    assert journal.read("a") == b"payload"
    journal.release()


def test_a_disk_that_fails_to_flush_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal = Journal(tmp_path / "x", TITLE)
    journal.add("a", b"payload")
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        journal.flush()
    journal.release()

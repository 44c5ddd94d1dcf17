"""Folders and files are made whole or not at all, and errors name what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.features_files import names_in
from tiepoint.errors import FormatError, OutputError, TiepointError
from tiepoint.files.paths import exists, is_file, is_folder
from tiepoint.files.writing import make_folder, replacing, unwritable, write_bytes


def test_a_folder_and_its_parents_are_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    (folder / "kept").touch()
    assert make_folder(str(folder)) == folder
    assert names_in(folder) == ["kept"]


def test_a_folder_below_a_file_is_refused_with_the_callers_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file.b: cannot be made \(.*\); name another") as caught:
        make_folder(tmp_path / "file" / "b", advice="name another")
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(OutputError, match="choose another folder"):
        make_folder(tmp_path / "file")


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000])
def test_bytes_are_written_as_they_are(tmp_path: Path, data: bytes) -> None:
    write_bytes(tmp_path / "x", data)
    assert (tmp_path / "x").read_bytes() == data
    write_bytes(str(tmp_path / "x"), b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert names_in(tmp_path) == ["x"]


def test_a_folder_that_is_missing_and_one_in_the_place_of_the_file_are_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "no" / "x", tmp_path / "folder"):
        with pytest.raises(OutputError, match=f"{path.name}: cannot be written") as caught:
            write_bytes(path, b"data")
        assert isinstance(caught.value.__cause__, OSError)
    assert names_in(tmp_path) == ["folder"]


def test_the_new_file_has_another_name_until_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")
    with replacing(path) as partial:
        assert partial.parent == tmp_path and partial != path
        assert partial.name.startswith(".") and partial.name.endswith(".partial")
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["x.npz"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, FormatError("damaged")])
def test_after_an_exception_the_old_file_stays_and_the_new_one_goes(
    tmp_path: Path, error: type[BaseException] | BaseException
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind), replacing(path) as partial:
        partial.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["x"]


def test_an_error_of_the_system_becomes_one_that_names_the_target(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with (
        pytest.raises(OutputError, match=r"x: cannot be written \(No space left\)") as caught,
        replacing(path),
    ):
        raise OSError(28, "No space left", "elsewhere")
    assert isinstance(caught.value.__cause__, OSError)
    assert names_in(tmp_path) == []


def test_nothing_is_written_where_nothing_was_put(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), replacing(tmp_path / "x"):
        pass
    assert names_in(tmp_path) == []


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert path.read_bytes() == b"first"  # the later one to end
    assert names_in(tmp_path) == ["x"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights do not bind this user")
def test_a_folder_without_the_right_to_write_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            write_bytes(tmp_path / "x", b"")
    finally:
        tmp_path.chmod(0o700)


def test_the_reason_is_the_systems_or_else_the_errors_own_text(tmp_path: Path) -> None:
    from_system = unwritable(tmp_path / "x", OSError(28, "No space left"))
    from_library = unwritable(tmp_path / "x", RuntimeError("unable to flush"))
    assert "cannot be written (No space left); check that the folder exists" in str(from_system)
    assert "cannot be written (unable to flush)" in str(from_library)
    assert isinstance(from_system, TiepointError) and not isinstance(from_system, FormatError)


def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link, target = tmp_path / "link", tmp_path / "folder" / "x"
    link.symlink_to(target)
    for data in (b"new", b"newer"):  # the first leads nowhere
        write_bytes(link, data)
        assert link.is_symlink() and target.read_bytes() == data
    assert names_in(tmp_path) == ["folder", "link"] and names_in(target.parent) == ["x"]
    write_bytes(link, b"own", follow=False)
    assert not link.is_symlink() and target.read_bytes() == b"newer"


@pytest.mark.parametrize("path", ["n" * 300, "n" * 300 + "/x", "a\0b"])
def test_a_path_that_the_system_refuses_does_not_exist_and_cannot_be_written(
    tmp_path: Path, path: str
) -> None:
    for is_there in (exists, is_file, is_folder):
        assert not is_there(tmp_path / path)
    if "\0" not in path:
        with pytest.raises(OutputError, match="cannot be written"):
            write_bytes(tmp_path / path, b"")

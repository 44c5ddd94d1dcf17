"""One path that cannot be used is reported, and the other images are done."""

from __future__ import annotations

import errno
import inspect
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from support.batch_folders import go, put
from support.fake_detector import FakeDetector
from tiepoint.batch import FolderStore, H5Store, Input, Unreadable, expand, plan_input, run
from tiepoint.errors import ImageError
from tiepoint.formats import H5Writer, load, read_h5
from tiepoint.images.masks import MaskFolder
from tiepoint.images.reading import read

GOOD = "good.png"
NAME_BYTES = 255
"""Longest name of the usual file systems."""

BAD_LINES = {
    "null": "a\0b.png",
    "300 bytes": "n" * 296 + ".png",
    "5000 bytes": "n/" * 2500 + "x.png",
    "broken address": "http://[::1/x.png",
    "broken port": "http://a.org:port/x.png",
    "no host": "http:///x.png",
    "dots for a host": "http://../x.png",
    "one dot": "http://./x.png",
    "dots and a space": "http://.. /x.png",
    "odd letters in a host": "http://me:secret@\u2100.example/x.png",
    "null in a URL": "http://a.org/\0.png",
    "null in a glob": "*\0.png",
    "a long glob": "n" * 300 + "*.png",
    "open bracket": "[.png",
    "surrogates": "\udcff\udcfe.png",
    "missing": "no.png",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_a_bad_line_of_a_list_spares_the_others(here: Path, line: str, ending: str) -> None:
    put(here / "first.png")
    put(here / GOOD)
    inputs = expand(["-"], ["first.png\n", f"{line}\n", f"{GOOD}\n"])
    fake: Any = FakeDetector()
    if ending == ".h5":
        pytest.importorskip("h5py")
        writer = H5Writer(here / "out.h5")
        records = list(run(inputs, fake, H5Store(writer)))
        writer.suspend()
        assert set(read_h5(here / "out.h5")) == {"first.png", GOOD}
    else:
        records = list(run(inputs, fake, FolderStore(here / "out", ending)))
        assert len(load(here / "out" / f"{GOOD}.npz")) == 2
    done = [record.source for record in records if record.status == "done"]
    assert done == ["first.png", GOOD]
    assert len(records) == 3
    for record in records:
        if record.status != "done":
            assert record.status == "failed" and record.error
            assert "secret" not in record.error + record.source
            assert len(record.source) < 6000


@pytest.mark.parametrize("argument", ["n" * 300, "a\0b", "http://[::1/x.png", "\udcff*.png"])
def test_a_bad_argument_alone_is_reported(here: Path, argument: str) -> None:
    for item in expand([argument]):
        assert isinstance(item, Unreadable | Input)
    assert len(go([argument], here / "out")) <= 1


@pytest.mark.parametrize("length", [NAME_BYTES, NAME_BYTES - 3, NAME_BYTES - 4])
@pytest.mark.parametrize("ending", [".png", ".JPG"])
def test_a_name_as_long_as_the_file_system_allows_spares_the_others(
    here: Path, length: int, ending: str
) -> None:
    good = Path(put(here / "photos" / GOOD))
    (here / "photos" / ("n" * (length - 4) + ending)).write_bytes(good.read_bytes())
    (here / "masks").mkdir()
    for masks in (None, here / "masks"):
        records = go(["photos"], here / f"out-{masks is None}", masks=masks, plot=True)
        statuses = {Path(record.source).name: record.status for record in records}
        assert statuses.pop(GOOD) == "done"
        fits = length + len(".npz") <= NAME_BYTES
        assert set(statuses.values()) == {"done" if fits else "failed"}
        assert all(record.error for record in records if record.status == "failed")


def test_a_mask_name_too_long_is_reported(here: Path) -> None:
    put(here / "photos" / GOOD)
    put(here / "photos" / ("n" * (NAME_BYTES - 4) + ".png"))
    (here / "masks").mkdir()
    store = FolderStore(here / "out", ".npz")
    provenance = FakeDetector().provenance()
    errors = [
        plan_input(item, store, provenance, MaskFolder(here / "masks"), overwrite=True)
        for item in expand(["photos"])
    ]
    assert "the mask cannot be looked up" in str(getattr(errors[1], "error", None))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_mask_that_is_no_file_is_reported_and_not_left_out(here: Path) -> None:
    for name in ("folder.png", "link.png", "pipe.png", GOOD):
        put(here / "photos" / name)
    masks = here / "masks"
    (masks / "folder.png.png").mkdir(parents=True)
    (masks / "link.png.png").symlink_to("nowhere.png")
    os.mkfifo(masks / "pipe.png.png")
    records = go(["photos"], here / "out", masks=masks)
    assert [record.status for record in records] == ["failed", "done", "failed", "failed"]
    assert "leads nowhere" in str(records[2].error)


# Pipes and devices


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # short: such names have 107 bytes at most


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(("make", "kind"), [(pipe, "a named pipe"), (listening, "a socket")])
def test_a_pipe_or_socket_among_images_is_refused_at_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], kind: str
) -> None:
    put(here / "photos" / GOOD)
    monkeypatch.chdir(here / "photos")
    make(here / "photos" / "a.png")
    monkeypatch.chdir(here)
    done: list[Any] = []
    for arguments in (["photos"], ["photos/*.png"], ["photos/a.png", f"photos/{GOOD}"]):
        thread = threading.Thread(
            target=lambda chosen=arguments: done.append(go(chosen, here / f"out{len(done)}")),
            daemon=True,
        )
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), "the run waits for a pipe"
        refused, good = done[-1]
        assert (refused.status, good.status) == ("failed", "done")
        assert kind in refused.error


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="this system has no devices")
def test_a_device_is_refused(here: Path) -> None:
    (here / "endless.png").symlink_to("/dev/zero")
    for arguments in (["/dev/zero"], ["endless.png"], ["."]):
        (item,) = expand(arguments)
        assert isinstance(item, Unreadable) and "a device" in item.reason


# Folders


def test_a_folder_that_cannot_be_listed_spares_the_others(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/x.png", "closed/y.png", "z/x.png"):
        put(here / "photos" / name)
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    records = go(["photos"], here / "out")
    assert [record.status for record in records] == ["done", "failed", "done"]
    assert "closed: cannot be listed (Permission denied)" in str(records[1].error)


def test_a_folder_whose_entries_cannot_be_examined_spares_the_others(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(here / "photos" / GOOD)
    stat, isdir = os.stat, os.path.isdir

    def refusing(path: Any, *arguments: Any, **more: Any) -> os.stat_result:
        if "closed" in os.fsdecode(path if isinstance(path, str | bytes | os.PathLike) else ""):
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, *arguments, **more)

    monkeypatch.setattr(os, "stat", refusing)
    monkeypatch.setattr(os.path, "isdir", isdir)
    records = go(["closed/x.png", "closed", "closed/*.png", "photos"], here / "out")
    assert [record.status for record in records][-1] == "done"
    assert {record.status for record in records[:-1]} == {"failed"}


def test_folders_nested_deeper_than_python_may_call_are_searched(here: Path) -> None:
    deepest = here.joinpath("photos", *["d"] * 200)
    put(deepest / GOOD)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        (item,) = expand(["photos"])
    finally:
        sys.setrecursionlimit(limit)
    assert isinstance(item, Input) and item.name == PurePosixPath(*["d"] * 200, GOOD)


# Names of results


@pytest.mark.parametrize(
    "url",
    [
        "http://../x.png",
        "http://..:80/x.png",
        "http://.. /x.png",
        "http://me:secret@../x.png",
        "http://a.org/../../x.png",
        "http://a.org/%2e%2e/%2e%2e%2fx.png",
        "http://a.org/.. /x.png",
        "http://a.org/..%5c..%5cx.png",
        "http://a.org//x.png",
        "http://[::1]/x.png",
    ],
)
def test_no_url_leaves_the_output_folder(here: Path, url: str) -> None:
    for item in [*expand([url]), *expand(["-"], [url])]:
        if isinstance(item, Input):
            assert not item.name.is_absolute() and len(item.name.parts) >= 2
            assert all(part.strip(" .") for part in item.name.parts)
            inside = FolderStore(here / "out", ".npz").path(item.name)
            assert inside.resolve().is_relative_to((here / "out").resolve())
        else:
            assert "secret" not in item.source + item.reason


def test_credentials_of_a_url_are_in_no_record_and_no_file(here: Path) -> None:
    pytest.importorskip("h5py")
    urls = [
        "http://me:secret@127.0.0.1:1/x.png",
        "http://me:secret@127.0.0.1:1/x.png?token=secret",
        "http://me:secret@[::1/x.png",
        "http://me:secret@127.0.0.1:port/x.png",
    ]
    from tiepoint import Detector

    writer = H5Writer(here / "out.h5")
    records = list(run(expand(urls), Detector(), H5Store(writer)))
    writer.suspend()
    assert [record.status for record in records] == ["failed"] * 4
    assert not [record for record in records if "secret" in str(vars(record))]
    assert not [
        item for item in expand(urls) if isinstance(item, Input) and "secret" in str(item.name)
    ]


def test_an_empty_argument_spares_the_others(here: Path) -> None:
    put(here / GOOD)
    records = go(["", GOOD], here / "out")
    assert [record.status for record in records] == ["failed", "done"]
    assert "an empty argument" in str(records[0].error)
    assert [record.status for record in go([""], here / "out")] == ["failed"]


def test_an_image_in_a_folder_that_may_not_be_searched_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def deny(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", deny)
    with pytest.raises(ImageError, match="a.png: cannot be opened .Permission denied"):
        read("closed/a.png")

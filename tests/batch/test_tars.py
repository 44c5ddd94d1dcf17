"""Tars of images: read once in their order, never unpacked, hostile ones included."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from support.fake_detector import FakeDetector
from support.store_runs import fill, picture, shard_bytes, statuses, tar
from tiepoint.batch import patience, tars
from tiepoint.batch.tars import Member, Tar
from tiepoint.errors import FormatError, ImageError, UnreachableError
from tiepoint.formats.features_store import StoreFeatures

pytest.importorskip("h5py")


def members(path: Path) -> list[Member]:
    return list(tars.members(Tar(str(path), PurePosixPath())))


def test_images_come_in_the_order_of_the_tar_and_other_files_do_not(here: Path) -> None:
    held = {
        "b.png": b"b", "b.json": b"{}", "a.jpg": b"a", "./c/d.JPG": b"c", "/e.png": b"e",
        ".hidden.png": b"", "__MACOSX/._b.png": b"",
    }  # fmt: skip
    found = members(tar(here / "x.tar", held))
    assert found == [("b.png", b"b"), ("a.jpg", b"a"), ("c/d.JPG", b"c"), ("e.png", b"e")]


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz"])
def test_compressed_tars_are_read_too(here: Path, name: str) -> None:
    assert members(tar(here / name, {"a.png": b"1", "b.png": b"2"})) == [
        ("a.png", b"1"),
        ("b.png", b"2"),
    ]


def test_links_and_devices_give_no_image(here: Path) -> None:
    with tarfile.open(here / "x.tar", "w") as archive:
        for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert members(here / "x.tar") == []


@pytest.mark.parametrize("data", [b"", b"no tar at all", b"\x1f\x8b\x08 cut"])
def test_other_files_are_errors_that_name_them(here: Path, data: bytes) -> None:
    (here / "x.tar").write_bytes(data)
    with pytest.raises(ImageError, match=r"x\.tar: not a whole tar file"):
        members(here / "x.tar")


def test_a_long_header_takes_no_memory(here: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**40
    (here / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ImageError, match="a header of 1099511627776 bytes"):
        members(here / "x.tar")


def test_a_member_above_the_limit_is_an_error_and_the_next_is_read(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MAX_BYTES", 10)
    found = members(tar(here / "x.tar", {"large.png": bytes(11), "small.png": bytes(10)}))
    assert isinstance(found[0].data, ImageError) and "large.png: larger than" in str(found[0].data)
    assert found[1] == ("small.png", bytes(10))


def test_a_truncated_tar_gives_what_is_before_the_damage(here: Path) -> None:
    path = tar(here / "x.tar", [(f"{number}.png", picture()) for number in range(4)])
    path.write_bytes(path.read_bytes()[: 2 * 1024 + 512 + 20])
    found = fill(here / "a.store", path)
    assert statuses(found) == {"done": 2, "failed": 1}
    assert "not a whole tar file" in str(found[-1].error)
    assert list(StoreFeatures(here / "a.store")) == ["0.png", "1.png"]
    tar(path, [(f"{number}.png", picture()) for number in range(4)])
    assert statuses(fill(here / "a.store", path)) == {"done": 4}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A web server of a folder; its URL."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_tar_on_a_web_server_is_read_as_one_on_disk(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setattr(patience, "DELAYS_S", (0.0,))
    held = {f"{number}.png": picture(20 + 10 * number) for number in range(5)}
    local = tar(here / "x.tar", held)
    with served(here) as url:
        assert statuses(fill(here / "far.store", f"{url}/x.tar")) == {"done": 5}
        assert statuses(fill(here / "gone.store", f"{url}/y.tar")) == {"failed": 1}
    fill(here / "near.store", local)
    far, near = (StoreFeatures(here / name) for name in ("far.store", "near.store"))
    assert list(far) == list(near) == sorted(held)
    for name in held:
        np.testing.assert_array_equal(far[name].xy, near[name].xy)


def test_a_connection_that_breaks_goes_on_behind_the_last_member(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "DELAYS_S", (0.0,))
    path = tar(here / "x.tar", [(f"{number}.png", bytes(600)) for number in range(9)])
    whole, opened = path.read_bytes(), []

    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 10_240 * (1 if len(opened) == 1 else 9):
                raise ConnectionResetError("reset by peer")
            return super().read(size)

    def open_again(_: str) -> Any:
        opened.append(1)
        return Breaking(whole)

    monkeypatch.setattr(tars, "_open", open_again)
    assert [member.name for member in members(path)] == [f"{number}.png" for number in range(9)]
    assert len(opened) == 2


def test_a_connection_that_breaks_for_good_is_an_error_of_the_moment(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "DELAYS_S", (0.0,))

    def refuse(_: str) -> Any:
        raise UnreachableError("x: cannot be reached")

    path = tar(here / "x.tar", {"a.png": picture()})
    with monkeypatch.context() as patch:
        patch.setattr(tars, "_open", refuse)
        assert statuses(fill(here / "a.store", path)) == {"failed": 1}
    assert statuses(fill(here / "a.store", path)) == {"done": 1}


def test_names_of_a_single_tar_are_those_of_its_members(here: Path) -> None:
    path = tar(here / "x.tar", {"b c/사진.png": picture(30), "a.png": picture()})
    assert statuses(fill(here / "a.store", path)) == {"done": 2}
    features = StoreFeatures(here / "a.store")
    assert set(features) == {"a.png", "b c/사진.png"}
    assert features["b c/사진.png"].meta["source"] == f"{path}/b c/사진.png"
    assert statuses(fill(here / "a.store", path)) == {"skipped": 2}


def test_equal_names_in_several_tars_stay_apart(here: Path) -> None:
    for name, width in (("one.tar", 30), ("two.tar.gz", 50)):
        tar(here / name, {"x.png": picture(width)})
    fill(here / "a.store", "one.tar", "two.tar.gz")
    features = StoreFeatures(here / "a.store")
    widths = {name: features[name].size_hw[1] for name in features}
    assert widths == {"one/x.png": 30, "two/x.png": 50}
    fill(here / "b.store", "*.tar*", shards=1)
    assert set(StoreFeatures(here / "b.store")) == set(features)


def test_a_tar_alone_does_not_join_a_store_of_other_sources(here: Path) -> None:
    for name in ("one.tar", "two.tar"):
        tar(here / name, {"x.png": picture()})
    fill(here / "a.store", "one.tar")
    with pytest.raises(FormatError, match="give all sources in one command"):
        fill(here / "a.store", "two.tar")


def test_equal_names_in_one_tar_are_refused(here: Path) -> None:
    pairs = [("x.png", picture(30)), ("./x.png", picture(50)), ("../y.png", picture())]
    found = fill(here / "a.store", tar(here / "t.tar", pairs))
    assert statuses(found) == {"done": 1, "failed": 2}
    errors = [str(row.error) for row in found if row.error]
    assert "the name x.png belongs to another image" in errors[0]
    assert "without '.', '..'" in errors[1]
    assert StoreFeatures(here / "a.store")["x.png"].size_hw == (10, 30)


def test_a_changed_tar_is_done_again(here: Path) -> None:
    path = tar(here / "t.tar", {"x.png": picture(30)})
    fill(here / "a.store", path)
    tar(path, {"x.png": picture(50), "y.png": picture()})
    again = fill(here / "a.store", path)
    assert statuses(again) == {"done": 2} and {row.redone for row in again} == {"the tar changed"}


def test_features_of_a_tar_that_is_gone_stay(here: Path) -> None:
    path = tar(here / "t.tar", {"x.png": picture(30), "bad.png": b""})
    fill(here / "a.store", path)
    path.unlink()
    assert statuses(fill(here / "a.store", path)) == {"skipped": 1, "failed": 1}
    assert statuses(fill(here / "a.store", path, retry_failed=True)) == {"skipped": 1, "failed": 1}
    assert set(StoreFeatures(here / "a.store")) == {"x.png"}


def test_a_tar_is_a_shard_of_its_own_and_workers_share_them(here: Path) -> None:
    for number in range(4):
        tar(here / f"{number}.tar", {f"{n}.png": picture() for n in range(3)})
    fill(here / "one.store", "*.tar")
    for index in range(3):
        fill(here / "three.store", "*.tar", worker=f"{index}/3")
    assert shard_bytes(here / "one.store") == shard_bytes(here / "three.store")
    assert len(shard_bytes(here / "one.store")) == 4


def test_failed_members_are_tried_again_and_the_others_are_kept(here: Path) -> None:
    path = tar(here / "t.tar", {"a.png": picture(), "bad.png": b"", "c.png": picture(40)})
    assert statuses(fill(here / "a.store", path)) == {"done": 2, "failed": 1}
    before, detector = shard_bytes(here / "a.store"), FakeDetector()
    again = fill(here / "a.store", path, retry_failed=True, detector=detector)
    assert statuses(again) == {"skipped": 2, "failed": 1} and len(detector.sources) == 1
    assert shard_bytes(here / "a.store") == before

"""Results of a changed image, damaged results and stale files are replaced by the next run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.batch_folders import go, put
from support.fake_detector import FakeDetector
from support.features_files import names_in
from tiepoint.batch import ImageRecord
from tiepoint.batch.fingerprint import HEAD_BYTES, fingerprint
from tiepoint.files.writing import STALE_AFTER_S, remove_stale, replacing
from tiepoint.formats import FORMATS, load


def only(records: list[ImageRecord]) -> ImageRecord:
    (record,) = records
    return record


# Changed images and masks


@pytest.mark.parametrize("ending", list(FORMATS))
def test_an_image_replaced_under_its_name_is_done_again(here: Path, ending: str) -> None:
    put(here / "x.png", width=20)
    put(here / "y.png", width=20)
    go(["."], here / "out", ending=ending)
    put(here / "x.png", width=50)
    x, y = go(["."], here / "out", ending=ending)
    assert (x.status, x.keypoints, x.redone) == ("done", 5, "the image changed")
    assert (y.status, y.redone) == ("skipped", None)
    assert len(load(here / "out" / f"x.png{ending}")) == 5
    assert only(go(["x.png"], here / "out", ending=ending)).status == "skipped"


def same_size_and_time(path: Path, data: bytes) -> None:
    status = path.stat()
    path.write_bytes(data.ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def other_time(path: Path, data: bytes) -> None:
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")  # behind the first bytes
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def other_size(path: Path, data: bytes) -> None:
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [same_size_and_time, other_time, other_size])
def test_size_time_and_first_bytes_each_show_a_change(
    here: Path, change: Callable[[Path, bytes], None]
) -> None:
    path = here / "x.bmp"
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)
    assert path.stat().st_size > HEAD_BYTES
    before = fingerprint(path)
    assert before == fingerprint(path)
    change(path, cv2.imencode(".bmp", noise[::-1])[1].tobytes())
    assert fingerprint(path) != before


def test_a_copy_with_its_time_is_the_same_image(here: Path) -> None:
    put(here / "a" / "x.png")
    go(["a"], here / "out")
    shutil.copytree(here / "a", here / "b")  # keeps the times
    shutil.rmtree(here / "a")
    assert only(go(["b"], here / "out")).status == "skipped"


def test_a_file_without_fingerprint_and_an_image_that_is_gone_count_as_unchanged(
    here: Path,
) -> None:
    put(here / "x.png")
    go(["x.png"], here / "out", ending=".json")
    path = here / "out" / "x.png.json"
    held = json.loads(path.read_text())
    assert held["meta"].pop("image_file")["bytes"] == (here / "x.png").stat().st_size
    path.write_text(json.dumps(held))
    put(here / "x.png", width=50)
    assert only(go(["x.png"], here / "out", ending=".json")).status == "skipped"
    put(here / "y.png")
    go(["y.png"], here / "out")
    (here / "y.png").unlink()
    assert only(go(["y.png"], here / "out")).status == "skipped"
    assert fingerprint(here / "y.png") is None and fingerprint("https://a.org/x.png") is None


def test_a_replaced_mask_is_noticed(here: Path) -> None:
    put(here / "photos" / "x.png")
    put(here / "masks" / "x.png.png")
    masks = here / "masks"
    assert only(go(["photos"], here / "out", masks=masks)).status == "done"
    put(masks / "x.png.png", width=21)
    again = only(go(["photos"], here / "out", masks=masks))
    assert (again.status, again.redone) == ("done", "the mask changed")
    assert only(go(["photos"], here / "out", masks=masks)).status == "skipped"


# Damaged results


def empty(data: bytes) -> bytes:
    return b""


def zeros(data: bytes) -> bytes:
    return b"\0" * len(data)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_at_once(data: bytes) -> bytes:
    return data[:9]


def without_its_end(data: bytes) -> bytes:
    return data[:-2]


@pytest.mark.parametrize("damage", [empty, zeros, cut, cut_at_once, without_its_end])
@pytest.mark.parametrize("ending", list(FORMATS))
def test_a_damaged_result_is_made_again(
    here: Path, ending: str, damage: Callable[[bytes], bytes]
) -> None:
    put(here / "x.png", width=100)
    go(["x.png"], here / "out", ending=ending)
    path = here / "out" / f"x.png{ending}"
    path.write_bytes(damage(path.read_bytes()))
    record = only(go(["x.png"], here / "out", ending=ending))
    assert (record.status, record.redone) == ("done", "the output was damaged")
    assert len(load(path)) == 10


@pytest.mark.parametrize("ending", list(FORMATS))
@pytest.mark.parametrize("content", [b"somebody's own", b'{"a": 1}', b"PK\3\4" + b"x" * 60, b"x,y"])
def test_a_file_of_somebody_else_is_refused_and_stays(
    here: Path, ending: str, content: bytes
) -> None:
    put(here / "x.png")
    (here / "out").mkdir()
    path = here / "out" / f"x.png{ending}"
    path.write_bytes(content)
    assert only(go(["x.png"], here / "out", ending=ending)).status == "refused"
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", [empty, zeros, cut, cut_at_once])
def test_a_damaged_overlay_is_drawn_again(here: Path, damage: Callable[[bytes], bytes]) -> None:
    put(here / "x.jpg")
    go(["x.jpg"], here / "out", plot=True)
    overlay = here / "out" / "x.jpg.png"
    whole = overlay.read_bytes()
    overlay.write_bytes(damage(whole))
    detector = FakeDetector()
    assert only(go(["x.jpg"], here / "out", detector, plot=True)).status == "skipped"
    assert overlay.read_bytes() == whole and detector.streams == 0


def test_a_picture_of_another_format_in_the_place_of_an_overlay_stays(here: Path) -> None:
    put(here / "x.jpg")
    go(["x.jpg"], here / "out")
    (here / "out" / "x.jpg.png").write_bytes(b"GIF89a somebody's own")
    go(["x.jpg"], here / "out", plot=True)
    assert (here / "out" / "x.jpg.png").read_bytes() == b"GIF89a somebody's own"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_a_result_is_refused_at_once(here: Path) -> None:
    put(here / "x.png")
    (here / "out").mkdir()
    os.mkfifo(here / "out" / "x.png.npz")
    record = only(go(["x.png"], here / "out"))
    assert record.status == "refused" and "a named pipe (FIFO)" in str(record.error)


# Stale temporary files


KILLED = """
import sys
from pathlib import Path
from tiepoint.files.writing import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"half")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_stays(
    here: Path,
) -> None:
    put(here / "photos" / "sub" / "x.png")
    (here / "out" / "sub").mkdir(parents=True)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(here / "out" / "sub" / "other.npz")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "written\n"
    dead, alive = writers
    dead.kill()
    dead.wait()
    assert len(names_in(here / "out" / "sub")) == 2
    go(["photos"], here / "out")
    temporary, result = names_in(here / "out" / "sub")
    assert f"-{alive.pid}-" in temporary and result == "x.png.npz"
    alive.communicate("")
    assert alive.returncode == 0
    assert names_in(here / "out" / "sub") == ["other.npz", "x.png.npz"]


def test_files_of_another_machine_stay_for_a_day(tmp_path: Path) -> None:
    old, new = (tmp_path / f".tiepoint-0123abcd-7-{n:012}.partial" for n in range(2))
    for path in (old, new, tmp_path / ".mine.partial", tmp_path / "x.h5.partial"):
        path.touch()
    past = time.time() - STALE_AFTER_S - 60
    for path in (old, tmp_path / ".mine.partial", tmp_path / "x.h5.partial"):
        os.utime(path, (past, past))
    assert remove_stale(tmp_path) == 1
    assert names_in(tmp_path) == [".mine.partial", new.name, "x.h5.partial"]
    assert remove_stale(tmp_path / "no such folder") == 0


def test_a_file_of_this_process_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "x") as partial:
        partial.write_bytes(b"whole")
        assert remove_stale(tmp_path) == 0
    assert names_in(tmp_path) == ["x"]

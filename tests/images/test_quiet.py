"""stderr while libtiff is quiet: what other threads and processes write is neither cut nor lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from tiepoint.images import quiet
from tiepoint.images.quiet import libtiff_quiet

MESSAGE = b"LZWDecode: Not enough data at scanline 0 (short 5 bytes).\n"


@pytest.mark.parametrize("count", [1000, 70_000, 1_500_000])
def test_long_lines_of_this_process_arrive_whole(
    count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    line = "z" * count + "\n"
    for _ in range(2):
        with libtiff_quiet():
            os.write(2, MESSAGE)
            assert os.get_blocking(2)
            assert os.write(2, line.encode()) == len(line)
        assert capfd.readouterr().err == line


def test_a_child_process_may_write_much(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os\nfor _ in range(2000): os.write(2, b'q' * 999 + b'\\n')"
    with libtiff_quiet():
        subprocess.run([sys.executable, "-c", code], check=True)
    assert capfd.readouterr().err == ("q" * 999 + "\n") * 2000


def test_lines_pass_on_while_other_threads_stay_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with libtiff_quiet():
        with libtiff_quiet():
            os.write(2, b"one\rtwo\nLZWDe")
        assert capfd.readouterr().err.splitlines() == ["one", "two"]
        os.write(2, MESSAGE[5:] + b"three")
    assert capfd.readouterr().err == "three"


def test_lines_of_a_child_that_outlives_the_redirection_come_with_the_next(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = "import os, sys; sys.stdin.read(); os.write(2, b'late\\n')"
    with libtiff_quiet():
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    child.communicate(b"")
    assert capfd.readouterr().err == ""
    with libtiff_quiet():
        os.write(2, b"now\n")
    assert capfd.readouterr().err == "late\nnow\n"


def test_what_a_child_wrote_last_comes_at_the_end_of_the_process() -> None:
    code = (
        "import os, subprocess, sys\n"
        "from tiepoint.images.quiet import libtiff_quiet\n"
        "with libtiff_quiet():\n"
        "  child = subprocess.Popen([sys.executable, '-c', "
        "'import os, sys; sys.stdin.read(); os.write(2, b\"late\")'], stdin=subprocess.PIPE)\n"
        "child.communicate(b'')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "late"


def test_messages_of_libtiff_are_logged_without_a_thread(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG", quiet.logger.name)
    before = threading.active_count()
    with libtiff_quiet():
        os.write(2, MESSAGE)
        assert threading.active_count() == before
    assert caplog.messages == [f"libtiff: {MESSAGE.decode().strip()}"]
    assert capfd.readouterr().err == ""


def test_without_a_folder_for_temporary_files_images_are_still_read(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quiet, "_stderr", quiet._Stderr())
    nowhere = SimpleNamespace(gettempdir=lambda: "/no/such/folder")
    monkeypatch.setattr(quiet, "tempfile", nowhere)
    with libtiff_quiet():
        os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"

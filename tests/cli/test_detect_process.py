"""`tiepoint detect` as a process: imports, output on a terminal, and signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.detect_runs import COMMAND, ENVIRONMENT, detect, files_below, photos, put, start
from tiepoint import load
from tiepoint.cli import COMMANDS, app


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ).stdout


def modules_after(*arguments: str) -> set[str]:
    code = (
        "import sys\nfrom tiepoint.cli import main\n"
        f"sys.argv = ['tiepoint', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code, leave.code\n"
        "print('MODULES', *sys.modules)"
    )
    return set(run_python(code).rpartition("MODULES ")[2].split())


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    heavy = {"numpy", "cv2", "PIL", "openvino", "torch", "huggingface_hub", "rich"}
    assert not heavy & modules_after("--help")
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name}\s+\w+", result.stdout, re.MULTILINE)


def test_detection_on_a_cpu_imports_no_torch(here: Path) -> None:
    put(here / "x.png")
    modules = modules_after("detect", "x.png", "--plot", "--device", "cpu")
    assert "openvino" in modules
    assert not {"torch", "huggingface_hub", "h5py"} & modules


def test_piped_output_is_plain_text(here: Path) -> None:
    photos(here / "photos", 2)
    (here / "photos" / "bad.png").write_bytes(b"")
    out, err = start("photos").communicate()
    assert len(out.splitlines()) == 3
    for text in (out, err):
        assert "\x1b" not in text
        assert "\r" not in text
    assert "detecting" not in err


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_shows_progress_and_a_pipe_beside_it_stays_clean(here: Path) -> None:
    import pty

    photos(here / "photos", 3)
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"}
    command = [*COMMAND, "detect", "photos"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment, encoding="utf-8"
    )
    os.close(theirs)
    shown = b""
    while chunk := read_terminal(ours):
        shown += chunk
    assert process.stdout is not None
    out = process.stdout.read()
    assert process.wait() == 0
    os.close(ours)
    assert b"detecting" in shown
    assert b"3 done" in shown
    assert len(out.splitlines()) == 4
    assert "\x1b" not in out


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # on Linux, the other side has closed
        return b""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
def test_a_reader_that_goes_away_ends_the_run_quietly(here: Path) -> None:
    photos(here / "photos", 30)
    process = start("photos", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["status"] == "done"
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=30) == 1
    assert "Traceback" not in err
    assert "Broken" not in err


def stop_after_two_lines(folder: Path, number: int) -> tuple[int, str]:
    process = start(folder, "-o", "out", "--plot")
    assert process.stdout is not None
    for _ in range(3):  # the header too
        assert process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_stopped_run_leaves_whole_files_and_resumes(here: Path, number: int, code: int) -> None:
    photos(here / "photos", 80)
    returned, err = stop_after_two_lines(here / "photos", number)
    assert returned == code, err
    assert "Traceback" not in err
    written = files_below(here / "out")
    if number != signal.SIGKILL:  # which leaves no time to clean up
        assert not [name for name in written if not name.endswith((".npz", ".png"))]
    whole = [name for name in written if name.endswith(".npz")]
    assert 2 <= len(whole) < 80
    for name in whole:
        assert len(load(here / "out" / name)) > 0
    again = detect(here / "photos", "-o", "out", "--plot")
    assert again.exit_code == 0
    assert f"{80 - len(whole)} done, {len(whole)} skipped" in again.stderr
    done = [name for name in files_below(here / "out") if not name.endswith(".partial")]
    assert len(done) == 160


def test_two_processes_on_one_folder_do_not_disturb_each_other(here: Path) -> None:
    photos(here / "photos", 12)
    processes = [start("photos", "-o", "out", "--overwrite", "--plot") for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    names = files_below(here / "out")
    assert len(names) == 24
    for name in names:
        assert name.endswith((".npz", ".png"))
        if name.endswith(".npz"):
            assert len(load(here / "out" / name)) > 0

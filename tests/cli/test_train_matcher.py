"""`tiepoint train-matcher` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from tiepoint.cli import app, exit_codes
from tiepoint.matching.learned.folder import load_matcher
from tiepoint.weights.checkpoint import load_checkpoint

SMOKE = ("--preset", "smoke", "--threads", "1")
PATIENCE_S = 300


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def alive_children(pid: int) -> list[int]:
    """Children of a process, also after its death, by the group that it leads."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[2]) == pid and int(path.parent.name) != pid:
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_command_leaves_no_workers_and_is_resumed_by_the_same_command(
    tmp_path: Path,
) -> None:
    out = tmp_path / "matcher"
    arguments = ["train-matcher", "small", "-o", str(out), *SMOKE, "--steps", "2"]
    command = [sys.executable, "-m", "tiepoint", *arguments, "--workers", "1"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    record, end = out / "features" / "bank.json", time.monotonic() + PATIENCE_S
    while not record.exists() and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while alive_children(process.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert alive_children(process.pid) == []
    held_out = (out / "features" / "held-out.safetensors").stat().st_mtime_ns
    code, output = run(*arguments, "--workers", "0")
    assert code == exit_codes.DONE, output
    assert f"matcher: {out}" in output
    assert (out / "features" / "held-out.safetensors").stat().st_mtime_ns == held_out
    checkpoint = load_matcher(out)
    assert checkpoint.detector_sha256 == load_checkpoint("small").sha256
    assert checkpoint.config.layers == 2
    assert json.loads((out / "manifest.json").read_text())["steps"] == 2
    code, output = run("train-matcher", "base", "-o", out, *SMOKE, "--steps", "2", "--workers", "0")
    assert code == exit_codes.USAGE
    assert "another run" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "CHECKPOINT"),
        (["nowhere"], "nowhere"),
        (["small", "--preset", "huge"], "preset is 'huge'"),
        (["small", "--minutes", "5", "--steps", "5"], "minutes and steps"),
        (["small", "--minutes", "0"], "minutes"),
        (["small", "--width", "97"], "multiple"),
        (["small", "--repeat", "manifest.json", "--seed", "1"], "--seed"),
        (["--repeat", "manifest.json"], "manifest.json"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "matcher"
    code, output = run("train-matcher", *arguments, "-o", out)
    assert code == exit_codes.USAGE
    assert message in output
    assert not out.exists()


def test_help_has_an_example() -> None:
    code, output = run("train-matcher", "--help")
    assert code == 0 and "Examples:" in output and "train-matcher base -o" in output

"""A path that the system refuses ends every command with one line, and no traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.batch_folders import put
from support.features_files import make
from tiepoint.cli import app
from tiepoint.formats import H5Writer
from tiepoint.weights.checkpoint import BUNDLED

LONG = "n" * 300
"""Longer than a name may be on the usual file systems."""
WEIGHTS = str(BUNDLED / "small" / "model.safetensors")
QUICK = ["-c", "small", "--methods", "tiepoint", "--limit", "1"]
COMMANDS = [
    ["detect", "a.png", "-o", LONG],
    ["detect", "a.png", "-o", f"{LONG}.npz"],
    ["detect", "a.png", "-o", f"{LONG}.h5"],
    ["detect", "a.png", "--masks", LONG],
    ["detect", "a.png", "-c", LONG],
    ["detect", LONG],
    ["match", LONG, "a.png"],
    ["match", "a.png", "a.png", "-o", f"{LONG}.npz"],
    ["match", "--features", f"{LONG}.h5", "-o", "m.h5"],
    ["match", "--features", "f.h5", "-o", f"{LONG}.h5"],
    ["match", "--features", "f.h5", "--pairs", LONG, "-o", "m.h5"],
    ["register", "a.png", LONG],
    ["register", "a.png", "a.png", "-o", f"{LONG}/x.png"],
    ["stitch", "a.png", LONG, "-o", "p.png"],
    ["stitch", "a.png", "a.png", "-o", f"{LONG}/x.png"],
    ["track", LONG, "--json"],
    ["track", ".", "-o", f"{LONG}.h5"],
    ["track", ".", "--plot", f"{LONG}.mp4"],
    ["track", ".", "--json", "--mask", LONG],
    ["calibrate", LONG, "--photos", "."],
    ["quantize", LONG],
    ["fit-rotation", LONG],
    ["convert", LONG, "out"],
    ["convert", WEIGHTS, LONG],
    ["evaluate", "homography", LONG],
    ["evaluate", "pose", LONG],
    ["evaluate", "stereo", LONG],
    ["evaluate", "generated", "--photos", LONG],
    ["evaluate", "generated", "--photos", ".", "--part", "all", *QUICK, "-o", f"{LONG}.json"],
    ["evaluate", "speed", "--photos", LONG],
    ["scenes", "-o", LONG],
    ["adapt", LONG, "-o", "run"],
    ["train", "--resume", LONG],
    ["train", "--photos", LONG, "-o", "run"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda value: " ".join(value)[:40])
def test_a_name_too_long_is_an_error_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a.png")
    with H5Writer(tmp_path / "f.h5") as writer:
        writer.add("a.png", make(3))
        writer.add("b.png", make(3))
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2, 3)
    assert "n" * 100 in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["match", "a.png", "b.png", "--plot", "./b.png"],
        ["register", "a.png", "b.png", "-o", "./a.png"],
        ["register", "a.png", "b.png", "--overlay", "linked.png"],
        ["register", "a.png", "b.png", "--mask-a", "mask.png", "--checkerboard", "mask.png"],
        ["register-large", "a.tif", "b.png", "-o", "a.tif"],
        ["register-large", "a.png", "b.png", "--mask-b", "mask.vrt", "--gcps", "mask.vrt"],
        ["stitch", "a.png", "b.png", "-o", "b.png"],
        ["compare", "a.png", "b.png", "--plot", "a.png"],
        ["track", "film.mp4", "--plot", "film.mp4"],
        ["warp", "t.json", "a.tif", "-o", "a.tif"],
        ["warp", "t.json", "a.png", "--other", "a.tif", "-o", "a.tif"],
        ["warp", "t.json", "cells.geojson", "-o", "cells.geojson"],
    ],
    ids=" ".join,
)
def test_no_command_replaces_its_input(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*"ab", "mask"):
        put(tmp_path / f"{name}.png")
    for name in ("a.tif", "mask.vrt", "film.mp4", "t.json", "cells.geojson"):
        (tmp_path / name).write_bytes(b"input")
    os.link("a.png", "linked.png")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = CliRunner().invoke(app, [*arguments, "--overwrite"])
    assert result.exit_code == 2 and "is one of the inputs" in result.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

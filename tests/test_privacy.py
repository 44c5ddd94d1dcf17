"""Nothing leaves the machine, and nothing is written but what was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

USES = """
import os, sys

NETWORK = ("socket.", "urllib.", "http.client.", "ftplib.", "smtplib.")
CHANGES = (
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod",
    "os.truncate", "os.utime", "os.setxattr", "tempfile.", "shutil.",
)
PROCESSES = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.startfile")
allowed, seen = [], []

def note(event, arguments):
    if event.startswith(NETWORK + PROCESSES):
        seen.append((event, repr(arguments)))
    elif event == "open" or event.startswith(CHANGES):
        path, mode, flags = arguments if event == "open" else (arguments[0], "w", 0)
        writes = any(c in mode for c in "wax+") if isinstance(mode, str) else flags & 3
        if writes and path not in (os.devnull, *allowed) and not str(path).startswith(
            tuple(allowed) or "\\0"
        ):
            seen.append((event, repr(arguments)))

sys.addaudithook(note)
engine, image, output = sys.argv[1:]
import tiepoint
from tiepoint.cli import app

def command(*arguments):
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code, arguments

detector = tiepoint.Detector("small", engine=engine, device="cpu", max_side=160)
features = detector(image)
tiepoint.match(features, features)
tiepoint.match(image, image, detector=detector)
assert tiepoint.register(image, image, detector=detector).success
list(detector.stream([image, image, image]))
command("info")
assert not seen, seen
allowed.append(output)
tiepoint.save(features, output + "/features.npz")
command("detect", image, "-o", output + "/features", "--plot")
command("match", image, image, "-o", output + "/matches.npz")
command("register", image, image)
assert not seen, seen
if engine == "openvino":
    assert "openvino_telemetry" not in sys.modules
    import openvino
    assert callable(openvino.convert_model)  # the caller's own use is as before
    assert not seen, seen
print("quiet")
"""


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_no_use_opens_a_socket_or_writes_outside_its_output(tmp_path: Path, engine: str) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (30, 40), np.uint8), (160, 120))
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), picture)
    output = tmp_path / "output"
    output.mkdir()
    folders = {
        name: tmp_path / name.lower()
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR", "CWD")
    }
    for folder in folders.values():
        folder.mkdir()
    environment = {**os.environ, **{name: str(path) for name, path in folders.items()}}
    environment.update(PYTHONDONTWRITEBYTECODE="1", USERPROFILE=str(folders["HOME"]))
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "MPLCONFIGDIR"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", USES, engine, str(image), str(output)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
        cwd=folders["CWD"],
    )
    assert done.returncode == 0 and done.stdout.endswith("quiet\n"), done.stderr[-3000:]
    for name, folder in folders.items():
        assert not list(folder.rglob("*")), name

"""Runs of `tiepoint detect`, in this process and in one of their own, and pictures for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from typer.testing import CliRunner

from tiepoint.cli import app

COMMAND = [sys.executable, "-m", "tiepoint"]
SOURCE = str(Path(__file__).resolve().parents[2] / "src")
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE, "PYTHONUTF8": "1"}


def put(path: Path, size: int = 64) -> Path:
    """A picture with corners in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.kron(np.indices((4, 4)).sum(axis=0) % 2, np.ones((size // 4, size // 4)))
    data = cv2.imencode(path.suffix, (squares * 200 + 20).astype(np.uint8))[1]
    path.write_bytes(data.tobytes())
    return path


def photos(folder: Path, count: int) -> Path:
    for number in range(count):
        put(folder / f"{number:03}.png")
    return folder


def detect(*arguments: object, stdin: str | None = None) -> Any:
    result = CliRunner().invoke(app, ["detect", *map(str, arguments)], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def start(*arguments: object, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "detect", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        encoding="utf-8",
        **more,
    )


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())

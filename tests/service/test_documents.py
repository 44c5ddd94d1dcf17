"""docs/serve.md: its curl lines run, and its tables are those of the code."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import tiepoint
from support.service import Client, png
from tiepoint.service.settings import LimitConfig

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")


def test_the_curl_lines_run(client: Client, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    for view in tiepoint.sample_views():
        shutil.copy(view, tmp_path)
    block = next(b for b in re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL) if "/match" in b)
    lines = block.splitlines()
    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line.replace(":8000", f":{client.port}"))
        command = [*words, "--silent", "--show-error", "--fail-with-body"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    assert len(tiepoint.load(tmp_path / "features.npz")) > 100
    for name in ("keypoints.png", "matches.png", "squares.png", "methods.png"):
        assert tiepoint.Detector("small")(tmp_path / name).size_hw > (300, 300)


def test_the_table_has_the_limits_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [\d, closed]* ?\| ", DOCUMENT, re.MULTILINE)
    expected = {
        each.name: "none" if each.default is None else str(each.default)
        for each in fields(LimitConfig)
    }
    assert dict(rows) == expected


def test_the_error_that_is_shown_is_the_services(client: Client) -> None:
    shown = re.search(r"```json\n(.*?)\n```", DOCUMENT, re.DOTALL)
    image = np.zeros((64, 64), np.uint8)
    assert shown and client.post("/detect", image=png(image), phases=3).body.decode() == shown[1]

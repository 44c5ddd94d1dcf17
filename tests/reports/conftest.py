"""A folder of a training run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiepoint.weights.checkpoint import locate


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as `tiepoint train` leaves it."""
    folder = tmp_path / "run"
    (folder / "checkpoint").mkdir(parents=True)
    manifest = Path(locate("small")) / "manifest.json"
    (folder / "checkpoint" / "manifest.json").write_text(manifest.read_text())
    records: list[dict[str, Any]] = [
        {"step": step, "detector": 3 - step / 100, "descriptor": 2.0, "accuracy": step / 100}
        for step in range(0, 100, 20)
    ]
    figures = {"within_3px": 0.625, "repeatability": 0.5, "precision": 0.4}
    records.append({"step": 100, **figures, "benchmark": {"tiepoint": figures, "sift": figures}})
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records) + '{"st')
    return folder

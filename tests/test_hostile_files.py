"""Files of others end in one of our errors, soon and within little memory, whatever they hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py")
pytest.importorskip("torch")

from support import hostile_trials

MOST_SECONDS, MOST_MEGABYTES = 2.0, 500
LONGEST_MESSAGE = 1500


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, Any]]:
    """Trial -> what it raised, the seconds of its process and its peak memory with torch."""
    script = Path(hostile_trials.__file__)
    run = subprocess.run(
        [sys.executable, script],
        env={**hostile_trials.environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = map(json.loads, run.stdout.splitlines())
    return {line["trial"]: line for line in lines}


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork")
@pytest.mark.parametrize("trial", [trial.name for trial in hostile_trials.trials()])
def test_a_hostile_file_is_refused_soon_and_within_little_memory(
    outcomes: dict[str, dict[str, Any]], trial: str
) -> None:
    outcome = outcomes[trial]
    assert outcome["raised"] == "ours", outcome
    assert outcome["seconds"] <= MOST_SECONDS and outcome["megabytes"] <= MOST_MEGABYTES, outcome
    assert "hostile" in outcome["words"] or "etting" in outcome["words"], outcome
    assert outcome["letters"] <= LONGEST_MESSAGE, outcome

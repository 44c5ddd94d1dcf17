"""The memory of a learned matcher grows with the keypoints, not with the product of two counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
from support.learned_matchers import random_features, random_tensors
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.folder import MatcherCheckpoint
from tiepoint.matching.learned.matcher import LearnedMatcher

def megabytes(count):
    matcher(*(random_features(count, 16, seed) for seed in (0, 1)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

config = MatcherConfig(16, 16, heads=4, layers=1)
checkpoint = MatcherCheckpoint("random", "", config, 0.1, None, random_tensors(config))
matcher = LearnedMatcher(checkpoint, engine=sys.argv[1], threads=2)
print(-megabytes(500) + megabytes(5000))
"""


@pytest.mark.parametrize("engine", ["openvino", "torch"])
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_5000_keypoints_need_less_than_one_matrix_of_their_pairs(engine: str) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, engine],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    assert float(run.stdout) < 95  # 5000 x 5000 float32, which each of the four heads would have

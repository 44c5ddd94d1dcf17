"""Signals of a process in which OpenVINO has run: handlers run, whatever ended first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

SIGNAL_AFTER_TWO_NETWORKS = """
import gc, os, signal
import numpy as np
import tiepoint

image = np.random.default_rng(0).integers(0, 255, (96, 128)).astype(np.uint8)
hits = []
signal.signal(signal.SIGINT, lambda *_: hits.append(1))
first = tiepoint.Detector("small", engine="openvino")
first(image)
second = tiepoint.Detector("small", engine="openvino")
second(image)
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGINT)
print(len(hits))
"""

STACKS = """
import numpy as np
import tiepoint
from tiepoint.network.signal_stack import _signal_stack

def areas():
    with open("/proc/self/maps") as maps:
        return sum(1 for _ in maps)

image = np.random.default_rng(0).integers(0, 255, (96, 128)).astype(np.uint8)
before = _signal_stack().start
detector = tiepoint.Detector("small", engine="openvino", threads=1)
detector(image)
few = areas()
for _ in range(300):
    detector(image)
print(_signal_stack().start == before, areas() - few < 50)
"""


def output_of(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, (run.returncode, run.stderr[-2000:])
    return run.stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_is_handled_after_detectors_ended_in_the_order_of_their_creation() -> None:
    assert output_of(SIGNAL_AFTER_TWO_NETWORKS) == "1"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_a_thread_keeps_its_signal_stack_and_nothing_is_left_behind() -> None:
    assert output_of(STACKS) == "True True"

"""A process forked from one that detects works, or is refused at once; none waits forever.

Each case runs in a process of its own: neither a fork nor a deadlock may touch this one.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

START = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np, tiepoint

images = [
    np.random.default_rng(k).integers(0, 256, (64 + 16 * k, 96), np.uint8) for k in range(6)
]

def outcome(work):
    # What happens to `work` in a forked child.
    child = os.fork()
    if child == 0:
        signal.alarm(200)
        try:
            work()
        except tiepoint.EngineError as error:
            os._exit(2 if "spawn" in str(error) or "in the child" in str(error) else 1)
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "works", 2: "refused", -signal.SIGALRM: "hangs"}.get(code, "fails")
"""

BUSY = """
def busy():
    while True:
        detector(images[0])

for _ in range(2):
    threading.Thread(target=busy, daemon=True).start()
print({outcome(lambda: detector(images[1])) for _ in range(6)})
sys.stdout.flush()
os._exit(0)
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START + code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_detector_made_before_a_fork_works_in_the_child() -> None:
    code = """
detector = tiepoint.Detector(device="cpu", scales=(1,))
print(outcome(lambda: [detector(image) for image in images]))
print(outcome(lambda: [one.require() for one in detector.stream(iter(images))]))
"""
    assert run(code).split() == ["works", "works"]


def test_networks_for_many_sizes_are_not_waited_for_in_the_child() -> None:
    code = """
detector = tiepoint.Detector("small", device="cpu", compiled=True)
for image in images:
    detector(image)
print(outcome(lambda: [detector(image) for image in images]))
print(outcome(lambda: detector.stream(images)))
print(outcome(lambda: tiepoint.Detector(device="cpu")(images[0])))
"""
    assert run(code).split() == ["refused", "refused", "refused"]


def test_a_fork_while_other_threads_detect_is_refused_in_the_child() -> None:
    code = 'detector = tiepoint.Detector("small", device="cpu")\ndetector(images[0])\n' + BUSY
    assert run(code) == "{'refused'}"


def test_a_fork_while_torch_works_on_another_thread_is_refused_in_the_child() -> None:
    pytest.importorskip("torch")
    code = """
from tiepoint.network.torch_inference import InferenceNetwork
detector = tiepoint.Detector(device="cpu", engine="torch")
detector(images[0])
inside, forever, forward = threading.Event(), threading.Event(), InferenceNetwork.forward
def waiting(self, *inputs, **options):
    inside.set(), forever.wait()
InferenceNetwork.forward = waiting
threading.Thread(target=lambda: detector(images[0]), daemon=True).start()
inside.wait()
InferenceNetwork.forward = forward
print(outcome(lambda: detector(images[1])), flush=True)
os._exit(0)
"""
    assert run(code) == "refused"


def test_torch_works_in_a_child_if_no_other_thread_was_at_work() -> None:
    pytest.importorskip("torch")
    code = """
detector = tiepoint.Detector(device="cpu", engine="torch")
expected = detector(images[0])
def again():
    assert np.array_equal(detector(images[0]).xy, expected.xy)
print(outcome(again))
"""
    assert run(code) == "works"


def test_a_stream_begun_in_the_parent_is_refused_in_the_child() -> None:
    code = """
class Blank:
    batch_size, in_flight = 1, 2
    def run(self, inputs, placements, *, descriptors, phases=1):
        from tiepoint.network.dense_maps import DenseMaps
        B, _, H, W = inputs.shape
        return DenseMaps(np.zeros((B, H, W), np.float32), None)

detector = tiepoint.Detector(engine=Blank(), descriptors=False)
stream = detector.stream(images[k % 6] for k in range(100))
next(stream)
print(outcome(lambda: next(stream)), len(list(stream)))
"""
    assert run(code).split() == ["refused", "99"]


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_child_may_drop_what_it_inherits_and_end_as_usual(engine: str) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    code = f"""
compiled = {engine == "openvino"}
detector = tiepoint.Detector("small", engine={engine!r}, device="cpu", compiled=compiled)
for image in images:
    detector(image)
def drop():
    global detector
    del detector
print(outcome(drop))
"""
    assert run(code) == "works"

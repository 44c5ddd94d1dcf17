"""Without optional packages: what still works, and errors that name the extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import tiepoint

DETECT = """
tiepoint.save(tiepoint.Detector(device="cpu", precision="f32")(sys.argv[1]), sys.argv[2])
print(tiepoint.load(sys.argv[2]).provenance.engine)
"""


def run(missing: tuple[str, ...], code: str, *arguments: str) -> str:
    """What a process prints in which some packages cannot be imported."""
    hidden = f"import sys\nfor name in {missing}:\n    sys.modules[name] = None\nimport tiepoint\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden + code, *arguments],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torch_alone_detects_and_pillow_alone_reads_jpegs(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    image = cv2.resize(rng.integers(0, 256, (24, 32), dtype=np.uint8), None, fx=8, fy=8)
    cv2.imwrite(str(tmp_path / "image.jpg"), image)
    found = []
    for missing in ((), ("openvino", "simplejpeg", "huggingface_hub")):
        output = tmp_path / f"{len(missing)}.npz"
        engine = run(missing, DETECT, str(tmp_path / "image.jpg"), str(output))
        assert engine == ("torch" if missing else "openvino")
        found.append(tiepoint.load(output))
    assert len(found[0]) == len(found[1]) > 10
    np.testing.assert_allclose(found[0].xy, found[1].xy, atol=0.01)


@pytest.mark.parametrize(
    ("expression", "extra"),
    [
        ("tiepoint.Detector(engine='openvino')", "openvino"),
        ("tiepoint.Detector()", "openvino"),
        ("tiepoint.Detector('org/name')", "hub"),
        ("from tiepoint.batch.ray_cluster import connect; connect('auto')", "ray"),
    ],
)
def test_an_error_names_the_extra_that_is_missing(expression: str, extra: str) -> None:
    code = f"""
try:
    {expression}
except tiepoint.MissingExtraError as error:
    print(error)
"""
    missing = ("openvino", "huggingface_hub", "torch", "ray")
    assert f"tiepoint[{extra}]" in run(missing, code)

"""The example in C++ compiles, and prints the keypoints of `Detector`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from tiepoint import Detector
from tiepoint.export.write import export_onnx

pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")
openvino = pytest.importorskip("openvino", reason="the example is linked to OpenVINO")

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "cpp"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cmake = Path(openvino.__path__[0], "cmake")
    if not cmake.is_dir():
        pytest.skip(f"this OpenVINO brings no headers: no {cmake}")
    if not shutil.which("cmake") or not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("no cmake or no C++ compiler")
    folder = tmp_path_factory.mktemp("build")
    for command in (
        ["cmake", "-S", str(SOURCE), "-B", str(folder), f"-DOpenVINO_DIR={cmake}"],
        ["cmake", "--build", str(folder)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "keypoints"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_onnx(path, "small", max_keypoints=40)
    return path


def test_the_program_prints_the_keypoints_of_the_detector(
    program: Path, model: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    image = np.uint8(np.kron(random.integers(0, 256, (9, 12, 3)), np.ones((11, 11, 1))))
    cv2.imwrite(str(tmp_path / "image.ppm"), image[..., ::-1])
    done = subprocess.run(
        [program, model, tmp_path / "image.ppm"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    rows = np.array([line.split() for line in done.stdout.splitlines()], np.float64)
    features = Detector("small", precision="f32", max_keypoints=40)(image)
    assert len(rows) == len(features) > 20
    np.testing.assert_allclose(rows[:, :2], features.xy, atol=1e-2)
    np.testing.assert_allclose(rows[:, 2], features.scores, atol=1e-4)
    np.testing.assert_allclose(rows[:, 3:], features.descriptors, atol=1e-3)


@pytest.mark.parametrize("content", [b"", b"P6 3 3 255\nxx", b"P3 1 1 255\n1 1 1", b"P5 x"])
def test_a_file_that_is_no_image_is_refused(
    program: Path, model: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "image.ppm").write_bytes(content)
    done = subprocess.run(
        [program, model, tmp_path / "image.ppm"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and "image.ppm" in done.stderr and not done.stdout

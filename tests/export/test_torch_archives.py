"""`torch.export` archives find the keypoints of `Detector`, and need no tiepoint."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray
from typer.testing import CliRunner

from support.checkpoints import random_checkpoint
from tiepoint import ConfigError, Detector, EngineError, MissingExtraError, OutputError
from tiepoint.cli import app
from tiepoint.config import resolve
from tiepoint.export import check, runtimes, write

torch = pytest.importorskip("torch", reason="needs the extra torch")

from tiepoint.export import torch_archive  # noqa: E402
from tiepoint.export.torch_model import KeypointModel, resize  # noqa: E402
from tiepoint.geometry import with_longer_side  # noqa: E402
from tiepoint.network.inputs import resize_to  # noqa: E402

PYRAMID = {"max_keypoints": 60, "scales": (1.0, 0.6), "phases": 2}


def drawn(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise and rectangles in colour."""
    random = np.random.default_rng(seed)
    image = random.integers(60, 120, (height, width, 3), dtype=np.uint8)
    for _ in range(12):
        x, y, x2, y2 = (int(one) for one in random.integers(0, [width, height] * 2))
        cv2.rectangle(image, (x, y), (x2, y2), random.integers(0, 256, 3).tolist(), 2)
    return image


def pixels_of(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return np.ascontiguousarray(planes[None].astype(np.float32) / np.float32(255))


IMAGES = [drawn(97, 131), drawn(128, 96, 1)[..., 0], drawn(61, 200, 2)]


@pytest.fixture(scope="module")
def data() -> bytes:
    """Two scales and two phases, and fewer places than keypoints."""
    checkpoint = random_checkpoint()
    return torch_archive.build_archive(checkpoint, resolve(checkpoint.detection, PYRAMID))


@pytest.fixture(scope="module")
def archive(data: bytes) -> runtimes.Runtime:
    return torch_archive.torch_archive(data, None)


def test_an_archive_finds_the_keypoints_of_the_detector(archive: runtimes.Runtime) -> None:
    checkpoint = random_checkpoint()
    detection = resolve(checkpoint.detection, PYRAMID)
    (found,) = check.compare([("torch", archive)], checkpoint, detection, "generic", IMAGES)
    assert found.keypoints == 180 and found.same == 180, found


def test_names_order_and_types_are_those_of_the_generic_onnx_file(
    archive: runtimes.Runtime,
) -> None:
    outputs = archive({"image": pixels_of(IMAGES[0])})
    kinds = [(name, values.shape, str(values.dtype)) for name, values in outputs.items()]
    assert kinds == [
        ("keypoints", (1, 60, 2), "float32"),
        ("scores", (1, 60), "float32"),
        ("descriptors", (1, 60, 16), "float32"),
        ("count", (1,), "int64"),
    ]
    assert (np.diff(outputs["scores"][0]) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(outputs["descriptors"][0], axis=1), 1, atol=1e-5)


def test_images_of_a_batch_do_not_change_one_another(archive: runtimes.Runtime) -> None:
    batch = np.concatenate([pixels_of(drawn(64, 88, seed)) for seed in range(2)])
    together = archive({"image": batch})
    for index in range(2):
        for name, values in archive({"image": batch[index : index + 1]}).items():
            np.testing.assert_allclose(values[0], together[name][index], atol=1e-5)


@pytest.mark.parametrize("size_hw", [(9, 9), (9, 30), (40, 12)])
def test_an_image_without_keypoints_gives_empty_places(
    archive: runtimes.Runtime, size_hw: tuple[int, int]
) -> None:
    outputs = archive({"image": np.full((2, 1, *size_hw), 0.5, np.float32)})
    assert outputs["keypoints"].shape == (2, 60, 2) and (outputs["count"] < 60).all()
    for index, count in enumerate(outputs["count"]):
        for name in ("keypoints", "scores", "descriptors"):
            assert not outputs[name][index, count:].any()
            assert np.isfinite(outputs[name]).all()


def test_a_side_below_9_px_is_refused(archive: runtimes.Runtime) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=r">= 9"):
        archive({"image": np.zeros((1, 1, 8, 30), np.float32)})


def test_an_archive_runs_where_tiepoint_cannot_be_imported(
    data: bytes, archive: runtimes.Runtime, tmp_path: Path
) -> None:
    (tmp_path / "model.pt2").write_bytes(data)
    pixels = pixels_of(IMAGES[0])
    np.save(tmp_path / "image.npy", pixels)
    code = """
import sys
sys.modules["tiepoint"] = None  # import tiepoint raises
import numpy as np, torch
module = torch.export.load("model.pt2").module()
outputs = module(torch.from_numpy(np.load("image.npy")))
np.savez("outputs.npz", **{name: one.numpy() for name, one in outputs.items()})
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs = np.load(tmp_path / "outputs.npz")
    for name, values in archive({"image": pixels}).items():
        np.testing.assert_allclose(outputs[name], values, atol=1e-5)


def test_an_archive_names_its_origin_and_no_path_of_this_computer(data: bytes) -> None:
    notes = {torch_archive.NOTES_FILE: ""}
    torch.export.load(io.BytesIO(data), extra_files=notes)
    origin = json.loads(notes[torch_archive.NOTES_FILE])
    assert origin["weights_sha256"] == random_checkpoint().sha256
    assert json.loads(origin["settings"])["scales"] == [1.0, 0.6]
    assert b"torch_model.py" not in data and str(Path(__file__).parents[2]).encode() not in data


@pytest.mark.parametrize(
    "settings",
    [
        {"nms_radius": 0, "subpixel": False, "max_keypoints": 300},
        {"nms_radius": 7, "border": 0, "max_keypoints": 30_000},
        {"scales": (0.5,), "threshold": 0.0, "phases": 4},
        {"scales": (1.0, 0.7, 0.5), "max_keypoints": 40},
        {"border": 70},
    ],
)
@pytest.mark.parametrize("rules", ["exact", "transformers"])
def test_settings_mean_what_they_mean_for_the_detector(
    settings: dict[str, Any], rules: str
) -> None:
    """The module itself, because a trace takes seconds."""
    checkpoint = replace(random_checkpoint(1), rules=rules)
    detection = resolve(checkpoint.detection, settings)
    module = KeypointModel(checkpoint, detection).eval()

    def run(inputs: runtimes.Arrays) -> runtimes.Arrays:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(inputs["image"]))
        return {name: one.numpy() for name, one in outputs.items()}

    (found,) = check.compare([("torch", run)], checkpoint, detection, "generic", IMAGES[:2])
    assert found.same >= 0.998 * found.keypoints, found
    assert (found.keypoints > 30) == ("border" not in settings or settings["border"] == 0)


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 5), (33, 47), (25, 5)])
@pytest.mark.parametrize("scale", [0.6, 0.5, 0.123])
def test_resizing_averages_areas_as_opencv_does(size_hw: tuple[int, int], scale: float) -> None:
    image = np.random.default_rng(0).random(size_hw, dtype=np.float32)
    expected = resize_to(image, with_longer_side(size_hw, max(1, round(max(size_hw) * scale))))
    resized = resize(torch.from_numpy(image)[None], scale)[0].numpy()
    assert resized.shape == expected.shape
    np.testing.assert_allclose(resized, expected, atol=2e-6)


def run_command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", *arguments])


def test_the_command_writes_an_archive_of_a_bundled_checkpoint(here: Path) -> None:
    result = run_command(
        "small.pt2", "-c", "small", "--count", "1", "--scales", "1", "--phases", "1",
        "--max-keypoints", "50",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "torch: 50 of 50 keypoints are those of Detector" in result.stdout
    assert result.stdout.endswith("wrote small.pt2\n")
    module = torch.export.load("small.pt2").module()
    image = drawn(101, 150)
    outputs = module(torch.from_numpy(pixels_of(image)))
    features = Detector("small", precision="f32", scales=(1,), phases=1, max_keypoints=50)(image)
    assert int(outputs["count"][0]) == len(features) > 20
    np.testing.assert_allclose(outputs["keypoints"][0, : len(features)], features.xy, atol=0.01)


def test_an_archive_with_other_keypoints_is_not_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, archive: runtimes.Runtime
) -> None:
    def shifted(_: bytes, __: int | None) -> runtimes.Runtime:
        def run(inputs: runtimes.Arrays) -> runtimes.Arrays:
            outputs = dict(archive(inputs))
            return outputs | {"keypoints": outputs["keypoints"] + np.float32(0.5)}

        return run

    monkeypatch.setattr(torch_archive, "build_archive", lambda *_: data)
    monkeypatch.setattr(torch_archive, "torch_archive", shifted)
    with pytest.raises(EngineError, match="torch: 0 of 60"):
        write.export_torch("model.pt2", random_checkpoint(), images=IMAGES[:1], **PYRAMID)
    with pytest.raises(EngineError, match="no keypoints to compare"):
        write.export_torch("model.pt2", random_checkpoint(), images=[], **PYRAMID)
    assert not Path("model.pt2").exists()
    with pytest.raises(OutputError, match="no-folder"):
        write.export_torch("no-folder/model.pt2", random_checkpoint(), **PYRAMID)


def test_wrong_settings_endings_and_a_missing_extra_are_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = random_checkpoint()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"scales": (1.5, 1)}, "scales up to 1"),
        ({"max_side": 100}, "unknown option max_side"),
        ({"phases": 3}, "expected 1, 2 or 4"),
    ]
    for settings, message in wrong:
        with pytest.raises(ConfigError, match=message):
            write.export_torch("model.pt2", checkpoint, **settings)
    with pytest.raises(ConfigError, match=r"ending in \.pt2"):
        write.export_torch("model.onnx", checkpoint)
    monkeypatch.setattr(write, "is_installed", lambda name: name != "torch")
    with pytest.raises(MissingExtraError, match=r"tiepoint\[torch\]"):
        write.export_torch("model.pt2", checkpoint)
    assert not Path("model.pt2").exists()

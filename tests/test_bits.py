"""The same bits: features, matches and registrations of photographs, as recorded digests.

Bits depend on the processor, on the number of cores and on the versions of the engine. Digests are
recorded for some of these, and on others the test is skipped. After a change that is meant to
change results, record them with `python tests/test_bits.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tiepoint
from tiepoint.errors import is_installed
from tiepoint.features import Features

RECORDED = Path(__file__).parent / "data" / "bits.json"

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png",
    "page.png",
)  # fmt: skip
MODELS = ("homography", "affine", "similarity", "translation", "fundamental", "essential")
CAMERA = np.array([[500.0, 0, 240], [0, 500, 180], [0, 0, 1]])


def digest(*parts: Any) -> str:
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.shape} {part.dtype.str} ".encode())
            total.update(np.ascontiguousarray(part).tobytes())
        else:
            total.update(json.dumps(part, sort_keys=True).encode())
    return total.hexdigest()[:16]


def of_features(features: Features) -> str:
    return digest(
        features.xy,
        features.scores,
        features.descriptors,
        features.covariance,
        features.size_hw,
        features.px_per_input_px,
    )


@cache
def photographs() -> dict[str, np.ndarray]:
    skimage = pytest.importorskip("skimage", reason="photographs need scikit-image")
    folder = Path(skimage.__file__).parent / "data"
    return {name: cv2.imread(str(folder / name))[:, :, ::-1] for name in PHOTOGRAPHS}


def pairs() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Ten pairs: six warped copies, a stereo pair, and three of different things."""
    images = [cv2.resize(image, (480, 360)) for image in photographs().values()]
    for k, image in enumerate(images[:6]):
        matrix = np.array(
            [[0.9 + 0.02 * k, 0.05 * k, 20], [-0.03 * k, 0.95, 15], [5e-5 * k, 2e-5, 1]]
        )
        if k == 5:
            matrix = np.array([[0, -1, 359.0], [1, 0, 0], [0, 0, 1]])
        yield f"warped {k}", image, cv2.warpPerspective(image, matrix, (480, 480))
    yield "stereo", images[9], images[10]
    for k in range(3):
        yield f"unrelated {k}", images[k], images[k + 1]


def detections(engine: str) -> Iterator[tuple[str, str]]:
    images = photographs()
    for checkpoint in ("base", "small"):
        detector = tiepoint.Detector(
            checkpoint, engine=engine, device="cpu", precision="f32", max_side=320
        )
        for scales in ((1.0,), (1.0, 0.6)):
            for name, image in images.items():
                features = detector(image, scales=scales)
                yield f"{checkpoint} {list(scales)} {name}", of_features(features)
        image = images["coffee.png"]
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[: len(mask) // 2] = 1
        yield f"{checkpoint} mask", of_features(detector(image, mask=mask))
        spread = detector(image, spread=True, max_keypoints=100)
        yield f"{checkpoint} spread", of_features(spread)


def matches_and_registrations() -> Iterator[tuple[str, str]]:
    detector = tiepoint.Detector(
        engine="openvino", device="cpu", precision="f32", max_side=480, threshold=0.0
    )
    for name, image_a, image_b in pairs():
        a, b = (detector(image, max_keypoints=1000) for image in (image_a, image_b))
        for scores in ("cosine", "dual-softmax"):
            matches = tiepoint.match(a, b, scores=scores)
            yield f"{scores} {name}", digest(matches.pairs, matches.scores, matches.turned_deg)
        for model in MODELS:
            cameras = CAMERA if model == "essential" else None
            result = tiepoint.register(a, b, model=model, intrinsics=cameras)
            figures = {**result.summary(), "reason": ""}  # words may change
            yield f"{model} {name}", digest(figures, result.matrix, result.inliers)


def machine(engine: str) -> str:
    """What bits depend on."""
    if engine == "torch":
        import torch

        version = f"torch {torch.__version__}"
    else:
        import openvino

        version = f"openvino {openvino.__version__}"
    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():  # processors of several generations may have one name
        lines = [line.partition(":") for line in information.read_text().splitlines()]
        known = {name.strip(): value.strip() for name, _, value in reversed(lines)}
        fields = ("model name", "cpu family", "model")
        processor = " ".join(known[name] for name in fields if name in known) or processor
    libraries = f"numpy {np.__version__}, opencv {cv2.__version__}"
    return f"{version}, {libraries}, {processor}, {os.cpu_count()} cores"


KINDS = {
    "openvino": lambda: detections("openvino"),
    "torch": lambda: detections("torch"),
    "registration": matches_and_registrations,
}


def recorded() -> dict[str, dict[str, dict[str, str]]]:
    return json.loads(RECORDED.read_text()) if RECORDED.exists() else {}


@pytest.mark.weights
@pytest.mark.parametrize("kind", KINDS)
def test_results_have_the_recorded_bits(kind: str) -> None:
    if kind == "torch":
        pytest.importorskip("torch")
    expected = recorded().get(machine(kind), {}).get(kind)
    if expected is None:
        pytest.skip(f"no digests of {kind} for {machine(kind)}")
    assert dict(KINDS[kind]()) == expected


def record() -> None:
    digests = recorded()
    for kind, make in KINDS.items():
        if kind != "torch" or is_installed("torch"):
            digests.setdefault(machine(kind), {})[kind] = dict(make())
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    record()

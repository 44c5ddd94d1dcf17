"""What reports are made of: pairs, comparisons, evaluations, a store and a training run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support.fake_detector import FakeDetector
from support.known_pairs import KnownPair
from support.pages import NASTY
from support.registered import MATRICES, SIZE_HW, registration_values
from support.store_runs import fill, pictures
from tiepoint.evaluation import compare, comparison_views, summary
from tiepoint.evaluation.homography import HOMOGRAPHY
from tiepoint.evaluation.methods import method
from tiepoint.evaluation.run import evaluate
from tiepoint.evaluation.settings import CompareSettings, FrameSize, HomographySettings
from tiepoint.images.encoding import write_picture
from tiepoint.weights.checkpoint import locate


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.png, and the same scene seen from elsewhere as b.png."""
    folder = tmp_path_factory.mktemp("scene")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (SIZE_HW[0] // 8, SIZE_HW[1] // 8, 3), dtype=np.uint8)
    a = cv2.resize(coarse, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC)
    b = cv2.warpPerspective(a, MATRICES["homography"], SIZE_HW[::-1])
    write_picture(folder / "a.png", a)
    write_picture(folder / "b.png", b)
    return folder


@pytest.fixture
def registered(scene: Path, tmp_path: Path) -> Path:
    """A file of one registered and one refused pair, one in each line."""
    a, b = str(scene / "a.png"), str(scene / "b.png")
    lines = [registration_values(a, b), registration_values(b, a, wrong=195)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return file


@pytest.fixture(scope="module")
def compared(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("compared") / "comparison.json"
    result = compare.compare(
        scene / "a.png", scene / "b.png", ["sift", "missing"], settings=CompareSettings(repeats=1)
    )
    file.write_text(json.dumps(comparison_views.comparison_json(result)))
    return file


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("evaluated") / "results.json"
    settings = HomographySettings(k=100, seeds=1, frame=FrameSize(long_side=320))
    pairs = [KnownPair(0), KnownPair(1), KnownPair(2, readable=False)]
    sift = replace(method("sift"), settings={"weights_sha256": "0123abcd"})
    evaluation = evaluate(HOMOGRAPHY, pairs, [sift, method("orb")], settings)
    file.write_text(summary.as_json(evaluation, kind="homography", profile="tiepoint"))
    return file


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "made.store"
    photos = pictures(tmp_path / "photos", ["a.png", "b.png", "c.png"])
    (photos / NASTY.replace("/", "_")).write_bytes(b"no image")
    fill(folder, photos, detector=FakeDetector())
    return folder


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

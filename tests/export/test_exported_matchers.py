"""Exported matchers find the matches of `LearnedMatcher`, by the contract of each profile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from support.learned_matchers import random_features, random_tensors, related_features
from support.onnx_graphs import run_model
from tiepoint import ConfigError, EngineError, Features
from tiepoint.export import matcher_check, runtimes
from tiepoint.export.matcher_check import KEYPOINTS, MatchAgreement, compare_matches
from tiepoint.export.matcher_model import build_matcher_model
from tiepoint.export.model import Profile
from tiepoint.export.write import export_matcher_onnx
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.folder import MatcherCheckpoint
from tiepoint.matching.learned.matcher import LearnedMatcher

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

CONFIG = MatcherConfig(descriptor_length=16, width=24, heads=2, layers=3)
EQUAL = MatcherConfig(descriptor_length=24, width=24, heads=3, layers=2)
PROFILES = pytest.mark.parametrize("profile", ["generic", "colmap", "opencv"])


def checkpoint_of(config: MatcherConfig = CONFIG, *, threshold: float = 0.0) -> MatcherCheckpoint:
    tensors = random_tensors(config, 3)
    return MatcherCheckpoint("random", "0" * 64, config, threshold, None, tensors)


def inputs_of(a: Features, b: Features) -> dict[str, Any]:
    """By the contract of COLMAP's LightGlue."""
    inputs: dict[str, Any] = {}
    for number, features in enumerate((a, b)):
        inputs[f"kpts{number}"] = features.xy[None]
        inputs[f"desc{number}"] = features.descriptors[None]  # type: ignore[index]
        height, width = features.size_hw
        inputs[f"image_size{number}"] = np.array([[width, height]], np.float32)
    return inputs


def pairs_of(a: Features, b: Features, model: Any) -> dict[tuple[int, int], float]:
    outputs = run_model(model, **inputs_of(a, b))
    rows = zip(outputs["matches0"], outputs["mscores0"], strict=True)
    return {(i, int(j)): float(score) for i, (j, score) in enumerate(rows) if j >= 0}


def expected(matcher: LearnedMatcher, a: Features, b: Features) -> dict[tuple[int, int], float]:
    found = matcher(a, b)
    return {(i, j): float(s) for (i, j), s in zip(found.pairs.tolist(), found.scores, strict=True)}


@pytest.mark.parametrize("config", [CONFIG, EQUAL])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_file_has_the_matches_of_the_matcher_with_as_many_layers(
    config: MatcherConfig, layers: int
) -> None:
    checkpoint = checkpoint_of(config, threshold=1e-4)
    model = build_matcher_model(checkpoint, layers, checkpoint.threshold, "generic")
    matcher = LearnedMatcher(checkpoint, layers=layers)
    for seed, count in enumerate((60, 1, 2, 200)):
        a, b = related_features(count, config.descriptor_length, seed)
        ours, theirs = expected(matcher, a, b), pairs_of(a, b, model)
        assert theirs.keys() == ours.keys() and (len(ours) > 4 or count < 60)
        for pair, score in ours.items():
            assert theirs[pair] == pytest.approx(score, abs=1e-5)


def test_unrelated_images_have_few_matches_and_the_threshold_is_in_the_file() -> None:
    a, b = random_features(80, 16, 1), random_features(70, 16, 2)
    every = pairs_of(a, b, build_matcher_model(checkpoint_of(), 3, 0.0, "generic"))
    limit = float(np.median(list(every.values())))
    some = pairs_of(a, b, build_matcher_model(checkpoint_of(), 3, limit, "generic"))
    assert some == {pair: score for pair, score in every.items() if score > np.float32(limit)}
    assert 0 < len(some) < len(every)


def test_colmap_finds_the_names_orders_and_ranks_that_it_checks() -> None:
    model = build_matcher_model(checkpoint_of(), 3, 0.1, "colmap")
    ranks = {one.name: len(one.type.tensor_type.shape.dim) for one in model.graph.input}
    assert list(ranks.items()) == [
        ("kpts0", 3), ("kpts1", 3), ("desc0", 3), ("desc1", 3), ("image_size0", 2),
        ("image_size1", 2),
    ]  # fmt: skip
    outputs = {one.name: one.type.tensor_type for one in model.graph.output}
    assert list(outputs) == ["matches0", "mscores0"]
    assert all(len(one.shape.dim) == 1 for one in outputs.values())
    assert outputs["matches0"].elem_type == onnx.TensorProto.INT64
    a, b = related_features(50, 16)
    found = run_model(model, **inputs_of(a, b))
    assert found["matches0"].shape == found["mscores0"].shape == (50,)
    assert set(found["matches0"]) <= {-1, *range(len(b))}
    assert not found["mscores0"][found["matches0"] < 0].any()


@pytest.mark.skipif(not hasattr(cv2, "LightGlueMatcher"), reason="needs OpenCV 5")
def test_opencv_finds_the_matches_from_px_with_the_longer_side_as_both_sides(tmp_path: Any) -> None:
    path = tmp_path / "matcher.onnx"
    path.write_bytes(build_matcher_model(checkpoint_of(), 3, 0.0, "opencv").SerializeToString())
    a, b = related_features(240, 16, 4)
    matcher = cv2.LightGlueMatcher.create(str(path), 0.0)
    side = max(a.size_hw)
    matcher.setPairInfo(a.xy.copy(), b.xy.copy(), (side, side), (side, side))
    found = matcher.match(a.descriptors, b.descriptors)
    theirs = {(one.queryIdx, one.trainIdx): 1 - one.distance for one in found}
    ours = expected(LearnedMatcher(checkpoint_of()), a, b)
    assert theirs.keys() == ours.keys() and len(ours) > 30
    for pair, score in ours.items():
        assert theirs[pair] == pytest.approx(score, abs=1e-5)


class Points:
    """In place of a detector: keypoints that a second view shares with the first."""

    def __init__(self, count: int) -> None:
        self._views = list(related_features(count, 16, 5))

    def __call__(self, image: Any, *, max_keypoints: int) -> Features:
        assert max_keypoints == KEYPOINTS
        self._views.reverse()
        return self._views[-1]


IMAGE = np.zeros((30, 40), np.uint8)


def agreements(profile: Profile) -> list[MatchAgreement]:
    matcher = LearnedMatcher(checkpoint_of())
    data = build_matcher_model(checkpoint_of(), 3, 0.0, profile).SerializeToString()
    return compare_matches(data, matcher, Points(240), profile, [IMAGE] * 2, threshold=0.0)  # type: ignore[arg-type]


@PROFILES
def test_each_installed_runtime_is_compared(profile: Profile) -> None:
    found = agreements(profile)
    assert {one.runtime for one in found} >= {"ONNX Runtime", "OpenVINO"}
    for one in found:
        assert one.is_good and one.matches > 40, one


def test_a_runtime_with_other_matches_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    load = runtimes.onnx_runtime

    def wrong(data: bytes, threads: int | None) -> runtimes.Runtime:
        exact = load(data, threads)
        return lambda inputs: {n: np.roll(v, 1, axis=0) for n, v in exact(inputs).items()}

    monkeypatch.setattr(runtimes, "onnx_runtime", wrong)
    by_name = {one.runtime: one for one in agreements("generic")}
    assert not by_name["ONNX Runtime"].is_good and by_name["OpenVINO"].is_good
    assert "of tiepoint" in str(by_name["ONNX Runtime"])


def test_a_file_with_other_matches_is_not_written(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiepoint.export import write

    matcher = LearnedMatcher(checkpoint_of(MatcherConfig(descriptor_length=64)))
    for given, message in (
        ([MatchAgreement("ONNX Runtime", 200, 150)], "150 of 200 matches"),
        ([MatchAgreement("ONNX Runtime", 0, 0)], "no matches to compare"),
    ):
        monkeypatch.setattr(write, "compare_matches", lambda *_, given=given, **__: given)
        with pytest.raises(EngineError, match=message):
            export_matcher_onnx(tmp_path / "m.onnx", matcher, images=[IMAGE], checkpoint="small")
        assert not (tmp_path / "m.onnx").exists()


def test_wrong_arguments_are_refused(tmp_path: Any) -> None:
    made = checkpoint_of(MatcherConfig(descriptor_length=64))
    matcher = LearnedMatcher(replace(made, detector_sha256="f" * 64))
    path = tmp_path / "m.onnx"
    with pytest.raises(ConfigError, match=r"ending in \.onnx"):
        export_matcher_onnx(tmp_path / "m.pt", matcher)
    with pytest.raises(ConfigError, match="threshold"):
        export_matcher_onnx(path, matcher, threshold=2)
    with pytest.raises(ConfigError, match="no bundled checkpoint has"):
        export_matcher_onnx(path, matcher, images=[IMAGE])
    with pytest.raises(ConfigError, match="give the checkpoint that the matcher was trained on"):
        export_matcher_onnx(path, matcher, images=[IMAGE], checkpoint="small")
    assert not path.exists()


def test_the_second_view_is_another_one() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    second = matcher_check._second(image)
    assert second.shape == image.shape and (second != image).mean() > 0.9

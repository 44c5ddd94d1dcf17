"""Exported files find the keypoints of `Detector`, by the contract of each profile."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support.checkpoints import random_checkpoint
from support.onnx_graphs import run_model
from tiepoint import ConfigError, Detector
from tiepoint.config import DetectionConfig, resolve
from tiepoint.export import check
from tiepoint.export.model import Profile, build_model, colmap_exponent
from tiepoint.export.write import export_onnx, export_torch
from tiepoint.weights.checkpoint import Checkpoint, load_checkpoint

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

PROFILES = pytest.mark.parametrize("profile", ["generic", "colmap", "opencv"])


def drawn(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Rectangles, circles and lines in colour."""
    random, image = np.random.default_rng(seed), np.full((height, width, 3), 90, np.uint8)
    for _ in range(14):
        colour = [int(level) for level in random.integers(0, 256, 3)]
        x, y, x2, y2 = (int(one) for one in random.integers(0, [width, height] * 2))
        cv2.rectangle(image, (x, y), (x2, y2), colour, -1)
        cv2.circle(image, (y2, x2), 5, colour[::-1], 2)
        cv2.line(image, (x2, y), (x, 3), colour)
    # Noise, so that no column repeats another, and that positions in flat areas are defined.
    return np.uint8(np.clip(image + random.normal(0, 8, image.shape), 0, 255))


def pixels_of(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return np.ascontiguousarray(planes[None].astype(np.float32) / 255)


def model_of(checkpoint: Checkpoint, profile: Profile, **settings: Any) -> bytes:
    detection = resolve(checkpoint.detection, settings)
    data: bytes = build_model(checkpoint, detection, profile).SerializeToString()
    return data


def agreements(
    checkpoint: Checkpoint,
    profile: Profile,
    images: list[NDArray[np.uint8]],
    **settings: Any,
) -> list[check.Agreement]:
    detection = resolve(checkpoint.detection, settings)
    data = build_model(checkpoint, detection, profile).SerializeToString()
    runtimes = check.runtimes_of(data, profile, None)
    return check.compare(runtimes, checkpoint, detection, profile, images)


IMAGES = [drawn(97, 131), drawn(128, 96, 1)[..., 0], drawn(61, 200, 2)]


@pytest.mark.parametrize(
    ("profile", "phases"), [("generic", 1), ("generic", 4), ("colmap", 2), ("opencv", 1)]
)
def test_drawn_images_give_the_keypoints_of_the_detector_in_every_runtime(
    profile: Profile, phases: int
) -> None:
    found = agreements(
        random_checkpoint(), profile, IMAGES, max_keypoints=150, scales=(1.0, 0.6), phases=phases
    )
    assert {one.runtime for one in found} >= {"ONNX Runtime"}
    for one in found:
        assert one.keypoints > 200 and one.same >= 0.998 * one.keypoints, one


@pytest.mark.parametrize(
    "settings",
    [
        {"nms_radius": 0, "subpixel": False},
        {"nms_radius": 7, "border": 0},
        {"scales": (0.5,), "threshold": 0.0},
        {"scales": (1.0, 0.7, 0.5), "max_keypoints": 40},
    ],
)
def test_settings_mean_what_they_mean_for_the_detector(settings: dict[str, Any]) -> None:
    for one in agreements(random_checkpoint(1), "generic", IMAGES[:1], **settings):
        assert one.keypoints >= 30 and one.same >= 0.995 * one.keypoints, (settings, one)


def test_weights_of_the_published_sampling_rule_keep_it() -> None:
    published = replace(random_checkpoint(2), rules="transformers")
    for one in agreements(published, "generic", IMAGES[:2], max_keypoints=100):
        assert one.keypoints > 100 and one.same == one.keypoints, one


def test_the_bundled_checkpoints_give_the_keypoints_of_the_detector_on_photographs(
    shared: Path,
) -> None:
    """The settings of the checkpoint itself: two scales."""
    from tiepoint.images.reading import read

    files = sorted((shared / "photos").glob("*/*.jpg"))
    photographs = [read(file).pixels[:201, :303] for file in files[:: len(files) // 20][:20]]
    for one in agreements(load_checkpoint("small"), "generic", photographs):
        assert one.keypoints > 1000 and one.same >= 0.999 * one.keypoints, one
        assert one.max_offset_px < 0.005


def test_images_of_a_batch_do_not_change_one_another_and_colour_may_be_grey() -> None:
    model = model_of(random_checkpoint(), "generic", max_keypoints=60)
    batch = np.concatenate([pixels_of(drawn(64, 88, seed)) for seed in range(3)])
    together = run_model(model, image=batch)
    assert together["keypoints"].shape == (3, 60, 2)
    assert together["descriptors"].shape == (3, 60, 16)
    for index in range(3):
        alone = run_model(model, image=batch[index : index + 1])
        for name, values in alone.items():
            np.testing.assert_allclose(values[0], together[name][index], atol=1e-5)
    grey = drawn(64, 88)[..., :1]
    one, three = (
        run_model(model, image=np.float32(one.transpose(2, 0, 1)[None]) / np.float32(255))
        for one in (grey, np.repeat(grey, 3, axis=2))
    )
    np.testing.assert_allclose(one["keypoints"], three["keypoints"], atol=1e-2)


@pytest.mark.parametrize("size_hw", [(1, 1), (5, 30), (40, 7)])
def test_an_image_without_keypoints_gives_empty_places(size_hw: tuple[int, int]) -> None:
    model = model_of(random_checkpoint(), "generic", max_keypoints=9, scales=(1, 0.6))
    outputs = run_model(model, image=np.full((2, 1, *size_hw), 0.5, np.float32))
    used = outputs["count"]
    for index, count in enumerate(used):
        for name in ("keypoints", "scores", "descriptors"):
            assert not outputs[name][index, count:].any()
            assert np.isfinite(outputs[name]).all()
    assert used.shape == (2,) and outputs["keypoints"].shape == (2, 9, 2)


def test_scores_descend_and_descriptors_have_unit_length() -> None:
    model = model_of(random_checkpoint(), "generic", max_keypoints=80, scales=(1, 0.6))
    outputs = run_model(model, image=pixels_of(drawn(97, 131)))
    count = int(outputs["count"][0])
    assert 0 < count <= 80
    assert (np.diff(outputs["scores"][0, :count]) <= 0).all()
    lengths = np.linalg.norm(outputs["descriptors"][0, :count], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


@PROFILES
def test_files_have_no_branches_and_name_their_origin(profile: Profile) -> None:
    checkpoint = random_checkpoint()
    model = onnx.load_from_string(model_of(checkpoint, profile))
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"If", "Loop", "Scan", "NonZero", "GatherND"}
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    notes = {one.key: one.value for one in model.metadata_props}
    assert notes["profile"] == profile and notes["weights_sha256"] == checkpoint.sha256
    assert json.loads(notes["settings"])["nms_radius"] == checkpoint.detection.nms_radius


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": (1.5, 1)}, "scales up to 1"),
        ({"spread": True, "max_keypoints": 5}, "spread"),
    ],
)
def test_settings_that_a_file_cannot_hold_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        model_of(random_checkpoint(), "generic", **settings)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 50, 4), np.uint8), np.zeros((40, 50, 3), np.float32),
        np.zeros((40, 50), np.uint16), np.zeros((0, 50), np.uint8), "photo.jpg", None,
    ],
)  # fmt: skip
def test_what_is_no_sample_image_is_refused(image: Any, tmp_path: Path) -> None:
    calls = {"onnx": export_onnx, "pt2": export_torch}
    for ending, call in calls.items():
        with pytest.raises(ConfigError, match="a sample image of type .* expected uint8"):
            call(tmp_path / f"a.{ending}", random_checkpoint(), images=[drawn(64, 64), image])
    assert not list(tmp_path.iterdir())


class TestColmap:
    """COLMAP 4 loads the file as its ALIKED extractor; these are its checks."""

    @pytest.fixture
    def session(self) -> Any:
        model = model_of(random_checkpoint(), "colmap", scales=(1, 0.6))
        return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    @staticmethod
    def run(session: Any, image: NDArray[np.uint8], most: int = 2048, least: float = 0.2) -> Any:
        inputs = {
            "image": pixels_of(image),
            "max_keypoints": np.array(most, np.int64),
            "min_score": np.array(least, np.float32),
        }
        return session.run(None, inputs)

    def test_names_order_types_and_ranks_are_those_that_colmap_requires(self, session: Any) -> None:
        inputs = [(one.name, one.type, len(one.shape)) for one in session.get_inputs()]
        assert inputs == [
            ("image", "tensor(float)", 4),
            ("max_keypoints", "tensor(int64)", 0),
            ("min_score", "tensor(float)", 0),
        ]
        assert session.get_inputs()[0].shape[1] == 3
        outputs = [(one.name, one.type, len(one.shape)) for one in session.get_outputs()]
        assert outputs == [
            ("keypoints", "tensor(float)", 3),
            ("descriptors", "tensor(float)", 3),
            ("scores", "tensor(float)", 2),
        ]
        assert session.get_outputs()[1].shape[2] == 16, "the descriptor length is static"

    def test_outputs_have_equal_counts_up_to_the_limit(self, session: Any) -> None:
        for most in (2048, 7, 1):
            keypoints, descriptors, scores = self.run(session, drawn(96, 128), most)
            count = keypoints.shape[1]
            assert keypoints.shape == (1, count, 2) and descriptors.shape == (1, count, 16)
            assert scores.shape == (1, count) and 0 < count <= most
            assert np.abs(keypoints).max() <= 1 and (scores >= 0.2).all()

    def test_no_keypoint_is_no_error(self, session: Any) -> None:
        keypoints, descriptors, scores = self.run(session, drawn(96, 128), least=1.0)
        assert keypoints.shape == (1, 0, 2)
        assert descriptors.shape == (1, 0, 16) and scores.shape == (1, 0)

    def test_the_default_minimum_is_the_threshold_of_the_checkpoint(self, session: Any) -> None:
        """And a higher one is a higher threshold, in the same order of keypoints."""
        checkpoint = random_checkpoint()
        exponent = colmap_exponent(checkpoint.detection)
        assert checkpoint.detection.threshold**exponent == pytest.approx(0.2)
        detector = Detector(checkpoint, precision="f32", scales=(1, 0.6))
        image = drawn(96, 128)
        for least in (0.2, 0.4):
            features = detector(image, threshold=least ** (1 / exponent), max_keypoints=2048)
            keypoints, _, scores = self.run(session, image, least=least)
            xy = (keypoints[0] + 1) / 2 * [127, 95]
            np.testing.assert_allclose(xy, features.xy, atol=1e-2)
            np.testing.assert_allclose(scores[0], features.scores**exponent, atol=1e-3)

    def test_the_noise_floor_holds_whatever_minimum_colmap_asks_for(self) -> None:
        detection = DetectionConfig(threshold=0.0, noise_floor=0.1)
        checkpoint = replace(random_checkpoint(), detection=detection)
        model = model_of(checkpoint, "colmap")
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        count = self.run(session, drawn(96, 128), 9999, 0.0)[0].shape[1]
        features = Detector(checkpoint, precision="f32")(drawn(96, 128))
        assert count == len(features) > 10

    def test_a_flat_margin_counts_as_padding_and_the_keypoints_stay(self) -> None:
        """The graph cannot distinguish them; there are no keypoints in a flat margin."""
        checkpoint = load_checkpoint("small")
        image = np.pad(drawn(96, 292), ((0, 0), (0, 28), (0, 0)), mode="edge")
        model = model_of(checkpoint, "colmap")
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        xy = (self.run(session, image)[0][0] + 1) / 2 * [319, 95]
        features = Detector(checkpoint, precision="f32")(image)
        nearest = np.linalg.norm(features.xy[:, None] - xy, axis=2).min(axis=1)
        assert len(xy) > 50 and (nearest < 0.5).mean() > 0.9


class TestOpencv:
    """`cv2.ALIKED` of OpenCV 5 loads the file."""

    @pytest.fixture(autouse=True)
    def _opencv(self) -> None:
        if not hasattr(cv2, "ALIKED"):
            pytest.skip(f"OpenCV {cv2.__version__} has no ALIKED")

    @staticmethod
    def detect(folder: Path, image: NDArray[np.uint8], size_wh: tuple[int, int]) -> Any:
        path = folder / "model.onnx"
        path.write_bytes(model_of(random_checkpoint(), "opencv", scales=(1, 0.6)))
        settings = cv2.ALIKED.Params()
        settings.inputSize = size_wh
        bgr = np.ascontiguousarray(image[..., ::-1])
        return cv2.ALIKED.create(str(path), settings).detectAndCompute(bgr, None)

    def test_keypoints_have_the_coordinates_of_the_detector_at_the_image_s_own_size(
        self, tmp_path: Path
    ) -> None:
        image = drawn(97, 131)
        keypoints, descriptors = self.detect(tmp_path, image, (131, 97))
        features = Detector(random_checkpoint(), precision="f32", scales=(1, 0.6))(image)
        xy = np.array([one.pt for one in keypoints])
        np.testing.assert_allclose(xy, features.xy, atol=1e-2)
        np.testing.assert_allclose([one.response for one in keypoints], features.scores, atol=1e-4)
        assert features.descriptors is not None
        np.testing.assert_allclose(descriptors, features.descriptors, atol=1e-3)

    def test_at_another_size_they_are_off_by_the_half_pixel_that_the_guide_states(
        self, tmp_path: Path
    ) -> None:
        """x' = x W / w for an image of W px in an input of w px, without the two half pixels."""
        image = drawn(96, 128)
        double = cv2.resize(image, (256, 192), interpolation=cv2.INTER_NEAREST)
        keypoints, _ = self.detect(tmp_path, double, (128, 96))
        # OpenCV's bilinear resizing of doubled pixels by 1/2 gives the pixels back.
        features = Detector(random_checkpoint(), precision="f32", scales=(1, 0.6))(image)
        xy = np.array([one.pt for one in keypoints])
        np.testing.assert_allclose(xy, features.xy * 2, atol=2e-2)

    def test_a_blank_image_has_no_keypoints(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(model_of(load_checkpoint("small"), "opencv"))
        keypoints, descriptors = cv2.ALIKED.create(str(path)).detectAndCompute(
            np.full((50, 60, 3), 99, np.uint8), None
        )
        assert len(keypoints) == 0 and descriptors is None


def test_differences_are_counted_as_such() -> None:
    random = np.random.default_rng(0)
    xy = random.uniform(0, 100, (300, 2)).astype(np.float32)
    scores = random.random(300, dtype=np.float32)
    descriptors = np.eye(4, dtype=np.float32)[random.integers(0, 4, 300)]
    expected = check.Points(xy, scores, descriptors)
    shuffled = random.permutation(300)
    assert check.common(expected, check.Points(*(one[shuffled] for one in expected))) == (300, 0)
    moved = check.Points(xy + np.float32([[0.02, 0]]), scores, descriptors)
    assert check.common(expected, moved)[0] == 0
    fewer = check.Points(xy[:200], scores[:200], descriptors[:200])
    assert check.common(expected, fewer)[0] == 200
    other = check.Points(xy, scores + np.float32(0.01), descriptors)
    assert check.common(expected, other)[0] == 0
    assert check.common(expected, check.Points(xy, scores, -descriptors))[0] == 0
    assert not check.Agreement("x", 300, 298, 0.0).is_good
    assert check.Agreement("x", 300, 299, 0.0).is_good

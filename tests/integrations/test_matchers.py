"""vismatch's matcher, kornia's LightGlue and valis's feature detector: their checks hold."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="vismatch and kornia use torch")

from support.features_files import make  # noqa: E402
from support.other_programs import hide, install  # noqa: E402
from tiepoint import ConfigError, Features  # noqa: E402
from tiepoint.errors import ImageError, MissingProgramError  # noqa: E402
from tiepoint.integrations import kornia, valis, vismatch  # noqa: E402
from tiepoint.integrations.programs import as_bytes  # noqa: E402

# ---- vismatch ---------------------------------------------------------------------------------


class BaseMatcher(torch.nn.Module):
    """The steps of vismatch's base class, with its checks of the results."""

    def __init__(self, device: str = "cpu", **settings: Any) -> None:
        super().__init__()
        self.device, self.threshold = device, settings.get("ransac_reproj_thresh", 3)

    def forward(self, img0: Any, img1: Any) -> Any:
        results = self._forward(img0, img1)
        assert len(results) == 7
        assert all(isinstance(result, np.ndarray) for result in results)
        matched0, matched1, all0, all1, desc0, desc1, confidences = results
        assert matched0.shape == matched1.shape == (len(confidences), 2)
        assert desc0.shape[0] == len(all0) and desc1.shape[0] == len(all1)
        assert confidences.ndim == 1
        return results


@pytest.fixture
def with_vismatch(monkeypatch: pytest.MonkeyPatch) -> Any:
    install(monkeypatch, "vismatch", BaseMatcher=BaseMatcher)
    vismatch.matcher_class.cache_clear()
    yield
    vismatch.matcher_class.cache_clear()


@pytest.mark.usefixtures("with_vismatch")
def test_vismatch_gets_the_matches_of_two_images(photograph: np.ndarray, found: Features) -> None:
    moved = np.roll(photograph, 16, axis=1)
    model = vismatch.matcher(
        max_num_keypoints=120, checkpoint="small", precision="f32", ransac_reproj_thresh=2,
        options={"max_side": None}, matching={"ratio": 0.95},
    )  # fmt: skip
    assert model.threshold == 2 and isinstance(model, BaseMatcher)
    images = [
        torch.from_numpy(np.moveaxis(p, 2, 0).astype(np.float32) / 255) for p in (photograph, moved)
    ]
    matched0, matched1, all0, _, desc0, _, confidences = model(*images)
    np.testing.assert_allclose(all0, found.xy, atol=1e-3)  # no half pixel
    shift = np.median(matched1 - matched0, axis=0)
    np.testing.assert_allclose(shift, [16, 0], atol=0.2)
    assert desc0.shape == (120, 64) and confidences.max() <= 1.001


def test_without_vismatch_the_error_has_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "vismatch")
    vismatch.matcher_class.cache_clear()
    with pytest.raises(MissingProgramError, match="pip install vismatch"):
        vismatch.matcher()


@pytest.mark.parametrize("shape", [(40, 48), (2, 40, 48), (1, 3, 40, 48)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="expected 1 H W or 3 H W"):
        as_bytes(torch.zeros(shape))


def test_values_become_the_bytes_they_came_from() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(as_bytes(torch.from_numpy(grey[None] / np.float32(255))), grey)
    assert as_bytes(torch.tensor([[[-0.2, 1.4]]])).tolist() == [[0, 255]]


# ---- kornia -----------------------------------------------------------------------------------


def test_lightglue_gets_what_it_checks(found: Features) -> None:
    data = kornia.lightglue_input(found, found.top(30))
    for name, count in (("image0", len(found)), ("image1", 30)):
        keypoints, descriptors, size = (
            data[name][key] for key in ("keypoints", "descriptors", "image_size")
        )
        assert keypoints.shape == (1, count, 2) and descriptors.shape == (1, count, 64)
        assert size.tolist() == [[128, 96]]  # width, height
        relative = (keypoints - size[:, None] / 2) / (size.max() / 2)
        assert bool((relative.abs() <= 1).all())
        assert {keypoints.dtype, descriptors.dtype, size.dtype} == {torch.float32}
    np.testing.assert_array_equal(data["image0"]["keypoints"][0], found.xy)  # no half pixel


def test_matches_of_lightglue_become_matches() -> None:
    output = {
        "matches": [torch.tensor([[0, 3], [2, 1], [5, 4]])],
        "scores": [torch.tensor([0.2, 0.9, 0.9])],
    }
    matches = kornia.lightglue_matches(output)
    assert matches.pairs.tolist() == [[2, 1], [5, 4], [0, 3]]
    empty = {"matches": [torch.empty(0, 2)], "scores": [torch.empty(0)]}
    assert len(kornia.lightglue_matches(empty)) == 0
    with pytest.raises(ConfigError, match="2 pairs"):
        kornia.lightglue_matches({"matches": [0, 0], "scores": [0, 0]})


def test_features_that_lightglue_cannot_match_are_refused() -> None:
    with pytest.raises(ConfigError, match="without descriptors"):
        kornia.lightglue_input(make(3), make(3, None))
    with pytest.raises(ConfigError, match="descriptors of 4 and 5"):
        kornia.lightglue_input(make(3), make(3, 5))


def test_kornias_lightglue_runs_on_them(found: Features) -> None:
    feature = pytest.importorskip("kornia.feature", reason="needs kornia")
    model = feature.LightGlue(
        features=None, input_dim=64, descriptor_dim=32, n_layers=1, num_heads=2,
        depth_confidence=-1, width_confidence=-1, filter_threshold=-1.0,
    ).eval()  # fmt: skip
    with torch.no_grad():
        matches = kornia.lightglue_matches(model(kornia.lightglue_input(found, found)))
    assert matches.pairs.shape[1] == 2 and matches.pairs.max(initial=0) < len(found)


# ---- valis ------------------------------------------------------------------------------------


class FeatureDD:
    """The steps of valis's class: one detection a level, positions scaled in place."""

    def __init__(
        self, kp_detector: Any = None, kp_descriptor: Any = None, n_levels: int = 1
    ) -> None:
        self.n_levels = n_levels

    def detect_and_compute(self, image: Any, mask: Any = None) -> Any:
        levels = []
        for level in range(self.n_levels):
            xy, descriptors = self._detect_and_compute(image, mask)  # type: ignore[attr-defined]
            xy *= 1 / 0.5**level
            levels.append((xy, descriptors))
            image = cv2.resize(image, None, fx=0.5, fy=0.5)
        return np.vstack([xy for xy, _ in levels]), np.vstack([d for _, d in levels])


@pytest.fixture
def with_valis(monkeypatch: pytest.MonkeyPatch) -> Any:
    install(monkeypatch, "valis.feature_detectors", FeatureDD=FeatureDD)
    valis.feature_detector_class.cache_clear()
    yield
    valis.feature_detector_class.cache_clear()


@pytest.mark.usefixtures("with_valis")
def test_valis_gets_positions_and_descriptors(photograph: np.ndarray, found: Features) -> None:
    detector = valis.feature_detector("small", max_keypoints=120)
    assert isinstance(detector, FeatureDD) and detector.kp_detector_name == "tiepoint"
    xy, descriptors = detector.detect_and_compute(photograph[..., 0])
    assert xy.shape == (120, 2) and descriptors.shape == (120, 64)
    nearest = np.linalg.norm(xy[:, None] - found.xy, axis=2).min(axis=1)
    assert np.median(nearest) < 0.1  # no half pixel
    detector.n_levels = 2
    assert len(detector.detect_and_compute(photograph[..., 0])[0]) > 120


@pytest.mark.usefixtures("with_valis")
def test_valis_masks_exclude_what_is_zero(photograph: np.ndarray) -> None:
    detector = valis.feature_detector_class()("small")
    mask = np.zeros(photograph.shape[:2], bool)
    mask[:, :64] = True
    xy, _ = detector.detect_and_compute(photograph[..., 0], mask)
    assert len(xy) > 10 and xy[:, 0].max() < 64
    detector.n_levels = 2  # the mask keeps its size
    xy, _ = detector.detect_and_compute(photograph[..., 0], mask)
    assert xy[:, 0].max() < 66
    detector.n_levels = 1
    xy, descriptors = detector.detect_and_compute(photograph[..., 0], np.zeros_like(mask))
    assert xy.shape == (0, 2) and descriptors.shape == (0, 64)


def test_without_valis_the_error_has_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "valis")
    valis.feature_detector_class.cache_clear()
    with pytest.raises(MissingProgramError, match="pip install valis-wsi"):
        valis.feature_detector()

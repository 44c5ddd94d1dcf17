"""The detector as users meet it: real photographs in, features out."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import tiepoint
from support.checkpoints import random_checkpoint
from support.engines import ChosenMaps, Watched, cpu_engine
from tiepoint import detector as detector_module
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, ImageError
from tiepoint.features import Features
from tiepoint.weights.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(max_side=320, device="cpu")


def same(a: Features, b: Features) -> bool:
    arrays = ((a.xy, b.xy), (a.scores, b.scores), (a.descriptors, b.descriptors))
    return a.size_hw == b.size_hw and all(np.array_equal(one, other) for one, other in arrays)


def pair_up(a: Features, b: Features, radius_px: float = 1e-2) -> np.ndarray:
    """Index pairs of keypoints at the same position."""
    distance = np.linalg.norm(a.xy[:, None] - b.xy[None], axis=2)
    nearest = distance.argmin(axis=1)
    close = distance[np.arange(len(a)), nearest] < radius_px
    return np.stack([np.nonzero(close)[0], nearest[close]], axis=1)


def test_a_photograph_gives_features_in_its_own_pixels(detector: Detector, photographs) -> None:
    image = photographs[1]
    features = detector(image)
    assert len(features) > 50
    assert features.size_hw == image.shape[:2]
    assert features.xy.dtype == features.scores.dtype == features.descriptors.dtype == np.float32
    assert features.descriptors.shape == (len(features), 128)
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    assert (np.diff(features.scores) <= 0).all()
    assert (features.xy >= 0).all() and (features.xy < np.array(image.shape[1::-1])).all()


def test_corners_of_a_drawn_square_are_found_without_a_shift_to_any_side(
    detector: Detector,
) -> None:
    image = np.full((240, 320), 40, np.uint8)
    image[60:180, 100:260] = 220
    features = detector(image, max_keypoints=4, scales=(1,))
    corners = np.array([[99.5, 59.5], [259.5, 59.5], [99.5, 179.5], [259.5, 179.5]])
    distance = np.linalg.norm(features.xy[None] - corners[:, None], axis=2)
    assert len(features) == 4 and distance.min(axis=1).max() < 1.5
    # The weights may place a corner inside the square; the square as a whole must not move.
    shift = features.xy[distance.argmin(axis=1)].mean(axis=0) - corners.mean(axis=0)
    assert np.abs(shift).max() < 0.25


def test_both_engines_find_the_same_keypoints(photographs) -> None:
    pytest.importorskip("torch")
    for image in photographs:
        one, other = (
            Detector(engine=e, device="cpu", precision="f32")(image) for e in ("openvino", "torch")
        )
        pairs = pair_up(one, other)
        # A point may sit on the threshold or beside an equal rival: fewer than one in a thousand.
        assert len(pairs) >= 0.999 * max(len(one), len(other))
        i, j = pairs.T
        np.testing.assert_allclose(one.scores[i], other.scores[j], atol=1e-5)
        np.testing.assert_allclose(one.descriptors[i], other.descriptors[j], atol=1e-4)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_list_of_different_sizes_gives_what_each_image_gives_alone(
    engine: str, photographs, monkeypatch
) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    # As on a GPU: four images make a full and a partial batch.
    batches = Watched(cpu_engine(engine), batch_size=3)
    detector = Detector(engine=batches, max_side=256)
    images = [*photographs, photographs[0][:40, :333]]
    for alone, together in zip(map(detector, images), detector(images), strict=True):
        assert len(alone) == len(together)
        np.testing.assert_allclose(alone.xy, together.xy, atol=1e-3)
        np.testing.assert_allclose(alone.descriptors, together.descriptors, atol=1e-4)


def test_path_bytes_pil_and_array_of_one_file_give_equal_features(
    detector: Detector, photographs, tmp_path: Path
) -> None:

    path = tmp_path / "사진 one.jpg"
    Image.fromarray(photographs[1]).save(path, quality=90)
    with Image.open(path) as pil:
        found = detector([path, str(path), path.read_bytes(), pil, np.asarray(pil)])
    assert all(same(found[0], other) for other in found[1:])
    assert found[0].meta["source"] == str(path)


def test_coordinates_follow_the_image_when_it_is_brought_down(photographs) -> None:
    """The same picture at twice the size gives the same points at twice the place."""
    small = photographs[0][::1, ::1]
    large = np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)
    detector = Detector(max_side=small.shape[0], device="cpu")
    one, other = detector(small), detector(large)
    assert len(one) == len(other)
    there = (one.xy + 0.5) * 2 - 0.5
    apart = np.linalg.norm(there[:, None] - other.xy[None], axis=2)  # equal scores swap places
    assert apart.min(axis=0).max() < 1e-3
    assert apart.min(axis=1).max() < 1e-3


def test_native_size_and_never_enlarged(photographs) -> None:
    image = photographs[1][:100, :150]
    detector = Detector(device="cpu")
    assert same(detector(image, max_side=None), detector(image, max_side=4000))


def test_keypoints_reach_the_right_and_bottom_edge_of_an_odd_size() -> None:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (31, 41), np.uint8), (413, 311), interpolation=0)
    features = Detector(device="cpu", max_side=None, threshold=1e-4)(image)
    last_x, last_y = 413 - 1 - 4, 311 - 1 - 4  # pixels inside the border; refined by up to 3 px
    assert last_x - 10 < features.xy[:, 0].max() < last_x + 3
    assert last_y - 10 < features.xy[:, 1].max() < last_y + 3


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 500), (7, 7), (3, 2000), (8, 8), (17, 9)])
def test_tiny_and_extreme_images_give_features_or_none(detector: Detector, size_hw) -> None:
    image = np.random.default_rng(0).integers(0, 256, size_hw, dtype=np.uint8)
    features = detector(image)
    assert features.size_hw == size_hw and features.xy.shape == (len(features), 2)


def test_nothing_to_find_gives_empty_arrays_of_the_right_shape(detector: Detector) -> None:
    features = detector(np.full((50, 60), 128, np.uint8))
    assert features.xy.shape == (0, 2) and features.scores.shape == (0,)
    assert features.descriptors.shape == (0, 128)
    assert detector([]) == []


def test_options_of_a_call_hold_for_that_call_only(detector: Detector, photographs) -> None:
    before = detector(photographs[0])
    assert len(detector(photographs[0], max_keypoints=7)) == 7
    assert detector(photographs[0], descriptors=False).descriptors is None
    assert len(detector(photographs[0], threshold=0.5)) < len(before)
    assert len(detector(photographs[0], nms_radius=12)) < len(before)
    assert same(detector(photographs[0]), before)


def test_features_state_the_weights_and_settings_that_made_them(
    detector: Detector, photographs
) -> None:
    features = detector(photographs[0], max_keypoints=9)
    made = features.provenance
    assert made == detector.provenance(max_keypoints=9)
    assert made.checkpoint == detector.checkpoint.name
    assert made.weights_sha256 == detector.checkpoint.sha256
    assert made.rules == "exact" and made.precision == detector.precision
    assert made.engine == "openvino" and made.tiepoint_version == tiepoint.__version__
    assert made.settings["max_keypoints"] == 9 and made.settings["max_side"] == 320
    assert features.meta == {"source": "array", "exif_orientation": 1}


def test_features_state_the_scale_of_the_input(photographs) -> None:
    image = photographs[0]  # 512 x 512
    for options, expected in [
        ({"max_side": 256, "scales": (1,)}, 2.0),
        ({"max_side": 256, "scales": (2, 0.5)}, 1.0),
        ({"max_side": None, "scales": (0.5,)}, 2.0),
        ({"max_side": 2000, "scales": (1,)}, 1.0),  # images are not enlarged to it
        ({"max_side": 256, "scales": (0.5, 1, 0.25)}, 2.0),
        ({"max_side": None, "scales": (2,)}, 0.5),
    ]:
        assert Detector(device="cpu")(image, **options).px_per_input_px == expected


def test_none_asks_for_all_keypoints_of_a_checkpoint_with_a_limit(photographs) -> None:
    plain = load_checkpoint()
    limited = replace(plain, detection=replace(plain.detection, max_keypoints=5))
    detector = Detector(limited, device="cpu", max_side=320)
    assert len(detector(photographs[0])) == 5
    every = detector(photographs[0], max_keypoints=None)
    assert len(every) == len(Detector(plain, device="cpu", max_side=320)(photographs[0])) > 5


def test_an_engine_from_outside_decides_what_is_found() -> None:
    heatmap = np.zeros((64, 80), np.float32)
    heatmap[20, 30], heatmap[40, 50] = 0.5, 0.9
    detector = Detector(engine=ChosenMaps(heatmap), scales=(1,))
    features = detector(np.zeros((64, 80), np.uint8))
    assert features.xy.tolist() == [[50, 40], [30, 20]]
    assert features.scores.tolist() == pytest.approx([0.9, 0.5])
    assert features.provenance.engine == "ChosenMaps"


def test_a_bad_item_in_a_list_is_named_by_its_index(detector: Detector, tmp_path: Path) -> None:
    good, bad = np.zeros((20, 20), np.uint8), tmp_path / "missing.jpg"
    with pytest.raises(ImageError, match=r"item 1 of 3.*missing\.jpg"):
        detector([good, bad, good])


def test_a_single_bad_image_raises(detector: Detector) -> None:
    with pytest.raises(ImageError):
        detector(b"no image")


@pytest.mark.parametrize(
    ("options", "named"),
    [({"threshold": 2}, "threshold"), ({"max_side": 0}, "max_side"), ({"nms_radius": -1}, "nms"),
     ({"max_keypoints": 0}, "max_keypoints")],
)  # fmt: skip
def test_nonsense_is_refused_at_birth_and_per_call(detector: Detector, options, named) -> None:
    with pytest.raises(ConfigError, match=named):
        Detector(**options)
    with pytest.raises(ConfigError, match=named):
        detector(np.zeros((9, 9), np.uint8), **options)


def test_an_unknown_option_names_the_known_ones(detector: Detector) -> None:
    with pytest.raises(ConfigError, match=r"max_kps.*max_keypoints"):
        detector(np.zeros((9, 9), np.uint8), max_kps=3)
    with pytest.raises(ConfigError, match="got one str"):
        detector.stream("photograph.jpg")


def test_nonsense_in_a_stream_is_refused_before_any_image(detector: Detector) -> None:
    with pytest.raises(ConfigError, match="channel_order is 'gbr', expected one of rgb, bgr"):
        detector.stream([], channel_order="gbr")
    with pytest.raises(ConfigError, match="an object with run, batch_size and in_flight"):
        Detector(engine=5)


def test_several_threads_share_one_detector(detector: Detector, photographs) -> None:
    expected = [detector(image) for image in photographs]
    before = threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert all(map(same, pool.map(detector, photographs), expected))
    assert threading.active_count() < before + 10


def test_a_detector_travels_through_pickle(detector: Detector, photographs) -> None:
    again = pickle.loads(pickle.dumps(detector))
    assert same(again(photographs[0]), detector(photographs[0]))


def test_numpy_numbers_serve_as_options(detector: Detector, photographs) -> None:
    plain = detector(photographs[0], max_keypoints=5, threshold=0.25, max_side=200)
    options = {
        "max_keypoints": np.int64(5),
        "threshold": np.float32(0.25),
        "max_side": np.int16(200),
    }
    features = detector(photographs[0], **options)
    assert same(features, plain) and features.meta == plain.meta


def test_any_checkpoint_width_works(monkeypatch, photographs) -> None:
    monkeypatch.setattr(detector_module, "load_checkpoint", lambda _: random_checkpoint(5))
    features = Detector("whatever", device="cpu")(photographs[0])
    assert len(features) > 0 and features.descriptors.shape[1] == 16

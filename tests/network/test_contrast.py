"""Contrast: an image of any range of values gives the keypoints of the same picture in 8 bits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import tiepoint
from tiepoint.config import ProcessorConfig
from tiepoint.errors import ConfigError, ImageError
from tiepoint.network.inputs import as_grey, prepare, pyramid

Array = NDArray[Any]


@pytest.fixture(scope="module")
def detector() -> tiepoint.Detector:
    return tiepoint.Detector("small", threshold=0.0, max_keypoints=500, precision="f32")


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    from skimage import color, data

    return np.rint(color.rgb2gray(data.coffee()[:320, :480]) * 255).astype(np.uint8)


def share_found_again(found: tiepoint.Features, expected: tiepoint.Features) -> float:
    """Share of expected keypoints with a found one within 1 px."""
    offsets = expected.xy[:, None] - found.xy[None]  # N M 2
    return float((np.hypot(offsets[..., 0], offsets[..., 1]).min(axis=1) < 1).mean())


def whole(low: float, span: float) -> Callable[[Array], Array]:
    return lambda unit: np.rint(low + span * unit).astype(np.uint16)


def fractions(low: float, span: float) -> Callable[[Array], Array]:
    return lambda unit: (low + span * unit).astype(np.float32)


KINDS: dict[str, Callable[[Array], Array]] = {
    "10 bits": whole(0, 1023),
    "12 bits": whole(0, 4095),
    "counts of a satellite": whole(200, 3000),
    "thermal, span 100": whole(29_500, 100),
    "thermal, span 1500": whole(7_000, 1_500),
    "reflectance": fractions(0.02, 0.38),
    "degrees": fractions(-12, 50),
    "heights": fractions(300, 2100),
    "-1 to 1": fractions(-1, 2),
    "int16": lambda unit: np.rint(-300 + 900 * unit).astype(np.int16),
    "int64": lambda unit: np.rint(10**9 + 5000 * unit).astype(np.int64),
    "0 to 255": lambda unit: (255 * unit).astype(np.float64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_range_of_values_gives_the_keypoints_of_eight_bits(
    kind: str, detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    found = detector(KINDS[kind](photograph / 255))
    assert share_found_again(found, detector(photograph)) > 0.95
    black, white = found.meta["value_range"]
    assert black < white


@pytest.mark.parametrize(
    ("kind", "value"), [("12 bits", 65535), ("thermal, span 1500", 0), ("reflectance", 1e6)]
)
@pytest.mark.parametrize("count", [1, 75])
def test_hot_and_dead_pixels_do_not_change_the_range(
    kind: str,
    value: float,
    count: int,
    detector: tiepoint.Detector,
    photograph: NDArray[np.uint8],
) -> None:
    image = KINDS[kind](photograph / 255)
    image.flat[np.random.default_rng(1).choice(image.size, count, replace=False)] = value
    assert share_found_again(detector(image), detector(photograph)) > 0.9


def test_copies_of_eight_bits_that_use_their_range_keep_their_keypoints(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    expected = detector(photograph)
    for copy in (photograph.astype(np.uint16) * 257, (photograph / 255).astype(np.float32)):
        found = detector(copy)
        assert "value_range" not in found.meta
        np.testing.assert_allclose(found.xy, expected.xy, atol=1e-3)


def test_eight_bits_are_stretched_only_on_request(photograph: NDArray[np.uint8]) -> None:
    faint = (100 + photograph // 5).astype(np.uint8)
    as_stored, none, stretched = (
        as_grey(faint, ProcessorConfig(contrast=contrast))  # type: ignore[arg-type]
        for contrast in ("auto", "none", "stretch")
    )
    np.testing.assert_allclose(as_stored.grey, faint / 255, atol=1e-7)
    np.testing.assert_array_equal(as_stored.grey, none.grey)
    assert as_stored.value_range is None
    assert stretched.value_range == pytest.approx((100, 151), abs=3)
    assert np.ptp(stretched.grey) > 0.95


def test_without_stretching_values_have_the_range_of_their_type(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    twelve_bits = KINDS["12 bits"](photograph / 255)
    pixels, _ = prepare([twelve_bits], ProcessorConfig(contrast="none"))
    np.testing.assert_allclose(pixels[0, 0], twelve_bits / 65535, atol=1e-6)
    assert "value_range" not in detector(twelve_bits, contrast="none").meta


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.0, 255.0], ["0 to 255", "0..1", "divide by 255", 'contrast="auto"']),
        ([0.0, 4000.0], ["4000", "divide by 65535"]),
        ([-1.0, 1.0], ["-1", "(x + 1) / 2", "stretch"]),
    ],
)
def test_without_stretching_floats_outside_the_unit_range_are_refused(
    values: list[float], words: list[str], detector: tiepoint.Detector
) -> None:
    image = np.tile(np.array(values, np.float32), (16, 8))
    with pytest.raises(ImageError) as caught:
        detector(image, contrast="none")
    for word in words:
        assert word in str(caught.value)
    (detection,) = detector.stream([image], contrast="none")
    assert isinstance(detection.error, ImageError)


@pytest.mark.parametrize("value", [0, 7, 30_000])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.int64])
def test_a_constant_image_has_no_keypoints(
    value: int, kind: type, detector: tiepoint.Detector
) -> None:
    image = np.full((64, 80), value % 256 if kind is np.uint8 else value, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = detector(image, threshold=0.005, contrast="stretch")
    assert len(found) == 0


@pytest.mark.parametrize("value", [2**53, 2**63, -(2**63)])
def test_a_constant_of_huge_numbers_has_no_keypoints(
    value: int, detector: tiepoint.Detector
) -> None:
    image = np.full((64, 80), value, np.int64 if value < 0 else np.uint64)
    assert len(detector(image, threshold=0.005)) == 0
    tiled = tiepoint.detect_tiled(image, detector=detector, threshold=0.005, scales=(1.0,))
    assert len(tiled) == 0


def test_noise_of_one_count_stays_noise(detector: tiepoint.Detector) -> None:
    noise = np.random.default_rng(0).normal(7000, 0.7, (240, 320))
    assert len(detector(np.rint(noise).astype(np.uint16), threshold=0.005)) == 0
    assert len(detector(np.rint(noise).astype(np.int32), threshold=0.005)) == 0


@pytest.mark.parametrize("noise", [4, 60, 900])
def test_noise_of_many_counts_stays_noise_too(noise: float) -> None:
    """A covered lens in 16 bits: stretched to the whole range, its noise would be corners."""
    rng = np.random.default_rng(noise)
    falling = 20_000 * np.linspace(1, 0.7, 200)[:, None] * np.ones((200, 300))
    detector = tiepoint.Detector(precision="f32", threshold=0.0)
    for frame in (falling, np.full((200, 300), 9000.0)):
        counts = np.rint(frame + rng.normal(0, noise, frame.shape)).astype(np.uint16)
        assert len(detector(counts)) < 15
        grey = as_grey(counts, ProcessorConfig()).grey
        assert (grey[:, 1:] - grey[:, :-1]).std() < 0.015


def test_a_noisy_photograph_is_stretched_all_the_same(photograph: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(0)
    counts = 7000 + 3.0 * photograph + rng.normal(0, 30, photograph.shape)
    low, high = as_grey(np.rint(counts).astype(np.uint16), ProcessorConfig()).value_range
    assert high - low < 1000


def test_the_range_is_that_of_the_reduced_image_at_every_scale() -> None:
    image = np.random.default_rng(0).integers(1000, 3000, (400, 600), dtype=np.uint16)
    image[100, 100] = 65535
    grey = as_grey(image, ProcessorConfig(max_side=150))
    assert grey.value_range is not None
    black, white = grey.value_range
    for inputs, (placement,) in pyramid([grey], (1, 0.5, 2)):
        height, width = placement.resized_hw
        middle = (2000 - black) / (white - black)
        assert inputs[0, 0, :height, :width].mean() == pytest.approx(middle, abs=0.02)


def test_colours_are_stretched_together(photograph: NDArray[np.uint8]) -> None:
    colour = np.stack([photograph, photograph // 2, photograph // 4], axis=2)
    deep = colour.astype(np.uint16) * 12
    expected = as_grey(colour, ProcessorConfig(contrast="stretch"))
    found = as_grey(deep, ProcessorConfig())
    np.testing.assert_allclose(found.grey, expected.grey, atol=1e-4)


def test_the_range_is_stored_with_the_features(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    features = detector(KINDS["degrees"](photograph / 255))
    assert features.meta["value_range"] == pytest.approx([-12, 38], abs=2)
    assert features.provenance.settings["contrast"] == "auto"
    for ending in (".npz", ".json"):
        tiepoint.save(features, tmp_path / f"a{ending}")
        stored = tiepoint.load(tmp_path / f"a{ending}")
        assert stored.meta["value_range"] == features.meta["value_range"]


def test_thermal_photographs_register(photograph: NDArray[np.uint8]) -> None:
    left, right = photograph[:, :440], photograph[:, 40:]
    a, b = KINDS["thermal, span 100"](left / 255), KINDS["thermal, span 1500"](right / 255)
    registration = tiepoint.register(a, b, model="translation", checkpoint="small")
    assert registration.success
    np.testing.assert_allclose(registration.transform([[200.0, 100.0]]), [[160, 100]], atol=0.2)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_files_keep_their_values_and_are_seen_as_arrays_are(
    ending: str, detector: tiepoint.Detector, photograph: NDArray[np.uint8], tmp_path: Path
) -> None:
    array = KINDS["12 bits" if ending == ".png" else "degrees"](photograph / 255)
    path = tmp_path / f"a{ending}"
    Image.fromarray(array).save(path)
    np.testing.assert_array_equal(detector(path).xy, detector(array).xy)


def test_an_unknown_contrast_is_refused() -> None:
    with pytest.raises(ConfigError, match="contrast"):
        tiepoint.Detector(contrast="high")  # type: ignore[arg-type]

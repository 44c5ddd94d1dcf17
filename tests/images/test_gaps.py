"""Pixels without data: no keypoints in them nor beside them, whatever marks them."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import tiepoint
from support.image_files import png16, png_chunk, tiff
from tiepoint.config import ProcessorConfig
from tiepoint.images.gaps import GAP_REACH_PX, away_from_gaps, filled
from tiepoint.images.reading import read
from tiepoint.network.inputs import as_grey

Array = NDArray[Any]
GAP = np.s_[60:140, 100:220]


@pytest.fixture(scope="module")
def detector() -> tiepoint.Detector:
    return tiepoint.Detector("small", threshold=0.0, max_keypoints=500, precision="f32")


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    from skimage import data

    return np.ascontiguousarray(data.coffee()[:240, :320])


def gap(shape: tuple[int, ...] = (240, 320)) -> NDArray[np.bool_]:
    inside = np.zeros(shape, bool)
    inside[GAP] = True
    return inside


def with_value(image: Array, value: float) -> Array:
    marked = image.copy()
    marked[GAP] = value
    return marked


def with_alpha(image: Array, full: int) -> Array:
    alpha = np.where(gap(), 0, full).astype(image.dtype)
    return np.dstack([image, alpha])


def palette_with_transparency(image: Array) -> Image.Image:
    indices = np.asarray(Image.fromarray(image).quantize(255)).copy()
    indices[GAP] = 255
    picture = Image.fromarray(image).quantize(255)
    picture.putdata(indices.ravel())
    picture.info["transparency"] = 255
    return picture


def transparent_colour(image: Array) -> bytes:
    deep = with_value(image.astype(np.uint16) * 257, 77)
    return png16(deep, png_chunk(b"tRNS", struct.pack(">HHH", 77, 77, 77)))


def geotiff(image: Array, text: str, **options: Any) -> bytes:
    """A TIFF with GDAL's tag for pixels without data."""
    return tiff(image if image.ndim == 3 else image[..., None], no_data=text, **options)


def grey(image: Array) -> Array:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


KINDS: dict[str, Callable[[Array], Any]] = {
    "masked array": lambda image: np.ma.masked_array(grey(image), np.ma.make_mask(gap())),
    "masked colours": lambda image: np.ma.masked_array(image, np.dstack([gap()] * 3)),
    "nan": lambda image: with_value(grey(image) / 255, np.nan),
    "infinity": lambda image: with_value(grey(image) * np.float32(9.5), -np.inf),
    "lowest float": lambda image: with_value(
        grey(image).astype(np.float32), np.finfo(np.float32).min
    ),
    "alpha": lambda image: with_alpha(image, 255),
    "16-bit alpha": lambda image: with_alpha(image.astype(np.uint16) * 257, 65535),
    "PIL image": lambda image: Image.fromarray(with_alpha(image, 255)),
    "palette": palette_with_transparency,
    "16-bit tRNS": transparent_colour,
    "GeoTIFF, float": lambda image: geotiff(
        with_value(grey(image).astype(np.float32) * 9, -9999), "-9999"
    ),
    "GeoTIFF, nan": lambda image: geotiff(
        with_value(grey(image).astype(np.float32) * 9, np.nan), "nan"
    ),
    "GeoTIFF, lowest": lambda image: geotiff(
        with_value(grey(image).astype(np.float32) * 9, np.finfo(np.float32).min),
        "-3.4028234663852886e+38",
    ),
    "GeoTIFF, float64": lambda image: geotiff(
        with_value(grey(image) * 0.5, -1.7976931348623157e308), "-1.7976931348623157e+308"
    ),
    "GeoTIFF, 8 bits": lambda image: geotiff(with_value(np.maximum(image, 1), 0), "0"),
    "GeoTIFF, 16 bits": lambda image: geotiff(
        with_value(grey(image).astype(np.uint16) * 12 + 5, 65535), "65535"
    ),
    "GeoTIFF, 16-bit colours": lambda image: geotiff(
        with_value(image.astype(np.uint16) * 12 + 5, 0), "0.0"
    ),
    "GeoTIFF, int16": lambda image: geotiff(
        with_value(grey(image).astype(np.int16) * 9, -32768), "-32768"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_without_data_have_no_keypoints_in_reach(
    kind: str, detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    source = KINDS[kind](photograph)
    np.testing.assert_array_equal(read(source).valid, ~gap())
    features = detector(source, scales=(1,))
    assert len(features) > 200
    columns, rows = np.rint(features.xy).astype(int).T
    distance = cv2.distanceTransform((~gap()).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert distance[rows, columns].min() > GAP_REACH_PX - 3  # px of a refinement


def test_the_range_of_values_is_that_of_the_pixels_with_data(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    heights = 300 + grey(photograph).astype(np.float32) * 8
    whole = detector(heights)
    marked = detector(geotiff(with_value(heights, -9999), "-9999"))
    assert marked.meta["value_range"] == pytest.approx(whole.meta["value_range"], rel=0.05)


def test_a_value_in_some_bands_only_is_data(photograph: NDArray[np.uint8]) -> None:
    image = np.maximum(photograph, 1)
    image[GAP][..., 0] = 0
    assert read(geotiff(image, "0")).valid is None


@pytest.mark.parametrize("text", ["", "none", "-9999", "1e400"])
def test_a_tag_that_no_pixel_matches_marks_nothing(
    text: str, photograph: NDArray[np.uint8]
) -> None:
    assert read(geotiff(photograph, text)).valid is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_gaps_turn_with_the_image(orientation: int, photograph: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(with_alpha(photograph, 255))
    picture.getexif()[274] = orientation
    image = read(picture)
    assert image.exif_orientation == orientation
    assert image.valid is not None
    assert (image.pixels[~image.valid] == 255).all()
    assert image.valid.shape == image.size_hw


def test_partly_transparent_pixels_are_blended_and_have_data(
    photograph: NDArray[np.uint8],
) -> None:
    image = with_alpha(photograph, 255)
    image[..., 3] = np.maximum(image[..., 3], 1)
    assert read(image).valid is None


@pytest.mark.parametrize(
    "image",
    [
        np.full((48, 64), np.nan),
        np.zeros((48, 64, 4), np.uint8),
        np.ma.masked_all((48, 64), np.uint16),
        np.full((1, 1), np.inf, np.float32),
    ],
)
def test_an_image_without_any_data_has_no_keypoints(
    image: Array, detector: tiepoint.Detector, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = detector(image, scales=(1, 0.5, 2))
        picture = tiepoint.plot(features, image)
    assert len(features) == 0
    assert features.size_hw == image.shape[:2]
    assert picture.dtype == np.uint8


def test_a_mask_is_combined_with_gaps_and_not_widened(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    allowed = np.zeros((240, 320), bool)
    allowed[:, :160] = True
    marked = np.ma.masked_array(photograph, np.dstack([gap()] * 3))
    features = detector(marked, mask=allowed, max_keypoints=2000, scales=(1,))
    assert features.xy[:, 0].max() > 156  # up to the edge of the mask
    assert features.xy[:, 0].max() < 162
    inside = gap()[tuple(np.rint(features.xy).astype(int).T[::-1])]
    assert not inside.any()
    assert features.meta["mask"] == "array"


def test_gaps_hold_at_every_size_of_the_input(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    marked = KINDS["nan"](photograph)
    for options in ({"scales": (0.5,)}, {"scales": (2,)}, {"max_side": 160, "scales": (1,)}):
        features = detector(marked, **options)
        assert len(features) > 50
        assert not gap()[tuple(np.rint(features.xy).astype(int).T[::-1])].any()
        assert np.isfinite(features.xy).all() and np.isfinite(features.descriptors).all()


def test_dead_pixels_do_not_empty_an_image(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    values = grey(photograph) / np.float32(255)
    dead = np.random.default_rng(0).random(values.shape) < 0.003
    expected, found = detector(values), detector(np.where(dead, np.nan, values))
    offsets = expected.xy[:, None] - found.xy[None]
    assert (np.hypot(offsets[..., 0], offsets[..., 1]).min(axis=1) < 1).mean() > 0.9


def test_wide_gaps_reach_further_than_narrow_ones() -> None:
    valid = np.ones((60, 80), bool)
    valid[20, 10] = valid[40:44, 50:54] = False
    allowed = away_from_gaps(valid, (60, 80))
    assert not allowed[20, 10] and allowed[20, 11]
    assert not allowed[41, 54 + GAP_REACH_PX - 1] and allowed[41, 54 + GAP_REACH_PX]


def test_gaps_are_filled_with_their_nearest_values() -> None:
    image = np.tile(np.arange(20, dtype=np.float32), (9, 1))
    valid = np.ones(image.shape, bool)
    valid[:, 5:11] = False
    result = filled(image, valid)
    assert result[4, 5:11].tolist() == [4, 4, 4, 11, 11, 11]
    np.testing.assert_array_equal(result[valid], image[valid])


def test_stored_values_stay_and_the_callers_array_too(photograph: NDArray[np.uint8]) -> None:
    marked = with_value(grey(photograph).astype(np.float32) * 9, np.nan)
    before = marked.copy()
    image = read(marked)
    as_grey(image.pixels, ProcessorConfig(), image.valid)
    np.testing.assert_array_equal(marked, before)
    np.testing.assert_array_equal(image.pixels, before)
    heights = read(geotiff(np.nan_to_num(marked, nan=-9999), "-9999")).pixels
    assert (heights[GAP] == -9999).all()


def test_a_stream_sees_the_same_gaps(
    detector: tiepoint.Detector, photograph: NDArray[np.uint8]
) -> None:
    sources = [KINDS["nan"](photograph), photograph, KINDS["alpha"](photograph)]
    for source, detection in zip(sources, detector.stream(sources), strict=True):
        expected = detector(source)
        np.testing.assert_allclose(detection.require().xy, expected.xy, atol=1e-3)


def test_gaps_of_a_geotiff_turn_with_it(photograph: NDArray[np.uint8]) -> None:
    data = geotiff(with_value(np.maximum(photograph, 1), 0), "0", orientation=6)
    image = read(data)
    np.testing.assert_array_equal(image.valid, np.rot90(~gap(), -1))

"""TIFF files: which picture is read, every layout of samples, true reasons for refusals."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from support.image_files import as_seen, tiff
from tiepoint.errors import ImageError
from tiepoint.images import tiff_codecs, tiff_samples
from tiepoint.images.reading import read

Array = NDArray[Any]
RANDOM = np.random.default_rng(3)
PICTURE = RANDOM.integers(0, 256, (40, 60, 3), dtype=np.uint8)
THUMBNAIL = PICTURE[::5, ::5].copy()
DEEP = PICTURE.astype(np.uint16) * 251 + 7
FLOATS = (PICTURE / 255).astype(np.float32)


def written(*pages: tuple[Array, dict[str, Any]], **options: Any) -> bytes:
    """A TIFF file of several directories, each an array and tifffile's options for it."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as writer:
        for pixels, page_options in pages:
            writer.write(pixels, metadata=None, **page_options)
    return buffer.getvalue()


def one(pixels: Array, **options: Any) -> bytes:
    return written((pixels, options))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("picture", [PICTURE, DEEP], ids=["8 bits", "16 bits"])
def test_a_thumbnail_before_the_picture_is_passed_over(
    picture: Array, order: str, big: bool, compression: str | None, tmp_path: Path
) -> None:
    small = (THUMBNAIL, {"subfiletype": 1})
    mask = (PICTURE[..., 0] > 99, {"subfiletype": 4, "photometric": "mask"})
    data = written(
        small, mask, (picture, {"compression": compression}), byteorder=order, bigtiff=big
    )
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    for source in (data, path, Image.open(io.BytesIO(written(small, (picture, {}))))):
        np.testing.assert_array_equal(read(source).pixels, picture)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("picture", [PICTURE, DEEP], ids=["8 bits", "16 bits"])
def test_the_picture_below_a_thumbnail_is_read(
    picture: Array, compression: str | None, tmp_path: Path
) -> None:
    thumbnail = (THUMBNAIL, {"subfiletype": 1, "subifds": 1})
    data = written(thumbnail, (picture, {"compression": compression}))
    np.testing.assert_array_equal(read(data).pixels, picture)
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels, picture)


def test_reduced_copies_below_or_after_the_picture_change_nothing() -> None:
    below = written((PICTURE, {"subifds": 1}), (THUMBNAIL, {"subfiletype": 1}))
    after = written((PICTURE, {}), (THUMBNAIL, {"subfiletype": 1}))
    for data in (below, after):
        np.testing.assert_array_equal(read(data).pixels, PICTURE)


def test_of_thumbnails_alone_the_largest_is_read() -> None:
    data = written((THUMBNAIL, {"subfiletype": 1}), (PICTURE, {"subfiletype": 1}))
    np.testing.assert_array_equal(read(data).pixels, PICTURE)


def test_of_several_pictures_the_first_is_read() -> None:
    np.testing.assert_array_equal(read(written((DEEP, {}), (DEEP[::-1], {}))).pixels, DEEP)


def test_the_limit_counts_the_picture_that_is_read() -> None:
    data = written((THUMBNAIL, {"subfiletype": 1}), (PICTURE, {}))
    with pytest.raises(ImageError, match="60x40 px are more than the limit of 2399"):
        read(data, max_pixels=2399)


KINDS: dict[str, tuple[Array, dict[str, Any]]] = {
    "three bands": (DEEP, {"photometric": "minisblack", "planarconfig": "contig"}),
    "three bands of 8 bits": (PICTURE, {"photometric": "minisblack", "planarconfig": "contig"}),
    "planes": (np.moveaxis(DEEP, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    "band planes": (
        np.moveaxis(DEEP, -1, 0),
        {"photometric": "minisblack", "planarconfig": "separate"},
    ),
    "float planes": (np.moveaxis(FLOATS, -1, 0), {"photometric": "rgb", "planarconfig": 2}),
    "half floats": (FLOATS.astype(np.float16), {"photometric": "rgb"}),
    "doubles": (FLOATS.astype(np.float64), {"photometric": "rgb"}),
    "tiles": (DEEP, {"photometric": "rgb", "tile": (16, 32)}),
    "tiled planes": (
        np.moveaxis(DEEP, -1, 0),
        {"photometric": "rgb", "planarconfig": 2, "tile": (16, 32)},
    ),
    "strips": (DEEP, {"photometric": "rgb", "rowsperstrip": 7}),
    "signed bytes": ((PICTURE[..., 0] ^ 128).view(np.int8), {}),
    "signed": (DEEP[..., 0].view(np.int16), {}),
    "32 bits": (DEEP[..., 0].astype(np.uint32) * 3001, {}),
    "64 bits": (DEEP[..., 0].astype(np.uint64) << 20, {}),
}


def expected_of(kind: str) -> Array:
    pixels = KINDS[kind][0]
    return np.moveaxis(pixels, 0, -1) if "planes" in kind else pixels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_layout_have_the_values_of_the_file(
    kind: str, compression: str | None, order: str
) -> None:
    pixels, options = KINDS[kind]
    data = written((pixels, {**options, "compression": compression}), byteorder=order)
    result = read(data).pixels
    np.testing.assert_array_equal(result, expected_of(kind))
    assert result.flags.c_contiguous
    assert result.dtype in (np.uint8, np.uint16, np.float32, np.float64)
    np.testing.assert_array_equal(read(written((pixels, options), bigtiff=True)).pixels, result)


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("predictor", [1, 2])
def test_opencv_files_of_every_compression_are_read(
    dtype: type, compression: str, predictor: int
) -> None:
    scheme = {"none": 1, "lzw": 5, "deflate": 32946, "packbits": 32773}[compression]
    pixels = (DEEP if dtype == np.uint16 else FLOATS).astype(dtype)
    options = [cv2.IMWRITE_TIFF_COMPRESSION, scheme, cv2.IMWRITE_TIFF_PREDICTOR, predictor]
    _, data = cv2.imencode(".tif", pixels[..., ::-1], options)
    np.testing.assert_array_equal(read(data.tobytes()).pixels, pixels)


def test_the_floating_point_predictor_is_undone() -> None:
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 5, cv2.IMWRITE_TIFF_PREDICTOR, 3]
    for pixels in (FLOATS, FLOATS.astype(np.float64), FLOATS[..., 0].copy()):
        _, data = cv2.imencode(".tif", pixels[..., ::-1] if pixels.ndim == 3 else pixels, options)
        np.testing.assert_array_equal(read(data.tobytes()).pixels, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_planes_and_bands_are_turned_upright(orientation: int) -> None:
    data = tiff(DEEP, planar=2, orientation=orientation)
    np.testing.assert_array_equal(read(data).pixels, as_seen(DEEP, orientation))


def test_of_more_bands_the_first_three_are_read_and_of_two_the_first() -> None:
    five = np.dstack([DEEP, DEEP[..., :2] // 2])
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    np.testing.assert_array_equal(read(one(five, **options)).pixels, DEEP)
    np.testing.assert_array_equal(read(one(DEEP[..., :2], **options)).pixels, DEEP[..., 0])


def test_grey_with_alpha_is_laid_on_white() -> None:
    grey, alpha = DEEP[..., 0].astype(np.int64), np.where(DEEP[..., 1] > 30000, 65535, 0)
    data = tiff(np.dstack([grey, alpha]).astype(np.uint16), extra=2)
    image = read(data)
    np.testing.assert_array_equal(image.pixels, np.where(alpha == 0, 65535, grey))
    np.testing.assert_array_equal(image.valid, alpha != 0)


def test_no_data_in_compressed_floats_is_masked() -> None:
    heights = FLOATS[..., 0] * 2000
    heights[5:9, 20:30] = -9999
    extra = [(42113, "s", 0, "-9999", True)]
    image = read(one(heights, compression="zlib", extratags=extra))
    np.testing.assert_array_equal(image.pixels, heights)
    np.testing.assert_array_equal(image.valid, heights != -9999)


def test_missing_tiles_have_no_data() -> None:
    data = bytearray(tiff(DEEP, more_tags={273: [8, 0], 279: [20 * 60 * 6, 0], 278: [20]}))
    image = read(bytes(data))
    np.testing.assert_array_equal(image.pixels[:20], DEEP[:20])
    assert image.valid is not None
    assert image.valid[:20].all()
    assert not image.valid[20:].any()


@pytest.mark.parametrize("largest", [255, 65535])
@pytest.mark.parametrize("compression", [None, "packbits"])
def test_colour_tables_of_either_range_give_the_same_colours(
    largest: int, compression: str | None
) -> None:
    palette = Image.fromarray(PICTURE).quantize(64)
    table = np.array(palette.getpalette("RGB") + [0] * 3 * 256).reshape(-1, 3)[:256].T  # 3 256
    colours = (table * (largest // 255)).astype(np.uint16)
    data = tiff(
        np.asarray(palette)[..., None], photometric=3, more_tags={320: colours.ravel().tolist()}
    )
    if compression:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).save(buffer, "TIFF", compression="packbits")
        if largest == 255:
            return  # Pillow writes tables of 65535
        data = buffer.getvalue()
    np.testing.assert_array_equal(read(data).pixels, np.asarray(palette.convert("RGB")))


REFUSED: dict[str, tuple[bytes, str]] = {
    "raw": (tiff(DEEP[..., :1], photometric=32803), "raw photograph .colour filter array"),
    "linear raw": (tiff(DEEP, photometric=34892), "raw photograph .linear"),
    "24 bits": (
        tiff(PICTURE, more_tags={277: [1], 258: [24], 339: [3], 262: [1]}),
        "24-bit samples of format IEEEFP",
    ),
    "complex": (tiff(FLOATS[..., :2], more_tags={277: [1], 258: [64], 339: [6]}), "COMPLEXIEEEFP"),
    "16-bit JPEG": (tiff(DEEP, more_tags={259: [7]}), "uint16 samples with compression JPEG"),
    "unknown": (tiff(DEEP, more_tags={259: [34712]}), "compression .*34712"),
    "logarithms": (tiff(DEEP, photometric=32845), "photometric interpretation LOGLUV"),
    "predictor": (tiff(DEEP, more_tags={259: [8], 317: [3]}), "predictor .*3.* for uint16"),
    "volume": (tiff(DEEP, more_tags={32997: [5]}), "volumes of 5 slices"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_true_reason_and_in_silence(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data, reason = REFUSED[kind]
    with pytest.raises(ImageError, match=reason) as caught:
        read(data)
    assert "damaged" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_raw_photograph_is_refused_although_its_thumbnail_could_be_read() -> None:
    data = written(
        (THUMBNAIL, {"subfiletype": 1, "subifds": 1}), (DEEP[..., 0], {"photometric": 32803})
    )
    with pytest.raises(ImageError, match="raw photograph"):
        read(data)


def test_a_huge_compressed_strip_is_refused_by_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data = cv2.imencode(".tif", DEEP, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    monkeypatch.setattr(tiff_codecs, "BLOCK_BYTES", 1)
    monkeypatch.setattr(tiff_codecs, "SPARE_BYTES", 0)
    monkeypatch.setattr(tiff_codecs, "MAX_PIXEL_BYTES", 1)
    monkeypatch.setattr(tiff_samples, "BLOCK_BYTES", 1)
    with pytest.raises(ImageError, match="more than the limit of 2400 bytes"):
        read(data.tobytes())


def test_directories_in_a_circle_end() -> None:
    data = bytearray(one(THUMBNAIL, subfiletype=1))
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    data[start + 2 + 12 * count : start + 6 + 12 * count] = data[4:8]  # the next is the first
    np.testing.assert_array_equal(read(bytes(data)).pixels, THUMBNAIL)

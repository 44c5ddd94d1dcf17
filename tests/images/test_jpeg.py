"""JPEGs: the pixels that Pillow gives, and its verdict on damaged ones."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.image_files import damaged, encode, exif_block
from tiepoint.errors import ImageError
from tiepoint.images import decoding, openers
from tiepoint.images.reading import read

RANDOM = np.random.default_rng(5)
SMOOTH = np.kron(RANDOM.integers(0, 256, (9, 12, 3), dtype=np.uint8), np.ones((9, 9, 1), np.uint8))
PICTURE = Image.fromarray(SMOOTH)
KINDS = {
    "plain": encode(PICTURE, "JPEG"),
    "coarse": encode(PICTURE, "JPEG", quality=20, optimize=True),
    "full colour": encode(PICTURE, "JPEG", subsampling=0),
    "half colour": encode(PICTURE, "JPEG", subsampling=1),
    "progressive": encode(PICTURE, "JPEG", progressive=True),
    "restarts": encode(PICTURE, "JPEG", restart_marker_rows=1),
    "grey": encode(PICTURE.convert("L"), "JPEG"),
    "cmyk": encode(PICTURE.convert("CMYK"), "JPEG"),
    "several": encode(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(90)]),
}


def by_pillow(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.load()
    return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))


@pytest.fixture
def without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow reads headers and decodes nothing."""

    def refuse(image: Image.Image, name: str, *, own: bool) -> None:
        raise AssertionError(f"{name} went to Pillow")

    monkeypatch.setattr(decoding, "_load", refuse)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_jpeg_has_the_pixels_that_pillow_gives(kind: str) -> None:
    np.testing.assert_array_equal(read(KINDS[kind]).pixels, by_pillow(KINDS[kind]))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"cmyk"}))
@pytest.mark.usefixtures("without_pillow")
def test_a_sound_jpeg_does_not_wait_for_pillow(kind: str) -> None:
    read(KINDS[kind])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_upright_in_every_form(orientation: int, tmp_path: Path) -> None:
    data = encode(PICTURE, "JPEG", exif=exif_block(orientation))
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    expected = read(Image.open(path))  # which Pillow decodes
    for source in (path, data, io.BytesIO(data)):
        found = read(source)
        assert found.exif_orientation == expected.exif_orientation == orientation
        assert found.pixels.flags.c_contiguous
        np.testing.assert_array_equal(found.pixels, expected.pixels)


class Failing(io.BytesIO):
    """A file whose header can be read, and no more than some bytes at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > 2**19:
            raise OSError(5, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("no decoder")])
def test_what_simplejpeg_cannot_do_pillow_does(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", fails)
    np.testing.assert_array_equal(read(KINDS["plain"]).pixels, by_pillow(KINDS["plain"]))


def test_a_file_that_cannot_be_read_whole_is_left_to_pillow() -> None:
    pixels = decoding.decode(Failing(KINDS["plain"]), "a.jpg", 200_000).pixels
    np.testing.assert_array_equal(pixels, by_pillow(KINDS["plain"]))


def test_a_film_behind_the_image_changes_nothing() -> None:
    data = KINDS["plain"] + bytes(2**21)
    np.testing.assert_array_equal(read(data).pixels, by_pillow(KINDS["plain"]))


def test_the_limit_of_pillow_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(encode(PICTURE, "PNG")).pixels.shape == SMOOTH.shape


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"cmyk"}))  # which is Pillow's anyway
def test_a_damaged_jpeg_gives_what_pillow_makes_of_it_and_prints_nothing(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(len(kind))
    agreed = {"image": 0, "refused": 0}
    for _ in range(200):
        data = damaged(KINDS[kind], random)
        try:
            found = read(data, max_pixels=200_000)
        except ImageError:
            found = None
        try:
            image = openers.open_image(io.BytesIO(data), data[:16], "bytes")
            decoding._check_size(image.size, "bytes", 200_000)
            expected = decoding.from_pil(image, "bytes", 200_000).pixels
        except ImageError:
            expected = None
        assert (found is None) == (expected is None)
        if found is not None:
            np.testing.assert_array_equal(found.pixels, expected)
        agreed["refused" if found is None else "image"] += 1
    assert min(agreed.values()) >= 20, agreed
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
@pytest.mark.parametrize("height", [1, decoding._ROWS - 1, decoding._ROWS, 2 * decoding._ROWS + 1])
def test_a_png_is_whole_whatever_its_height(mode: str, height: int) -> None:
    picture = PICTURE.crop((0, 0, 40, height)).convert(mode)
    target = "L" if mode in ("L", "LA") else "RGB"
    found = read(encode(picture, "PNG")).pixels
    np.testing.assert_array_equal(found, np.asarray(picture.convert(target)))

"""Sources of images: one file gives the same pixels in every form; wrong ones are refused."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.image_files import encode, exif_block, on_white_slowly, png16, png_chunk, tiff
from tiepoint.errors import ConfigError, ImageError
from tiepoint.images import openers
from tiepoint.images.reading import read

RANDOM = np.random.default_rng(11)
COLOUR = RANDOM.integers(0, 256, (9, 13, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (9, 13, 4), dtype=np.uint8)
PICTURE = Image.fromarray(COLOUR)


def palette_png() -> bytes:
    return encode(PICTURE.quantize(16), "PNG")


def transparent_palette_png() -> bytes:
    return encode(PICTURE.quantize(16), "PNG", transparency=bytes([0, 90, 255]))


FILES: dict[str, Callable[[], bytes]] = {
    "colour.jpg": lambda: encode(PICTURE, "JPEG"),
    "grey.jpg": lambda: encode(PICTURE.convert("L"), "JPEG"),
    "cmyk.jpg": lambda: encode(PICTURE.convert("CMYK"), "JPEG"),
    "progressive.jpg": lambda: encode(PICTURE, "JPEG", progressive=True),
    "colour.png": lambda: encode(PICTURE, "PNG"),
    "grey.png": lambda: encode(PICTURE.convert("L"), "PNG"),
    "bits.png": lambda: encode(PICTURE.convert("1"), "PNG"),
    "alpha.png": lambda: encode(Image.fromarray(ALPHA), "PNG"),
    "grey_alpha.png": lambda: encode(Image.fromarray(ALPHA).convert("LA"), "PNG"),
    "palette.png": palette_png,
    "transparent_palette.png": transparent_palette_png,
    "colour.webp": lambda: encode(PICTURE, "WEBP", lossless=True),
    "alpha.webp": lambda: encode(Image.fromarray(ALPHA), "WEBP", lossless=True),
    "colour.tif": lambda: encode(PICTURE, "TIFF"),
    "lzw.tif": lambda: encode(PICTURE, "TIFF", compression="tiff_lzw"),
    "turned.tif": lambda: encode(PICTURE, "TIFF", compression="tiff_lzw", exif=exif_block(6)),
    "cmyk.tif": lambda: encode(PICTURE.convert("CMYK"), "TIFF"),
    "colour.bmp": lambda: encode(PICTURE, "BMP"),
    "colour.gif": lambda: encode(PICTURE.quantize(32), "GIF"),
    "transparent.gif": lambda: encode(PICTURE.quantize(32), "GIF", transparency=3),
    "colour.ppm": lambda: encode(PICTURE, "PPM"),
    "grey16.png": lambda: png16(ALPHA[..., :1].astype(np.uint16) * 257),
    "colour16.png": lambda: png16(COLOUR.astype(np.uint16) * 199),
    "grey16.tif": lambda: tiff(ALPHA[..., :1].astype(np.uint16) * 199, order=">"),
    "colour16.tif": lambda: tiff(COLOUR.astype(np.uint16) * 199, orientation=6),
    "float.tif": lambda: tiff((ALPHA[..., :1] / 255).astype(np.float32)),
}


@pytest.mark.parametrize("name", FILES)
def test_one_file_gives_the_same_pixels_in_every_form(name: str, tmp_path: Path) -> None:
    data = FILES[name]()
    path = tmp_path / name
    path.write_bytes(data)
    expected = read(path).pixels
    file = io.BytesIO(data)
    sources = [str(path), data, bytearray(data), memoryview(data), file, expected]
    for source in sources:
        np.testing.assert_array_equal(read(source).pixels, expected)
    with Image.open(path) as lazy:
        np.testing.assert_array_equal(read(lazy).pixels, expected)
    if "colour16" not in name:  # once Pillow has loaded it, it has 8 bits
        with Image.open(path) as loaded:
            loaded.load()
            np.testing.assert_array_equal(read(loaded).pixels, expected)
            np.testing.assert_array_equal(read(loaded.copy()).pixels, expected)


@pytest.mark.parametrize(
    "name", ["colour.png", "colour.webp", "colour.tif", "lzw.tif", "colour.bmp", "colour.ppm"]
)
def test_lossless_files_give_their_pixels_back(name: str) -> None:
    np.testing.assert_array_equal(read(FILES[name]()).pixels, COLOUR)


@pytest.mark.parametrize("name", ["colour.jpg", "cmyk.jpg", "palette.png", "colour.gif"])
def test_lossy_files_are_read_as_pillow_shows_them(name: str) -> None:
    data = FILES[name]()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(read(data).pixels, expected)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("alpha.png", "RGBA"),
        ("transparent_palette.png", "RGBA"),
        ("alpha.webp", "RGBA"),
        ("transparent.gif", "RGBA"),
        ("grey_alpha.png", "LA"),
    ],
)
def test_alpha_is_laid_on_white(name: str, mode: str) -> None:
    data = FILES[name]()
    stored = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    assert (stored[..., -1] < 255).any()
    expected = on_white_slowly(stored, 255)
    np.testing.assert_array_equal(read(data).pixels, expected[..., 0] if mode == "LA" else expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_a_transparent_colour_becomes_white(mode: str) -> None:
    image = Image.new(mode, (3, 1))
    data = encode(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    pixels = read(data).pixels
    assert pixels.shape == ((1, 3, 3) if mode == "RGB" else (1, 3))
    assert (pixels == 255).all()


@pytest.mark.parametrize("format_name", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_several_frames_the_first_is_read(format_name: str) -> None:
    first, second = Image.new("RGB", (4, 3), (255, 0, 0)), Image.new("RGB", (4, 3), (0, 0, 255))
    data = encode(first, format_name, save_all=True, append_images=[second], duration=100)
    assert (read(data).pixels[..., 0] > 200).all()


@pytest.mark.parametrize("name", ["a b.png", "사진 한 장.png", "ä%20#?.png", "no_ending"])
def test_any_file_name_is_taken(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(encode(PICTURE, "PNG"))
    for source in (path, str(path)):
        result = read(source)
        assert result.name == str(path)
        np.testing.assert_array_equal(result.pixels, COLOUR)
    with Image.open(path) as image:
        assert read(image).name == str(path)


def test_a_file_object_is_read_from_its_start_and_left_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    PICTURE.save(path, compression="tiff_lzw")
    with path.open("rb") as file:
        file.seek(5)
        for _ in range(2):
            result = read(file)
            assert (file.tell(), result.name) == (5, str(path))
            np.testing.assert_array_equal(result.pixels, COLOUR)


def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source:
        with os.fdopen(writing, "wb") as sink:
            sink.write(encode(PICTURE, "PNG"))
        result = read(source)
    assert result.name == "file object"
    np.testing.assert_array_equal(result.pixels, COLOUR)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png: a named pipe \(FIFO\), expected an image"):
        read(tmp_path / "pipe.png")


@pytest.mark.parametrize(("size"), [(1, 1), (1, 3000), (3000, 1), (2, 3), (60000, 1)])
@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "TIFF"])
def test_tiny_and_extreme_sizes_are_read(size: tuple[int, int], format_name: str) -> None:
    pixels = read(encode(Image.new("RGB", size, (9, 8, 7)), format_name)).pixels
    assert pixels.shape == (size[1], size[0], 3)


def refused(source: object, *words: str, **options: object) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read(source, **options)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)
    return caught.value


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "없음.jpg", "없음.jpg", "no such file")
    assert isinstance(error.__cause__, FileNotFoundError)
    refused("not_here.jpg", "not_here.jpg", "looked for in", str(Path.cwd()))


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the working folder")
def test_a_missing_file_is_named_in_a_folder_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused("not_here.jpg", "not_here.jpg: no such file; check the path")


def test_what_is_no_image_file_is_refused(tmp_path: Path) -> None:
    text, empty = tmp_path / "a.jpg", tmp_path / "b.jpg"
    text.write_text("hello " * 100)
    empty.touch()
    refused(tmp_path, "a folder")
    refused(text, "a.jpg", "not an image", "JPEG, PNG")
    refused(empty, "b.jpg", "empty")
    refused("a\0b.jpg", "cannot be opened")
    assert len(str(refused("x" * 5000, "xxx...", "cannot be opened"))) < 500
    refused("/dev/zero", "a device")
    refused(b"", "bytes", "empty")
    refused(b"P", "not an image")
    refused(io.BytesIO(), "file object", "empty")
    refused(io.StringIO("text"), "rb")


def test_a_closed_file_object_is_refused() -> None:
    file = io.BytesIO(b"x")
    file.close()
    refused(file, "cannot be read", "closed")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    data = FILES[name]()
    path = tmp_path / name
    for share in (0.1, 0.5, 0.8):
        path.write_bytes(data[: int(len(data) * share)])
        try:
            pixels = read(path).pixels
        except ImageError as error:
            assert str(error).startswith(f"{path}: ")
            assert any(word in str(error) for word in ("damaged", "not an image"))
        else:  # the cut went through the end mark: every pixel is there
            assert share == 0.8
            np.testing.assert_array_equal(pixels, read(data).pixels)


def test_an_image_beyond_the_limit_is_refused_before_decoding() -> None:
    data = encode(PICTURE, "PNG")
    assert read(data, max_pixels=117).pixels.shape == COLOUR.shape
    refused(data, "13x9", "limit of 116", "max_pixels", max_pixels=116)
    refused(Image.open(io.BytesIO(data)), "13x9", max_pixels=116)
    assert read(COLOUR, max_pixels=1).pixels.shape == COLOUR.shape  # in memory already
    size = struct.pack(">II", 40000, 40000)
    header = png_chunk(b"IHDR", size + data[24:29])
    refused(data[:8] + header + data[33:], "40000x40000", "limit of 250000000")


def test_the_environment_sets_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(PICTURE, "PNG")
    monkeypatch.setenv("TIEPOINT_MAX_PIXELS", "100")
    refused(data, "limit of 100")
    assert read(data, max_pixels=200).pixels.shape == COLOUR.shape
    monkeypatch.setenv("TIEPOINT_MAX_PIXELS", "many")
    with pytest.raises(ConfigError, match="TIEPOINT_MAX_PIXELS is 'many'"):
        read(data)
    with pytest.raises(ConfigError, match="max_pixels is 0"):
        read(data, max_pixels=0)


@pytest.mark.parametrize("name", [n for n in FILES if not n.endswith((".gif", ".webp"))])
def test_pillows_own_limit_neither_refuses_nor_warns(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FILES[name]()
    expected = read(data).pixels
    for limit in (20, 100):  # one refuses, the other warns, of 117 px
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            np.testing.assert_array_equal(read(data).pixels, expected)
        assert not caught
        assert limit == Image.MAX_IMAGE_PIXELS


def test_many_threads_read_the_same_pixels(tmp_path: Path) -> None:
    paths = []
    for name, make in FILES.items():
        (tmp_path / name).write_bytes(make())
        paths.append(tmp_path / name)
    expected = [read(path).pixels for path in paths]
    filters, failures = list(warnings.filters), []

    def work() -> None:
        try:
            for path, pixels in zip(paths * 3, expected * 3, strict=True):
                np.testing.assert_array_equal(read(path).pixels, pixels)
        except BaseException as error:  # noqa: BLE001 - re-raised in the main thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(warnings.filters) == filters


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_during_a_read_leaves_the_child_able_to_read() -> None:
    data = encode(PICTURE, "PNG")
    with openers.pillow_warnings_silenced():  # as another thread would hold it
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if read(data).pixels.shape == COLOUR.shape else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_real_photographs_are_read_as_pillow_reads_them(shared: Path) -> None:
    paths = (
        sorted((shared / "eval").rglob("*.jpg"))[:4]
        + sorted((shared / "eval").rglob("*.p[np][gm]"))[:4]
    )
    assert paths
    for path in paths:
        with Image.open(path) as image:
            if image.mode in ("L", "RGB"):
                np.testing.assert_array_equal(read(path).pixels, np.asarray(image))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "an empty path"),
        ("file:///photos/a.jpg", "not file://"),
        ("s3://bucket/a.jpg", "only http:// and https://"),
        ("data:image/png;base64,AAAA", "not data:"),
    ],
)
def test_what_is_neither_path_nor_web_address_is_refused_by_its_kind(
    source: str, message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        read(source)

"""Files made to exhaust memory or time, and messages of C libraries."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from support.image_files import damaged, encode, exif_block, png_chunk, tiff
from tiepoint.errors import ImageError
from tiepoint.images import bounded, lean_formats, slow_formats
from tiepoint.images.quiet import libtiff_quiet
from tiepoint.images.reading import read

MIB = 2**20
PIXEL_BYTES, SPARE_BYTES, MOST_SECONDS = 12, 200 * 10**6, 5.0

CHILD = """
import json, resource, sys, time
from tiepoint.errors import ImageError
from tiepoint.images.reading import read
start = time.process_time()
try:
    result = list(read(sys.argv[1]).pixels.shape)
except ImageError as error:
    result = str(error)
seconds = time.process_time() - start
try:  # ru_maxrss would count the parent, before the program was replaced
    status = open("/proc/self/status").read()
    peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
except OSError:
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
print(json.dumps([result, peak, seconds]))
"""


def measured(path: Path) -> tuple[Any, int, float]:
    """Shape or error of one read, its process's peak of memory in bytes, its CPU seconds."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    result, peak, seconds = json.loads(done.stdout)
    return result, peak, seconds


def black_png(width: int, height: int, colour_type: int, channels: int, *chunks: bytes) -> bytes:
    """A PNG of 16 bits whose samples are all zero."""
    packer, row = zlib.compressobj(1), bytes(1 + 2 * channels * width)
    rows = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", rows), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def run_length_bmp(width: int, height: int) -> bytes:
    body = (b"\1\7" * width + b"\0\0") * height + b"\0\1"
    palette = b"".join(bytes((i, 255 - i, i, 0)) for i in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + header + palette + body


def qoi_of_differences(width: int, height: int) -> bytes:
    return b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + b"\x6b" * (
        width * height
    ) + b"\0\0\0\0\0\0\0\1"  # fmt: skip


ORIENTED = png_chunk(b"eXIf", exif_block(6).tobytes()[6:])
LARGE: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "RGBA of 16 bits, turned": (lambda: black_png(5000, 4000, 6, 4, ORIENTED), (5000, 4000, 3)),
    "run-length BMP": (lambda: run_length_bmp(4000, 3000), (3000, 4000, 3)),
    "PGM of 12 bits": (lambda: b"P5 4000 3000 4095\n" + bytes(24_000_000), (3000, 4000)),
    "PPM in ASCII": (lambda: b"P3 2000 2000 255\n" + b"120 7 255 " * 4_000_000, (2000, 2000, 3)),
    "PBM in ASCII": (lambda: b"P1 4000 3000\n" + b"10" * 6_000_000, (3000, 4000)),
    "QOI": (lambda: qoi_of_differences(4000, 3000), (3000, 4000, 3)),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_file_takes_bounded_memory_and_time(kind: str, tmp_path: Path) -> None:
    if kind == "QOI":
        pytest.importorskip("qoi")
    make, shape = LARGE[kind]
    path = tmp_path / "file"
    path.write_bytes(make())
    result, peak, seconds = measured(path)
    assert result == list(shape)
    assert peak < PIXEL_BYTES * shape[0] * shape[1] + SPARE_BYTES
    assert seconds < MOST_SECONDS


def directory(*entries: tuple[int, int, int, int]) -> bytes:
    """A little-endian TIFF of one directory: tag, type, count, value."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


SMALL = ((256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (262, 3, 1, 1), (278, 4, 1, 10))
ONE_STRIP = ((273, 4, 1, 1000), (279, 4, 1, 2_000_000_000))
SPARSE = {
    "TIFF of garbage": b"II*\0\x08\0\0\0" + b"\xff" * 64,
    "TIFF without pixels": b"II*\0\x08\0\0\0",
    "TIFF strip of gigabytes": directory(*SMALL, (259, 3, 1, 5), *ONE_STRIP),
    "TIFF of many strips": directory(
        *SMALL, (259, 3, 1, 1), (273, 4, 400_000_000, 1000), (279, 4, 400_000_000, 1000)
    ),
    "TIFF tag of gigabytes": directory(
        *SMALL, (259, 3, 1, 1), *ONE_STRIP, (339, 3, 900_000_000, 1000)
    ),
    "WebP": b"RIFF\0\0\0\x70WEBPVP8X",
    "AVIF": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf",
    "PPM with an endless comment": b"P6 #",
    "PGM with an endless comment": b"P2 100 100 255\n# ",
    "GIF of zeros": b"GIF89a\1\0\1\0\0\0\0",
}


@pytest.mark.parametrize("kind", SPARSE)
def test_a_sparse_file_of_two_gigabytes_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(SPARSE[kind])
        file.truncate(2_000_000_000)
    result, peak, seconds = measured(path)
    assert isinstance(result, str)
    assert result.startswith(f"{path}: ")
    assert peak < SPARE_BYTES
    assert seconds < MOST_SECONDS


def test_a_bomb_of_deflated_rows_is_read_only_as_far_as_its_pixels(tmp_path: Path) -> None:
    packer = zlib.compressobj(1)
    data = b"".join([packer.compress(bytes(MIB)) for _ in range(300)]) + packer.flush()
    entries = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 16), (259, 3, 1, 8), (262, 3, 1, 1),
               (278, 4, 1, 10), (273, 4, 1, 300), (279, 4, 1, len(data))]  # fmt: skip
    path = tmp_path / "a.tif"
    path.write_bytes(directory(*entries).ljust(300, b"\0") + data)
    result, peak, _ = measured(path)
    assert "strip or tile" in result
    assert peak < SPARE_BYTES


def test_a_png_of_endless_chunks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MOST_READS", 1000)
    whole = encode(Image.new("RGB", (4, 4)), "PNG")
    many = whole[:33] + png_chunk(b"teSt", b"") * 1000 + whole[33:]
    assert read(whole).pixels.shape == (4, 4, 3)
    with pytest.raises(ImageError, match="more than 1000 parts"):
        read(many)


def test_an_icon_that_hides_a_huge_picture_is_refused() -> None:
    data = encode(Image.new("RGB", (32, 32)), "ICO")
    assert read(data).pixels.shape == (32, 32, 3)
    start = struct.unpack("<I", data[18:22])[0]
    huge = data[: start + 16] + struct.pack(">II", 12000, 12000) + data[start + 24 :]
    with pytest.raises(ImageError, match="an icon of 12000x12000 px"):
        read(huge)


def test_a_large_qoi_file_without_its_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "qoi", None)
    with pytest.raises(ImageError, match=r"pip install .tiepoint\[qoi\]"):
        read(qoi_of_differences(2000, 1000))
    small = encode(Image.new("RGBA", (9, 7), (1, 2, 3, 255)), "QOI")
    assert read(small).pixels[0, 0].tolist() == [1, 2, 3]


def test_qoi_files_have_the_same_pixels_with_and_without_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("qoi")
    monkeypatch.setattr(slow_formats, "MAX_QOI_PIXELS", 0)
    picture = np.kron(
        np.random.default_rng(2).integers(0, 256, (11, 10, 4), dtype=np.uint8),
        np.ones((10, 10, 1), np.uint8),
    )
    picture[..., 3] |= 15
    data = encode(Image.fromarray(picture), "QOI")
    image = Image.open(io.BytesIO(data))
    image.load()
    np.testing.assert_array_equal(read(data).pixels, read(image).pixels)
    with pytest.raises(ImageError, match="truncated QOI"):
        read(data[:-100])


@pytest.mark.parametrize("bits", [4, 8])
def test_run_length_bmp_files_have_the_pixels_that_pillow_gives(bits: int) -> None:
    random, size = np.random.default_rng(4), (37, 23)
    palette = random.integers(0, 256, (2**bits, 4), dtype=np.uint8)
    runs = random.integers(1, 9, 400)
    rows, at = b"", 0
    for _ in range(size[1]):
        left = size[0]
        while left:
            run = min(left, int(runs[at % 400]))
            rows += bytes((run, int(random.integers(256))))
            left, at = left - run, at + 1
        rows += b"\0\0"
    body, offset = rows + b"\0\1", 54 + 4 * 2**bits
    code = {4: 2, 8: 1}[bits]
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, code, len(body), 0, 0, 2**bits, 0)
    head = b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header
    data = head + palette.tobytes() + body
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(read(data).pixels, expected)
    with pytest.raises(ImageError, match="run-length BMP"):
        read(data[:-80])


@pytest.mark.parametrize("maximum", [1, 7, 100, 255, 256, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_netpbm_files_of_every_maximum_are_scaled_to_full_range(kind: str, maximum: int) -> None:
    channels, full = 3 if kind in ("P3", "P6") else 1, 255 if maximum < 256 else 65535
    values = np.random.default_rng(maximum).integers(0, maximum + 1, (5, 7 * channels))
    head = f"{kind}\n# a comment\n7 5 # another\n{maximum}\n".encode()
    if kind in ("P2", "P3"):
        body = b"# one more\n" + b"\n".join(b" ".join(b"%d" % v for v in row) for row in values)
    else:
        body = values.astype(">u2" if maximum > 255 else "u1").tobytes()
    result = read(head + body)
    assert result.pixels.dtype == (np.uint8 if full == 255 else np.uint16)
    expected = values * (full / maximum)
    assert np.abs(result.pixels.reshape(5, -1) - expected).max() <= 0.5
    with pytest.raises(ImageError, match="damaged or truncated P"):
        read(head + body[: len(body) // 2])


def test_wrong_numbers_in_netpbm_files_are_refused() -> None:
    for body in (b"1 2 x 4", b"1 2 300 4", b"1 2 -3 4", b"1 2 99999999999999999999 4"):
        with pytest.raises(ImageError, match="damaged or truncated PPM"):
            read(b"P2 2 2 255\n" + body)
    assert read(b"P1 2 2\n1 0\n01").pixels.tolist() == [[0, 255], [255, 0]]
    with pytest.raises(ImageError, match="not zeros and ones"):
        read(b"P1 2 2\n1 2 0 1")


def test_jpeg_2000_of_16_bits_keeps_its_values() -> None:
    deep = np.random.default_rng(6).integers(0, 1021, (40, 50, 4), dtype=np.uint16)
    for pixels in (deep[..., :3], np.dstack([deep[..., :3], deep[..., 3] * 0 + 65535])):
        _, data = cv2.imencode(".jp2", pixels, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
        for source in (data.tobytes(), Image.open(io.BytesIO(data.tobytes()))):
            result = read(source).pixels
            assert result.dtype == np.uint16
            np.testing.assert_allclose(result, deep[..., 2::-1], atol=3)


NOISY = {
    name: encode(Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    ).convert(mode), "TIFF", compression=name)
    for name, mode in (("tiff_lzw", "RGB"), ("tiff_adobe_deflate", "RGB"), ("jpeg", "RGB"),
                       ("group4", "1"), ("packbits", "L"), ("zstd", "RGB"))
}  # fmt: skip
NOISY["deep LZW"] = cv2.imencode(
    ".tif", np.random.default_rng(1).integers(0, 65536, (60, 50, 3), dtype=np.uint16)
)[1].tobytes()
NOISY["deep JPEG 2000"] = cv2.imencode(".jp2", np.full((60, 50, 3), 9, np.uint16))[1].tobytes()


@pytest.mark.parametrize("kind", NOISY)
def test_damaged_files_print_nothing(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    random, refused = np.random.default_rng(8), 0
    for _ in range(60):
        try:
            read(damaged(NOISY[kind], random), max_pixels=200_000)
        except ImageError:
            refused += 1
    assert refused > 5
    assert capfd.readouterr() == ("", "")


def test_what_others_print_meanwhile_reaches_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with libtiff_quiet():
        os.write(2, b"LZWDecode: Not enough data at scanline 0 (short 5 bytes).\n")
        os.write(2, b"WARNING: of another thread.\n")
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'a child\\n')"], check=True)
        os.write(2, b"progress 50 %")
    assert capfd.readouterr().err == "WARNING: of another thread.\na child\nprogress 50 %"
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_threads_that_decode_side_by_side_print_nothing_and_leave_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = NOISY["tiff_lzw"][: len(NOISY["tiff_lzw"]) // 2] + NOISY["tiff_lzw"][-200:]
    before = os.fstat(2)

    def work() -> None:
        random = np.random.default_rng(threading.get_ident() % 1000)
        for _ in range(30):
            with pytest.raises(ImageError):
                read(data[: int(random.integers(9, len(data)))])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr() == ("", "")
    assert (os.fstat(2).st_ino, os.fstat(2).st_dev) == (before.st_ino, before.st_dev)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_while_libtiff_is_quiet_gives_the_child_its_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with libtiff_quiet():
        child = os.fork()
        if child == 0:
            os.write(2, b"LZWDecode: from the child\n")
            shape = read(NOISY["tiff_lzw"]).pixels.shape
            os._exit(0 if shape == (60, 50, 3) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert capfd.readouterr().err == "LZWDecode: from the child\n"


def test_a_process_without_stderr_reads_compressed_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(NOISY["tiff_lzw"])
    code = f"import os; os.close(2); from tiepoint.images.reading import read; read({str(path)!r})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_truncated_tiff_files_of_floats_name_what_is_missing() -> None:
    data = tiff(np.ones((60, 50, 3), np.float32))
    whole = struct.unpack("<I", data[4:8])[0]
    cut = data[:4] + struct.pack("<I", whole - 100) + data[8 : whole - 100] + data[whole:]
    with pytest.raises(ImageError, match="damaged"):
        read(cut)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("format_name", ["JPEG2000", "WEBP"])
def test_opencv_decodes_what_pillow_decodes_in_less_memory(
    format_name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(9).integers(0, 256, (50, 60, len(mode)), dtype=np.uint8)
    lossless = {"lossless": True, "exact": True} if format_name == "WEBP" else {}
    data = encode(Image.fromarray(pixels), format_name, exif=exif_block(6), **lossless)
    expected = read(data)
    monkeypatch.setattr(lean_formats, "SPARE_BYTES", 1000)
    with pytest.raises(ImageError, match="MB of memory, more than the limit"):
        monkeypatch.setattr(lean_formats, "PIXEL_BYTES", 1)
        read(encode(Image.fromarray(pixels), "WEBP", save_all=True, append_images=[Image.new(
            mode, (60, 50))], duration=9) if format_name == "WEBP" else data)  # fmt: skip
    monkeypatch.setattr(lean_formats, "PIXEL_BYTES", {"RGB": 16, "RGBA": 25}[mode])
    monkeypatch.setattr(lean_formats, "_WEBP_BY_PILLOW", 100)
    result = read(data)
    np.testing.assert_array_equal(result.pixels, expected.pixels)
    assert result.exif_orientation == expected.exif_orientation

"""Pictures of one column and millions of rows."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from support.image_files import png16, png_chunk
from tiepoint.errors import ImageError
from tiepoint.images import decoding
from tiepoint.images.reading import read

CHILD = """
import json, resource, sys, time
from tiepoint.images.reading import read
start = time.process_time()
shape = list(read(sys.argv[1]).pixels.shape)
seconds = time.process_time() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:  # ru_maxrss would count the parent, before the program was replaced
    peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
except OSError:
    peak //= 1024 if sys.platform == "darwin" else 1
print(json.dumps([shape, 1024 * peak, seconds]))
"""
PIXELS = {
    "grey": (0, 8, b"\x05"),
    "RGB": (2, 8, b"\1\2\3"),
    "RGBA": (6, 8, b"\1\2\3\4"),
    "RGB of 16 bits": (2, 16, b"\1\2" * 3),
    "RGBA of 16 bits": (6, 16, b"\1\2" * 4),
}


def column(kind: str, height: int) -> bytes:
    """A PNG one pixel wide."""
    colour_type, bits, pixel = PIXELS[kind]
    packer, many = zlib.compressobj(1), (b"\0" + pixel) * 10_000
    rows = b"".join([packer.compress(many) for _ in range(height // 10_000)]) + packer.flush()
    header = struct.pack(">IIBBBBB", 1, height, bits, colour_type, 0, 0, 0)
    parts = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", rows), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", PIXELS)
def test_a_picture_of_one_column_takes_bounded_memory_and_time(kind: str, tmp_path: Path) -> None:
    height = 4_000_000
    path = tmp_path / "a.png"
    path.write_bytes(column(kind, height))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True
    )
    shape, peak, seconds = json.loads(done.stdout)
    assert shape[:2] == [height, 1]
    assert peak < 12 * height + 200 * 10**6
    assert seconds < 5


def test_more_rows_than_pointers_fit_in_the_spare_memory_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "_MOST_ROWS", 9_999)
    with pytest.raises(ImageError, match="1x10000 px are more than the limit of 9999 rows"):
        read(column("grey", 10_000))


def test_narrow_pictures_have_the_values_of_the_file() -> None:
    deep = np.random.default_rng(3).integers(0, 65536, (70_000, 1, 3), dtype=np.uint16)
    np.testing.assert_array_equal(read(png16(deep)).pixels, deep)

"""AVIF and HEIF: limits of pixels by what their decoders were measured to need."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
import pytest
from PIL import Image

from support.image_files import encode
from tiepoint.errors import ImageError
from tiepoint.images import lean_formats, openers
from tiepoint.images.reading import read


@pytest.mark.parametrize(
    ("mode", "chroma", "flags", "a_pixel"),
    [
        ("RGB", "4:2:0", 0x0C, 10.5),
        ("RGB", "4:4:4", 0x00, 12),
        ("RGBA", "4:4:4", 0x00, 15.4),
        ("RGB", "4:2:0", 0x4C, 12),
        ("RGB", "4:4:4", 0x40, 15),
        ("RGBA", "4:4:4", 0x60, 19.4),
    ],
)
def test_avif_is_limited_by_bits_chroma_and_alpha(
    monkeypatch: pytest.MonkeyPatch, mode: str, chroma: str, flags: int, a_pixel: float
) -> None:
    if "AVIF" not in openers.openers():
        pytest.skip("this Pillow reads no AVIF")
    data = encode(Image.new(mode, (64, 48)), "AVIF", subsampling=chroma)
    if flags & 0x40:  # Pillow writes 8 bits; a box that decoders skip declares more
        data += struct.pack(">I4s4sBBBx", 16, b"free", b"av1C", 0x81, 0, flags)
    assert flags in {found[0] for found in re.findall(rb"av1C\x81.(.)", data, re.DOTALL)}
    monkeypatch.setattr(lean_formats, "PIXEL_BYTES", 0)
    monkeypatch.setattr(lean_formats, "SPARE_BYTES", int(a_pixel * 64 * 48))
    assert read(data).size_hw == (48, 64)
    monkeypatch.setattr(lean_formats, "SPARE_BYTES", int(a_pixel * 64 * 48) - 1)
    with pytest.raises(ImageError, match="AVIF"):
        read(data)


def test_heif_of_more_than_8_bits_has_a_limit_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    levels = np.zeros((48, 64, 3), np.uint16)
    deep = pillow_heif.from_bytes(mode="RGB;16", size=(64, 48), data=levels.tobytes())
    files = []
    for image in (deep, pillow_heif.from_pillow(Image.new("RGB", (64, 48)))):
        data = io.BytesIO()
        image.save(data)
        files.append(data.getvalue())
    assert [read(file).size_hw for file in files] == [(48, 64), (48, 64)]
    monkeypatch.setattr(lean_formats, "SPARE_BYTES", 0)
    assert read(files[1]).size_hw == (48, 64)
    with pytest.raises(ImageError, match="HEIF"):
        read(files[0])

"""Limits on what a decoder reads: Pillow parses headers with Python code, which files can prolong.

A file of many tiny chunks, endless comments or gigabytes of zeros would take minutes to hours.
"""

from __future__ import annotations

import re
from typing import Any, BinaryIO

from tiepoint.errors import ImageError

MOST_READS = 2_000_000
"""Reads of one file. Decoders read 64 KiB at once; parsing a chunk of a PNG takes three reads."""

LONGEST_HEADER_BYTES = 1 << 16
"""Bytes within which the header of a PPM file ends, comments included."""

MAX_ICON_SIDE_PX = 1024
"""Largest icon; the format's own directory has at most 256 px."""

_COMMENT = re.compile(rb"#[^\n\r]*[\n\r]")
_MOST_ICONS = 256


class ReadLimited:
    """A stream that fails after `MOST_READS` reads."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = MOST_READS
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise OSError(f"more than {MOST_READS} parts")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def check_header(stream: BinaryIO, format_name: str, name: str) -> None:
    """Check a header that Pillow would read byte by byte, or trust.

    Raises:
        ImageError: A PPM header that does not end, or a huge icon.
    """
    stream.seek(0)
    head = stream.read(LONGEST_HEADER_BYTES)
    if format_name == "PPM":
        parts = 3 if head[:2] in (b"P1", b"P4") else 4
        before = _COMMENT.sub(b"\n", head).partition(b"#")[0]
        if len(before.split(None, parts)) < min(parts, 3):
            raise ImageError(
                f"{name}: a damaged PPM file (its header does not end within "
                f"{LONGEST_HEADER_BYTES} bytes), expected a whole one; copy or save it again"
            )
    if format_name == "ICO":
        for index in range(min(int.from_bytes(head[4:6], "little"), _MOST_ICONS)):
            entry = head[6 + 16 * index : 22 + 16 * index]
            _check_icon(stream, int.from_bytes(entry[12:16], "little"), name)


def _check_icon(stream: BinaryIO, offset: int, name: str) -> None:
    stream.seek(offset)
    head = stream.read(24)
    if head.startswith(b"\x89PNG"):
        width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
        is_plain = True
    else:  # BITMAPINFOHEADER, whose height counts the mask
        width, height = (
            abs(int.from_bytes(head[at : at + 4], "little", signed=True)) // (1 + index)
            for index, at in enumerate((4, 8))
        )
        is_plain = head[16:20] in (b"\0\0\0\0", b"\3\0\0\0")  # neither run lengths nor JPEG
    if max(width, height) > MAX_ICON_SIDE_PX or not is_plain:
        raise ImageError(
            f"{name}: an icon of {width}x{height} px{'' if is_plain else ', run-length encoded'}; "
            f"expected at most {MAX_ICON_SIDE_PX} px a side, uncompressed or PNG"
        )

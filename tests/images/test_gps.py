"""Positions in the EXIF blocks of image files."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from tiepoint.errors import ImageError
from tiepoint.images.gps import place_of, read_place

SEOUL = {1: "N", 2: (37.0, 33.0, 36.0), 3: "E", 4: (126.0, 58.0, 48.0)}


def photo(path: Path, gps: dict[int, Any] | None) -> Path:
    exif = Image.Exif()
    if gps is not None:
        exif[int(ExifTags.IFD.GPSInfo)] = gps
    if path.suffix == ".tif":  # Pillow writes only parsed blocks to it
        parsed = Image.open(photo(path.with_suffix(".jpg"), gps)).getexif()
        parsed.get_ifd(ExifTags.IFD.GPSInfo)
        exif = parsed
    Image.new("L", (8, 8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_the_position_of_a_file_is_read(tmp_path: Path, ending: str) -> None:
    place = read_place(photo(tmp_path / f"a.{ending}", SEOUL))
    assert place == pytest.approx((37.56, 126.98), abs=1e-9)


def test_south_and_west_are_negative() -> None:
    gps = {**SEOUL, 1: "S", 3: b"w\0"}
    assert place_of(gps) == pytest.approx((-37.56, -126.98))


def test_decimal_degrees_and_minutes_are_read() -> None:
    gps = {1: "N", 2: (47.5, 0, 0), 3: "E", 4: (8, Fraction(61, 2), 0)}
    assert place_of(gps) == pytest.approx((47.5, 8 + 30.5 / 60))


@pytest.mark.parametrize(
    "changes",
    [
        {2: None}, {2: ()}, {2: (37.0, 33.0)}, {2: 37.56}, {2: "north"}, {2: (1, 2, 3, 4)},
        {2: (math.nan, 0, 0)}, {2: (math.inf, 0, 0)}, {2: (-37.0, 0, 0)}, {2: (91.0, 0, 0)},
        {2: (37, 61, 0)}, {2: (37, 0, 75)}, {2: (IFDRational(37, 0), 0, 0)}, {2: (None, 0, 0)},
        {2: (10**400, 0, 0)}, {4: (180.5, 0, 0)}, {1: "E"}, {1: ""}, {1: None}, {3: 5},
        {3: b"\xff"}, {1: "NN"}, {2: (0, 0, 0), 4: (0, 0, 0)},
    ],
)  # fmt: skip
def test_a_nonsensical_position_is_none(changes: dict[int, Any]) -> None:
    gps = {tag: value for tag, value in {**SEOUL, **changes}.items() if value is not None}
    assert place_of(gps) is None


@given(
    st.dictionaries(
        st.integers(0, 6),
        st.one_of(
            st.text(max_size=3), st.binary(max_size=3), st.floats(), st.none(),
            st.tuples(st.floats(), st.floats(), st.floats()),
        ),
    )
)  # fmt: skip
def test_any_block_gives_a_position_on_the_earth_or_none(gps: dict[int, Any]) -> None:
    place = place_of(gps)
    assert place is None or (abs(place.latitude) <= 90 and abs(place.longitude) <= 180)


def test_a_file_without_a_position_or_with_a_damaged_block_has_none(tmp_path: Path) -> None:
    assert read_place(photo(tmp_path / "a.jpg", None)) is None
    data = photo(tmp_path / "b.jpg", SEOUL).read_bytes()
    place = data.index(b"Exif\0\0") + 14
    (tmp_path / "c.jpg").write_bytes(data[:place] + b"\xff" * 20 + data[place + 20 :])
    assert read_place(tmp_path / "c.jpg") is None


def test_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("text.jpg", "no.jpg"):
        with pytest.raises(ImageError, match=name):
            read_place(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="pipe"):
        read_place(tmp_path / "pipe.jpg")

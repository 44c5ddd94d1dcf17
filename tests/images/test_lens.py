"""Focal lengths of image headers, compared with pycolmap's where it is installed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from tiepoint.errors import ImageError
from tiepoint.images.lens import read_lens

TAGS = ExifTags.Base


def photograph(path: Path, size_wh: tuple[int, int] = (640, 480), **tags: Any) -> Path:
    exif = Image.Exif()
    block = exif.get_ifd(ExifTags.IFD.Exif)
    for name, value in tags.items():
        block[TAGS[name]] = value
    Image.new("RGB", size_wh, (90, 120, 60)).save(path, exif=exif)
    return path


def test_the_equivalent_for_film_counts_by_the_diagonal(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg", FocalLengthIn35mmFilm=28)
    lens = read_lens(path)
    assert lens.size_wh == (640, 480)
    assert lens.focal_px == pytest.approx(28 / math.hypot(36, 24) * 800)


def test_the_focal_length_agrees_with_colmaps(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    from tiepoint.batch.reconstruction import load_pycolmap

    path = photograph(tmp_path / "a.jpg", (640, 400), FocalLengthIn35mmFilm=35, FocalLength=5.0)
    camera = load_pycolmap().infer_camera_from_image(path)
    assert camera.focal_length == pytest.approx(read_lens(path).focal_px, rel=1e-3)


def test_the_focal_plane_counts_in_its_unit_and_at_the_size_taken(tmp_path: Path) -> None:
    tags = {"FocalLength": 5.0, "FocalPlaneXResolution": 3000.0, "FocalPlaneResolutionUnit": 2}
    whole = photograph(tmp_path / "a.jpg", **tags)
    assert read_lens(whole).focal_px == pytest.approx(5 * 3000 / 25.4)
    taken = {"ExifImageWidth": 1280, "ExifImageHeight": 960}
    assert read_lens(photograph(tmp_path / "b.jpg", **tags, **taken)).focal_px == pytest.approx(
        5 * 3000 / 25.4 / 2
    )
    centimetres = {**tags, "FocalPlaneResolutionUnit": 3}
    path = photograph(tmp_path / "c.jpg", **centimetres)
    assert read_lens(path).focal_px == pytest.approx(5 * 3000 / 10)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"FocalLengthIn35mmFilm": 0},  # EXIF's "unknown"
        {"FocalLength": 5.0},
        {"FocalLength": 5.0, "FocalPlaneXResolution": 3000.0, "FocalPlaneResolutionUnit": 9},
        {"FocalLength": 0.0, "FocalPlaneXResolution": 3000.0},
    ],
)
def test_missing_and_absurd_values_give_no_focal_length(tmp_path: Path, tags: Any) -> None:
    assert read_lens(photograph(tmp_path / "a.jpg", **tags)).focal_px is None


def test_files_that_are_no_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("text.jpg", "missing.jpg", "."):
        with pytest.raises(ImageError):
            read_lens(tmp_path / name)


def test_a_damaged_exif_block_leaves_the_size(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg", FocalLengthIn35mmFilm=28)
    data = bytearray(path.read_bytes())
    start = data.index(b"Exif\0\0") + 6
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    lens = read_lens(path)
    assert lens.size_wh == (640, 480) and lens.focal_px is None

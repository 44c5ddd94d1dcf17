"""Photographs of a folder: which files count as images, and which part each belongs to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tiepoint.batch import Input, expand
from tiepoint.errors import ConfigError, FormatError
from tiepoint.images.photographs import IMAGE_ENDINGS, is_image_name, list_photos, part_of
from tiepoint.training.scenes.photographs import photo_files


def folder_with(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_detect_train_and_evaluate_take_the_same_files_of_a_folder(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, *(f"photo{ending}" for ending in IMAGE_ENDINGS), "notes.txt")
    detected = [Path(item.source) for item in expand([str(folder)]) if isinstance(item, Input)]
    assert {path.suffix for path in detected} == IMAGE_ENDINGS
    assert list_photos(folder, "all") == sorted(detected)
    assert photo_files((str(folder),), "all") == tuple(sorted(detected))


@pytest.mark.parametrize("ending", [".jp2", ".avif", ".gif", ".pbm", ".pnm", ".jpe"])
def test_formats_beside_jpeg_and_png_are_photographs_too(tmp_path: Path, ending: str) -> None:
    folder_with(tmp_path, f"photo{ending}")
    assert list_photos(tmp_path, "all") == [tmp_path / f"photo{ending}"]


@pytest.mark.parametrize(
    ("name", "is_image"),
    [
        ("a.jpg", True),
        ("A.JPEG", True),
        ("벌.Png", True),
        ("archive.tar.tiff", True),
        ("a.txt", False),
        ("jpg", False),
        (".jpg", False),
        ("a.jpg.npz", False),
        ("", False),
    ],
)
def test_the_ending_decides_in_either_case(name: str, is_image: bool) -> None:
    assert is_image_name(name) == is_image


def test_photographs_are_sorted_by_name_then_path(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "b.jpg", "z/a.jpg", "c/b.jpg", "y/a.jpg")
    names = [path.relative_to(folder).as_posix() for path in list_photos(folder, "all")]
    assert names == ["y/a.jpg", "z/a.jpg", "b.jpg", "c/b.jpg"]


def test_the_part_follows_the_hash_of_the_file_name() -> None:
    names = [f"image{number}.jpg" for number in range(400)]
    held_out = [n for n in names if int(hashlib.sha1(n.encode()).hexdigest(), 16) % 5 == 0]
    assert [name for name in names if part_of(name) == "development"] == held_out
    assert 50 < len(held_out) < 110
    assert part_of("skimage_cc0_anything.jpg") == "development"


def test_the_parts_of_a_folder_are_disjoint_and_complete(tmp_path: Path) -> None:
    names = [f"photo{number}.png" for number in range(30)]
    folder = folder_with(tmp_path, *names, "below/photo.jp2", "notes.txt")
    development, training = list_photos(folder, "development"), list_photos(folder, "training")
    assert development
    assert training
    assert not set(development) & set(training)
    assert sorted([*development, *training]) == sorted(list_photos(folder, "all"))
    assert len(list_photos(folder, "all")) == 31


def test_the_development_part_is_the_default(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, *(f"photo{number}.png" for number in range(30)))
    assert list_photos(folder) == list_photos(folder, "development")


def test_the_development_photographs_are_those_of_the_readme(shared: Path) -> None:
    files = list_photos(shared / "photos")
    assert len(files) == 113
    assert all(part_of(path.name) == "development" for path in files)


def test_a_folder_without_photographs_of_the_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such folder"):
        list_photos(tmp_path / "none")
    with pytest.raises(FormatError, match="none of its 0 images"):
        list_photos(tmp_path)
    folder_with(tmp_path, "skimage_cc0_a.png")
    with pytest.raises(FormatError, match="none of its 1 images belongs to the part 'training'"):
        list_photos(tmp_path, "training")


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of development, training, all"):
        list_photos(tmp_path, "test")  # type: ignore[arg-type]

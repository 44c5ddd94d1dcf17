"""What is named on the command line -> images, each once, in order, with its own place."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from support.batch_folders import places, put
from tiepoint.batch import Input, Unreadable, expand


def test_a_folder_gives_its_images_sorted_with_those_below(here: Path) -> None:
    for name in ("b.jpg", "a.PNG", "sub/c.tif", ".hidden.jpg", ".cache/d.jpg"):
        put(here / "photos" / name)
    (here / "photos" / "notes.txt").touch()
    assert places(["photos"]) == ["a.PNG", "b.jpg", "sub/c.tif"]
    assert places([here / "photos"]) == ["a.PNG", "b.jpg", "sub/c.tif"]


def test_an_empty_folder_gives_nothing(here: Path) -> None:
    assert places([here]) == []


def test_korean_names_and_spaces_stay_as_they_are(here: Path) -> None:
    put(here / "사진 폴더" / "벌 한 마리.jpg")
    assert places(["사진 폴더"]) == ["벌 한 마리.jpg"]


def test_a_file_keeps_the_path_as_typed(here: Path) -> None:
    put(here / "a" / "x.jpg")
    assert places(["a/x.jpg"]) == ["a/x.jpg"]
    assert places(["./a/x.jpg"]) == ["a/x.jpg"]
    assert places([here / "a" / "x.jpg"]) == ["x.jpg"]


def test_a_missing_file_is_still_an_input_so_that_it_is_reported(here: Path) -> None:
    assert places(["no.jpg"]) == ["no.jpg"]


@pytest.mark.parametrize("argument", ["../x.jpg", "a/../../x.jpg", "/x.jpg", "../..", ".."])
def test_no_name_leaves_the_output_folder(
    here: Path, argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(here / "a" / "b")  # the folders above are of this test alone
    for arguments in ([argument], [argument, "other.jpg"]):
        for item in expand(arguments):
            assert isinstance(item, Input)
            assert not item.name.is_absolute()
            assert ".." not in item.name.parts


@pytest.mark.parametrize("pattern", ["photos/*.jpg", "photos/**/*.jpg", "photos/**"])
def test_a_glob_is_relative_to_its_fixed_part(here: Path, pattern: str) -> None:
    for name in ("b.jpg", "a.jpg", "sub/c.jpg"):
        put(here / "photos" / name)
    (here / "photos" / "notes.txt").touch()
    below = [] if pattern == "photos/*.jpg" else ["sub/c.jpg"]
    assert places([pattern]) == ["a.jpg", "b.jpg", *below]
    assert places([here / pattern]) == ["a.jpg", "b.jpg", *below]


def test_a_glob_whose_changing_part_climbs_stays_inside(here: Path) -> None:
    put(here / "a" / "x.jpg")
    put(here / "y.jpg")
    assert places(["*/../y.jpg"]) == ["y.jpg"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(here: Path) -> None:
    put(here / "x[1].jpg")
    assert places(["x[1].jpg"]) == ["x[1].jpg"]


def test_two_folders_keep_their_names_so_that_equal_files_stay_apart(here: Path) -> None:
    put(here / "left" / "1.png")
    put(here / "right" / "1.png")
    assert places(["left", "right"]) == ["left/1.png", "right/1.png"]
    assert places([here / "left", here / "right"]) == ["left/1.png", "right/1.png"]


def test_an_image_named_twice_is_taken_once(here: Path) -> None:
    put(here / "photos" / "x.jpg")
    assert places(["photos", "photos/x.jpg", "./photos/x.jpg", "photos/*.jpg"]) == ["photos/x.jpg"]


def test_two_images_for_one_place_are_reported(here: Path) -> None:
    first, second = put(here / "a" / "x.jpg"), put(here / "b" / "x.jpg")
    one, other = expand([first, second])
    assert one == Input(first, PurePosixPath("x.jpg"))
    assert isinstance(other, Unreadable)
    assert "another input already goes to x.jpg" in other.reason


def test_a_list_is_read_line_by_line_as_it_is_needed() -> None:
    asked: list[int] = []

    def endless() -> Iterator[str]:
        for number in range(1_000_000):
            asked.append(number)
            yield f"사진 {number}.jpg\r\n" if number % 2 else "\n"

    found = expand(["-"], endless())
    items = [next(found) for _ in range(3)]
    sources = [item.source for item in items]
    assert sources == ["사진 1.jpg", "사진 3.jpg", "사진 5.jpg"]
    assert len(asked) < 10


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://a.org/b/c.jpg", "a.org/b/c.jpg"),
        ("http://a.org:80/../../etc/%2e%2e/c.jpg", "a.org_80/etc/c.jpg"),
        ("https://user:secret@a.org/%EB%B2%8C.jpg", "a.org/벌.jpg"),
        ("https://a.org", "a.org"),
        ("https://a.org/b%00%5cc.jpg", "a.org/b__c.jpg"),
    ],
)
def test_a_url_goes_below_its_host(url: str, place: str) -> None:
    assert places([url]) == [place]


def test_urls_that_differ_in_their_query_stay_apart() -> None:
    first, second = places(["https://a.org/i.jpg?id=1", "https://a.org/i.jpg?id=2"])
    assert first != second
    assert first.endswith(".jpg")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights do not bind this user")
def test_a_folder_that_cannot_be_listed_is_reported(here: Path) -> None:
    put(here / "photos" / "closed" / "x.jpg")
    (here / "photos" / "closed").chmod(0)
    try:
        (item,) = expand(["photos"])
    finally:
        (here / "photos" / "closed").chmod(0o700)
    assert isinstance(item, Unreadable)
    assert "cannot be listed" in item.reason


def test_a_folder_that_vanishes_is_reported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos").mkdir()

    def vanished(_: str) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "scandir", vanished)
    (item,) = expand(["photos"])
    assert isinstance(item, Unreadable)
    assert "photos: cannot be listed (No such file or directory)" in item.reason


def test_a_glob_among_others_that_matches_nothing_is_reported(here: Path) -> None:
    put(here / "a.png")
    (here / "notes.txt").touch()
    for items in (expand(["a.png", "b[1].png"]), expand(["-"], ["a.png\n", "b[1].png\n"])):
        image, missing = items
        assert isinstance(image, Input) and isinstance(missing, Unreadable)
        assert "b[1].png: no such file" in missing.reason
    assert len(list(expand(["a.png", "*.txt"]))) == 1  # there are files, which are counted
    assert list(expand(["b[1].png"])) == []

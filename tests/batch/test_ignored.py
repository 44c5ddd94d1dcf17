"""Files that a run passes over are counted by their ending."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from support.batch_folders import put
from tiepoint.batch import expand
from tiepoint.batch.ignored import kind_of, sentence
from tiepoint.images import photographs


def ignored_by(*arguments: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    list(expand(arguments, (), counts))
    return counts


@pytest.fixture
def drone(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(photographs, "image_endings", lambda: photographs.IMAGE_ENDINGS)
    put(here / "photos" / "DJI_1.JPG")
    for name in (
        "a.HEIC", "b.heic", "sub/c.CR2", "film.MP4", "IMG_0001",  # pictures, perhaps
        "flight.MRK", "x.xmp", "list.txt", "meta.json", "Thumbs.db", ".DS_Store", "._DJI_1.JPG",
        "desktop.ini", ".cache/d.heic", "DJI_1.JPG.npz", "DJI_1.JPG-0a1b2c3d.tiles", "pos.TFW",
    ):  # fmt: skip
        path = here / "photos" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return here


def test_a_folder_counts_what_may_be_a_picture_and_nothing_else(drone: Path) -> None:
    expected = {".heic": 2, ".cr2": 1, ".mp4": 1, "without ending": 1}
    assert ignored_by("photos") == expected
    assert ignored_by("photos/**") == expected
    assert ignored_by("photos", "photos/*.heic") == {**expected, ".heic": 3}


def test_the_sentence_names_the_most_frequent_first_and_the_remedy(drone: Path) -> None:
    text = sentence(ignored_by("photos"))
    assert text is not None
    assert text.startswith("5 ignored: .heic 2, .cr2 1, .mp4 1, without ending 1; ")
    assert '.heic: pip install "tiepoint[heif]", or in a clone pip install ".[heif]"' in text
    assert ".cr2: develop raw photographs first" in text
    both = sentence(Counter({".nef": 1, ".dng": 1}))
    assert both is not None and "; .dng, .nef: develop raw photographs first" in both
    assert sentence(Counter({".xyz": 1})) == "1 ignored: .xyz 1"
    assert sentence(Counter()) is None


def test_many_endings_are_summed_up() -> None:
    text = sentence(Counter({f".e{number}": 20 - number for number in range(12)}))
    assert text is not None
    assert ".e7 13, other endings 42" in text and ".e8" not in text


def test_links_to_folders_are_not_followed_but_counted(here: Path) -> None:
    put(here / "photos" / "x.jpg")
    put(here / "other" / "y.jpg")
    try:
        (here / "photos" / "more").symlink_to(here / "other", target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    counts = ignored_by("photos")
    assert counts == {"links to folders": 1}
    assert "name linked folders themselves" in str(sentence(counts))


@pytest.mark.parametrize("name", [".hidden", "a.txt", "A.XML", "Thumbs.db", "x.partial"])
def test_files_that_are_clearly_no_pictures_do_not_count(name: str) -> None:
    assert kind_of(name) is None


def test_without_a_counter_nothing_changes(drone: Path) -> None:
    sources = [os.path.basename(item.source) for item in expand(["photos"])]  # noqa: PTH119
    assert sources == ["DJI_1.JPG"]

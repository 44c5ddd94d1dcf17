"""The pairs of a collection that are chosen for matching."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tiepoint.batch.left_out import LeftOut
from tiepoint.batch.pair_choice import Means, choose_pairs
from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, FormatError, TiepointError
from tiepoint.features import Features

NAMES = ["left/0.jpg", "left/1.jpg", "right/2.jpg", "right/3.jpg"]


def features(axis: int | None, length: int = 4) -> Features:
    """One keypoint, whose descriptor is along an axis."""
    descriptors = None if axis is None else np.eye(length, dtype=np.float32)[[axis]]
    return Features(np.zeros((1, 2), np.float32), np.ones(1, np.float32), descriptors, (8, 8))


def collection(*axes: int | None) -> dict[str, Features]:
    return {name: features(axis) for name, axis in zip(NAMES, axes, strict=False)}


def indices(pairs: Iterable[tuple[str, str]]) -> list[tuple[int, int]]:
    return [(NAMES.index(a), NAMES.index(b)) for a, b in pairs]


@pytest.mark.parametrize("rule", ["all", "sequential", "similar", "gps"])
@pytest.mark.parametrize("count", [0, 1])
def test_less_than_two_images_give_no_pair(rule: str, count: int) -> None:
    assert list(choose_pairs(collection(*[0] * count), PairConfig(rule))) == []


def test_all_pairs_are_the_default() -> None:
    pairs = indices(choose_pairs(collection(0, 1, 2, 3), PairConfig()))
    assert pairs == [(i, j) for i in range(4) for j in range(i + 1, 4)]


def test_a_sequence_has_a_window_and_may_reach_further() -> None:
    images = collection(0, 1, 2, 3)
    near = choose_pairs(images, PairConfig("sequential", window=1))
    assert indices(near) == [(0, 1), (2, 3)]  # each folder is a sequence
    names = [f"{number}.jpg" for number in (1, 10, 2, 3)]
    images = {name: features(0) for name in names}
    assert list(choose_pairs(images, PairConfig("sequential", window=1))) == [
        ("1.jpg", "2.jpg"), ("2.jpg", "3.jpg"), ("3.jpg", "10.jpg"),
    ]  # fmt: skip
    far = choose_pairs(images, PairConfig("sequential", window=2, quadratic=True))
    assert ("1.jpg", "3.jpg") in far and len(far) == 5


def test_the_most_similar_images_are_paired() -> None:
    pairs = choose_pairs(collection(0, 1, 0, 1), PairConfig("similar", k=1))
    assert indices(pairs) == [(0, 2), (1, 3)]


def test_images_without_descriptors_are_reported_and_in_no_pair() -> None:
    errors: list[TiepointError] = []
    pairs = choose_pairs(collection(0, None, 0, 0), PairConfig("similar"), errors.append)
    assert indices(pairs) == [(0, 2), (0, 3), (2, 3)]
    assert [str(error) for error in errors] == [
        "similar: left/1.jpg: features have no descriptors, which similarity needs: detect with "
        "descriptors=True"
    ]
    assert list(choose_pairs(collection(None, None), PairConfig("similar"))) == []


def test_damaged_and_empty_images_are_counted_by_reason(here: Path) -> None:
    class Damaged(dict[str, Features]):
        def __getitem__(self, name: str) -> Features:
            if name.startswith("bad"):
                raise FormatError("damaged; make it again")
            return super().__getitem__(name)

    images = Damaged(collection(0, 0, 0, 0))
    images |= {f"bad{number}": features(0) for number in range(3)}
    images |= {f"empty{number}": features(0).take(np.arange(0)) for number in range(2)}
    errors: list[TiepointError] = []
    pairs = choose_pairs(images, PairConfig("similar"), errors.append)
    assert len(pairs) == 6 and {name for pair in pairs for name in pair} == set(NAMES)
    assert sorted(map(str, errors)) == [
        "similar: 2 images, the first empty0: no keypoints, or none that differ from the other "
        "images'",
        "similar: 3 images, the first bad0: damaged; make it again",
    ]


def test_features_are_read_in_the_thread_of_the_caller() -> None:
    class OfOneThread(dict[str, Features]):
        def __getitem__(self, name: str) -> Features:
            assert threading.current_thread() is threading.main_thread()
            return super().__getitem__(name)

    images = OfOneThread(collection(0, 1, 0, 1))
    errors: list[TiepointError] = []
    pairs = choose_pairs(images, PairConfig("similar,gps", k=1), errors.append)
    assert len(pairs) == 2 and len(errors) == 1  # no image has a path


def test_many_reasons_end_with_a_count() -> None:
    left_out = LeftOut("gps")
    for number in range(30):
        left_out.add("a.jpg", f"reason {number}")
    errors = [str(error) for error in left_out.errors()]
    assert len(errors) == 21 and errors[-1] == "gps: 10 more images for other reasons"


def test_similar_images_need_descriptors_of_one_length() -> None:
    images = {"a": features(0), "b": features(0, length=6)}
    with pytest.raises(ConfigError, match="descriptors of different lengths: detect again"):
        choose_pairs(images, PairConfig("similar"))


def test_a_list_names_the_pairs(here: Path) -> None:
    Path("pairs.txt").write_text("right/3.jpg left/1.jpg\nleft/0.jpg right/2.jpg\n")
    pairs = choose_pairs(collection(0, 1, 2, 3), PairConfig("pairs.txt"))
    assert indices(pairs) == [(3, 1), (0, 2)]
    with pytest.raises(FormatError, match="line 1: no image 'right/3.jpg'"):
        choose_pairs(collection(0, 1), PairConfig("pairs.txt"))


def test_an_unknown_rule_is_refused_with_those_there_are(here: Path) -> None:
    message = "pairs is 'some', expected 'all', 'sequential', 'similar', 'gps', or a text file"
    for pairs in ("some", "all,some", "all, some"):
        with pytest.raises(ConfigError, match=message):
            choose_pairs(collection(0, 1), PairConfig(pairs))
    with pytest.raises(ConfigError, match="pairs is ''"):
        choose_pairs(collection(0, 1), PairConfig("all,"))


def test_several_rules_give_the_pairs_of_each(here: Path) -> None:
    Path("my,pairs.txt").write_text("right/3.jpg left/0.jpg\n")
    Path("pairs.txt").write_text("right/3.jpg left/0.jpg\nleft/1.jpg left/0.jpg\n")
    images = collection(0, 1, 0, 1)
    listed = choose_pairs(images, PairConfig("my,pairs.txt"))
    assert indices(listed) == [(3, 0)]
    both = choose_pairs(images, PairConfig("sequential,pairs.txt, similar,similar", window=1, k=1))
    assert indices(both) == [(0, 1), (0, 2), (3, 0), (1, 3), (2, 3)]


def test_chosen_pairs_are_a_sequence() -> None:
    pairs = choose_pairs(collection(0, 1, 2, 3), PairConfig())
    assert len(pairs) == 6 and pairs[-1] == (NAMES[2], NAMES[3])
    assert (
        list(pairs[1:3]) == list(pairs)[1:3] and repr(pairs) == "ChosenPairs(6 pairs of 4 images)"
    )
    with pytest.raises(IndexError):
        pairs[6]


def photograph(path: Path, latitude: float | None) -> None:
    exif = Image.Exif()
    if latitude is not None:
        gps = {1: "N", 2: (latitude, 0.0, 0.0), 3: "E", 4: (11.0, 0.0, 0.0)}
        exif[int(ExifTags.IFD.GPSInfo)] = gps
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(path, exif=exif)


def test_images_near_each_other_are_paired_and_those_without_a_place_counted(here: Path) -> None:
    for name, latitude in zip(NAMES, (48.0, 48.001, 48.0015, None), strict=True):
        photograph(here / "photos" / name, latitude)
    images = collection(0, 1, 2, 3)
    errors: list[TiepointError] = []
    seen: list[int] = []
    means = Means(images=here / "photos", on_image=lambda: seen.append(1))
    pairs = choose_pairs(images, PairConfig("gps", gps_k=1), errors.append, means)
    assert indices(pairs) == [(0, 1), (1, 2)] and len(seen) == 4
    assert [str(error) for error in errors] == [
        "gps: right/3.jpg: no GPS position in its EXIF block"
    ]
    near = choose_pairs(images, PairConfig("gps", gps_metres=60), means=means)
    assert indices(near) == [(1, 2)]  # 55 m, and 111 m between the first two
    union = choose_pairs(images, PairConfig("gps,sequential", gps_metres=60), means=means)
    assert indices(union) == [(0, 1), (1, 2), (2, 3)]


def test_places_come_from_the_paths_that_features_state(here: Path) -> None:
    photograph(here / "a.jpg", 48.0)
    photograph(here / "b.jpg", 48.0001)
    (here / "text.jpg").write_text("no image")
    images = {
        name: replace(features(0), meta={} if source is None else {"source": source})
        for name, source in (
            ("a", "a.jpg"), ("b", str(here / "b.jpg")), ("c", "gone.jpg"), ("d", None),
            ("e", "https://a.org/x.jpg"), ("f", "text.jpg"),
        )
    }  # fmt: skip
    errors: list[TiepointError] = []
    assert list(choose_pairs(images, PairConfig("gps"), errors.append)) == [("a", "b")]
    first, second = sorted(map(str, errors))
    assert first.startswith("gps: 3 images, the first c: its image is not at the path")
    assert second.startswith("gps: f: text.jpg: ")

"""Images and features files by name: features of each, and the image to draw on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiepoint import save
from tiepoint.batch.sources import image_of, is_features_file, load_or_detect
from tiepoint.errors import FormatError
from tiepoint.features import Features


def features(count: int, **meta: Any) -> Features:
    return Features(
        np.zeros((count, 2), np.float32), np.ones(count, np.float32), None, (8, 8), meta
    )


class FakeDetector:
    """Returns as many keypoints as the name has characters."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> Features:
        self.names.append(name)
        return features(len(name))


def maker(detector: FakeDetector) -> tuple[Callable[[], Any], list[None]]:
    calls: list[None] = []

    def make() -> Any:
        calls.append(None)
        return detector

    return make, calls


@pytest.mark.parametrize("name", ["a.npz", "b.json", "c.csv", "d.h5", "E.NPZ", "f/g.h.npz"])
def test_the_ending_marks_a_features_file(name: str) -> None:
    assert is_features_file(name)


@pytest.mark.parametrize("name", ["a.png", "npz", "a.npz.png", "https://x.org/a.jpg", ""])
def test_anything_else_is_an_image(name: str) -> None:
    assert not is_features_file(name)


def test_features_files_alone_need_no_detector(here: Path) -> None:
    save(features(3), "a.npz")
    save(features(4), "b.json")
    make, calls = maker(FakeDetector())
    assert [len(each) for each in load_or_detect(["a.npz", "b.json"], make)] == [3, 4]
    assert calls == []


def test_one_detector_serves_all_images_in_order(here: Path) -> None:
    save(features(3), "a.npz")
    detector = FakeDetector()
    make, calls = maker(detector)
    results = load_or_detect(["12345.png", "a.npz", "1.png"], make)
    assert [len(each) for each in results] == [9, 3, 5]
    assert detector.names == ["12345.png", "1.png"] and len(calls) == 1


def test_no_names_give_no_features() -> None:
    make, calls = maker(FakeDetector())
    assert load_or_detect([], make) == [] and calls == []


def test_a_features_file_that_is_missing_is_an_error(here: Path) -> None:
    with pytest.raises(FormatError, match=r"no\.npz"):
        load_or_detect(["no.npz"], maker(FakeDetector())[0])


def test_an_image_is_its_own_picture() -> None:
    assert image_of("no/such.png", features(1)) == "no/such.png"


def test_a_features_file_leads_to_its_source_while_that_exists(here: Path) -> None:
    stored = features(1, source="a.png")
    assert image_of("a.npz", stored) is None
    Path("a.png").write_bytes(b"")
    assert image_of("a.npz", stored) == "a.png"


@pytest.mark.parametrize("meta", [{}, {"source": None}, {"source": 3}])
def test_features_without_a_source_have_no_picture(meta: dict[str, Any]) -> None:
    assert image_of("a.npz", features(1, **meta)) is None

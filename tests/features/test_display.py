"""Tables of facts that notebooks show: the figures, and nothing that runs."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np

from support.features_files import make
from tiepoint.features import Features, Matches
from tiepoint.registration.result import Registration, Residuals


class Cells(HTMLParser):
    """The texts of a table, and the tags that it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def facts(result: object) -> dict[str, str]:
    cells = Cells(result._repr_html_())
    assert cells.tags <= {"table", "caption", "tbody", "tr", "th", "td"}
    return dict(zip(cells.texts[1::2], cells.texts[2::2], strict=True))


def test_features_show_counts_image_ranges_and_origin() -> None:
    features = replace(make(3, 4), scales_px=np.array([1, 2, 2], np.float32))
    shown = facts(features)
    assert shown["keypoints"] == "3" and shown["descriptors"] == "4-D"
    assert shown["image"] == "640 x 480 px" and shown["scales"] == "1 at 1 px, 2 at 2 px"
    assert shown["source"] == "fake.png" and shown["checkpoint"] == "fake"
    low, high = features.scores.min(), features.scores.max()
    assert shown["scores"] == f"{low:.3f} to {high:.3f}"


def test_results_without_anything_show_what_they_have() -> None:
    empty = Features(np.zeros((0, 2), "f4"), np.zeros(0, "f4"), None, (4, 6))
    assert facts(empty) == {"keypoints": "0", "descriptors": "none", "image": "6 x 4 px"}
    none = Matches(np.zeros((0, 2), np.int64), np.zeros(0, "f4"), {"sources": 3})
    assert facts(none) == {"matches": "0"}


def test_names_of_files_are_escaped_and_cut() -> None:
    name = "<script>alert('x')</script>" + "y" * 200
    shown = facts(replace(make(1), meta={"source": name}))
    assert shown["source"].startswith("<script>alert('x')</script>y")
    assert len(shown["source"]) < 130 and shown["source"].endswith("...")


def test_a_registration_shows_its_figures_or_the_reason() -> None:
    a, b = make(4), make(4)
    matches = Matches(np.array([[0, 0], [1, 1]]), np.ones(2, "f4"), {"sources": ["a", "b"]})
    assert facts(matches)["image B"] == "b"
    inliers, matrix = np.array([True, False]), np.eye(3)
    good = Registration(
        True,
        "ok",
        "affine",
        matrix,
        a,
        b,
        matches,
        inliers,
        0.25,
        reprojection_px=Residuals(0.5, 1),
    )
    shown = facts(good)
    assert shown["inliers"] == "1 (50%)" and shown["median error"] == "0.50 px"
    assert shown["coverage"] == "25%" and "agreement" not in shown
    bad = replace(good, success=False, reason="a < b", matrix=None)
    assert facts(bad)["reason"] == "a < b" and "Not registered" in bad._repr_html_()

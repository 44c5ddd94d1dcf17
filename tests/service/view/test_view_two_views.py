"""Pairs with depth: fundamental and essential matrices, epipolar lines, views linked by matches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the page needs the extra serve")

from support.registered import CAMERA
from support.view_browser import Tab, browser_of, chromium
from support.view_server import Served, serving_of, unpacked, write_image, write_two_views
from tiepoint.config import RegistrationConfig
from tiepoint.errors import ConfigError, FormatError
from tiepoint.service.view import payload
from tiepoint.service.view.edits import Edit
from tiepoint.service.view.inputs import open_session
from tiepoint.service.view.session import Session

INTRINSICS = [CAMERA.tolist(), CAMERA.tolist()]


@pytest.fixture(scope="module")
def essential(tmp_path_factory: pytest.TempPathFactory) -> Session:
    arguments = write_two_views(tmp_path_factory.mktemp("essential"))
    return open_session(
        arguments, config=RegistrationConfig(model="essential"), intrinsics=INTRINSICS
    )


def line_of(fundamental: Any, xy: Any) -> np.ndarray:
    """a, b, c of the epipolar line in B, with a^2 + b^2 = 1."""
    line = np.asarray(fundamental) @ [*xy, 1]
    return line / np.hypot(line[0], line[1])


def test_residuals_of_an_essential_matrix_are_perpendicular_to_the_epipolar_lines(
    essential: Session,
) -> None:
    (pair,) = essential.pairs.values()
    fitted = essential.fit(pair.id)
    result = fitted.registration
    assert result.success and result.inliers.sum() > 170
    meta, arrays = unpacked(payload.packed_pair(fitted, pair, None))
    table = arrays["matches"]
    for row, xy_a, xy_b in zip(table, result.xy_a, result.xy_b, strict=True):
        a, b, c = line_of(meta["fundamental"], xy_a)
        signed = a * xy_b[0] + b * xy_b[1] + c
        np.testing.assert_allclose(row[6:8], [signed * a, signed * b], atol=2e-3)
    assert set(np.unique(table[:, 5])) == {payload.INLIER, payload.FAR}
    assert np.abs(table[result.inliers, 6:8]).max() < 5


def test_a_fit_after_changes_has_the_cameras(essential: Session) -> None:
    (pair,) = essential.pairs.values()
    fitted = essential.fit(pair.id, Edit((0, 1), ((10.0, 10.0, 20.0, 20.0),)))
    assert fitted.registration.model == "essential" and fitted.registration.success
    assert len(fitted.registration.matches) == 199


def test_a_recorded_essential_matrix_needs_its_cameras(here: Path) -> None:
    write_image(here / "a.png", np.zeros((40, 50, 3), np.uint8))
    record = {
        "a": "a.png", "b": "a.png", "success": True, "reason": "ok", "model": "essential",
        "matrix": np.eye(3).tolist(), "intrinsics": INTRINSICS,
    }  # fmt: skip
    (here / "r.json").write_text(json.dumps(record))
    (pair,) = open_session(["r.json"]).pairs.values()
    assert pair.intrinsics == INTRINSICS and pair.config.model == "essential"
    for wrong in (None, [[1, 2], [3, 4]], "nonsense"):
        (here / "r.json").write_text(json.dumps({**record, "intrinsics": wrong}))
        with pytest.raises(FormatError, match="intrinsics"):
            open_session(["r.json"])


def test_cameras_for_another_model_are_refused(here: Path) -> None:
    with pytest.raises(ConfigError, match="essential"):
        open_session(["a.png"], intrinsics=INTRINSICS)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    arguments = write_two_views(tmp_path_factory.mktemp("fundamental"))
    session = open_session(arguments, config=RegistrationConfig(model="fundamental"))
    with serving_of(session) as one:
        yield one


@pytest.fixture(scope="module")
def shared(served: Served) -> Iterator[Tab]:
    with browser_of(chromium()) as browser:
        tab = Tab(browser, served, reduced_motion="reduce", color_scheme="dark")
        yield tab
        tab.close()


@pytest.fixture
def page(shared: Tab, served: Served) -> Iterator[Tab]:
    (pair,) = served.session.pairs
    shared.open("#/gallery", ".cards li")
    shared.open(f"#/pair/{pair}?show=none", ".verdict")
    yield shared
    assert shared.problems == []


def coloured(page: Tab, side: int) -> np.ndarray:
    """N 2: px of the image of a pane at which something is drawn, its border left out."""
    stage = page.shot(".stage")
    box = page.page.locator(".osd").nth(side).bounding_box()
    outer = page.page.locator(".stage").bounding_box()
    left, top = round(box["x"] - outer["x"]), round(box["y"] - outer["y"])
    width, height = round(box["width"]), round(box["height"])
    part = stage[top : top + height, left : left + width].astype(int)
    rows, columns = np.nonzero(part.max(axis=2) > 120)
    x, y, z = page.view(side)
    inner = (columns > 60) & (columns < width - 4) & (rows > 60) & (rows < height - 60)
    at = np.column_stack([columns + 0.5 - width / 2, rows + 0.5 - height / 2])[inner]
    return at / z + [x, y]


@pytest.mark.parametrize("side", [0, 1])
def test_the_epipolar_line_of_the_place_under_the_pointer_is_drawn_in_the_other_image(
    page: Tab, served: Served, side: int
) -> None:
    (pair,) = served.session.pairs
    matrix = served.session.fit(pair).registration.matrix
    assert matrix is not None
    page.page.mouse.move(1, 1)
    page.settle()
    assert len(coloured(page, 1 - side)) == 0
    box = page.page.locator(".osd").nth(side).bounding_box()
    offset = np.array([31, -22])
    page.page.mouse.move(
        box["x"] + box["width"] / 2 + offset[0], box["y"] + box["height"] / 2 + offset[1]
    )
    page.settle()
    x, y, z = page.view(side)
    place = np.array([x, y]) + offset / z
    a, b, c = line_of(matrix if side == 0 else matrix.T, place)
    drawn = coloured(page, 1 - side)
    assert len(drawn) > 40
    assert np.abs(drawn @ [a, b] + c).max() * page.view(1 - side)[2] < 2.5  # px of the screen


def test_the_line_of_a_selected_match_passes_by_its_place_and_keys_reach_it(
    page: Tab, served: Served
) -> None:
    (pair,) = served.session.pairs
    result = served.session.fit(pair).registration
    page.page.mouse.move(1, 1)
    page.page.get_by_label("Show", exact=True).select_option("inliers")
    page.page.get_by_label("Lines between matches").uncheck()
    page.page.locator(".pane").first.focus()
    page.page.keyboard.press("n")
    page.settle()
    first = int(np.flatnonzero(result.inliers)[0])
    a, b, c = line_of(result.matrix, result.xy_a[first])
    drawn = coloured(page, 1)
    near = np.abs(drawn @ [a, b] + c) < 1.5 / page.view(1)[2]
    along = drawn[near] @ [-b, a]
    assert near.sum() > 100 and np.ptp(along) > 150
    assert abs(result.xy_b[first] @ [a, b] + c) < 3


def test_without_a_plane_model_the_nearest_inliers_link_the_views(
    page: Tab, served: Served
) -> None:
    (pair,) = served.session.pairs
    result = served.session.fit(pair).registration
    text = page.page.locator(".controls").inner_text()
    assert "nearest inliers link" in text and "the model allows it" in text
    assert page.page.get_by_label("Arrangement").locator("option").count() == 1
    page.page.locator(".pane").first.focus()
    for key in ("ArrowRight", "ArrowUp", "+", "+"):
        page.page.keyboard.press(key)
    page.settle()
    (x, y, _), moved = page.view(0), page.view(1)
    xy_a, xy_b = result.xy_a[result.inliers], result.xy_b[result.inliers]
    near = np.argsort(np.hypot(*(xy_a - [x, y]).T))[:8]
    expected = xy_b[near].mean(axis=0) + ([x, y] - xy_a[near].mean(axis=0))
    assert np.hypot(*(np.array(moved[:2]) - expected)) < 25
    assert np.abs(np.array(moved[:2]) - np.array([x, y])).max() > 3
    page.page.get_by_label("Link pan and zoom").uncheck()
    page.page.keyboard.press("ArrowRight")
    page.settle()
    assert page.view(1) == moved

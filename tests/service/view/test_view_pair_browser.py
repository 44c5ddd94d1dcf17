"""The page of a pair in a real browser: linked views, verdict, edits, swipe; accessibility."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the page needs the extra serve")
pytest.importorskip("uvicorn", reason="the page needs the extra serve")

from support.view_browser import AXE, Tab, browser_of, chromium, grave_violations
from support.view_server import MATRIX, Served, serving_of, write_pair
from tiepoint.geometry import apply_homography
from tiepoint.service.view.inputs import open_session


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_of(open_session(write_pair(tmp_path_factory.mktemp("pair")))) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_of(chromium()) as running:
        yield running


@pytest.fixture(scope="module")
def shared(browser: Any, served: Served) -> Iterator[Tab]:
    tab = Tab(browser, served, reduced_motion="reduce")
    yield tab
    tab.close()


@pytest.fixture
def page(shared: Tab, served: Served) -> Iterator[Tab]:
    (pair,) = served.session.pairs
    shared.open("#/gallery", ".cards li")
    shared.open(f"#/pair/{pair}", ".verdict")
    yield shared
    assert shared.problems == []


def facts(page: Tab) -> str:
    return str(page.page.locator(".controls").inner_text())


def test_verdict_and_figures_are_those_of_the_registration(page: Tab, served: Served) -> None:
    (pair,) = served.session.pairs
    result = served.session.fit(pair).registration
    text = facts(page)
    assert "Registered" in text and "homography" in text and "70 (88 %)" in text
    assert f"{result.reprojection_px.rms:.2f} px" in text


def test_moving_one_view_moves_the_other_by_the_model(page: Tab) -> None:
    box = page.page.locator(".pane").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    page.page.mouse.move(x - 40, y - 25, steps=4)
    page.page.mouse.up()
    page.page.keyboard.press("+")
    page.settle()
    a, b = page.view(0), page.view(1)
    np.testing.assert_allclose(b[:2], apply_homography(MATRIX, [a[:2]])[0], atol=0.3)
    zoom = np.sqrt(np.linalg.det(MATRIX[:2, :2]))
    assert b[2] == pytest.approx(a[2] / zoom, rel=0.01)
    page.page.locator(".pane").nth(1).focus()
    page.page.keyboard.press("ArrowLeft")
    page.settle()
    back = apply_homography(np.linalg.inv(MATRIX), [page.view(1)[:2]])[0]
    np.testing.assert_allclose(page.view(0)[:2], back, atol=0.3)
    page.page.get_by_label("Link pan and zoom").uncheck()
    before = page.view(0)
    page.page.keyboard.press("ArrowLeft")
    page.settle()
    assert page.view(0) == before


def test_a_rejected_match_states_its_reason(page: Tab, served: Served) -> None:
    (pair,) = served.session.pairs
    result = served.session.fit(pair).registration
    page.page.get_by_label("Show", exact=True).select_option("rejected")
    page.page.locator(".pane").first.focus()
    page.page.keyboard.press("n")
    page.page.wait_for_selector(".patches")
    wrong = int(np.flatnonzero(~result.inliers)[0])
    distance = float(np.hypot(*(result.xy_b[wrong] - result.transform(result.xy_a[wrong]))))
    text = page.page.locator(".inspector").inner_text()
    assert f"Rejected: {distance:.1f} px" in text


def test_a_match_is_removed_and_a_tie_point_added_by_keys_and_fitted_again(page: Tab) -> None:
    keyboard = page.page.keyboard
    page.page.locator(".pane").first.focus()
    keyboard.press("n")
    keyboard.press("x")
    page.until("() => document.querySelector('.inspector').innerText.includes('Removed by hand')")
    keyboard.press("a")
    keyboard.press("Enter")
    keyboard.press("Enter")
    assert "1 removed, 1 added" in facts(page)
    keyboard.press("f")
    page.until("() => document.querySelector('.controls').innerText.includes('Fitted with 1')")
    assert "Fitted with 1 removed and 1 added" in facts(page) and "70 (88 %)" in facts(page)
    page.page.get_by_role("button", name="Discard changes").click()
    page.until("() => !document.querySelector('.controls').innerText.includes('Fitted with')")


def test_a_tie_point_is_added_by_clicks(page: Tab) -> None:
    page.page.get_by_role("button", name="Add tie point").click()
    for side in (0, 1):
        box = page.page.locator(".pane").nth(side).bounding_box()
        page.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.page.wait_for_timeout(350)  # a second click at once would be a double click
    page.until("() => document.querySelector('.controls').innerText.includes('1 added')")


def test_swipe_shows_a_on_b_left_of_the_boundary(page: Tab) -> None:
    for _ in range(1):
        page.page.keyboard.press("m")
    handle = page.page.get_by_role("slider", name="Boundary")
    handle.wait_for(state="visible")
    page.page.get_by_label("Show", exact=True).select_option("none")
    page.settle()
    means = []
    for key in ("End", "Home"):
        handle.press(key)
        page.settle()
        page.page.wait_for_timeout(150)
        picture = page.shot(".pane:not([hidden]) .osd")
        height, width = picture.shape[:2]
        means.append(
            float(picture[height // 2 - 40 : height // 2 + 40, width // 3 : -width // 3].mean())
        )
    # B is half as bright as A.
    assert means[0] / means[1] == pytest.approx(2, rel=0.15)
    assert handle.get_attribute("aria-valuenow") == "0"
    page.page.locator(".pane:not([hidden])").focus()
    page.page.keyboard.press("b")
    page.page.wait_for_selector(".caption:not([hidden])")
    assert page.page.locator(".caption").inner_text() == "A on B"
    page.page.wait_for_timeout(900)  # with less motion it does not switch by itself
    assert page.page.locator(".caption").inner_text() == "A on B"
    page.page.keyboard.press("b")
    assert page.page.locator(".caption").inner_text() == "B"


def test_the_most_similar_keypoints_of_the_other_image_are_listed(page: Tab) -> None:
    page.page.locator(".pane").first.focus()
    page.page.keyboard.press("n")
    page.page.wait_for_selector(".near li")
    assert page.page.locator(".near li").count() == 5
    page.page.locator(".near a").first.click()
    page.page.wait_for_selector(".legend")
    assert page.page.title().startswith("b.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(page: Tab, served: Served, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci in web/")
    (pair,) = served.session.pairs
    page.page.emulate_media(color_scheme=scheme)
    item = next(iter(served.session.items))
    places = (
        (f"#/pair/{pair}", ".verdict"),
        (f"#/image/{item}", ".legend"),
        ("#/gallery", ".cards li"),
    )
    for place, ready in places:
        page.open(place, ready)
        page.page.keyboard.press("n")
        assert grave_violations(page.page) == [], place

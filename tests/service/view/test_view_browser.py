"""The page of one image and the gallery, in a real browser."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the page needs the extra serve")
pytest.importorskip("uvicorn", reason="the page needs the extra serve")

from support.view_browser import Tab, browser_of, centre_of, chromium
from support.view_server import Served, scene, serving_of, write_features, write_image
from tiepoint.service.view.inputs import open_session

SIZE_HW = (1100, 1500)
CORNERS = [(700, 500), (0, 0), (1499, 1099), (1023, 511), (3, 1099)]
"""px of white pixels, of which one is at a joint of tiles, and three at the border."""


STATUS = "document.querySelector('.controls .status')"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("one")
    dots = np.full((*SIZE_HW, 3), 20, np.uint8)
    for x, y in CORNERS:
        dots[y, x] = 255
    dots = write_image(folder / "dots.png", dots)
    write_features(folder / "dots.npz", dots, CORNERS, SIZE_HW)
    picture = write_image(folder / "scene.png", scene(1, (360, 480)))
    many = np.random.default_rng(0).uniform((5, 5), (475, 355), (400, 2))
    write_features(folder / "many.npz", picture, many, (360, 480))
    write_features(folder / "gone.npz", folder / "nothing.png", [[10, 20]], (60, 80))
    names = ("dots.npz", "many.npz", "gone.npz")
    with serving_of(open_session([str(folder / name) for name in names] + [str(picture)])) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_of(chromium()) as running:
        yield running


@pytest.fixture(scope="module")
def first(browser: Any, served: Served) -> Tab:
    return Tab(browser, served)


@pytest.fixture
def tab(browser: Any, served: Served, first: Tab) -> Iterator[Callable[..., Tab]]:
    """Opens tabs: the one that all tests share, or for options another one."""
    opened: list[Tab] = []

    def make(**options: Any) -> Tab:
        if not options:
            first.page.evaluate("() => { location.hash = '#/gallery'; }")
            first.page.wait_for_selector(".cards li")
            return first
        opened.append(Tab(browser, served, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
        assert one.problems == []
    assert first.problems == []


def place(served: Served, index: int, **values: Any) -> str:
    item = list(served.session.items)[index]
    return f"#/image/{item}?" + "&".join(f"{name}={value}" for name, value in values.items())


def shown(page: Tab) -> int:
    page.until(f"() => {STATUS}.textContent.includes(' of ')")
    text = page.page.locator(".controls .status").first.inner_text()
    return int(text.split(" of ")[0].replace(",", ""))


@pytest.mark.parametrize("ratio", [1, 2])
def test_a_point_is_drawn_within_half_a_pixel_of_the_corner_that_it_names(
    tab: Callable[..., Tab], served: Served, ratio: int
) -> None:
    page = tab() if ratio == 1 else tab(device_scale_factor=ratio)
    zoom = 16
    for x, y in CORNERS:
        page.open("#/gallery", ".cards li")
        page.open(place(served, 0, x=x, y=y, z=zoom, r=4, p=0), ".legend")
        pixel = centre_of(page.shot(".osd").min(axis=2) > 250)
        page.page.keyboard.press("k")
        page.settle()
        stage = page.shot(".osd")
        # A ramp colour of the score: neither the grey ground nor the white pixel around it.
        coloured = stage.max(axis=2).astype(int) - stage.min(axis=2) > 60
        point = centre_of(coloured)
        off = np.hypot(point[0] - pixel[0], point[1] - pixel[1]) / (zoom * ratio)
        assert off < 0.1, f"the point of {x}, {y} is {off:.2f} px of the image off"


def test_a_place_on_the_screen_is_the_same_place_of_the_image_at_every_zoom(
    tab: Callable[..., Tab], served: Served
) -> None:
    page = tab()
    page.open(place(served, 1, x=240, y=180, z=1), ".legend")
    page.page.locator(".pane").focus()
    for _ in range(3):
        page.page.keyboard.press("+")
    page.page.wait_for_timeout(600)
    x, y, z = page.view()
    assert (x, y) == pytest.approx((240, 180), abs=0.1) and z == pytest.approx(1.3**3, rel=0.02)
    page.page.keyboard.press("1")
    page.settle()
    assert page.view()[2] == pytest.approx(16)
    page.page.keyboard.press("ArrowRight")
    page.settle()
    assert page.view()[0] > x


def test_score_and_top_k_and_scale_filter_what_is_shown(
    tab: Callable[..., Tab], served: Served
) -> None:
    page = tab()
    page.open(place(served, 1, s=0.5), ".legend")
    features = served.session.features(list(served.session.items)[1])
    assert shown(page) == int((features.scores >= 0.5).sum())
    slider = page.page.get_by_label("Top k")
    slider.focus()
    slider.press("Home")
    assert shown(page) == 1
    slider.press("End")
    page.page.get_by_label("Scale where found").select_option("2")
    assert shown(page) == int(((features.scores >= 0.5) & (features.scales_px == 2)).sum())
    page.page.get_by_label("Least score").evaluate(
        "s => { s.value = 0; s.dispatchEvent(new Event('input')); }"
    )
    assert shown(page) == 200


def test_hovering_shows_the_keypoint_its_pixels_and_its_covariance(
    tab: Callable[..., Tab], served: Served
) -> None:
    page = tab()
    page.open(place(served, 0, x=700, y=500, z=16, e=1), ".legend")
    box = page.page.locator(".osd").bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + box["height"] / 2)
    page.page.wait_for_selector(".point")
    page.settle()
    text = page.page.locator(".inspector").inner_text()
    assert "700.00" in text and "500.00" in text and "0.9000" in text and "0.50, 0.40" in text
    patch = page.shot(".patch")
    middle = patch[len(patch) // 2 - 20 : len(patch) // 2 + 20]
    assert middle.max() > 200 and np.median(patch) < 60
    page.page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.page.wait_for_selector(".point", state="detached")


def test_ellipses_have_the_size_of_their_covariance(
    tab: Callable[..., Tab], served: Served
) -> None:
    page = tab()
    page.open(place(served, 0, x=700, y=500, z=32, e=1, ef=3, p=0), ".legend")
    stage = page.shot(".osd")
    coloured = stage.max(axis=2).astype(int) - stage.min(axis=2) > 50
    rows, columns = np.nonzero(coloured)
    # The outline of 3 standard deviations: 0.5 px in x and 0.4 px in y, 32 px of the screen each.
    assert np.ptp(columns) + 1 == pytest.approx(2 * 3 * 0.5 * 32, abs=4)
    assert np.ptp(rows) + 1 == pytest.approx(2 * 3 * 0.4 * 32, abs=4)


def test_the_keyboard_steps_through_keypoints_and_announces_them(
    tab: Callable[..., Tab], served: Served
) -> None:
    page = tab()
    page.open(place(served, 1, z=4, x=240, y=180), ".legend")
    xy = served.session.features(list(served.session.items)[1]).xy
    for index in (0, 1):
        page.page.keyboard.press("n")
        words = f"Keypoint {index + 1}: x {xy[index, 0]:.2f}, y {xy[index, 1]:.2f}"
        page.until(f"() => document.getElementById('live').textContent.startsWith('{words}')")
        page.settle()
        x, y, _ = page.view()
        assert abs(x - xy[index, 0]) < 63 and abs(y - xy[index, 1]) < 60
    page.page.keyboard.press("p")
    page.until("() => document.getElementById('live').textContent.includes('t 1:')")
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector(".point", state="detached")


def test_keypoints_are_visible_while_the_keyboard_is_on_the_image(
    tab: Callable[..., Tab], served: Served
) -> None:
    page = tab()
    page.open(place(served, 0, x=700, y=500, z=16, r=4), ".legend")
    page.page.keyboard.press("k")
    page.page.keyboard.press("k")
    page.page.locator(".pane").focus()
    assert page.page.evaluate("document.activeElement.matches('.pane:focus-visible')")
    page.settle()
    stage = page.shot(".osd")[8:-8, 8:-8]  # without the ring of the focus
    assert (stage.max(axis=2).astype(int) - stage.min(axis=2) > 60).sum() > 30


def test_the_hash_restores_the_view(tab: Callable[..., Tab], served: Served) -> None:
    page = tab()
    page.open(place(served, 1, x=100.25, y=50.5, z=3, k=7, e=1, sel=4), ".legend")
    page.page.wait_for_timeout(400)
    kept, view = page.page.evaluate("location.hash"), page.view()
    other = tab()
    other.open(kept, ".point")
    assert other.view() == pytest.approx(view, abs=6e-3)
    assert shown(other) == 7 and other.page.get_by_label("Covariance ellipses").is_checked()
    assert other.page.locator(".point dd").nth(3).inner_text() == "5"  # rank


def test_exports_hold_what_is_shown(tab: Callable[..., Tab], served: Served) -> None:
    page = tab()
    page.open(place(served, 1, x=240, y=180, z=6, k=100), ".legend")
    with page.page.expect_download() as download:
        page.page.keyboard.press("c")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    box = page.page.locator(".osd").bounding_box()
    features = served.session.features(list(served.session.items)[1])
    centre = np.array([240, 180])
    reach = np.array([box["width"], box["height"]]) / 12
    inside = (np.abs(features.xy[:100] - centre) <= reach).all(axis=1)
    assert [int(row["index"]) for row in rows] == np.flatnonzero(inside).tolist()
    for row in rows:
        index = int(row["index"])
        assert np.float32(row["x"]) == features.xy[index, 0]
        assert np.float32(row["score"]) == features.scores[index]
    with page.page.expect_download() as download:
        page.page.get_by_role("button", name="Save view as PNG").click()
    picture = cv2.imread(str(download.value.path()))[..., ::-1]
    on_screen = page.shot(".osd")
    assert picture.shape == on_screen.shape
    tools = on_screen.shape[0] - 60  # below are buttons
    assert np.median(np.abs(picture[:tools].astype(int) - on_screen[:tools])) <= 1


def test_a_vanished_image_leaves_its_keypoints_and_the_rest(
    tab: Callable[..., Tab], served: Served
) -> None:
    page = tab()
    page.open(place(served, 2), ".legend")
    notice = page.page.locator(".pane .notice").inner_text()
    assert "cannot be shown" in notice and "nothing.png" in notice
    assert shown(page) == 1
    page.open("#/gallery", ".cards .broken")
    assert page.page.locator(".cards .broken").count() == 1
    assert page.page.locator(".cards img").count() == 3


def test_a_new_radius_detects_again(tab: Callable[..., Tab], served: Served) -> None:
    page = tab()
    page.open(place(served, 3), ".legend")
    before = shown(page)
    page.page.get_by_label("NMS radius").evaluate(
        "s => { s.value = 16; s.dispatchEvent(new Event('input')); }"
    )
    page.until("() => location.hash.includes('nms=16')")
    picture = list(served.session.items)[3]
    assert 0 < shown(page) == len(served.session.features(picture, 16)) < before


def test_the_heat_map_is_the_networks(tab: Callable[..., Tab], served: Served) -> None:
    page = tab()
    page.open(place(served, 3, p=0), ".legend")
    before = page.shot(".osd").astype(int)
    page.page.keyboard.press("h")
    page.until(
        "() => performance.getEntriesByType('resource').some(e => e.name.includes('-heat/'))"
    )
    page.settle()
    changed = np.abs(page.shot(".osd").astype(int) - before).max(axis=2) > 12
    picture = list(served.session.items)[3]
    x, y, z = page.view()
    best = served.session.features(picture).xy[:20]
    height, width = changed.shape
    at = np.rint((best - [x, y]) * z + [width / 2, height / 2]).astype(int)
    near = [changed[max(0, v - 6) : v + 6, max(0, u - 6) : u + 6].any() for u, v in at]
    assert np.mean(near) > 0.9 and changed.mean() < 0.5


def test_korean_and_english_by_the_browser_and_by_the_switch(
    tab: Callable[..., Tab], served: Served
) -> None:
    page = tab(locale="ko-KR")
    page.open(place(served, 1), ".legend")
    assert page.page.evaluate("document.documentElement.lang") == "ko"
    assert "최소 점수" in page.page.locator(".controls").inner_text()
    page.page.get_by_role("button", name="영어로").click()
    page.page.wait_for_selector(".legend")
    assert page.page.evaluate("document.documentElement.lang") == "en"
    assert "Least score" in page.page.locator(".controls").inner_text()
    page.page.reload()
    page.page.wait_for_selector(".legend")
    assert page.page.evaluate("document.documentElement.lang") == "en"


def test_the_gallery_searches_and_leads_to_images_by_keys_alone(
    tab: Callable[..., Tab], served: Served
) -> None:
    page = tab()
    page.open("#/gallery", ".cards li")
    page.page.keyboard.press("/")
    page.page.keyboard.type("SCENE")
    page.until("() => document.querySelectorAll('.cards li').length === 2")
    page.until("() => location.hash.includes('q=SCENE')")
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector(".legend")
    page.page.keyboard.press("]")
    page.until("() => document.title.startsWith('nothing.png')")
    page.page.wait_for_selector(".legend")
    page.page.keyboard.press("?")
    assert page.page.locator("dialog[open] kbd").count() > 20
    page.page.keyboard.press("Escape")
    page.until("() => document.querySelector('dialog') === null")

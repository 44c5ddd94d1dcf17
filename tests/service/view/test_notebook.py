"""The widget of a notebook: its Python side, and its script in a browser without Jupyter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("anywidget", reason="needs the extra notebook")

import tiepoint
from support.notebook_cell import Cell, Kernel
from support.registered import CAMERA, SIZE_HW
from support.view_browser import AXE, browser_of, chromium, grave_violations
from support.view_server import MATRIX, scene, unpacked, write_two_views
from tiepoint import notebook
from tiepoint.errors import ConfigError, ImageError
from tiepoint.notebook import view


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    a = scene(3, (240, 320))
    return a, np.asarray(cv2.warpPerspective(a, MATRIX, (320, 240)) // 2, np.uint8)


@pytest.fixture(scope="module")
def registration(images: tuple[np.ndarray, np.ndarray]) -> tiepoint.Registration:
    result = tiepoint.register(*images)
    assert result.success
    return result


def decoded(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return image[..., [2, 1, 0, *range(3, image.shape[2])]]


def test_one_image_has_its_picture_and_its_keypoints(
    images: tuple[np.ndarray, np.ndarray],
) -> None:
    features = tiepoint.Detector()(images[0], max_keypoints=50)
    widget = view(images[0], features=features)
    meta, arrays = unpacked(widget._first)
    np.testing.assert_array_equal(arrays["points"][:, :2], features.xy)
    assert meta["count"] == 50 and widget._about["pair"] is None
    (picture,), (item,) = widget._pictures, widget._about["items"]
    np.testing.assert_array_equal(decoded(picture), images[0])
    assert item["stored"] and (item["width"], item["height"]) == (320, 240)
    assert json.dumps(widget._about)


def test_a_large_picture_is_downscaled_and_the_keypoints_are_those_of_the_image(
    images: tuple[np.ndarray, np.ndarray],
) -> None:
    widget = view(images[0], max_side=100)
    (item,) = widget._about["items"]
    assert item["shown"] == [100, 75] and item["type"] == "image/jpeg"
    expected = cv2.resize(images[0], (100, 75), interpolation=cv2.INTER_AREA)
    greys = [
        cv2.cvtColor(one, cv2.COLOR_RGB2GRAY).astype(int)
        for one in (decoded(widget._pictures[0]), expected)
    ]
    assert np.abs(greys[0] - greys[1]).mean() < 4
    meta, arrays = unpacked(widget._first)
    assert meta["size_hw"] == [240, 320] and arrays["points"][:, 0].max() > 200


def test_a_pair_shows_the_given_registration_and_fits_again(
    images: tuple[np.ndarray, np.ndarray], registration: tiepoint.Registration
) -> None:
    widget = view(*images, registration=registration)
    meta, arrays = unpacked(widget._first)
    assert meta["success"] and meta["inliers"] == registration.inliers.sum()
    np.testing.assert_array_equal(arrays["matches"][:, :2], registration.xy_a)
    kernel = Kernel(widget)
    _, data = kernel.ask(name="fit", pair="pair", removed=[0, 1], added=[[1, 2, 3, 4]])
    again, arrays = unpacked(data)
    assert again["matches"] == meta["matches"] - 1 and arrays["matches"][-1, 8] == -1
    _, data = kernel.ask(name="nearest_in_pair", pair="pair", side="a", index=0)
    assert len(json.loads(data)) == 5
    content, data = kernel.ask(name="source", source="pair-aligned")
    assert content["tiles"]["type"] == "image/png" and decoded(data).shape == (240, 320, 4)


@pytest.mark.parametrize("model", ["fundamental", "essential"])
def test_a_pair_with_depth_keeps_its_model_and_its_cameras(tmp_path: Path, model: Any) -> None:
    a, b, matches = write_two_views(tmp_path)
    cameras = CAMERA if model == "essential" else None
    result = tiepoint.register(
        tiepoint.load(a), tiepoint.load(b), matches=tiepoint.load_matches(matches), model=model,
        intrinsics=cameras,
    )  # fmt: skip
    assert result.success
    image = np.zeros(SIZE_HW, np.uint8)
    widget = view(image, image, registration=result, intrinsics=cameras)
    meta, _ = unpacked(widget._first)
    assert meta["model"] == model and np.shape(meta["fundamental"]) == (3, 3)
    _, data = Kernel(widget).ask(name="fit", pair="pair", removed=[0], added=[])
    again, _ = unpacked(data)
    assert again["model"] == model and again["matches"] == meta["matches"] - 1
    if model == "essential":
        with pytest.raises(ConfigError, match="needs intrinsics"):
            view(image, image, registration=result)


def test_requests_of_one_image(images: tuple[np.ndarray, np.ndarray]) -> None:
    kernel = Kernel(view(images[0]))
    _, few = kernel.ask(name="points", item="a", nms=16)
    _, many = kernel.ask(name="points", item="a", nms=None)
    assert many == kernel.widget._first
    assert 0 < unpacked(few)[0]["count"] < unpacked(many)[0]["count"]
    assert kernel.ask(name="nearest", item="a", index=0, nms=None)[1] == b"[]"
    content, _ = kernel.ask(name="source", source="a-heat")
    assert content["tiles"]["shown"] == [320, 240]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"name": "read", "item": "/etc/passwd"},
        {"name": "points", "item": "/etc/passwd", "nms": None},
        {"name": "source", "source": "../a"},
        {"name": "points", "item": "a", "nms": "x"},
        {"name": "fit", "pair": "pair", "removed": "x", "added": []},
        {"name": "fit", "pair": "none", "removed": [], "added": []},
        {"name": "nearest", "item": "a"},
    ],
)
def test_a_wrong_request_is_answered_with_an_error(
    images: tuple[np.ndarray, np.ndarray], registration: Any, request_: dict[str, Any]
) -> None:
    kernel = Kernel(view(*images, registration=registration))
    content, data = kernel.ask(**request_)
    assert content["error"] and data == b""


def test_wrong_arguments_are_named(
    images: tuple[np.ndarray, np.ndarray],
    registration: tiepoint.Registration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = images
    features = registration.features_a
    with pytest.raises(ConfigError, match="expected both"):
        view(a, registration=registration)
    with pytest.raises(ConfigError, match="registration=register"):
        view(a, b, features=features)
    with pytest.raises(ConfigError, match="expected Features"):
        view(a, features=features.xy)
    with pytest.raises(ConfigError, match="another image"):
        view(a[:100], features=features)
    with pytest.raises(ConfigError, match="of type ndarray, expected Registration"):
        view(a, b, registration=registration.matrix)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="features_b has"):
        view(a, b[:, :100], registration=registration)
    with pytest.raises(ConfigError, match="max_side is 10"):
        view(a, max_side=10)
    with pytest.raises(ConfigError, match="height is 10"):
        view(a, height=10)
    with pytest.raises(ImageError):
        view("nothing.png")
    monkeypatch.setattr(notebook, "MOST_BYTES", 9000)
    with pytest.raises(ConfigError, match="expected at most 9,000"):
        view(a, features=features)


def test_without_the_extra_the_error_names_it() -> None:
    code = """
import sys
sys.modules["anywidget"] = None
try:
    import tiepoint.notebook
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert "MissingExtraError" in done.stdout and "notebook" in done.stdout


def test_the_widget_needs_no_web_framework() -> None:
    code = """
import sys
for name in ("fastapi", "starlette", "uvicorn", "torch"):
    sys.modules[name] = None
import numpy as np
from tiepoint.notebook import view
print(len(view(np.zeros((64, 64), np.uint8))._pictures))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "1\n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_of(chromium()) as running:
        yield running


def test_a_cell_shows_an_image_and_asks_the_kernel(
    browser: Any, images: tuple[np.ndarray, np.ndarray]
) -> None:
    widget = view(images[0])
    cell = Cell(browser, widget)
    cell.wait(".legend")
    cell.wait(".pane[data-loaded]")
    count = unpacked(widget._first)[0]["count"]
    assert f"{count:,} of {count:,} shown" in cell.text(".controls")
    cell.page.locator(".pane").focus()
    cell.page.keyboard.press("n")
    xy = unpacked(widget._first)[1]["points"][0]
    cell.until(".inspector", f"{xy[0]:.2f}")
    assert cell.page.evaluate("window.keys") == 0  # the notebook's own keys are left alone
    cell.page.get_by_label("NMS radius").evaluate(
        "s => { s.value = 16; s.dispatchEvent(new Event('input')); }"
    )
    fewer = len(widget._session.features("a", 16))
    cell.until(".controls", f"{fewer:,} of {fewer:,} shown")
    cell.page.keyboard.press("1")
    cell.wait(".pane[data-view$=' 16.0000']")
    assert cell.problems == []
    cell.page.evaluate("window.end()")
    assert cell.page.evaluate("window.listeners.size") == 0


def test_the_pixel_below_a_place_is_that_of_the_image(
    browser: Any, images: tuple[np.ndarray, np.ndarray]
) -> None:
    dots = np.full((240, 320, 3), 20, np.uint8)
    dots[100, 200] = 255
    features = tiepoint.Features(np.float32([[200, 100]]), np.float32([0.9]), None, (240, 320))
    cell = Cell(browser, view(dots, features=features))
    cell.wait(".pane[data-loaded]")
    cell.page.locator(".pane").focus()
    cell.page.keyboard.press("1")
    cell.page.keyboard.press("n")
    cell.page.wait_for_timeout(300)
    x, y, z = map(float, cell.page.locator(".pane").get_attribute("data-view").split())
    data = cell.page.locator(".osd").screenshot()
    shot = decoded(data)[..., :3].astype(int)
    height, width = shot.shape[:2]
    white = (shot.min(axis=2) > 250) & (np.indices(shot.shape[:2])[0] < height - 60)
    rows, columns = np.nonzero(white)
    found = np.array([columns.mean(), rows.mean()]) + 0.5
    expected = (np.array([200, 100]) - [x, y]) * z + [width / 2, height / 2]
    assert np.abs(found - expected).max() < 0.5 * z  # the ring covers part of the pixel


def test_a_cell_shows_a_pair_fits_again_and_swipes(
    browser: Any, images: tuple[np.ndarray, np.ndarray], registration: tiepoint.Registration
) -> None:
    cell = Cell(browser, view(*images, registration=registration), reduced_motion="reduce")
    cell.wait(".verdict")
    assert "Registered" in cell.text(".controls")
    cell.page.locator(".pane").first.focus()
    cell.page.keyboard.press("n")
    cell.wait(".near li")
    assert cell.page.locator(".near a").count() == 0  # nowhere to go
    cell.page.keyboard.press("x")
    cell.page.keyboard.press("f")
    cell.until(".controls", "Fitted with 1 removed")
    cell.page.keyboard.press("m")
    cell.wait(".swipe:not([hidden])")
    assert cell.problems == []


def test_without_a_kernel_the_cell_shows_everything_and_states_what_it_cannot(
    browser: Any, images: tuple[np.ndarray, np.ndarray], registration: tiepoint.Registration
) -> None:
    cell = Cell(browser, view(*images, registration=registration), kernel=False)
    cell.wait(".verdict")
    cell.page.locator(".pane").first.focus()
    cell.page.keyboard.press("n")
    cell.until(".inspector", "Inlier")
    cell.page.keyboard.press("x")
    cell.page.keyboard.press("f")
    cell.until(".controls", "does not answer")
    assert cell.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(
    browser: Any, images: tuple[np.ndarray, np.ndarray], scheme: str
) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci in web/")
    cell = Cell(browser, view(images[0]), color_scheme=scheme)
    cell.wait(".legend")
    assert grave_violations(cell.page) == []

"""Chromium for tests of the page, driven by Playwright; skips where either is absent."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support.view_server import Served

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SOFTWARE_GL = (
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)  # fmt: skip
"""No graphics processor is needed, and a container has no other sandbox."""

WINDOW_PX = 820, 520
LANGUAGE = {"locale": "en-US"}
PATIENCE_S = 30.0
FRAMES = (
    "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame("
    "() => requestAnimationFrame(done))))"
)
LOADED = (
    "() => [...document.querySelectorAll('.pane:not([hidden])')]"
    ".every(pane => pane.hasAttribute('data-loaded'))"
)


def chromium() -> str:
    """The program; skips without it, or without Playwright."""
    pytest.importorskip("playwright", reason="tests in a browser need playwright")
    given = os.environ.get("TIEPOINT_CHROMIUM")
    path = given or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if path is None:
        pytest.skip("tests in a browser need chromium")
    return path


@contextmanager
def browser_of(program: str) -> Iterator[Any]:
    """A running browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(SOFTWARE_GL))
        yield browser
        browser.close()


class Tab:
    """A tab with the page, which records what goes wrong in it.

    Attributes:
        page: Playwright's page.
        problems: Messages of the console, errors, and requests to other hosts.
    """

    def __init__(self, browser: Any, served: Served, **options: Any) -> None:
        width, height = WINDOW_PX
        given = {"viewport": {"width": width, "height": height}, **LANGUAGE, **options}
        self.served = served
        self.context = browser.new_context(**given)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._request)
        self.page.goto(served.guard.url)

    def _console(self, message: Any) -> None:
        # Software GL; images that are broken on purpose; tiles of a screen that was left.
        expected = ("GPU stall", "status of 422", "Ignoring tile")
        if message.type in ("error", "warning") and not any(e in message.text for e in expected):
            self.problems.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.served.root, "data:", "blob:")):
            self.problems.append(f"request to {request.url}")

    def open(self, place: str, ready: str) -> None:
        """Go to a place of the page, "#/image/ID?...", and wait for an element."""
        self.page.evaluate("to => { location.hash = to; }", place)
        self.page.wait_for_selector(ready, timeout=1000 * PATIENCE_S)
        self.settle()

    def settle(self) -> None:
        """Wait until the images of all panes have loaded and were drawn."""
        for _ in range(2):  # a new view asks for its tiles in the next frame
            self.page.evaluate(FRAMES)
            self.until(LOADED)
        self.page.evaluate(FRAMES)

    def until(self, condition: str) -> None:
        """Wait for a condition; Playwright's own way needs eval, which the page forbids."""
        end = time.monotonic() + PATIENCE_S
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"never became true: {condition}"
            self.page.wait_for_timeout(30)

    def view(self, pane: int = 0) -> tuple[float, float, float]:
        """x, y and zoom of a pane: px of the image, and CSS px per image px."""
        text = self.page.locator(".pane").nth(pane).get_attribute("data-view")
        x, y, z = map(float, text.split())
        return x, y, z

    def shot(self, selector: str) -> NDArray[np.uint8]:
        """The pixels of an element as they are on the screen, without the tools over it; RGB."""
        self.page.evaluate("() => document.querySelector('.tools').hidden = true")
        data = self.page.locator(selector).first.screenshot(animations="disabled")
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return np.asarray(image[..., ::-1], np.uint8)

    def close(self) -> None:
        self.context.close()


def grave_violations(page: Any) -> list[Any]:
    """Serious and critical findings of axe in a page of Playwright."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run(document)).violations")
    return [
        (one["id"], [node["html"] for node in one["nodes"]][:3])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def centre_of(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean x and y of the pixels of a mask, counted from the outer edge of the first one.

    The border is left out: an element that begins between pixels shows its neighbours there.
    """
    inner = np.zeros_like(mask)
    inner[4:-4, 4:-4] = mask[4:-4, 4:-4]
    rows, columns = np.nonzero(inner)
    assert len(rows), "nothing of this colour is on the screen"
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5

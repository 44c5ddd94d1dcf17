"""The pictures of docs/viewer.md: the page with the two sample photographs, in Chromium.

python web/pictures.py
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "src" / "tiepoint" / "images" / "samples"
PAIR = [str(SAMPLES / f"coffee_{name}.jpg") for name in "ab"]
WINDOW = {"width": 1000, "height": 560}
MOST_BYTES = 140_000


def main() -> int:
    sys.path.insert(0, str(ROOT / "tests"))
    from support.notebook_cell import Cell
    from support.view_browser import Tab, browser_of, chromium
    from support.view_server import serving_of
    from tiepoint.notebook import view
    from tiepoint.service.view.inputs import open_session

    session = open_session(PAIR)
    (pair,), item = session.pairs, next(iter(session.items))
    with serving_of(session) as served, browser_of(chromium()) as browser:
        tab = Tab(browser, served, viewport=WINDOW)
        tab.open(f"#/image/{item}?x=330&y=250&z=9&e=1&ef=3", ".legend")
        tab.page.keyboard.press("n")
        tab.settle()
        tab.page.wait_for_timeout(1500)
        write(tab.page.screenshot(), "viewer_image.png")
        tab.open(f"#/pair/{pair}?x=270&y=180&z=0.63&sel=40", ".verdict")
        tab.page.wait_for_timeout(2500)
        write(tab.page.screenshot(), "viewer_pair.png")
        tab.close()
        cell = Cell(browser, view(*PAIR), viewport=WINDOW, reduced_motion="reduce")
        cell.wait(".verdict")
        cell.page.locator(".pane").first.focus()
        cell.page.keyboard.press("n")
        cell.wait(".near li")
        cell.page.wait_for_timeout(1500)
        write(cell.page.locator("#cell").screenshot(), "viewer_notebook.png")
    return 0


def write(data: bytes, name: str) -> None:
    """Write a screenshot, with few colours if it would be large otherwise."""
    path = ROOT / "docs" / "images" / name
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    picture.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        picture.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())

"""Images that are read in windows: right tiles at all levels, bounded memory, tiles on request."""

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

pytest.importorskip("fastapi", reason="the page needs the extra serve")

import tiepoint
from support.view_browser import Tab, browser_of, chromium
from support.view_server import Served, scene, serving_of, unpacked
from tiepoint.errors import ImageError
from tiepoint.images.arrays import Decoded
from tiepoint.images.opening import open_windows
from tiepoint.images.reading import read
from tiepoint.images.windows import ArrayWindows, Window, tiles
from tiepoint.plotting import to_rgb8
from tiepoint.service.view import large, pixels
from tiepoint.service.view.inputs import open_session
from tiepoint.service.view.large import LargeSource
from tiepoint.service.view.pixels import ArraySource

SIZE_HW = (2101, 8219)
"""Odd sides, and six levels, of which three are kept."""


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.asarray(cv2.resize(scene(2, (264, 1032)), SIZE_HW[::-1]), np.uint8)


def assert_same_tiles(source: LargeSource, expected: ArraySource) -> None:
    assert source.size_hw == expected.size_hw
    for level in reversed(range(pixels.level_count(source.size_hw))):
        for window in tiles(pixels.level_hw(source.size_hw, level), 2048):
            np.testing.assert_array_equal(source.read(window, level), expected.read(window, level))


@pytest.mark.parametrize("kind", ["colour", "grey"])
def test_tiles_are_those_of_the_whole_image(picture: np.ndarray, kind: str) -> None:
    image = picture if kind == "colour" else picture[..., 1]
    source = LargeSource(ArrayWindows(image))
    assert_same_tiles(source, ArraySource.of(to_rgb8(read(image))))


def deep(picture: np.ndarray) -> np.ndarray:
    return picture[..., 1].astype(np.uint16) * 40 + 900


def gappy(picture: np.ndarray) -> np.ndarray:
    image = picture[..., 1].astype(np.float32) * 7
    image[300:500, 1000:4000] = np.nan
    return image


@pytest.mark.parametrize("make", [deep, gappy])
def test_other_types_are_stretched_as_the_whole_image(picture: np.ndarray, make: Any) -> None:
    image = make(picture)
    source, expected = LargeSource(ArrayWindows(image)), to_rgb8(read(image))
    for window in tiles(SIZE_HW, 1024):
        part = source.read(window, 0).astype(int)
        assert np.abs(part - expected[window.slices]).max() <= 1  # round-off of the range


def test_levels_of_the_file_are_read_and_others_made_of_them(picture: np.ndarray) -> None:
    class Reduced(ArrayWindows):
        """Has a level 2, in another colour than the image."""

        read_levels: list[int] = []  # noqa: RUF012

        def read(self, window: Window, level: int = 0) -> Decoded:
            self.read_levels.append(level)
            if level == 0:
                return super().read(window)
            height, width = window.height, window.width
            return Decoded(np.full((height, width, 3), 70 + level, np.uint8))

    source = Reduced(picture)
    level_2 = pixels.level_hw(SIZE_HW, 2)
    source.levels = [SIZE_HW, (1050, 4109), level_2]  # the second is half, but rounded down
    shown = LargeSource(source)
    assert not (shown.read(Window(0, 0, 100, 100), 1) == 72).all()
    assert set(source.read_levels) == {0}
    source.read_levels.clear()
    for level in (2, 3, 4):
        assert (shown.read(Window(0, 0, 50, 100), level) == 72).all()
    assert set(source.read_levels) == {2}


def test_overviews_of_a_geotiff_are_its_levels(picture: np.ndarray, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.enums import Resampling

    path = tmp_path / "image.tif"
    height, width = SIZE_HW
    shape = {"height": height, "width": width, "count": 3, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", driver="GTiff", **shape) as file:
        file.write(np.moveaxis(picture, -1, 0))
        file.build_overviews([2, 4], Resampling.average)
    with open_windows(path) as windows:
        source = LargeSource(windows)
        assert source._in_file == {0: 0, 1: 1, 2: 2}
        expected = ArraySource.of(picture)
        for level in range(pixels.level_count(SIZE_HW)):
            window = Window(0, 0, *pixels.level_hw((1600, 8000), level))
            apart = np.abs(source.read(window, level).astype(int) - expected.read(window, level))
            assert apart.mean() < 3, level  # GDAL stretches odd sides to whole ones


def test_an_overview_is_the_coarsest_level_of_a_size(picture: np.ndarray) -> None:
    source = LargeSource(ArrayWindows(picture))
    assert source.overview(256).shape[:2] == pixels.level_hw(SIZE_HW, 5)
    assert source.overview(2000).shape[:2] == pixels.level_hw(SIZE_HW, 2)
    assert source.overview(9000).shape[:2] == SIZE_HW


MEASURED = """
import json, sys, threading, time
from pathlib import Path
import cv2, numpy as np
from tiepoint.service.view.inputs import open_session
from tiepoint.service.view import pixels

def anonymous():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024

def peak(work):
    most, done = [anonymous()], threading.Event()
    def watch():
        while not done.wait(0.002):
            most.append(anonymous())
    thread = threading.Thread(target=watch)
    thread.start()
    value = work()
    done.set()
    thread.join()
    return max(most) - most[0], value

def tiles():
    source = session.source(item)
    values = []
    for x, y in json.loads(sys.argv[2]):
        png = pixels.tile(source, 0, x // 512, y // 512)
        decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        values.append(decoded[y % 512, x % 512].tolist())
    for level in reversed(range(pixels.level_count(source.size_hw))):
        pixels.tile(source, level, 0, 0)
    session.thumbnail(item)
    return values

session = open_session([sys.argv[1]])
(item,) = session.items
pixels.png(np.zeros((9, 9, 3), np.uint8))
megabytes, values = peak(tiles)
whole, _ = peak(lambda: np.load(sys.argv[1]).copy())
print(json.dumps({"megabytes": megabytes, "whole": whole, "values": values}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_memory_is_bounded_however_large_the_image_is(tmp_path: Path) -> None:
    side, path = 12_000, tmp_path / "image.npy"
    places = [(0, 0), (side - 1, side - 1), (6143, 511), (6144, 512), (77, 11_000)]
    image = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, 3))  # sparse
    for index, (x, y) in enumerate(places):
        image[y, x] = (200 - index, 100, 50 + index)
    image.flush()
    command = [sys.executable, "-c", MEASURED, str(path), json.dumps(places)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found = json.loads(done.stdout)
    assert found["values"] == [[50 + i, 100, 200 - i] for i in range(len(places))]  # BGR
    assert found["megabytes"] < 120 < 800 < found["whole"], found


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("large")
    np.save(folder / "scan.npy", scene(4, (600, 700)))
    (folder / "broken.npy").write_bytes(b"\x93NUMPY no array")
    with serving_of(open_session([str(folder / "scan.npy"), str(folder / "broken.npy")])) as one:
        yield one
    one.session.close()


def test_keypoints_are_detected_in_tiles_only_when_asked(served: Served) -> None:
    item = next(iter(served.session.items))
    about = served.request(f"/api/images/{item}").json()
    assert about["windowed"] and about["count"] is None and about["error"] is None
    refused = served.request(f"/api/images/{item}/points")
    assert refused.status == 422 and "700x600 px" in refused.json()["error"]["message"]
    assert served.session.known_features() == {}
    meta, arrays = unpacked(served.request(f"/api/images/{item}/points?tiled=true").body)
    (path,) = (one.path for one in served.session.items.values() if one.id == item)
    expected = tiepoint.detect_tiled(np.load(str(path)), max_keypoints=50_000)
    assert meta["count"] == len(expected) > 100
    np.testing.assert_allclose(arrays["points"][:, :2], expected.xy, atol=1e-3)
    again, _ = unpacked(served.request(f"/api/images/{item}/points").body)
    assert again == meta
    heat = served.request(f"/api/sources/{item}-heat").json()
    assert heat["error"] is None and not heat["windowed"]


def test_a_broken_map_is_an_error_and_the_rest_works(served: Served) -> None:
    _, broken = served.session.items
    assert "broken.npy" in served.request(f"/api/images/{broken}").json()["error"]
    (pair,) = served.session.pairs
    answer = served.request(f"/api/pairs/{pair}/fit", method="POST", body={})
    assert answer.status == 422


def test_a_whole_image_is_not_detected_in_tiles(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), scene(1, (40, 50)))
    session = open_session([str(tmp_path / "a.png")])
    (item,) = session.items
    with pytest.raises(ImageError, match="as a whole"):
        session.features_in_tiles(item)


def test_a_small_raster_is_decoded_as_a_whole(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("rasterio")
    cv2.imwrite(str(tmp_path / "a.tif"), scene(1, (40, 50)))
    session = open_session([str(tmp_path / "a.tif")])
    (item,) = session.items
    assert session.large(item) is None and session.image(item).size_hw == (40, 50)
    monkeypatch.setattr("tiepoint.service.view.session.WHOLE_PX", 1999)
    again = open_session([str(tmp_path / "a.tif")])
    assert again.large(item) is not None
    whole = Window(0, 0, 40, 50)
    shown, expected = (one.source(item).read(whole, 0) for one in (again, session))
    np.testing.assert_array_equal(shown, expected)
    again.close()


def test_all_steps_fit_into_a_tile() -> None:
    """Memory of one request: the pixels of a tile at the coarsest level that is not kept."""
    assert (pixels.TILE_PX << (large.STEPS - 1)) ** 2 * 3 < 20_000_000


def test_the_page_detects_a_large_image_when_asked(served: Served) -> None:
    item = next(iter(served.session.items))
    with browser_of(chromium()) as browser:
        page = Tab(browser, served)
        page.open(f"#/image/{item}?x=350&y=300&z=16", ".pane[data-view]")
        expected = np.load(str(served.session.items[item].path))
        shown = page.shot(".osd")
        height, width = shown.shape[:2]
        middle = shown[height // 2 + 8, width // 2 + 8]  # within the square of the pixel below
        near = expected[300:302, 350:352].reshape(-1, 3)
        assert (np.abs(near.astype(int) - middle.astype(int)).max(axis=1) <= 2).any()
        assert served.session.known_features() == {}
        page.page.get_by_role("button", name="Detect in tiles").click()
        page.page.wait_for_selector(".legend")
        count = len(served.session.features(item))
        assert f"{count:,} of {count:,} shown" in page.page.locator(".controls").inner_text()
        assert page.page.get_by_label("NMS radius").count() == 0
        assert page.problems == []

"""An interrupted detection in tiles resumes, and gives the bits of one that was not."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.tiled import Damaged, assert_identical
from tiepoint import Detector, Features, detect_tiled
from tiepoint.errors import FormatError, ImageError, OutputError
from tiepoint.files.lock import WriteLock
from tiepoint.images.reading import NamedBytes, read

WAYS = {
    "best": {"max_keypoints": 60},
    "all": {"mapped": True, "covariance_scale": 0.3},
    "in memory": {"scales": (1, 0.5)},
    "spread": {"max_keypoints": 50, "spread": True},
}
WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


class Counted:
    """A detector's network that counts its tiles and may be interrupted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tiles, self.stop_after = 0, 10**9
        original = Detector._window_maps

        def counted(detector: Detector, *arguments: Any, **more: Any) -> Any:
            self.tiles += 1
            return original(detector, *arguments, **more)

        monkeypatch.setattr(Detector, "_window_maps", counted)

    def progress(self, done: int, _total: int) -> None:
        if done >= self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def detect(image: Any, detector: Detector, state: Path | None, **settings: Any) -> Features:
    return detect_tiled(image, detector, tile_px=64, state=state, **settings)


def interrupted(counted: Counted, run: Callable[..., Features], after: int) -> None:
    """A run that ends after some tiles, those of earlier runs among them."""
    counted.stop_after = after
    with pytest.raises(KeyboardInterrupt):
        run(progress=counted.progress)
    counted.stop_after = 10**9


@WAY
def test_a_run_that_is_interrupted_again_and_again_gives_the_same_bits(
    picture: np.ndarray, detector: Detector, way: dict[str, Any], tmp_path: Path, counted: Counted
) -> None:
    state = tmp_path / "state"
    expected = detect(picture, detector, None, **way)
    whole, counted.tiles = counted.tiles, 0

    def run(**more: Any) -> Features:
        return detect(picture, detector, state, **way, **more)

    stops = [1, 9, 10, 25, whole - 2]
    for after in stops:
        interrupted(counted, run, after)
        assert state.exists()
    assert_identical(run(), expected)
    in_flight = 5 + detector.in_flight  # tiles in flight at an interrupt are done once more
    assert counted.tiles <= whole + len(stops) * in_flight
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 10, 0.3, 0.7, 0.999])
def test_a_file_that_is_cut_off_costs_its_last_tiles_only(
    picture: np.ndarray, detector: Detector, tmp_path: Path, counted: Counted, cut: float
) -> None:
    state = tmp_path / "state"
    expected = detect(picture, detector, None, mapped=True)

    def run(**more: Any) -> Features:
        return detect(picture, detector, state, mapped=True, **more)

    interrupted(counted, run, 20)
    os.truncate(state, int(cut if cut >= 1 else cut * state.stat().st_size))
    counted.tiles = 0
    assert_identical(run(), expected)
    assert 10 <= counted.tiles <= (30 if 0.5 < cut < 1 else 48)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threshold": 0.01}, "threshold: 0.032, now 0.01"),
        ({"tile_px": 72}, "tile_px: 64, now 72"),
        ({"mask": np.ones((264, 345), np.uint8)}, "mask: None, now"),
        ({"channels": 1}, "channels: None, now"),
        ({"detector": Detector("default", precision="f32", max_side=None)}, "weights_sha256: "),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)  # fmt: skip
def test_other_settings_start_again_with_a_message(
    picture: np.ndarray, detector: Detector, tmp_path: Path, counted: Counted,
    changes: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    state, given = tmp_path / "state", {"detector": detector, "tile_px": 64}
    interrupted(counted, lambda **more: detect(picture, detector, state, **more), 15)
    expected = detect_tiled(picture, **{**given, **changes})
    assert_identical(detect_tiled(picture, **{**given, **changes}, state=state), expected)
    assert "state: the tiles in it are of another run (" in caplog.text
    assert reason in caplog.text


def test_another_image_or_a_changed_file_starts_again(
    picture: np.ndarray, detector: Detector, tmp_path: Path, counted: Counted,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    state, path = tmp_path / "state", tmp_path / "picture.npy"
    np.save(path, picture)
    interrupted(counted, lambda **more: detect(path, detector, state, **more), 15)
    os.utime(path, ns=(1, 1))
    interrupted(counted, lambda **more: detect(path, detector, state, **more), 2)
    assert "another image: modified_ns" in caplog.text
    caplog.clear()
    for source in (picture, np.ma.masked_array(picture, picture < 0)):
        caplog.clear()
        interrupted(counted, lambda **more: detect(source, detector, state, **more), 15)  # noqa: B023
        other = source.copy()
        other[133, 171] = np.ma.masked if source is not picture else 0
        assert_identical(detect(other, detector, state), detect(other, detector, None))
        assert "pixels_sha256" in caplog.text


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


IN_MEMORY: dict[str, Any] = {
    "array": lambda a: a,
    "bytes": encoded,
    "named bytes": lambda a: NamedBytes(encoded(a), "a.png"),
    "file object": lambda a: io.BytesIO(encoded(a)),
    "pil": Image.fromarray,
    "masked": lambda a: np.ma.masked_equal(a, 0),
    "read": lambda a: read(encoded(a)),
    "tensor": lambda a: pytest.importorskip("torch").from_numpy(a),
}


@pytest.mark.parametrize("kind", IN_MEMORY)
@pytest.mark.parametrize("role", ["mask", "image", "channel"])
def test_images_and_masks_in_memory_are_compared_as_a_whole(
    picture: np.ndarray, detector: Detector, tmp_path: Path, counted: Counted, kind: str, role: str
) -> None:
    if kind == "read" and role == "mask":
        pytest.skip("no mask is a SourceImage")
    state, make, before = tmp_path / "state", IN_MEMORY[kind], np.tile(picture[..., 0], (2, 2))
    after = before.copy()
    after[100:160, 300:400] = 0  # between the samples

    def run(pixels: np.ndarray, state: Path | None, **more: Any) -> Features:
        if role == "mask":
            return detect(before, detector, state, mask=make(pixels), **more)
        channels = 0 if role == "channel" else None
        return detect(make(pixels), detector, state, channels=channels, **more)

    interrupted(counted, lambda **more: run(before, state, **more), 80)
    assert_identical(run(after, state), run(after, None))
    interrupted(counted, lambda **more: run(after, state, **more), 80)
    counted.tiles = 0
    run(after, state)
    assert 0 < counted.tiles < 65  # of 129


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_a_changed_file_behind_a_folder_or_a_virtual_raster_starts_again(
    picture: np.ndarray, detector: Detector, tmp_path: Path, counted: Counted,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    zarr, tifffile = pytest.importorskip("zarr"), pytest.importorskip("tifffile")
    rasterio = pytest.importorskip("rasterio")
    pixels, state = np.tile(picture[..., 0], (2, 2)), tmp_path / "state"
    axes = [{"name": name, "type": "space"} for name in "yx"]
    multiscales = [{"axes": axes, "datasets": [{"path": "0"}], "version": "0.4"}]
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.attrs["multiscales"] = multiscales
    chunked = group.create_array("0", shape=pixels.shape, chunks=(64, 64), dtype=pixels.dtype)
    chunked[:] = pixels
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    from rasterio.shutil import copy

    with rasterio.open(tmp_path / "a.tif") as file:
        copy(file, tmp_path / "a.vrt", driver="VRT")

    def change_chunk() -> None:
        chunked[128:192, 320:384] = 0

    def change_raster() -> None:
        changed = pixels.copy()
        changed[128:192, 320:384] = 0
        tifffile.imwrite(tmp_path / "a.tif", changed)

    for name, change in (("a.zarr", change_chunk), ("a.vrt", change_raster)):
        source = tmp_path / name
        interrupted(counted, lambda **more: detect(source, detector, state, **more), 80)  # noqa: B023
        change()
        caplog.clear()
        assert_identical(detect(source, detector, state), detect(source, detector, None))
        assert "another image: " in caplog.text and "modified_ns" in caplog.text


def test_a_range_of_values_that_was_of_fewer_tiles_starts_again(
    picture: np.ndarray, detector: Detector, tmp_path: Path, counted: Counted,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("tiepoint.images.windows.BLOCK_PX", 9000)  # many strips
    pixels, state = np.tile(picture[..., 0], (3, 3)).astype(np.uint16) * 20, tmp_path / "state"
    pixels[112:120, 200:330] *= 8  # between the samples, in one strip
    image, skip = Damaged(pixels), {"on_damage": "skip"}
    image.y, image.x = 115, 230
    interrupted(counted, lambda **more: detect(image, detector, state, **skip, **more), 150)
    image.y = -1  # the disk gives its brightest part at the second attempt
    assert_identical(detect(image, detector, state, **skip), detect(image, detector, None, **skip))
    assert "value_range: " in caplog.text


def test_the_engine_is_no_other_setting(
    picture: np.ndarray, tmp_path: Path, counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("torch")
    state = tmp_path / "state"
    first, second = (
        Detector("small", precision="f32", max_side=None, engine=engine)
        for engine in ("openvino", "torch")
    )
    interrupted(counted, lambda **more: detect(picture, first, state, **more), 15)
    counted.tiles = 0
    detect(picture, second, state)
    assert counted.tiles < 30 and "another run" not in caplog.text


def test_a_tile_that_could_not_be_read_is_tried_again_unless_it_is_skipped(
    picture: np.ndarray, detector: Detector, tmp_path: Path, counted: Counted
) -> None:
    state, image = tmp_path / "state", Damaged(picture)
    skip = detect(image, detector, None, on_damage="skip")
    interrupted(
        counted,
        lambda **more: detect(image, detector, state, on_damage="skip", **more), 28,
    )  # fmt: skip
    with pytest.raises(ImageError, match="broken here"):
        detect(image, detector, state)
    counted.tiles = 0
    assert_identical(detect(image, detector, state, on_damage="skip"), skip)
    assert counted.tiles < 15


def test_a_foreign_file_and_one_in_use_are_errors(
    picture: np.ndarray, detector: Detector, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.write_text("a diary of another program")
    with pytest.raises(FormatError, match="state: not a journal that tiepoint wrote; move it away"):
        detect(picture, detector, state)
    assert state.read_text() == "a diary of another program"
    state.unlink()
    lock = WriteLock(state)
    with pytest.raises(OutputError, match="another run is writing it"):
        detect(picture, detector, state)
    lock.release()

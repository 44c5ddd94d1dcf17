"""Files for OpenSfM, openMVG and MicMac, read again as those programs read them."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.features_files import make
from tiepoint import Features, Matches
from tiepoint.errors import FormatError
from tiepoint.integrations import micmac, openmvg, opensfm

NAMES = ("a.jpg", "b.png", "c.jpg")


def images() -> dict[str, Features]:
    return {name: make(10 + number) for number, name in enumerate(NAMES)}


def matched(*pairs: tuple[int, int]) -> Matches:
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    return Matches(rows, np.ones(len(rows), np.float32))


MATCHES = {
    ("a.jpg", "b.png"): matched((3, 1), (0, 9)),
    ("c.jpg", "a.jpg"): matched((11, 2)),
    ("b.png", "c.jpg"): matched(),
}


def rotated() -> Features:
    return dataclasses.replace(make(3), meta={"exif_orientation": 6})


# ---- OpenSfM ----------------------------------------------------------------------------------


class Allowed(pickle.Unpickler):
    """OpenSfM's reader of matches: arrays of NumPy, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        known = ("numpy._core.multiarray", "numpy.core.multiarray")
        arrays = (module in known and name in ("_reconstruct", "scalar")) or (
            module == "numpy" and name in ("ndarray", "dtype")
        )
        if not arrays:
            raise pickle.UnpicklingError(f"{module}.{name} is forbidden")
        return super().find_class(module, name)


def read_opensfm(path: Path) -> Any:
    """The arrays of a features file, with OpenSfM's checks of version 3."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert int(arrays["OPENSFM_FEATURES_VERSION"]) == 3
    assert len(arrays["segmentations"]) == len(arrays["instances"]) == 0
    assert len(arrays["points"]) == len(arrays["descriptors"]) == len(arrays["colors"])
    return arrays


def test_opensfm_has_normalised_points(tmp_path: Path) -> None:
    features = make(5)  # of 480x640 px
    path = opensfm.write_features(tmp_path, "a.jpg", features)
    assert path == tmp_path / "features" / "a.jpg.features.npz"
    arrays = read_opensfm(path)
    points = arrays["points"]
    assert points.dtype == np.float32 and points.shape == (5, 4)
    # OpenSfM's way back to px of its convention, in which pixel centres are whole numbers.
    back = points[:, :2] * 640 + np.array([640, 480]) / 2 - 0.5
    np.testing.assert_allclose(back, features.xy, atol=1e-3)
    assert np.array_equal(arrays["descriptors"], features.descriptors)
    assert arrays["colors"].tolist() == [[128, 128, 128]] * 5


def test_the_size_of_a_keypoint_is_the_scale_at_which_it_was_found(tmp_path: Path) -> None:
    scales_px = np.array([1, 1, 2.5, 1, 2.5], np.float32)
    features = replace(make(5), scales_px=scales_px)
    points = read_opensfm(opensfm.write_features(tmp_path, "a.jpg", features))["points"]
    np.testing.assert_allclose(points[:, 2], scales_px / 640, rtol=1e-6)
    unknown = replace(features, scales_px=None)
    points = read_opensfm(opensfm.write_features(tmp_path, "b.jpg", unknown))["points"]
    np.testing.assert_allclose(points[:, 2], features.px_per_input_px / 640, rtol=1e-6)


def test_the_corners_of_a_portrait_are_half_its_sides_from_the_centre(tmp_path: Path) -> None:
    corners = np.array([[-0.5, -0.5], [299.5, 399.5]], np.float32)
    features = Features(corners, np.ones(2, np.float32), np.ones((2, 4), np.float32), (400, 300))
    points = read_opensfm(opensfm.write_features(tmp_path, "a.jpg", features))["points"]
    np.testing.assert_allclose(points[:, :2], [[-0.375, -0.5], [0.375, 0.5]], atol=1e-6)


def test_colours_are_those_of_the_nearest_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    xy = np.array([[29.4, 0.4], [0.0, 18.6], [29.49, 19.49]], np.float32)
    features = Features(xy, np.ones(3, np.float32), np.ones((3, 4), np.float32), (20, 30))
    path = opensfm.write_features(tmp_path, "a.png", features, Image.fromarray(pixels))
    expected = pixels[[0, 19, 19], [29, 0, 29]]
    assert np.array_equal(read_opensfm(path)["colors"], expected)
    with pytest.raises(FormatError, match="30x20 px and its features are of 640x480"):
        opensfm.write_features(tmp_path, "a.png", make(3), Image.fromarray(pixels))


def test_opensfm_unpickles_the_matches_of_each_first_image(tmp_path: Path) -> None:
    paths = opensfm.write_matches(tmp_path, MATCHES)
    assert [path.name for path in paths] == [f"{name}_matches.pkl.gz" for name in NAMES]
    read = [Allowed(io.BytesIO(gzip.decompress(path.read_bytes()))).load() for path in paths]
    assert read[0].keys() == {"b.png"} and read[0]["b.png"].tolist() == [[3, 1], [0, 9]]
    assert read[1].keys() == {"c.jpg"} and read[1]["c.jpg"].shape == (0, 2)
    assert read[2]["a.jpg"].tolist() == [[11, 2]]
    before = [path.read_bytes() for path in paths]
    opensfm.write_matches(tmp_path, MATCHES)
    assert [path.read_bytes() for path in paths] == before  # the same bytes each time


def test_what_opensfm_cannot_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no descriptors"):
        opensfm.write_features(tmp_path, "a.jpg", make(3, None))
    with pytest.raises(FormatError, match="EXIF orientation is 6, which OpenSfM ignores"):
        opensfm.write_features(tmp_path, "a.jpg", rotated())
    for name in ("sub/a.jpg", "../a.jpg", ".."):
        with pytest.raises(FormatError, match="one folder"):
            opensfm.write_features(tmp_path, name, make(3))
        with pytest.raises(FormatError, match="one folder"):
            opensfm.write_matches(tmp_path, {(name, "b.jpg"): matched((0, 0))})
    assert not list(tmp_path.iterdir())


# ---- openMVG ----------------------------------------------------------------------------------


def test_openmvg_reads_positions_scales_and_descriptors(tmp_path: Path) -> None:
    features = images()
    paths = openmvg.write_features(tmp_path, features)
    assert [p.name for p in paths] == [f"{n}.{end}" for n in "abc" for end in ("feat", "desc")]
    values = np.array(paths[0].read_text().split(), float).reshape(-1, 4)
    np.testing.assert_allclose(values[:, :2], features["a.jpg"].xy, rtol=1e-7)  # no half pixel
    np.testing.assert_allclose(values[:, 2], features["a.jpg"].scales_px, rtol=1e-6)
    assert not values[:, 3].any()
    data = (tmp_path / "a.desc").read_bytes()
    assert struct.unpack_from("<Q", data) == (10,)
    described = np.frombuffer(data, "<f4", offset=8).reshape(10, 4)
    assert np.array_equal(described, features["a.jpg"].descriptors)


def test_openmvg_reads_matches_by_view_id(tmp_path: Path) -> None:
    path = openmvg.write_matches(tmp_path, MATCHES, openmvg.ids_in_order(NAMES))
    assert path.name == "matches.f.txt"
    tokens = iter(path.read_text().split())
    pairs = {}
    for first in tokens:  # "I J", the number, and as many lines "i j"
        key = (int(first), int(next(tokens)))
        pairs[key] = [(int(next(tokens)), int(next(tokens))) for _ in range(int(next(tokens)))]
    assert pairs == {(0, 1): [(0, 9), (3, 1)], (0, 2): [(2, 11)], (1, 2): []}


def test_view_ids_are_those_of_sfm_data(tmp_path: Path) -> None:
    data = [
        {"local_path": "", "filename": name, "id_view": number}
        for number, name in ((7, "b.png"), (2, "a.jpg"))
    ]
    views = [{"key": d["id_view"], "value": {"ptr_wrapper": {"data": d}}} for d in data]
    path = tmp_path / "sfm_data.json"
    path.write_text(json.dumps({"sfm_data_version": "0.3", "views": views}))
    assert openmvg.view_ids(path, ["left/a.jpg", "b.png", "x.jpg"]) == {"left/a.jpg": 2, "b.png": 7}
    with pytest.raises(FormatError, match=r"c\.jpg: not among the 2 views"):
        openmvg.write_matches(tmp_path, MATCHES, openmvg.view_ids(path, NAMES))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"views": [3]}', '{"views": 3}', "{" * 2000])
def test_a_damaged_sfm_data_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "sfm_data.json"
    path.write_text(content)
    with pytest.raises(FormatError, match=r"sfm_data\.json"):
        openmvg.view_ids(path, NAMES)


def test_what_openmvg_cannot_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a/1.jpg and b/1.png: openMVG stores both as 1"):
        openmvg.write_features(tmp_path, {"a/1.jpg": make(3), "b/1.png": make(4)})
    with pytest.raises(FormatError, match="which openMVG ignores"):
        openmvg.write_features(tmp_path, {"a.jpg": rotated()})


# ---- MicMac -----------------------------------------------------------------------------------


def test_micmac_reads_each_pair_both_ways(tmp_path: Path) -> None:
    features = images()
    paths = micmac.write_matches(tmp_path, features, MATCHES)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "Homol/Pastisa.jpg/b.png.txt", "Homol/Pastisb.png/a.jpg.txt",
        "Homol/Pastisc.jpg/a.jpg.txt", "Homol/Pastisa.jpg/c.jpg.txt",
    ]  # fmt: skip
    rows = np.loadtxt(paths[0], ndmin=2)
    assert rows.shape == (2, 5) and rows[:, 4].tolist() == [1, 1]
    np.testing.assert_allclose(rows[:, :2], features["a.jpg"].xy[[3, 0]], atol=1e-5)
    np.testing.assert_allclose(rows[:, 2:4], features["b.png"].xy[[1, 9]], atol=1e-5)
    back = np.loadtxt(paths[1], ndmin=2)
    assert np.array_equal(back[:, [2, 3, 0, 1, 4]], rows)


def test_what_micmac_cannot_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="one folder"):
        micmac.write_matches(tmp_path, {"s/a": make(3), "b": make(3)}, {("s/a", "b"): matched()})
    with pytest.raises(FormatError, match="has matches and no features"):
        micmac.write_matches(tmp_path, {"a": make(3)}, {("a", "b"): matched((0, 0))})
    with pytest.raises(FormatError, match="which MicMac ignores"):
        micmac.write_matches(
            tmp_path, {"a": rotated(), "b": make(3)}, {("a", "b"): matched((0, 0))}
        )
    assert not list(tmp_path.iterdir())

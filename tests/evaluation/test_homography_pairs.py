"""Pairs read from folders and brought to evaluation size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tiepoint.errors import FormatError, TiepointError
from tiepoint.evaluation.homography import HOMOGRAPHY
from tiepoint.evaluation.homography_pairs import (
    HomographyFiles,
    at_evaluation_size,
    parse_matrix,
    without_large,
)
from tiepoint.evaluation.pair_lists import read_folder, read_folders
from tiepoint.evaluation.settings import LARGE_SEQUENCES, FrameSize
from tiepoint.evaluation.sizes import grey_uint8, in_frame, to_uint8
from tiepoint.geometry import apply_homography, inside

IDENTITY = "1 0 0 0 1 0 0 0 1"


def write_image(path: Path, size_hw: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, size_hw, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_set(folder: Path, *lines: str) -> Path:
    for name in ("a.png", "b.png"):
        write_image(folder / name)
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_a_pairs_file_gives_its_pairs_in_order(tmp_path: Path) -> None:
    write_set(tmp_path, "# wall", "", f"a.png b.png {IDENTITY}", "b.png a.png 2 0 1 0 2 5 0 0 1")
    pairs, failures = read_folder(HOMOGRAPHY, tmp_path, "wall")
    assert failures == []
    assert [(pair.group, pair.name) for pair in pairs] == [
        ("wall", "a.png b.png"),
        ("wall", "b.png a.png"),
    ]
    np.testing.assert_array_equal(pairs[1].homography, [[2, 0, 1], [0, 2, 5], [0, 0, 1]])
    loaded = pairs[0].load(640)
    assert loaded.image_a.shape == (20, 30)
    assert loaded.image_a.dtype == np.uint8
    np.testing.assert_array_equal(loaded.image_a, cv2.imread(str(tmp_path / "a.png"), 0))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png b.png 1 0 0", "line 2: 5 fields, expected 11"),
        ("a.png b.png 1 0 0 0 one 0 0 0 1", "line 2: could not convert"),
        ("a.png b.png 1 0 0 0 nan 0 0 0 1", "line 2: the homography is not finite"),
        ("a.png b.png 1 0 0 2 0 0 0 0 1", "line 2: .* cannot be inverted"),
    ],
)
def test_a_bad_line_is_named_and_the_others_stay(tmp_path: Path, line: str, message: str) -> None:
    write_set(tmp_path, f"a.png b.png {IDENTITY}", line)
    pairs, failures = read_folder(HOMOGRAPHY, tmp_path, "set")
    assert len(pairs) == 1
    assert [failure.name for failure in failures] == ["a.png b.png"]
    with pytest.raises(FormatError, match=message):
        raise FormatError(failures[0].message)


def test_a_missing_image_is_named_when_its_pair_is_loaded(tmp_path: Path) -> None:
    write_set(tmp_path, f"a.png gone.png {IDENTITY}")
    pairs, _ = read_folder(HOMOGRAPHY, tmp_path, "set")
    with pytest.raises(TiepointError, match=r"gone\.png"):
        pairs[0].load(640)


def test_hpatches_sequences_are_read_by_kind(tmp_path: Path) -> None:
    for sequence in ("v_graffiti", "i_dome"):
        for number in range(1, 7):
            write_image(tmp_path / sequence / f"{number}.ppm")
            if number > 1:
                matrix = f"1.5 0 {number}\n0 1.5 0\n0 0 1\n"
                (tmp_path / sequence / f"H_1_{number}").write_text(matrix)
    pairs, failures = read_folder(HOMOGRAPHY, tmp_path, "hp")
    assert failures == []
    assert [pair.group for pair in pairs] == ["hp/illumination"] * 5 + ["hp/viewpoint"] * 5
    assert [pair.name for pair in pairs[:2]] == ["i_dome 1 2", "i_dome 1 3"]
    np.testing.assert_array_equal(pairs[9].homography, [[1.5, 0, 6], [0, 1.5, 0], [0, 0, 1]])
    assert pairs[9].load(640).image_b.shape == (20, 30)
    (tmp_path / "v_graffiti" / "H_1_3").write_text("1 2 3")
    pairs, failures = read_folder(HOMOGRAPHY, tmp_path, "hp")
    assert len(pairs) == 9
    assert "3 numbers, expected the 9" in failures[0].message


def test_the_truth_follows_the_resize_to_the_half_pixel() -> None:
    homography = np.array([[1.1, 0.05, 7], [-0.03, 0.9, 4], [1e-4, -5e-5, 1]])
    large_a, large_b = np.zeros((480, 960), np.uint8), np.zeros((700, 500), np.uint8)
    small = at_evaluation_size(large_a, large_b, homography, 320)
    assert small.image_a.shape == (160, 320)
    assert small.image_b.shape == (320, 229)
    point = np.array([[300.0, 200.0]])
    there = apply_homography(homography, point)
    expected = (there + 0.5) * [229 / 500, 320 / 700] - 0.5
    moved = apply_homography(small.homography, (point + 0.5) / 3 - 0.5)
    np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_small_images_are_never_enlarged_and_colour_becomes_grey() -> None:
    colour = np.full((10, 12, 3), (255, 0, 0), np.uint8)
    pair = at_evaluation_size(colour, np.zeros((5, 5), np.uint8), np.eye(3), 640)
    assert pair.image_a.shape == (10, 12)
    assert (pair.image_a == 76).all()  # 0.299 of 255
    assert pair.image_b.shape == (5, 5)


def test_a_homography_of_the_other_sign_is_the_same_truth() -> None:
    blank = np.zeros((10, 12), np.uint8)
    pair = at_evaluation_size(blank, blank, -np.eye(3), 640)
    np.testing.assert_array_equal(apply_homography(pair.homography, [[3, 4]]), [[3, 4]])


def test_a_truth_that_sends_a_corner_to_infinity_is_refused() -> None:
    blank = np.zeros((100, 100), np.uint8)
    beyond = np.array([[1, 0, 0], [0, 1, 0], [-0.02, 0, 1.0]])
    with pytest.raises(FormatError, match="corner of image A to infinity"):
        at_evaluation_size(blank, blank, beyond, 640)


def test_an_image_ends_at_the_outer_edges_of_its_pixels() -> None:
    xy = np.array([[-0.5, -0.5], [9.5, 4.5], [-0.51, 0], [9.51, 0], [0, 4.51], [np.nan, 0]])
    assert inside(xy, (5, 10)).tolist() == [True, True, False, False, False, False]


def test_the_real_pairs_are_all_read(shared: Path) -> None:
    sets = {"oxford": 20, "iguazu": 5, "homogr": 6}
    pairs, failures = read_folders(HOMOGRAPHY, [shared / "eval" / name for name in sets])
    assert failures == []
    assert {name: sum(pair.group == name for pair in pairs) for name in sets} == sets
    loaded = pairs[0].load(320)
    assert max(loaded.image_a.shape) == 320


@pytest.mark.parametrize(
    ("frame", "expected_hw"),
    [
        (FrameSize(long_side=100), (75, 100)),
        (FrameSize(short_side=48), (48, 64)),
        (FrameSize(short_side=300), (300, 400)),
        (FrameSize(crop_hw=(90, 90)), (90, 90)),
        (FrameSize(crop_hw=(240, 100)), (240, 100)),
    ],
)
def test_a_frame_brings_the_image_to_its_size_and_points_along(
    frame: FrameSize, expected_hw: tuple[int, int]
) -> None:
    """A bright spot off the middle is found where the matrix predicts it."""
    rows, columns = np.mgrid[:150, :200]
    pixels = 255 * np.exp(-((columns - 110.0) ** 2 + (rows - 70.0) ** 2) / (2 * 8**2))
    image, matrix = in_frame(pixels.astype(np.uint8), frame)
    assert image.shape == expected_hw
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    weights = image.astype(float) ** 2
    centre = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
    [there] = apply_homography(matrix, [[110.0, 70.0]])
    np.testing.assert_allclose(centre, there, atol=0.1)


def test_the_truth_follows_both_images_into_their_frames() -> None:
    truth = np.array([[1.1, 0.1, 5], [-0.05, 0.9, 3], [1e-4, 2e-4, 1]])
    a, b = np.zeros((150, 200), np.uint8), np.zeros((300, 260), np.uint8)
    frames = FrameSize(long_side=90), FrameSize(short_side=120), FrameSize(crop_hw=(100, 110))
    for frame in frames:
        pair = at_evaluation_size(a, b, truth, frame)
        to_a, to_b = in_frame(a, frame)[1], in_frame(b, frame)[1]
        xy = np.array([[60.0, 70.0], [100.0, 90.0]])
        expected = apply_homography(to_b, apply_homography(truth, xy))
        found = apply_homography(pair.homography, apply_homography(to_a, xy))
        np.testing.assert_allclose(found, expected, atol=1e-9)


def pair_of(name: str) -> HomographyFiles:
    return HomographyFiles("h", name, Path("a"), Path("b"), ("a", "b"), np.eye(3))


def test_large_sequences_of_hpatches_can_be_left_out() -> None:
    pairs = [pair_of(f"{name} 1 2") for name in ("v_artisans", "v_wall", "i_dc", "i_dc_other")]
    assert [pair.name for pair in without_large(pairs)] == ["v_wall 1 2", "i_dc_other 1 2"]
    assert without_large([pair_of(f"{name} 1 6") for name in LARGE_SEQUENCES]) == []
    assert without_large([]) == []


def test_a_folder_of_neither_layout_is_refused_with_both_named(tmp_path: Path) -> None:
    (tmp_path / "v_empty").mkdir()
    with pytest.raises(FormatError, match=r"no pairs; expected pairs\.txt .*, or HPatches"):
        read_folder(HOMOGRAPHY, tmp_path, "set")


def test_a_list_goes_before_sequences_in_the_same_folder(tmp_path: Path) -> None:
    write_set(tmp_path, f"a.png b.png {IDENTITY}")
    (tmp_path / "v_wall").mkdir()
    (tmp_path / "v_wall" / "H_1_2").write_text(IDENTITY)
    pairs, _ = read_folder(HOMOGRAPHY, tmp_path, "set")
    assert [pair.name for pair in pairs] == ["a.png b.png"]


def test_a_broken_matrix_of_a_sequence_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "v_wall").mkdir()
    (tmp_path / "v_wall" / "H_1_2").write_bytes(b"\xff\xfe")
    (tmp_path / "v_wall" / "H_1_10").write_text(IDENTITY)
    (tmp_path / "v_wall" / "H_1_3").write_text("0 " * 9)
    pairs, failures = read_folder(HOMOGRAPHY, tmp_path, "hp")
    assert [pair.name for pair in pairs] == ["v_wall 1 10"]
    assert [failure.name for failure in failures] == ["v_wall 1 2", "v_wall 1 3"]
    assert failures[1].message.count("H_1_3") == 1


@pytest.mark.parametrize("text", ["", "1 2 3", "1 0 0 0 1 0 0 0 x", "inf 0 0 0 1 0 0 0 1"])
def test_numbers_that_are_no_homography_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="homography"):
        parse_matrix(text.split())


def test_names_of_the_images_are_kept_for_features_files(tmp_path: Path) -> None:
    write_set(tmp_path, f"a.png b.png {IDENTITY}")
    (pair,), _ = read_folder(HOMOGRAPHY, tmp_path, "set")
    assert pair.load(640).names == ("a.png", "b.png")
    blank = np.zeros((10, 12), np.uint8)
    assert at_evaluation_size(blank, blank, np.eye(3), 640).names == ("", "")


def test_grey_levels_are_rounded_and_clipped() -> None:
    values = np.array([-1, 0, 0.5 / 255, 0.6 / 255, 1, 2.0])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255]
    assert grey_uint8(np.full((2, 3), 0.5, np.float32), None).tolist() == [[128] * 3] * 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_type_of_pixels_gives_the_same_grey(dtype: type) -> None:
    levels = np.arange(0, 256, dtype=np.uint16).reshape(16, 16)
    full = {np.uint8: levels, np.uint16: levels * 257, np.float32: levels / np.float32(255)}
    np.testing.assert_array_equal(grey_uint8(full[dtype].astype(dtype), 640), levels)

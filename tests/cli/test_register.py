"""`tiepoint register` from its arguments to its files and exit code."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from tiepoint import Detector, register
from tiepoint.cli import app
from tiepoint.config import RegistrationConfig
from tiepoint.errors import ConfigError
from tiepoint.images.reading import read
from tiepoint.registration.record import record_json
from tiepoint.registration.warping import overlay as draw_overlay

runner = CliRunner()
TRUTH = np.array([[0.95, 0.08, 20], [-0.05, 0.95, 25], [5e-5, 5e-5, 1]])


@pytest.fixture
def folder(tmp_path: Path, photographs: list[NDArray[np.uint8]]) -> Path:
    """a.png, the same seen from elsewhere as b.png, and c.png, which shows something else."""
    photo = photographs[2]
    size = photo.shape[1::-1]
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(cv2.warpPerspective(photo, TRUTH, size)).save(tmp_path / "b.png")
    Image.fromarray(photographs[0]).save(tmp_path / "c.png")
    return tmp_path


def run(*arguments: object) -> tuple[int, str, str]:
    result = runner.invoke(app, ["register", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_two_views_are_registered_and_every_picture_written(folder: Path) -> None:
    a, b = folder / "a.png", folder / "b.png"
    out, overlay, board = folder / "out.png", folder / "overlay.png", folder / "board.png"
    code, printed, errors = run(
        a, b, "-o", out, "--overlay", overlay, "--checkerboard", board, "--json"
    )
    assert code == 0
    assert errors.startswith("registered: ")
    content = json.loads(printed)
    assert content["success"] and content["reason"] == "ok"
    np.testing.assert_allclose(content["matrix"], TRUTH, rtol=0.05, atol=1.0)
    moved, there = read(out).pixels, read(b).pixels
    assert moved.shape == there.shape
    shown = (moved > 0) & (there > 0)
    assert np.median(np.abs(moved[shown].astype(int) - there[shown])) <= 4
    assert read(overlay).pixels.shape == read(board).pixels.shape == there.shape


def test_both_images_whole_on_one_canvas_of_the_deeper_type(folder: Path) -> None:
    deep = read(folder / "a.png").pixels.astype(np.uint16) * 257
    cv2.imwrite(str(folder / "deep.png"), deep[:, :, ::-1])
    code, _, _ = run(folder / "deep.png", folder / "b.png", "--canvas", "-o", folder / "both.tif")
    assert code == 0
    both = read(folder / "both.tif").pixels
    height, width = read(folder / "b.png").size_hw
    assert both.dtype == np.uint16 and both.shape[0] > height and both.shape[1] >= width


def test_unrelated_images_exit_4_with_the_reason_and_no_picture(folder: Path) -> None:
    before = sorted(folder.iterdir())
    code, printed, errors = run(
        folder / "a.png", folder / "c.png", "-o", folder / "out.png", "--overlay",
        folder / "overlay.png", "--json",
    )  # fmt: skip
    assert code == 4
    assert sorted(folder.iterdir()) == before
    content = json.loads(printed)
    assert not content["success"] and content["matrix"] is None
    assert content["reason"] in errors
    assert "nothing was written to" in errors


def test_two_dark_frames_exit_4_because_noise_is_no_keypoint(folder: Path) -> None:
    random = np.random.default_rng(4)
    for name in ("dark_1.png", "dark_2.png"):
        dark = np.clip(np.rint(random.normal(6, 1, (240, 320))), 0, 255).astype(np.uint8)
        Image.fromarray(dark).save(folder / name)
    code, printed, errors = run(folder / "dark_1.png", folder / "dark_2.png")
    assert (code, printed) == (4, "")
    assert "not registered: no keypoints in images A and B" in errors


def test_a_picture_that_is_there_is_not_replaced_unasked(folder: Path) -> None:
    out = folder / "out.png"
    out.write_bytes(b"mine")
    code, _, errors = run(folder / "a.png", folder / "b.png", "-o", out)
    assert code == 2 and "--overwrite" in errors and out.read_bytes() == b"mine"
    assert run(folder / "a.png", folder / "c.png", "-o", out, "--overwrite")[0] == 4
    assert out.read_bytes() == b"mine"
    assert run(folder / "a.png", folder / "b.png", "-o", out, "--overwrite")[0] == 0
    assert out.read_bytes() != b"mine"


def test_an_image_that_cannot_be_read_exits_3(folder: Path) -> None:
    code, _, errors = run(folder / "gone.png", folder / "b.png", "-o", folder / "out.png")
    assert code == 3 and "no such file" in errors
    assert not (folder / "out.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "out.gif"], "the ending picks the format"),
        (["--overlay", "out.tif"], "one of .png"),
        (["-o", "x.png", "--overlay", "x.png"], "two options name this file"),
        (["-o", "gone/out.png"], "no such folder"),
        (["--model", "spline"], "'spline' is not one of"),
        (["--model", "essential"], "needs intrinsics"),
        (["--model", "essential", "--intrinsics", "1,2,3"], "FX,FY,CX,CY"),
        (["--model", "fundamental", "-o", "out.png"], "warps no image"),
        (["--intrinsics", "600,600,300,200"], "intrinsics are for"),
        (["--canvas"], "-o, which is not given"),
        (["--fill", "3"], "--fill changes the image of -o, which is not given"),
        (["-o", "x.png", "--quality", "80"], "--quality is for .jpg, .jpeg, .webp"),
        (["-o", "x.jpg", "--quality", "0"], "--quality"),
        (["-o", "x.png", "--fill", "256"], "fill is 256, which pixels of uint8 do not hold"),
        (["--threshold-px", "-1"], "--threshold-px is -1.0, expected a number above 0"),
        (["--max-side", "large"], "--max-side"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    code, _, errors = run("a.png", "b.png", *options)
    assert code == 2
    assert message in errors


def test_the_result_is_that_of_the_library(folder: Path) -> None:
    a, b = folder / "a.png", folder / "b.png"
    options = ("--max-keypoints", 300, "--no-guided", "--min-inliers", 20, "--seed", 3)
    code, printed, _ = run(a, b, *options, "--json", "--overlay", folder / "overlay.png")
    assert code == 0
    expected = register(
        a, b, detector=Detector(threshold=0.0), max_keypoints=300, guided=False, min_inliers=20,
        seed=3,
    )  # fmt: skip
    content = json.loads(printed)
    config = RegistrationConfig(max_keypoints=300, guided=False, min_inliers=20, seed=3)
    made = json.loads(json.dumps(record_json(str(a), str(b), expected, config)))
    assert content == {**made, "date": content["date"]}
    assert content["settings"]["min_inliers"] == 20 and content["provenance"]["weights_sha256"]
    np.testing.assert_array_equal(read(folder / "overlay.png").pixels, draw_overlay(a, b, expected))


def test_masks_exclude_parts_of_either_image(folder: Path) -> None:
    a, b = folder / "a.png", folder / "b.png"
    height, width = read(a).size_hw
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    cv2.imwrite(str(folder / "left.png"), mask)
    result = register(a, b, mask_a=folder / "left.png", detector=Detector(threshold=0.0))
    assert result.success
    assert result.features_a.xy[:, 0].max() < width / 2 + 2 < result.features_b.xy[:, 0].max()
    assert result.features_a.meta["mask"] == str(folder / "left.png")
    code, printed, _ = run(a, b, "--mask-b", folder / "left.png", "--json")
    assert code == 0
    np.testing.assert_allclose(json.loads(printed)["matrix"], TRUTH, rtol=0.05, atol=1.0)
    cv2.imwrite(str(folder / "small.png"), mask[:9])
    code, _, errors = run(a, b, "--mask-a", folder / "small.png")
    assert code == 3 and "its mask" in errors
    with pytest.raises(ConfigError, match="mask is given with Features"):
        register(result.features_a, b, mask_a=mask)


def test_a_deep_image_is_stretched_in_the_pictures_and_kept_in_the_output(folder: Path) -> None:
    for name in ("a", "b"):
        grey = np.asarray(Image.open(folder / f"{name}.png").convert("L"))
        Image.fromarray(30_000 + grey.astype(np.uint16) * 4).save(folder / f"{name}16.png")
    out, overlay = folder / "out.png", folder / "overlay.png"
    code, _, _ = run(folder / "a16.png", folder / "b16.png", "-o", out, "--overlay", overlay)
    assert code == 0
    assert read(out).pixels.dtype == np.uint16 and read(out).pixels.max() > 30_000
    levels = read(overlay).pixels[..., 1]
    assert levels.min() < 10 and levels.max() > 245
    for contrast, expected in (("stretch", 0), ("high", 2)):
        assert run(folder / "a16.png", folder / "b16.png", "--contrast", contrast)[0] == expected


def test_json_alone_is_on_stdout(folder: Path) -> None:
    code, printed, errors = run(folder / "a.png", folder / "b.png", "--json")
    assert code == 0
    assert json.loads(printed)["success"] is True
    assert errors.startswith("registered: ") and "coverage" in errors


def test_a_picture_goes_to_stdout_and_words_to_stderr(folder: Path) -> None:
    arguments = ["register", str(folder / "a.png"), str(folder / "b.png"), "-o", "-"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0 and result.stderr.startswith("registered: ")
    assert read(result.stdout_bytes).size_hw == read(folder / "b.png").size_hw
    result = runner.invoke(app, [*arguments, "--json"])
    assert result.exit_code == 2 and "both write to stdout" in result.stderr


def test_quiet_says_nothing_and_verbose_more(folder: Path) -> None:
    a, b = folder / "a.png", folder / "b.png"
    assert run(a, b, "--quiet") == (0, "", "")
    assert run(a, b, "-v")[2].startswith("tiepoint: ")
    code, printed, errors = run(a, folder / "c.png", "-q")
    assert (code, printed) == (4, "") and errors.startswith("tiepoint: not registered")


def test_a_limit_that_is_not_met_is_the_reason(folder: Path) -> None:
    code, printed, errors = run(folder / "a.png", folder / "b.png", "--min-inliers", 100_000)
    assert (code, printed) == (4, "")
    assert errors.startswith("tiepoint: not registered: ") and "100000" in errors
    assert "nothing was written" not in errors


def test_a_two_view_model_is_reported_without_an_overlap(folder: Path) -> None:
    code, printed, errors = run(
        folder / "a.png", folder / "b.png", "--model", "essential", "--intrinsics",
        "600,600,300,200", "--json",
    )  # fmt: skip
    assert code == 0
    assert "matches fit an essential matrix, median error" in errors and "overlap" not in errors
    assert json.loads(printed)["model"] == "essential"


def test_a_plane_is_no_scene_for_a_fundamental_matrix(folder: Path) -> None:
    code, _, errors = run(folder / "a.png", folder / "b.png", "--model", "fundamental")
    assert code == 4 and 'register with "homography"' in errors


def test_one_folder_for_two_files_is_checked_for_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "results.png").mkdir()
    for option, path, message in [
        ("-o", "results.png", "-o results.png is a folder; name a file"),
        ("--overlay", "gone/a.png", "--overlay gone/a.png: no such folder; create it first"),
        ("--checkerboard", "a.jpg", "--checkerboard a.jpg: the ending picks the format"),
        ("--checkerboard", "c.png", "--checkerboard c.png exists; name another file"),
    ]:
        code, _, errors = run("a.png", "b.png", option, path)
        assert code == 2 and message in errors
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.png",
        "b.png",
        "c.png",
        "results.png",
    ]

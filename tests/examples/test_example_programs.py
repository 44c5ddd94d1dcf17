"""The programs in `examples/`, run as a user runs them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

import tiepoint
from support.language import Text, banned_phrases, fragments, long_sentences
from support.scene_pictures import centres, write_views
from tiepoint.weights.checkpoint import load_checkpoint

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = (
    "adapt.py", "compare_detectors.py", "match_with_kornia.py", "opencv_pipeline.py",
    "reconstruct.py", "register_scans.py", "stabilise.py",
)  # fmt: skip
NOTEBOOK = EXAMPLES / "first_steps.ipynb"
VIEW_A, VIEW_B = tiepoint.sample_views()


class Done(NamedTuple):
    status: int
    output: str
    errors: str


def run(program: str, *arguments: object) -> Done:
    """`python examples/PROGRAM ARGUMENTS`, in this process."""
    if program == "match_with_kornia.py":
        pytest.importorskip("kornia")
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", [program, *map(str, arguments)])
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            runpy.run_path(str(EXAMPLES / program), run_name="__main__")
    assert isinstance(ended.value.code, int | None)
    return Done(ended.value.code or 0, output.getvalue(), errors.getvalue())


def bgr(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image, np.uint8)


def off_by_px(output: str) -> float:
    """Largest error over the common view of the homography that a program printed."""
    numbers = re.findall(r"-?\d+\.\d*(?:e-?\d+)?", output.split("image A to image B, px:")[1])
    found = np.array(numbers, float).reshape(3, 3)
    pictures = runpy.run_path(str(EXAMPLES / "pictures.py"))
    a, b = (pictures["homography"](view) for view in pictures["VIEWS"])
    x, y = np.meshgrid(np.linspace(150, 450, 7), np.linspace(60, 330, 7))
    points = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
    mapped = [cv2.perspectiveTransform(points, h) for h in (found, b @ np.linalg.inv(a))]
    return float(np.linalg.norm(mapped[0] - mapped[1], axis=-1).max())


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_shows_how_to_call_a_program(program: str) -> None:
    done = run(program, "--help")
    assert done.status == 0
    assert f"python examples/{program}" in done.output


def test_a_folder_of_scans_is_aligned_with_a_row_for_each(tmp_path: Path) -> None:
    scans, reference = tmp_path / "scans", bgr(VIEW_A)
    scans.mkdir()
    tilt = cv2.getRotationMatrix2D((270, 180), 4, 1.1)
    tilted = cv2.warpAffine(reference, tilt, (540, 360), flags=cv2.INTER_CUBIC)
    cv2.imwrite(str(scans / "deep.tif"), tilted.astype(np.uint16) * 257)
    Image.fromarray(tilted[..., ::-1]).save(scans / "eight.jpg", quality=95, dpi=(300, 300))
    (scans / "corrupt.png").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    cv2.imwrite(str(scans / "other.png"), noise)
    (scans / "notes.txt").write_text("no scan")
    (scans / ".hidden.png").write_bytes(b"no scan")

    out = tmp_path / "out"
    done = run("register_scans.py", VIEW_A, scans, "-o", out, "--model", "similarity")
    assert done.status == 1 and "2 of 4 images aligned" in done.output
    with (out / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["corrupt.png", "deep.tif", "eight.jpg", "other.png"]
    assert "corrupt.png: not an image" in rows["corrupt.png"]["reason"]
    assert rows["other.png"]["success"] == "False" and "15 are asked" in rows["other.png"]["reason"]
    assert sorted(path.name for path in out.iterdir()) == ["deep.tif", "eight.jpg", "report.csv"]
    for name in ("deep.tif", "eight.jpg"):
        assert rows[name]["success"] == "True" and rows[name]["reason"] == "ok"
        assert int(rows[name]["inliers"]) > 200 and float(rows[name]["coverage"]) > 0.5
        assert 0 < float(rows[name]["overlap_sd_px"]) < 0.2
        aligned = cv2.imread(str(out / name), cv2.IMREAD_UNCHANGED)
        assert aligned is not None and aligned.shape == reference.shape
        middles = [np.float64(image[90:270, 135:405, 1]) for image in (aligned, reference)]
        assert max(map(abs, cv2.phaseCorrelate(*middles)[0])) < 0.1  # px
    assert cv2.imread(str(out / "deep.tif"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert Image.open(out / "eight.jpg").info["dpi"][0] == pytest.approx(300 / 1.1, abs=1)


def test_scans_are_neither_overwritten_nor_aligned_with_an_unreadable_reference(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jpg").write_bytes(VIEW_A.read_bytes())
    refused = run("register_scans.py", VIEW_B, tmp_path, "-o", tmp_path)
    assert refused.status == 2 and "choose another one" in refused.errors
    (tmp_path / "bad.tif").write_bytes(b"no image")
    refused = run("register_scans.py", tmp_path / "bad.tif", tmp_path, "-o", tmp_path / "out")
    assert refused.status == 2 and "bad.tif: not an image" in refused.errors
    assert not (tmp_path / "out").exists()
    done = run("register_scans.py", VIEW_B, tmp_path / "nowhere", "-o", tmp_path / "out")
    assert done.status == 2 and "no image to align" in done.errors


def test_a_scene_is_reconstructed_without_its_unreadable_photograph(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    data = pytest.importorskip("skimage.data", reason="textures need scikit-image")
    from tiepoint.batch.reconstruction import load_pycolmap

    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    write_views(photos, [data.coffee(), data.chelsea(), data.rocket()], 4)
    (photos / "9.jpg").write_bytes(b"no image")
    done = run("reconstruct.py", photos, "-o", out, "--max-keypoints", 800)
    assert done.status == 1 and "9.jpg: not an image" in done.errors
    registered = re.search(r"4 of 5 photographs registered, (\d+) points", done.output)
    error_px = re.search(r"reprojection error ([\d.]+) px", done.output)
    assert registered and int(registered[1]) > 200
    assert error_px and float(error_px[1]) < 0.7
    assert f"element vertex {registered[1]}\n".encode() in (out / "points.ply").read_bytes()[:200]

    images = load_pycolmap().Reconstruction(out / "sparse" / "0").images.values()
    found = np.array([i.projection_center() for i in sorted(images, key=lambda i: i.name)])  # 4 3
    steps, true_steps = (np.linalg.norm(np.diff(c, axis=0), axis=1) for c in (found, centres(4)))
    np.testing.assert_allclose(steps / steps.sum(), true_steps / true_steps.sum(), atol=0.02)

    again = run("reconstruct.py", photos, "-o", out)
    assert again.status == 2 and "has models" in again.errors
    nowhere = run("reconstruct.py", tmp_path / "nowhere", "-o", tmp_path / "new")
    assert nowhere.status == 2 and not (tmp_path / "new").exists()


def test_a_shaky_video_is_steadied_and_its_pan_stays(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from tiepoint.tracking.track import tracking_detector

    rng, photograph = np.random.default_rng(0), bgr(VIEW_A)
    frames, steady = tmp_path / "frames", tmp_path / "steady.mp4"
    frames.mkdir()
    for step in range(30):
        x, y, angle = rng.normal(0, (2.5, 2.5, 1.0))
        matrix = cv2.getRotationMatrix2D((270, 200), angle, 1)
        matrix[:, 2] += x - 60 - 4 * step, y - 70
        cv2.imwrite(str(frames / f"{step}.png"), cv2.warpAffine(photograph, matrix, (320, 240)))
    (frames / "12.png").write_bytes(b"no image")
    done = run("stabilise.py", frames, "-o", steady)
    assert done.status == 1 and "12.png: not an image" in done.errors

    motions = {}
    detector = tracking_detector("small", max_keypoints=400)
    for name, video in (("shaky", frames), ("steady", steady)):
        found = [f.motion for f in tiepoint.track(video, detector=detector) if f.error is None]
        middle = np.array([[[160.0, 120.0]]])
        shifts = [cv2.perspectiveTransform(middle, m)[0, 0] - middle[0, 0] for m in found[1:]]
        angles = [np.degrees(np.arctan2(m[1, 0], m[0, 0])) for m in found[1:]]
        motions[name] = np.column_stack([shifts, angles])
    shake = {name: np.abs(np.diff(steps, axis=0)).mean(axis=0) for name, steps in motions.items()}
    assert (shake["steady"] < 0.25 * shake["shaky"]).all(), shake
    pan = np.median(motions["steady"][:, 0])
    assert pan == pytest.approx(-4 * 1.1, abs=0.7)
    refused = run("stabilise.py", tmp_path / "none.mp4", "-o", steady)
    assert refused.status == 2 and "none.mp4" in refused.errors


@pytest.mark.parametrize("detector", ["tiepoint", "sift"])
def test_the_pipeline_of_opencv_finds_the_homography(tmp_path: Path, detector: str) -> None:
    picture = tmp_path / "matches.png"
    done = run("opencv_pipeline.py", VIEW_A, VIEW_B, "-o", picture, "--detector", detector)
    assert done.status == 0
    assert off_by_px(done.output) < 1
    assert bgr(picture).shape == (400, 540 + 480, 3)


@pytest.mark.parametrize("matcher", ["mnn", "smnn"])
def test_matches_of_kornia_give_the_homography(tmp_path: Path, matcher: str) -> None:
    picture = tmp_path / "matches.png"
    done = run("match_with_kornia.py", "--matcher", matcher, "-o", picture)  # the sample views
    assert done.status == 0
    assert off_by_px(done.output) < 1
    assert bgr(picture).shape == (400, 540 + 12 + 480, 3)


@pytest.mark.parametrize("program", ["opencv_pipeline.py", "match_with_kornia.py"])
def test_a_pair_without_matches_or_image_is_an_answer(tmp_path: Path, program: str) -> None:
    blank, bad = tmp_path / "blank.png", tmp_path / "bad.jpg"
    cv2.imwrite(str(blank), np.full((120, 160), 128, np.uint8))
    bad.write_bytes(b"no image")
    done = run(program, VIEW_A, blank, "-o", tmp_path / "matches.png")
    assert done.status == 1 and "no homography" in done.output
    refused = run(program, bad, VIEW_B, "-o", tmp_path / "matches.png")
    assert refused.status == 2 and "bad.jpg" in refused.errors
    assert not (tmp_path / "matches.png").exists()


def test_detectors_are_compared_and_an_unreadable_pair_is_left_out(tmp_path: Path) -> None:
    bad, pairs, table = tmp_path / "bad.jpg", tmp_path / "pairs.txt", tmp_path / "table.csv"
    blank = tmp_path / "blank.png"
    bad.write_bytes(b"no image")
    cv2.imwrite(str(blank), np.full((96, 128, 3), 128, np.uint8))
    views = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, view in zip(views, (VIEW_A, VIEW_B), strict=True):
        cv2.imwrite(str(path), cv2.resize(bgr(view), None, fx=0.6, fy=0.6))
    pairs.write_text("\n".join(map(str, [bad, VIEW_A, blank, blank, *views])))
    done = run("compare_detectors.py", f"@{pairs}", "-k", 400, "-o", table)
    assert done.status == 1 and "bad.jpg cannot be read" in done.errors
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == 2 * ["base", "small", "large", "SIFT", "ORB"]
    for row in rows[:5]:
        assert row["keypoints"] == "0" and "no keypoints" in row["verdict"]
    for row in rows[5:]:
        assert row["verdict"] == "registered"
        assert 300 < int(row["keypoints"]) <= 400
        assert 60 < int(row["inliers"]) <= int(row["matches"]) < 400
        assert int(row["ms"]) >= 1
    assert run("compare_detectors.py", VIEW_A).status == 2


@pytest.mark.usefixtures("small_frames")
def test_a_network_is_adapted_and_compared_on_held_out_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("torch")
    photos, out = tmp_path / "photos", tmp_path / "run"
    (photos / "more").mkdir(parents=True)
    views = [bgr(VIEW_A)[:256, :320], bgr(VIEW_B)[:256, :320], bgr(VIEW_A)[100:, 200:]]
    names = ("skimage_cc0_0.png", "skimage_cc0_1.png", "more/c.png")  # the first two are held out
    for name, view in zip(names, views, strict=True):
        cv2.imwrite(str(photos / name), view)
    for name in ("corrupt.jpg", "skimage_cc0_corrupt.jpg"):  # of each part
        (photos / name).write_bytes(b"no image")
    _adapt_quickly(monkeypatch)
    done = run("adapt.py", photos, "-o", out, "-c", "small", "--minutes", 0.0001, "--pairs", 3)
    assert done.status == 0, done.errors
    assert "corrupt.jpg: not an image" in caplog.text
    before, after = load_checkpoint("small"), load_checkpoint(out / "checkpoint")
    changes = [np.abs(after.tensors[n] - before.tensors[n]).max() for n in before.tensors]
    assert after.network == before.network and 0 < max(changes) < 0.01
    for name in ("before", "after"):
        share = json.loads((out / f"{name}.json").read_text())["rows"][0]["within"]["3"]["mean"]
        column = 28 + 18 * (name == "after")
        (line,) = re.findall(r"homography within 3 px.*", done.output)
        assert float(line[column : column + 18].split()[0]) == pytest.approx(share, abs=0.006)
    assert run("adapt.py", photos, "-o", out).status == 2  # the run exists


@pytest.mark.parametrize(("name", "part"), [("skimage_cc0_0", "training"), ("c", "development")])
def test_without_photographs_for_both_parts_no_command_runs(
    tmp_path: Path, name: str, part: str
) -> None:
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), bgr(VIEW_A))
    done = run("adapt.py", tmp_path / "photos", "-o", tmp_path / "run")
    assert done.status == 2 and f"belongs to the part '{part}'" in done.errors
    assert done.output == "" and not (tmp_path / "run").exists()


def _adapt_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the commands in this process, with smaller images and benchmarks."""
    from tiepoint.cli import app
    from tiepoint.training import presets

    stages = tuple(replace(stage, size_hw=(64, 64), pairs=2) for stage in presets.ADAPT.stages)
    quick = replace(presets.ADAPT, stages=stages, benchmark_pairs=2)
    monkeypatch.setattr(presets, "ADAPT", quick)

    def call(command: list[str], **_: Any) -> int:
        assert command[:3] == [sys.executable, "-m", "tiepoint"]
        few = ["--workers", "0", "--threads", "1"] if command[3] == "adapt" else []
        done = CliRunner().invoke(app, [*command[3:], *few])
        print(done.output)
        return done.exit_code

    monkeypatch.setattr(subprocess, "call", call)


def cells(kind: str) -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_cells_of_the_notebook_run_in_order(here: Path) -> None:
    pytest.importorskip("pandas")
    names: dict[str, Any] = {}
    for number, code in enumerate(cells("code")):
        exec(compile(code, f"cell {number}", "exec"), names)
    assert names["registration"].success and names["registration"].overlap_sd_px < 0.5
    assert names["aligned"].shape == bgr(VIEW_B).shape
    assert not names["refused"].success and "homography" in names["refused"].reason
    assert len(names["table"]) == names["registration"].inliers.sum() > 200
    assert len(tiepoint.load("first_steps/coffee_a.npz")) == len(names["a"])
    assert len(tiepoint.load_matches("first_steps/matches.npz")) == len(names["matches"])


def test_the_notebook_is_small_and_stripped_and_in_the_words_of_the_field() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert NOTEBOOK.stat().st_size < 30_000
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    texts = [Text(number, text) for number, text in enumerate(cells("markdown"))]
    assert banned_phrases(texts) == [] and fragments(texts) == []
    assert [finding for text in texts for finding in long_sentences(text.text)] == []

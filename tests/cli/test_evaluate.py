"""`tiepoint evaluate` from its arguments to its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from support.features_files import make
from tiepoint.cli import app
from tiepoint.evaluation.settings import GENERATED_COUNT, GENERATED_SEED, PROFILES
from tiepoint.formats import H5Writer

runner = CliRunner()


@pytest.fixture
def wall(tmp_path: Path, photographs: list[NDArray[np.uint8]]) -> Path:
    """Two pairs with a known shift, both readable."""
    folder = tmp_path / "wall"
    folder.mkdir()
    image = cv2.resize(photographs[0], (256, 256), interpolation=cv2.INTER_AREA)
    Image.fromarray(image[:200, :200]).save(folder / "1.png")
    Image.fromarray(image[20:220, 10:210]).save(folder / "2.png")
    (folder / "pairs.txt").write_text(
        "1.png 2.png 1 0 -10 0 1 -20 0 0 1\n2.png 1.png 1 0 10 0 1 20 0 0 1\n"
    )
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    result = runner.invoke(app, ["evaluate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_pairs_that_are_all_read_give_a_table_and_exit_0(wall: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    code, table, errors = run("homography", wall, "--k", 200, "-o", out)
    assert (code, errors) == (0, "")
    content = json.loads(out.read_text())
    names = [row["method"] for row in content["rows"]]
    assert names == [names[0], "sift", "orb"]
    assert all(name in table for name in names)
    assert all(row["within"]["3"]["mean"] == 1 for row in content["rows"])
    assert len(content["pairs"]) == 6
    assert content["settings"]["k"] == 200
    assert len(content["methods"][names[0]]["weights_sha256"]) == 64


def test_json_prints_what_the_file_holds_and_no_table(wall: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    arguments = ("homography", wall, "--methods", "orb", "--k", 100, "--limit", 1, "-o", out)
    code, printed, errors = run(*arguments, "--json")
    assert (code, errors) == (0, "")
    assert json.loads(printed) == json.loads(out.read_text())


def test_a_dash_writes_the_report_to_stdout(
    wall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("homography", wall, "--methods", "orb", "--k", 100, "--limit", 1, "-o", "-")
    code, printed, errors = run(*arguments)
    assert (code, errors) == (0, "") and len(json.loads(printed)["pairs"]) > 0
    assert not (tmp_path / "-").exists()
    code, printed, errors = run(*arguments, "--json")
    assert (code, printed) == (2, "") and "both write to stdout" in errors


def test_one_unreadable_pair_is_reported_skipped_and_exits_1(wall: Path) -> None:
    with (wall / "pairs.txt").open("a") as file:
        file.write("1.png gone.png 1 0 0 0 1 0 0 0 1\n1.png 2.png 1 0\n")
    code, table, errors = run("homography", wall, "--methods", "orb", "--k", 100)
    assert code == 1
    assert "orb" in table
    assert "gone.png" in errors
    assert "line 4" in errors
    assert "2 could not be read" in errors


def test_nothing_readable_exits_3_without_a_table(tmp_path: Path) -> None:
    code, table, errors = run("homography", tmp_path / "none", "--methods", "orb")
    assert (code, table) == (3, "")
    assert "no such folder" in errors
    code, table, errors = run("generated", "--photos", tmp_path, "--methods", "orb")
    assert (code, table) == (3, "")
    assert "none of its 0 images" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "surf"], "no method 'surf'"),
        (["--methods", ""], "at least one"),
        (["--methods", "orb,orb"], "no name twice"),
        (["--checkpoint", "nowhere/at/all"], "nowhere"),
        (["--k", "0"], "--k"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(wall: Path, options: list[str], message: str) -> None:
    code, _, errors = run("homography", wall, *options)
    assert code == 2
    assert message in errors


def test_generated_pairs_are_scored_by_level(wall: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    arguments = ["generated", "--photos", wall, "--part", "all", "--methods", "orb", "--limit", 6]
    assert run(*arguments, "--k", 100, "-o", out)[0] == 0
    content = json.loads(out.read_text())
    assert [row["group"] for row in content["rows"]] == ["all", "easy", "medium", "hard"]
    assert content["seed"] == GENERATED_SEED
    assert content["photos"] == ["1.png", "2.png"]
    assert run(*arguments, "--part", "test")[0] == 2


def test_checkpoints_look_at_the_scales_and_phases_that_are_given(
    wall: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.json"
    arguments = ["homography", wall, "--methods", "tiepoint", "--k", 50, "-o", out]
    assert run(*arguments, "--scales", "0.5", "--phases", "2")[0] == 0
    [method] = json.loads(out.read_text())["methods"].values()
    assert method["settings"]["scales"] == [0.5]
    assert method["settings"]["phases"] == 2
    assert run(*arguments, "--scales", "1;2")[0] == 2


def test_limit_takes_the_first_pairs_and_a_checkpoint_may_be_left_out(
    wall: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.json"
    run("homography", wall, "--methods", "sift-opencv", "--limit", 1, "-o", out)
    content = json.loads(out.read_text())
    assert [(pair["pair"], pair["method"]) for pair in content["pairs"]] == [
        ("1.png 2.png", "sift-opencv")
    ]


def test_defaults_are_those_of_the_profile_and_what_is_given_goes_before_it(
    wall: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.json"
    for profile, settings in PROFILES.items():
        code, table, _ = run(
            "homography", wall, "--methods", "orb", "--profile", profile, "-o", out
        )
        content = json.loads(out.read_text())
        assert code == 0
        assert content["settings"]["k"] == settings.k
        assert content["settings"]["estimator"] == settings.estimator
        assert (profile == "tiepoint") == ("AUC" not in table)  # HPatches is reported by areas
        run(
            "homography", wall, "--methods", "orb", "--profile", profile, "--k", 70,
            "--long-side", 150, "--seeds", 2, "-o", out,
        )  # fmt: skip
        given = json.loads(out.read_text())["settings"]
        assert (given["k"], given["seeds"]) == (70, 2)
        assert given["frame"] == {"long_side": 150, "short_side": None, "crop_hw": None}
        assert given["estimator"] == settings.estimator
    assert GENERATED_COUNT == 1000


def test_an_interrupted_evaluation_resumes_after_the_pairs_that_are_done(
    wall: Path, tmp_path: Path
) -> None:
    """The second image is gone at the resume: its pair is not measured a second time."""
    out, partial = tmp_path / "report.json", tmp_path / "report.json.partial"
    arguments = ["homography", wall, "--methods", "orb,sift", "--k", 100]
    assert run(*arguments, "-o", out)[0] == 0
    whole = json.loads(out.read_text())
    assert not partial.exists()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiepoint.evaluation.summary.as_json", interrupted)
        out.unlink()
        assert runner.invoke(app, ["evaluate", *map(str, arguments), "-o", str(out)]).exit_code
    first_pair = partial.read_text().splitlines()[:2]
    partial.write_text("\n".join(first_pair) + '\n["wall", "2.png 1.p')  # cut off by a crash
    code, _, errors = run(*arguments, "-o", out)
    assert code == 0
    assert "1 pairs taken from" in errors
    assert json.loads(out.read_text())["pairs"] == whole["pairs"]
    assert not partial.exists()


def test_what_other_settings_have_measured_is_not_taken_over(wall: Path, tmp_path: Path) -> None:
    out, partial = tmp_path / "report.json", tmp_path / "report.json.partial"
    partial.write_text('{"k": 1}\n["wall", "1.png 2.png", [{"keypoints_a": 9}]]\n')
    code, _, errors = run("homography", wall, "--methods", "orb", "--k", 100, "-o", out)
    assert code == 0
    assert "taken from" not in errors
    assert "report.json.partial.old: measured under other settings" in errors
    assert '"keypoints_a": 9' in (tmp_path / "report.json.partial.old").read_text()
    assert len(json.loads(out.read_text())["pairs"]) == 2


def test_plots_show_the_shares_and_the_worst_pairs_of_each_method(
    wall: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "plots"
    code, _, _ = run("homography", wall, "--methods", "orb,sift", "--k", 100, "--plots", folder)
    assert code == 0
    assert cv2.imread(str(folder / "shares.png")).shape == (420, 800, 3)
    for method in ("orb", "sift"):
        pictures = sorted((folder / method).iterdir())
        assert [picture.name[:2] for picture in pictures] == ["01", "02"]
        drawn = cv2.imread(str(pictures[0]))
        assert drawn.shape == (200, 400, 3)
        green = (drawn[:, :, 1].astype(int) - drawn[:, :, 2]) > 60
        assert green.sum() > 100  # right matches, from one image to the other


def test_a_pair_that_is_listed_twice_is_measured_twice_also_after_an_interruption(
    wall: Path, tmp_path: Path
) -> None:
    """Same images, another truth: the second is wrong by 50 px."""
    with (wall / "pairs.txt").open("a") as file:
        file.write("1.png 2.png 1 0 40 0 1 -20 0 0 1\n")
    out, partial = tmp_path / "report.json", tmp_path / "report.json.partial"
    arguments = ["homography", wall, "--methods", "sift", "--k", 200, "-o", out]
    assert run(*arguments)[0] == 0
    whole = json.loads(out.read_text())["pairs"]
    assert [pair["pair"] for pair in whole] == ["1.png 2.png", "2.png 1.png", "1.png 2.png #2"]
    assert whole[0]["error_px"] < 1 < 40 < whole[2]["error_px"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiepoint.evaluation.resume.ResumeFile.finish", lambda self: None)
        run(*arguments)
    assert partial.exists()
    assert "3 pairs taken" in run(*arguments)[2]
    assert json.loads(out.read_text())["pairs"] == whole


def test_profiles_whose_estimator_is_not_installed_say_so_before_any_work(
    wall: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiepoint.cli.evaluate.is_installed", lambda library: False)
    code, _, errors = run("homography", wall, "--profile", "glue-factory", "--methods", "orb")
    assert code == 2
    assert "tiepoint[pose]" in errors


@pytest.mark.parametrize(
    "options",
    [
        ["--profile", "fast"],
        ["--profile", "classic"],
        ["--profile", "classic", "--long-side", "100"],  # repeatability is of a crop still
    ],
)
def test_profiles_that_cannot_be_are_refused(
    wall: Path, tmp_path: Path, options: list[str]
) -> None:
    stored = tmp_path / "x.h5"
    with H5Writer(stored) as writer:
        writer.add("1.png", make(3))
    code, _, errors = run("homography", wall, *options, "--features", f"x={stored}")
    assert code == 2
    assert "profile" in errors


def test_help_imports_neither_opencv_nor_an_engine() -> None:
    code = (
        "import sys; from tiepoint.cli import app\n"
        "try: app(['evaluate', 'homography', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('cv2', 'numpy', 'openvino', 'torch')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["homography", "pose", "stereo"])
@pytest.mark.parametrize("content", [None, "", "# nothing\n", "one two\n"])
def test_a_folder_without_readable_pairs_exits_3_for_every_task(
    tmp_path: Path, command: str, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "pairs.txt").write_text(content)
    out = tmp_path / "out" / "report.json"
    code, table, errors = run(command, tmp_path, "--methods", "orb", "-o", out)
    assert (code, table) == (3, "")
    assert str(tmp_path) in errors
    assert not out.exists()


def test_pose_pictures_show_the_shares(shared: Path, tmp_path: Path) -> None:
    plots = tmp_path / "plots"
    arguments = ["pose", shared / "eval" / "tum", "--limit", 1, "--k", 100, "--long-side", 300]
    code, table, errors = run(*arguments, "--methods", "orb", "--seeds", 1, "--plots", plots)
    assert (code, errors) == (0, "")
    assert "20 deg" in table
    assert [path.name for path in plots.iterdir()] == ["shares.png"]


def test_a_report_that_cannot_be_written_is_an_error_with_its_path(
    wall: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = runner.invoke(
        app,
        ["evaluate", "homography", str(wall), "--methods", "orb", "-o",
         str(tmp_path / "file" / "report.json")],
    )  # fmt: skip
    assert result.exit_code != 0
    assert str(tmp_path / "file") in str(result.exception) + result.output


def test_a_report_replaces_no_file_of_another_kind(wall: Path, tmp_path: Path) -> None:
    stored = tmp_path / "sift.h5"
    stored.write_bytes(b"features")
    for out in (stored, tmp_path):
        code, _, errors = run("homography", wall, "--methods", "orb", "--limit", 1, "-o", out)
        assert code == 2 and f"-o {out}" in errors
    assert stored.read_bytes() == b"features"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sift.h5", "wall"]


def test_features_of_a_file_are_a_method_of_every_task_with_files(
    wall: Path, tmp_path: Path
) -> None:
    from tiepoint.evaluation.methods import method
    from tiepoint.images import read

    stored, out = tmp_path / "sift.h5", tmp_path / "report.json"
    with H5Writer(stored) as writer:
        for name in ("1.png", "2.png"):
            writer.add(name, method("sift").detect(read(wall / name).pixels, 300))
    code, _, _ = run(
        "homography", wall, "--methods", "sift", "--k", 300, "--features", f"mine={stored}",
        "-o", out,
    )  # fmt: skip
    assert code == 0
    sift, mine = json.loads(out.read_text())["rows"]
    assert {**sift, "method": "mine"} == mine


def test_the_first_table_alone_is_printed_unless_details_are_asked_for(wall: Path) -> None:
    arguments = ["homography", wall, "--methods", "orb", "--k", 60]
    assert "acc. 1" not in run(*arguments)[1]
    assert "acc. 1" in run(*arguments, "--details")[1]

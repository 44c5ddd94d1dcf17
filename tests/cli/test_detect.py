"""`tiepoint detect`: its files, its output and its exit codes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from typer.testing import CliRunner

from support.detect_runs import detect, files_below, photos, put
from tiepoint import Detector, load
from tiepoint.cli import app
from tiepoint.cli.detect import FeaturesFormat
from tiepoint.config import ProcessorConfig
from tiepoint.formats import ALL_FORMATS, FORMATS
from tiepoint.images import photographs
from tiepoint.weights.checkpoint import BUNDLED, DEFAULT, load_checkpoint


def test_one_image_gives_a_features_file_a_line_and_a_summary(here: Path) -> None:
    put(here / "벌 한 마리.png")
    result = detect("벌 한 마리.png")
    assert result.exit_code == 0
    output = Path("tiepoint-out", "벌 한 마리.png.npz")
    features = load(output)
    header, line = result.stdout.splitlines()
    assert header.split() == ["image", "size", "keypoints", "ms", "output"]
    assert line.startswith("벌 한 마리.png ")
    assert line.endswith(str(output))
    assert line.split()[3:5] == ["64x64", str(len(features))]
    assert len(features) > 0
    assert features.descriptors is not None
    assert re.fullmatch(r"tiepoint: 1 done in \d+\.\d s\n", result.stderr)


@pytest.mark.parametrize("name", ["npz", "json", "csv", "parquet", "geojson"])
def test_the_features_of_one_image_go_to_stdout(here: Path, name: str) -> None:
    put(here / "x.jpg")
    result = detect("x.jpg", "--format", name, "-o", "-")
    assert result.exit_code == 0 and "1 done" in result.stderr
    (here / f"piped.{name}").write_bytes(result.stdout_bytes)
    detect("x.jpg", "-o", f"x.{name}")
    np.testing.assert_array_equal(load(f"piped.{name}").xy, load(f"x.{name}").xy)
    put(here / "y.jpg")
    for arguments in (["x.jpg", "y.jpg"], ["x.jpg", "--json"], ["x.jpg", "--plot"]):
        refused = detect(*arguments, "-o", "-")
        assert refused.exit_code == 2 and refused.stdout == ""


def test_quiet_prints_errors_only(here: Path) -> None:
    put(here / "x.jpg")
    (here / "bad.png").write_bytes(b"")
    result = detect("x.jpg", "bad.png", "--quiet")
    assert result.exit_code == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "bad.png" in line


def test_json_prints_one_object_per_image(here: Path) -> None:
    photos(here / "photos", 2)
    (here / "photos" / "bad.png").write_bytes(b"")
    result = detect("photos", "--json", "--plot")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["done", "done", "failed"]
    assert set(lines[0]) == set(lines[2])
    assert lines[0]["source"] == str(Path("photos", "000.png"))
    assert lines[0]["output"] == str(Path("tiepoint-out", "000.png.npz"))
    assert lines[0]["overlay"] == str(Path("tiepoint-out", "000.png.png"))
    assert lines[0]["size_hw"] == [64, 64]
    assert lines[0]["keypoints"] == len(load(lines[0]["output"]))
    assert lines[0]["milliseconds"] > 0
    assert "bad.png" in lines[2]["error"]


@pytest.mark.parametrize("ending", list(FORMATS))
def test_an_out_with_a_known_ending_is_one_file(here: Path, ending: str) -> None:
    put(here / "x.jpg")
    result = detect("x.jpg", "-o", f"deep/er/bee{ending}", "--plot")
    assert result.exit_code == 0
    assert files_below(here / "deep") == [f"er/bee{ending}", "er/bee_keypoints.png"]
    assert len(load(here / "deep" / "er" / f"bee{ending}")) > 0


@pytest.mark.parametrize("name", ["npz", "json", "csv", "parquet", "geojson"])
def test_the_format_names_the_ending_in_a_folder(here: Path, name: str) -> None:
    put(here / "x.jpg")
    assert detect("x.jpg", "--format", name, "-o", "out").exit_code == 0
    assert files_below(here / "out") == [f"x.jpg.{name}"]
    again = detect("x.jpg", "--format", name, "-o", "out")
    assert again.exit_code == 0
    assert "1 skipped" in again.stderr


def test_csv_and_no_descriptors_save_the_time_for_descriptors(here: Path) -> None:
    put(here / "x.jpg")
    detect("x.jpg", "-o", "x.csv")
    detect("x.jpg", "-o", "x.geojson")
    detect("x.jpg", "-o", "x.npz", "--no-descriptors")
    assert load("x.csv").provenance.settings["descriptors"] is False
    assert load("x.geojson").provenance.settings["descriptors"] is False
    assert load("x.npz").descriptors is None


def test_the_options_reach_the_detector(here: Path) -> None:
    put(here / "x.png", size=256)
    chosen = ["--max-keypoints", "3", "--threshold", "0.001", "--nms-radius", "2"]
    detect("x.png", *chosen, "--max-side", "128", "-o", "a.npz")
    settings = load("a.npz").provenance.settings
    assert settings["max_side"] == 128
    assert (settings["max_keypoints"], settings["nms_radius"]) == (3, 2)
    assert settings["threshold"] == 0.001
    assert len(load("a.npz")) == 3
    detect("x.png", "--max-side", "none", "-o", "b.npz")
    assert load("b.npz").provenance.settings["max_side"] is None


def test_none_asks_for_all_keypoints_of_a_checkpoint_with_a_limit(here: Path) -> None:
    put(here / "x.png", size=256)
    limited = shutil.copytree(BUNDLED / DEFAULT, here / "limited")
    config = json.loads((limited / "config.json").read_text())
    config["max_keypoints"] = 5
    (limited / "config.json").write_text(json.dumps(config))
    detect("x.png", "-c", "limited", "-o", "limit.npz")
    detect("x.png", "-c", "limited", "--max-keypoints", "none", "-o", "all.npz")
    detect("x.png", "-o", "default.npz")
    assert len(load("limit.npz")) == 5
    np.testing.assert_array_equal(load("all.npz").xy, load("default.npz").xy)


def test_without_options_the_settings_are_the_checkpoints(here: Path) -> None:
    put(here / "x.png")
    detect("x.png", "-o", "x.npz")
    provenance = load("x.npz").provenance
    assert provenance is not None
    stored = load_checkpoint().detection
    assert provenance.settings == {
        **json.loads(json.dumps(asdict(stored))), **asdict(ProcessorConfig())
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        (["x.png", "--foo"], "--foo"),
        (["x.png", "--format", "h5"], "h5"),
        (["x.png", "-o", "x.hdf5"], "the ending picks the format, one of .npz, .json, .csv"),
        (["x.png", "-o", "x.npz", "--format", "csv"], "drop one"),
        (["x.png", "x.png", "y.png", "-o", "x.npz"], "several"),
        (["x.png", "-o", "x.png"], "is a file"),
        (["x.png", "-o", "x.png/out"], "cannot be made"),
        (
            ["x.png", "--max-side", "0"],
            "--max-side is 0, expected a whole number >= 1 (px, or 'none'",
        ),
        (["x.png", "--max-side", "big"], "none"),
        (["x.png", "--threshold", "2"], "threshold is 2.0"),
        (["x.png", "--threshold", "x"], "--threshold"),
        (["x.png", "--engine", "magic"], "'magic' is not one of 'auto', 'openvino', 'torch'"),
        (["x.png", "--device", "magic"], "device is 'magic'"),
        (["x.png", "--max-keypoints", "many"], "'many', expected a whole number or 'none'"),
        (["x.png", "--scales", "1;0.5"], "'1;0.5', expected numbers separated by commas"),
        (["x.png", "--threads", "0"], "--threads"),
        (["x.png", "--spread"], "--spread needs --max-keypoints"),
        (["x.png", "-o", "x.csv", "--half"], "--half: .csv files hold float32"),
        (["x.png", "--checkpoint", "nowhere"], "checkpoint 'nowhere'"),
    ],
)
def test_wrong_usage_exits_with_2_and_writes_nothing(
    here: Path, arguments: list[str], words: str
) -> None:
    put(here / "x.png")
    put(here / "y.png")
    result = detect(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert files_below(here) == ["x.png", "y.png"]


def test_nothing_found_exits_with_3(here: Path) -> None:
    (here / "empty").mkdir()
    for arguments in (["empty"], ["empty/*.jpg"], ["empty", "empty/**"]):
        result = detect(*arguments)
        assert result.exit_code == 3
        assert "no image found in empty" in result.stderr
    assert detect("-", stdin="\n").exit_code == 3
    assert not (here / "tiepoint-out").exists()


def test_nothing_readable_exits_with_3(here: Path) -> None:
    (here / "bad.png").write_bytes(b"no picture")
    result = detect("bad.png", "missing.png")
    assert result.exit_code == 3
    assert "bad.png" in result.stderr
    assert "missing.png: no such file" in result.stderr
    assert "2 failed" in result.stderr


def test_one_corrupt_file_among_five_is_reported_and_the_rest_done(here: Path) -> None:
    photos(here / "photos", 5)
    whole = (here / "photos" / "002.png").read_bytes()
    (here / "photos" / "002.png").write_bytes(whole[: len(whole) // 2])
    result = detect("photos")
    assert result.exit_code == 1
    assert "002.png" in result.stderr
    assert "002.png" not in result.stdout
    assert "4 done, 1 failed" in result.stderr
    assert len(files_below(here / "tiepoint-out")) == 4


def test_other_settings_are_refused_until_overwritten(here: Path) -> None:
    put(here / "x.png")
    assert detect("x.png").exit_code == 0
    again = detect("x.png")
    assert again.exit_code == 0
    assert "skipped" in again.stdout
    other = detect("x.png", "--threshold", "0.25")
    assert other.exit_code == 1
    own = load_checkpoint().detection.threshold
    assert f"settings.threshold {own} instead of 0.25" in other.stderr
    assert "--overwrite" in other.stderr
    assert detect("x.png", "--threshold", "0.25", "--overwrite").exit_code == 0
    assert load("tiepoint-out/x.png.npz").provenance.settings["threshold"] == 0.25


def test_a_list_on_stdin_names_the_images(here: Path) -> None:
    names = ["가 나.png", "b/c.png", "b/d.png"]
    for name in names:
        put(here / name)
    result = detect("-", stdin="\n".join(names))
    assert result.exit_code == 0
    assert files_below(here / "tiepoint-out") == sorted(f"{name}.npz" for name in names)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_before_a_list_is_no_part_of_a_name(here: Path, encoding: str) -> None:
    names = ["가.png", "b.png"]
    for name in names:
        put(here / name)
    data = "\r\n".join([*names, ""]).encode(encoding)
    result = CliRunner().invoke(app, ["detect", "-"], input=data)
    assert result.exit_code == 0, result.output
    assert files_below(here / "tiepoint-out") == sorted(f"{name}.npz" for name in names)


def test_what_a_folder_run_does_not_take_is_named_at_its_end(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "image_endings", lambda: photographs.IMAGE_ENDINGS)
    photos(here / "photos", 1)
    for name in ("a.heic", "b.HEIC", "c.cr2", "notes.txt", "Thumbs.db"):
        (here / "photos" / name).touch()
    result = detect("photos")
    note = result.stderr.splitlines()[0]
    assert result.exit_code == 0 and note.startswith("tiepoint: 3 ignored: .heic 2, .cr2 1; ")
    assert '; .heic: pip install "tiepoint[heif]"' in note
    only = detect("photos/*.heic")
    assert only.exit_code == 3 and "no image found in photos/*.heic; 1 ignored" in only.stderr


def test_outputs_of_other_settings_share_a_line(here: Path) -> None:
    photos(here / "photos", 40)
    assert detect("photos").exit_code == 0
    other = detect("photos", "--threshold", "0.25")
    assert other.exit_code == 1
    line, summary = other.stderr.splitlines()
    first = Path("tiepoint-out", "000.png.npz")
    assert line.startswith(f"tiepoint: 40 refused alike, the first: {first}: was made with other")
    assert "40 refused" in summary


def test_no_password_of_a_url_is_printed_or_stored(here: Path) -> None:
    put(here / "x.png")
    urls = ["http://me:secret@127.0.0.1:1/x.png", "http://me:secret@[::1/x.png"]
    for more in ([], ["--json"]):
        result = detect("x.png", *urls, *more)
        assert result.exit_code == 1 and "2 failed" in result.stderr
        assert "secret" not in result.output
    assert files_below(here / "tiepoint-out") == ["x.png.npz"]


def test_a_quoted_glob_is_opened_here(here: Path) -> None:
    for name in ("a.png", "b/c.png", "b/d.jpg"):
        put(here / "photos" / name)
    assert detect("photos/**/*.png").exit_code == 0
    assert files_below(here / "tiepoint-out") == ["a.png.npz", "b/c.png.npz"]


def test_an_unexpected_error_keeps_its_traceback(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(here / "x.png")

    def fail(*_: object, **__: object) -> Iterator[Any]:
        raise RuntimeError("ours to mend")

    monkeypatch.setattr(Detector, "stream", fail)
    with pytest.raises(RuntimeError, match="ours to mend"):
        detect("x.png")


def test_the_formats_are_those_of_the_library() -> None:
    assert [f".{name}" for name in get_args(FeaturesFormat)] == list(ALL_FORMATS)


def test_results_of_another_precision_come_with_a_remedy(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another default precision must not invalidate the existing results."""
    put(here / "x.png")
    assert detect("x.png", "--precision", "f32").exit_code == 0
    monkeypatch.setattr("tiepoint.network.engines._cpu_has_bf16", lambda: True)
    other = detect("x.png", "--device", "cpu")
    assert other.exit_code == 1
    assert "precision 'f32' instead of 'bf16'; continue with --precision f32" in other.stderr
    assert "skipped" in detect("x.png", "--precision", "f32").stdout


def test_compiled_for_the_size_it_finds_the_same_keypoints(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiepoint.network import openvino_engine

    put(here / "x.png")
    sizes, build = [], openvino_engine.build_model
    monkeypatch.setattr(
        openvino_engine,
        "build_model",
        lambda *a, **k: (sizes.append(k["size_bhw"]), build(*a, **k))[1],
    )
    plain = ("x.png", "--precision", "f32", "--device", "cpu")
    assert detect(*plain, "-o", "plain.npz").exit_code == 0
    assert sizes == [None]
    assert detect(*plain, "-o", "compiled.npz", "--compile").exit_code == 0
    assert sizes[1] == (1, 64, 64)
    expected, found = load("plain.npz"), load("compiled.npz")
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.xy, expected.xy, atol=0.01)

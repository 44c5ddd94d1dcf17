"""`tiepoint detect`: what it writes, says and exits with."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tiepoint import Detector, load
from tiepoint.cli import COMMANDS, app, options
from tiepoint.cli.detect import FeaturesFormat
from tiepoint.formats import FORMATS

COMMAND = [sys.executable, "-m", "tiepoint"]
SOURCE = str(Path(__file__).resolve().parents[2] / "src")
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE, "PYTHONUTF8": "1"}


def put(path: Path, size: int = 64) -> Path:
    """A picture with corners in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.kron(np.indices((4, 4)).sum(axis=0) % 2, np.ones((size // 4, size // 4)))
    data = cv2.imencode(path.suffix, (squares * 200 + 20).astype(np.uint8))[1]
    path.write_bytes(data.tobytes())
    return path


def photos(folder: Path, count: int) -> Path:
    for number in range(count):
        put(folder / f"{number:03}.png")
    return folder


def detect(*arguments: object, stdin: str | None = None) -> Any:
    result = CliRunner().invoke(app, ["detect", *map(str, arguments)], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def start(*arguments: object, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "detect", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        encoding="utf-8",
        **more,
    )


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


@pytest.mark.parametrize("name", ["npz", "json", "csv"])
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
    detect("x.jpg", "-o", "x.npz", "--no-descriptors")
    assert load("x.csv").meta["settings"]["descriptors"] is False
    assert load("x.npz").descriptors is None


def test_the_options_reach_the_detector(here: Path) -> None:
    put(here / "x.png", size=256)
    chosen = ["--max-keypoints", "3", "--threshold", "0.001", "--nms-radius", "2"]
    detect("x.png", *chosen, "--max-side", "128", "-o", "a.npz")
    settings = load("a.npz").meta["settings"]
    assert settings["max_side"] == 128
    assert (settings["max_keypoints"], settings["nms_radius"]) == (3, 2)
    assert settings["threshold"] == 0.001
    assert len(load("a.npz")) == 3
    detect("x.png", "--max-side", "none", "-o", "b.npz")
    assert load("b.npz").meta["settings"]["max_side"] is None


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
        (["x.png", "--max-side", "0"], "--max-side"),
        (["x.png", "--max-side", "big"], "none"),
        (["x.png", "--threshold", "2"], "threshold is 2.0"),
        (["x.png", "--threshold", "x"], "--threshold"),
        (["x.png", "--engine", "magic"], "engine is 'magic'"),
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
    assert "settings.threshold 0.0015 instead of 0.25" in other.stderr
    assert "--overwrite" in other.stderr
    assert detect("x.png", "--threshold", "0.25", "--overwrite").exit_code == 0
    assert load("tiepoint-out/x.png.npz").meta["settings"]["threshold"] == 0.25


def test_a_list_on_stdin_names_the_images(here: Path) -> None:
    names = ["가 나.png", "b/c.png", "b/d.png"]
    for name in names:
        put(here / name)
    result = detect("-", stdin="\n".join(names))
    assert result.exit_code == 0
    assert files_below(here / "tiepoint-out") == sorted(f"{name}.npz" for name in names)


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


def test_defaults_are_those_of_the_library() -> None:
    library = inspect.signature(Detector).parameters
    assert library["checkpoint"].default == options.CHECKPOINT
    for name in ("engine", "device", "precision"):
        assert library[name].default == options.AUTO
    assert options.parse_max_side(options.MAX_SIDE) == library["max_side"].default
    for name in ("max_keypoints", "threshold", "nms_radius"):
        assert library[name].default is None
    assert library["descriptors"].default is True


def test_the_formats_are_those_of_the_library() -> None:
    assert [f".{name}" for name in FeaturesFormat] == list(FORMATS)


# As a process


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ).stdout


def modules_after(*arguments: str) -> set[str]:
    code = (
        "import sys\nfrom tiepoint.cli import main\n"
        f"sys.argv = ['tiepoint', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code, leave.code\n"
        "print('MODULES', *sys.modules)"
    )
    return set(run_python(code).rpartition("MODULES ")[2].split())


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    heavy = {"numpy", "cv2", "PIL", "openvino", "torch", "huggingface_hub", "rich"}
    assert not heavy & modules_after("--help")
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name}\s+\w+", result.stdout, re.MULTILINE)


def test_detection_on_a_cpu_imports_no_torch(here: Path) -> None:
    put(here / "x.png")
    modules = modules_after("detect", "x.png", "--plot", "--device", "cpu")
    assert "openvino" in modules
    assert not {"torch", "huggingface_hub", "h5py"} & modules


def test_piped_output_is_plain_text(here: Path) -> None:
    photos(here / "photos", 2)
    (here / "photos" / "bad.png").write_bytes(b"")
    out, err = start("photos").communicate()
    assert len(out.splitlines()) == 3
    for text in (out, err):
        assert "\x1b" not in text
        assert "\r" not in text
    assert "detecting" not in err


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_shows_progress_and_a_pipe_beside_it_stays_clean(here: Path) -> None:
    import pty

    photos(here / "photos", 3)
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"}
    command = [*COMMAND, "detect", "photos"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment, encoding="utf-8"
    )
    os.close(theirs)
    shown = b""
    while chunk := read_terminal(ours):
        shown += chunk
    assert process.stdout is not None
    out = process.stdout.read()
    assert process.wait() == 0
    os.close(ours)
    assert b"detecting" in shown
    assert b"3 done" in shown
    assert len(out.splitlines()) == 4
    assert "\x1b" not in out


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux's way to say that the other side has closed
        return b""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
def test_a_reader_that_goes_away_ends_the_run_quietly(here: Path) -> None:
    photos(here / "photos", 30)
    process = start("photos", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["status"] == "done"
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=30) == 1
    assert "Traceback" not in err
    assert "Broken" not in err


def stop_after_two_lines(folder: Path, number: int) -> tuple[int, str]:
    process = start(folder, "-o", "out", "--plot")
    assert process.stdout is not None
    for _ in range(3):  # the header too
        assert process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_stopped_run_leaves_whole_files_and_goes_on(here: Path, number: int, code: int) -> None:
    photos(here / "photos", 80)
    returned, err = stop_after_two_lines(here / "photos", number)
    assert returned == code
    assert "Traceback" not in err
    written = files_below(here / "out")
    if number != signal.SIGKILL:  # which gives no time to clear up
        assert not [name for name in written if not name.endswith((".npz", ".png"))]
    whole = [name for name in written if name.endswith(".npz")]
    assert 2 <= len(whole) < 80
    for name in whole:
        assert len(load(here / "out" / name)) > 0
    again = detect(here / "photos", "-o", "out", "--plot")
    assert again.exit_code == 0
    assert f"{80 - len(whole)} done, {len(whole)} skipped" in again.stderr
    done = [name for name in files_below(here / "out") if not name.endswith(".partial")]
    assert len(done) == 160


def test_two_processes_on_one_folder_do_not_disturb_each_other(here: Path) -> None:
    photos(here / "photos", 12)
    processes = [start("photos", "-o", "out", "--overwrite", "--plot") for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    names = files_below(here / "out")
    assert len(names) == 24
    for name in names:
        assert name.endswith((".npz", ".png"))
        if name.endswith(".npz"):
            assert len(load(here / "out" / name)) > 0


def test_help_is_quick() -> None:
    spans = []
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], env=ENVIRONMENT, check=True, capture_output=True)
        spans.append(time.perf_counter() - begin)
    assert min(spans) < 0.5

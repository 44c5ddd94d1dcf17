"""Runs, manifests, logs, lists and commands on files of others end in one of our errors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from support import hostile_files as files
from support import hostile_weights as weights
from support.features_files import write_json
from tiepoint.cli import app
from tiepoint.errors import FormatError, TiepointError
from tiepoint.evaluation.homography import HOMOGRAPHY
from tiepoint.evaluation.pair_lists import read_folder
from tiepoint.evaluation.resume import ENDING
from tiepoint.evaluation.stereo import read_disparity
from tiepoint.features import Features, Matches
from tiepoint.formats import H5MatchesWriter
from tiepoint.matching.match import match
from tiepoint.matching.pairing import listed_pairs
from tiepoint.plotting import plot_matches
from tiepoint.registration.register import register
from tiepoint.training.lineage import recipes_from_manifest
from tiepoint.training.log import read_log
from tiepoint.training.presets import PRESETS
from tiepoint.training.state import Progress, RunConfig, State, load_state, save_state
from tiepoint.weights.checkpoint import BUNDLED, DEFAULT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no FIFOs")


# Runs


def stopped_run(folder: Path, **changes: Any) -> None:
    """A run's state in a folder, with some entries replaced."""
    folder.mkdir(exist_ok=True)
    tensors = {"w": torch.zeros(2)}
    run = RunConfig(PRESETS["smoke"], 3, {"data": {}, "origin": "random weights"})
    save_state(folder, State(run, Progress(step=7), tensors, tensors, {}, {}))
    values = torch.load(folder / "state.pt", weights_only=True)
    for name, change in changes.items():
        values[name] = {**values[name], **change} if isinstance(change, dict) else change
    torch.save(values, folder / "state.pt")


def preset(**changes: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {"preset": {**asdict(PRESETS["smoke"]), **changes}}


WIDE = {"encoder_hidden_sizes": (10**6,) * 4}


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser_file": "/dev/zero"},
        {"optimiser_file": "../optimiser-7.pt"},
        {"optimiser_file": 5},
        {"progress": {"step": "x"}},
        {"progress": {"step": 2**63}},
        {"progress": {"seconds": float("nan")}},
        {"progress": {"stage": 10**9}},
        {"progress": {"stage_steps": {"detector": "x"}}},
        {"recent": {"accuracy": "x"}},
        {"network": {"w": 5}},
        {"run": {"seed": -1}},
        {"run": {"about": 5}},
        {"run": preset(network=WIDE)},
        {"run": preset(learning_rate="x")},
        {"run": preset(points=10**18)},
        {"run": preset(stages=[{"name": "a", "share": 1, "size_hw": (8 * 10**9, 8), "pairs": 1}])},
        {"run": preset(stages=[{"name": "a", "share": 1, "size_hw": (64, 64), "pairs": 10**12}])},
    ],
)
def test_a_state_of_others_is_checked_before_it_is_used(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    stopped_run(tmp_path, **changes)
    with pytest.raises(TiepointError):
        load_state(tmp_path)


@pytest.mark.parametrize("name", [n for n in weights.TORCH if n != "pth of packed zeros"])
@pytest.mark.parametrize("file", ["state.pt", "optimiser-7.pt"])
def test_both_files_of_a_state_are_read_as_those_of_others(
    tmp_path: Path, name: str, file: str
) -> None:
    stopped_run(tmp_path)
    (tmp_path / file).unlink()
    if name in ("pth of itself",):
        pytest.skip("an optimiser's state may hold itself")
    weights.TORCH[name](tmp_path / file)
    with pytest.raises(TiepointError):
        load_state(tmp_path)


def test_resume_of_a_hostile_state_ends_in_one_line(tmp_path: Path) -> None:
    stopped_run(tmp_path, run={"about": {"data": {"geometry": 5}}})
    result = CliRunner().invoke(app, ["train", "--resume", str(tmp_path)])
    assert result.exit_code == 2 and "data settings" in result.output


MANIFEST = json.loads((BUNDLED / DEFAULT / "manifest.json").read_text())


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000, '{"seed": 1e400}', f'{{"seed": {files.DIGITS}}}', b"\xff", "[]", "5",
        json.dumps({**MANIFEST, "before": 5}),
        json.dumps({**MANIFEST, "before": None, "data": 5}),
        json.dumps({**MANIFEST, "stage_steps": [1]}),
        json.dumps({**MANIFEST, "preset": {**MANIFEST["preset"], "network": WIDE}}),
        json.dumps({**MANIFEST, "data": {**MANIFEST["data"], "bank": 10**12}}),
    ],
)  # fmt: skip
def test_a_manifest_of_others_is_checked(tmp_path: Path, content: str | bytes) -> None:
    files.text(content)(tmp_path / "manifest.json")
    with pytest.raises(TiepointError):
        recipes_from_manifest(tmp_path)


def test_a_manifest_that_is_a_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(TiepointError, match="manifest"):
        recipes_from_manifest(tmp_path)


def test_a_log_keeps_only_lines_that_can_be_drawn(tmp_path: Path) -> None:
    lines = ['{"step": "x"}', '{"step": 1, "loss": NaN}', "[" * 50_000, '{"step": 1e400}', "5",
             '{"step": 2, "detector": "x"}', f'{{"step": {files.DIGITS}}}']  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1]


# Lists


@pytest.mark.parametrize(
    "write",
    [os.mkfifo, files.text(b"\xff\xfe"), files.text("a" * 5_000_000), files.text("x y z\n" * 9)],
)
def test_a_list_of_pairs_of_others_is_checked(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "pairs.txt")
    with pytest.raises(FormatError, match="pairs.txt") as caught:
        listed_pairs(tmp_path / "pairs.txt", ["a", "b"])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "write", [os.mkfifo, files.text(b"\xff"), files.text("a" * 5_000_000), files.text("x\n" * 5000)]
)
def test_a_folder_of_pairs_of_others_is_checked(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "pairs.txt")
    with pytest.raises(FormatError, match="pairs.txt"):
        read_folder(HOMOGRAPHY, tmp_path, "g")


def test_ground_truth_that_is_a_fifo_or_endless_is_a_failure_of_its_pair(tmp_path: Path) -> None:
    (tmp_path / "v_a").mkdir()
    os.mkfifo(tmp_path / "v_a" / "H_1_2")
    with (tmp_path / "v_a" / "H_1_3").open("wb") as file:
        file.truncate(20_000_000_000)
    pairs, failures = read_folder(HOMOGRAPHY, tmp_path, "g")
    assert pairs == [] and len(failures) == 2
    with pytest.raises(FormatError, match="v_a"):
        read_disparity(tmp_path / "v_a", np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("line", ["5", "[[], 1, []]", '["g", "n", [5]]', "[" * 50_000])
def test_a_resume_file_of_others_is_measured_again(tmp_path: Path, line: str) -> None:
    from tiepoint.evaluation.resume import ResumeFile

    path = tmp_path / f"x{ENDING}"
    path.write_text(json.dumps({"a": 1}) + "\n" + line + "\n")
    assert ResumeFile(path, {"a": 1}).done == {}


# Uses of features and matches


def features(value: float) -> Features:
    xy = np.full((40, 2), value, np.float32)
    described = np.eye(40, dtype=np.float32)
    return Features(xy, np.ones(40, np.float32), described, (2**31 - 1, 2**31 - 1))


def test_positions_far_outside_are_matched_and_not_registered() -> None:
    for value in (1e38, -1e38, 2.0**31):
        matches = match(features(value), features(value))
        assert len(matches) == 40
        assert not register(features(value), features(value)).success


def test_matches_beyond_the_features_are_refused_when_they_are_used(tmp_path: Path) -> None:
    image = np.zeros((8, 8), np.uint8)
    few = Features(np.ones((2, 2), "f4"), np.ones(2, "f4"), None, (8, 8))
    beyond = Matches(np.array([[2**62, 0]]), np.ones(1, "f4"))
    with pytest.raises(TiepointError, match="of image A, which has 2"):
        plot_matches(image, image, few, few, beyond)
    with (
        H5MatchesWriter(tmp_path / "m.h5") as writer,
        pytest.raises(FormatError, match="4611686018427387904"),
    ):
        writer.add("a", "b", beyond)


def test_counts_in_the_meta_of_matches_do_not_decide_memory(tmp_path: Path) -> None:
    matches = Matches(np.array([[3, 0]]), np.ones(1, "f4"), {"keypoints": [10**12, 5]})
    with H5MatchesWriter(tmp_path / "m.h5") as writer:
        writer.add("a", "b", matches)
    assert (tmp_path / "m.h5").stat().st_size < 100_000


# Commands


HOSTILE_FEATURES = {
    **{f"x{n}.h5": one for n, one in enumerate(files.HDF5.values())},
    **{f"x{n}.json": one for n, one in enumerate(files.FEATURES_JSON.values())},
    "x1.npz": files.NPZ["npz that declares 10^9 rows"],
    "x2.npz": files.NPZ["npz of NaN positions"],
    "x3.npz": files.NPZ["npz is a link to a FIFO"],
}
SLOW = {"h5 of packed zeros", "h5 with a swollen chunk", "json of 12 MB of empty objects"}


def test_matching_hostile_features_ends_in_one_line(tmp_path: Path) -> None:
    slow = {
        kinds[name] for kinds in (files.HDF5, files.FEATURES_JSON) for name in SLOW & set(kinds)
    }
    for number, (name, write) in enumerate(HOSTILE_FEATURES.items()):
        if write in slow:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder / name)
        result = CliRunner().invoke(app, ["match", str(folder / name), str(folder / name)])
        assert result.exit_code in (2, 3), (name, result.output, result.exception)
        assert result.output.count("\n") == 1 and name in result.output, result.output


def test_collections_of_others_are_matched_or_left_out_by_name(tmp_path: Path) -> None:
    for name in ("h5 of NaN positions", "h5 of external links to a FIFO", "h5 of 60 double links"):
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        files.HDF5[name](folder / "x.h5")
        arguments = ["match", "--features", str(folder / "x.h5"), "-o", str(folder / "m.h5")]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code in (1, 2, 3), (name, result.output, result.exception)
        assert isinstance(result.exception, SystemExit)


def test_commands_on_hostile_checkpoints_end_in_one_line(tmp_path: Path) -> None:
    write_json(tmp_path / "good.json")
    image = tmp_path / "image.png"
    from PIL import Image

    Image.new("L", (64, 64)).save(image)
    for number, (name, write) in enumerate(weights.CHECKPOINTS.items()):
        if "50 MB" in name or "another shape" in name:
            continue
        folder = tmp_path / str(number)
        write(folder)
        arguments = ["detect", str(image), "-o", str(tmp_path / "out.npz")]
        result = CliRunner().invoke(app, [*arguments, "--checkpoint", str(folder)])
        assert result.exit_code == 2, (name, result.output, result.exception)
        assert result.output.count("\n") == 1, result.output


def test_evaluate_refuses_hostile_features_and_resume_files(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    files.HDF5["h5 of 60 double links"](tmp_path / "x.h5")
    arguments = ["evaluate", "homography", str(tmp_path / "pairs"), "--features"]
    result = CliRunner().invoke(app, [*arguments, f"a={tmp_path / 'x.h5'}"])
    assert result.exit_code == 2 and "circle" in result.output


def test_large_files_of_ones_own_still_come_back(tmp_path: Path) -> None:
    from tiepoint import load, save

    count = 60_000
    rng = np.random.default_rng(0)
    described = rng.normal(size=(count, 256)).astype(np.float32)
    large = Features(
        rng.uniform(0, 9000, (count, 2)).astype(np.float32), np.ones(count, "f4"), described,
        (9000, 9000),
    )  # fmt: skip
    for ending in (".npz", ".h5"):
        save(large, tmp_path / f"x{ending}")
        assert np.array_equal(load(tmp_path / f"x{ending}").descriptors, described)

"""`tiepoint train` and `adapt` as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import tiepoint
from tiepoint.cli import app, exit_codes
from tiepoint.training import presets
from tiepoint.training.presets import ADAPT, PRESETS, PYRAMID
from tiepoint.training.state import load_state, save_state
from tiepoint.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("small_frames")

FEW = ("--workers", "0", "--threads", "1")


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_frames: None) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    code, output = run("train", "--preset", "smoke", "--steps", "12", "-o", folder, *FEW)
    assert code == 0, output
    assert "checkpoint" in output
    return folder


def test_one_command_trains_a_checkpoint_that_a_detector_loads(trained: Path) -> None:
    # After 12 steps an image scores no more than noise, so the run's own floor is left out.
    detector = tiepoint.Detector(trained / "checkpoint", threshold=0.0, noise_floor=0.0)
    assert detector.checkpoint.network == PRESETS["smoke"].network
    image = np.random.default_rng(0).integers(0, 256, (96, 128), dtype=np.uint8)
    features = detector(image)
    assert len(features) > 0
    assert features.descriptors is not None
    assert features.descriptors.shape[1] == 32
    assert load_checkpoint(trained / "checkpoint").detection.scales == PYRAMID


def test_a_run_leaves_state_log_and_curves(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {"checkpoint", "curves.png", "log.jsonl", "optimiser-12.pt", "state.pt"}
    assert json.loads((trained / "log.jsonl").read_text().splitlines()[-1])["step"] == 12


def test_the_manifest_says_how_to_repeat_the_run(trained: Path) -> None:
    manifest = json.loads((trained / "checkpoint" / "manifest.json").read_text())
    assert manifest["preset"]["name"] == "smoke"
    assert (manifest["seed"], manifest["steps"], manifest["finished"]) == (0, 12, True)
    assert manifest["data"]["photos"] == []
    assert manifest["images"] == 12 * 4
    assert {"commit", "machine", "hours", "origin", "licence"} <= manifest.keys()


def test_a_manifest_is_enough_to_repeat_a_run(trained: Path, tmp_path: Path) -> None:
    """Steps of each stage decide, so a second repetition has every bit of the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    for origin, folder in ((trained, first), (first, second)):
        code, output = run("train", "--repeat", origin / "checkpoint", "-o", folder, *FEW)
        assert code == 0, output
    manifests = [
        json.loads((folder / "checkpoint" / "manifest.json").read_text())
        for folder in (trained, first, second)
    ]
    for name in ("seed", "data", "stage_steps", "images", "origin"):
        assert manifests[0][name] == manifests[1][name] == manifests[2][name]
    assert sum(manifests[0]["stage_steps"].values()) == 12
    assert manifests[1]["sha256"] == manifests[2]["sha256"]


def test_a_run_starts_from_another_and_its_manifest_repeats_both(
    trained: Path, tmp_path: Path
) -> None:
    """The second starts where the first ended, with a new schedule; its manifest has both."""
    grown, first, second = tmp_path / "grown", tmp_path / "first", tmp_path / "second"
    code, output = run(
        "train", "--preset", "smoke", "--steps", "4", "--start", trained, "--seed", "7",
        "-o", grown, *FEW,
    )  # fmt: skip
    assert code == 0, output
    manifest = json.loads((grown / "checkpoint" / "manifest.json").read_text())
    of_first = json.loads((trained / "checkpoint" / "manifest.json").read_text())
    assert manifest["before"]["stage_steps"] == of_first["stage_steps"]
    assert set(manifest["stage_steps"]) == {"joint", "finish"}
    for origin, folder in ((grown, first), (first, second)):
        code, output = run("train", "--repeat", origin / "checkpoint", "-o", folder, *FEW)
        assert code == 0, output
        assert (folder / "part-1" / "checkpoint").is_dir()
    hashes = [load_checkpoint(folder / "checkpoint").sha256 for folder in (first, second)]
    assert hashes[0] == hashes[1]


def test_a_run_may_start_from_a_bare_state_and_so_on_and_on(trained: Path, tmp_path: Path) -> None:
    """Neither the optimiser's file nor the checkpoint is needed, and each state can be read."""
    start = tmp_path / "bare"
    start.mkdir()
    shutil.copy(trained / "state.pt", start)
    for seed in ("7", "8"):
        grown = tmp_path / seed
        code, output = run(
            "train", "--preset", "smoke", "--steps", "1", "--start", start, "--seed", seed,
            "-o", grown, *FEW,
        )  # fmt: skip
        assert code == 0, output
        start = grown
    manifest = json.loads((start / "checkpoint" / "manifest.json").read_text())
    assert [manifest["before"]["seed"], manifest["before"]["before"]["seed"]] == [7, 0]


def test_a_narrower_run_may_be_the_start_and_no_new_channel_stays_untrained(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks are frozen only where they are as wide as they were."""
    monkeypatch.setattr(presets, "CONTINUATION_FROZEN", 2)
    smoke = PRESETS["smoke"]
    for name, widths, frozen in (
        ("deep", (8, 8, 16, 24), 2),
        ("early", (8, 12, 16, 16), 1),
        ("first", (12, 12, 16, 16), 0),
    ):
        wider = replace(smoke.network, encoder_hidden_sizes=widths, decoder_hidden_size=40)
        monkeypatch.setitem(PRESETS, "smoke", replace(smoke, network=wider))
        code, output = run(
            "train", "--preset", "smoke", "--steps", "1", "--start", trained, "--seed", "7",
            "-o", tmp_path / name, *FEW,
        )  # fmt: skip
        assert code == 0, output
        manifest = json.loads((tmp_path / name / "checkpoint" / "manifest.json").read_text())
        assert manifest["preset"]["frozen_blocks"] == frozen
        again = load_checkpoint(tmp_path / name / "checkpoint")
        assert again.network.encoder_hidden_sizes == widths


def test_a_start_moves_the_network_from_where_it_was(trained: Path, tmp_path: Path) -> None:
    """One step keeps close to the start's own weights; random weights are uncorrelated."""
    code, output = run(
        "train", "--preset", "smoke", "--steps", "1", "--start", trained, "--seed", "7",
        "-o", tmp_path / "grown", *FEW,
    )  # fmt: skip
    assert code == 0, output
    before, after = (
        load_checkpoint(folder / "checkpoint").tensors for folder in (trained, tmp_path / "grown")
    )
    for name in (name for name, tensor in before.items() if tensor.ndim > 1):
        assert np.corrcoef(before[name].ravel(), after[name].ravel())[0, 1] > 0.9, name


def test_repeating_into_a_used_folder_or_over_another_run_is_refused_at_once(
    trained: Path, tmp_path: Path
) -> None:
    grown = tmp_path / "grown"
    run("train", "--preset", "smoke", "--steps", "2", "--start", trained, "--seed", "7",
        "-o", grown, *FEW)  # fmt: skip
    manifest = grown / "checkpoint"
    code, output = run("train", "--repeat", manifest, "-o", grown, *FEW)
    assert code == exit_codes.USAGE and "holds a run already" in output
    assert not (grown / "part-1").exists()
    other = tmp_path / "other"
    run("train", "--preset", "smoke", "--steps", "2", "--seed", "3", "-o", other / "part-1", *FEW)
    code, output = run("train", "--repeat", manifest, "-o", other, *FEW)
    assert code == exit_codes.USAGE and "holds another run than part 1" in output


def test_a_small_network_learns_from_a_larger_one_and_its_manifest_repeats_it(
    tmp_path: Path,
) -> None:
    taught, first, second = (tmp_path / name for name in ("taught", "first", "second"))
    code, output = run(
        "train", "--preset", "smoke", "--steps", "6", "--teacher", "default", "-o", taught, *FEW
    )
    assert code == 0, output
    manifest = json.loads((taught / "checkpoint" / "manifest.json").read_text())
    assert manifest["teacher"]["sha256"] == load_checkpoint("default").sha256
    [*_, last] = (json.loads(line) for line in (taught / "log.jsonl").read_text().splitlines())
    assert last["teacher_cells"] > 0 and last["teacher_choice"] > 0
    for origin, folder in ((taught, first), (first, second)):
        code, output = run("train", "--repeat", origin / "checkpoint", "-o", folder, *FEW)
        assert code == 0, output
    hashes = [load_checkpoint(folder / "checkpoint").sha256 for folder in (first, second)]
    assert hashes[0] == hashes[1]
    manifest["teacher"]["sha256"] = "0" * 64
    (taught / "checkpoint" / "manifest.json").write_text(json.dumps(manifest))
    code, output = run("train", "--repeat", taught / "checkpoint", "-o", tmp_path / "x", *FEW)
    assert code == exit_codes.USAGE and "teacher 'default'" in output
    assert not (tmp_path / "x").exists()


def test_a_run_that_adapted_weights_is_no_start_for_training(
    here: Path, photographs: list[np.ndarray], trained: Path
) -> None:
    """It has no norms to continue with."""
    (here / "photos").mkdir()
    cv2.imwrite("photos/one.png", photographs[0])
    code, output = run(
        "adapt", "photos", "-o", "adapted", "-c", trained / "checkpoint", "--steps", "1", "--all",
        *FEW,
    )  # fmt: skip
    assert code == 0, output
    adapted, origin = load_checkpoint("adapted/checkpoint"), load_checkpoint(trained / "checkpoint")
    assert adapted.detection == origin.detection
    code, output = run(
        "train", "--preset", "smoke", "--start", "adapted", "--seed", "9", "-o", "x", *FEW
    )
    assert code == exit_codes.USAGE and "start from a run of tiepoint train" in output


def test_only_finished_runs_are_started_from_and_no_seed_comes_twice(
    trained: Path, tmp_path: Path
) -> None:
    grown = tmp_path / "grown"
    run("train", "--preset", "smoke", "--steps", "2", "--start", trained, "--seed", "7",
        "-o", grown, *FEW)  # fmt: skip
    first = load_state(trained).run.seed
    code, output = run(
        "train", "--preset", "smoke", "--start", grown, "--seed", first, "-o", tmp_path / "x", *FEW
    )
    assert code == exit_codes.USAGE and f"seed {first} was used" in output
    state = load_state(grown)
    state.run = replace(state.run, preset=state.run.preset.with_budget(None, 1000))
    (tmp_path / "stopped").mkdir()
    save_state(tmp_path / "stopped", state)
    code, output = run(
        "train", "--preset", "smoke", "--start", tmp_path / "stopped", "--seed", "9",
        "-o", tmp_path / "x", *FEW,
    )  # fmt: skip
    assert code == exit_codes.USAGE and "--resume" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--preset", "cpu", "--seed", "7"), "descriptors of the same length"),
        (("--preset", "smoke"), "another --seed"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    trained: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    code, output = run("train", *options, "--start", trained, "-o", tmp_path / "run", *FEW)
    assert code == exit_codes.USAGE
    assert message in output


@pytest.mark.parametrize("text", ["{}", "[1]", "no json"])
def test_what_is_no_manifest_cannot_be_repeated(text: str, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(text)
    code, output = run("train", "--repeat", manifest, "-o", tmp_path / "run", *FEW)
    assert code != 0
    assert "not the manifest of a run" in output


def test_the_mix_of_scenes_can_be_chosen(tmp_path: Path) -> None:
    code, output = run(
        "train", "--preset", "smoke", "--steps", "1", "--mix", "shapes=1, leaves=3",
        "-o", tmp_path, *FEW,
    )  # fmt: skip
    assert code == 0, output
    manifest = json.loads((tmp_path / "checkpoint" / "manifest.json").read_text())
    assert manifest["data"]["mix"] == [["shapes", 1.0], ["leaves", 3.0]]


@pytest.mark.parametrize("mix", ["", "shapes", "shapes=x", "shapes=1,shapes=2", "=1", "bricks=1"])
def test_a_mix_that_makes_no_sense_is_refused(mix: str, tmp_path: Path) -> None:
    code, output = run("train", "--preset", "smoke", "--mix", mix, "-o", tmp_path / "run", *FEW)
    assert code == exit_codes.USAGE
    assert "mix" in output


def test_a_folder_with_a_run_is_not_overwritten(trained: Path) -> None:
    code, output = run("train", "--preset", "smoke", "-o", trained, *FEW)
    assert code == exit_codes.USAGE
    assert "--resume" in output


def test_resuming_a_finished_run_changes_nothing(trained: Path) -> None:
    before = load_checkpoint(trained / "checkpoint").sha256
    code, _ = run("train", "--resume", trained, *FEW)
    assert code == 0
    assert load_checkpoint(trained / "checkpoint").sha256 == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "give either -o"),
        (("train", "-o", "a", "--resume", "b"), "give either -o"),
        (("train", "-o", "a", "--start", "b", "--repeat", "c"), "give one of"),
        (
            ("train", "-o", "a", "--repeat", "c", "--steps", "9"),
            "--repeat takes these from the manifest; leave out --steps",
        ),
        (("train", "-o", "a", "--preset", "huge"), "gpu, small, cpu, smoke"),
        (("train", "-o", "a", "--minutes", "1", "--steps", "1"), "both minutes and steps"),
        (("train", "-o", "a", "--device", "abacus"), "device 'abacus' cannot be used"),
        (("train", "--resume", "nowhere"), "missing"),
        (("adapt", "nowhere", "-o", "a", "-c", "nowhere"), "neither a bundled name"),
    ],
)
def test_wrong_arguments_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run(*arguments)
    assert code == exit_codes.USAGE
    assert message in output
    assert not list(tmp_path.iterdir())


def test_a_killed_run_saves_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "tiepoint", "train", *FEW]
    arguments = ["--preset", "smoke", "--steps", "20", "-o", str(folder)]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        log = folder / "log.jsonl"
        for _ in range(600):
            if log.exists():  # it trains now, or is about to
                break
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == exit_codes.TERMINATED, output
    assert "--resume" in output
    manifest = json.loads((folder / "checkpoint" / "manifest.json").read_text())
    assert not manifest["finished"]
    assert manifest["steps"] < 20
    code, output = run("train", "--resume", folder, *FEW)
    assert code == 0, output
    manifest = json.loads((folder / "checkpoint" / "manifest.json").read_text())
    assert (manifest["finished"], manifest["steps"]) == (True, 20)


def test_adapting_starts_from_the_checkpoint(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        blocks = rng.integers(0, 256, (30, 40), dtype=np.uint8)
        scene = cv2.resize(blocks, (400, 300), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(photos / f"{index}.png"), scene)
    code, output = run(
        "adapt", photos, "-c", "small", "-o", tmp_path / "run", "--steps", "1", "--all", *FEW
    )
    assert code == 0, output
    before, after = load_checkpoint("small"), load_checkpoint(tmp_path / "run" / "checkpoint")
    assert after.network == before.network
    changes = [np.abs(after.tensors[n] - before.tensors[n]).max() for n in before.tensors]
    assert 0 < max(changes) < 0.01
    manifest = json.loads((tmp_path / "run" / "checkpoint" / "manifest.json").read_text())
    assert before.sha256 in manifest["origin"]
    assert manifest["preset"]["name"] == ADAPT.name


def test_the_help_of_train_loads_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from tiepoint.cli import app; "
        "print(CliRunner().invoke(app, ['train', '--help']).exit_code, "
        "{'torch', 'cv2', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "0 set()"

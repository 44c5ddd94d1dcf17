"""The state of a run: comes back bit for bit, survives a crash, is never executed."""

from __future__ import annotations

import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tiepoint.errors import ConfigError, OutputError, TrainingError
from tiepoint.training.presets import PRESETS
from tiepoint.training.state import Progress, RunConfig, State, load_state, save_state

PRESET = PRESETS["smoke"]


def state(step: int) -> State:
    return State(
        run=RunConfig(PRESET, 3, {"sizes": (1, 2), "origin": "random weights"}),
        progress=Progress(step=step, seconds=1.5, skipped=2, stage_steps={"detector": step}),
        network={"w": torch.full((2, 3), float(step))},
        average={"w": torch.zeros(2, 3)},
        optimiser={"state": {0: {"exp_avg": torch.ones(3) * step}}, "param_groups": [{"lr": 0.1}]},
        recent={"accuracy": 0.5},
    )


def rewrite(folder: Path, **changes: Any) -> None:
    """Replace entries of state.pt; None removes one."""
    values = torch.load(folder / "state.pt", weights_only=True) | changes
    values = {name: value for name, value in values.items() if value is not None}
    torch.save(values, folder / "state.pt")


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save_state(tmp_path, state(7))
    loaded = load_state(tmp_path)
    assert loaded.progress == state(7).progress
    assert loaded.run == state(7).run
    assert loaded.recent == {"accuracy": 0.5}
    assert torch.equal(loaded.network["w"], state(7).network["w"])
    assert torch.equal(loaded.average["w"], state(7).average["w"])
    assert torch.equal(loaded.optimiser["state"][0]["exp_avg"], torch.ones(3) * 7)


def test_a_newer_state_leaves_nothing_of_the_older(tmp_path: Path) -> None:
    save_state(tmp_path, state(7))
    save_state(tmp_path, state(9))
    assert load_state(tmp_path).progress.step == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["optimiser-9.pt", "state.pt"]


def test_a_run_killed_between_the_two_files_resumes_from_the_state_before(tmp_path: Path) -> None:
    save_state(tmp_path, state(7))
    (tmp_path / "optimiser-9.pt").write_bytes(b"written, and then killed")
    assert load_state(tmp_path).progress.step == 7
    save_state(tmp_path, state(11))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["optimiser-11.pt", "state.pt"]


def test_saving_into_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        save_state(tmp_path / "gone", state(7))


def test_without_a_state_the_error_names_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"state\.pt: missing; expected the folder of a saved"):
        load_state(tmp_path)


def test_only_resuming_needs_the_optimisers_file(tmp_path: Path) -> None:
    save_state(tmp_path, state(7))
    (tmp_path / "optimiser-7.pt").unlink()
    assert load_state(tmp_path, optimiser=False).optimiser == {}
    with pytest.raises(TrainingError, match=r"optimiser-7\.pt: missing"):
        load_state(tmp_path)


@pytest.mark.parametrize("name", ["state.pt", "optimiser-7.pt"])
@pytest.mark.parametrize("length", [0, 10, 500])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, length: int) -> None:
    save_state(tmp_path, state(7))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:length])
    with pytest.raises(TrainingError, match="not a whole training state .* start over"):
        load_state(tmp_path)


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (Path("executed"), "")


def test_nothing_in_a_state_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"version": 1, "run": Payload()}, tmp_path / "state.pt")
    with pytest.raises(TrainingError):
        load_state(tmp_path)
    (tmp_path / "state.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(TrainingError):
        load_state(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    torch.save({"version": 99}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="version 99, expected version 1"):
        load_state(tmp_path)


@pytest.mark.parametrize("values", [[1, 2], torch.zeros(3)])
def test_a_file_with_something_else_is_refused(tmp_path: Path, values: object) -> None:
    torch.save(values, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=f"holds a {type(values).__name__}, expected"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"run": None},
        {"network": None},
        {"recent": None},
        {"optimiser_file": None},
        {"run": {"seed": 3}},
        {"run": [1]},
        {"progress": {"step": 7, "unknown": 1}},
    ],
)
def test_a_foreign_dictionary_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    save_state(tmp_path, state(7))
    rewrite(tmp_path, **changes)
    with pytest.raises(TrainingError, match=r"state\.pt: not a training state"):
        load_state(tmp_path)


def test_a_recipe_of_a_newer_version_is_named(tmp_path: Path) -> None:
    save_state(tmp_path, state(7))
    preset = asdict(PRESET)
    preset["stages"][0]["self_labels"] = True
    rewrite(tmp_path, run={"preset": preset, "seed": 3, "about": {}})
    with pytest.raises(ConfigError, match="self_labels, which this version"):
        load_state(tmp_path)


def test_a_run_is_finished_when_its_budget_is_spent() -> None:
    steps = PRESET.steps
    assert steps is not None
    assert not state(steps - 1).is_finished
    assert state(steps).is_finished
    by_minutes = RunConfig(replace(PRESET, steps=None, minutes=1.0), 0)
    assert not State(by_minutes, Progress(step=10**6, seconds=59), {}, {}, {}).is_finished
    assert State(by_minutes, Progress(step=1, seconds=60), {}, {}, {}).is_finished

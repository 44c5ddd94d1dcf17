import pickle
from pathlib import Path

import pytest
import torch

from tiepoint.errors import TrainingError
from tiepoint.training.state import Progress, State, load_state, save_state


def state(step: int) -> State:
    return State(
        run={"preset": {"name": "smoke"}, "seed": 3, "about": {"sizes": (1, 2)}},
        progress=Progress(step=step, seconds=1.5, skipped=2),
        network={"w": torch.full((2, 3), float(step))},
        average={"w": torch.zeros(2, 3)},
        optimiser={"state": {0: {"exp_avg": torch.ones(3) * step}}, "param_groups": [{"lr": 0.1}]},
        recent={"accuracy": 0.5},
    )


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save_state(tmp_path, state(7))
    loaded = load_state(tmp_path)
    assert loaded.progress == state(7).progress
    assert loaded.run == state(7).run
    assert loaded.recent == {"accuracy": 0.5}
    assert torch.equal(loaded.network["w"], state(7).network["w"])
    assert torch.equal(loaded.optimiser["state"][0]["exp_avg"], torch.ones(3) * 7)


def test_a_newer_state_leaves_nothing_of_the_older(tmp_path: Path) -> None:
    save_state(tmp_path, state(7))
    save_state(tmp_path, state(9))
    assert load_state(tmp_path).progress.step == 9
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_killed_between_the_two_files_goes_on_from_the_state_before(tmp_path: Path) -> None:
    save_state(tmp_path, state(7))
    (tmp_path / "optimiser-9.pt").write_bytes(b"written, and then killed")
    assert load_state(tmp_path).progress.step == 7
    save_state(tmp_path, state(11))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["optimiser-11.pt", "state.pt"]


def test_no_state_says_what_resume_expects(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"state\.pt: missing; expected the folder of a run"):
        load_state(tmp_path)


@pytest.mark.parametrize("length", [0, 10, 500])
def test_a_cut_file_is_refused(tmp_path: Path, length: int) -> None:
    save_state(tmp_path, state(7))
    whole = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(whole[:length])
    with pytest.raises(TrainingError, match="not a whole training state"):
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
    with pytest.raises(TrainingError, match="version 99"):
        load_state(tmp_path)

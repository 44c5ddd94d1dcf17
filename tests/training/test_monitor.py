"""Means of the log, and the signs that a run is hopeless."""

from __future__ import annotations

import pytest
import torch

from tiepoint.errors import TrainingError
from tiepoint.training.monitor import (
    HOPELESS_AFTER,
    HOPELESS_STREAK,
    HopelessError,
    Window,
    check_learning,
    check_streak,
)
from tiepoint.training.presets import Stage
from tiepoint.training.state import Progress

YES = torch.tensor(True)
JOINT = Stage("joint", 1.0, (64, 64), 2)
DETECTOR = Stage("detector", 1.0, (64, 64), 2, descriptor_weight=0.0)


def test_an_empty_window_has_no_means() -> None:
    assert Window().means() == {}


def test_means_are_over_the_steps_that_have_a_figure() -> None:
    window = Window()
    window.add({"loss": torch.tensor(1.0), "repeat": torch.tensor(6.0)}, YES)
    window.add({"loss": torch.tensor(4.0)}, YES)
    assert window.means() == {"loss": 2.5, "repeat": 6.0}


def test_a_window_keeps_no_graph() -> None:
    window = Window()
    window.add({"loss": torch.ones((), requires_grad=True) * 2}, YES)
    assert not window.figures["loss"][0][0].requires_grad


def test_skipped_steps_do_not_count_in_the_means() -> None:
    window = Window()
    window.add({"loss": torch.tensor(torch.nan), "repeat": torch.tensor(6.0)}, ~YES)
    assert window.means() == {}
    window.add({"loss": torch.tensor(4.0)}, YES)
    assert window.means() == {"loss": 4.0}


def test_steps_add_up_with_their_time_and_images() -> None:
    window = Window()
    window.add_step(2.0, 0.5, 4)
    window.add_step(3.0, 0.0, 6)
    assert (window.seconds, window.waited, window.images, window.steps) == (5.0, 0.5, 10, 2)


def test_a_short_streak_of_skipped_steps_passes_and_a_long_one_ends_the_run() -> None:
    check_streak(Progress(streak=HOPELESS_STREAK - 1))
    with pytest.raises(HopelessError, match=f"{HOPELESS_STREAK} steps in a row"):
        check_streak(Progress(streak=HOPELESS_STREAK))
    assert issubclass(HopelessError, TrainingError)


def late(step: int = HOPELESS_AFTER, stage_step: int = HOPELESS_AFTER) -> Progress:
    return Progress(step=step, stage_step=stage_step)


def test_running_means_start_at_the_first_and_follow_slowly() -> None:
    recent: dict[str, float] = {}
    check_learning(recent, {"accuracy": 0.5, "loss": 9.0}, Progress(), JOINT)
    assert recent == {"accuracy": 0.5}
    check_learning(recent, {"accuracy": 1.0}, Progress(), JOINT)
    assert recent == {"accuracy": pytest.approx(0.6)}


def test_a_detector_no_better_than_a_constant_is_hopeless_only_late() -> None:
    means = {"cross_entropy": 0.99, "blind": 1.0}
    check_learning({}, means, late(step=HOPELESS_AFTER - 1), DETECTOR)
    with pytest.raises(HopelessError, match=r"learnt nothing in 1000 steps: .* 0\.990, .* 1\.000"):
        check_learning({}, means, late(), DETECTOR)


def test_a_detector_that_beats_the_constant_passes() -> None:
    check_learning({}, {"cross_entropy": 0.97, "blind": 1.0}, late(), DETECTOR)


def test_one_bad_record_of_a_good_run_is_forgiven() -> None:
    recent = {"accuracy": 0.4, "cross_entropy": 0.3, "blind": 0.5}
    bad = {"accuracy": 0.0, "cross_entropy": 0.6, "blind": 0.5}
    check_learning(recent, bad, late(), JOINT)
    with pytest.raises(HopelessError):
        for _ in range(20):
            check_learning(recent, bad, late(), JOINT)


def test_descriptors_that_match_nothing_are_hopeless_only_late_in_their_stage() -> None:
    means = {"accuracy": 0.049}
    check_learning({}, means, late(stage_step=HOPELESS_AFTER - 1), JOINT)
    check_learning({}, means, late(), DETECTOR)
    with pytest.raises(HopelessError, match=r"4\.9% after 1000 steps of stage joint"):
        check_learning({}, means, late(), JOINT)
    check_learning({}, {"accuracy": 0.05}, late(), JOINT)

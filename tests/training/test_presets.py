"""Recipes: budgets, stages, learning rates, and the runs that continue or adapt another."""

import json
from dataclasses import asdict, replace

import pytest

from tiepoint.architecture import NetworkConfig
from tiepoint.errors import ConfigError
from tiepoint.training.presets import (
    ADAPT,
    CONTINUATION_FROZEN,
    CONTINUATION_RATE,
    PRESETS,
    PYRAMID,
    Preset,
    Stage,
    adaptation_data,
    adaptation_preset,
    continuation_preset,
    find_preset,
    training_data,
)
from tiepoint.training.scenes.settings import TRAINING_DATA

EVERY = [*PRESETS.values(), ADAPT]


@pytest.mark.parametrize("preset", EVERY, ids=lambda preset: preset.name)
def test_a_preset_survives_a_file(preset: Preset) -> None:
    assert Preset.from_json(json.loads(json.dumps(asdict(preset)))) == preset


def test_the_widths_are_the_promised_ones() -> None:
    assert PRESETS["gpu"].network == NetworkConfig((64, 64, 128, 192), 256, 65, 128)
    assert PRESETS["small"].network == NetworkConfig((8, 16, 48, 64), 128, 65, 64)
    assert PRESETS["cpu"].network == NetworkConfig((32, 64, 96, 160), 192, 65, 128)


def test_the_networks_cost_what_is_documented() -> None:
    sizes = ("gpu", "cpu", "small")
    giga = {n: PRESETS[n].network.multiply_adds((480, 640)) / 1e9 for n in sizes}
    assert giga == pytest.approx({"gpu": 28.5, "cpu": 14.4, "small": 2.1}, abs=0.06)
    layer = NetworkConfig((1, 1, 1, 1), 1, descriptor_decoder_dim=1)  # all of one channel
    by_hand = 9 * (2 * 64 + 2 * 16 + 2 * 4 + 2 + 2) + 65 + 1  # of an image of 8x8 px
    assert layer.multiply_adds((8, 8)) == by_hand


@pytest.mark.parametrize("preset", EVERY, ids=lambda preset: preset.name)
def test_any_budget_goes_through_all_stages_in_order(preset: Preset) -> None:
    for steps in (10, 997):
        seen = [preset.stage_at(step / steps) for step in range(steps)]
        assert seen == sorted(seen)
        assert set(seen) == set(range(len(preset.stages)))
    assert preset.stage_at(1.0) == len(preset.stages) - 1


@pytest.mark.parametrize("preset", EVERY, ids=lambda preset: preset.name)
def test_the_rate_warms_up_and_falls_to_its_last_part(preset: Preset) -> None:
    assert preset.rate_at(0, 0) == pytest.approx(preset.learning_rate / preset.warm_up_steps)
    assert preset.rate_at(0, preset.warm_up_steps) == pytest.approx(preset.learning_rate)
    assert preset.rate_at(1, 10**6) == pytest.approx(preset.learning_rate * preset.final_rate)
    rates = [preset.rate_at(done / 50, 10**6) for done in range(51)]
    assert rates == sorted(rates, reverse=True)


def test_steps_of_each_stage_are_a_budget_too() -> None:
    preset = replace(PRESETS["cpu"], minutes=None, stage_steps=(4, 2, 10))
    stages = [preset.stage_at(preset.done(step, seconds=0)) for step in range(16)]
    assert stages == [0] * 4 + [1] * 2 + [2] * 10
    done = [preset.done(step, seconds=0) for step in range(17)]
    assert done == sorted(done)
    assert (done[0], done[5], done[16]) == (0, pytest.approx(0.12 + 0.58 / 2), 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"minutes": None},
        {"steps": 3},
        {"minutes": None, "stage_steps": (1, 2)},
        {"minutes": None, "stage_steps": (1, 2, 0)},
    ],
)
def test_a_budget_is_one_thing_above_zero(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="budget|steps"):
        replace(PRESETS["cpu"], **wrong)  # type: ignore[arg-type]


STAGE = Stage("only", 1.0, (64, 64), 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 0.0},
        {"share": 1.5},
        {"size_hw": (60, 64)},
        {"size_hw": (64,)},
        {"pairs": 0},
        {"temperature": 0.0},
    ],
)
def test_nonsense_stages_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        replace(STAGE, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"minutes": 1.0, "steps": 10},
        {"steps": 0},
        {"minutes": float("inf")},
        {"stages": ()},
        {"stages": (STAGE, STAGE)},
    ],
)
def test_nonsense_presets_are_refused(wrong: dict[str, object]) -> None:
    budget = {} if wrong.keys() & {"minutes", "steps"} or not wrong else {"steps": 5}
    with pytest.raises(ConfigError):
        Preset(**{"name": "x", "network": NetworkConfig(), "stages": (STAGE,), **budget, **wrong})  # type: ignore[arg-type]


def test_a_recipe_of_another_version_says_so() -> None:
    values = asdict(PRESETS["cpu"])
    values["stages"][0]["self_labels"] = True
    with pytest.raises(ConfigError, match="self_labels, which this version"):
        Preset.from_json(values)


def test_every_preset_is_found_by_its_name() -> None:
    assert list(PRESETS) == ["gpu", "small", "cpu", "smoke"]
    for name, preset in PRESETS.items():
        assert find_preset(name) is preset  # type: ignore[arg-type]
        assert preset.name == name


@pytest.mark.parametrize("name", ["huge", "", "CPU"])
def test_an_unknown_preset_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"preset is '{name}', .* gpu, small, cpu, smoke"):
        find_preset(name)  # type: ignore[arg-type]


def test_scenes_of_a_gpu_are_shown_by_more_pairs() -> None:
    assert training_data(PRESETS["cpu"]) == training_data(ADAPT) == TRAINING_DATA
    data = training_data(PRESETS["gpu"])
    assert (data.bank, data.reuse) == (256, 80)
    assert replace(data, bank=TRAINING_DATA.bank, reuse=TRAINING_DATA.reuse) == TRAINING_DATA


def test_a_budget_in_minutes_counts_seconds_and_ends_at_one() -> None:
    preset = replace(PRESETS["cpu"], minutes=2.0)
    assert [preset.done(10**6, seconds) for seconds in (0, 30, 60, 120, 999)] == [
        0,
        0.25,
        0.5,
        1,
        1,
    ]


def test_a_budget_in_steps_counts_steps_and_ends_at_one() -> None:
    preset = PRESETS["smoke"]
    assert [preset.done(step, 1e9) for step in (0, 5, 20, 99)] == [0, 0.25, 1, 1]


def test_a_budget_replaces_any_other() -> None:
    for preset in (PRESETS["cpu"], PRESETS["smoke"]):
        by_steps = preset.with_budget(None, 7)
        assert (by_steps.minutes, by_steps.steps, by_steps.stage_steps) == (None, 7, None)
        by_minutes = by_steps.with_budget(1.5, None)
        assert (by_minutes.minutes, by_minutes.steps) == (1.5, None)
        assert preset.with_budget(None, None) is preset


@pytest.mark.parametrize(("minutes", "steps"), [(1.0, 1), (0.0, None), (None, 0), (-1.0, None)])
def test_a_budget_that_makes_no_sense_is_refused(minutes: float | None, steps: int | None) -> None:
    with pytest.raises(ConfigError, match="both minutes and steps|the budget"):
        PRESETS["cpu"].with_budget(minutes, steps)


@pytest.mark.parametrize("frozen", [-1, 5, True])
def test_a_network_has_four_blocks_to_freeze(frozen: int) -> None:
    with pytest.raises(ConfigError, match="frozen_blocks"):
        replace(PRESETS["cpu"], frozen_blocks=frozen)


def test_a_continuation_has_descriptors_and_repeatability_in_every_stage() -> None:
    first = PRESETS["cpu"]
    second = continuation_preset(first)
    assert [stage.name for stage in second.stages] == ["joint", "finish"]
    assert sum(stage.share for stage in second.stages) == pytest.approx(1)
    assert second.stages[0].share / second.stages[1].share == pytest.approx(0.58 / 0.3)
    assert {stage.repeat_weight for stage in second.stages} == {first.stages[-1].repeat_weight}
    assert second.learning_rate == CONTINUATION_RATE * first.learning_rate
    assert second.frozen_blocks == CONTINUATION_FROZEN
    assert (second.network, second.minutes) == (first.network, first.minutes)


def test_a_recipe_without_descriptors_is_continued_with_all_its_stages() -> None:
    only = replace(STAGE, descriptor_weight=0.0)
    preset = Preset("x", NetworkConfig(), (only,), steps=5)
    assert continuation_preset(preset).stages == (only,)


def test_adapting_mixes_photographs_with_drawn_scenes() -> None:
    data = adaptation_data(["a", "b"], "all")
    assert (data.photos, data.part) == (("a", "b"), "all")
    shares = data.shares()
    assert shares["photo"] == pytest.approx(0.7)
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("phases", [1, 2])
def test_adapting_trains_the_cell_phases_that_the_checkpoint_uses(phases: int) -> None:
    network = PRESETS["small"].network
    preset = adaptation_preset(network, phases)
    assert [stage.phases for stage in preset.stages] == [phases] * len(ADAPT.stages)
    assert preset.network == network


def test_trained_checkpoints_see_two_scales() -> None:
    assert PYRAMID == (1.0, 0.6)

"""What transformers' own tests ask of a model, asked of the guide's.

Source: transformers 5.23.0, tests of SuperPoint and the common tests that it inherits. Where the
guide's classes differ, `docs/compat.md` has a row with the reason, and a test here holds it.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the guide's classes need the extra torch")

from support.guide_models import (  # noqa: E402
    BOTH,
    EXACT_RULES,
    TRANSFORMERS_RULES,
    make_model,
    mark,
)
from tiepoint import (  # noqa: E402
    SuperPointConfig,
    SuperPointForKeypointDetection,
)
from tiepoint.errors import CheckpointError, ConfigError  # noqa: E402

SIZE_HW = (60, 80)


def pixels(batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 3, *SIZE_HW, generator=torch.Generator().manual_seed(0))


def test_the_main_input_is_the_first_of_the_call() -> None:
    names = list(inspect.signature(SuperPointForKeypointDetection.forward).parameters)
    assert names[1] == SuperPointForKeypointDetection.main_input_name == "pixel_values"
    assert SuperPointForKeypointDetection.config_class is SuperPointConfig


@BOTH
def test_a_new_model_has_random_weights_of_the_range_in_its_config(rules: str) -> None:
    model = SuperPointForKeypointDetection(
        SuperPointConfig(initializer_range=1e-10, tiepoint=mark(rules))
    )
    for name, weights in model.named_parameters():
        assert abs(float(weights.detach().mean())) < 1e-9, name
        assert weights.requires_grad, name


@BOTH
def test_every_tensor_of_the_model_is_a_parameter(rules: str) -> None:
    model = make_model(rules)
    held = [value for part in model.modules() for value in vars(part).values()]
    assert not any(isinstance(value, torch.Tensor) for value in held)
    assert dict(model.named_parameters()).keys() == model.state_dict().keys()


def test_the_number_of_parameters_is_counted() -> None:
    model = SuperPointForKeypointDetection.from_pretrained("base")
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    model.descriptor_decoder.requires_grad_(False)
    frozen = sum(p.numel() for p in model.descriptor_decoder.parameters())
    assert model.num_parameters(only_trainable=True) == model.num_parameters() - frozen


@BOTH
def test_two_calls_of_one_input_are_equal(rules: str) -> None:
    model = make_model(rules)
    with torch.no_grad():
        first, second = model(pixels()), model(pixels())
    assert all(torch.equal(first[name], second[name]) for name in first)


@BOTH
def test_tuples_and_outputs_hold_the_same(rules: str) -> None:
    model = make_model(rules)
    with torch.no_grad():
        output = model(pixels(), output_hidden_states=True)
        as_tuple = model(pixels(), output_hidden_states=True, return_dict=False)
    assert isinstance(as_tuple, tuple) and len(as_tuple) == len(output) == 5
    for one, other in zip(as_tuple[:4], output.to_tuple()[:4], strict=True):
        assert torch.equal(one, other)
    assert all(map(torch.equal, as_tuple[4], output.hidden_states))


@pytest.mark.parametrize(
    ("rules", "rows"), [(TRANSFORMERS_RULES, [30, 15, 7, 7]), (EXACT_RULES, [32, 16, 8, 8])]
)
@pytest.mark.parametrize("by_config", [False, True])
def test_hidden_states_have_the_rows_of_the_image_or_of_its_whole_cells(
    rules: str, rows: list[int], by_config: bool
) -> None:
    model = make_model(rules, output_hidden_states=by_config)
    with torch.no_grad():
        output = model(pixels(), **({} if by_config else {"output_hidden_states": True}))
    shapes = [tuple(state.shape) for state in output.hidden_states]
    columns, channels = [40, 20, 10, 10], [8, 8, 16, 16]
    assert shapes == [(3, *sides) for sides in zip(channels, rows, columns, strict=True)]


@BOTH
def test_saving_writes_two_files_and_loading_gives_equal_outputs(
    rules: str, tmp_path: Path
) -> None:
    model = make_model(rules)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = SuperPointForKeypointDetection.from_pretrained(tmp_path)
    assert not loaded.training
    with torch.no_grad():
        expected, found = model(pixels()), loaded(pixels())
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert int(expected.mask.sum()) > 30
    config = SuperPointConfig.from_pretrained(tmp_path)
    assert config.to_dict() == model.config.to_dict() == loaded.config.to_dict()
    assert config == loaded.config and config.architectures == [type(model).__name__]


def test_a_config_replaces_that_of_the_checkpoint(tmp_path: Path) -> None:
    model = make_model(EXACT_RULES)
    model.save_pretrained(tmp_path)
    config = copy.deepcopy(model.config)
    config.max_keypoints = 5
    loaded = SuperPointForKeypointDetection.from_pretrained(tmp_path, config=config)
    with torch.no_grad():
        assert loaded(pixels()).keypoints.shape == (3, 5, 2)
    assert loaded.config is not config
    for wrong in ({"config": SuperPointConfig()}, {"descriptor_decoder_dim": 8}):
        with pytest.raises(ConfigError, match="does not fit the weights"):
            SuperPointForKeypointDetection.from_pretrained(tmp_path, **wrong)  # type: ignore[arg-type]


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    make_model(EXACT_RULES).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(
        path.read_text().replace('"descriptor_decoder_dim": 16', '"descriptor_decoder_dim": 8')
    )
    with pytest.raises(CheckpointError, match="descriptor"):
        SuperPointForKeypointDetection.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="unknown setting ignore_mismatched_sizes"):
        SuperPointForKeypointDetection.from_pretrained(tmp_path, ignore_mismatched_sizes=True)  # type: ignore[call-arg]


def test_a_model_of_no_memory_is_made_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = SuperPointForKeypointDetection(SuperPointConfig())
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model.num_parameters() > 1_000_000


@pytest.mark.parametrize("how", [{"device": "cpu"}, {"device_map": "cpu"}, {"device_map": "auto"}])
def test_loading_puts_the_weights_on_a_device(how: dict[str, str]) -> None:
    expected = "cuda" if "auto" in how.values() and torch.cuda.is_available() else "cpu"
    with torch.device("cpu"):
        model = SuperPointForKeypointDetection.from_pretrained("small", **how)
    assert model.device.type == expected


@pytest.mark.parametrize(
    "how", [{"device": "cpu", "device_map": "cpu"}, {"device_map": {"encoder": "cpu"}}]
)
def test_a_split_over_devices_is_refused(how: Any) -> None:
    with pytest.raises(ConfigError, match="device_map"):
        SuperPointForKeypointDetection.from_pretrained("small", **how)


@BOTH
def test_images_of_a_batch_do_not_change_one_another(rules: str) -> None:
    model = make_model(rules)
    with torch.no_grad():
        together = model(pixels())
        for index in range(3):
            alone = model(pixels()[index : index + 1])
            count = int(alone.mask.sum())
            assert int(together.mask[index].sum()) == count > 0
            torch.testing.assert_close(together.keypoints[index, :count], alone.keypoints[0])
            torch.testing.assert_close(
                together.descriptors[index, :count], alone.descriptors[0], atol=1e-5, rtol=1e-4
            )

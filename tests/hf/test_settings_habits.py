"""What transformers' own tests ask of a config and a processor, asked of the guide's.

Source: transformers 5.23.0, tests of SuperPoint and the common tests that it inherits. Where the
guide's classes differ, `docs/compat.md` has a row with the reason, and a test here holds it.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the guide's classes need the extra torch")

from support.guide_models import (  # noqa: E402
    BOTH,
    COLOUR,
    EXACT_RULES,
    TRANSFORMERS_RULES,
    make_model,
    make_processor,
    mark,
)
from tiepoint import (  # noqa: E402
    AutoImageProcessor,
    SuperPointConfig,
    SuperPointForKeypointDetection,
    SuperPointImageProcessor,
)
from tiepoint.errors import CheckpointError, ConfigError  # noqa: E402

SIZE_HW = (60, 80)
KINDS = pytest.mark.parametrize("kind", ["config", "processor"])


def pixels(batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 3, *SIZE_HW, generator=torch.Generator().manual_seed(0))


def make(kind: str, rules: str = EXACT_RULES) -> Any:
    """A config or processor with other than default settings."""
    if kind == "config":
        return SuperPointConfig(
            encoder_hidden_sizes=[32, 32, 64, 64], decoder_hidden_size=128, tiepoint=mark(rules)
        )
    return make_processor(rules, do_resize=False)


@KINDS
@BOTH
def test_settings_become_json_and_come_back(kind: str, rules: str, tmp_path: Path) -> None:
    made = make(kind, rules)
    values = json.loads(made.to_json_string())
    assert values == json.loads(json.dumps(made.to_dict()))
    made.to_json_file(tmp_path / "any_name.json")
    read = type(made).from_json_file(tmp_path / "any_name.json")
    assert read.to_dict() == made.to_dict()
    assert (tmp_path / "any_name.json").read_text() == made.to_json_string()
    assert type(made)().to_dict() != made.to_dict()


@KINDS
def test_a_file_that_is_no_json_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    for content in ("", "[1, 2]", "{"):
        path.write_text(content)
        with pytest.raises(CheckpointError, match="settings.json"):
            type(make(kind)).from_json_file(path)
    with pytest.raises(CheckpointError, match="nowhere"):
        type(make(kind)).from_json_file(tmp_path / "nowhere.json")


@KINDS
@BOTH
def test_what_is_saved_in_a_folder_or_a_subfolder_loads_equal(
    kind: str, rules: str, tmp_path: Path
) -> None:
    made = make(kind, rules)
    made.save_pretrained(tmp_path / "sub")
    for loaded in (
        type(made).from_pretrained(tmp_path / "sub"),
        type(made).from_pretrained(tmp_path, subfolder="sub"),
    ):
        assert loaded.to_dict() == made.to_dict()


@KINDS
def test_a_folder_that_is_not_there_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        type(make(kind)).from_pretrained(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="subfolder 'sub' of org/name"):
        type(make(kind)).from_pretrained("org/name", subfolder="sub")


def test_a_model_loads_from_a_subfolder(tmp_path: Path) -> None:
    make_model(EXACT_RULES).save_pretrained(tmp_path / "detector")
    loaded = SuperPointForKeypointDetection.from_pretrained(tmp_path, subfolder="detector")
    assert loaded.config.descriptor_decoder_dim == 16


def test_settings_of_a_config_can_be_read_written_and_built() -> None:
    config = SuperPointConfig(decoder_hidden_size=40)
    assert config.decoder_hidden_size == 40
    config.encoder_hidden_sizes = [8, 8, 8, 8]
    assert config.to_dict()["encoder_hidden_sizes"] == [8, 8, 8, 8]
    assert SuperPointConfig() == SuperPointConfig()


def test_the_type_of_a_config_is_one_of_torch() -> None:
    for given in ("float16", torch.float16, "torch.float16"):
        config = SuperPointConfig(dtype=given)
        assert config.dtype is torch.float16 and config.to_dict()["dtype"] == "float16"
    assert SuperPointConfig(dtype="auto").dtype is None
    with pytest.raises(ConfigError, match="dtype is 'int9'"):
        SuperPointConfig(dtype="int9")


@pytest.mark.parametrize("name", ["num_labels", "id2label", "output_attentions", "is_decoder"])
def test_settings_of_other_tasks_are_refused_in_code_and_kept_in_files(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        SuperPointConfig(**{name: 1})
    config = SuperPointConfig.from_dict({**SuperPointConfig().to_dict(), name: 1})
    assert config.to_dict()[name] == 1


def test_saving_a_processor_returns_the_path_of_its_file(tmp_path: Path) -> None:
    (path,) = make("processor").save_pretrained(tmp_path)
    assert json.loads(Path(path).read_text())["image_processor_type"] == "SuperPointImageProcessor"


@BOTH
@pytest.mark.parametrize("how", [{}, {"use_fast": False}, {"backend": "pil"}])
def test_the_auto_class_loads_a_processor_of_any_backend(
    rules: str, how: dict[str, Any], tmp_path: Path
) -> None:
    made = make("processor", rules)
    made.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path, **how)
    assert loaded.to_dict() == made.to_dict()


@BOTH
def test_changing_one_processor_changes_no_other(rules: str) -> None:
    first, second = make("processor", rules), make("processor", rules)
    before = copy.deepcopy(second.size)
    for side in first.size:
        first.size[side] = -1
    assert second.size == before == make("processor", rules).size


@pytest.mark.parametrize("name", ["do_resize", "do_rescale", "size", "resample", "rescale_factor"])
@BOTH
def test_none_is_the_default_in_a_constructor_and_in_a_call(rules: str, name: str) -> None:
    default = SuperPointImageProcessor(tiepoint=mark(rules))
    with_none: Any = {name: None}
    assert (
        SuperPointImageProcessor(tiepoint=mark(rules), **with_none).to_dict() == default.to_dict()
    )
    found = default(COLOUR, return_tensors="np", **with_none)
    assert np.array_equal(found.pixel_values, default(COLOUR, return_tensors="np").pixel_values)


@BOTH
@pytest.mark.parametrize("kind", ["pil", "numpy", "torch"])
def test_one_image_and_a_batch_have_the_expected_shapes(rules: str, kind: str) -> None:
    from PIL import Image

    convert: Any = {"pil": Image.fromarray, "numpy": np.asarray}.get(
        kind, lambda image: torch.from_numpy(image).permute(2, 0, 1)
    )
    images = [convert(np.roll(COLOUR, shift, axis=0)) for shift in range(3)]
    processor = make_processor(rules, size={"height": 40, "width": 56}, do_grayscale=True)
    for given, batch in ((images[0], 1), (images, 3)):
        found = processor(given, return_tensors="pt").pixel_values
        assert found.shape == (batch, 3, 40, 56) and found.dtype == torch.float32
        assert torch.equal(found[:, 0], found[:, 1]) and torch.equal(found[:, 1], found[:, 2])


def test_rescaling_cannot_be_turned_off_under_the_exact_rules() -> None:
    exact, compat = make_processor(EXACT_RULES), make_processor(TRANSFORMERS_RULES)
    raw = exact(COLOUR, do_rescale=False, rescale_factor=7.0, return_tensors="np").pixel_values
    assert np.array_equal(raw, exact(COLOUR, return_tensors="np").pixel_values)
    assert compat(COLOUR, do_rescale=False, return_tensors="np").pixel_values.max() == 255
    scaled = exact(COLOUR / 255, do_rescale=False, return_tensors="np").pixel_values
    np.testing.assert_allclose(scaled, raw, atol=0.003)


def test_grey_can_be_turned_off_in_a_call_under_transformers_rules_only() -> None:
    colour = make_processor(TRANSFORMERS_RULES, do_grayscale=True)
    found = colour(COLOUR, do_grayscale=False, return_tensors="np").pixel_values
    assert not np.array_equal(found[:, 0], found[:, 1])
    with pytest.raises(ConfigError, match="tiepoint=None for transformers' rules"):
        make_processor(EXACT_RULES)(COLOUR, do_grayscale=False)


@pytest.mark.parametrize("name", ["input_data_format", "data_format", "do_normalize", "device"])
def test_settings_that_superpoint_does_not_have_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        make_processor(EXACT_RULES)(COLOUR, **{name: None})


@BOTH
def test_inputs_move_and_cast_like_tensors(rules: str) -> None:
    inputs = make_processor(rules)([COLOUR, COLOUR, COLOUR], return_tensors="pt")
    inputs.update({"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]])})
    assert inputs.to("cpu", torch.bfloat16).pixel_values.dtype == torch.bfloat16
    assert inputs.to(torch.float16).pixel_values.dtype == torch.float16
    assert inputs.input_ids.dtype == torch.long
    with pytest.raises(TypeError):
        inputs.to(torch.bfloat16, "cpu")


@BOTH
def test_a_folder_goes_through_transformers_and_back_unchanged(
    theirs: Any, rules: str, tmp_path: Path
) -> None:
    ours, back = tmp_path / "ours", tmp_path / "back"
    model, processor = make_model(rules), make_processor(rules)
    model.save_pretrained(ours)
    processor.save_pretrained(ours)

    other = theirs.AutoModelForKeypointDetection.from_pretrained(ours)
    assert other.num_parameters() == model.num_parameters()
    other.save_pretrained(back)
    theirs.AutoImageProcessor.from_pretrained(ours).save_pretrained(back)

    loaded = SuperPointForKeypointDetection.from_pretrained(back)
    for name, value in model.config.to_dict().items():
        assert loaded.config.to_dict()[name] == value, name
    read = AutoImageProcessor.from_pretrained(back).to_dict()
    assert {name: read[name] for name in processor.to_dict()} == processor.to_dict()
    with torch.no_grad():
        expected, found = model(pixels()), loaded(pixels())
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("kind", ["SuperPointConfig", "SuperPointImageProcessorPil"])
def test_json_of_either_is_read_by_the_other(theirs: Any, kind: str, tmp_path: Path) -> None:
    ours: Any = SuperPointConfig if kind == "SuperPointConfig" else SuperPointImageProcessor
    their: Any = getattr(theirs, kind)
    ours(tiepoint=None).to_json_file(tmp_path / "ours.json")
    their().to_json_file(tmp_path / "theirs.json")
    expected = their.from_json_file(tmp_path / "theirs.json").to_dict()
    for name, value in ours(tiepoint=None).to_dict().items():
        assert expected[name] == value, name
    shared = ours(tiepoint=None).to_dict().items()
    assert shared <= their.from_json_file(tmp_path / "ours.json").to_dict().items()
    read = ours.from_json_file(tmp_path / "theirs.json")
    assert read.rules == "transformers"

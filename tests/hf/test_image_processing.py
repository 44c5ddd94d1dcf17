"""The guide's processor under the exact rules; `test_compat_parity` has transformers' rules."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the guide's classes need the extra torch")

from PIL import Image  # noqa: E402

from support.guide_models import EXACT_RULES, make_processor  # noqa: E402
from tiepoint import AutoImageProcessor, SuperPointImageProcessor  # noqa: E402
from tiepoint.config import ProcessorConfig  # noqa: E402
from tiepoint.errors import (  # noqa: E402
    CheckpointError,
    ConfigError,
    FormatError,
    ImageError,
    OutputError,
)
from tiepoint.geometry import fit_inside  # noqa: E402
from tiepoint.hf.inputs import longest_side  # noqa: E402
from tiepoint.hf.outputs import BatchFeature, SuperPointKeypointDescriptionOutput  # noqa: E402
from tiepoint.network.inputs import prepare  # noqa: E402

GREY = np.random.default_rng(0).integers(0, 256, (60, 90), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (100, 50, 3), dtype=np.uint8)


def outputs(xy: list[list[float]], mask: list[int]) -> SuperPointKeypointDescriptionOutput:
    n = len(mask)
    return SuperPointKeypointDescriptionOutput(
        keypoints=torch.tensor([xy]),
        scores=torch.linspace(1, 0.5, n)[None],
        descriptors=torch.eye(n)[None],
        mask=torch.tensor([mask], dtype=torch.int32),
    )


def test_images_of_different_size_share_a_batch_with_a_mask() -> None:
    inputs = make_processor(EXACT_RULES)([GREY, COLOUR], return_tensors="pt")
    assert inputs.pixel_values.shape == (2, 3, 100, 90)
    assert inputs.pixel_values.dtype == torch.float32
    assert inputs.pixel_mask.shape == (2, 100, 90) and inputs.pixel_mask.dtype == torch.int64
    assert inputs.pixel_mask.sum(dim=(1, 2)).tolist() == [60 * 90, 100 * 50]
    assert inputs.pixel_mask[0, :60, :90].all() and inputs.pixel_mask[1, :100, :50].all()


def test_the_three_channels_are_the_same_grey_the_detector_sees() -> None:
    inputs = make_processor(EXACT_RULES)(COLOUR, return_tensors="np")
    expected, _ = prepare([COLOUR], ProcessorConfig(max_side=None))
    for channel in range(3):
        np.testing.assert_array_equal(inputs["pixel_values"][:, channel], expected[:, 0, :100, :50])


def test_the_pixels_of_an_image_do_not_depend_on_its_batch() -> None:
    alone = make_processor(EXACT_RULES)(GREY, return_tensors="np").pixel_values
    together = make_processor(EXACT_RULES)([COLOUR, GREY], return_tensors="np").pixel_values
    np.testing.assert_array_equal(together[1:, :, :60, :90], alone)
    np.testing.assert_array_equal(together[1, :, 60:64], together[1, :, 59:60].repeat(4, axis=1))
    assert not together[1, :, 64:].any()  # beyond its own cells


@pytest.mark.parametrize("image_hw", [(100, 100), (900, 1000), (1000, 900), (37, 4001), (4001, 37)])
@pytest.mark.parametrize("box_hw", [(480, 640), (64, 64), (31, 1000)])
def test_an_image_is_fitted_inside_the_size_and_no_smaller_than_need_be(
    image_hw: tuple[int, int], box_hw: tuple[int, int]
) -> None:
    height, width = fit_inside(image_hw, longest_side(image_hw, box_hw))
    assert height <= min(box_hw[0], image_hw[0]) and width <= min(box_hw[1], image_hw[1])
    touches = height >= box_hw[0] - 1 or width >= box_hw[1] - 1
    assert touches or (height, width) == image_hw


def test_a_small_image_is_not_enlarged_and_a_large_one_keeps_its_aspect() -> None:
    made = SuperPointImageProcessor()
    assert made(GREY, return_tensors="np").pixel_mask.sum() == 60 * 90
    large = np.zeros((1000, 2000), np.uint8)
    assert made(large, return_tensors="np").pixel_mask.sum() == 320 * 640


def test_without_resizing_the_native_size_stays() -> None:
    large = np.zeros((500, 700), np.uint8)
    inputs = SuperPointImageProcessor(do_resize=False)(large, return_tensors="np")
    assert inputs.pixel_mask.sum() == 500 * 700
    assert inputs.pixel_values.shape == (1, 3, 500, 700)
    called = SuperPointImageProcessor()(large, return_tensors="np", do_resize=False)
    np.testing.assert_array_equal(called.pixel_values, inputs.pixel_values)


@pytest.mark.parametrize(
    "size",
    [(30, 90), [30, 90], {"height": 30, "width": 90}, {"max_height": 30, "max_width": 90},
     {"longest_edge": 45}],
)  # fmt: skip
def test_a_size_may_be_given_in_several_forms(size: object) -> None:
    assert make_processor(EXACT_RULES)(GREY, size=size, return_tensors="np").pixel_mask.sum() == (
        30 * 45
    )


@pytest.mark.parametrize(
    "size",
    [{"shortest_edge": 30}, 30, (1, 2, 3), {"height": 0, "width": 5}, {"height": 9.5, "width": 5}],
)
def test_a_size_that_fits_nothing_is_refused(size: object) -> None:
    with pytest.raises(ConfigError, match="size is"):
        SuperPointImageProcessor(size=size)


def test_every_kind_of_source_works_in_one_list(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.fromarray(GREY).save(path)
    sources = [GREY, Image.fromarray(GREY), torch.from_numpy(GREY), path, str(path)]
    sources += [path.read_bytes(), torch.from_numpy(GREY)[None], GREY[..., None]]
    sources += [(GREY.astype(np.float32) / 255), GREY.astype(np.uint16) * 257]
    values = make_processor(EXACT_RULES)(sources, return_tensors="np").pixel_values
    assert len(values) == len(sources)
    np.testing.assert_allclose(values, np.broadcast_to(values[:1], values.shape), atol=1e-7)


def test_lists_of_lists_and_batches_are_flattened() -> None:
    made = make_processor(EXACT_RULES)
    assert len(made([[GREY], [GREY, COLOUR]], return_tensors="np").pixel_values) == 3
    assert len(made(np.stack([COLOUR, COLOUR]), return_tensors="np").pixel_values) == 2
    batch = torch.from_numpy(COLOUR).permute(2, 0, 1)[None]
    assert len(made(batch, return_tensors="np").pixel_values) == 1


def test_arrays_and_tensors_may_have_their_colours_first_or_last() -> None:
    made, first = make_processor(EXACT_RULES), COLOUR.transpose(2, 0, 1)
    expected = made(COLOUR, return_tensors="np").pixel_values
    for source in (first, torch.from_numpy(COLOUR), first[None], torch.from_numpy(COLOUR)[None]):
        np.testing.assert_array_equal(made(source, return_tensors="np").pixel_values, expected)
        values = made([COLOUR, source[0] if source.ndim == 4 else source]).pixel_values
        np.testing.assert_array_equal(values[1], expected[0])
    with pytest.raises(ImageError, match="shape"):
        made(np.zeros((5, 6, 7), np.uint8))


def test_a_bad_image_in_a_list_is_named_by_its_index() -> None:
    with pytest.raises(ImageError, match="item 1 of 2"):
        make_processor(EXACT_RULES)([GREY, "missing.png"])
    with pytest.raises(ImageError, match="empty list"):
        make_processor(EXACT_RULES)([])


def test_without_return_tensors_there_are_lists_of_arrays() -> None:
    inputs = make_processor(EXACT_RULES)([GREY, COLOUR])
    assert [one.shape for one in inputs.pixel_values] == [(3, 100, 90)] * 2
    assert isinstance(inputs.pixel_values, list) and len(inputs.pixel_mask) == 2
    with pytest.raises(ConfigError, match="return_tensors is 'tf'"):
        make_processor(EXACT_RULES)(GREY, return_tensors="tf")


def test_grey_is_not_optional_under_the_exact_rules() -> None:
    with pytest.raises(ConfigError, match="do_grayscale"):
        SuperPointImageProcessor(do_grayscale=False)
    with pytest.raises(ConfigError, match="do_grayscale"):
        SuperPointImageProcessor()(GREY, do_grayscale=False)


# ---- the inputs' class ------------------------------------------------------------------------


def test_inputs_are_reached_by_key_by_attribute_and_by_unpacking() -> None:
    inputs = make_processor(EXACT_RULES)(GREY, return_tensors="pt")
    assert inputs["pixel_values"] is inputs.pixel_values
    assert set({**inputs}) == {"pixel_values", "pixel_mask"} == set(inputs.keys())
    assert "pixel_values" in repr(inputs)
    with pytest.raises(AttributeError, match="pixels"):
        inputs.pixels
    again = pickle.loads(pickle.dumps(inputs))
    assert torch.equal(again.pixel_values, inputs.pixel_values)


def test_moving_inputs_casts_only_floating_point() -> None:
    inputs = BatchFeature({"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.int64), "c": [1]})
    for arguments in (("cpu", torch.float16), (torch.float16,)):
        assert inputs.to(*arguments) is inputs
        assert (inputs.a.dtype, inputs.b.dtype, inputs.c) == (torch.float16, torch.int64, [1])
    inputs.to(device="meta", dtype=torch.bfloat16)
    assert inputs.a.device.type == inputs.b.device.type == "meta"
    assert inputs.a.dtype == torch.bfloat16


# ---- post-processing --------------------------------------------------------------------------


def test_relative_keypoints_become_px_of_the_target() -> None:
    found = outputs([[0.5, 0.25], [0.1, 0.2], [0.0, 0.0]], [1, 1, 0])
    (one,) = SuperPointImageProcessor().post_process_keypoint_detection(found, [(200, 100)])
    assert one["keypoints"].dtype == torch.float32
    torch.testing.assert_close(one["keypoints"], torch.tensor([[49.5, 49.5], [9.5, 39.5]]))
    torch.testing.assert_close(one["scores"], found.scores[0, :2])
    torch.testing.assert_close(one["descriptors"], torch.eye(3)[:2])


def test_rounding_gives_the_nearest_pixel_inside_the_image() -> None:
    found = outputs([[0.506, 0.254], [0.0, 1.0]], [1, 1])
    made = SuperPointImageProcessor()
    (one,) = made.post_process_keypoint_detection(found, [(100, 100)], round=True)
    assert one["keypoints"].dtype == torch.int32
    assert one["keypoints"].tolist() == [[50, 25], [0, 99]]


def test_no_keypoints_leave_empty_results() -> None:
    found = SuperPointKeypointDescriptionOutput(
        keypoints=torch.zeros(1, 0, 2),
        scores=torch.zeros(1, 0),
        descriptors=torch.zeros(1, 0, 4),
        mask=torch.zeros(1, 0, dtype=torch.int32),
    )
    (one,) = SuperPointImageProcessor().post_process_keypoint_detection(found, [(9, 9)])
    assert [tuple(value.shape) for value in one.values()] == [(0, 2), (0,), (0, 4)]


@pytest.mark.parametrize(
    "sizes", [[(10, 20)] * 2, [10, 20], [(10, 20, 3)], [("a", "b")], [(0, 20)], 7, torch.ones(2, 2)]
)
def test_target_sizes_that_do_not_fit_are_refused(sizes: object) -> None:
    with pytest.raises(ConfigError, match="target_sizes"):
        SuperPointImageProcessor().post_process_keypoint_detection(
            outputs([[0.5, 0.5]], [1]),
            sizes,
        )


def test_anything_but_the_models_output_is_refused() -> None:
    found = outputs([[0.5, 0.5]], [1])
    made = SuperPointImageProcessor()
    with pytest.raises(ConfigError, match="type tuple.*return_dict=True"):
        made.post_process_keypoint_detection(found.to_tuple(), [(10, 10)])
    found.scores = None
    with pytest.raises(ConfigError, match="its scores of type NoneType"):
        made.post_process_keypoint_detection(found, [(10, 10)])


# ---- loading and saving -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "default", "base"])
def test_the_bundled_processor_follows_the_exact_rules(name: str | None) -> None:
    made = AutoImageProcessor.from_pretrained(name)
    assert isinstance(made, SuperPointImageProcessor)
    assert made.rules == "exact" and made.size == {"height": 480, "width": 640}


def test_what_is_saved_loads_again_with_keys_that_nobody_knows(tmp_path: Path) -> None:
    SuperPointImageProcessor(size=(100, 200), do_resize=False).save_pretrained(tmp_path / "new")
    path = tmp_path / "new" / "preprocessor_config.json"
    stored = json.loads(path.read_text())
    assert stored["image_processor_type"] == "SuperPointImageProcessor"
    assert stored["tiepoint"] == {"version": 1, "rules": "exact"}
    path.write_text(json.dumps({**stored, "colour": "blue"}))
    loaded = SuperPointImageProcessor.from_pretrained(tmp_path / "new", do_resize=True)
    assert loaded.size == {"height": 100, "width": 200} and loaded.do_resize
    assert loaded.colour == "blue"
    assert "colour='blue'" in repr(loaded)
    loaded.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / path.name).read_text())
    assert again == {**stored, "colour": "blue", "do_resize": True}


def test_without_the_key_the_rules_are_those_of_transformers(tmp_path: Path) -> None:
    SuperPointImageProcessor(tiepoint=None).save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert loaded.rules == "transformers" and not loaded.do_grayscale
    assert "tiepoint" not in json.loads((tmp_path / "preprocessor_config.json").read_text())


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        AutoImageProcessor.from_pretrained("nowhere")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: missing"):
        AutoImageProcessor.from_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"image_processor_type": "ViTImageProcessor"}))
    with pytest.raises(CheckpointError, match="ViTImageProcessor"):
        AutoImageProcessor.from_pretrained(tmp_path)
    path.write_text(json.dumps({"tiepoint": {"version": 9, "rules": "exact"}}))
    with pytest.raises(CheckpointError, match="version 9"):
        AutoImageProcessor.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="unknown setting sise"):
        AutoImageProcessor.from_pretrained(sise=3)


def test_what_cannot_be_saved_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        SuperPointImageProcessor().save_pretrained(tmp_path / "file")
    odd = SuperPointImageProcessor()
    odd.resample = object()
    with pytest.raises(FormatError, match="JSON"):
        odd.save_pretrained(tmp_path)

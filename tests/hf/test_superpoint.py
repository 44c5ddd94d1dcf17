"""The guide's model under the exact rules, its output, and the guide itself."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the guide's classes need the extra torch")

from PIL import Image  # noqa: E402

from support.guide_models import (  # noqa: E402
    BOTH,
    EXACT_RULES,
    TRANSFORMERS_RULES,
    detect,
    make_model,
    make_processor,
)
from tiepoint import AutoImageProcessor, Detector, SuperPointForKeypointDetection  # noqa: E402
from tiepoint.errors import ConfigError, TiepointError  # noqa: E402
from tiepoint.keypoints.on_torch import describe, select  # noqa: E402
from tiepoint.network.superpoint import cells_to_heatmap  # noqa: E402


@pytest.fixture(scope="module")
def model() -> SuperPointForKeypointDetection:
    return make_model(EXACT_RULES)


@pytest.fixture(scope="module")
def small(photographs: list[np.ndarray]) -> list[np.ndarray]:
    """Real photographs, two of different size and one smaller than the processor's size."""
    return [photographs[0][:300:2, :400:2], photographs[1], photographs[2][:90, :110]]


# ---- the guide --------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("gradients", [True, False])
def test_every_statement_of_the_guide_works(
    rules: str, gradients: bool, tmp_path: Path, small: list[np.ndarray], capsys: Any
) -> None:
    make_model(rules, max_keypoints=5).save_pretrained(tmp_path)
    make_processor(rules).save_pretrained(tmp_path)

    processor = AutoImageProcessor.from_pretrained(str(tmp_path))
    model = SuperPointForKeypointDetection.from_pretrained(str(tmp_path))
    images = [Image.fromarray(small[0]).convert("RGB"), Image.fromarray(small[1])]
    inputs = processor(images, return_tensors="pt").to(model.device, model.dtype)
    with torch.set_grad_enabled(gradients):
        outputs = model(**inputs)
    assert (outputs.scores.grad_fn is not None) == gradients
    assert (outputs.descriptors.grad_fn is not None) == gradients
    assert outputs.keypoints.grad_fn is None

    for i in range(len(images)):
        indices = torch.nonzero(outputs.mask[i]).squeeze()
        assert len(outputs.keypoints[i][indices]) == len(outputs.scores[i][indices])
        assert outputs.descriptors[i][indices].shape == (len(indices), 16)

    sizes = [(image.height, image.width) for image in images]
    results = processor.post_process_keypoint_detection(outputs, sizes)
    for image, result in zip(images, results, strict=True):
        for keypoints, scores, descriptors in zip(
            result["keypoints"], result["scores"], result["descriptors"], strict=True
        ):
            print(f"Keypoints: {keypoints}")
            print(f"Scores: {scores}")
            print(f"Descriptors: {descriptors}")
        keypoints = result["keypoints"].numpy()
        scores = result["scores"].detach().numpy()
        assert keypoints.shape == (5, 2) and (scores * 100 > 2).all()
        assert (keypoints[:, 0] < image.width).all() and (keypoints[:, 1] < image.height).all()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Keypoints: tensor([") and lines[1].startswith("Scores: ")
    assert ("dtype=torch.int32" in lines[0]) == (rules == TRANSFORMERS_RULES)


@BOTH
def test_numpy_inputs_and_every_form_of_the_output(rules: str, small: list[np.ndarray]) -> None:
    arrays = make_processor(rules)(small[1], return_tensors="np")
    inputs = {name: torch.from_numpy(value) for name, value in arrays.items()}
    model = make_model(rules)
    with torch.no_grad():
        out = model(**inputs)
        as_tuple = model(**inputs, return_dict=False)
    assert list(out.keys()) == ["keypoints", "scores", "descriptors", "mask"]
    assert out.loss is None and out.hidden_states is None and len(out) == 4 == len(as_tuple)
    for index, name in enumerate(out):
        assert out[name] is getattr(out, name) is out[index] is out.to_tuple()[index]
        assert torch.equal(as_tuple[index], out[index])
    assert out[:2] == (out.keypoints, out.scores)
    assert dict(out.items()).keys() == {**out}.keys() and "mask" in out and "loss" not in out
    assert repr(out).startswith("SuperPointKeypointDescriptionOutput(loss=None, keypoints=tensor(")
    with pytest.raises(KeyError, match="loss"):
        out["loss"]
    assert out != model(**inputs) and out == out
    assert torch.equal(pickle.loads(pickle.dumps(out)).scores, out.scores)


@BOTH
def test_hidden_states_are_the_output_of_each_block_after_its_pooling(rules: str) -> None:
    model, pixels = make_model(rules), torch.rand(2, 3, 48, 64)
    with torch.no_grad():
        out = model(pixels, output_hidden_states=True)
        as_tuple = model(pixels, output_hidden_states=True, return_dict=False)
    shapes = [(2, 8, 24, 32), (2, 8, 12, 16), (2, 16, 6, 8), (2, 16, 6, 8)]
    assert [tuple(state.shape) for state in out.hidden_states] == shapes
    assert [tuple(state.shape) for state in as_tuple[-1]] == shapes
    torch.testing.assert_close(out.hidden_states[-1], model.encode(pixels[:, :1]).detach())
    by_config = make_model(rules, output_hidden_states=True, return_dict=False)(pixels)
    assert len(by_config) == 5 and len(by_config[-1]) == 4


@BOTH
def test_labels_are_refused_with_a_pointer_to_training(rules: str) -> None:
    with pytest.raises(ValueError, match="tiepoint train") as caught:
        make_model(rules)(torch.rand(1, 3, 16, 16), labels=torch.zeros(1))
    assert isinstance(caught.value, TiepointError)


def test_the_names_need_torch_and_say_which_extra() -> None:
    code = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import tiepoint
for name in ("AutoImageProcessor", "SuperPointConfig", "SuperPointForKeypointDetection",
             "SuperPointImageProcessor", "SuperPointKeypointDescriptionOutput"):
    try:
        getattr(tiepoint, name)
    except tiepoint.MissingExtraError as error:
        print(error.extra, name in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torch", "True"] * 5


# ---- the exact rules --------------------------------------------------------------------------


def test_keypoints_equal_the_detectors_at_the_same_scale(
    model: SuperPointForKeypointDetection, small: list[np.ndarray], tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    detector = Detector(tmp_path, engine="torch", device="cpu")
    processor = make_processor(EXACT_RULES)
    outputs = detect(model, processor, small)
    sizes = [image.shape[:2] for image in small]
    results = processor.post_process_keypoint_detection(outputs, sizes)
    for image, longest, result in zip(small, (160, 160, 110), results, strict=True):
        expected = detector(image, max_side=longest)
        assert len(expected) > 50
        np.testing.assert_allclose(result["keypoints"].numpy(), expected.xy, atol=1e-2)
        np.testing.assert_allclose(result["scores"].numpy(), expected.scores, atol=1e-5)
        np.testing.assert_allclose(result["descriptors"].numpy(), expected.descriptors, atol=2e-3)


def test_a_batch_gives_what_its_images_give_alone(
    model: SuperPointForKeypointDetection, small: list[np.ndarray]
) -> None:
    processor = make_processor(EXACT_RULES)
    together = detect(model, processor, small)
    assert len({int(count) for count in together.mask.sum(dim=1)}) > 1  # there is padding
    for index, image in enumerate(small):
        alone = detect(model, processor, image)
        count = int(alone.mask.sum())
        assert count == int(together.mask[index].sum()) == alone.mask.shape[1]
        for name in ("keypoints", "scores", "descriptors"):
            torch.testing.assert_close(
                together[name][index, :count], alone[name][0], atol=1e-4, rtol=0
            )
            assert not together[name][index, count:].any()


def test_keypoints_are_relative_to_the_image_without_its_padding(
    model: SuperPointForKeypointDetection, small: list[np.ndarray]
) -> None:
    inputs = make_processor(EXACT_RULES)(small, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
        heatmap = cells_to_heatmap(model.dense(inputs.pixel_values[2:, :1, :96, :112])[0])
    pixels = inputs.pixel_values[2:, 0, :96, :112]
    flat = select(heatmap, [(90, 110)], model.config.detection(), inputs=pixels)
    count = int(outputs.mask[2].sum())
    expected = (flat.xy + 0.5) / torch.tensor([110, 90])
    torch.testing.assert_close(outputs.keypoints[2, :count], expected, atol=1e-4, rtol=0)


def test_scores_are_the_best_first_and_descriptors_have_unit_length(
    model: SuperPointForKeypointDetection, small: list[np.ndarray]
) -> None:
    outputs = detect(model, make_processor(EXACT_RULES), small)
    for scores, descriptors, mask in zip(
        outputs.scores, outputs.descriptors, outputs.mask.bool(), strict=True
    ):
        assert (scores[mask].diff() <= 0).all()
        torch.testing.assert_close(descriptors[mask].norm(dim=1), torch.ones(int(mask.sum())))


def test_the_limit_counts_for_each_image(small: list[np.ndarray]) -> None:
    outputs = detect(make_model(EXACT_RULES, max_keypoints=7), make_processor(EXACT_RULES), small)
    assert outputs.mask.sum(dim=1).tolist() == [7, 7, 7] and outputs.mask.dtype == torch.int32


def test_nothing_found_is_an_empty_output_with_gradients() -> None:
    model = make_model(EXACT_RULES, keypoint_threshold=1.0)
    outputs = model(torch.rand(2, 3, 40, 40))
    assert [tuple(value.shape) for value in outputs.to_tuple()] == [
        (2, 0, 2), (2, 0), (2, 0, 16), (2, 0)
    ]  # fmt: skip
    assert outputs.scores.grad_fn is not None and outputs.descriptors.grad_fn is not None


def test_gradients_reach_every_layer(small: list[np.ndarray]) -> None:
    model = make_model(EXACT_RULES)
    outputs = model(**make_processor(EXACT_RULES)(small[2], return_tensors="pt"))
    (outputs.scores.sum() + outputs.descriptors[..., 0].sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_coordinates_in_float32(dtype: Any, small: list[np.ndarray]) -> None:
    model = make_model(EXACT_RULES).to(dtype)
    processor = make_processor(EXACT_RULES)
    inputs = processor(small, return_tensors="pt").to(model.device, model.dtype)
    assert inputs.pixel_values.dtype == dtype and inputs.pixel_mask.dtype == torch.int64
    with torch.no_grad():
        half = model(**inputs)
    assert {half[name].dtype for name in ("keypoints", "scores", "descriptors")} == {torch.float32}
    full = detect(make_model(EXACT_RULES), processor, small)
    expected, found = full.keypoints[0][:40] * 150, half.keypoints[0] * 150
    nearest = torch.cdist(expected, found).min(dim=1).values
    assert (nearest < 0.5).float().mean() > 0.8  # most of the best points are found again


def test_float32_pixels_are_cast_to_the_models_type() -> None:
    model = make_model(EXACT_RULES).to(torch.bfloat16)
    with torch.no_grad():
        assert model(torch.rand(1, 3, 30, 30)).keypoints.dtype == torch.float32


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (17, 23)])
def test_pixels_that_fill_no_whole_cells_are_padded_by_repeating_the_edge(
    size: tuple[int, int],
) -> None:
    model = make_model(EXACT_RULES, border_removal_distance=0)
    pixels = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(1))
    height, width = size
    below, right = -height % 8, -width % 8
    padded = torch.nn.functional.pad(pixels, (0, right, 0, below), mode="replicate")
    mask = torch.zeros(1, height + below, width + right)
    mask[0, :height, :width] = 1
    with torch.no_grad():
        out, expected = model(pixels), model(padded, pixel_mask=mask)
    assert int(out.mask.sum()) > 0
    for name in ("keypoints", "scores", "descriptors"):
        torch.testing.assert_close(out[name], expected[name], atol=1e-6, rtol=0)


def test_images_of_one_size_need_no_mask(
    model: SuperPointForKeypointDetection, small: list[np.ndarray]
) -> None:
    images = [small[2][:85, :109], small[1][:85, :109]]  # no whole cells
    inputs = make_processor(EXACT_RULES)(images, return_tensors="pt")
    with torch.no_grad():
        expected, out = model(**inputs), model(inputs.pixel_values)
    assert int(out.mask.sum()) > 0
    for name in out:
        assert torch.equal(out[name], expected[name]), name


@pytest.mark.parametrize(
    ("pixels", "mask"),
    [
        (torch.rand(3, 16, 16), None),
        (torch.rand(0, 3, 16, 16), None),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), None),
        (torch.rand(1, 3, 16, 16), torch.ones(1, 8, 16)),
        (torch.rand(1, 3, 16, 16), torch.zeros(1, 16, 16)),
        (torch.rand(1, 3, 16, 16), torch.eye(16)[None]),
    ],
)
def test_pixels_and_masks_that_do_not_fit_are_refused(
    model: SuperPointForKeypointDetection, pixels: Any, mask: Any
) -> None:
    with pytest.raises(ConfigError, match="pixel_"):
        model(pixels, pixel_mask=mask)


@BOTH
@pytest.mark.parametrize("kind", ["np", None])
def test_inputs_that_are_no_tensors_say_how_to_get_them(rules: str, kind: str | None) -> None:
    inputs = make_processor(rules)(np.zeros((24, 24, 3), np.uint8), return_tensors=kind)
    with pytest.raises(ConfigError, match='return_tensors="pt"'):
        make_model(rules)(**inputs)


def test_the_dense_part_compiles_as_one_graph(model: SuperPointForKeypointDetection) -> None:
    compiled = torch.compile(model.dense, backend="eager", fullgraph=True)
    pixels, inside = torch.rand(2, 1, 32, 40), torch.ones(2, 1, 4, 5)
    inside[1, :, 2:] = 0
    with torch.no_grad():
        for found, expected in zip(
            compiled(pixels, inside), model.dense(pixels, inside), strict=True
        ):
            torch.testing.assert_close(found, expected)


def test_the_whole_model_still_works_when_compiled(small: list[np.ndarray]) -> None:
    model, processor = make_model(EXACT_RULES), make_processor(EXACT_RULES)
    expected = detect(model, processor, small[2])
    model.dense = torch.compile(model.dense, backend="eager", fullgraph=True)
    torch.testing.assert_close(detect(model, processor, small[2]).scores, expected.scores)


def test_descriptors_are_read_where_the_keypoints_are(
    model: SuperPointForKeypointDetection,
) -> None:
    pixels = torch.rand(1, 1, 64, 80, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits, dense = model.dense(pixels)
        out = model(pixels)
    detection = model.config.detection()
    flat = select(cells_to_heatmap(logits), [(64, 80)], detection, inputs=pixels[:, 0])
    expected = describe([dense], flat.image, flat.xy, torch.tensor([[8, 10]]), "exact")
    torch.testing.assert_close(out.descriptors[0], expected)

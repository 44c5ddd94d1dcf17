"""The guide's model and processor for pairs under the exact rules; what both refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the guide's classes need the extra torch")

from PIL import Image  # noqa: E402

from support.guide_matchers import (  # noqa: E402
    CONFIG,
    NEAREST,
    detector_of,
    make_matcher,
    make_pair_processor,
    match,
    mild_tensors,
    nearest_tensors,
    views,
)
from support.guide_models import BOTH, COLOUR, EXACT_RULES  # noqa: E402
from tiepoint import LightGlueForKeypointMatching, LightGlueKeypointMatchingOutput  # noqa: E402
from tiepoint.errors import ConfigError, ImageError  # noqa: E402
from tiepoint.features import Features  # noqa: E402
from tiepoint.matching.learned.folder import MatcherCheckpoint  # noqa: E402
from tiepoint.matching.learned.matcher import LearnedMatcher  # noqa: E402

SHIFT = (8, 16)
BLANK = np.full((90, 120), 128, np.uint8)


@pytest.fixture(scope="module")
def pair(photographs: list[np.ndarray]) -> list[np.ndarray]:
    """Two crops of one photograph, shifted by SHIFT, that fit into the processor's size."""
    return views(photographs[1][100:220, 100:260], SHIFT)


@pytest.fixture(scope="module")
def other(photographs: list[np.ndarray]) -> list[np.ndarray]:
    """Two photographs of other sizes and shapes."""
    return [photographs[0][150:247, 180:311], photographs[2][150:210, 200:350]]


@pytest.fixture(scope="module")
def nearest() -> LightGlueForKeypointMatching:
    return make_matcher(EXACT_RULES, NEAREST, nearest_tensors(NEAREST))


def sizes_of(*pairs: list[np.ndarray]) -> list[list[tuple[int, int]]]:
    return [[image.shape[:2] for image in pair] for pair in pairs]


def test_results_equal_those_of_the_detector_and_the_learned_matcher(pair: Any, other: Any) -> None:
    model, processor = make_matcher(filter_threshold=1e-4), make_pair_processor()
    inputs = processor([pair, other], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
        flat = model.keypoint_detector(
            inputs.pixel_values.flatten(0, 1), pixel_mask=inputs.pixel_mask.flatten(0, 1)
        )
    tensors = mild_tensors(CONFIG)
    checkpoint = MatcherCheckpoint("random", "0" * 64, CONFIG, 1e-4, None, tensors)
    matcher = LearnedMatcher(checkpoint, engine="torch")
    results = processor.post_process_keypoint_matching(outputs, sizes_of(pair, other))
    found = 0
    for index, (images, result) in enumerate(zip((pair, other), results, strict=True)):
        features = []
        for row, image in zip((2 * index, 2 * index + 1), images, strict=True):
            height, width = image.shape[:2]
            kept = flat.mask[row].bool()
            xy = flat.keypoints[row][kept].numpy() * [width, height] - 0.5
            features.append(
                Features(
                    xy.astype(np.float32), flat.scores[row][kept].numpy(),
                    flat.descriptors[row][kept].numpy(), (height, width),
                )
            )  # fmt: skip
        expected = matcher(*features)
        found += len(expected.pairs)
        np.testing.assert_allclose(result["matching_scores"], expected.scores, atol=1e-5)
        for side, name in enumerate(("keypoints0", "keypoints1")):
            xy = features[side].xy[expected.pairs[:, side]]
            np.testing.assert_allclose(result[name], xy, atol=1e-3)
    assert found > 5


def test_matches_of_a_shifted_view_are_where_the_shift_moves_them(
    pair: Any, nearest: LightGlueForKeypointMatching
) -> None:
    processor = make_pair_processor()
    outputs = match(nearest, processor, pair)
    result = processor.post_process_keypoint_matching(outputs, sizes_of(pair), threshold=0.3)[0]
    moved = result["keypoints0"] - result["keypoints1"]  # M 2
    distance = (moved - torch.tensor([SHIFT[1], SHIFT[0]])).norm(dim=1)
    assert len(distance) > 20 and (distance < 1).float().mean() > 0.8
    assert result["keypoints0"].dtype == torch.float32 and (moved % 1).any()


def test_positions_are_in_px_of_images_that_were_downscaled(
    photographs: list[np.ndarray], nearest: LightGlueForKeypointMatching
) -> None:
    large = [np.ascontiguousarray(photographs[2][::1, ::1])] * 2  # 400x600 into 120x160
    processor = make_pair_processor()
    outputs = match(nearest, processor, large)
    result = processor.post_process_keypoint_matching(outputs, sizes_of(large))[0]
    same = (result["keypoints0"] == result["keypoints1"]).all(dim=1)  # M; alike ones may differ
    assert len(same) > 20 and same.float().mean() > 0.9
    assert result["keypoints0"][:, 0].max() > 400 and result["keypoints0"][:, 1].max() > 250


def test_a_batch_gives_what_its_pairs_give_alone(pair: Any, other: Any) -> None:
    model, processor = make_matcher(filter_threshold=1e-4), make_pair_processor()
    together = match(model, processor, [other, pair, [BLANK, pair[0]]])
    counts = together.mask.sum(dim=2)
    assert len(set(counts.flatten().tolist())) > 3 and counts[2, 0] == 0  # there is padding
    for index, images in enumerate((other, pair)):
        alone = match(model, processor, images)
        for side in (0, 1):
            count = int(alone.mask[0, side].sum())
            assert count == int(counts[index, side])
            for name in ("keypoints", "matching_scores", "matches", "prune"):
                torch.testing.assert_close(
                    together[name][index, side, :count], alone[name][0, side, :count],
                    atol=1e-5, rtol=0,
                )  # fmt: skip


def test_matches_of_both_images_agree_and_padding_has_none(pair: Any, other: Any) -> None:
    model = make_matcher(filter_threshold=1e-4)
    outputs = match(model, make_pair_processor(), [pair, other])
    found = 0
    for matches, scores, mask in zip(
        outputs.matches, outputs.matching_scores, outputs.mask.bool(), strict=True
    ):
        of_a = torch.nonzero(matches[0] >= 0)[:, 0]
        found += len(of_a)
        assert torch.equal(matches[1, matches[0, of_a]], of_a)
        assert int((matches[1] >= 0).sum()) == len(of_a)
        assert torch.equal(scores[0, of_a], scores[1, matches[0, of_a]])
        assert (scores[0, of_a] > 1e-4).all() and (scores <= 1).all()
        assert (matches[~mask] == -1).all() and not scores[~mask].any()
    assert found > 5
    assert outputs.matches.dtype == torch.int64 and outputs.mask.dtype == torch.int32
    assert torch.equal(outputs.prune, torch.where(outputs.mask.bool(), CONFIG.layers, 1))


@BOTH
@pytest.mark.parametrize("second", ["blank", "full"])
def test_images_without_keypoints_have_no_matches(rules: str, second: str, pair: Any) -> None:
    model = make_matcher(rules, NEAREST, nearest_tensors(NEAREST))
    processor = make_pair_processor(rules)
    black = np.zeros_like(pair[0])
    images = [black, black if second == "blank" else pair[1]]
    with torch.no_grad():
        inputs = processor([images, images[::-1]], return_tensors="pt")
        quiet = model.keypoint_detector(inputs.pixel_values[:, 0], return_dict=True).mask
        outputs = model(**inputs)
    results = processor.post_process_keypoint_matching(outputs, sizes_of(images, images[::-1]))
    assert (outputs.matches == -1).all() and not outputs.matching_scores.any()
    assert quiet[0].sum() == 0 and len(results) == 2
    for result in results:
        assert result["keypoints0"].shape == result["keypoints1"].shape == (0, 2)
        assert result["matching_scores"].shape == (0,)
    pictures = processor.visualize_keypoint_matching([images, images[::-1]], results)
    assert [picture.size for picture in pictures] == [(2 * black.shape[1], len(black))] * 2


def test_gradients_reach_the_matcher_and_not_the_detector(pair: Any) -> None:
    model = make_matcher(filter_threshold=0.0)
    outputs = model(**make_pair_processor()(pair, return_tensors="pt"))
    outputs.matching_scores.sum().backward()
    last = f".{CONFIG.layers - 1}."
    for name, parameter in model.named_parameters():
        unused = name.startswith(("keypoint_detector", "token_confidence")) or (
            name.startswith("match_assignment_layers") and last not in name
        )
        assert unused == (parameter.grad is None), name
        assert unused or torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_coordinates_and_scores_in_float32(dtype: Any, pair: Any) -> None:
    model = make_matcher(EXACT_RULES, NEAREST, nearest_tensors(NEAREST)).to(dtype)
    outputs = match(model, make_pair_processor(), pair)
    assert outputs.keypoints.dtype == outputs.matching_scores.dtype == torch.float32
    result = make_pair_processor().post_process_keypoint_matching(outputs, sizes_of(pair), 0.3)[0]
    moved = result["keypoints0"] - result["keypoints1"] - torch.tensor([SHIFT[1], SHIFT[0]])
    assert (moved.norm(dim=1) < 1.5).float().mean() > 0.7


def test_outputs_are_read_by_name_by_index_and_as_a_tuple(pair: Any) -> None:
    model, processor = make_matcher(), make_pair_processor()
    outputs = match(model, processor, pair)
    assert isinstance(outputs, LightGlueKeypointMatchingOutput)
    assert list(outputs) == ["matches", "matching_scores", "keypoints", "prune", "mask"]
    assert outputs[0] is outputs["matches"] is outputs.matches and outputs.hidden_states is None
    with torch.no_grad():
        as_tuple = model(**processor(pair, return_tensors="pt"), return_dict=False)
    assert all(torch.equal(a, b) for a, b in zip(as_tuple, outputs.to_tuple(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"pixel_values": torch.rand(2, 3, 32, 32)}, "expected B 2 C H W"),
        ({"pixel_values": torch.rand(1, 3, 3, 32, 32)}, "expected B 2 C H W"),
        ({"pixel_values": torch.rand(0, 2, 3, 32, 32)}, "expected B 2 C H W"),
        ({"pixel_values": np.zeros((1, 2, 3, 32, 32))}, 'return_tensors="pt"'),
        ({"pixel_values": torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8)}, "floating point"),
        ({"pixel_values": torch.full((1, 2, 3, 32, 32), torch.nan)}, "NaN"),
        ({"pixel_mask": torch.ones(2, 32, 32)}, "pixel_mask has shape"),
        ({"pixel_mask": torch.zeros(1, 2, 32, 32)}, "one rectangle"),
        ({"labels": torch.zeros(1)}, "labels were given"),
        ({"output_attentions": True}, "output_attentions is True"),
        ({"output_hidden_states": True}, "output_hidden_states is True"),
    ],
)
def test_inputs_that_do_not_fit_and_requests_without_an_answer_are_refused(
    arguments: Any, reason: str, nearest: LightGlueForKeypointMatching
) -> None:
    with pytest.raises(ConfigError, match=reason):
        nearest(**{"pixel_values": torch.rand(1, 2, 3, 32, 32), **arguments})


def test_a_config_that_asks_for_hidden_states_is_refused_when_called() -> None:
    model = make_matcher(output_hidden_states=True)
    with pytest.raises(ConfigError, match="output_hidden_states is True"):
        model(torch.rand(1, 2, 1, 32, 32))
    with torch.no_grad():
        assert len(model(torch.rand(1, 2, 1, 32, 32), output_hidden_states=False)) == 5


@BOTH
@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (COLOUR, "expected a list of two images"),
        ("a.png", "expected a list of two images"),
        (None, "expected a list of two images"),
        ([], "0 items, expected two images"),
        ([[]], "pair 0 of 1: 0 items"),
        ([COLOUR], "1 items, expected two images"),
        ([COLOUR] * 3, "3 items, expected two images"),
        ([[COLOUR, COLOUR], [COLOUR] * 3], "pair 1 of 2: 3 items"),
        ([[COLOUR, COLOUR], COLOUR], "pair 1 of 2: an object of type ndarray"),
        ([[[COLOUR], [COLOUR]]], "lists in place of images"),
        ([COLOUR, np.full((9, 9, 3), np.nan)], "."),
        ([COLOUR, np.zeros((2, 9, 9, 3), np.uint8)], "shape"),
        ([COLOUR, object()], "object"),
        ([COLOUR, "no-such-file.png"], "no-such-file.png"),
    ],
)
def test_anything_but_pairs_of_images_is_refused(rules: str, images: Any, reason: str) -> None:
    processor = make_pair_processor(rules)
    with pytest.raises(ImageError, match=reason):
        processor(images, return_tensors="pt")


@pytest.mark.parametrize("kind", ["pt", "np", None])
def test_images_of_any_source_and_size_share_a_batch(
    kind: str | None, pair: Any, other: Any, tmp_path: Any
) -> None:
    Image.fromarray(pair[0]).save(tmp_path / "a.png")
    mixed = [(tmp_path / "a.png", Image.fromarray(pair[1])), [other[0], torch.tensor(other[1])]]
    mixed[1][1] = mixed[1][1].permute(2, 0, 1)
    found = make_pair_processor()(mixed, return_tensors=kind)
    expected = make_pair_processor()([pair, other], return_tensors="np")
    for name in ("pixel_values", "pixel_mask"):
        assert len(found[name]) == 2
        np.testing.assert_array_equal(np.asarray(found[name]), expected[name])
    assert expected.pixel_values.shape == (2, 2, 3, 112, 150)
    heights = expected.pixel_mask.any(axis=3).sum(axis=2)
    assert heights.tolist() == [[112, 112], [97, 60]]


def test_the_best_match_is_first_and_whole_pixels_are_given_on_request(
    pair: Any, nearest: LightGlueForKeypointMatching
) -> None:
    processor = make_pair_processor()
    outputs = match(nearest, processor, pair)
    sizes = sizes_of(pair)
    exact = processor.post_process_keypoint_matching(outputs, sizes, 0.2)[0]
    assert (exact["matching_scores"].diff() <= 0).all() and exact["matching_scores"].min() > 0.2
    whole = processor.post_process_keypoint_matching(outputs, sizes, 0.2, round=True)[0]
    assert whole["keypoints0"].dtype == torch.int32
    assert (whole["keypoints0"] - exact["keypoints0"]).abs().max() <= 0.5
    for form in (np.array(sizes), torch.tensor(sizes), tuple(map(tuple, sizes))):
        again = processor.post_process_keypoint_matching(outputs, form, 0.2)[0]
        assert all(torch.equal(again[name], exact[name]) for name in exact)


@BOTH
@pytest.mark.parametrize(
    "sizes", [[], [(90, 120)], [[(90, 120)]], [[(90, 120)] * 3], [[(90, 120)] * 2] * 2, "ab", None,
              [[(0, 5), (5, 5)]], [[("a", 5), (5, 5)]]],
)  # fmt: skip
def test_anything_but_two_sizes_for_each_pair_is_refused(rules: str, sizes: Any) -> None:
    outputs = LightGlueKeypointMatchingOutput(
        matches=torch.zeros(1, 2, 3).long(), matching_scores=torch.ones(1, 2, 3),
        keypoints=torch.rand(1, 2, 3, 2), mask=torch.ones(1, 2, 3).int(),
    )  # fmt: skip
    processor = make_pair_processor(rules)
    with pytest.raises(ConfigError, match="target_sizes"):
        processor.post_process_keypoint_matching(outputs, sizes)


def test_outputs_of_another_kind_and_thresholds_out_of_range_are_refused(
    pair: Any, nearest: LightGlueForKeypointMatching
) -> None:
    processor = make_pair_processor()
    outputs = match(nearest, processor, pair)
    with pytest.raises(ConfigError, match="return_dict=True"):
        processor.post_process_keypoint_matching(outputs.to_tuple(), sizes_of(pair))
    for threshold in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="threshold"):
            processor.post_process_keypoint_matching(outputs, sizes_of(pair), threshold)


def test_pictures_show_both_images_and_a_line_in_the_colour_of_the_score() -> None:
    grey = np.full((40, 60), 200, np.uint8)
    deep = np.full((30, 50, 3), 40000, np.uint16)
    result = {
        "keypoints0": torch.tensor([[10.2, 20.0]]), "keypoints1": torch.tensor([[30.0, 19.6]]),
        "matching_scores": torch.tensor([1.0]),
    }  # fmt: skip
    processor = make_pair_processor()
    (picture,) = processor.visualize_keypoint_matching([grey, deep], [result])
    pixels = np.asarray(picture)
    assert picture.mode == "RGB" and pixels.shape == (40, 110, 3)
    assert pixels[0, 0].tolist() == [200, 200, 200] and pixels[39, 109].tolist() == [0, 0, 0]
    assert pixels[20, 50].tolist() == [0, 255, 0]  # between the ends, at 10 and 60 + 30
    assert pixels[20, 10].tolist() == pixels[20, 90].tolist() == [0, 0, 0]
    assert not (pixels[20, 94:] == [0, 255, 0]).all(axis=1).any()


def test_a_picture_needs_one_result_for_each_pair() -> None:
    with pytest.raises(ConfigError, match="0 results for 1 pairs"):
        make_pair_processor().visualize_keypoint_matching([COLOUR, COLOUR], [])
    with pytest.raises(ImageError, match="1 items"):
        make_pair_processor().visualize_keypoint_matching([COLOUR], [])


def test_the_detector_inside_is_the_one_that_detects_alone(pair: Any) -> None:
    from tiepoint import SuperPointForKeypointDetection

    model = make_matcher()
    alone = SuperPointForKeypointDetection(model.config.detector).eval()
    alone.load(detector_of(EXACT_RULES).tensors)
    inputs = make_pair_processor()(pair, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
        expected = alone(inputs.pixel_values[0], pixel_mask=inputs.pixel_mask[0])
    assert torch.equal(outputs.keypoints[0], expected.keypoints)
    assert torch.equal(outputs.mask[0], expected.mask)

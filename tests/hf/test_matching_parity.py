"""Equal to transformers 5.23.0 under its rules: matchers' folders, the model, the processor.

A batch's padding is compared only where it has a meaning: transformers leaves values in it.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the guide's classes need the extra torch")

from PIL import Image  # noqa: E402

from support.guide_matchers import (  # noqa: E402
    CONFIG,
    NEAREST,
    centre_descriptors,
    detector_of,
    make_matcher,
    make_pair_processor,
    mild_tensors,
    nearest_tensors,
    views,
)
from support.guide_models import COLOUR, EXACT_RULES, TRANSFORMERS_RULES  # noqa: E402
from support.learned_matchers import random_tensors  # noqa: E402
from tiepoint import (  # noqa: E402
    AutoImageProcessor,
    AutoModelForKeypointMatching,
    LightGlueConfig,
    LightGlueForKeypointMatching,
)
from tiepoint.errors import ImageError, TiepointError  # noqa: E402
from tiepoint.matching.learned.architecture import MatcherConfig  # noqa: E402
from tiepoint.matching.learned.folder import load_matcher, save_matcher  # noqa: E402

SIZES = [CONFIG, MatcherConfig(32, 32, 4, 2), MatcherConfig(256, 256, 4, 2)]
"""The last has the widths of the published checkpoint, with fewer layers."""
FIELDS = ("matches", "matching_scores", "keypoints", "prune", "mask")
SIZE = {"height": 96, "width": 128}


@pytest.fixture(scope="module")
def pairs(photographs: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Two pairs with different counts of keypoints."""
    return [views(photographs[1][:150, :200]), [photographs[2], photographs[3]]]


def weights_of(sizes: MatcherConfig) -> dict[str, np.ndarray]:
    """Random weights with which some keypoints match."""
    return mild_tensors(sizes) if sizes == CONFIG else random_tensors(sizes, tied=False)


def assert_equal_outputs(ours: Any, their: Any) -> int:
    """Compare all fields; returns the number of matches in the first images."""
    valid = their.mask.bool()
    shape = their.mask.shape
    assert list(ours.keys()) == list(their.keys())
    for name in FIELDS:
        own, other = ours[name], their[name]
        other = other.reshape(*shape, *other.shape[3:]) if name == "keypoints" else (
            other.reshape(shape)
        )  # fmt: skip
        assert own.shape == other.shape, name
        torch.testing.assert_close(
            own[valid], other[valid], atol=1e-5, rtol=0, check_dtype=False, msg=name
        )
    assert torch.equal(ours.mask, their.mask)
    assert not (ours.matches[~valid] != -1).any() and not ours.matching_scores[~valid].any()
    return int((ours.matches[:, 0] >= 0).sum())


def compare(ours: Any, their: Any, images: Any) -> int:
    """Run both on prepared images."""
    inputs = make_pair_processor(TRANSFORMERS_RULES, size=SIZE)(images, return_tensors="pt")
    with torch.no_grad():
        return assert_equal_outputs(ours(**inputs), their(inputs.pixel_values))


def their_random(theirs: Any, sizes: MatcherConfig, **settings: Any) -> Any:
    """A model of transformers with other weights than its start, which prefers nothing."""
    torch.manual_seed(0)
    detector = theirs.SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 16, 24], decoder_hidden_size=20, keypoint_threshold=0.015,
        descriptor_decoder_dim=sizes.descriptor_length, max_keypoints=120,
    )  # fmt: skip
    model = theirs.LightGlueForKeypointMatching(
        theirs.LightGlueConfig(
            keypoint_detector_config=detector.to_dict(), descriptor_dim=sizes.width,
            num_attention_heads=sizes.heads, num_hidden_layers=sizes.layers, **settings,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.keypoint_detector.named_parameters():
            is_weight = parameter.ndim > 1
            step = (12 if "score_b" in name else 1.4) / parameter[0].numel() ** 0.5
            parameter.add_(torch.randn_like(parameter) * (step if is_weight else 0.05))
    own = {n: torch.from_numpy(array) for n, array in weights_of(sizes).items()}
    assert not model.load_state_dict(own, strict=False).unexpected_keys
    centre_descriptors(model.keypoint_detector)
    return model.eval()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_folder_of_transformers_gives_equal_results(
    theirs: Any, tmp_path: Path, pairs: Any, sizes: MatcherConfig
) -> None:
    never = {"depth_confidence": 1.0, "width_confidence": 1.0}
    their = their_random(theirs, sizes, filter_threshold=1e-4, **never)
    their.save_pretrained(tmp_path)
    theirs.LightGlueImageProcessorPil(size=SIZE).save_pretrained(tmp_path)
    ours = AutoModelForKeypointMatching.from_pretrained(tmp_path)
    assert isinstance(ours, LightGlueForKeypointMatching)
    assert ours.config.rules == "transformers" and not ours.training
    assert set(ours.state_dict()) == set(their.state_dict())
    assert ours.num_parameters() == their.num_parameters()
    assert compare(ours, their, pairs) > 5
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert processor.rules == "transformers" and processor.do_grayscale
    expected = theirs.AutoImageProcessor.from_pretrained(tmp_path)(pairs, return_tensors="pt")
    found = processor(pairs, return_tensors="pt").pixel_values
    assert torch.equal(found, expected.pixel_values)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("saved_by", ["save_matcher", "save_pretrained"])
def test_a_folder_of_ours_gives_equal_results_in_transformers(
    theirs: Any, tmp_path: Path, pairs: Any, sizes: MatcherConfig, saved_by: str
) -> None:
    if saved_by == "save_matcher":
        tensors = weights_of(sizes)
        detector = detector_of(TRANSFORMERS_RULES, sizes)
        save_matcher(tmp_path, sizes, tensors, detector, threshold=1e-4)
    else:
        model = make_matcher(TRANSFORMERS_RULES, sizes, weights_of(sizes), filter_threshold=1e-4)
        model.save_pretrained(tmp_path)
        make_pair_processor(TRANSFORMERS_RULES).save_pretrained(tmp_path)
    their, info = theirs.AutoModelForKeypointMatching.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert compare(AutoModelForKeypointMatching.from_pretrained(tmp_path), their, pairs) > 5
    assert theirs.AutoImageProcessor.from_pretrained(tmp_path).do_grayscale
    their.save_pretrained(tmp_path / "back")
    back = load_matcher(tmp_path / "back")
    assert back.config == sizes and back.threshold == 1e-4
    assert back.detector_sha256 == load_matcher(tmp_path).detector_sha256


def test_a_folder_of_the_exact_rules_loads_in_transformers_under_its_own(
    theirs: Any, tmp_path: Path, pairs: Any
) -> None:
    save_matcher(tmp_path, CONFIG, mild_tensors(CONFIG), detector_of(EXACT_RULES), threshold=1e-4)
    their = theirs.AutoModelForKeypointMatching.from_pretrained(tmp_path)
    assert theirs.AutoImageProcessor.from_pretrained(tmp_path).do_grayscale
    config = LightGlueConfig.from_pretrained(tmp_path)
    assert config.rules == AutoImageProcessor.from_pretrained(tmp_path).rules == "exact"
    config.detector.tiepoint = None
    ours = LightGlueForKeypointMatching.from_pretrained(tmp_path, config=config)
    assert ours.config.rules == "transformers" and compare(ours, their, pairs) > 5


def test_early_stopping_and_pruning_are_ignored_with_a_warning(
    theirs: Any, tmp_path: Path, pairs: Any
) -> None:
    """As in the published folders, whose values are transformers' defaults."""
    their = their_random(theirs, CONFIG, filter_threshold=1e-4)
    assert (their.config.depth_confidence, their.config.width_confidence) == (0.95, 0.99)
    their.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"depth_confidence 0.95 .* have no effect"):
        ours = LightGlueForKeypointMatching.from_pretrained(tmp_path)
    never = theirs.LightGlueForKeypointMatching.from_pretrained(
        tmp_path, depth_confidence=1.0, width_confidence=1.0
    )
    assert compare(ours, never, pairs) > 5
    ours.save_pretrained(tmp_path / "again")  # the values of others are kept
    stored = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (stored["depth_confidence"], stored["width_confidence"]) == (0.95, 0.99)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LightGlueForKeypointMatching.from_pretrained(
            tmp_path, depth_confidence=1.0, width_confidence=1.0
        )


def test_transformers_confuses_pairs_that_stop_at_different_layers(
    theirs: Any, tmp_path: Path, pairs: Any
) -> None:
    """The reason for ignoring early stopping; if this fails, transformers has changed."""
    make_matcher(TRANSFORMERS_RULES).save_pretrained(tmp_path)
    their = theirs.LightGlueForKeypointMatching.from_pretrained(tmp_path, depth_confidence=0.5)
    processor = make_pair_processor(TRANSFORMERS_RULES)
    pixels = processor(pairs, return_tensors="pt").pixel_values
    layers_of = iter([torch.tensor([False, True]), torch.tensor([True])])
    their._get_early_stopped_image_pairs = lambda *_, **__: next(layers_of)
    with torch.no_grad():
        both = their(pixels)
        their._get_early_stopped_image_pairs = lambda _, layer, *__, **___: torch.tensor(
            [layer == 1]
        )
        first = their(pixels[:1])
    valid = first.mask[0].bool()  # the first pair's
    counted = valid.shape[1]
    close = [
        torch.allclose(row[:, :counted][valid], first.matching_scores[0][valid], atol=1e-5)
        for row in both.matching_scores
    ]
    assert close == [False, True]


def test_the_switch_of_transformers_for_never_is_read(
    theirs: Any, tmp_path: Path, pairs: Any
) -> None:
    """Its matches have another shape then, which its own post-processing refuses."""
    their = their_random(
        theirs, CONFIG, filter_threshold=1e-4, depth_confidence=-1.0, width_confidence=-1.0
    )
    their.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = LightGlueForKeypointMatching.from_pretrained(tmp_path)
    assert compare(ours, their, pairs) > 5
    ours.save_pretrained(tmp_path)
    reloaded = theirs.LightGlueForKeypointMatching.from_pretrained(tmp_path)
    assert (reloaded.config.depth_confidence, reloaded.config.width_confidence) == (1.0, 1.0)
    assert compare(ours, reloaded, pairs) > 5


@pytest.fixture(scope="module")
def both(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same weights in both libraries; they match nearest neighbours."""
    folder = tmp_path_factory.mktemp("nearest")
    make_matcher(TRANSFORMERS_RULES, NEAREST, nearest_tensors(NEAREST)).save_pretrained(folder)
    return (
        LightGlueForKeypointMatching.from_pretrained(folder),
        theirs.LightGlueForKeypointMatching.from_pretrained(folder),
    )


def test_matches_of_the_original_images_and_their_pictures_are_equal(
    theirs: Any, both: Any, pairs: Any
) -> None:
    images = [[Image.fromarray(image) for image in pair] for pair in pairs]
    sizes = [[(image.height, image.width) for image in pair] for pair in images]
    ours, their = make_pair_processor(TRANSFORMERS_RULES, size=SIZE), (
        theirs.LightGlueImageProcessorPil(size=SIZE)
    )  # fmt: skip
    results = []
    for processor, model in zip((ours, their), both, strict=True):
        with torch.no_grad():
            outputs = model(processor(images, return_tensors="pt").pixel_values)
        found = processor.post_process_keypoint_matching(outputs, sizes, threshold=0.1)
        again = processor.post_process_keypoint_matching(outputs, torch.tensor(sizes), 0.1)
        for one, other in zip(found, again, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
        results.append((found, processor.visualize_keypoint_matching(images, found)))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        assert one.keys() == other.keys() and one["keypoints0"].dtype == torch.int32
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=0)
    assert len(results[0][0][0]["keypoints0"]) > 10
    for one, other in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_one_pair_a_tuple_and_an_output_without_keypoints_are_equal(both: Any, pairs: Any) -> None:
    inputs = make_pair_processor(TRANSFORMERS_RULES, size=SIZE)(pairs[0], return_tensors="pt")
    with torch.no_grad():
        found, expected = (model(**inputs, return_dict=False) for model in both)
        assert len(found) == len(expected) == len(FIELDS)
        torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=0)
        nothing, their = (model(torch.zeros(2, 2, 3, 40, 48)) for model in both)
    assert [tuple(value.shape) for value in nothing.values()] == [
        tuple(value.shape) for value in their.values()
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loads_as_in_transformers_and_matches_nearly_alike(
    theirs: Any, tmp_path: Path, pairs: Any, dtype: Any
) -> None:
    """Coordinates remain float32 here, so results differ in the last digits of half precision."""
    make_matcher(TRANSFORMERS_RULES, NEAREST, nearest_tensors(NEAREST)).save_pretrained(tmp_path)
    ours, their = (
        library.from_pretrained(tmp_path, dtype=dtype)
        for library in (LightGlueForKeypointMatching, theirs.LightGlueForKeypointMatching)
    )
    assert ours.dtype == their.dtype == dtype
    inputs = make_pair_processor(TRANSFORMERS_RULES, size=SIZE)(pairs[0], return_tensors="pt")
    pixels = inputs.pixel_values.to(dtype)
    with torch.no_grad():
        found, expected = ours(pixels), their(pixels)
    assert found.keypoints.dtype == found.matching_scores.dtype == torch.float32
    assert torch.equal(found.keypoints.to(dtype), expected.keypoints)
    assert (found.matches == expected.matches).float().mean() > 0.8


PIL_IMAGE = Image.fromarray(COLOUR)
TENSOR = torch.from_numpy(COLOUR).permute(2, 0, 1)
_PNG = io.BytesIO()
PIL_IMAGE.save(_PNG, "PNG")
TAKEN: dict[str, Any] = {
    "a list of two": [COLOUR, PIL_IMAGE],
    "a tuple": (COLOUR, PIL_IMAGE),
    "one pair in a list": [[COLOUR, COLOUR[:30]]],
    "two pairs": [[COLOUR, COLOUR[:30]], [PIL_IMAGE, TENSOR]],
    "pairs as tuples": [(COLOUR, COLOUR[:30]), (PIL_IMAGE, TENSOR)],
    "three pairs": [[COLOUR, COLOUR[::-1]]] * 3,
    "arrays C H W": [COLOUR.transpose(2, 0, 1), TENSOR],
    "floats": [COLOUR / 255, TENSOR / 255],
    "grey images": [PIL_IMAGE.convert("L"), COLOUR[None, ..., 0]],
    "RGBA": [np.dstack([COLOUR, COLOUR[..., 0]])] * 2,
    "base64 text": [base64.b64encode(_PNG.getvalue()).decode(), COLOUR],
    "grey and colour": [PIL_IMAGE.convert("L"), COLOUR],
    "one image": COLOUR,
    "one image in a list": [COLOUR],
    "three images": [COLOUR] * 3,
    "three in a pair": [[COLOUR] * 3],
    "one in a pair": [[COLOUR], [COLOUR]],
    "images and pairs": [COLOUR, [COLOUR, COLOUR]],
    "an array of two": np.stack([COLOUR, COLOUR]),
    "arrays H W": [COLOUR[..., 0], COLOUR[..., 0]],
    "lists in a pair": [[[COLOUR, COLOUR], [COLOUR, COLOUR]]],
    "16 bits": [COLOUR.astype(np.uint16) * 257] * 2,
    "NaN": [np.full((9, 9, 3), np.nan)] * 2,
    "objects": [object(), object()],
    "nothing": None,
}
HOW: dict[str, dict[str, Any]] = {
    "as it is": {},
    "colour": {"do_grayscale": False},
    "native size": {"do_resize": False},
}


@pytest.mark.parametrize("source", TAKEN)
@pytest.mark.parametrize("how", HOW)
def test_the_processor_equals_transformers(theirs: Any, source: str, how: str) -> None:
    for kind in ("pt", "np", None):
        results = []
        for processor in (
            make_pair_processor(TRANSFORMERS_RULES, size=SIZE),
            theirs.LightGlueImageProcessorPil(size=SIZE),
        ):
            try:
                inputs = processor(TAKEN[source], return_tensors=kind, **HOW[how])
                results.append(inputs["pixel_values"])
            except Exception as error:  # noqa: BLE001 - whatever transformers raises
                results.append(error)
        ours, their = results
        if isinstance(their, Exception):  # what transformers refuses is refused here
            assert isinstance(ours, TiepointError) and len(str(ours)) > 20
            continue
        assert not isinstance(ours, Exception), ours
        if kind is None:
            assert [len(pair) for pair in ours] == [len(pair) for pair in their]
            ours, their = ([image for pair in one for image in pair] for one in (ours, their))
        else:
            assert ours.dtype == their.dtype and ours.shape == their.shape
        for one, other in zip(ours, their, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_an_empty_list_is_refused_unlike_in_transformers(theirs: Any) -> None:
    assert len(theirs.LightGlueImageProcessorPil()([])["pixel_values"]) == 0
    with pytest.raises(ImageError, match="0 items, expected two images"):
        make_pair_processor(TRANSFORMERS_RULES)([])


def test_unknown_keys_of_both_configs_survive_both_ways(theirs: Any, tmp_path: Path) -> None:
    model = make_matcher(TRANSFORMERS_RULES)
    model.config.colour = "blue"
    model.config.detector.shape = {"round": 1}
    model.save_pretrained(tmp_path)
    their = theirs.LightGlueForKeypointMatching.from_pretrained(tmp_path)
    assert their.config.colour == "blue"
    their.save_pretrained(tmp_path / "back")
    config = LightGlueConfig.from_pretrained(tmp_path / "back")
    assert config.colour == "blue" and config.detector.shape == {"round": 1}
    assert config.matcher() == CONFIG
    assert dataclasses.astuple(config.detector.network()) == dataclasses.astuple(
        model.config.detector.network()
    )

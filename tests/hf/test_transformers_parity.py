"""Equal to transformers 5.23.0 under its rules: checkpoints, the model, the processor."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the guide's classes need the extra torch")

from PIL import Image  # noqa: E402

from support.guide_models import (  # noqa: E402
    COLOUR,
    EXACT_RULES,
    PALETTE,
    TRANSFORMERS_RULES,
    make_model,
    make_processor,
)
from tiepoint import (  # noqa: E402
    AutoImageProcessor,
    Detector,
    SuperPointConfig,
    SuperPointForKeypointDetection,
)
from tiepoint.errors import ConfigError, ImageError, TiepointError  # noqa: E402
from tiepoint.network.inputs import to_grey  # noqa: E402
from tiepoint.weights.checkpoint import locate  # noqa: E402

WIDTHS = [((8, 8, 16, 16), 24, 16), ((16, 8, 24, 32), 40, 48), ((64, 64, 128, 128), 256, 256)]
FIELDS = ("keypoints", "scores", "descriptors", "mask")


@pytest.fixture(scope="module")
def pictures(photographs: list[np.ndarray]) -> list[Image.Image]:
    """Real photographs, all in colour, for one batch."""
    return [Image.fromarray(photo).convert("RGB") for photo in photographs]


def assert_equal_outputs(ours: Any, their: Any) -> None:
    assert list(ours.keys()) == list(their.keys())
    for name in FIELDS:
        assert ours[name].dtype == their[name].dtype, name
        torch.testing.assert_close(ours[name], their[name], atol=1e-5, rtol=0)
    for own, other in zip(ours.hidden_states or (), their.hidden_states or (), strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("widths", "hidden", "length"), WIDTHS)
@pytest.mark.parametrize("saved_by", ["tiepoint", "transformers"])
def test_checkpoints_travel_both_ways_with_equal_results(
    theirs: Any, tmp_path: Path, pictures: list[Image.Image], widths: Any, hidden: int, length: int,
    saved_by: str,
) -> None:  # fmt: skip
    model = make_model(TRANSFORMERS_RULES, widths, hidden, length)
    size = {"height": 120, "width": 160}
    if saved_by == "tiepoint":
        model.save_pretrained(tmp_path)
        make_processor(TRANSFORMERS_RULES, size=size).save_pretrained(tmp_path)
    else:
        settings = model.config.to_dict()
        their_model = theirs.SuperPointForKeypointDetection(theirs.SuperPointConfig(**settings))
        their_model.load_state_dict(model.state_dict())
        their_model.save_pretrained(tmp_path)
        theirs.SuperPointImageProcessorPil(size=size).save_pretrained(tmp_path)

    their_model = theirs.SuperPointForKeypointDetection.from_pretrained(tmp_path)
    their_processor = theirs.SuperPointImageProcessorPil.from_pretrained(tmp_path)
    ours = SuperPointForKeypointDetection.from_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert ours.config.rules == processor.rules == "transformers"
    assert set(ours.state_dict()) == set(their_model.state_dict())

    inputs = processor(pictures, return_tensors="pt")
    their_inputs = their_processor(pictures, return_tensors="pt")
    assert torch.equal(inputs.pixel_values, their_inputs.pixel_values)
    with torch.no_grad():
        found = ours(**inputs, output_hidden_states=True)
        expected = their_model(**their_inputs, output_hidden_states=True)
    assert int(expected.mask.sum()) > 200
    assert_equal_outputs(found, expected)

    sizes = [(picture.height, picture.width) for picture in pictures]
    for target in (sizes, torch.tensor(sizes)):
        for one, other in zip(
            processor.post_process_keypoint_detection(found, target),
            their_processor.post_process_keypoint_detection(expected, target),
            strict=True,
        ):
            assert one.keys() == other.keys() and one["keypoints"].dtype == torch.int32
            for name, value in one.items():
                torch.testing.assert_close(value, other[name], atol=1e-5, rtol=0)


def test_a_checkpoint_of_the_exact_rules_loads_in_transformers(
    theirs: Any, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    make_model(EXACT_RULES, max_keypoints=30).save_pretrained(tmp_path)
    make_processor(EXACT_RULES).save_pretrained(tmp_path)
    model = theirs.SuperPointForKeypointDetection.from_pretrained(tmp_path)
    processor = theirs.SuperPointImageProcessorPil.from_pretrained(tmp_path)
    assert model.config.tiepoint == {"version": 1, "rules": "exact"} and processor.do_grayscale
    with torch.no_grad():
        assert model(**processor(pictures, return_tensors="pt")).keypoints.shape == (4, 30, 2)
    model.save_pretrained(tmp_path / "back")  # transformers keeps the key
    processor.save_pretrained(tmp_path / "back")
    back = SuperPointForKeypointDetection.from_pretrained(tmp_path / "back")
    assert back.config.rules == "exact" and back.config.max_keypoints == 30
    assert AutoImageProcessor.from_pretrained(tmp_path / "back").rules == "exact"


def test_transformers_finds_the_same_points_with_the_bundled_weights(
    theirs: Any, photographs: list[np.ndarray]
) -> None:
    """The same pixels given to both; ours settle on them afterwards, within half the NMS radius."""
    grey = np.ascontiguousarray(to_grey(photographs[0])[:240, :320])
    detector = Detector(precision="f32", max_side=None, scales=(1,), phases=1)
    model = theirs.SuperPointForKeypointDetection.from_pretrained(locate("default"))
    pixels = torch.from_numpy(grey)[None, None].expand(1, 3, 240, 320)
    with torch.no_grad():
        found = model(pixels)
    places = (found.keypoints[0] * torch.tensor([320, 240])).round().numpy()  # whole pixels
    expected = detector(grey)
    farthest = detector.checkpoint.detection.nms_radius / 2
    assert len(expected) > 100
    apart = np.abs(expected.xy[:, None] - places[None]).max(axis=2)  # N M
    near = apart.min(axis=1) <= farthest + 1e-3
    scores = found.scores[0].numpy()[apart.argmin(axis=1)]
    assert (near & (np.abs(scores - expected.scores) < 1e-4)).mean() > 0.98
    assert abs(len(places) - len(expected)) <= 0.02 * len(expected)


@pytest.fixture
def pair(theirs: Any, tmp_path: Path) -> Any:
    """The same random weights in both libraries; settings as for the config."""

    def make(dtype: Any = torch.float32, **settings: Any) -> tuple[Any, Any]:
        make_model(TRANSFORMERS_RULES, **settings).save_pretrained(tmp_path)
        return tuple(
            library.from_pretrained(tmp_path, dtype=dtype)
            for library in (SuperPointForKeypointDetection, theirs.SuperPointForKeypointDetection)
        )

    return make


@pytest.mark.parametrize("height_width", [(48, 64), (50, 71), (8, 8), (120, 33)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_keypoints": 11},
        {"max_keypoints": 100_000},
        {"nms_radius": 0},
        {"nms_radius": 2, "border_removal_distance": 0},
        {"keypoint_threshold": 1.0},
    ],
)
def test_the_model_equals_transformers(pair: Any, height_width: Any, settings: Any) -> None:
    ours, their = pair(**settings)
    pixels = torch.rand(3, 3, *height_width, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert_equal_outputs(ours(pixels), their(pixels))
        for own, other in zip(
            ours(pixels, return_dict=False), their(pixels, return_dict=False), strict=True
        ):
            torch.testing.assert_close(own, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_equals_transformers(pair: Any, dtype: Any) -> None:
    ours, their = pair(dtype=dtype)
    assert ours.dtype == their.dtype == dtype
    pixels = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(4)).to(dtype)
    with torch.no_grad():
        assert_equal_outputs(ours(pixels), their(pixels))


def test_outputs_print_as_in_transformers(pair: Any) -> None:
    ours, their = pair(max_keypoints=3)
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert str(ours(pixels)) == str(their(pixels))
        assert list(ours(pixels)) == list(their(pixels))


def test_gradients_reach_scores_and_descriptors_as_in_transformers(pair: Any) -> None:
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(6))
    gradients = []
    for model in pair():
        outputs = model(pixels)
        assert outputs.keypoints.grad_fn is None
        (outputs.scores.sum() + outputs.descriptors[..., 0].sum()).backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    ours, their = gradients
    assert ours.keys() == their.keys()
    for name, gradient in ours.items():
        assert gradient.any(), name
        torch.testing.assert_close(gradient, their[name], atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("stated", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("asked", [None, "auto", torch.float16])
def test_weights_load_in_the_type_that_transformers_picks(
    theirs: Any, tmp_path: Path, stored: str, stated: str | None, asked: Any
) -> None:
    make_model(TRANSFORMERS_RULES).save_pretrained(tmp_path, dtype=stored)
    path = tmp_path / "config.json"
    config = {**json.loads(path.read_text()), "dtype": stated}
    path.write_text(json.dumps({name: value for name, value in config.items() if value}))
    options = {} if asked is None else {"dtype": asked}
    their = theirs.SuperPointForKeypointDetection.from_pretrained(tmp_path, **options)
    ours = SuperPointForKeypointDetection.from_pretrained(tmp_path, **options)
    assert ours.dtype == their.dtype
    for name, tensor in their.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)


def test_unknown_config_keys_survive_both_ways(theirs: Any, tmp_path: Path) -> None:
    model = make_model(TRANSFORMERS_RULES)
    model.config.colour = "blue"
    model.save_pretrained(tmp_path)
    their = theirs.SuperPointForKeypointDetection.from_pretrained(tmp_path)
    assert their.config.colour == "blue"
    their.config.taste = {"sweet": 1}
    their.save_pretrained(tmp_path / "back")
    config = SuperPointConfig.from_pretrained(tmp_path / "back")
    assert config.colour == "blue" and config.taste == {"sweet": 1}
    assert config.keypoint_threshold == 0.02 and config.encoder_hidden_sizes == [8, 8, 16, 16]


TAKEN: dict[str, Any] = {
    "PIL RGB": Image.fromarray(COLOUR),
    "PIL L": Image.fromarray(COLOUR).convert("L"),
    "PIL RGBA": Image.fromarray(np.dstack([COLOUR, COLOUR[..., 0]])),
    "PIL LA": Image.fromarray(COLOUR).convert("LA"),
    "PIL CMYK": Image.fromarray(COLOUR).convert("CMYK"),
    "PIL palette": PALETTE,
    "PIL 1": Image.fromarray(COLOUR).convert("1"),
    "array H W 3": COLOUR,
    "array 3 H W": COLOUR.transpose(2, 0, 1),
    "array 1 H W": COLOUR[None, ..., 0],
    "array of floats in 0..1": COLOUR / 255,
    "array of float32 in 0..1": (COLOUR / 255).astype(np.float32),
    "array of floats in 0..255": COLOUR.astype(np.float32),
    "array of small integers": (COLOUR // 2).astype(np.int64),
    "tensor 3 H W": torch.from_numpy(COLOUR).permute(2, 0, 1),
    "tensor of floats": torch.from_numpy(COLOUR).permute(2, 0, 1) / 255,
    "one list": [COLOUR, Image.fromarray(COLOUR[:30])],
    "a list and a flat array in it": [COLOUR[None, ..., 0], COLOUR[..., 1]],
    "lists of lists": [[COLOUR], [COLOUR[::-1], COLOUR]],
    "array B H W 3": np.stack([COLOUR, COLOUR[::-1]]),
    "list of batches": [np.stack([COLOUR, COLOUR[::-1]])],
    "tensor B 3 H W": torch.from_numpy(COLOUR).permute(2, 0, 1)[None],
    "a tuple": (Image.fromarray(COLOUR), COLOUR),
}
HOW: dict[str, dict[str, Any]] = {
    "as it is": {},
    "grey": {"do_grayscale": True},
    "native size": {"do_resize": False},
    "native size and grey": {"do_resize": False, "do_grayscale": True},
    "not rescaled": {"do_rescale": False},
    "another factor": {"rescale_factor": 1 / 100},
    "another filter": {"resample": 3},
    "nearest": {"resample": 0},
}


def both_prepare(theirs: Any, images: Any, kind: str, **how: Any) -> tuple[Any, Any]:
    results = []
    for make in (make_processor, theirs.SuperPointImageProcessorPil):
        rules = (TRANSFORMERS_RULES,) if make is make_processor else ()
        try:
            made = make(*rules, **{"size": {"height": 24, "width": 40}})
            results.append(made(images, return_tensors=kind, **how)["pixel_values"])
        except Exception as error:  # noqa: BLE001 - whatever transformers raises
            results.append(error)
    return results[0], results[1]


@pytest.mark.parametrize("source", TAKEN)
@pytest.mark.parametrize("how", HOW)
def test_the_processor_equals_transformers(theirs: Any, source: str, how: str) -> None:
    for kind in ("pt", "np"):
        ours, their = both_prepare(theirs, TAKEN[source], kind, **HOW[how])
        if isinstance(their, Exception):  # what transformers refuses is refused here
            assert isinstance(ours, TiepointError)
            continue
        assert not isinstance(ours, Exception), ours
        assert ours.dtype == their.dtype and ours.shape == their.shape
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(their))


SIZES: list[Any] = [
    {"height": 31, "width": 17}, (31, 17), 33, {"shortest_edge": 33}, {"shortest_edge": 50},
    {"shortest_edge": 33, "longest_edge": 40}, {"shortest_edge": 33, "longest_edge": 90},
    {"shortest_edge": 50, "longest_edge": 70}, {"max_height": 40, "max_width": 41},
    {"max_height": 400, "max_width": 301},
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("image_hw", [(50, 70), (70, 50), (41, 41), (7, 90)])
def test_every_form_of_size_equals_transformers(theirs: Any, size: Any, image_hw: Any) -> None:
    image = np.resize(COLOUR, (*image_hw, 3))
    ours, their = both_prepare(theirs, image, "np", size=size)
    np.testing.assert_array_equal(ours, their)


REFUSED: dict[str, Any] = {
    "array H W": COLOUR[..., 0],
    "16 bits": COLOUR.astype(np.uint16) * 257,
    "floats below 0": COLOUR / 255 - 0.5,
    "NaN": np.full((9, 9, 3), np.nan),
    "two channels": COLOUR[..., :2],
    "five axes": np.zeros((1, 1, 9, 9, 3), np.uint8),
    "an object": object(),
    "bytes": b"no image",
    "no such file": "no-such-file.png",
    "two sizes": [COLOUR, np.zeros((50, 70, 4), np.uint8)],
}


@pytest.mark.parametrize("source", REFUSED)
def test_what_transformers_refuses_is_refused_with_a_reason(theirs: Any, source: str) -> None:
    ours, their = both_prepare(theirs, REFUSED[source], "pt")
    assert isinstance(their, Exception)
    assert isinstance(ours, TiepointError) and len(str(ours)) > 20


@pytest.mark.parametrize("size", [{"longest_edge": 30}, {"min_pixels": 1, "max_pixels": 99}])
def test_sizes_that_transformers_refuses_are_refused(theirs: Any, size: Any) -> None:
    ours, their = both_prepare(theirs, COLOUR, "pt", size=size)
    assert isinstance(their, Exception) and isinstance(ours, ConfigError)


def test_grey_and_colour_share_a_numpy_batch_as_in_transformers(theirs: Any) -> None:
    images = [Image.fromarray(COLOUR), Image.fromarray(COLOUR).convert("L")]
    ours, their = both_prepare(theirs, images, "np")
    assert ours.shape == their.shape == (2,) and ours.dtype == their.dtype == object
    ours, their = both_prepare(theirs, images, "pt")
    assert isinstance(their, ValueError) and isinstance(ours, ImageError)


def test_paths_and_base64_text_are_read_as_in_transformers(theirs: Any, tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([COLOUR, COLOUR[..., 0]])).save(path, exif=exif)
    text = base64.b64encode(path.read_bytes()).decode()
    for source in (str(path), text, f"data:image/png;base64,{text}", [str(path), COLOUR]):
        ours, their = both_prepare(theirs, source, "np")
        np.testing.assert_array_equal(ours, their)


def test_a_list_of_arrays_without_return_tensors_as_in_transformers(theirs: Any) -> None:
    ours, their = both_prepare(theirs, [COLOUR, COLOUR], None)  # type: ignore[arg-type]
    assert type(ours) is type(their) is list
    np.testing.assert_array_equal(ours, their)

"""transformers' defects beside the exact rules.

`docs/compat.md` lists the defects by number; a test here is named after its row.
"""

from __future__ import annotations

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
    PINNED,
    TRANSFORMERS_RULES,
    detect,
    make_model,
    make_processor,
)
from tiepoint import (  # noqa: E402
    Detector,
    SuperPointImageProcessor,
    SuperPointKeypointDescriptionOutput,
)
from tiepoint.errors import ConfigError, ImageError  # noqa: E402
from tiepoint.hf import transformers_rules  # noqa: E402
from tiepoint.keypoints.on_torch import cell_coordinates, describe  # noqa: E402
from tiepoint.keypoints.positions import CENTROID_REACH_PX  # noqa: E402
from tiepoint.network.superpoint import cells_to_heatmap  # noqa: E402


@pytest.fixture(scope="module")
def found(photographs: list[np.ndarray]) -> Any:
    """Keypoints of one photograph, 120x160 px of input, under the rules that are asked for."""
    cache: dict[str, Any] = {}

    def of(rules: str) -> tuple[Any, Any]:
        if rules not in cache:
            outputs = detect(make_model(rules), make_processor(rules), photographs[2][:360, :480])
            shift = 0.5 if rules == EXACT_RULES else 0.0
            xy = outputs.keypoints[0] * torch.tensor([160, 120]) - shift
            cache[rules] = outputs, xy
        return cache[rules]

    return of


def test_defect_1_right_and_bottom_borders_are_kept(photographs: list[np.ndarray]) -> None:
    image, size_wh, border = photographs[2][:360, :480], torch.tensor([160, 120]), 20
    furthest = border + CENTROID_REACH_PX  # a keypoint may move on within its window
    for rules in (TRANSFORMERS_RULES, EXACT_RULES):
        model = make_model(rules, border_removal_distance=border)
        xy = detect(model, make_processor(rules), image).keypoints[0] * size_wh
        assert len(xy) > 20 and xy.min() > 2 * border - furthest
        beyond = (xy > size_wh - (2 * border - furthest)).any(dim=0).tolist()
        assert beyond == [rules == TRANSFORMERS_RULES] * 2


def one_keypoint(x: float, y: float) -> SuperPointKeypointDescriptionOutput:
    return SuperPointKeypointDescriptionOutput(
        keypoints=torch.tensor([[[x, y]]]),
        scores=torch.ones(1, 1),
        descriptors=torch.ones(1, 1, 1),
        mask=torch.ones(1, 1, dtype=torch.int32),
    )


def absolute(rules: str, x: float, y: float, target_hw: tuple[int, int]) -> Any:
    processor = make_processor(rules)
    return processor.post_process_keypoint_detection(one_keypoint(x, y), [target_hw])[0][
        "keypoints"
    ]


def test_defect_2_coordinates_are_cut_to_whole_pixels() -> None:
    cut = absolute(TRANSFORMERS_RULES, 0.2599, 0.5, (100, 100))
    assert cut.dtype == torch.int32 and cut.tolist() == [[25, 50]]
    sizes = torch.arange(8, 1000)
    lost = [
        int(width)
        for width in sizes
        if (((torch.arange(int(width)) / width) * width).int() != torch.arange(int(width))).any()
    ]
    assert lost  # widths at which a keypoint moves although the size stays
    width = lost[0]
    for x in range(width):
        kept = absolute(EXACT_RULES, (x + 0.5) / width, 0.5, (100, width))
        assert kept.dtype == torch.float32
        assert abs(float(kept[0, 0]) - x) < 1e-3


@pytest.mark.parametrize(("width", "shift"), [(1920, 1.0), (4000, 2.625)])
def test_defect_3_the_half_pixel_is_missing_when_sizes_change(width: int, shift: float) -> None:
    x, scale = 100, width / 640  # the centre of pixel 100 of an input 640 px wide
    truth = (x + 0.5) * scale - 0.5
    theirs = absolute(TRANSFORMERS_RULES, x / 640, 0.5, (480, width))
    assert truth - float(theirs[0, 0]) == pytest.approx(shift, abs=0.01)
    ours = absolute(EXACT_RULES, (x + 0.5) / 640, 0.5, (480, width))
    assert float(ours[0, 0]) == pytest.approx(truth, abs=1e-3)


def test_defect_4_descriptors_are_read_beside_the_keypoint() -> None:
    cells = torch.tensor([[80, 60]])  # (w, h)
    corners = torch.tensor([[3.5, 3.5], [635.5, 475.5]])  # the outer cell centres
    drift = corners - (8 * cell_coordinates(corners, cells.expand(2, 2), "superpoint") + 3.5)
    assert drift[0].abs().max() < 1e-3 and (drift[1] - 3.5).abs().max() < 0.05
    pixels = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(7))
    for rules, sampling in ((TRANSFORMERS_RULES, "superpoint"), (EXACT_RULES, "exact")):
        model = make_model(rules)
        with torch.no_grad():
            outputs, (_, dense) = model(pixels), model.dense(pixels[:, :1])
        shift = 0.5 if rules == EXACT_RULES else 0.0
        xy = outputs.keypoints[0] * torch.tensor([80, 64]) - shift
        image = torch.zeros(len(xy), dtype=torch.long)
        read = {
            name: describe([dense], image, xy, torch.tensor([[8, 10]]), name)
            for name in ("exact", "superpoint")
        }
        torch.testing.assert_close(outputs.descriptors[0], read[sampling], atol=1e-4, rtol=0)
        assert (read["exact"] - read["superpoint"]).abs().max() > 0.01


def test_defect_5_colour_is_read_as_its_red_channel(photographs: list[np.ndarray]) -> None:
    colour = photographs[2][:120, :160]
    other = colour.copy()
    other[..., 1:] = 255 - other[..., 1:]  # the same red, other green and blue
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    scores = {
        rules: [
            detect(make_model(rules, max_keypoints=50), make_processor(rules), image).scores
            for image in (colour, other, grey[None] if rules == TRANSFORMERS_RULES else grey)
        ]
        for rules in (TRANSFORMERS_RULES, EXACT_RULES)
    }
    red_only, red_again, grey_theirs = scores[TRANSFORMERS_RULES]
    assert torch.equal(red_only, red_again) and not torch.allclose(red_only, grey_theirs, atol=1e-3)
    ours, other_ours, grey_ours = scores[EXACT_RULES]
    assert not torch.allclose(ours, other_ours, atol=1e-3)
    torch.testing.assert_close(ours, grey_ours, atol=2e-2, rtol=0)  # 8-bit grey is rounded


def test_defect_6_half_precision_rounds_coordinates() -> None:
    pixels = torch.rand(1, 3, 16, 1000, generator=torch.Generator().manual_seed(8))
    pixels = pixels.to(torch.bfloat16)
    columns = {}
    for rules, shift in ((TRANSFORMERS_RULES, 0.0), (EXACT_RULES, 0.5)):
        model = make_model(rules).to(torch.bfloat16)
        with torch.no_grad():
            x = model(pixels).keypoints[0, :, 0] * 1000 - shift
        columns[rules] = x[x > 512].round().int()
        assert len(columns[rules]) > 10
    assert (columns[TRANSFORMERS_RULES] % 4 == 0).all()  # bfloat16 holds 8 bits
    assert (columns[EXACT_RULES] % 2 == 1).any()


def test_defect_8_every_pixel_of_a_plateau_is_kept() -> None:
    counts = {}
    for rules in (TRANSFORMERS_RULES, EXACT_RULES):
        model = make_model(rules, keypoint_threshold=0.005, border_removal_distance=0)
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)  # the same probability, 1 / 65, everywhere
        with torch.no_grad():
            outputs = model(torch.rand(1, 3, 40, 48))
            heatmap = cells_to_heatmap(model.dense(torch.zeros(1, 1, 40, 48))[0])
        assert torch.equal(heatmap, heatmap[:, :1, :1].expand_as(heatmap))
        counts[rules] = int(outputs.mask.sum())
    assert counts[TRANSFORMERS_RULES] == 40 * 48
    assert 1 <= counts[EXACT_RULES] < 40 * 48 / 25


def test_defect_10_sixteen_bits_floats_and_alpha_are_misread() -> None:
    sixteen = COLOUR.astype(np.uint16) * 257
    floats = (COLOUR / 255).astype(np.float32)
    alpha = np.dstack([COLOUR, np.full((50, 70), 255, np.uint8)])
    theirs, ours = (
        SuperPointImageProcessor(
            tiepoint=None if name == TRANSFORMERS_RULES else {"version": 1, "rules": "exact"},
            do_resize=False,
        )
        for name in (TRANSFORMERS_RULES, EXACT_RULES)
    )
    assert theirs(sixteen, return_tensors="np").pixel_values.max() > 200
    assert theirs(floats, return_tensors="np").pixel_values.max() < 0.01
    assert theirs(alpha, return_tensors="np").pixel_values.shape[1] == 4
    with pytest.raises(ImageError, match="C H W or H W C"):
        theirs(COLOUR[..., 0], return_tensors="np")
    expected = ours(COLOUR, return_tensors="np").pixel_values
    for image in (sixteen, floats, alpha):
        values = ours(image, return_tensors="np").pixel_values
        np.testing.assert_allclose(values, expected, atol=1e-6)
    assert ours(COLOUR[..., 0], return_tensors="np").pixel_values.shape == (1, 3, 50, 70)


def test_defect_10_the_exif_orientation_and_the_palette_are_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    path = tmp_path / "turned.png"
    Image.fromarray(COLOUR).save(path, exif=exif)
    shapes = {}
    for rules in (TRANSFORMERS_RULES, EXACT_RULES):
        processor = make_processor(rules, do_resize=False)
        with Image.open(path) as turned:
            shapes[rules] = processor(turned, return_tensors="np").pixel_values.shape
    assert shapes == {TRANSFORMERS_RULES: (1, 3, 50, 70), EXACT_RULES: (1, 3, 70, 50)}
    theirs = make_processor(TRANSFORMERS_RULES, do_resize=False)(PALETTE, return_tensors="np")
    np.testing.assert_allclose(theirs.pixel_values[0, 0] * 255, np.asarray(PALETTE), atol=1e-3)
    ours = make_processor(EXACT_RULES, do_resize=False)
    np.testing.assert_allclose(
        ours(PALETTE, return_tensors="np").pixel_values,
        ours(PALETTE.convert("RGB"), return_tensors="np").pixel_values,
    )


def test_defect_11_the_aspect_is_distorted_and_sizes_do_not_mix() -> None:
    wide, tall = np.zeros((30, 90, 3), np.uint8), np.zeros((90, 30, 3), np.uint8)
    theirs, ours = make_processor(TRANSFORMERS_RULES), make_processor(EXACT_RULES)
    assert theirs(wide, return_tensors="np").pixel_values.shape[2:] == (120, 160)
    with pytest.raises(ImageError, match="fit into no batch"):
        theirs([wide, tall], return_tensors="np", do_resize=False)
    for resize in (True, False):
        mask = ours([wide, tall], return_tensors="np", do_resize=resize).pixel_mask
        rows, columns = mask.any(axis=2).sum(axis=1), mask.any(axis=1).sum(axis=1)
        assert rows.tolist() == [30, 90] and columns.tolist() == [90, 30]


def test_defect_13_keypoints_come_in_reading_order(found: Any) -> None:
    outputs, xy = found(TRANSFORMERS_RULES)
    order = xy[:, 1].round() * 1000 + xy[:, 0].round()
    assert (order.diff() > 0).all() and not (outputs.scores[0].diff() <= 0).all()
    limited = make_model(TRANSFORMERS_RULES, max_keypoints=20)
    with torch.no_grad():
        some = limited(torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(9)))
    assert (some.scores[0].diff() <= 0).all()  # another order as soon as the limit is reached
    outputs, _ = found(EXACT_RULES)
    assert (outputs.scores[0].diff() <= 0).all()


def test_defect_14_small_images_raise_and_odd_sizes_lose_their_edge() -> None:
    tiny = torch.rand(1, 3, 7, 40, generator=torch.Generator().manual_seed(10))
    odd = torch.rand(1, 3, 47, 63, generator=torch.Generator().manual_seed(11))
    settings = {"border_removal_distance": 0, "nms_radius": 0}
    theirs, ours = (make_model(rules, **settings) for rules in (TRANSFORMERS_RULES, EXACT_RULES))
    with pytest.raises(ImageError, match="at least 8x8"):
        theirs(tiny)
    with torch.no_grad():
        assert int(ours(tiny).mask.sum()) > 0
        lost = theirs(odd).keypoints[0] * torch.tensor([63, 47])
        kept = ours(odd).keypoints[0] * torch.tensor([63, 47]) - 0.5
    assert lost[:, 0].max() < 56 and lost[:, 1].max() < 40
    assert kept[:, 0].max() > 56 and kept[:, 1].max() > 40
    assert kept[:, 0].max() < 62.6 and kept[:, 1].max() < 46.6


@pytest.mark.parametrize(
    "sizes", [((60, 80),), np.array([[60, 80]]), [[60, 80]], [(60, 80)], torch.tensor([[60, 80]])],
    ids=["tuple", "array", "list of lists", "list of tuples", "tensor"],
)  # fmt: skip
def test_defect_15_target_sizes_must_be_a_list_or_a_tensor(sizes: Any) -> None:
    outputs = one_keypoint(0.5, 0.5)
    theirs, ours = make_processor(TRANSFORMERS_RULES), make_processor(EXACT_RULES)
    if isinstance(sizes, list | torch.Tensor):
        found = theirs.post_process_keypoint_detection(outputs, sizes)
        assert found[0]["keypoints"].tolist() == [[40, 30]]
    else:
        with pytest.raises(ConfigError, match="target_sizes is of type"):
            theirs.post_process_keypoint_detection(outputs, sizes)
    found = ours.post_process_keypoint_detection(outputs, sizes)
    assert found[0]["keypoints"].tolist() == [[39.5, 29.5]]


def test_transformers_rules_refuse_a_mask_and_wrong_counts() -> None:
    with pytest.raises(ConfigError, match="same checkpoint"):
        make_model(TRANSFORMERS_RULES)(torch.rand(1, 3, 16, 16), pixel_mask=torch.ones(1, 16, 16))
    with pytest.raises(ConfigError, match="shape"):
        make_processor(TRANSFORMERS_RULES).post_process_keypoint_detection(
            one_keypoint(0.5, 0.5), [(9, 9)] * 2
        )
    with pytest.raises(ConfigError, match="nms_radius"):
        make_model(TRANSFORMERS_RULES, nms_radius=-1)(torch.rand(1, 3, 16, 16))


def test_the_detector_takes_only_the_sampling_of_a_checkpoint_without_the_key(
    tmp_path: Path, photographs: list[np.ndarray]
) -> None:
    make_model(TRANSFORMERS_RULES).save_pretrained(tmp_path / "theirs")
    make_model(EXACT_RULES).save_pretrained(tmp_path / "ours")
    theirs, ours = (
        Detector(tmp_path / name)(photographs[0][:96, :128]) for name in ("theirs", "ours")
    )
    np.testing.assert_array_equal(theirs.xy, ours.xy)
    assert np.abs(theirs.descriptors - ours.descriptors).max() > 0.01


def test_the_document_has_a_row_for_every_defect() -> None:
    document = (Path(__file__).parents[2] / "docs" / "compat.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in document.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row.isdigit()] == [str(number) for number in range(1, 16)]
    assert (
        f"transformers {PINNED}" in document
        and transformers_rules.__doc__
        and PINNED in transformers_rules.__doc__
    )

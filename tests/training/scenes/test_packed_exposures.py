"""Exposures as rows of numbers: every field of an exposure is in its row."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from support.scene_parts import CALM
from tiepoint.training.scenes.packed_exposures import EXPOSURE, pack_exposures
from tiepoint.training.scenes.photometry import draw_exposure
from tiepoint.training.scenes.settings import Photometry

SIZE = (96, 120)
ALL = Photometry(shadow=1, motion=1, rescale=1, patches=1, pepper=1, jpeg=1)


def drawn(ranges: Photometry, count: int = 20):
    rng = np.random.default_rng(0)
    return [draw_exposure(rng, SIZE, ranges) for _ in range(count)]


def test_every_number_of_an_exposure_is_in_its_row() -> None:
    exposures = drawn(ALL)
    for row, exposure in zip(pack_exposures(exposures), exposures, strict=True):
        for name in ("slope", "vignette", "blur_px", "small_hw", "gamma", "contrast", "bias",
                     "read", "shot", "grain", "pepper"):  # fmt: skip
            assert row[name] == pytest.approx(np.asarray(getattr(exposure, name), float))
        assert row["shadow_xy"][: len(exposure.shadow.corners_xy)] == pytest.approx(
            exposure.shadow.corners_xy, abs=1e-4
        )
        assert (row["shadow_xy"][len(exposure.shadow.corners_xy) :] == row["shadow_xy"][-1]).all()
        assert row["shadow_light"] == pytest.approx(exposure.shadow.light)
        assert row["shadow_blur_px"] == pytest.approx(exposure.shadow.blur_px)
        assert row["motion_px"] == pytest.approx(exposure.motion.length_px)
        assert row["motion_angle"] == pytest.approx(exposure.motion.angle)
        jpeg = exposure.jpeg
        assert row["jpeg_left_top"].tolist() == [jpeg.left, jpeg.top]
        assert row["jpeg_quality"] == jpeg.quality
        if exposure.bump:
            bump = exposure.bump
            assert row["bump"] == pytest.approx([bump.x, bump.y, bump.height, bump.spread])
        assert row["patches"]["drawn"].sum() == len(exposure.patches)


def test_a_box_has_the_corners_that_opencv_draws() -> None:
    boxes = 0
    for exposure in drawn(ALL):
        row = pack_exposures([exposure])[0]
        for patch, place in zip(exposure.patches, row["patches"], strict=False):
            for name in ("is_box", "xy", "half_wh", "grey", "noise"):
                assert place[name] == pytest.approx(
                    np.asarray(getattr(patch, name), float), abs=1e-4
                )
            if patch.is_box:
                boxes += 1
                filled, outline = (np.zeros(SIZE, np.uint8) for _ in range(2))
                box = patch.xy, tuple(2 * half for half in patch.half_wh), patch.angle_deg
                cv2.fillConvexPoly(filled, np.rint(cv2.boxPoints(box)).astype(np.int32), 1)
                cv2.fillConvexPoly(outline, place["corners_xy"].astype(np.int32), 1)
                assert np.array_equal(filled, outline)
    assert boxes > 5


def test_an_exposure_without_effects_has_the_numbers_that_change_nothing() -> None:
    row = pack_exposures(drawn(CALM, 1))[0]
    assert row["shadow_light"] == 1 and row["small_hw"].tolist() == [*SIZE]
    assert row["bump"][2] == 0 and row["bump"][3] > 0  # no height, and no division by 0
    for name in ("slope", "vignette", "shadow_blur_px", "blur_px", "motion_px", "read", "shot",
                 "pepper", "jpeg_quality", "bias"):  # fmt: skip
        assert not np.any(row[name])
    assert row["gamma"] == row["contrast"] == 1
    assert not row["patches"]["drawn"].any()


def test_packed_exposures_join_and_travel_as_they_are() -> None:
    packed = pack_exposures(drawn(ALL))
    joined = np.concatenate([packed[:7], pickle.loads(pickle.dumps(packed[7:]))])
    assert joined.tobytes() == packed.tobytes()
    assert EXPOSURE.itemsize % 4 == 0 and packed.nbytes < 400 * len(packed)


def test_no_exposures_are_no_rows() -> None:
    assert pack_exposures([]).shape == (0,)

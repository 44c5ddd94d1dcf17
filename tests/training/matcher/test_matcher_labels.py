"""Labels of pairs: the rules by hand, and equal to plain loops."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from tiepoint.training.matcher.labels import MATCH_PX, UNMATCHABLE_PX, Labels, Side, labels

NAN = float("nan")


def side(rows: list[tuple[float, ...]]) -> Side:
    """Rows of x, y, x and y in the other image, and optionally doubtful and valid."""
    full = [(*row, *(0, 1)[len(row) - 4 :]) for row in rows]
    values = torch.tensor(full, dtype=torch.float32)[None]  # 1 N 6
    return Side(values[..., :2], values[..., 2:4], values[..., 4] > 0, values[..., 5] > 0)


def slow_labels(a: Side, b: Side) -> Labels:
    """One pair of keypoints at a time."""
    B, N, M = len(a.xy), a.xy.shape[1], b.xy.shape[1]
    matched = np.zeros((B, N, M), bool)
    alone_a, alone_b = np.zeros((B, N), bool), np.zeros((B, M), bool)
    for p in range(B):
        both, nearer = np.full((N, M), np.inf), np.full((N, M), np.inf)
        for i in range(N):
            for j in range(M):
                if not (a.valid[p, i] and b.valid[p, j]):
                    continue
                in_b = float(np.hypot(*(a.other_xy[p, i] - b.xy[p, j]).numpy()))
                in_a = float(np.hypot(*(b.other_xy[p, j] - a.xy[p, i]).numpy()))
                known = [one for one in (in_a, in_b) if not np.isnan(one)]
                both[i, j] = max(known) if len(known) == 2 else np.inf
                nearer[i, j] = min(known, default=np.inf)
        for i in range(N):
            j = int(both[i].argmin())
            if both[i, j] <= MATCH_PX and both[:, j].argmin() == i:
                matched[p, i, j] = True
            free = bool(a.valid[p, i]) and not bool(a.doubtful[p, i])
            alone_a[p, i] = free and nearer[i].min() > UNMATCHABLE_PX
        for j in range(M):
            free = bool(b.valid[p, j]) and not bool(b.doubtful[p, j])
            alone_b[p, j] = free and nearer[:, j].min() > UNMATCHABLE_PX
    return Labels(*(torch.from_numpy(one) for one in (matched, alone_a, alone_b)))


def random_sides(random: np.random.Generator, pairs: int) -> tuple[Side, Side]:
    """Dense enough for rivals, with hidden, doubtful and padded keypoints."""
    here, there = random.uniform(0, 60, (2, pairs, 40, 2))
    sides = []
    for own, other in ((here, there), (there[:, :31], here[:, :31])):
        xy, place = (one + random.normal(0, 1.2, one.shape) for one in (own, other))
        place[random.random(place.shape[:2]) < 0.25] = np.nan
        flags = [random.random(place.shape[:2]) < share for share in (0.15, 0.9)]
        values = xy.astype(np.float32), place.astype(np.float32), *flags
        sides.append(Side(*(torch.from_numpy(one) for one in values)))
    return sides[0], sides[1]


@pytest.mark.parametrize("seed", range(3))
def test_labels_equal_plain_loops(seed: int) -> None:
    a, b = random_sides(np.random.default_rng(seed), 2)
    ours, slow = labels(a, b), slow_labels(a, b)
    for own, expected in zip(ours, slow, strict=True):
        assert torch.equal(own, expected)
    assert ours.matched.any() and ours.unmatchable_a.any() and ours.unmatchable_b.any()


def test_the_nearest_within_both_images_match_and_its_rival_is_left_out() -> None:
    a = side([(10, 10, 50, 50), (12, 10, 52, 50)])
    b = side([(50.5, 50, 10.5, 10)])
    ours = labels(a, b)
    assert ours.matched[0].tolist() == [[True], [False]]
    assert ours.unmatchable_a[0].tolist() == [False, False]  # the rival is 2 px away


def test_a_keypoint_that_the_other_image_does_not_show_has_no_match() -> None:
    ours = labels(side([(10, 10, NAN, NAN)]), side([(50, 50, NAN, NAN)]))
    assert ours.unmatchable_a.all() and ours.unmatchable_b.all() and not ours.matched.any()


def test_a_doubtful_keypoint_may_match_and_is_never_unmatchable() -> None:
    near, far = side([(10, 10, 50, 50, 1)]), side([(10, 10, 90, 90, 1)])
    b = side([(50, 50, 10, 10)])
    assert labels(near, b).matched.all()
    assert not labels(far, b).unmatchable_a.any()
    unknown = labels(side([(10, 10, NAN, NAN, 1)]), b)
    assert not unknown.matched.any() and not unknown.unmatchable_a.any()


def test_a_zoom_needs_a_small_distance_in_both_images() -> None:
    """2 px in A are 8 px in B: neither a match nor unmatchable."""
    ours = labels(side([(10, 10, 58, 50)]), side([(50, 50, 12, 10)]))
    assert not ours.matched.any()
    assert not ours.unmatchable_a.any() and not ours.unmatchable_b.any()


def test_an_image_without_keypoints_makes_all_of_the_other_unmatchable() -> None:
    padding = labels(side([(1, 1, 1, 1)]), side([(1, 1, 1, 1, 0, 0)]))
    assert padding.unmatchable_a.all() and not padding.unmatchable_b.any()

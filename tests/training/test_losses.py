from collections.abc import Callable

import numpy as np
import pytest
import torch

from support import slow_losses
from support.fake_pairs import shifted_flow
from support.rotations import unit
from tiepoint.network.superpoint import cells_to_heatmap
from tiepoint.training.detector.losses import (
    descriptor_difference,
    descriptor_loss,
    detector_loss,
    phase_difference,
    repeatability_loss,
    soft_labels,
    teacher_choice_loss,
    teacher_divergence,
)

SIZE_HW = (16, 24)


def some_corners(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        np.array([[3.0, 4.0], [7.5, 7.5], [15.2, 8.9], [12.1, 3.3], [12.6, 3.1]]),  # two crowd
        rng.uniform(0, [23, 15], (3, 2)),
        np.empty((0, 2)),
    ]


def flat(corners: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    image = np.repeat(np.arange(len(corners)), [len(c) for c in corners])
    return torch.from_numpy(image), torch.from_numpy(np.concatenate(corners)).float()


def labels_of(corners: list[np.ndarray]) -> torch.Tensor:
    return soft_labels(*flat(corners), len(corners), SIZE_HW)


def some_ignored(seed: int = 1) -> np.ndarray:
    ignore = np.random.default_rng(seed).random((3, *SIZE_HW)) < 0.01
    ignore[0, 3:6, 2:5] = True  # around a corner
    return ignore


def check_gradient(
    loss: Callable[[torch.Tensor], torch.Tensor],
    twin: Callable[[np.ndarray], float],
    at: np.ndarray,
    count: int = 12,
) -> None:
    """torch's gradient against differences of the twin in float64, at some places."""
    values = torch.from_numpy(at).float().requires_grad_()
    loss(values).backward()
    assert values.grad is not None
    gradient = values.grad.numpy().ravel()
    rng = np.random.default_rng(0)
    largest = np.argsort(-np.abs(gradient))[: count // 2]
    for place in (*largest, *rng.integers(0, at.size, count // 2)):
        step = np.zeros(at.size)
        step[place] = 1e-4
        step = step.reshape(at.shape)
        slope = (twin(at + step) - twin(at - step)) / 2e-4
        assert gradient[place] == pytest.approx(slope, rel=2e-3, abs=2e-6)


def test_soft_labels_equal_the_slow_twin() -> None:
    corners = some_corners()
    np.testing.assert_allclose(
        labels_of(corners).numpy(), slow_losses.labels(corners, SIZE_HW), atol=1e-6
    )


def test_a_corner_on_a_pixel_is_one_bin() -> None:
    labels = labels_of([np.array([[10.0, 5.0]])])
    assert labels[0, 8 * 5 + 2, 0, 1] == 1
    assert labels.sum() == 6  # the other five cells are "no keypoint"
    assert labels[0, -1, 0, 1] == 0


def test_the_centre_of_mass_of_a_label_is_the_corner() -> None:
    labels = labels_of([np.array([[8.0 + 3.3, 2.6]])])
    bins = labels[0, :64, 0, 1].reshape(8, 8)
    assert float((bins.sum(0) * torch.arange(8)).sum()) == pytest.approx(3.3, abs=1e-5)
    assert float((bins.sum(1) * torch.arange(8)).sum()) == pytest.approx(2.6, abs=1e-5)


def test_a_corner_between_cells_is_shared() -> None:
    labels = labels_of([np.array([[7.25, 3.0]])])
    assert labels[0, 8 * 3 + 7, 0, 0] == pytest.approx(0.75)
    assert labels[0, 8 * 3, 0, 1] == pytest.approx(0.25)
    assert labels[0, -1, 0, 1] == pytest.approx(0.75)


def test_corners_outside_the_image_are_dropped() -> None:
    labels = labels_of([np.array([[-3.0, 2.0], [30.0, 2.0], [4.0, 99.0]])])
    assert labels[:, :-1].sum() == 0


def test_the_detector_loss_equals_the_slow_twin() -> None:
    rng = np.random.default_rng(2)
    logits, ignore = rng.normal(0, 2, (3, 65, 2, 3)), some_ignored()
    labels = labels_of(some_corners())
    found = detector_loss(torch.from_numpy(logits), labels, torch.from_numpy(ignore))
    loss, cross_entropy = slow_losses.detector(logits, labels.numpy(), ignore)
    assert float(found.loss) == pytest.approx(loss, rel=1e-4)
    assert float(found.cross_entropy) == pytest.approx(cross_entropy, rel=1e-4)


def test_the_detector_loss_has_the_twins_gradient() -> None:
    ignore, labels = some_ignored(), labels_of(some_corners())
    check_gradient(
        lambda logits: detector_loss(logits, labels, torch.from_numpy(ignore)).loss,
        lambda logits: slow_losses.detector(logits, labels.numpy(), ignore)[0],
        np.random.default_rng(3).normal(0, 1, (3, 65, 2, 3)),
    )


def test_the_detector_loss_is_zero_when_the_network_says_the_labels() -> None:
    labels = labels_of(some_corners())
    found = detector_loss(labels.clamp(min=1e-30).log(), labels, torch.zeros(3, *SIZE_HW) > 0)
    assert float(found.loss) == pytest.approx(0, abs=1e-5)


def test_saying_nothing_costs_ln_65() -> None:
    labels = labels_of([np.array([[3.0, 4.0]])])
    found = detector_loss(torch.zeros(1, 65, 2, 3), labels, torch.zeros(1, *SIZE_HW) > 0)
    assert float(found.cross_entropy) == pytest.approx(np.log(65), rel=1e-5)


def test_the_best_constant_answer_costs_what_blind_says() -> None:
    labels = labels_of([np.array([[3.0, 4.0], [12.0, 4.0]])])  # 2 of 6 cells
    constant = torch.cat([torch.full((64,), 2 / 6 / 64), torch.tensor([4 / 6])]).log()
    logits = constant[None, :, None, None].expand(1, 65, 2, 3)
    found = detector_loss(logits, labels, torch.zeros(1, *SIZE_HW) > 0)
    assert float(found.cross_entropy) == pytest.approx(float(found.blind), rel=1e-5)


def test_ignored_pixels_have_no_gradient() -> None:
    logits = torch.randn(1, 65, 2, 3, requires_grad=True)
    ignore = torch.zeros(1, *SIZE_HW, dtype=torch.bool)
    ignore[0, 12, 20] = True  # in an empty cell: this cell does not count
    ignore[0, 6, 6] = True  # in the corner's cell: nothing about this pixel
    labels = labels_of([np.array([[3.0, 4.0]])])
    detector_loss(logits, labels, ignore).loss.backward()
    assert logits.grad is not None
    assert (logits.grad[0, :, 1, 2] == 0).all()
    assert logits.grad[0, 8 * 6 + 6, 0, 0] == 0
    assert (logits.grad[0, :, 0, 1] != 0).all()


def test_with_everything_ignored_the_loss_is_zero() -> None:
    logits = torch.randn(1, 65, 2, 3, requires_grad=True)
    found = detector_loss(
        logits, labels_of([np.empty((0, 2))]), torch.ones(1, *SIZE_HW, dtype=torch.bool)
    )
    found.loss.backward()
    assert found.loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_padding_with_corners_far_outside_changes_no_label() -> None:
    corners = some_corners()
    image, xy = flat(corners)
    padding = torch.full((4, 2), -1e4)
    both = torch.cat([padding, xy, padding]), torch.cat([image[:4] * 0, image, image[:4] * 0 + 2])
    assert torch.equal(soft_labels(both[1], both[0], 3, SIZE_HW), labels_of(corners))


def described(count: int = 12, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(count, 8))
    b = a + 0.7 * rng.normal(size=(count, 8))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    pair = np.arange(count) % 2
    xy_a, xy_b = rng.uniform(0, 20, (2, count, 2))
    return a, b, pair, xy_a, xy_b


def torched(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [
        torch.from_numpy(a) if a.dtype == np.int64 else torch.from_numpy(a).float() for a in arrays
    ]


def test_the_descriptor_loss_equals_the_slow_twin() -> None:
    arrays = described()
    found = descriptor_loss(*torched(*arrays), 0.1)
    loss, accuracy = slow_losses.descriptors(*arrays, 0.1)
    assert float(found.loss) == pytest.approx(loss, rel=1e-4)
    assert float(found.accuracy) == pytest.approx(accuracy, abs=1e-6)


def test_the_descriptor_loss_has_the_twins_gradient() -> None:
    a, *rest = described()
    check_gradient(
        lambda values: descriptor_loss(values, *torched(*rest), 0.1).loss,
        lambda values: slow_losses.descriptors(values, *rest, 0.1)[0],
        a,
    )


def test_a_near_twin_of_a_point_is_no_negative() -> None:
    same = torch.nn.functional.normalize(torch.ones(2, 4), dim=1)
    xy = torch.tensor([[10.0, 10.0], [12.0, 10.0]])
    pair = torch.zeros(2, dtype=torch.int64)
    near = descriptor_loss(same, same, pair, xy, xy, 0.1)
    assert float(near.loss) == pytest.approx(0, abs=1e-6)
    far = descriptor_loss(same, same, pair, xy * 2, xy * 2, 0.1)
    assert float(far.loss) == pytest.approx(np.log(2), rel=1e-5)
    other_image = descriptor_loss(same, same, torch.arange(2), xy, xy, 0.1)
    assert float(other_image.loss) == pytest.approx(np.log(2), rel=1e-5)


def test_without_points_the_descriptor_loss_is_finite() -> None:
    none = torch.zeros(0, 4, requires_grad=True)
    xy = torch.zeros(0, 2)
    found = descriptor_loss(none, none, torch.zeros(0, dtype=torch.int64), xy, xy, 0.1)
    found.loss.backward()
    assert found.loss.item() == 0


def with_padding(seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Points of three pairs, eight of each with padding; the same without it; the mask."""
    rng = np.random.default_rng(seed)
    valid = np.array([5, 8, 2])[:, None] > rng.permuted(np.tile(np.arange(8), (3, 1)), axis=1)
    a, b, _, xy_a, xy_b = described(24, seed)
    xy_a[:, 1] *= 0.3  # some are near each other
    whole = torched(a, b, np.repeat(np.arange(3), 8), xy_a, xy_b)
    mask = torch.from_numpy(valid)
    return whole, [one[mask.flatten()] for one in whole], mask


def test_padding_changes_neither_the_descriptor_loss_nor_its_gradient() -> None:
    for seed in range(4):
        whole, selected, valid = with_padding(seed)
        both = []
        for (a, b, *rest), mask in ((whole, valid), (selected, None)):
            leaves = [one.clone().requires_grad_() for one in (a, b)]
            found = descriptor_loss(*leaves, *rest, 0.1, mask)
            found.loss.backward()
            both.append((found, *(one.grad for one in leaves)))
        (padded, *slopes), (plain, *expected) = both
        for ours, theirs in zip(padded, plain, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        for ours, theirs in zip(slopes, expected, strict=True):
            torch.testing.assert_close(ours[valid.flatten()], theirs, atol=1e-5, rtol=1e-5)
            assert (ours[~valid.flatten()] == 0).all()
        twin, accuracy = slow_losses.descriptors(*(one.double().numpy() for one in selected), 0.1)
        assert float(padded.loss) == pytest.approx(twin, rel=1e-4)
        assert float(padded.accuracy) == pytest.approx(accuracy, abs=1e-6)


def test_padding_alone_is_a_loss_of_zero_with_a_gradient_of_zero() -> None:
    whole, _, valid = with_padding()
    a, b, *rest = whole
    a.requires_grad_()
    found = descriptor_loss(a, b, *rest, 0.1, torch.zeros_like(valid))
    found.loss.backward()
    assert found.loss.item() == 0 and all(float(one) == 0 for one in found[1:])
    assert a.grad is not None and (a.grad == 0).all()


def test_padding_changes_nothing_that_a_teacher_teaches() -> None:
    whole, selected, valid = with_padding()
    taught = with_padding(9)[0][:2]
    both = []
    for (a, b, *_), mask in ((whole, valid), (selected, None)):
        fixed = taught if mask is not None else [one[valid.flatten()] for one in taught]
        leaf = a.clone().requires_grad_()
        loss = teacher_choice_loss(leaf, b, *fixed, 0.1, mask)
        loss.backward()
        assert leaf.grad is not None
        slope = leaf.grad if mask is None else leaf.grad[valid.flatten()]
        both.append((loss.detach(), slope))
    torch.testing.assert_close(*both, atol=1e-5, rtol=1e-5)
    nothing = teacher_choice_loss(*whole[:2], *taught, 0.1, torch.zeros_like(valid))
    assert float(nothing) == 0


def test_padding_changes_no_difference_of_descriptors() -> None:
    whole, selected, valid = with_padding()
    assert float(descriptor_difference(whole[:2], valid)) == pytest.approx(
        float(descriptor_difference(selected[:2])), abs=1e-6
    )


def views(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits, other = rng.normal(0, 2, (2, 1, 65, 2, 2))
    return logits, other, shifted_flow((16, 16), np.array([2.3, -1.6], np.float32))[None]


def repeatability_of(
    logits: torch.Tensor, other: torch.Tensor, flow: torch.Tensor, point_cost: float
) -> torch.Tensor:
    heatmaps = cells_to_heatmap(logits), cells_to_heatmap(other)
    return repeatability_loss(*heatmaps, flow, point_cost)


def test_the_repeatability_loss_equals_the_slow_twin() -> None:
    logits, other, flow = views()
    found = repeatability_of(*torched(logits, other, flow), 0.3)
    assert float(found) == pytest.approx(
        slow_losses.repeatability(logits, other, flow, 0.3), rel=1e-4
    )


def test_the_repeatability_loss_has_the_twins_gradient() -> None:
    logits, other, flow = views()
    rest = torched(other, flow)
    check_gradient(
        lambda values: repeatability_of(values, *rest, 0.3),
        lambda values: slow_losses.repeatability(values, other, flow, 0.3),
        logits,
        count=6,
    )


def test_points_that_are_found_again_grow_and_others_shrink() -> None:
    """One point with a partner where it should be, one without."""
    logits = torch.zeros(1, 65, 2, 2)
    logits[:, -1] = 6
    logits[0, 8 * 4 + 4, 0, 0] = logits[0, 8 * 4 + 4, 1, 1] = 6
    other = torch.zeros(1, 65, 2, 2)
    other[:, -1] = 6
    other[0, 8 * 4 + 5, 0, 0] = 9  # a pixel to the right of the first one
    flow = torch.from_numpy(shifted_flow((16, 16), np.array([1.0, 0.0], np.float32))[None])
    logits.requires_grad_()
    repeatability_of(logits, other, flow, 0.3).backward()
    assert logits.grad is not None
    assert logits.grad[0, 8 * 4 + 4, 0, 0] < 0  # descent raises it
    assert logits.grad[0, 8 * 4 + 4, 1, 1] > 0


def test_a_point_found_again_nearer_to_its_place_earns_more() -> None:
    logits = torch.zeros(1, 65, 2, 2)
    logits[:, -1] = 6
    logits[0, 8 * 4 + 4, 0, 0] = 9
    flow = torch.from_numpy(shifted_flow((16, 16), np.zeros(2, np.float32))[None])
    losses = []
    for away_px in range(3):
        other = torch.zeros(1, 65, 2, 2)
        other[:, -1] = 6
        other[0, 8 * 4 + 4 + away_px, 0, 0] = 9
        losses.append(float(repeatability_of(logits, other, flow, 0.3)))
    assert losses[0] < losses[1] < losses[2]


def test_where_nothing_is_visible_nothing_is_learnt() -> None:
    logits = torch.randn(1, 65, 2, 2, requires_grad=True)
    loss = repeatability_of(
        logits, torch.randn(1, 65, 2, 2), torch.full((1, 16, 16, 2), torch.nan), 0.3
    )
    loss.backward()
    assert float(loss) == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


# What a larger network teaches


def some_logits(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (2, 65, 2, 3))


def test_the_divergence_in_cells_equals_the_slow_twin_with_its_gradient() -> None:
    taught = some_logits(1)

    def twin(at: np.ndarray) -> float:
        total = 0.0
        for image in range(2):
            for row in range(2):
                for column in range(3):
                    p, q = (np.exp(z[image, :, row, column]) for z in (taught, at))
                    p, q = p / p.sum(), q / q.sum()
                    total += float((p * np.log(p / q)).sum())
        return total / 12

    at, fixed = some_logits(0), torch.from_numpy(taught).float()
    loss = teacher_divergence(torch.from_numpy(at).float(), fixed)
    assert float(loss) == pytest.approx(twin(at), rel=1e-4)
    check_gradient(lambda z: teacher_divergence(z, fixed), twin, at)
    assert float(teacher_divergence(fixed, fixed)) == pytest.approx(0, abs=1e-6)


def unit_rows(seed: int, length: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(7, length))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_divergence_of_choices_equals_the_slow_twin_with_its_gradient() -> None:
    """The teacher's descriptors are longer; only its cosines count."""
    b, taught_a, taught_b = unit_rows(1, 4), unit_rows(2, 9), unit_rows(3, 9)

    def choices(cosines: np.ndarray) -> np.ndarray:
        powers = np.exp(cosines / 0.2)
        return powers / powers.sum(axis=1, keepdims=True)

    def twin(at: np.ndarray) -> float:
        own, teacher = at @ b.T, taught_a @ taught_b.T
        both = [(choices(teacher), choices(own)), (choices(teacher.T), choices(own.T))]
        return float(np.mean([(p * np.log(p / q)).sum(axis=1).mean() for p, q in both]))

    fixed = [torch.from_numpy(rows).float() for rows in (b, taught_a, taught_b)]
    at = unit_rows(0, 4)
    assert float(teacher_choice_loss(torch.from_numpy(at).float(), *fixed, 0.2)) == (
        pytest.approx(twin(at), rel=1e-4)
    )
    check_gradient(lambda a: teacher_choice_loss(a, *fixed, 0.2), twin, at)


def test_without_points_a_teacher_teaches_nothing_and_the_loss_is_finite() -> None:
    none = torch.zeros(0, 4, requires_grad=True)
    loss = teacher_choice_loss(none, none, torch.zeros(0, 9), torch.zeros(0, 9), 0.1)
    loss.backward()
    assert float(loss) == 0


def test_the_difference_of_phases_equals_its_formula() -> None:
    heatmaps = np.random.default_rng(11).random((3, 2, 16, 24)).astype(np.float32)
    mean = heatmaps.mean(axis=0, dtype=np.float64)
    expected = np.mean([((one - mean) ** 2 / (one + mean)).sum() for one in heatmaps]) / 12
    found = phase_difference([torch.from_numpy(one) for one in heatmaps])
    assert float(found) == pytest.approx(expected, rel=1e-4)
    same = [torch.from_numpy(heatmaps[0])] * 2
    assert float(phase_difference(same)) == 0


def test_the_difference_of_phases_counts_faint_keypoints_in_proportion() -> None:
    """A keypoint that one phase alone sees costs in proportion to its score."""
    costs = []
    for score in (0.5, 0.05):
        heatmap = torch.zeros(1, 16, 16)
        heatmap[0, 5, 6] = score
        costs.append(float(phase_difference([heatmap, torch.zeros(1, 16, 16)])))
    assert costs[0] == pytest.approx(10 * costs[1], rel=1e-3)


def test_the_difference_of_descriptors_is_that_of_their_cosines() -> None:
    random = np.random.default_rng(12)
    a, b, c = (unit(random.normal(0, 1, (9, 6))) for _ in range(3))
    tensors = [torch.from_numpy(one.astype(np.float32)) for one in (a, b, c)]
    expected = 1 - (np.mean((a * b).sum(1)) + np.mean((a * c).sum(1))) / 2
    assert float(descriptor_difference(tensors)) == pytest.approx(expected, abs=1e-6)
    assert float(descriptor_difference([tensors[0]] * 2)) == pytest.approx(0, abs=1e-6)
    assert float(descriptor_difference([one[:0] for one in tensors])) == 0

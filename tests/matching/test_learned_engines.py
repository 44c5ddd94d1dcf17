"""Both engines of the learned matcher give what the paper's formulas give."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from support.device_counts import count
from support.learned_matchers import (
    matcher_input,
    random_features,
    random_tensors,
    related_features,
    slow_matcher,
    slow_matches,
)
from tiepoint.errors import ConfigError
from tiepoint.matching.learned import assignment
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.assignment import assign
from tiepoint.matching.learned.inputs import MatcherOutput, normalised
from tiepoint.matching.learned.openvino_engine import OpenVinoMatcher
from tiepoint.matching.learned.together import Together

SMALL = MatcherConfig(descriptor_length=16, width=24, heads=2, layers=3)
SIZES = [
    (SMALL, 3),
    (SMALL, 1),
    (MatcherConfig(32, 32, heads=4, layers=2), 2),
    (MatcherConfig(12, 20, heads=1, layers=1), 1),
]
"""One of them has no input projection; the smallest has an odd number of pairs in its head."""


def engine_of(name: str, config: MatcherConfig, tensors: dict[str, np.ndarray], layers: int):
    if name == "openvino":
        return OpenVinoMatcher(config, tensors, layers=layers)
    pytest.importorskip("torch")
    from tiepoint.matching.learned.torch_engine import TorchMatcher

    return TorchMatcher(config, tensors, layers=layers)


def log_p_of(a: MatcherOutput, b: MatcherOutput) -> np.ndarray:
    similarity = (a.projected @ b.projected.T).astype(np.float64)
    rows, columns = (np.logaddexp.reduce(similarity, axis=axis, keepdims=True) for axis in (1, 0))
    chance = assignment.log_sigmoid
    chances = chance(a.matchability)[:, None] + chance(b.matchability)
    return 2 * similarity - rows - columns + chances


@pytest.mark.parametrize("engine", ["openvino", "torch"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("config", "layers"), SIZES)
def test_an_engine_equals_the_slow_twin(
    engine: str, config: MatcherConfig, layers: int, tied: bool
) -> None:
    tensors = random_tensors(config, tied=tied)
    features = related_features(40, config.descriptor_length)
    a, b = (matcher_input(one) for one in features)
    expected = slow_matcher(config, tensors, a, b, layers)
    out_a, out_b = engine_of(engine, config, tensors, layers).run(a, b)
    np.testing.assert_allclose(
        np.exp(log_p_of(out_a, out_b)), np.exp(expected.log_assignment), atol=1e-5
    )
    result = assign(out_a, out_b, 0.1)
    np.testing.assert_allclose(result.matchability_a, expected.matchability_a, atol=1e-5)
    np.testing.assert_allclose(result.matchability_b, expected.matchability_b, atol=1e-5)
    matches = slow_matches(expected.log_assignment, 0.1)
    assert result.pairs.tolist() == [[i, j] for i, j, _ in matches]
    np.testing.assert_allclose(result.scores, [score for *_, score in matches], atol=1e-5)


def test_the_random_weights_of_these_tests_make_matches() -> None:
    tensors = random_tensors(SMALL)
    a, b = (matcher_input(one) for one in related_features(40, 16))
    assert 5 < len(slow_matches(slow_matcher(SMALL, tensors, a, b, 3).log_assignment, 0.1)) < 27


@pytest.mark.parametrize("engine", ["openvino", "torch"])
@pytest.mark.parametrize("counts", [[1, 1, 1, 30, 2, 2, 30, 1, 7, 30], [40, 3, 1, 9, 50, 50]])
def test_one_engine_takes_any_counts_of_keypoints_in_turn(engine: str, counts: list[int]) -> None:
    tensors = random_tensors(SMALL)
    matcher = engine_of(engine, SMALL, tensors, 2)
    for pair in zip(counts[::2], counts[1::2], strict=True):
        a, b = (matcher_input(random_features(count, 16, seed=count)) for count in pair)
        expected = slow_matcher(SMALL, tensors, a, b, 2)
        log_p = log_p_of(*matcher.run(a, b))
        assert log_p.shape == pair
        np.testing.assert_allclose(np.exp(log_p), np.exp(expected.log_assignment), atol=1e-5)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_swapped_images_give_swapped_matches(engine: str) -> None:
    tensors = random_tensors(SMALL)
    a, b = (matcher_input(one) for one in related_features(40, 16))
    matcher = engine_of(engine, SMALL, tensors, 3)
    there, back = assign(*matcher.run(a, b), 0.1), assign(*matcher.run(b, a), 0.1)
    assert sorted(there.pairs.tolist()) == sorted(back.pairs[:, ::-1].tolist())
    np.testing.assert_allclose(there.scores, back.scores, atol=1e-5)


def test_half_a_pixel_does_not_matter_and_the_size_of_the_image_does() -> None:
    tensors = random_tensors(SMALL)
    a, b = related_features(40, 16)
    run = OpenVinoMatcher(SMALL, tensors, layers=3).run
    plain = run(matcher_input(a), matcher_input(b))
    shifted = [
        matcher_input(one)._replace(xy=normalised(one.xy + 0.5, one.size_hw)) for one in (a, b)
    ]
    for one, other in zip(plain, run(*shifted), strict=True):
        np.testing.assert_allclose(one.projected, other.projected, atol=1e-5)
    wider = [matcher_input(one)._replace(xy=normalised(one.xy, (120, 320))) for one in (a, b)]
    assert np.abs(plain[0].projected - run(*wider)[0].projected).max() > 1e-2


def test_matches_in_blocks_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    a, b = (
        MatcherOutput(
            random.normal(0, 1, (count, 8)).astype(np.float32),
            random.normal(size=count).astype(np.float32),
        )
        for count in (157, 143)
    )
    whole = assign(a, b, 0.01)
    assert len(whole.pairs) > 20
    expected = slow_matches(log_p_of(a, b), 0.01)
    assert whole.pairs.tolist() == [[i, j] for i, j, _ in expected]
    for values in (1, 143, 1000, 143 * 156):
        monkeypatch.setattr(assignment, "BLOCK_VALUES", values)
        monkeypatch.setattr(assignment, "KEPT_VALUES", values)
        blocks = assign(a, b, 0.01)
        assert blocks.pairs.tolist() == whole.pairs.tolist()
        np.testing.assert_allclose(blocks.scores, whole.scores, atol=1e-6)


@pytest.mark.parametrize("spread", [1, 30, 90])
def test_columns_far_below_the_highest_similarity_keep_their_digits(spread: float) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(0, 1, (50, 8)).astype(np.float32)
    logits = np.zeros(50, np.float32)
    a, b = (MatcherOutput(vectors * np.float32(scale), logits) for scale in (1, spread))
    expected = {(i, j): score for i, j, score in slow_matches(log_p_of(a, b), 0.01)}
    result = assign(a, b, 0.01)
    pairs = [(int(i), int(j)) for i, j in result.pairs]
    assert len(pairs) > 10 and set(pairs) == set(expected)
    np.testing.assert_allclose(result.scores, [expected[pair] for pair in pairs], rtol=1e-3)


def test_of_equal_keypoints_the_lower_index_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    same = MatcherOutput(np.ones((6, 4), np.float32), np.full(6, 9, np.float32))
    for values in (1, 12, 2**22):
        monkeypatch.setattr(assignment, "BLOCK_VALUES", values)
        assert assign(same, same, 0.0).pairs.tolist() == [[0, 0]]


def test_large_similarities_and_logits_stay_finite() -> None:
    random = np.random.default_rng(0)
    vectors = (1e3 * np.eye(8)[random.permutation(8)]).astype(np.float32)
    logits = np.array([200, -200, 90, 30, 20, 10, 5, 100], np.float32)
    result = assign(MatcherOutput(vectors, logits), MatcherOutput(vectors, logits[::-1]), 0.5)
    assert np.isfinite(result.scores).all() and len(result.pairs) == 6
    assert (result.pairs[:, 0] == result.pairs[:, 1]).all()


@pytest.mark.parametrize("precision", ["f16", "int8", "exact"])
def test_a_precision_that_does_not_exist_is_refused(precision: str) -> None:
    with pytest.raises(ConfigError, match=precision):
        OpenVinoMatcher(SMALL, random_tensors(SMALL), layers=1, precision=precision)


@pytest.mark.parametrize(
    "sizes",
    [
        {"width": 0}, {"width": 5000}, {"width": 10, "heads": 2}, {"width": 9, "heads": 3},
        {"heads": 0}, {"layers": 0}, {"layers": 10**9}, {"layers": True},
        {"descriptor_length": 1.5}, {"width": 4096, "layers": 64},
    ],
)  # fmt: skip
def test_sizes_that_make_no_network_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(sizes))):
        MatcherConfig(**sizes)


def test_the_default_has_about_a_million_weights() -> None:
    shapes = MatcherConfig().tensor_shapes().values()
    assert sum(int(np.prod(shape)) for shape in shapes) == 992_025
    assert MatcherConfig().weight_count() == sum(
        int(np.prod(shape)) for name, shape in MatcherConfig().tensor_shapes().items()
        if len(shape) == 2 and not name.startswith("token")
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [[(40, 40)] * 3, [(40, 31), (1, 50), (17, 2), (30, 30)]])
def test_a_batch_of_pairs_gives_what_each_pair_gives_alone(sizes: list[tuple[int, int]]) -> None:
    matcher = engine_of("torch", SMALL, random_tensors(SMALL), 3)
    pairs = []
    for number, counts in enumerate(sizes):
        a, b = (random_features(n, 16, seed=7 * number + n) for n in counts)
        pairs.append((matcher_input(a), matcher_input(b)))
    for pair, found in zip(pairs, matcher.run_many(pairs), strict=True):
        for one, other in zip(found, matcher.run(*pair), strict=True):
            np.testing.assert_allclose(one.projected, other.projected, atol=1e-5)
            np.testing.assert_allclose(one.matchability, other.matchability, atol=1e-5)


def test_the_host_waits_once_for_a_batch_of_pairs() -> None:
    matcher = engine_of("torch", SMALL, random_tensors(SMALL), 2)
    pair = tuple(matcher_input(one) for one in related_features(40, 16))
    counts = count(lambda: matcher.run_many([pair] * 4))
    assert dict(counts.waits) == {"cpu": 1}
    alone = count(lambda: matcher.run(*pair))
    assert counts.kernels.total() <= 1.1 * alone.kernels.total()


def test_pairs_of_several_threads_become_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from tiepoint.matching.learned.torch_engine import TorchMatcher

    tensors, sizes, began = random_tensors(SMALL), [], threading.Barrier(8)
    run_many = TorchMatcher.run_many

    def counted(self, pairs):
        sizes.append(len(pairs))
        time.sleep(0.05)  # as long as the others need to come
        return run_many(self, pairs)

    monkeypatch.setattr(TorchMatcher, "run_many", counted)
    matcher = TorchMatcher(SMALL, tensors, layers=2, batched=True)
    alone = TorchMatcher(SMALL, tensors, layers=2)
    inputs = [matcher_input(random_features(20 + n, 16, seed=n)) for n in range(9)]

    def work(n: int):
        began.wait()
        return matcher.run(inputs[n], inputs[n + 1])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    assert sum(sizes) == 8 and max(sizes) > 1
    for n, outputs in enumerate(found):
        for one, other in zip(outputs, alone.run(inputs[n], inputs[n + 1]), strict=True):
            np.testing.assert_allclose(one.projected, other.projected, atol=1e-5)


def test_a_failure_reaches_every_thread_of_its_batch_and_no_other() -> None:
    def work(items):
        if min(items) < 0:
            raise ValueError("below 0")
        return [2 * item for item in items]

    together = Together(work, 1)
    assert together(3) == 6
    with pytest.raises(ValueError, match="below 0"):
        together(-1)
    assert together(4) == 8


def test_an_interrupt_ends_the_thread_that_it_reaches_and_no_other() -> None:
    began, calls = threading.Barrier(5), list[list[int]]()

    def work(items):
        if not items:
            raise SystemExit("called without an item")
        calls.append(items)
        if len(calls) == 1:
            began.wait()
            time.sleep(0.2)  # as long as the others need to come
        elif len(calls) == 2:
            raise KeyboardInterrupt
        return [2 * item for item in items]

    together = Together(work, 3)

    def later(item: int) -> int:
        began.wait()
        return together(item)

    with ThreadPoolExecutor(5) as pool:
        found = [pool.submit(together, 0), *(pool.submit(later, item) for item in (1, 2, 3, 4))]
    raised = [one.exception() for one in found]
    assert [type(one) for one in raised if one is not None] == [KeyboardInterrupt]
    done = {item: one.result() for item, one in enumerate(found) if raised[item] is None}
    assert done == {item: 2 * item for item in done} and len(calls[1]) > 1
    assert together(7) == 14

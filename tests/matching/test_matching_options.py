"""Ratio test, least similarity, dual soft-max, and the same on torch: held to slow twins."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import tiepoint
from support import device_counts
from support.provenance import made
from tiepoint.config import MatchingConfig
from tiepoint.errors import ConfigError, EngineError
from tiepoint.features import Features, Matches
from tiepoint.matching import neighbours
from tiepoint.matching.match import match

Vectors = NDArray[np.float32]


def features(descriptors: Vectors, **meta: Any) -> Features:
    n = len(descriptors)
    scores = np.linspace(1, 0, n, dtype=np.float32)
    xy = np.zeros((n, 2), np.float32)
    return Features(xy, scores, descriptors, (10, 10), meta, provenance=made())


def unit(count: int, length: int = 8, seed: int = 0) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((count, length))
    vectors: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return vectors


def two_views(count_a: int = 60, count_b: int = 70, seed: int = 0) -> tuple[Features, Features]:
    """Descriptors of which half come again, noisy: matches of all qualities."""
    rng = np.random.default_rng(seed)
    a, b = unit(count_a, seed=seed + 1), unit(count_b, seed=seed + 2)
    common = min(count_a, count_b) // 2
    noisy = a[:common] + rng.normal(0, 0.15, (common, a.shape[1])) * rng.random((common, 1))
    places = rng.permutation(count_b)[:common]
    b[places] = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    return features(a), features(b)


def slow_cosines(a: Vectors, b: Vectors) -> list[list[float]]:
    return [
        [float(np.float32((x.astype(np.float64) * y.astype(np.float64)).sum())) for y in b]
        for x in a
    ]


def slow_match(config: MatchingConfig, a: Vectors, b: Vectors) -> list[tuple[int, int, float]]:
    """The rules of the docstring, one keypoint at a time."""
    cosines = slow_cosines(a, b)
    table = cosines
    if config.scores == "dual-softmax":
        table = slow_probabilities(cosines, config.temperature)
    rows, columns = range(len(a)), range(len(b))
    found = []
    for i in rows:
        j = max(columns, key=lambda j, i=i: (table[i][j], -j))
        if config.mutual and max(rows, key=lambda k, j=j: (table[k][j], -k)) != i:
            continue
        of_a = [slow_distance(cosines[i][other]) for other in columns if other != j]
        of_b = [slow_distance(cosines[other][j]) for other in rows if other != i]
        if config.ratio is not None:
            limit = config.ratio * min(of_a, default=math.inf)
            if config.mutual:
                limit = min(limit, config.ratio * min(of_b, default=math.inf))
            if not slow_distance(cosines[i][j]) < limit:
                continue
        if config.min_similarity is not None and cosines[i][j] < config.min_similarity:
            continue
        if config.min_probability is not None and table[i][j] < config.min_probability:
            continue
        found.append((i, j, float(np.float32(table[i][j]))))
    return sorted(found, key=lambda row: (-row[2], row[0]))


def slow_distance(cosine: float) -> float:
    return math.sqrt(max(0.0, 2 - 2 * cosine))


def slow_probabilities(cosines: list[list[float]], temperature: float) -> list[list[float]]:
    powers = [[math.exp(c / temperature) for c in row] for row in cosines]
    of_row = [sum(row) for row in powers]
    of_column = [sum(column) for column in zip(*powers, strict=True)]
    return [
        [power / of_row[i] * power / of_column[j] for j, power in enumerate(row)]
        for i, row in enumerate(powers)
    ]


def assert_equals_slow_twin(config: MatchingConfig, a: Features, b: Features) -> Matches:
    assert a.descriptors is not None and b.descriptors is not None
    result, expected = match(a, b, config=config), slow_match(config, a.descriptors, b.descriptors)
    assert result.pairs.tolist() == [[i, j] for i, j, _ in expected]
    np.testing.assert_allclose(result.scores, [row[2] for row in expected], rtol=1e-5, atol=0)
    return result


CONFIGS = [
    MatchingConfig(),
    MatchingConfig(mutual=False),
    MatchingConfig(ratio=0.8),
    MatchingConfig(ratio=0.8, mutual=False),
    MatchingConfig(ratio=1.0),
    MatchingConfig(min_similarity=0.7),
    MatchingConfig(ratio=0.9, min_similarity=0.6),
    MatchingConfig(scores="dual-softmax"),
    MatchingConfig(scores="dual-softmax", mutual=False),
    MatchingConfig(scores="dual-softmax", temperature=0.3, min_probability=0.01),
    MatchingConfig(scores="dual-softmax", min_similarity=0.5),
]


def title(config: MatchingConfig) -> str:
    default = MatchingConfig()
    return ",".join(
        f"{name}={value}" for name, value in vars(config).items() if value != getattr(default, name)
    )


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("config", CONFIGS, ids=title)
def test_every_setting_equals_the_slow_twin(
    config: MatchingConfig, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "ROWS", block)
    result = assert_equals_slow_twin(config, *two_views())
    assert 5 < len(result) <= 60


@pytest.mark.parametrize("counts", [(1, 1), (1, 30), (30, 1)])
@pytest.mark.parametrize("config", CONFIGS, ids=title)
def test_one_keypoint_equals_the_slow_twin(config: MatchingConfig, counts: tuple[int, int]) -> None:
    assert_equals_slow_twin(config, *two_views(*counts, seed=5))


@given(seed=st.integers(0, 10_000), ratio=st.floats(0.05, 1), mutual=st.booleans())
def test_any_ratio_equals_the_slow_twin(seed: int, ratio: float, mutual: bool) -> None:
    a, b = two_views(20, 15, seed=seed)
    assert_equals_slow_twin(MatchingConfig(ratio=ratio, mutual=mutual), a, b)


@pytest.mark.parametrize("config", CONFIGS, ids=title)
def test_no_keypoints_give_no_matches(config: MatchingConfig) -> None:
    for counts in [(0, 0), (0, 5), (5, 0)]:
        result = match(features(unit(counts[0])), features(unit(counts[1])), config=config)
        assert result.pairs.shape == (0, 2) and result.scores.dtype == np.float32


def test_two_equal_candidates_fail_any_ratio_and_one_candidate_passes() -> None:
    one = unit(1)
    assert len(match(features(one), features(one.repeat(2, axis=0)), ratio=1.0)) == 0
    assert len(match(features(one), features(one.repeat(2, axis=0)), ratio=1.0, mutual=False)) == 0
    assert len(match(features(one), features(one), ratio=0.01)) == 1


def test_the_ratio_is_of_distances_between_unit_descriptors() -> None:
    turned = np.radians([30.0, 45.0])
    b = np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)
    a = np.array([[1, 0]], np.float32)
    limit = np.sin(turned[0] / 2) / np.sin(turned[1] / 2)  # chords, not cosines or angles
    for ratio, count in [(float(limit) - 0.001, 0), (float(limit) + 0.001, 1)]:
        assert len(match(features(a), features(b), ratio=ratio, mutual=False)) == count


def test_equal_descriptors_tie_under_the_soft_max_wherever_they_stand() -> None:
    b = unit(3000, length=16, seed=6)
    places = np.sort(np.random.default_rng(7).permutation(3000)[:500])
    b[places] = b[places[0]]
    result = match(features(b[places[:1]]), features(b), scores="dual-softmax", mutual=False)
    assert result.pairs.tolist() == [[0, int(places[0])]]


@pytest.mark.parametrize("temperature", [0.001, 1000.0])
def test_extreme_temperatures_give_probabilities(temperature: float) -> None:
    a, b = two_views()
    result = match(a, b, scores="dual-softmax", temperature=temperature, mutual=False)
    assert len(result) == 60
    assert np.isfinite(result.scores).all()
    assert result.scores.min() >= 0 and result.scores.max() <= 1


def test_probabilities_of_all_pairs_sum_to_at_most_one_per_keypoint() -> None:
    a, b = two_views()
    assert a.descriptors is not None and b.descriptors is not None
    log = neighbours.by_probability(a.descriptors, b.descriptors, 0.05)[0].score
    table = np.array(slow_probabilities(slow_cosines(a.descriptors, b.descriptors), 0.05))
    np.testing.assert_allclose(np.exp(log), table.max(axis=1), rtol=1e-9)
    assert table.sum(axis=1).max() <= 1 + 1e-9


@pytest.mark.parametrize("config", CONFIGS, ids=title)
def test_memory_stays_bounded(config: MatchingConfig) -> None:
    a, b = features(unit(6000, seed=12)), features(unit(6000, seed=13))
    tracemalloc.start()
    match(a, b, config=config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6  # the matrix has 144 MB in float32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ratio": 0}, "ratio is 0, which no match passes"),
        ({"ratio": 1.5}, "ratio is 1.5, expected a share"),
        ({"ratio": "0.8"}, "ratio is '0.8'"),
        ({"min_similarity": 2}, "min_similarity is 2, expected a cosine in -1..1"),
        ({"min_similarity": math.nan}, "min_similarity is nan"),
        ({"scores": "softmax"}, "scores is 'softmax', expected one of cosine, dual-softmax"),
        ({"scores": "dual-softmax", "temperature": 0}, "temperature is 0, expected"),
        ({"scores": "dual-softmax", "temperature": None}, "temperature is None, expected"),
        ({"scores": "dual-softmax", "ratio": 0.8}, "give min_probability"),
        ({"scores": "dual-softmax", "min_probability": 2}, "min_probability is 2"),
        ({"min_probability": 0.2}, "for cosines give min_similarity"),
    ],
)
def test_nonsense_is_refused_at_birth(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MatchingConfig(**wrong)
    with pytest.raises(ConfigError, match=message):
        match(features(unit(3)), features(unit(3)), **wrong)


def test_matches_say_how_they_were_made_and_can_be_taken() -> None:
    a = features(unit(4, seed=1), source="a.jpg")
    b = features(unit(5, seed=2), source="b.jpg")
    result = match(a, b, min_similarity=-0.5)
    assert result.meta["keypoints"] == [4, 5] and result.meta["sources"] == ["a.jpg", "b.jpg"]
    assert (
        result.meta["settings"]["min_similarity"] == -0.5
        and result.meta["weights_sha256"] == "0" * 64
    )
    assert len(result.top(1)) == 1 and result.top(1).meta == result.meta
    strong = result.take(result.scores > result.scores[1])
    assert strong.pairs.tolist() == result.pairs[:1].tolist()


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda0"])
def test_devices_that_cannot_match_are_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="expected cpu, cuda or cuda:N"):
        match(features(unit(3)), features(unit(3)), device=device)


def test_without_torch_a_gpu_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiepoint.matching.match.is_installed", lambda _: False)
    with pytest.raises(tiepoint.MissingExtraError, match=r"tiepoint\[torch\]"):
        match(features(unit(3)), features(unit(3)), device="cuda")


def test_a_gpu_that_is_not_there_is_an_engine_error() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EngineError, match="match with device='cpu'"):
        match(features(unit(3)), features(unit(3)), device="cuda")


def through_torch(
    config: MatchingConfig, a: Features, b: Features, monkeypatch: pytest.MonkeyPatch, block: int
) -> Matches:
    """What a GPU would be given, on torch's CPU; on a GPU where there is one."""
    torch = pytest.importorskip("torch")
    from tiepoint.matching import neighbours_torch

    place = "cuda" if torch.cuda.is_available() else "cpu"
    move = neighbours_torch.to_device
    monkeypatch.setattr(neighbours_torch, "BLOCK", block)
    monkeypatch.setattr(neighbours_torch, "to_device", lambda rows, _: move(rows, place))
    return match(a, b, config=config, device="cuda")


@pytest.mark.parametrize("block", [7, 4096])
@pytest.mark.parametrize("config", CONFIGS, ids=title)
def test_torch_finds_the_same_pairs(
    config: MatchingConfig, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = unit(40, seed=21)
    for a, b in [two_views(seed=20), (features(kinds[[3, 3, 1, 7]]), features(kinds[[7, 3, 3]]))]:
        here = match(a, b, config=config)
        there = through_torch(config, a, b, monkeypatch, block)
        np.testing.assert_array_equal(there.pairs, here.pairs)
        np.testing.assert_allclose(there.scores, here.scores, rtol=1e-6)


@pytest.mark.parametrize("config", CONFIGS, ids=title)
def test_the_host_waits_once_for_a_pair_on_a_device(
    config: MatchingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two_views(seed=20)
    counts = device_counts.count(lambda: through_torch(config, a, b, monkeypatch, 4096))
    assert dict(counts.waits) == {"cpu": 1}
    assert 0 < counts.kernels.total() <= 80


@pytest.fixture(scope="module")
def wall(shared: Path) -> tuple[Features, Features]:
    """Two photographs of one wall, 20 degrees apart."""
    folder = shared / "eval" / "oxford" / "wall"
    files = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))[:2]
    detector = tiepoint.Detector(max_side=480, max_keypoints=300)
    a, b = (detector(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in files)
    return a, b


@pytest.mark.parametrize("config", CONFIGS, ids=title)
def test_real_photographs_equal_the_slow_twin_and_torch(
    config: MatchingConfig, wall: tuple[Features, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = assert_equals_slow_twin(config, *wall)
    there = through_torch(config, *wall, monkeypatch, 64)
    np.testing.assert_array_equal(there.pairs, result.pairs)

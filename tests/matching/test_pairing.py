"""Which images are matched with which."""

from __future__ import annotations

import inspect
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiepoint
from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features
from tiepoint.matching import pairing


def features(count: int, length: int = 6, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, length))
    return Features(
        np.zeros((count, 2), np.float32),
        rng.random(count).astype(np.float32),
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32),
        (10, 10),
    )


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_all_pairs_are_all_pairs(count: int) -> None:
    found = pairing.all_pairs(count)
    assert found.dtype == np.int64 and found.shape[1] == 2
    assert [tuple(pair) for pair in found.tolist()] == list(combinations(range(count), 2))


@given(count=st.integers(0, 40), window=st.integers(1, 12), quadratic=st.booleans())
def test_a_sequence_pairs_neighbours(count: int, window: int, quadratic: bool) -> None:
    steps = {*range(1, window + 1), *([2**n for n in range(window)] if quadratic else [])}
    expected = [(i, j) for i, j in combinations(range(count), 2) if j - i in steps]
    found = pairing.sequential_pairs(count, window, quadratic=quadratic)
    assert [tuple(pair) for pair in found.tolist()] == expected


def test_a_huge_window_takes_no_time() -> None:
    assert len(pairing.sequential_pairs(3, 10**9, quadratic=True)) == 3


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="count is -1"):
        pairing.all_pairs(-1)
    with pytest.raises(ConfigError, match="window is 0, expected a whole number >= 1"):
        pairing.sequential_pairs(3, 0)
    with pytest.raises(ConfigError, match="k is True"):
        pairing.similar_pairs(np.eye(3, dtype=np.float32), True)
    with pytest.raises(ConfigError, match=r"shape \(3,\)"):
        pairing.similar_pairs(np.ones(3, np.float32))


def test_the_defaults_stand_in_the_configuration_alone() -> None:
    window = inspect.signature(pairing.sequential_pairs).parameters["window"]
    assert window.default == PairConfig().window
    assert inspect.signature(pairing.similar_pairs).parameters["k"].default == PairConfig().k


def slow_similar(table: np.ndarray, k: int) -> list[tuple[int, int]]:
    found = set()
    usable = [i for i in range(len(table)) if table[i].any()]
    for i in usable:
        alike = {j: np.float32(np.dot(table[i].astype(float), table[j])) for j in usable if j != i}
        for j in sorted(alike, key=lambda j, alike=alike: (-alike[j], j))[:k]:
            found.add((min(i, j), max(i, j)))
    return sorted(found)


@pytest.mark.parametrize("rows", [3, 256])
@pytest.mark.parametrize("k", [1, 3, 100])
def test_similar_pairs_equal_the_slow_twin(
    k: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing, "_ROWS", rows)
    table = np.array(features(20, length=5).descriptors)
    table[[3, 9, 14]] = table[3]  # ties
    table[[5, 6]] = 0  # images without keypoints
    found = pairing.similar_pairs(table, k)
    assert [tuple(pair) for pair in found.tolist()] == slow_similar(table, k)
    assert not np.isin(found, [5, 6]).any()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_give_no_pair(count: int) -> None:
    assert pairing.similar_pairs(np.ones((count, 4), np.float32)).shape == (0, 2)


def test_the_global_descriptor_equals_the_sum_over_keypoints() -> None:
    image = features(30)
    assert image.descriptors is not None
    table = np.zeros((6, 6))
    for score, row in zip(image.scores, image.descriptors.astype(float), strict=True):
        table += score * np.outer(row, row)
    expected = [
        np.sign(v) * np.sqrt(abs(v))
        for i in range(6)
        for j in range(i, 6)
        for v in [table[i, j] * (1 if i == j else np.sqrt(2))]
    ]
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(pairing.global_descriptor(image), expected, atol=1e-6)


def test_an_image_without_keypoints_has_a_descriptor_of_zeros() -> None:
    assert not pairing.global_descriptor(features(0)).any()


def test_the_order_of_keypoints_changes_a_global_descriptor_by_rounding_only() -> None:
    image = features(50)
    turned = image.take(np.arange(50)[::-1])
    np.testing.assert_allclose(
        pairing.global_descriptor(image), pairing.global_descriptor(turned), atol=1e-6
    )


def test_features_that_cannot_be_pooled_are_refused() -> None:
    image = features(3)
    bare = Features(image.xy, image.scores, None, (10, 10))
    with pytest.raises(ConfigError, match="no descriptors"):
        pairing.global_descriptor(bare)
    broken = np.array(image.descriptors)
    broken[0, 0] = np.nan
    with pytest.raises(ConfigError, match="not finite"):
        pairing.global_descriptor(replace(image, descriptors=broken))


def test_real_photographs_find_their_own_scene(shared: Path) -> None:
    detector = tiepoint.Detector(max_side=480, max_keypoints=500)
    table, scenes = [], []
    for scene in ("oxford/bikes", "oxford/ubc", "iguazu", "strecha/fountain-P11"):
        folder = shared / "eval" / scene
        files = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))[:4]
        for file in files:
            image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            table.append(pairing.global_descriptor(detector(image)))
            scenes.append(scene)
    pairs = pairing.similar_pairs(np.array(table), 1)
    right = [scenes[i] == scenes[j] for i, j in pairs.tolist()]
    assert np.mean(right) > 0.8  # by chance .2


NAMES = ["a.jpg", "sub/b.jpg", "my photo.jpg", "사진.jpg"]


def listed(path: Path, text: str) -> list[list[int]]:
    path.write_text(text, encoding="utf-8")
    return pairing.listed_pairs(path, NAMES).tolist()


def test_a_list_gives_its_pairs_in_its_order_once_each(tmp_path: Path) -> None:
    text = "# pairs\n\nsub/b.jpg   a.jpg\n"
    text += "my photo.jpg\tsub/b.jpg\n  a.jpg 사진.jpg\r\na.jpg sub/b.jpg\nsub/b.jpg a.jpg\n"
    assert listed(tmp_path / "pairs.txt", text) == [[1, 0], [2, 1], [0, 3]]
    assert listed(tmp_path / "pairs.txt", "\ufeffa.jpg sub/b.jpg") == [[0, 1]]
    assert listed(tmp_path / "pairs.txt", "") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg", "line 2: 'a.jpg' has 1 parts, expected two image names"),
        ("my photo.jpg a.jpg", "line 2: .* has 3 parts, .* put a tab between"),
        ("a.jpg b.jpg", "line 2: no image 'b.jpg' among the 4 there are, such as 'a.jpg'"),
        ("a.jpg a.jpg", "line 2: 'a.jpg' twice, expected two images"),
        ("a.jpg\t", "line 2: no image ''|line 2: .* has 1 parts"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(FormatError, match=rf"pairs\.txt, {message}"):
        listed(tmp_path / "pairs.txt", f"a.jpg sub/b.jpg\n{line}\n")


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        pairing.listed_pairs(tmp_path / "no.txt", NAMES)
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(FormatError, match="not UTF-8 text"):
        pairing.listed_pairs(tmp_path / "x.txt", NAMES)


def test_pairs_as_text_are_read_again(tmp_path: Path) -> None:
    text = pairing.pairs_text([("a/1.jpg", "b.jpg"), ("b.jpg", "c.jpg")])
    assert text == "a/1.jpg b.jpg\nb.jpg c.jpg\n" and pairing.pairs_text([]) == ""
    (tmp_path / "pairs.txt").write_text(text)
    names = ["a/1.jpg", "b.jpg", "c.jpg"]
    assert pairing.listed_pairs(tmp_path / "pairs.txt", names).tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize("name", ["my photo.jpg", "tab\t.jpg", "line\n.jpg", ""])
def test_a_name_that_hloc_would_split_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match="blanks in its name"):
        pairing.pairs_text([("a.jpg", name)])

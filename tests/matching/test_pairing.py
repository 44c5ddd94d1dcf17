"""Which images are matched with which."""

from __future__ import annotations

import inspect
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, FormatError
from tiepoint.matching import pairing
from tiepoint.matching.similar import similar_pairs


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


def test_the_defaults_stand_in_the_configuration_alone() -> None:
    window = inspect.signature(pairing.sequential_pairs).parameters["window"]
    assert window.default == PairConfig().window
    k = inspect.signature(similar_pairs).parameters["k"]
    assert k.default == PairConfig().k


@given(st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8), max_size=4))
def test_a_union_has_each_pair_once_in_the_direction_of_the_first(
    choices: list[list[tuple[int, int]]],
) -> None:
    parts = []
    for choice in choices:
        seen: dict[frozenset[int], tuple[int, int]] = {}
        for i, j in choice:
            if i != j:
                seen.setdefault(frozenset((i, j)), (i, j))
        parts.append(list(seen.values()))
    found = pairing.united_pairs([np.array(part, np.int64).reshape(-1, 2) for part in parts])
    first: dict[frozenset[int], tuple[int, int]] = {}
    for part in parts:
        for pair in part:
            first.setdefault(frozenset(pair), pair)
    expected = list(first.values()) if len(parts) == 1 else sorted(first.values(), key=sorted)
    assert [tuple(pair) for pair in found.tolist()] == expected


def test_neighbours_become_pairs_once_each() -> None:
    neighbours = np.array([[2, 1], [0, -1], [-1, -1], [2, 0]])
    assert pairing.neighbour_pairs(neighbours).tolist() == [[0, 1], [0, 2], [0, 3], [2, 3]]
    assert pairing.neighbour_pairs(np.empty((0, 3), np.int64)).shape == (0, 2)


def test_a_sequence_has_numbers_by_value_and_stays_in_its_folder() -> None:
    names = ["b/f10.jpg", "b/f2.jpg", "a/x.jpg", "b/f02.jpg", "b/f1.jpg", "top.jpg", "b/f.jpg"]
    found = [[names[index] for index in folder] for folder in pairing.in_sequence(names)]
    in_b = ["b/f1.jpg", "b/f02.jpg", "b/f2.jpg", "b/f10.jpg", "b/f.jpg"]
    assert found == [["top.jpg"], ["a/x.jpg"], in_b]
    assert pairing.in_sequence([]) == []


def test_numbers_longer_than_python_converts_are_in_order_too() -> None:
    names = ["f" + "9" * 5000, "f" + "8" * 5000, "f" + "1" + "0" * 5000]
    assert pairing.in_sequence(names) == [[1, 0, 2]]


def test_more_pairs_than_memory_holds_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="all pairs of 1000000 images are 499,999,500,000 pairs"):
        pairing.all_pairs(1_000_000)
    with pytest.raises(ConfigError, match="sequential pairs of 1000000 images"):
        pairing.sequential_pairs(1_000_000, 1000)


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

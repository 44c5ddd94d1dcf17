"""Small products of matrices run on one core, and BLAS has its threads again afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tiepoint import Features, match, register
from tiepoint.matching import match as matching
from tiepoint.matching import products
from tiepoint.matching.products import SMALL, on_one_core


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """BLAS with two threads, however many cores the machine has."""
    with threadpool_limits(2, user_api="blas"):
        yield


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in products._blas().info()}


def features(count: int, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    xy = rng.uniform(4, 90, (count, 2)).astype(np.float32)
    return Features(xy, rng.random(count, np.float32), descriptors, (96, 96))


def test_small_products_run_on_one_core_and_large_ones_on_all() -> None:
    with on_one_core(2048, SMALL // 2048):
        assert blas_threads() == {1}
    assert blas_threads() == {2}
    with on_one_core(2048, SMALL // 2048 + 1):
        assert blas_threads() == {2}


def test_matching_and_registration_run_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []
    nearest = matching.neighbours.by_cosine

    def watched(*arguments: object, **options: object) -> object:
        seen.append(blas_threads())
        return nearest(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(matching.neighbours, "by_cosine", watched)
    a, b = features(100), features(100, seed=1)
    match(a, b, rotation="none")
    register(a, b)
    assert len(seen) >= 2
    assert set.union(*seen) == {1}
    assert blas_threads() == {2}


def test_the_threads_come_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), on_one_core(10, 10):
        raise ZeroDivisionError
    assert blas_threads() == {2}


def test_of_several_threads_the_first_one_gives_the_cores_back() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with on_one_core(10, 10):
            entered.set()
            leave.wait(10)

    with on_one_core(10, 10):
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
        assert blas_threads() == {1}
    assert blas_threads() == {2}
    leave.set()
    thread.join()
    assert blas_threads() == {2}


def test_calls_within_calls_keep_the_limit() -> None:
    with on_one_core(10, 10):
        with on_one_core(10, 10):
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {2}

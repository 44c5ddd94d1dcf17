"""Batches come in one order, whoever draws them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tiepoint.errors import ConfigError, TiepointError
from tiepoint.training.scenes.loader import PairLoader
from tiepoint.training.scenes.pairs import training_pair
from tiepoint.training.scenes.settings import DataConfig

CONFIG = DataConfig(size_hw=(64, 72), mix=(("shapes", 0.5), ("repeats", 0.5)), bank=5, reuse=3)


def same(one, other) -> bool:
    return (
        np.array_equal(one.a_to_b, other.a_to_b, equal_nan=True)
        and np.array_equal(one.b_to_a, other.b_to_a, equal_nan=True)
        and one.kind == other.kind
        and all(
            np.array_equal(a.image, b.image)
            and np.array_equal(a.ignore, b.ignore)
            and np.array_equal(a.corners_xy, b.corners_xy)
            for a, b in ((one.a, other.a), (one.b, other.b))
        )
    )


def test_workers_and_the_first_step_change_nothing() -> None:
    with PairLoader(CONFIG, 3, 4) as alone, PairLoader(CONFIG, 3, 4, 2, workers=2) as crew:
        batches = [next(alone) for _ in range(8)]
        for step in range(2, 8):  # more than are drawn ahead, so memory is used again
            batch = next(crew)
            assert len(batch) == 4
            assert all(same(*pair) for pair in zip(batch, batches[step], strict=True))
        assert crew.step == alone.step == 8
        first = batches[2][0]
    assert same(first, training_pair(CONFIG, 3, 8))
    with pytest.raises(StopIteration):
        next(crew)


def test_what_goes_wrong_in_a_worker_is_raised_here(tmp_path) -> None:
    missing = DataConfig(size_hw=(64, 64), photos=(str(tmp_path / "none"),), photo_share=1, bank=4)
    loader = PairLoader(missing, 0, 2, workers=1)
    with pytest.raises(TiepointError, match="no such folder"):
        next(loader)
    loader.close()


def test_a_worker_that_dies_is_reported() -> None:
    loader = PairLoader(CONFIG, 0, 2, workers=1)
    next(loader)
    loader._crew._processes[0].kill()
    with pytest.raises(TiepointError, match="died"):
        for _ in range(10):
            next(loader)
    loader.close()


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"batch_size": 0}, {"batch_size": 6}, {"workers": -1}]
)
def test_numbers_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ConfigError):
        PairLoader(CONFIG, **({"seed": 0, "batch_size": 2} | wrong))


def test_drawing_pairs_needs_no_torch() -> None:
    code = "import sys, tiepoint.training.scenes.loader; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""Features to write and compare, and .h5 files that hold several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support.provenance import made
from tiepoint.features import Features
from tiepoint.formats import H5Writer
from tiepoint.formats.fields import PROVENANCE, PX_PER_INPUT_PX, TURNED

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(2.0**-20, 2.0**30, width=32)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)

META_KEYS = st.text().filter(lambda key: key not in (PROVENANCE, PX_PER_INPUT_PX, TURNED))
"""Keys of `meta`; the others belong to fields."""


def symmetric(matrices: np.ndarray) -> np.ndarray:
    """N 2 2 float32 with the lower element of each copied from the upper."""
    matrices = matrices.astype(np.float32)
    matrices[:, 1, 0] = matrices[:, 0, 1]
    return matrices


def make(count: int = 3, length: int | None = 4, **meta: object) -> Features:
    rng = np.random.default_rng(count)
    return Features(
        xy=rng.uniform(0, 100, (count, 2)).astype(np.float32),
        scores=rng.uniform(0, 1, count).astype(np.float32),
        descriptors=None if length is None else rng.normal(size=(count, length)).astype("f4"),
        size_hw=(480, 640),
        meta=meta or {"source": "fake.png"},
        provenance=made(),
        px_per_input_px=1.5,
        covariance=None if length is None else symmetric(rng.normal(size=(count, 2, 2))),
        scales_px=None if length is None else rng.uniform(1, 4, count).astype(np.float32),
    )


def assert_equal(left: Features, right: Features) -> None:
    assert left.size_hw == right.size_hw
    assert left.meta == right.meta and left.provenance == right.provenance
    assert left.px_per_input_px == right.px_per_input_px
    for name in ("xy", "scores", "descriptors", "covariance", "scales_px"):
        a, b = getattr(left, name), getattr(right, name)
        if a is None or b is None:
            assert a is b
        else:
            assert a.dtype == b.dtype == np.float32
            np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))  # bits: -0.0 too
            assert a.shape == b.shape


@st.composite
def any_features(draw: st.DrawFn, *, described: bool) -> Features:
    count = draw(st.integers(0, 4))
    length = draw(st.none() | st.integers(1, 5)) if described else None
    arrays = [
        draw(hnp.arrays(np.float32, shape, elements=FINITE))
        for shape in [(count, 2), (count,), (count, length or 0), (count, 2, 2)]
    ]
    return Features(
        xy=arrays[0],
        scores=arrays[1],
        descriptors=None if length is None else arrays[2],
        size_hw=(draw(st.integers(1, 10**6)), draw(st.integers(1, 10**6))),
        meta=draw(st.dictionaries(META_KEYS, JSON_VALUES, max_size=3)),
        covariance=symmetric(arrays[3]) if draw(st.booleans()) else None,
        scales_px=draw(hnp.arrays(np.float32, count, elements=POSITIVE))
        if draw(st.booleans())
        else None,
    )


def write_h5(path: Path, *names: str, **more: Any) -> None:
    with H5Writer(path, **more) as writer:
        for number, name in enumerate(names):
            writer.add(name, make(number + 1))


def half_written_h5(path: Path, *names: str) -> None:
    """Leave what a run leaves that stopped after these images."""
    writer = H5Writer(path)
    for number, name in enumerate(names):
        writer.add(name, make(number + 1))
    writer.suspend()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_json(path: Path, **changes: object) -> None:
    held = {
        "convention": "center0",
        "size_hw": [4, 6],
        "meta": {},
        "scores": [0.5],
        "xy": [[1.0, 2.0]],
        "descriptors": None,
    }
    held.update(changes)
    path.write_text(json.dumps({k: v for k, v in held.items() if v != "absent"}))

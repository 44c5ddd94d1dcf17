"""Keypoints from tiles, compared with those of the whole image."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from tiepoint import Features
from tiepoint.errors import ImageError
from tiepoint.images.arrays import Decoded
from tiepoint.images.windows import ArrayWindows, Window

SCORE, XY_PX, COSINE = 1e-5, 2e-3, 1e-4
"""Largest differences, by round-off."""


def assert_same(tiled: Features, whole: Features, *, apart: Collection[str] = ()) -> None:
    """The same keypoints in any order, and the same record; `apart` are entries of `meta`."""
    assert len(tiled) == len(whole) > 20
    assert_same_record(tiled, whole, apart)
    order = [np.lexsort((np.rint(f.xy[:, 0] * 4), np.rint(f.xy[:, 1] * 4))) for f in (tiled, whole)]
    distance = np.abs(tiled.xy[order[0]][:, None] - whole.xy[order[1]]).max(axis=2)
    nearest = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < XY_PX
    assert len(set(nearest)) == len(whole)
    a, b = order[0], order[1][nearest]
    np.testing.assert_allclose(tiled.scores[a], whole.scores[b], atol=SCORE)
    assert (np.diff(tiled.scores) <= 0).all()
    assert tiled.scales_px is not None and whole.scales_px is not None
    np.testing.assert_allclose(tiled.scales_px[a], whole.scales_px[b], rtol=1e-6)
    for name in ("descriptors", "covariance"):
        mine, theirs = getattr(tiled, name), getattr(whole, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_allclose(mine[a], theirs[b], atol=COSINE)


def assert_same_record(tiled: Features, whole: Features, apart: Collection[str] = ()) -> None:
    """Everything but the keypoints, and what only tiles have."""
    assert tiled.size_hw == whole.size_hw
    assert tiled.px_per_input_px == whole.px_per_input_px
    assert tiled.provenance == whole.provenance
    own = {"value_range", "tile_px", "damaged", *apart}
    mine, theirs = ({k: v for k, v in one.meta.items() if k not in own} for one in (tiled, whole))
    assert mine == theirs
    assert isinstance(tiled.meta["tile_px"], int)
    ranges = [one.meta.get("value_range", ()) for one in (tiled, whole)]
    np.testing.assert_allclose(*ranges, rtol=1e-6)


def assert_identical(a: Features, b: Features) -> None:
    """The same keypoints in the same order; sums of other batches of them round differently."""
    for name in ("xy", "scores", "descriptors", "covariance", "scales_px"):
        mine, theirs = getattr(a, name), getattr(b, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6, err_msg=name)
    assert a.size_hw == b.size_hw and a.meta == b.meta


class Damaged(ArrayWindows):
    """An image that cannot be read around one pixel."""

    y, x = 20, 300

    def read(self, window: Window, level: int = 0) -> Decoded:
        rows, columns = window.slices
        if rows.start <= self.y < rows.stop and columns.start <= self.x < columns.stop:
            raise ImageError("broken here")
        return super().read(window, level)

"""All keypoints of many tiles, best first, in arrays that are mapped from a file.

Positions and scores are in memory, 20 bytes a keypoint and as much again while they are sorted.
Descriptors and covariances go from tile to tile into their places in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir

import numpy as np
from numpy.typing import NDArray

from tiepoint.files.writing import allocate, temporary_name, unwritable
from tiepoint.keypoints.result import Keypoints

Float32 = NDArray[np.float32]

MOST_KEYPOINTS = 2**24
"""Most keypoints of an image, which is what files hold; 0.6 GB while they are sorted."""


def mapped_keypoints(
    parts: Callable[[], Iterable[Keypoints[Float32]]], folder: Path | None
) -> Keypoints[Float32]:
    """Keypoints of all parts, best score first; ties by y, then x.

    Args:
        parts: Called twice; gives the same parts in the same order, in px of the image, at least
            one, with `scales_px`.
        folder: Folder of the file, whose name goes at once; None is that of temporary files.

    Raises:
        OutputError: The file cannot be written.
    """
    heads = [(one.xy, one.scores, one.scales_px) for one in parts()]
    xy, scores, scales_px = (np.concatenate(one) for one in zip(*heads, strict=True))
    del heads
    order = np.lexsort((xy[:, 0], xy[:, 1], -scores))
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    descriptors: Float32 | None = None
    covariance: Float32 | None = None
    start = 0
    for part in parts():
        at = ranks[start : start + len(part.scores)]
        start += len(at)
        if part.descriptors is not None:
            if descriptors is None:
                descriptors = _mapped((len(order), part.descriptors.shape[1]), folder)
            descriptors[at] = part.descriptors
        if part.covariance is not None:
            if covariance is None:
                covariance = _mapped((len(order), 2, 2), folder)
            covariance[at] = part.covariance
    return Keypoints(xy[order], scores[order], descriptors, covariance, scales_px[order])


def _mapped(shape: tuple[int, ...], folder: Path | None) -> Float32:
    """An array of zeros in a file without a name, which goes with the array."""
    if 0 in shape:
        return np.zeros(shape, np.float32)
    path = (folder or Path(gettempdir())) / temporary_name()
    try:
        with path.open("xb") as file:
            allocate(file.fileno(), 0, 4 * math.prod(shape))
        return np.memmap(path, np.float32, "r+", shape=shape)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # Windows keeps a mapped file until a later run removes it
            path.unlink()

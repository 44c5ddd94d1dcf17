"""Folders of pictures for batches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from tiepoint.batch import Input, expand


def put(path: Path, width: int = 20) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((10, width, 3), np.uint8))
    return str(path)


def places(arguments: Iterable[str | Path], listing: Iterable[str] = ()) -> list[str]:
    found = list(expand([str(argument) for argument in arguments], listing))
    assert all(isinstance(item, Input) for item in found)
    return [str(item.name) for item in found if isinstance(item, Input)]

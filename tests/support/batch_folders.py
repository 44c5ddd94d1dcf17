"""Folders of pictures for batches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from support.fake_detector import FakeDetector
from tiepoint.batch import FolderStore, ImageRecord, Input, expand, run
from tiepoint.images.masks import MaskFolder


def put(path: Path, width: int = 20) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((10, width, 3), np.uint8))
    return str(path)


def places(arguments: Iterable[str | Path], listing: Iterable[str] = ()) -> list[str]:
    found = list(expand([str(argument) for argument in arguments], listing))
    assert all(isinstance(item, Input) for item in found)
    return [str(item.name) for item in found if isinstance(item, Input)]


def go(
    arguments: Iterable[str | Path],
    out: Path,
    detector: FakeDetector | None = None,
    ending: str = ".npz",
    *,
    plot: bool = False,
    overwrite: bool = False,
    masks: Path | None = None,
) -> list[ImageRecord]:
    inputs = expand([str(argument) for argument in arguments])
    fake: Any = detector or FakeDetector()
    folder = None if masks is None else MaskFolder(masks)
    store = FolderStore(out, ending, plot)
    return list(run(inputs, fake, store, overwrite=overwrite, masks=folder))

"""Run: detect in many images, store the features of each, skip those of earlier runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tiepoint.batch.inputs import Input, Unreadable
from tiepoint.batch.plan import Task, plan_input
from tiepoint.batch.records import ImageRecord, stops_a_run
from tiepoint.batch.stores import Store
from tiepoint.errors import TiepointError
from tiepoint.features import Features
from tiepoint.files.writing import make_folder, remove_stale
from tiepoint.formats.fields import summary_of
from tiepoint.images.masks import MaskFolder

if TYPE_CHECKING:
    from tiepoint.config import DetectionOptions
    from tiepoint.detector import Detector
    from tiepoint.streaming import Detection
    from tiepoint.tiles.stream import TiledDetector

FIRST_GROUP, GROUP = 32, 256
"""Inputs planned before their images are read, which bounds memory for a million paths. The first
group is smaller, so that the first result comes soon. Cores may be idle between two groups."""


def run(
    inputs: Iterable[Input | Unreadable],
    detector: Detector | TiledDetector,
    store: Store,
    *,
    overwrite: bool = False,
    masks: MaskFolder | None = None,
    **options: Unpack[DetectionOptions],
) -> Iterator[ImageRecord]:
    """Detect keypoints in many images and store the features of each.

    Results of an earlier run with the same settings are skipped, so a stopped run resumes where it
    was. An interrupt leaves whole files only. Images that changed since, and damaged results, are
    processed again. Temporary files that killed runs left next to the results are removed.

    Args:
        inputs: Inputs of `expand`, read as needed.
        detector: Detector of all images.
        store: Store of the results, closed after the last input.
        overwrite: Replace existing results.
        masks: Masks of the images; an image without one is used whole.
        options: Detection settings of this run, which replace those of the detector.

    Yields:
        A record for each input, in order.

    Raises:
        OutputError: The disk is full or read-only, or the one file for all images cannot be
            written.
    """
    wanted = detector.provenance(**options)
    remaining = _tidied(inputs, store)
    size = FIRST_GROUP
    while plans := [
        plan_input(item, store, wanted, masks, overwrite=overwrite)
        for item in islice(remaining, size)
    ]:
        yield from _run_group(plans, detector, store, options)
        size = GROUP
    store.close()


def _tidied(inputs: Iterable[Input | Unreadable], store: Store) -> Iterator[Input | Unreadable]:
    """The inputs; before the first of each output folder, stale files are removed from it."""
    folders: set[Path] = set()
    for item in inputs:
        if isinstance(item, Input):
            folder = store.path(item.name).parent
            if folder not in folders:
                folders.add(folder)
                remove_stale(folder)
        yield item


def _run_group(
    plans: list[ImageRecord | Task],
    detector: Detector | TiledDetector,
    store: Store,
    options: DetectionOptions,
) -> Iterator[ImageRecord]:
    tasks = [item for item in plans if isinstance(item, Task) and item.stored is None]
    sources, masks = [task.source for task in tasks], [task.mask for task in tasks]
    detections: Iterator[Detection] = iter(())  # a run with nothing left builds no network
    if tasks:
        detections = detector.stream(sources, mask=masks if any(masks) else None, **options)
    for item in plans:
        if isinstance(item, ImageRecord):
            if item.status == "skipped":
                _forget(detector, item.source)
            yield item
        elif item.stored is not None:
            _forget(detector, item.source)
            yield draw_stored(item, store)
        else:
            start = time.perf_counter()
            detection = next(detections)
            yield store_result(item, store, detection, 1000 * (time.perf_counter() - start))
    for _ in detections:  # there is none left; asking removes the state of the last one
        pass


def _forget(detector: Detector | TiledDetector, source: str) -> None:
    """Remove the tiles of an image that is done, in case its run was killed before it did."""
    from tiepoint.tiles.stream import TiledDetector

    if isinstance(detector, TiledDetector):
        detector.forget(source)


def store_result(
    task: Task, store: Store, detection: Detection, milliseconds: float | None = None
) -> ImageRecord:
    """Store the features of one image and draw its overlay, or record why there are none.

    Raises:
        OutputError: The disk is full or read-only.
    """
    if detection.features is None:
        return task.record("failed", error=detection.error, is_saved=False)
    features = detection.features
    features = replace(features, meta={**features.meta, **task.files})
    summary = summary_of(features)
    is_saved = False
    try:
        make_folder(task.output.parent, advice="choose another output folder")
        store.save(task.name, features)
        is_saved = True
        _draw(task, features)
    except TiepointError as error:
        if stops_a_run(error):
            raise
        return task.record(
            "failed", summary, milliseconds=milliseconds, error=error, is_saved=is_saved
        )
    return task.record("done", summary, milliseconds=milliseconds)


def draw_stored(task: Task, store: Store) -> ImageRecord:
    """Draw the overlay of features from an earlier run."""
    try:
        _draw(task, store.load(task.name))
    except TiepointError as error:
        return task.record("failed", task.stored, error=error)
    return task.record("skipped", task.stored)


def _draw(task: Task, features: Features) -> None:
    if task.overlay is not None:
        from tiepoint.plotting import plot

        plot(features, task.source, task.overlay)

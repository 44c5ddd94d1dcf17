"""The work itself: skip what is done, detect the rest, write each result whole."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tiepoint.batch.inputs import Input, Unreadable
from tiepoint.batch.layout import Layout, Target
from tiepoint.errors import ConfigError, FormatError, TiepointError
from tiepoint.features import Features, Provenance
from tiepoint.files import make_folder
from tiepoint.formats import Summary
from tiepoint.formats.fields import as_json, summary_of
from tiepoint.images.masks import MaskFolder

if TYPE_CHECKING:
    from tiepoint.config import DetectionOptions
    from tiepoint.detector import Detector
    from tiepoint.streaming import Detection

Status = Literal["done", "skipped", "failed", "refused"]

FIRST_GROUP, GROUP = 32, 256
"""Inputs looked at before their images are read: what is in memory of a million paths. The first
are fewer, so that the first result comes at once; between two groups a core may have to wait."""

NO_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors that every later file would meet too."""


@dataclass(frozen=True)
class Record:
    """What became of one input.

    Attributes:
        source: As it was named.
        status: "done"; "skipped": its results were there; "failed": `error` says why;
            "refused": other results stand in their place.
        output: The features file, or None if there is none to look for.
        overlay: The picture with the keypoints, or None if none was wanted.
        keypoints: How many, or None if unknown.
        size_hw: (height, width) of the image in px, or None if it was never read.
        milliseconds: From asking for the features to having them; images are read ahead, so
            this is less than reading and detecting takes. None if nothing was detected.
        error: What went wrong and what to do, or None.
    """

    source: str
    status: Status
    output: Path | None = None
    overlay: Path | None = None
    keypoints: int | None = None
    size_hw: tuple[int, int] | None = None
    milliseconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Task:
    """An input with something left to do; `stored` where only the overlay is missing.

    Attributes:
        mask: The file that says where keypoints may lie, or None.
    """

    source: str
    target: Target
    stored: Summary | None = None
    mask: Path | None = None


def run(
    inputs: Iterable[Input | Unreadable],
    detector: Detector,
    layout: Layout,
    *,
    overwrite: bool = False,
    options: DetectionOptions | None = None,
    masks: MaskFolder | None = None,
) -> Iterator[Record]:
    """Detect keypoints in many images and write a features file for each.

    An output that is there and was made with the same settings is left alone, so that a stopped
    run goes on where it was. Interrupting leaves whole files only.

    Args:
        inputs: As from `expand`; read as needed.
        detector: Does the detection.
        layout: Where results go.
        overwrite: Replace whatever is there.
        options: Detection options for this run, all but `mask`.
        masks: Where masks of the images lie; an image without one is used whole.

    Yields:
        A record per input, in order.

    Raises:
        FormatError: The disk is full or read-only: going on would be of no use; or the one file
            for all inputs cannot be written.
    """
    chosen: DetectionOptions = {} if options is None else options
    wanted = detector.provenance(**chosen)
    remaining = iter(inputs)
    size = FIRST_GROUP
    while plans := [
        _plan(item, layout, wanted, masks, overwrite=overwrite) for item in islice(remaining, size)
    ]:
        yield from _carry_out(plans, detector, chosen)
        size = GROUP
    layout.finish()


def _plan(
    item: Input | Unreadable,
    layout: Layout,
    wanted: Provenance,
    masks: MaskFolder | None,
    *,
    overwrite: bool,
) -> Record | _Task:
    if isinstance(item, Unreadable):
        return Record(item.source, "failed", error=item.reason)
    target = layout.target(item.place)
    mask = None if masks is None else masks.of(item.place)
    task = _Task(item.source, target, mask=mask)
    try:
        if overwrite:
            return task
        if not target.exists():
            _refuse_foreign(target.overlay)
            return task
        stored = target.summarise()
        _refuse_other_settings(target.label, stored, wanted)
        _refuse_other_mask(target.label, stored.meta.get("mask"), mask)
        _refuse_other_image(target.features, stored.meta.get("source"), item.source)
        if target.overlay is not None and not target.overlay.exists():
            return _Task(item.source, target, stored, mask)
    except FormatError as error:
        return _record(task, "refused", error=FormatError(f"{error}; --overwrite replaces it"))
    except OSError as error:  # a name too long, a folder that is a file
        reason = f"{target.features}: cannot be looked at ({error.strerror}); check the path"
        return _record(task, "failed", error=FormatError(reason))
    return _record(task, "skipped", stored)


def _carry_out(
    plans: list[Record | _Task], detector: Detector, options: DetectionOptions
) -> Iterator[Record]:
    open_tasks = [plan for plan in plans if isinstance(plan, _Task) and plan.stored is None]
    if not open_tasks:  # a run with nothing to do builds no network
        yield from (_finish_stored(p) if isinstance(p, _Task) else p for p in plans)
        return
    sources = [task.source for task in open_tasks]
    masked = any(task.mask is not None for task in open_tasks)
    masks = [task.mask for task in open_tasks] if masked else None
    results = detector.stream(sources, mask=masks, **options)
    for plan in plans:
        if isinstance(plan, Record):
            yield plan
        elif plan.stored is not None:
            yield _finish_stored(plan)
        else:
            start = time.perf_counter()
            detection = next(results)
            yield _finish(plan, detection, 1000 * (time.perf_counter() - start))


def _finish(task: _Task, detection: Detection, milliseconds: float) -> Record:
    if detection.features is None:
        return _record(task, "failed", error=detection.error)
    result = detection.features
    found = summary_of(result)
    saved = False
    try:
        make_folder(task.target.features.parent, advice="choose another output folder")
        task.target.save(result)
        saved = True
        _draw(task, result)
    except TiepointError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_DISK:
            raise
        return _record(task, "failed", found, milliseconds, error, saved=saved)
    return _record(task, "done", found, milliseconds)


def _finish_stored(task: _Task) -> Record:
    """Draw the overlay of features that an earlier run wrote."""
    try:
        features = task.target.load()
        _draw(task, features)
    except TiepointError as error:
        return _record(task, "failed", task.stored, error=error, saved=True)
    return _record(task, "skipped", task.stored)


def _draw(task: _Task, features: Features) -> None:
    if task.target.overlay is not None:
        from tiepoint.plotting import plot

        plot(features, task.source, task.target.overlay)


def _refuse_other_mask(label: str, stored: object, mask: Path | None) -> None:
    if mask is None and stored is None:
        return
    if mask is not None and isinstance(stored, str):
        same_file = Path(stored).is_file() and mask.samefile(stored)
        if same_file or stored == str(mask):
            return
    wanted = None if mask is None else str(mask)
    raise FormatError(f"{label}: was made with mask {stored!r} instead of {wanted!r}")


def _refuse_foreign(overlay: Path | None) -> None:
    if overlay is not None and overlay.exists():
        raise FormatError(f"{overlay}: exists, and no features beside it, so it is no overlay")


def _refuse_other_settings(label: str, stored: Summary, wanted: Provenance) -> None:
    try:
        made = stored.provenance
    except ConfigError as error:
        raise FormatError(f"{label}: {error}") from error
    if made is None:
        raise FormatError(f"{label}: does not state its weights and settings")
    names = made.differences(Provenance(**as_json(wanted.to_json())))
    if names:
        differences = ", ".join(
            f"{name} {_entry(made, name)!r} instead of {_entry(wanted, name)!r}" for name in names
        )
        hint = ""
        if names == ["precision"]:  # the default of another machine
            hint = f"; continue with --precision {made.precision}"
        raise FormatError(f"{label}: was made with other settings: {differences}{hint}")


def _refuse_other_image(path: Path, stored: object, source: str) -> None:
    """Two folders with equal names in them, written to one output folder."""
    if not isinstance(stored, str) or stored == source:
        return
    # A path that leads nowhere from here may be the same image seen from another folder.
    other = Path(stored).is_file() and Path(source).is_file() and not Path(stored).samefile(source)
    if other:
        raise FormatError(f"{path}: holds the features of another image, {stored}")


def _entry(provenance: Provenance, name: str) -> Any:
    """The entry that `Provenance.differences` calls "settings.x" or "x"."""
    group, _, setting = name.partition(".")
    value = getattr(provenance, group)
    return value.get(setting) if setting else value


def _record(
    task: _Task,
    status: Status,
    found: Summary | None = None,
    milliseconds: float | None = None,
    error: TiepointError | None = None,
    *,
    saved: bool = False,
) -> Record:
    failed = status == "failed"
    return Record(
        source=task.source,
        status=status,
        output=task.target.features if saved or not failed else None,
        overlay=None if failed else task.target.overlay,
        keypoints=None if found is None else found.keypoints,
        size_hw=None if found is None else found.size_hw,
        milliseconds=milliseconds,
        error=None if error is None else str(error),
    )

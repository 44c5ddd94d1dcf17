"""Plan: which inputs have work left, and which are done, foreign or made with other settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tiepoint.batch.fingerprint import IMAGE, MASK, fingerprint, has_changed
from tiepoint.batch.inputs import Input, Unreadable
from tiepoint.batch.records import ImageRecord, Status
from tiepoint.batch.stores import Store, is_whole_overlay
from tiepoint.errors import ConfigError, FormatError, ImageError, TiepointError
from tiepoint.features import Provenance
from tiepoint.files.paths import is_file
from tiepoint.formats import DamagedError, Summary, as_json
from tiepoint.images.masks import MaskFolder
from tiepoint.images.urls import without_credentials

CHANGED = {IMAGE: "the image changed", MASK: "the mask changed"}
DAMAGED = "the output was damaged"
"""Reasons for replacing an earlier result."""

_REPLACE = "--overwrite replaces it"


@dataclass(frozen=True)
class Task:
    """An input with work left.

    Attributes:
        source: Path or URL of the image.
        name: Name of the image in the store.
        output: Features file.
        overlay: Picture to draw, or None.
        mask: Mask file of the image, or None.
        stored: Head of the features of an earlier run, if only the overlay is missing.
        files: Fingerprints of image and mask, to be stored in `meta`; see `fingerprint`.
        redone: Why an earlier result is replaced, or None.
    """

    source: str
    name: PurePosixPath
    output: Path
    overlay: Path | None
    mask: Path | None = None
    stored: Summary | None = None
    files: Mapping[str, Any] = field(default_factory=dict)
    redone: str | None = None

    def record(
        self,
        status: Status,
        summary: Summary | None = None,
        *,
        milliseconds: float | None = None,
        error: TiepointError | None = None,
        is_saved: bool = True,
    ) -> ImageRecord:
        """The record of this input."""
        failed = status == "failed"
        return ImageRecord(
            source=without_credentials(self.source),
            status=status,
            output=self.output if is_saved else None,
            overlay=None if failed else self.overlay,
            keypoints=None if summary is None else summary.keypoints,
            size_hw=None if summary is None else summary.size_hw,
            milliseconds=milliseconds,
            error=None if error is None else str(error),
            reason=error.reason if isinstance(error, _RefusedError) else None,
            redone=self.redone if status == "done" else None,
        )


class _RefusedError(FormatError):
    """Other results are in the place of these.

    Attributes:
        reason: The same for all that are refused alike: no name of a file.
    """

    def __init__(self, label: object, message: str, reason: str | None = None) -> None:
        super().__init__(f"{label}: {message}; {_REPLACE}")
        self.reason = reason or message


def plan_input(
    item: Input | Unreadable,
    store: Store,
    wanted: Provenance,
    masks: MaskFolder | None,
    *,
    overwrite: bool,
) -> Task | ImageRecord:
    """The task of an input, or its record if no work is left.

    `wanted` is the provenance of features made with the settings of this run.
    """
    if isinstance(item, Unreadable):
        return ImageRecord(item.source, "failed", error=item.reason)
    name = item.name
    task = Task(item.source, name, store.path(name), store.overlay(name))
    try:
        mask = None if masks is None else masks.of(name)
        task = replace(task, mask=mask, files=_fingerprints(item.source, mask))
        if overwrite:
            return task
        if store.exists(name):
            return _compared(task, store, wanted)
        _refuse_foreign(task.overlay)
    except _RefusedError as error:
        return task.record("refused", error=error)
    except FormatError as error:
        return task.record("refused", error=FormatError(f"{error}; {_REPLACE}"))
    except ImageError as error:  # of the mask
        return task.record("failed", error=error, is_saved=False)
    except (OSError, ValueError) as error:  # a name too long, a folder that is a file
        reason = getattr(error, "strerror", None) or error
        text = f"{task.output}: cannot be read ({reason}); check the path"
        return task.record("failed", error=FormatError(text), is_saved=False)
    return task


def _fingerprints(source: str, mask: Path | None) -> dict[str, Any]:
    prints = {IMAGE: fingerprint(source), MASK: mask and fingerprint(mask)}
    return {name: value for name, value in prints.items() if value is not None}


def _compared(task: Task, store: Store, wanted: Provenance) -> Task | ImageRecord:
    """The task or record of an input that has results already."""
    try:
        stored = store.summarise(task.name)
    except DamagedError:
        if not store.is_remnant(task.name):
            raise
        return replace(task, redone=DAMAGED)
    label = store.label(task.name)
    _refuse_other_settings(label, stored, wanted)
    _refuse_other_mask(label, stored.meta.get("mask"), task.mask)
    _refuse_other_image(task.output, stored.meta.get("source"), task.source)
    for entry, reason in CHANGED.items():
        if has_changed(stored.meta, entry, task.files.get(entry)):
            return replace(task, redone=reason)
    if task.overlay is not None and not is_whole_overlay(task.overlay):
        return replace(task, stored=stored)
    return task.record("skipped", stored)


def _refuse_other_mask(label: str, stored: object, mask: Path | None) -> None:
    if mask is None and stored is None:
        return
    if mask is not None and isinstance(stored, str):
        same_file = _is_file(stored) and mask.samefile(stored)
        if same_file or stored == str(mask):
            return
    wanted = None if mask is None else str(mask)
    message = f"was made with mask {stored!r} instead of {wanted!r}"
    raise _RefusedError(label, message, "was made with another mask")


def _refuse_foreign(overlay: Path | None) -> None:
    if overlay is not None and overlay.exists():
        reason = "exists without features next to it, so it is no overlay"
        raise _RefusedError(overlay, reason)


def _refuse_other_settings(label: str, stored: Summary, wanted: Provenance) -> None:
    try:
        made = stored.provenance
    except ConfigError as error:
        raise FormatError(f"{label}: {error}") from error
    if made is None:
        raise _RefusedError(label, "does not state its weights and settings")
    names = made.differences(Provenance(**as_json(wanted.to_json())))
    if names:
        differences = ", ".join(
            f"{name} {made.entry(name)!r} instead of {wanted.entry(name)!r}" for name in names
        )
        hint = ""
        if names == ["precision"]:  # the default of another machine
            hint = f"; continue with --precision {made.precision}"
        raise _RefusedError(label, f"was made with other settings: {differences}{hint}")


def _refuse_other_image(path: Path, stored: object, source: str) -> None:
    """Two folders with equal names in them, written to one output folder."""
    if not isinstance(stored, str) or stored == without_credentials(source):
        return
    # A path that leads nowhere from here may be the same image seen from another folder.
    if _is_file(stored) and _is_file(source) and not Path(stored).samefile(source):
        message = "holds the features of another image"
        raise _RefusedError(path, f"{message}, {stored}", message)


def _is_file(path: str) -> bool:
    try:
        return is_file(path)
    except (OSError, ValueError):
        return False

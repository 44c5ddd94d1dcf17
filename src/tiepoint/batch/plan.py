"""Plan: which inputs have work left, and which are done, foreign or made with other settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tiepoint.batch.inputs import Input, Unreadable
from tiepoint.batch.records import ImageRecord, Status
from tiepoint.batch.stores import Store
from tiepoint.errors import ConfigError, FormatError, TiepointError
from tiepoint.features import Provenance
from tiepoint.formats import Summary, as_json
from tiepoint.images.masks import MaskFolder


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
    """

    source: str
    name: PurePosixPath
    output: Path
    overlay: Path | None
    mask: Path | None = None
    stored: Summary | None = None

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
            source=self.source,
            status=status,
            output=self.output if is_saved else None,
            overlay=None if failed else self.overlay,
            keypoints=None if summary is None else summary.keypoints,
            size_hw=None if summary is None else summary.size_hw,
            milliseconds=milliseconds,
            error=None if error is None else str(error),
        )


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
    mask = None if masks is None else masks.of(name)
    task = Task(item.source, name, store.path(name), store.overlay(name), mask)
    try:
        if overwrite:
            return task
        if not store.exists(name):
            _refuse_foreign(task.overlay)
            return task
        stored = store.summarise(name)
        _refuse_other_settings(store.label(name), stored, wanted)
        _refuse_other_mask(store.label(name), stored.meta.get("mask"), mask)
        _refuse_other_image(task.output, stored.meta.get("source"), item.source)
        if task.overlay is not None and not task.overlay.exists():
            return replace(task, stored=stored)
    except FormatError as error:
        return task.record("refused", error=FormatError(f"{error}; --overwrite replaces it"))
    except OSError as error:  # a name too long, a folder that is a file
        reason = f"{task.output}: cannot be read ({error.strerror}); check the path"
        return task.record("failed", error=FormatError(reason), is_saved=False)
    return task.record("skipped", stored)


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
        raise FormatError(f"{overlay}: exists without features next to it, so it is no overlay")


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

"""Features of an earlier run -> a store of another kind, such as COLMAP's database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tiepoint.batch.inputs import Input, Unreadable
from tiepoint.batch.plan import plan_input
from tiepoint.batch.records import ImageRecord
from tiepoint.batch.run import store_result
from tiepoint.batch.stores import Store
from tiepoint.errors import FormatError, TiepointError
from tiepoint.features import Features
from tiepoint.images.urls import without_credentials
from tiepoint.streaming import Detection


class _OneMask(NamedTuple):
    """The mask that the features of an image were made with."""

    path: Path | None

    def of(self, _: object) -> Path | None:
        return self.path


def store_images(
    inputs: Iterable[Input | Unreadable],
    features: Mapping[str, Features],
    store: Store,
    *,
    overwrite: bool = False,
) -> Iterator[ImageRecord]:
    """Store features that exist already; those that the store has are skipped, as in `run`.

    Args:
        inputs: The images.
        features: Features by the name of the image, such as from `read_features`.
        store: Where they go, closed after the last input.
        overwrite: Replace existing results.

    Yields:
        A record for each input, in order. An image without features has failed.

    Raises:
        OutputError: The disk is full or read-only, or the results cannot be written.
    """
    for item in inputs:
        if isinstance(item, Unreadable):
            yield ImageRecord(item.source, "failed", error=item.reason)
            continue
        try:
            found = _found(str(item.name), features)
        except TiepointError as error:
            shown = without_credentials(item.source)
            yield ImageRecord(shown, "failed", error=f"{shown}: {error}")
            continue
        mask = found.meta.get("mask")
        masks: Any = _OneMask(Path(mask) if isinstance(mask, str) else None)
        assert found.provenance is not None
        plan = plan_input(item, store, found.provenance, masks, overwrite=overwrite)
        if isinstance(plan, ImageRecord):
            yield plan
        else:
            yield store_result(plan, store, Detection(item.source, found, None))
    store.close()


def _found(name: str, features: Mapping[str, Features]) -> Features:
    if name not in features:
        raise FormatError(f"no features of an image {name!r}; expected those of the same folder")
    found = features[name]
    if found.provenance is None:
        raise FormatError("its features do not state their weights and settings; detect again")
    return found

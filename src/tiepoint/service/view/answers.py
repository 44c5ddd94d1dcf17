"""What the page asks of a session, as bytes; the same for HTTP and for a notebook."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.service.view import payload
from tiepoint.service.view.edits import MOST_EDITS, Edit
from tiepoint.service.view.payload import Nearest
from tiepoint.service.view.session import Item, PairItem, Session


def points(
    session: Session, item_id: str, nms_radius: int | None = None, *, in_tiles: bool = False
) -> bytes:
    """The keypoints of an image; see `Session.features` and `Session.features_in_tiles`."""
    if in_tiles:
        features = session.features_in_tiles(item_id)
    else:
        features = session.features(item_id, nms_radius)
    return payload.packed(payload.meta_of(features), {"points": payload.points_of(features)})


def nearest(session: Session, item_id: str, index: int, nms_radius: int | None = None) -> bytes:
    """The most similar keypoints of the other images that are known, as JSON."""
    features, others = session.features(item_id, nms_radius), session.known_features()
    others.pop(item_id, None)
    return _named(session, payload.nearest(features, index, others))


def nearest_in_pair(session: Session, pair_id: str, side: str, index: int) -> bytes:
    """The most similar keypoints of the other image of a pair, as JSON.

    Args:
        side: Image of the keypoint, "a" or "b".
    """
    pair, result = session.pairs[pair_id], session.fit(pair_id).registration
    one, other, image = result.features_a, result.features_b, pair.b
    if side == "b":
        one, other, image = other, one, pair.a
    return _named(session, payload.nearest(one, index, {image: other}))


def fitted(session: Session, pair_id: str, edit: Edit) -> bytes:
    """A registration after changes by hand."""
    pair = session.pairs[pair_id]
    recorded = pair.recorded if edit == Edit() else None
    return payload.packed_pair(session.fit(pair_id, edit), pair, recorded)


def edit_of(body: Any) -> Edit:
    """The changes by hand in a request.

    Raises:
        ConfigError: Something else, or too many changes.
    """
    try:
        removed = tuple(int(index) for index in body.get("removed", ()))
        added = tuple(tuple(float(number) for number in row) for row in body.get("added", ()))
        if len(removed) + len(added) > MOST_EDITS or any(len(row) != 4 for row in added):
            raise ValueError
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            "expected removed, a list of indices, and added, a list of [x_a, y_a, x_b, y_b]"
        ) from error
    return Edit(removed, added)  # type: ignore[arg-type]


def item_json(features: Mapping[str, Features], item: Item) -> dict[str, Any]:
    """What the page states about an image; `features` are those that are known."""
    known = features.get(item.id)
    count = item.count if known is None else len(known)
    size_hw = item.size_hw if known is None else known.size_hw
    return {
        "id": item.id, "name": item.name, "count": count,
        "size_hw": None if size_hw is None else list(size_hw), "stored": item.load is not None,
    }  # fmt: skip


def pair_json(session: Session, pair: PairItem) -> dict[str, Any]:
    """Ids and names of a pair."""
    a, b = session.items[pair.a], session.items[pair.b]
    names = {"a": {"id": a.id, "name": a.name}, "b": {"id": b.id, "name": b.name}}
    return {"id": pair.id, **names}


def _named(session: Session, found: Iterable[Nearest]) -> bytes:
    rows = [{**one._asdict(), "name": session.items[one.image].name} for one in found]
    return json.dumps(rows).encode()

"""Layouts of a chunk in the order in which a device draws them, on the host.

Planes are sorted by their rank in their views, and views by their number of planes. So the planes
of one rank belong to the first views, and are drawn over them without an index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiepoint.training.on_device.bank import SheetBank
from tiepoint.training.on_device.transfer import together_on
from tiepoint.training.scenes.layout_loader import Chunk
from tiepoint.training.scenes.layouts import Rows

FEW_EDGES, MORE_EDGES = 4, 12
"""Edges of all planes are padded to the first number. Planes with further ones are in two groups,
up to the second number and beyond, each padded to its own largest number."""
FAR_PX = 1e4
"""Distance to an edge that is not there."""


@dataclass(frozen=True, eq=False)
class Arrangement:
    """A chunk of P pairs: V = 2P views, all A before all B, of T planes.

    Attributes:
        ranks: Number of planes of each rank, from far to near.
        corners: Largest number of corners of a sheet in it.
        tensors: Arrays on the device, by the names in `arranged`.
        extra: Number of groups of planes with more edges: `more_planes_0`, `more_edges_0`...
    """

    pairs: int
    ranks: list[int]
    corners: int
    tensors: dict[str, Tensor]
    extra: int


def arranged(chunk: Chunk, bank: SheetBank, place: torch.device) -> Arrangement:
    """Sort the layouts of a chunk, whose scenes are in the bank, and upload them."""
    planes, views = chunk.layouts.planes, 2 * len(chunk.scenes)
    by_view = np.lexsort([planes["rank"], planes["view"]])
    counts = np.bincount(planes["view"], minlength=views)  # V
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(planes), np.int64)
    rank[by_view] = np.arange(len(planes)) - np.repeat(starts, counts)
    places = np.argsort(-counts, kind="stable")  # view of each place
    place_of = np.argsort(places)
    drawn = np.lexsort([place_of[planes["view"]], rank])
    scenes = np.array(chunk.scenes)
    rows, most = _sheet_rows(planes, scenes, bank)
    backdrops = np.array([bank.backdrop_row(number) for number in chunk.scenes])
    arrays = {
        # In the order of drawing:
        "rows": rows[drawn], "sample": planes["sample"][drawn], "limits": planes["limits"][drawn],
        "names": planes["name"][drawn], "place_of": place_of,
        "backdrops": backdrops[places % len(scenes)],
        # View by view:
        "corner_rows": rows[by_view], "to_view": planes["to_view"][by_view],
        "determinant": planes["determinant"][by_view], "part": planes["part"][by_view],
        "corner_names": planes["name"][by_view],
        "corner_views": planes["view"][by_view].astype(np.int64), "starts": starts,
    }  # fmt: skip
    edges, extra = _edges(planes, chunk.layouts.edges, drawn)
    tensors = together_on({**arrays, **edges, **_tables(chunk, views)}, place)
    return Arrangement(len(scenes), np.bincount(rank).tolist(), most, tensors, extra)


def _sheet_rows(
    planes: Rows, scenes: NDArray[np.int64], bank: SheetBank
) -> tuple[NDArray[np.int64], int]:
    """Row in the bank of each plane's sheet, and the most corners of a sheet."""
    numbers = [bank.sheet_rows(number) for number in scenes.tolist()]
    first = np.cumsum([0] + [len(rows) for rows in numbers])
    rows = np.concatenate(numbers)[first[planes["view"] % len(scenes)] + planes["sheet"]]
    most = max(int(bank.corner_counts(number).max()) for number in scenes.tolist())
    return np.asarray(rows, np.int64), most


def _edges(
    planes: Rows, edges: NDArray[np.float32], drawn: NDArray[np.int64]
) -> tuple[dict[str, NDArray[np.generic]], int]:
    """The edges of each plane, padded; see `FEW_EDGES`."""
    counts = planes["edges"].astype(np.int64)
    starts = (np.cumsum(counts) - counts)[drawn]
    counts = counts[drawn]
    arrays: dict[str, NDArray[np.generic]] = {}

    def padded(of: NDArray[np.int64], first: int, number: int) -> NDArray[np.float32]:
        each = np.arange(first, first + number)
        present = each < counts[of, None]
        result = np.full((len(of), number, 3), (0, 0, FAR_PX), np.float32)
        result[present] = edges[(starts[of, None] + each)[present]]
        return result

    arrays["edges"] = padded(np.arange(len(drawn)), 0, FEW_EDGES)
    extra = 0
    for least, most in ((FEW_EDGES, MORE_EDGES), (MORE_EDGES, max(counts.max(initial=0), 1))):
        of = np.flatnonzero((counts > least) & (counts <= most))
        if len(of):
            more = int(counts[of].max()) - FEW_EDGES
            arrays[f"more_planes_{extra}"] = of
            arrays[f"more_edges_{extra}"] = padded(of, FEW_EDGES, more)
            extra += 1
    return arrays, extra


def _tables(chunk: Chunk, views: int) -> dict[str, NDArray[np.generic]]:
    """What is looked up by view and owner, and the ends of outlines of each view."""
    names, ends = chunk.layouts.names, chunk.layouts.ends
    most = int(names["name"].max()) + 1
    to_other = np.full((views, most, 3, 3), np.nan, np.float32)
    to_other[names["view"], names["name"]] = names["to_other"]
    ranks = np.zeros((views, most), np.int16)
    ranks[names["view"], names["name"]] = names["rank"]
    by_view = ends[np.argsort(ends["view"], kind="stable")]
    counts = np.bincount(by_view["view"], minlength=views)
    column = np.arange(len(ends)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = int(counts.max(initial=0))
    ends_xy, ends_name = np.zeros((views, width, 2), np.float32), np.zeros((views, width), np.int16)
    ends_xy[by_view["view"], column] = by_view["xy"]
    ends_name[by_view["view"], column] = by_view["name"]
    return {
        "to_other": to_other.reshape(-1, 9), "body_ranks": ranks,
        "ends_xy": ends_xy, "ends_name": ends_name,
    }  # fmt: skip

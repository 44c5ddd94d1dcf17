"""Samples of TIFF files that Pillow refuses or would truncate: 16 bits, floats, signed, bands.

Rows are read, decompressed and converted in blocks, so that the picture itself is the only large
array.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffPage

from tiepoint.images import tiff_pages
from tiepoint.images.arrays import (
    MAX_EXACT,
    Array,
    Decoded,
    blend_on_white,
    in_unit_range,
    not_finite,
    stored_view,
    upright_size,
)
from tiepoint.images.gaps import NO_DATA, equal_to
from tiepoint.images.tiff_codecs import BLOCK_BYTES, Source, joined, rows_of
from tiepoint.images.tiff_pages import Segments, damaged

_ORIENTATION = 274
_PREMULTIPLIED, _STRAIGHT = 1, 2  # ExtraSamples; TIFF 6.0, section 18
_FULL = {"u1": 255, "u2": 65535}


class Place(NamedTuple):
    """First band, row and column of a block."""

    plane: int
    top: int
    left: int


class Block(NamedTuple):
    """Part of the picture, `H W C`, and where the file stores no data, `H W`."""

    place: Place
    samples: Array
    holes: NDArray[np.bool_] | None


class Bands(NamedTuple):
    """Which samples of a pixel are its colours and its alpha."""

    colours: int
    alpha: int | None
    premultiplied: bool


def read_samples(stream: BinaryIO, page: TiffPage, layout: Segments, name: str) -> Decoded:
    """Read a page for which `reason_against` returned None.

    If bands have no colour interpretation, the first three are the colours; if there are fewer, the
    first one is grey.

    Raises:
        ImageError: Damaged.
    """
    try:
        return _read(stream, page, layout, name)
    except (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, TypeError) as error:
        raise damaged(name, str(error) or type(error).__name__) from error


def _read(stream: BinaryIO, page: TiffPage, layout: Segments, name: str) -> Decoded:
    assert page.dtype is not None
    bands = bands_of(page)
    height, width = page.imagelength, page.imagewidth
    turn = page.tags.valueof(_ORIENTATION, 1)
    turn = turn if isinstance(turn, int) and 1 <= turn <= 8 else 1
    size_hw = upright_size((height, width), turn)
    shape = (*size_hw, bands.colours) if bands.colours > 1 else size_hw
    pixels: Array = np.empty(shape, _type_of(stream, page, layout, bands, name))
    alpha = None if bands.alpha is None else np.empty(size_hw, pixels.dtype)
    no_data = page.tags.valueof(NO_DATA)
    gaps = None if no_data is None else np.ones(size_hw, bool)
    holes = None if layout.counts.all() else np.zeros(size_hw, bool)
    colours_as_stored = stored_view(pixels.reshape(*size_hw, bands.colours), turn)
    for (first, top, left), samples, missing in _blocks(stream, page, layout, name):
        place = (slice(top, top + samples.shape[0]), slice(left, left + samples.shape[1]))
        last = first + layout.samples
        kept = slice(first, min(last, bands.colours))
        if holes is not None and missing is not None:
            stored_view(holes, turn)[place] |= missing
        with np.errstate(over="ignore"):  # beyond float32 they are infinite, so no data
            colours_as_stored[*place, kept] = samples[..., : max(0, bands.colours - first)]
            if alpha is not None and bands.alpha is not None and first <= bands.alpha < last:
                stored_view(alpha, turn)[place] = samples[..., bands.alpha - first]
        if gaps is not None and first < bands.colours:
            equal = equal_to(samples[..., : bands.colours - first], no_data)
            stored_view(gaps, turn)[place] &= False if equal is None else equal
    _finish_values(pixels, page)
    image = _blended(pixels, alpha, bands.premultiplied)
    image = image.without(gaps).without(holes).without(not_finite(pixels))
    return image.upright(turn, applied=True)


def bands_of(page: TiffPage) -> Bands:
    """Colours and alpha among the samples of a pixel."""
    count, extras = page.samplesperpixel, tuple(int(extra) for extra in page.extrasamples)
    if page.photometric == 2 and count == 4 and not extras:
        extras = (_STRAIGHT,)
    alphas = [
        (count - len(extras) + index, extra == _PREMULTIPLIED)
        for index, extra in enumerate(extras)
        if extra in (_PREMULTIPLIED, _STRAIGHT) and count - len(extras) + index > 0
    ]
    others = count - len(alphas)
    colours = 3 if others >= 3 and (not alphas or alphas[0][0] >= 3) else 1
    assert page.dtype is not None
    has_scale = page.dtype.kind == "f" or page.dtype.str[1:] in _FULL
    alpha, premultiplied = alphas[0] if alphas and has_scale else (None, False)
    return Bands(colours, alpha, premultiplied)


def _type_of(
    stream: BinaryIO, page: TiffPage, layout: Segments, bands: Bands, name: str
) -> np.dtype[Any]:
    """Type of the pixels that holds all values of the file."""
    dtype = page.dtype
    assert dtype is not None
    if dtype.kind == "f":
        return np.dtype(np.float32)
    if dtype.str[1:] in _FULL:
        return np.dtype(dtype.str[1:])
    low, high = 0, 0
    for block in _blocks(stream, page, layout, name):
        if block.place.plane < bands.colours:
            colours = block.samples[..., : bands.colours - block.place.plane]
            low, high = min(low, int(colours.min())), max(high, int(colours.max()))
    if low >= 0 and high <= 65535 and dtype.itemsize > 1:
        return np.dtype(np.uint16)
    return np.dtype(np.float32 if max(-low, high) <= MAX_EXACT else np.float64)


def _finish_values(pixels: Array, page: TiffPage) -> None:
    """Clip floats to 0..1 like `arrays.as_float32`, and make white the largest value; in place."""
    if pixels.dtype == np.float32:
        low, high = float(pixels.min()), float(pixels.max())
        if (low < 0 or high > 1) and in_unit_range(low, high):
            np.clip(pixels, 0, 1, out=pixels)
    if page.photometric == 0:
        full = pixels.dtype.type(_FULL.get(pixels.dtype.str[1:], 1))
        np.subtract(full, pixels, out=pixels)


def _blended(pixels: Array, alpha: Array | None, premultiplied: bool) -> Decoded:
    if alpha is None:
        return Decoded(pixels)
    return Decoded(pixels, blend_on_white(pixels, alpha, premultiplied=premultiplied))


def _blocks(stream: BinaryIO, page: TiffPage, layout: Segments, name: str) -> Iterator[Block]:
    """The picture in blocks, without planes that are neither colours nor alpha."""
    bands, (rows, columns) = bands_of(page), layout.size_hw
    assert page.dtype is not None
    row_bytes = columns * layout.samples * page.dtype.itemsize
    is_large = rows * row_bytes > BLOCK_BYTES
    most = 1 if is_large else BLOCK_BYTES // (rows * row_bytes)
    one_plane = layout.down * layout.across
    for plane in range(layout.planes):
        if plane >= bands.colours and plane != bands.alpha:
            continue
        for down, across, stored_rows in _parts(layout, page, most):
            inside = np.add.outer(np.arange(*down) * layout.across, np.arange(*across))
            indices = plane * one_plane + inside.ravel()
            place = Place(plane, down[0] * rows, across[0] * columns)
            if is_large:
                source = Source(stream, page, name, stored_rows, row_bytes)
                yield from _large(source, layout, int(indices[0]), place)
                continue
            data = joined(stream, page, layout, indices, stored_rows * row_bytes)
            samples = _unpacked(data, page, columns, layout.samples)
            grid = (*inside.shape, stored_rows, columns, layout.samples)
            samples = samples.reshape(grid).swapaxes(1, 2)  # down rows across columns samples
            samples = samples.reshape(inside.shape[0] * stored_rows, -1, layout.samples)
            stored = layout.counts[indices].reshape(inside.shape) > 0
            holes = None
            if not stored.all():
                holes = ~stored.repeat(stored_rows, axis=0).repeat(columns, axis=1)
            yield _visible(Block(place, samples, holes), page)


def _parts(
    layout: Segments, page: TiffPage, most: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int], int]]:
    """Rectangles of at most `most` strips or tiles of one plane.

    Returns:
        First and end of the strips or tiles down, the same across, the rows stored in each.
    """
    rows, height = layout.size_hw[0], page.imagelength
    whole = layout.down if page.is_tiled else height // rows  # the last strip may be shorter
    down, across = max(1, most // layout.across), min(layout.across, most)
    for top in range(0, whole, down):
        for left in range(0, layout.across, across):
            end = min(left + across, layout.across)
            yield (top, min(top + down, whole)), (left, end), rows
    if whole < layout.down:
        yield (whole, layout.down), (0, 1), height - whole * rows


def _large(source: Source, layout: Segments, index: int, place: Place) -> Iterator[Block]:
    """A strip or tile larger than `BLOCK_BYTES`, some rows at a time."""
    page, columns = source.page, layout.size_hw[1]
    assert page.dtype is not None
    start, count = int(layout.starts[index]), int(layout.counts[index])
    if count == 0:  # GDAL's sparse files
        shape = (source.rows, columns, layout.samples)
        nothing = np.broadcast_to(page.dtype.newbyteorder("=").type(0), shape)
        yield _visible(Block(place, nothing, np.broadcast_to(True, shape[:2])), page)
        return
    top = place.top
    for data in rows_of(source, start, count):
        if top < page.imagelength:
            samples = _unpacked(data, page, columns, layout.samples)
            yield _visible(Block(place._replace(top=top), samples, None), page)
        top += len(data) // source.row_bytes


def _visible(block: Block, page: TiffPage) -> Block:
    """A block without the rows and columns beyond the picture."""
    size = (slice(page.imagelength - block.place.top), slice(page.imagewidth - block.place.left))
    holes = None if block.holes is None else block.holes[size]
    return Block(block.place, block.samples[size], holes)


def _unpacked(data: Any, page: TiffPage, columns: int, samples: int) -> Array:
    """Rows of bytes -> `H W C` of the file's type in this machine's byte order."""
    dtype = page.dtype
    assert dtype is not None
    if tiff_pages.predictor_of(page) == 3:  # Adobe's technical note 3 on TIFF
        size = dtype.itemsize
        shares = np.frombuffer(data, np.uint8).reshape(-1, columns * size, samples)
        shares = np.cumsum(shares, axis=1, dtype=np.uint8).reshape(-1, size, columns * samples)
        values: Array = np.ascontiguousarray(shares.transpose(0, 2, 1)).view(f">f{size}")
        return values.astype(f"=f{size}").reshape(-1, columns, samples)
    stored = np.frombuffer(data, dtype.newbyteorder(page.parent.byteorder))
    values = stored.astype(dtype.newbyteorder("="), copy=False).reshape(-1, columns, samples)
    if tiff_pages.predictor_of(page) == 2:  # TIFF 6.0, section 14
        whole = np.dtype(f"u{dtype.itemsize}")
        return np.cumsum(values.view(whole), axis=1, dtype=whole).view(values.dtype)
    return values

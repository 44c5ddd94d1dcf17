"""Files that attack their readers: small on disk, and large, deep or endless when read."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from support.features_files import make, write_json
from tiepoint.formats import features_npz

ZEROS = 250_000_000
ROWS = 10**9

Write = Callable[[Path], None]


def bare_group(file: Any, name: str = "a.jpg") -> Any:
    """A group with everything but keypoints and scores."""
    group = file.create_group(name)
    group["image_size"] = [64, 48]
    return group


# HDF5


def declared_rows(path: Path, **options: Any) -> None:
    with h5py.File(path, "w") as file:
        group = bare_group(file)
        group.create_dataset("keypoints", (ROWS, 2), "f4", **options)
        group.create_dataset("scores", (ROWS,), "f4", **options)


def chunked_rows(path: Path) -> None:
    declared_rows(path, chunks=True)


def image_size_of_rows(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("a.jpg")
        group["keypoints"], group["scores"] = np.zeros((1, 2)), np.zeros(1)
        group.create_dataset("image_size", (ROWS,), "i8")


def packed_chunks(path: Path) -> None:
    """Zeros that gzip packs a thousand times."""
    with h5py.File(path, "w") as file:
        group = bare_group(file)
        group["scores"] = np.zeros(1)
        shape = (60_000_000, 2)
        data = group.create_dataset(
            "keypoints", shape, "f4", chunks=(1_000_000, 2), compression="gzip"
        )
        import zlib

        chunk = zlib.compress(bytes(8_000_000))
        for start in range(0, shape[0], 1_000_000):
            data.id.write_direct_chunk((start, 0), chunk)


def swollen_chunk(path: Path) -> None:
    """A chunk of 80 bytes that unpacks to 250 MB."""
    import zlib

    with h5py.File(path, "w") as file:
        group = bare_group(file)
        group["scores"] = np.zeros(10)
        data = group.create_dataset("keypoints", (10, 2), "f4", chunks=(10, 2), compression="gzip")
        packer = zlib.compressobj(1)
        block = bytes(10_000_000)
        packed = b"".join([*(packer.compress(block) for _ in range(25)), packer.flush()])
        data.id.write_direct_chunk((0, 0), packed)


def double_links(path: Path) -> None:
    with h5py.File(path, "w") as file:
        level = file
        for _ in range(60):
            inner = level.create_group("a")
            level["b"] = inner
            level = inner
        bare_group(level)["keypoints"] = np.zeros((1, 2))


def external_links(path: Path) -> None:
    os.mkfifo(path.parent / "waits.h5")
    with h5py.File(path, "w") as file:
        file["a.jpg"] = h5py.ExternalLink("waits.h5", "/a.jpg")
        file["folder/b.jpg"] = h5py.ExternalLink(str(path.parent / "waits.h5"), "/a.jpg")
        group = bare_group(file, "c.jpg")
        group["keypoints"] = h5py.ExternalLink("waits.h5", "/k")


def external_storage(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = bare_group(file)
        group["scores"] = np.zeros(3)
        storage = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
        group.create_dataset("keypoints", (3, 2), "f4", external=storage)


def virtual_of_fifo(path: Path) -> None:
    """A virtual data set without an end: HDF5 opens its source when it is opened."""
    fifo = path.parent / "waits.h5"
    os.mkfifo(fifo)
    endless = h5py.h5s.UNLIMITED
    space = h5py.h5s.create_simple((10, 2), (endless, 2))
    selected = h5py.h5s.create_simple((10, 2), (endless, 2))
    selected.select_hyperslab((0, 0), (endless, 1), (1, 1), (1, 2))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_virtual(selected, str(fifo).encode(), b"k", selected)
    with h5py.File(path, "w") as file:
        group = bare_group(file)
        group["scores"] = np.zeros(10)
        h5py.h5d.create(group.id, b"keypoints", h5py.h5t.IEEE_F32LE, space, plist)


def h5_with(**datasets: Any) -> Write:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            group = bare_group(file)
            for name, value in {"scores": np.ones(2), **datasets}.items():
                if name in group:
                    del group[name]
                group[name] = value

    return write


def matches_h5_with(**datasets: Any) -> Write:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            group = file.create_group("a.jpg/b.jpg")
            for name, value in datasets.items():
                group[name] = value

    return write


def matches_rows(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("a.jpg/b.jpg")
        for name, kind in (("matches0", "i4"), ("matching_scores0", "f4")):
            group.create_dataset(name, (ROWS,), kind)


HDF5: dict[str, Write] = {
    "h5 of 10^9 rows": declared_rows,
    "h5 of 10^9 chunked rows": chunked_rows,
    "h5 of 10^9 sizes": image_size_of_rows,
    "h5 of packed zeros": packed_chunks,
    "h5 with a swollen chunk": swollen_chunk,
    "h5 of 60 double links": double_links,
    "h5 of external links to a FIFO": external_links,
    "h5 of external storage": external_storage,
    "h5 virtual, of a FIFO": virtual_of_fifo,
    "h5 of NaN positions": h5_with(keypoints=np.array([[np.nan, 1], [1, 1]])),
    "h5 of inf positions": h5_with(keypoints=np.array([[np.inf, 1], [1, 1]])),
    "h5 of texts": h5_with(keypoints=np.array([b"a", b"b"])),
    "h5 of an infinite size": h5_with(keypoints=np.ones((2, 2)), image_size=[np.inf, 1.0]),
    "h5 is a FIFO": os.mkfifo,
}
MATCHES_H5: dict[str, Write] = {
    "h5 matches of 10^9 rows": matches_rows,
    "h5 matches of NaN scores": matches_h5_with(
        matches0=np.array([1, -1], "i4"), matching_scores0=np.array([np.nan, 0], "f4")
    ),
    "h5 matches of uint64": matches_h5_with(
        matches0=np.array([2**64 - 1, 0], "u8"), matching_scores0=np.ones(2, "f4")
    ),
    "h5 matches of 60 double links": double_links,
}


# npz


def npz_of(**arrays: bytes) -> Write:
    """A file of our features with some entries replaced by these bytes."""

    def write(path: Path) -> None:
        with (
            zipfile.ZipFile(io.BytesIO(features_npz.encode(make()))) as ours,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        ):
            for name in ours.namelist():
                file.writestr(name, arrays.get(name.removesuffix(".npy"), ours.read(name)))

    return write


def npy_header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def npz_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("xy.npy", "w", force_zip64=True) as entry:
            entry.write(npy_header((ZEROS // 8, 2)))
            for _ in range(ZEROS // 10_000_000):
                entry.write(bytes(10_000_000))
        with zipfile.ZipFile(io.BytesIO(features_npz.encode(make()))) as ours:
            for name in ours.namelist():
                if name != "xy.npy":
                    file.writestr(name, ours.read(name))


def bare_npy(path: Path) -> None:
    path.write_bytes(npy_header((ROWS * 8,)))


def many_entries(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for number in range(30_000):
            file.writestr(str(number), b"")


def npy(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


def linked_to_fifo(path: Path) -> None:
    os.mkfifo(path.parent / "waits")
    path.symlink_to(path.parent / "waits")


def matches_npz(pairs: Any, scores: Any = (0.5,)) -> Write:
    def write(path: Path) -> None:
        np.savez(
            path, kind="tiepoint matches", meta="{}", pairs=pairs, scores=np.array(scores, "f4")
        )

    return write


NPZ: dict[str, Write] = {
    "npz of 250 KB with 250 MB": npz_bomb,
    "npz that declares 10^9 rows": npz_of(xy=npy_header((ROWS, 2))),
    "npz of a header of 10^9 texts": npz_of(meta=npy_header((), "<U1000000000")),
    "npz of a pickle": npz_of(xy=npy(np.array([1], object))),
    "npz of NaN positions": npz_of(xy=npy(np.full((3, 2), np.nan, "f4"))),
    "npz of inf positions": npz_of(xy=npy(np.full((3, 2), np.inf))),
    "npz of an infinite size": npz_of(size_hw=npy(np.array([np.inf, 1]))),
    "npz of deep meta": npz_of(meta=npy("[" * 100_000)),
    "npz that is one array of 10^10": bare_npy,
    "npz of 30,000 entries": many_entries,
    "npz is a link to a FIFO": linked_to_fifo,
}
MATCHES_NPZ: dict[str, Write] = {
    "npz matches with the index 2^64-1": matches_npz(np.array([[2**64 - 1, 0]], "u8")),
    "npz matches with the index -1": matches_npz(np.array([[-1, 0]])),
    "npz matches of NaN scores": matches_npz(np.array([[0, 0]]), [np.nan]),
    "npz matches of 250 MB": npz_bomb,
    "npz matches is a FIFO": os.mkfifo,
}


# JSON and CSV


def text(content: str | bytes) -> Write:
    return lambda path: (
        path.write_bytes(content if isinstance(content, bytes) else content.encode()) and None
    )


def changed_json(**changes: object) -> Write:
    return lambda path: write_json(path, **changes)


DIGITS = "9" * 5000
FEATURES_JSON: dict[str, Write] = {
    "json nested 10^5 deep": text("[" * 100_000),
    "json whose meta is 900 deep": text(
        '{"convention": "center0", "size_hw": [4, 6], "scores": [], "xy": [], "descriptors": null,'
        f'"meta": {{"a": {"[" * 900}{"]" * 900}}}}}'
    ),
    "json of 5,000 digits": text(f'{{"convention": "center0", "size_hw": [{DIGITS}, 1]}}'),
    "json of 4,000 digits": changed_json(size_hw=[10**4000, 1]),
    "json with 1e400": text(
        '{"convention": "center0", "size_hw": [4, 6], "meta": {}, "scores": [1e400], '
        '"xy": [[1, 1e400]], "descriptors": null}'
    ),
    "json with 1e400 in meta": text(
        '{"convention": "center0", "size_hw": [4, 6], "meta": {"px_per_input_px": 1e400}, '
        '"scores": [], "xy": [], "descriptors": null}'
    ),
    "json with NaN": changed_json(xy=[[float("nan"), 1]]),
    "json of px_per_input_px 10^4000": changed_json(meta={"px_per_input_px": 10**4000}),
    "json of 12 MB of empty objects": text("[" + "{}," * 4_000_000 + "{}]"),
    "json not UTF-8": text(b'{"convention": "\xff\xfe"}'),
    "json of a descriptor length 10^9": changed_json(
        scores=[], xy=[], descriptors=[], descriptor_length=10**9
    ),
    "json is a FIFO": os.mkfifo,
}


def csv(**changes: str) -> Write:
    head = {"convention": '"center0"', "size_hw": "[4, 6]", "keypoints": "1", "meta": "{}"}
    head |= changes
    first, rows = head.pop("first", "1,2,0.5"), head.pop("rows", "")
    record = ", ".join(f'"{name}": {value}' for name, value in head.items()).replace('"', '""')
    return text(f'x,y,score,tiepoint\n{first},"{{{record}}}"\n{rows}')


CSV: dict[str, Write] = {
    "csv of 5,000 digits": csv(keypoints=DIGITS),
    "csv of a size of 5,000 digits": csv(size_hw=f"[{DIGITS}, 1]"),
    "csv of NaN": csv(first="nan,2,0.5"),
    "csv of 1e400": csv(first="1e400,2,0.5"),
    "csv of deep meta": csv(meta="[" * 100_000),
    "csv without line ends": text("#" * 30_000_000),
    "csv of 2,000,000 rows": csv(rows="1,1,1,\n" * 2_000_000),
    "csv of 10^6 columns": text("x,y,score," + "d," * 10**6 + "tiepoint\n" + "," * 10**6 + "\n"),
    "csv is a FIFO": os.mkfifo,
}


# Parquet and GeoJSON


def parquet(rows: int = 2, length: int = 4, **changes: Any) -> Write:
    """A file whose columns are all zeros, which Parquet packs into nothing."""

    def write(path: Path) -> None:
        import pyarrow
        from pyarrow import parquet as files

        record = {"convention": "center0", "size_hw": [4, 6], "keypoints": rows, "meta": {}}
        zeros = pyarrow.array(np.zeros(rows, np.float32))
        columns = dict.fromkeys(("x", "y", "score"), zeros)
        if length:
            kind = pyarrow.list_(pyarrow.float32(), length)
            values = pyarrow.array(np.zeros(rows * length, np.float32))
            columns["descriptor"] = pyarrow.FixedSizeListArray.from_arrays(values, type=kind)
        columns |= {name: pyarrow.array(values) for name, values in changes.items()}
        table = pyarrow.table(columns)
        files.write_table(table.replace_schema_metadata({"tiepoint": json.dumps(record)}), path)

    return write


PARQUET: dict[str, Write] = {
    "parquet of texts": parquet(score=["a", "b"]),
    "parquet of NaN": parquet(x=np.full(2, np.nan, np.float32)),
    "parquet of empty cells": parquet(x=[1.0, None]),
    "parquet of lists of any length": parquet(descriptor=[[1.0], [1.0, 2.0]]),
    "parquet of 600 MB of zeros": parquet(1_000_000, 150),
    "parquet of structures": parquet(x=[{"a": 1}, {"a": 2}]),
    "parquet is a FIFO": os.mkfifo,
}


def geojson(rows: str = "[]", **changes: str) -> Write:
    head = {"convention": '"center0"', "size_hw": "[4, 6]", "keypoints": "1", "meta": "{}"}
    record = ", ".join(f'"{name}": {value}' for name, value in (head | changes).items())
    return text(f'{{"type": "FeatureCollection", "tiepoint": {{{record}}}, "features": {rows}}}')


def _points(x: str, count: int = 1) -> str:
    point = f'{{"geometry": {{"coordinates": [{x}, 1]}}, "properties": {{"score": 1}}}}'
    return f"[{', '.join([point] * count)}]"


GEOJSON: dict[str, Write] = {
    "geojson without features": geojson(),
    "geojson of numbers": geojson("[1]"),
    "geojson of nothing inside": geojson("[{}]"),
    "geojson of null": geojson(_points("null")),
    "geojson of 1e400": geojson(_points("1e400")),
    "geojson of lists": geojson(_points("[[1]]")),
    "geojson of a flat geotransform": geojson(_points("1"), geotransform="[0, 1, 1, 0, 1, 1]"),
    "geojson of a long geotransform": geojson(_points("1"), geotransform="[1, 2, 3, 4, 5, 6, 7]"),
    "geojson of a geotransform of texts": geojson(_points("1"), geotransform='["1", 2]'),
    "geojson of properties 1": geojson(_points("1"), properties="1"),
    "geojson of properties that no point has": geojson(_points("1"), properties='["scale_px"]'),
    "geojson of deep meta": geojson(meta="[" * 100_000),
    "geojson of empty objects": text('{"features": [' + "{}," * 4_000_000 + "{}]}"),
    "geojson is a FIFO": os.mkfifo,
}

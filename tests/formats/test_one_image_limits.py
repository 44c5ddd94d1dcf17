"""Features files of one image: read once, and large foreign ones refused before they are parsed."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from support.features_files import assert_equal, make, write_json
from tiepoint.errors import FormatError
from tiepoint.files import reading
from tiepoint.formats import (
    ALL_FORMATS,
    features_csv,
    features_geojson,
    features_json,
    fields,
    load,
    save,
    summarise,
)


def test_an_npz_is_parsed_once_for_each_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(make(3), tmp_path / "x.npz")
    opened, real = [], zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile, "open", lambda *args: opened.append(args[1].filename) or real(*args)
    )
    load(tmp_path / "x.npz")
    assert len(opened) == len(set(opened)) > 4


def test_a_changed_byte_of_an_npz_is_found(tmp_path: Path) -> None:
    save(make(300), tmp_path / "x.npz")
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(FormatError, match="CRC"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize("array", [np.zeros(0, object), np.zeros(2, "(3,)f4,f4")])
def test_an_npz_of_other_things_than_numbers_is_refused(tmp_path: Path, array: Any) -> None:
    np.savez(tmp_path / "x.npz", convention=array)
    with pytest.raises(FormatError, match=r"x\.npz"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize("before", ["", "1,1,0.5,1,1,1,1,\n"], ids=["first", "second"])
def test_a_csv_row_without_an_end_is_refused_soon(tmp_path: Path, before: str) -> None:
    path = tmp_path / "x.csv"
    save(make(2), path)
    head = path.read_text().splitlines(keepends=True)[:2]
    path.write_text(f"{''.join(head)}{before}")
    with path.open("ab") as file:
        file.truncate(3_000_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"\n")
    for function in (load, summarise):
        with pytest.raises(FormatError, match="a row longer than 2100 characters"):
            function(path)


def _json_with(path: Path, body: str) -> None:
    """A file with our head and another body."""
    save(make(2), path)
    head = path.read_text().partition('"xy"')[0]
    path.write_text(f'{head}"xy": {body}\n}}\n')


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('"' + "x" * 50_000 + '"', "other values than short numbers"),
        ("[[0." + "1" * 50_000 + "]]", "other values than short numbers"),
        (" " * 50_000 + "[]", "other values than short numbers"),
        ("[" + "1," * 25_000 + "1]", "of memory"),
    ],
    ids=["text", "digits", "spaces", "ones"],
)
def test_large_json_holds_numbers_below_our_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    monkeypatch.setattr(features_json, "MAX_FOREIGN_BYTES", 10_000)
    monkeypatch.setattr(features_json, "_BLOCK_BYTES", 8_000)
    monkeypatch.setattr(reading, "JSON_BYTES", 100_000)
    _json_with(tmp_path / "x.json", body)
    with pytest.raises(FormatError, match=words):
        load(tmp_path / "x.json")
    monkeypatch.setattr(reading, "JSON_BYTES", 1_000_000)
    save(make(300), tmp_path / "x.json")
    assert (tmp_path / "x.json").stat().st_size > 10_000 and len(load(tmp_path / "x.json")) == 300


def test_json_of_another_layout_has_a_smaller_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "x.json", convention="center0")
    monkeypatch.setattr(features_json, "MAX_FOREIGN_BYTES", 100)
    with pytest.raises(FormatError, match="the limit is 100 for JSON that tiepoint did not write"):
        load(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("module", "limits", "message"),
    [
        (features_json, {"MAX_BYTES": 1000}, r"300 keypoints take \d+ bytes"),
        (reading, {"JSON_BYTES": 1000, "JSON_GROWTH": 1}, "300 keypoints needs .* of memory"),
    ],
)
def test_json_that_would_be_too_large_to_read_is_not_written(
    module: ModuleType,
    limits: dict[str, int],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, limit in limits.items():
        monkeypatch.setattr(module, name, limit)
    with pytest.raises(FormatError, match=rf"{message}.* save as \.npz"):
        save(make(300), tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_geojson_of_any_number_of_keypoints_is_read_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = make(3000)
    save(features, tmp_path / "x.geojson", descriptors=True)
    monkeypatch.setattr(reading, "JSON_BYTES", 10_000)  # of a line, not of the whole file
    monkeypatch.setattr(reading, "JSON_GROWTH", 1)
    assert_equal(load(tmp_path / "x.geojson"), features)
    assert summarise(tmp_path / "x.geojson").keypoints == 3000


def test_geojson_that_would_be_too_large_to_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_geojson, "MAX_BYTES", 1000)
    with pytest.raises(FormatError, match=r"300 keypoints take \d+ bytes .* save as \.csv"):
        save(make(300), tmp_path / "x.geojson")


@pytest.mark.parametrize("indent", [None, 1])
def test_geojson_that_another_program_wrote_again_is_read(
    tmp_path: Path, indent: int | None
) -> None:
    path = tmp_path / "x.geojson"
    for count in (0, 1, 3):
        save(make(count), path, descriptors=True)
        path.write_text(json.dumps(json.loads(path.read_text()), indent=indent))
        assert_equal(load(path), make(count))
        assert summarise(path).keypoints == count


@pytest.mark.parametrize("ending", ALL_FORMATS)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size_hw": (0, 5)}, "size_hw is"),
        ({"size_hw": (5, 2**31)}, "size_hw is"),
        ({"px_per_input_px": 1e12}, "px_per_input_px is"),
        ({"provenance": None, "meta": {"provenance": 1}}, "files keep for the field"),
        ({}, "3 keypoints, files keep up to 2"),
    ],
)
def test_what_no_reader_would_take_is_not_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    changes: dict[str, Any],
    words: str,
) -> None:
    if not changes:
        monkeypatch.setattr(fields, "MAX_KEYPOINTS", 2)
    path = tmp_path / f"x{ending}"
    with pytest.raises(FormatError, match=words):
        save(replace(make(3), **changes), path)
    assert not path.exists()


def test_meta_too_long_for_a_line_of_csv_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(make(3), tmp_path / "x.csv")
    longest = max(map(len, (tmp_path / "x.csv").read_text().splitlines()))
    for limit in range(longest - 2, longest + 6):
        monkeypatch.setattr(features_csv, "_LONGEST_LINE", limit)
        try:
            save(make(3), tmp_path / "x.csv")
        except FormatError as error:
            assert "shorten meta" in str(error) and limit < longest + 3
        else:
            assert len(load(tmp_path / "x.csv")) == 3


@pytest.mark.parametrize("ending", ALL_FORMATS)
def test_arrays_of_other_types_are_stored_as_float32(tmp_path: Path, ending: str) -> None:
    features = make(3)
    assert features.descriptors is not None
    descriptors = features.descriptors.astype(np.float16)
    odd = replace(features, xy=features.xy.astype(">f4"), descriptors=descriptors)
    save(odd, tmp_path / f"x{ending}", descriptors=True)
    same = replace(features, descriptors=descriptors.astype(np.float32))
    assert_equal(load(tmp_path / f"x{ending}"), same)


def test_descriptors_of_no_length_do_not_end_the_process_in_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for count in (0, 3):
        with pytest.raises(FormatError, match="descriptors have length 0"):
            save(make(count, length=0), tmp_path / "x.parquet")

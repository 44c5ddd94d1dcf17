"""Stores on disk: manifests, records and shard files, damaged and foreign ones included."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.features_files import any_features, assert_equal, make
from support.provenance import made
from tiepoint.errors import FormatError, OutputError
from tiepoint.features import Features
from tiepoint.formats import DamagedError, read_h5, save
from tiepoint.formats.features_store import (
    FailureRow,
    ImageRow,
    Manifest,
    ShardRecord,
    StoreFeatures,
    is_store,
    read_manifest,
    read_record,
    records,
    shard_path,
    write_manifest,
    write_record,
)
from tiepoint.formats.many_images import read_features
from tiepoint.formats.shard_files import ShardFormat, read_image, shard_writer

pytest.importorskip("h5py")

LAYOUTS: list[Any] = ["h5", "parquet"]


@pytest.fixture(autouse=True)
def _with_pyarrow(request: pytest.FixtureRequest) -> None:
    if "parquet" in request.node.name:
        pytest.importorskip("pyarrow")


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {"shards": 2, "format": "h5", "half": False, "masks": None}
    return Manifest(**{**values, "provenance": made(), **changes})


def store(folder: Path, layout: ShardFormat = "h5", **shards: dict[str, Features]) -> Manifest:
    """A store with the images of each shard."""
    folder.mkdir(exist_ok=True)
    common = manifest(format=layout)
    write_manifest(folder, common)
    for shard, images in shards.items():
        name = shard.strip("_")
        with shard_writer(shard_path(folder, name, layout), layout) as add:
            for image, features in images.items():
                add(image, features)
        rows = tuple(ImageRow(n, len(f), *f.size_hw, f"photos/{n}") for n, f in images.items())
        write_record(folder, ShardRecord(name, common.identity, {}, rows))
    return common


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=st.lists(any_features(described=True), min_size=1, max_size=3))
def test_features_come_back_bit_by_bit(
    tmp_path: Path, layout: ShardFormat, images: list[Features]
) -> None:
    path = tmp_path / f"x.{layout}"
    with shard_writer(path, layout) as add:
        for number, features in enumerate(images):
            add(f"사진/{number} b.png", features)
    for number, features in enumerate(images):
        assert_equal(read_image(path, layout, f"사진/{number} b.png", number), features)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_features_give_the_same_bytes(tmp_path: Path, layout: ShardFormat) -> None:
    for name in ("one", "two"):
        with shard_writer(tmp_path / name, layout) as add:
            for count in range(4):
                add(f"{count}.png", make(count))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_shard_is_a_features_file_as_hloc_reads_it(tmp_path: Path) -> None:
    store(tmp_path / "s", _00000={"a/b.png": make(3)})
    assert_equal(read_h5(tmp_path / "s" / "00000.h5")["a/b.png"], make(3))


def test_a_table_program_reads_the_columns_of_a_parquet_shard(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    features = make(3)
    store(tmp_path / "s", "parquet", _00000={"a.png": features, "b.png": make(2)})
    table = parquet.read_table(tmp_path / "s" / "00000.parquet")
    assert table["name"].to_pylist() == ["a.png", "b.png"]
    np.testing.assert_array_equal(table["x"].to_pylist()[0], features.xy[:, 0])
    assert table["descriptor_length"].to_pylist() == [4, 4]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["", "../x.png", "a//b.png", "/a.png", "a/./b.png", "\udcff.png"])
def test_names_that_are_no_relative_path_are_refused(
    tmp_path: Path, layout: ShardFormat, name: str
) -> None:
    with shard_writer(tmp_path / "x", layout) as add:
        add("good.png", make(2))
        with pytest.raises(FormatError, match="image name"):
            add(name, make(1))
    assert len(read_image(tmp_path / "x", layout, "good.png", 0)) == 2


def test_an_image_in_the_place_of_anothers_data_is_refused(tmp_path: Path) -> None:
    with shard_writer(tmp_path / "x.h5", "h5") as add:
        add("a", make(2))
        with pytest.raises(FormatError, match="in the place of the data of 'a'"):
            add("a/keypoints/b.png", make(1))
    assert list(read_h5(tmp_path / "x.h5")) == ["a"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_error_leaves_the_earlier_file(tmp_path: Path, layout: ShardFormat) -> None:
    (tmp_path / "x").write_bytes(b"before")
    with pytest.raises(KeyError), shard_writer(tmp_path / "x", layout) as add:
        add("a.png", make(1))
        raise KeyError
    assert (tmp_path / "x").read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1
    with (
        pytest.raises(OutputError, match="cannot be written"),
        shard_writer(tmp_path / "no" / "x", layout),
    ):
        pass


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_shards_raise_and_name_the_image(tmp_path: Path, layout: ShardFormat) -> None:
    store(tmp_path / "s", layout, _00000={"a.png": make(300), "b.png": make(5)})
    path = shard_path(tmp_path / "s", "00000", layout)
    data = path.read_bytes()
    for damaged in (b"", data[:-40], data[: len(data) // 2], bytes(len(data))):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match="00000"):
            StoreFeatures(tmp_path / "s")["b.png"]
    path.unlink()
    with pytest.raises(FormatError, match="no such file"):
        StoreFeatures(tmp_path / "s")["a.png"]


def test_a_parquet_file_of_another_program_is_no_shard(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"name": ["a.png"]}), tmp_path / "x.parquet")
    with pytest.raises(DamagedError, match="no file of images"):
        read_image(tmp_path / "x.parquet", "parquet", "a.png", 0)


def test_images_are_sorted_folder_by_folder_whatever_their_shard(tmp_path: Path) -> None:
    both = store(
        tmp_path / "s", _00000={"b/1.png": make(1), "a.png": make(2)}, _00001={"b.png": make(3)}
    )
    features = StoreFeatures(tmp_path / "s")
    assert list(features) == ["a.png", "b/1.png", "b.png"] and len(features) == 3
    assert [len(features[name]) for name in features] == [2, 1, 3]
    assert features.manifest == both and "3 images" in repr(features)
    with pytest.raises(KeyError):
        features["c.png"]


def test_a_name_in_two_shards_is_read_once_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store(tmp_path / "s", _00000={"a.png": make(1)}, _00001={"a.png": make(2)})
    with caplog.at_level(logging.WARNING):
        assert len(StoreFeatures(tmp_path / "s")["a.png"]) == 1
    assert "1 names are in two shards" in caplog.text


def test_records_of_other_settings_are_left_out(tmp_path: Path) -> None:
    store(tmp_path / "s", _00000={"a.png": make(1)}, _00001={"b.png": make(2)})
    record = read_record(tmp_path / "s", "00000")
    assert record is not None
    write_record(tmp_path / "s", ShardRecord("00000", "other", {}, record.images))
    assert list(StoreFeatures(tmp_path / "s")) == ["b.png"]


def test_records_come_back_as_written(tmp_path: Path) -> None:
    failures = (FailureRow("\udcff.png", "not Unicode", False), FailureRow("b", "away", True))
    images = (ImageRow("사진 1.png", 5, 480, 640, "photos/사진 1.png"),)
    record = ShardRecord(
        "tar-0123456789abcdef", "i", {"bytes": 5}, images, failures, 9, "2026-01-01", 0.5
    )
    write_record(tmp_path, record)
    assert read_record(tmp_path, record.shard) == record
    assert list(records(tmp_path, "i")) == [record] and list(records(tmp_path, "j")) == []
    assert read_record(tmp_path, "00000") is None
    counts = json.loads((tmp_path / f"{record.shard}.json").read_text())
    assert (counts["images_done"], counts["images_failed"], counts["keypoints"]) == (1, 2, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"shard": "00001"}, {"images": [["a", -1, 2, 3, "s"]]}, {"images": [["a", 1]]},
        {"images": [[1, 1, 2, 3, "s"]]}, {"images": 5}, {"failures": [["a", "b", 1]]},
        {"file_bytes": "1"}, {"seconds": None}, {"source": []}, {"store": None},
    ],
)  # fmt: skip
def test_a_damaged_record_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    write_record(tmp_path, ShardRecord("00000", "i", {}))
    path = tmp_path / "00000.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DamagedError, match=r"00000\.json"):
        read_record(tmp_path, "00000")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "other"}, "not the manifest of a store"), ({"version": 9}, "version 9"),
        ({"convention": "corner"}, "pixel convention"), ({"shards": 0}, "shards is 0"),
        ({"shards": True}, "shards is True"), ({"format": "zip"}, "format is 'zip'"),
        ({"masks": 3}, "masks is 3"), ({"provenance": {}}, "provenance has the entries"),
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    write_manifest(tmp_path, manifest())
    path = tmp_path / "manifest.json"
    assert is_store(tmp_path) and read_manifest(tmp_path) == manifest()
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FormatError, match=named):
        read_manifest(tmp_path)


def test_the_identity_of_a_store_is_what_changes_its_features() -> None:
    first = manifest()
    for same in ({"engine": "torch"}, {"device": "cuda"}, {"tiepoint_version": "9"}):
        assert manifest(provenance=made(**same)).identity == first.identity
    for other in ({"weights_sha256": "1" * 64}, {"precision": "bf16"}, {"settings": {}}):
        changed = manifest(provenance=made(**other))
        assert changed.identity != first.identity and first.differences(changed)
    assert manifest(half=True).differences(first) == ["half True instead of False"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_reader_takes_every_place_where_features_are(
    tmp_path: Path, layout: ShardFormat
) -> None:
    store(tmp_path / "s", layout, _00000={"a/1.png": make(1), "b.png": make(2)})
    (tmp_path / "folder" / "a").mkdir(parents=True)
    save(make(1), tmp_path / "folder" / "a" / "1.png.npz")
    save(make(2), tmp_path / "folder" / "b.png.json")
    (tmp_path / "folder" / "b.png.png").write_bytes(b"an overlay")
    with shard_writer(tmp_path / "x.h5", "h5") as add:
        add("a/1.png", make(1))
        add("b.png", make(2))
    for name in ("s", "folder", "x.h5"):
        features = read_features(tmp_path / name)
        assert list(features) == ["a/1.png", "b.png"] and len(features) == 2
        assert_equal(features["b.png"], make(2))
    save(make(4), tmp_path / "one.npz")
    assert [*read_features(tmp_path / "one.npz")] == ["fake.png"]


def test_a_folder_that_cannot_be_listed_is_refused_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(make(1), tmp_path / f"{name}.npz")
    listing = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(FormatError, match=r"sub: cannot be read \(Permission denied\)"):
        read_features(tmp_path)


def test_places_without_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="neither a store nor a folder"):
        read_features(tmp_path)
    with pytest.raises(FormatError, match="the ending picks the format"):
        read_features(tmp_path / "x.txt")
    for ending in (".npz", ".json"):
        save(make(1), tmp_path / f"a.png{ending}")
    with pytest.raises(FormatError, match=r"two files of a\.png"):
        read_features(tmp_path)

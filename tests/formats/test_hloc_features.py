"""HDF5 in hloc's layout: many images in one file, and files that are wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.features_files import any_features, assert_equal, make, names_in, write_h5
from tiepoint import formats
from tiepoint.errors import FormatError, MissingExtraError
from tiepoint.formats import H5Writer, load, read_h5, save, summarise
from tiepoint.formats.hloc_features import DATASETS

h5py = pytest.importorskip("h5py")

FIXTURE = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "deadline": None}
PARTS = st.text(
    st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=6
).filter(lambda part: part not in (".", "..", *DATASETS))
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


# The layout


def test_the_layout_is_hlocs(tmp_path: Path) -> None:
    features = make(5, 3)
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("db/left 1.jpg", features)
    with h5py.File(tmp_path / "x.h5", "r") as file:
        group = file["db"]["left 1.jpg"]
        assert set(group) == set(DATASETS)
        np.testing.assert_array_equal(group["keypoints"][()], features.xy)
        np.testing.assert_array_equal(group["descriptors"][()], features.descriptors.T)
        np.testing.assert_array_equal(group["scores"][()], features.scores)
        assert group["image_size"][()].tolist() == [640, 480]
        assert {group[name].dtype for name in DATASETS[:3]} == {np.dtype("f4")}
        assert group.attrs["convention"] == b"center0"


def test_covariances_and_scales_of_another_program_are_left_alone(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("a.jpg")
        group["keypoints"], group["scores"] = np.zeros((3, 2), "f4"), np.ones(3, "f4")
        group["image_size"], group["covariance"] = np.array([640, 480]), np.ones((3, 7), "f4")
        group["scales"] = np.ones(7, "f4")
    features = read_h5(tmp_path / "x.h5")["a.jpg"]
    assert features.covariance is None and features.scales_px is None


def test_hlocs_own_reader_finds_the_names_and_arrays(tmp_path: Path) -> None:
    write_h5(tmp_path / "x.h5", "a.jpg", "sub/b.jpg", "sub/deep/c.jpg")
    names = set()
    with h5py.File(tmp_path / "x.h5", "r") as file:
        file.visititems(
            lambda _, item: (
                names.add(item.parent.name.strip("/")) if hasattr(item, "dtype") else None
            )
        )
        for name in names:  # its matcher makes a tensor of every member
            assert all(item.__array__().dtype.kind in "fi" for item in file[name].values())
    assert names == {"a.jpg", "sub/b.jpg", "sub/deep/c.jpg"}


def test_a_file_of_hlocs_own_is_read_best_score_first(tmp_path: Path) -> None:
    xy = np.array([[5, 1], [3, 4], [2, 4], [9, 9]], np.float16)
    scores = np.array([0.25, 0.5, 0.5, 0.75], np.float16)
    with h5py.File(tmp_path / "feats.h5", "w") as file:
        group = file.create_group("query/1.jpg")
        group["keypoints"], group["scores"] = xy, scores
        group["descriptors"] = np.arange(12, dtype=np.float16).reshape(3, 4)
        group["image_size"] = np.array([800, 600])
        group["keypoints"].attrs["uncertainty"] = 1.5
    features = read_h5(tmp_path / "feats.h5")["query/1.jpg"]
    assert features.size_hw == (600, 800) and features.meta == {}
    np.testing.assert_array_equal(features.xy, [[9, 9], [2, 4], [3, 4], [5, 1]])
    np.testing.assert_array_equal(features.scores, [0.75, 0.5, 0.5, 0.25])
    np.testing.assert_array_equal(features.descriptors[:, 0], [3, 2, 1, 0])
    assert features.xy.dtype == features.descriptors.dtype == np.float32


# One image


@settings(max_examples=40, **FIXTURE)
@given(features=any_features(described=True))
def test_features_come_back_bit_for_bit(tmp_path: Path, features: Any) -> None:
    path = tmp_path / "x.h5"
    save(features, path)
    assert_equal(load(path), features)
    summary = summarise(path)
    assert (summary.keypoints, summary.size_hw) == (len(features), features.size_hw)
    assert summary.meta == features.meta


@pytest.mark.parametrize(
    ("source", "name"),
    [("photos/벌.jpg", "벌.jpg"), (None, "image"), ("..", "image"), ("/", "image")],
)
def test_a_single_image_is_named_as_its_file(tmp_path: Path, source: str | None, name: str) -> None:
    save(make(source=source), tmp_path / "x.h5")
    assert list(read_h5(tmp_path / "x.h5")) == [name]


def test_meta_too_long_for_an_attribute_is_refused_at_once(tmp_path: Path) -> None:
    fits, too_long = make(notes="x" * 59_000), make(notes="x" * 61_000)
    save(fits, tmp_path / "x.h5")
    assert load(tmp_path / "x.h5").meta == fits.meta
    with pytest.raises(FormatError, match="at most 60000"):
        save(too_long, tmp_path / "y.h5")
    with (
        H5Writer(tmp_path / "y.h5") as writer,
        pytest.raises(FormatError, match=r"a\.jpg: meta takes 61\d+ bytes"),
    ):
        writer.add("a.jpg", too_long)
    assert names_in(tmp_path) == ["x.h5"]


def test_loading_a_file_of_several_images_names_them(tmp_path: Path) -> None:
    write_h5(tmp_path / "x.h5", *(f"{n}.jpg" for n in range(7)))
    with pytest.raises(FormatError, match=r"7 images: 0\.jpg, .*4\.jpg and 2 more.*read_h5"):
        load(tmp_path / "x.h5")
    with pytest.raises(FormatError, match="7 images"):
        summarise(tmp_path / "x.h5")


# Many images


@settings(max_examples=25, **FIXTURE)
@given(
    images=st.dictionaries(NAMES, any_features(described=True), min_size=1, max_size=5),
    stops=st.sets(st.integers(0, 4)),
)
def test_any_names_and_stops_give_the_same_images(
    tmp_path: Path, images: dict[str, Any], stops: set[int]
) -> None:
    path = tmp_path / "x.h5"
    path.unlink(missing_ok=True)
    writer = H5Writer(path)
    for number, (name, features) in enumerate(images.items()):
        writer.add(name, features)
        if number in stops:
            writer.suspend()
            writer = H5Writer(path)
    writer.close()
    found = read_h5(path)
    assert set(found) == set(images) and len(found) == len(images)
    for name, features in images.items():
        assert_equal(found[name], features)
    assert names_in(tmp_path) == ["x.h5"]


def test_the_mapping_reads_lazily_and_knows_its_names(tmp_path: Path) -> None:
    write_h5(tmp_path / "x.h5", "b.jpg", "a/c.jpg", "한글/사진.jpg")
    found = read_h5(tmp_path / "x.h5")
    assert set(found) == {"b.jpg", "a/c.jpg", "한글/사진.jpg"}
    assert "a/c.jpg" in found and "a" not in found and 5 not in found
    assert len(found["한글/사진.jpg"]) == 3
    for name in ("a", "none.jpg", "b.jpg/keypoints"):
        with pytest.raises(KeyError):
            found[name]
    assert found.get("none.jpg") is None
    assert "3 images" in repr(found)


@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "a/../x.jpg", "..", ".", "./x.jpg", "/x.jpg", "x.jpg/", "a//b", "", "a\x00b"],
)
def test_names_that_leave_the_folder_or_are_none_are_refused(tmp_path: Path, name: str) -> None:
    with H5Writer(tmp_path / "x.h5") as writer:
        with pytest.raises(FormatError, match="image name"):
            writer.add(name, make())
        writer.add("..a/b..jpg", make())  # dots inside a name are none of those
    assert list(read_h5(tmp_path / "x.h5")) == ["..a/b..jpg"]


def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    with H5Writer(tmp_path / "x.h5") as writer, pytest.raises(FormatError, match="valid Unicode"):
        writer.add(os.fsdecode(b"\xff.jpg"), make())
    assert not (tmp_path / "x.h5").exists()


def test_a_name_too_deep_to_be_listed_is_refused_and_costs_no_other(tmp_path: Path) -> None:
    deepest = "a/" * 100 + "x.jpg"
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("ok.jpg", make())
        writer.add(deepest, make())
        with pytest.raises(FormatError, match=r"101 folders deep, \.h5 files hold up to 100"):
            writer.add(f"a/{deepest}", make())
    assert set(read_h5(tmp_path / "x.h5")) == {"ok.jpg", deepest}


def test_an_image_may_be_in_a_folder_with_the_name_of_another(tmp_path: Path) -> None:
    write_h5(tmp_path / "x.h5", "a", "a/b", "a/b/c")
    assert set(read_h5(tmp_path / "x.h5")) == {"a", "a/b", "a/b/c"}
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("a", make(9))
    found = read_h5(tmp_path / "x.h5")
    assert (len(found["a"]), len(found["a/b"]), len(found["a/b/c"])) == (9, 2, 3)


@pytest.mark.parametrize(("first", "second"), [("a", "a/scores/b"), ("a/scores/b", "a")])
def test_names_in_the_place_of_anothers_data_are_refused_at_once(
    tmp_path: Path, first: str, second: str
) -> None:
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("run/scores/1.jpg", make())
        writer.add(first, make())
        with pytest.raises(FormatError, match="rename one of the two"):
            writer.add(second, make())
    with (
        H5Writer(tmp_path / "x.h5") as writer,
        pytest.raises(FormatError, match="rename one of the two"),
    ):
        writer.add(second, make())
    assert set(read_h5(tmp_path / "x.h5")) == {"run/scores/1.jpg", first}


def test_an_image_given_again_is_replaced(tmp_path: Path) -> None:
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("a.jpg", make(3))
        writer.add("a.jpg", make(5, None))
        assert len(writer) == 1 and writer.summarise("a.jpg").keypoints == 5
    assert_equal(load(tmp_path / "x.h5"), make(5, None))
    with H5Writer(tmp_path / "x.h5") as writer:
        writer.add("a.jpg", make(4))
    assert_equal(load(tmp_path / "x.h5"), make(4))


def test_float16_halves_descriptors_and_leaves_positions_and_scores(tmp_path: Path) -> None:
    features = make(400, 128)
    for name, half in (("whole.h5", False), ("half.h5", True)):
        with H5Writer(tmp_path / name, half=half) as writer:
            writer.add("a.jpg", features)
    loaded = load(tmp_path / "half.h5")
    np.testing.assert_array_equal(loaded.xy, features.xy)
    np.testing.assert_array_equal(loaded.scores, features.scores)
    np.testing.assert_allclose(loaded.descriptors, features.descriptors, rtol=5e-4, atol=1e-7)
    assert loaded.descriptors.dtype == np.float32
    sizes = [(tmp_path / name).stat().st_size for name in ("half.h5", "whole.h5")]
    assert sizes[0] < 0.6 * sizes[1]


# Wrong files


FOREIGN = [b"x,y,score\n", b"PK\x03\x04" + b"\x00" * 90]
"""Files that no writer of .h5 files left behind."""


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 50, b"\x89HDF\r\n\x1a\n" + b"\x00" * 90, *FOREIGN]
)
def test_foreign_and_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    readers = (load, summarise, read_h5)
    for read in (*readers, H5Writer) if content in FOREIGN else readers:
        with pytest.raises(FormatError, match=r"x\.h5"):
            read(path)
    assert path.read_bytes() == content


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    save(make(5), path)
    data = path.read_bytes()
    for length in range(0, len(data) - 1, 211):
        path.write_bytes(data[:length])
        with pytest.raises(FormatError):
            load(path)


@settings(max_examples=200, **FIXTURE)
@given(data=st.data())
def test_a_damaged_file_loads_or_is_refused_but_never_breaks(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "x.h5"
    save(make(2), path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (load, summarise, read_h5):
        try:
            read(path)
        except FormatError as error:
            assert str(path) in str(error)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for read in (load, summarise, read_h5):
        with pytest.raises(FormatError, match="no such file"):
            read(tmp_path / "no.h5")
        (tmp_path / "folder.h5").mkdir(exist_ok=True)
        with pytest.raises(FormatError, match="cannot be read"):
            read(tmp_path / "folder.h5")


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda g: g.pop("scores"), "lacks scores"), (lambda g: g.pop("image_size"), "image_size"),
     (lambda g: g.attrs.__setitem__("convention", np.bytes_("colmap")), "convention is 'colmap'"),
     (lambda g: g.attrs.__setitem__("meta", np.bytes_("[1]")), "meta is a list"),
     (lambda g: g.attrs.__setitem__("meta", "{}"), "fixed length"),
     (lambda g: (g.pop("scores"), g.create_group("scores")), "not a whole"),
     (lambda g: (g.pop("scores"), g.__setitem__("scores", np.ones(2, "f4"))), "shape"),
     (lambda g: (g.pop("keypoints"), g.__setitem__("keypoints", np.float32(3))), "not a whole"),
     (lambda g: (g.pop("image_size"), g.__setitem__("image_size", [0, 5])), "at least 1 px"),
     (lambda g: (g.pop("descriptors"), g.__setitem__("descriptors", np.ones((3, 4)))),
      "descriptors have shape")],
)  # fmt: skip
def test_a_damaged_group_is_named_and_spares_the_others(
    tmp_path: Path, change: Any, words: str
) -> None:
    write_h5(tmp_path / "x.h5", "good.jpg", "bad.jpg", "three.jpg")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        change(file["three.jpg"])
    found = read_h5(tmp_path / "x.h5")
    with pytest.raises(FormatError, match=rf"x\.h5: three\.jpg.*{words}"):
        found["three.jpg"]
    assert len(found["bad.jpg"]) == 2


def test_links_that_lead_nowhere_or_in_circles_break_nothing(tmp_path: Path) -> None:
    write_h5(tmp_path / "x.h5", "a/b.jpg")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("no.h5", "/x")
    assert list(read_h5(tmp_path / "x.h5")) == ["a/b.jpg"]
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["a"]["circle"] = file["a"]
    with pytest.raises(FormatError, match="circle"):
        read_h5(tmp_path / "x.h5")


def test_a_file_without_features_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a.jpg/global_descriptor"] = np.ones(3)
    for read in (read_h5, load):
        with pytest.raises(FormatError, match="no group has keypoints"):
            read(tmp_path / "x.h5")


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    for use in (load, read_h5, H5Writer, lambda path: save(make(), path)):
        with pytest.raises(MissingExtraError, match=r"tiepoint\[hdf5\]"):
            use(tmp_path / "x.h5")
    assert names_in(tmp_path) == []
    assert ".h5" in formats.ALL_FORMATS

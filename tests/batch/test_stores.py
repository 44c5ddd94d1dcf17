"""Stores keep the features of each image by name; overlays are recognised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from support.features_files import assert_equal, make, names_in
from tiepoint.batch import FolderStore, H5Store, SingleFileStore, Store
from tiepoint.batch.stores import is_overlay
from tiepoint.errors import FormatError, OutputError
from tiepoint.formats import FORMATS, H5Writer, read_h5

NAME = PurePosixPath("sub/벌 1.jpg")


@pytest.fixture(params=["folder", "file", "h5"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "folder":
        (tmp_path / "sub").mkdir()
        yield FolderStore(tmp_path, ".json")
    elif request.param == "file":
        yield SingleFileStore(tmp_path / "x.npz")
    else:
        pytest.importorskip("h5py")
        with H5Writer(tmp_path / "x.h5") as writer:
            yield H5Store(writer)


def test_what_is_saved_exists_and_comes_back(store: Store) -> None:
    assert not store.exists(NAME)
    store.save(NAME, make(5))
    assert store.exists(NAME)
    assert_equal(store.load(NAME), make(5))
    summary = store.summarise(NAME)
    assert (summary.keypoints, summary.size_hw) == (5, (480, 640))
    assert summary.meta == make(5).meta


def test_saving_again_replaces(store: Store) -> None:
    for count in (5, 2):
        store.save(NAME, make(count))
        assert len(store.load(NAME)) == store.summarise(NAME).keypoints == count


def test_results_are_there_after_closing(store: Store) -> None:
    store.save(NAME, make(3))
    store.close()
    path = store.path(NAME)
    assert path.is_file() and str(path) in store.label(NAME)


def test_without_a_wish_there_is_no_overlay(store: Store) -> None:
    assert store.overlay(NAME) is None


def test_features_that_do_not_fit_are_refused_and_nothing_is_stored(store: Store) -> None:
    with pytest.raises(FormatError, match=r"meta\.note is of type set"):
        store.save(NAME, make(note={1}))
    assert not store.exists(NAME)


@pytest.mark.parametrize("ending", list(FORMATS))
def test_a_folder_keeps_paths_and_the_images_own_endings(tmp_path: Path, ending: str) -> None:
    store = FolderStore(tmp_path, ending, plot=True)
    assert store.path(NAME) == tmp_path / "sub" / f"벌 1.jpg{ending}"
    assert store.overlay(NAME) == tmp_path / "sub" / "벌 1.jpg.png"
    assert store.path(PurePosixPath("x")) == tmp_path / f"x{ending}"
    assert store.label(NAME) == str(store.path(NAME))


def test_images_that_differ_in_their_ending_alone_stay_apart(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, ".npz")
    for count, name in enumerate(["x.jpg", "x.png", "x"]):
        store.save(PurePosixPath(name), make(count))
    assert names_in(tmp_path) == ["x.jpg.npz", "x.npz", "x.png.npz"]
    assert [len(store.load(PurePosixPath(name))) for name in ("x.jpg", "x.png", "x")] == [0, 1, 2]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="check that the folder exists"):
        FolderStore(tmp_path / "no", ".npz").save(NAME, make())


def test_any_other_file_in_the_place_exists_but_is_no_features_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, ".npz")
    (tmp_path / "x.npz").write_bytes(b"somebody's own")
    assert store.exists(PurePosixPath("x"))
    for read in (store.summarise, store.load):
        with pytest.raises(FormatError, match="not a whole features file"):
            read(PurePosixPath("x"))


def test_a_single_file_is_that_of_any_name(tmp_path: Path) -> None:
    store = SingleFileStore(tmp_path / "one.json", plot=True)
    assert store.path(NAME) == store.path(PurePosixPath("other.png")) == tmp_path / "one.json"
    assert store.overlay(NAME) == tmp_path / "one_keypoints.png"


def test_one_hdf5_file_holds_all_names_once_it_is_closed(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    store = H5Store(H5Writer(tmp_path / "x.h5"))
    names = [PurePosixPath(name) for name in ("a.jpg", "sub/a.jpg", "b.png")]
    for count, name in enumerate(names):
        store.save(name, make(count))
        assert store.label(name) == f"{tmp_path / 'x.h5'}: {name}"
    assert not store.exists(PurePosixPath("sub"))
    assert names_in(tmp_path) == [".x.h5.lock", "x.h5.partial"]
    store.close()
    assert {name: len(features) for name, features in read_h5(tmp_path / "x.h5").items()} == {
        "a.jpg": 0,
        "sub/a.jpg": 1,
        "b.png": 2,
    }


def test_a_store_of_ones_own_defines_its_path_alone(tmp_path: Path) -> None:
    class Flat(Store):
        def path(self, name: PurePosixPath) -> Path:
            return tmp_path / f"{'_'.join(name.parts)}.npz"

    store = Flat()
    store.save(NAME, make(2))
    store.close()
    assert names_in(tmp_path) == ["sub_벌 1.jpg.npz"]
    with pytest.raises(NotImplementedError):
        Store().path(NAME)


# Overlays


@pytest.mark.parametrize("ending", list(FORMATS))
def test_a_picture_next_to_its_features_is_an_overlay(tmp_path: Path, ending: str) -> None:
    overlays = ["x.jpg.png", "x.png.PNG", "one_keypoints.png"]
    for name in ("x.jpg", "x.png", "one"):
        (tmp_path / f"{name}{ending}").touch()
    assert all(is_overlay(tmp_path / name) for name in overlays)


@pytest.mark.parametrize("other", ["x.v2.json", "x.v2.csv", "x.v2.npz", "one.json"])
def test_a_picture_next_to_other_data_is_an_image(tmp_path: Path, other: str) -> None:
    (tmp_path / other).write_bytes(b'{"camera": 1}')
    assert not is_overlay(tmp_path / "x.v2.png")
    assert not is_overlay(tmp_path / "one_keypoints.png")


@pytest.mark.parametrize(
    ("picture", "features"),
    [
        ("x.png", "x.npz"),  # an image and the features of another one, x
        ("x.jpg.png", "y.jpg.npz"),
        ("x.jpg.png", "x.jpg.txt"),
        ("x.jpg.jpg", "x.jpg.npz"),
        ("x_keypoints.png", "x_keypoints.npz"),
        ("x_keypoints.png", None),
    ],
)
def test_any_other_picture_is_an_image(tmp_path: Path, picture: str, features: str | None) -> None:
    if features is not None:
        (tmp_path / features).touch()
    assert not is_overlay(tmp_path / picture)

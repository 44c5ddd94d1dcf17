"""Sources behind fsspec, in its memory file system: no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.store_runs import fill, picture, statuses, tar
from tiepoint.batch import patience, remote
from tiepoint.batch.listing import Listing, list_sources
from tiepoint.errors import ConfigError, ImageError, MissingExtraError, UnreachableError
from tiepoint.formats.features_store import StoreFeatures

pytest.importorskip("h5py")
fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A folder memory://bucket of images."""
    monkeypatch.setattr(patience, "DELAYS_S", (0.0,))
    files = fsspec.filesystem("memory")
    files.store.clear()
    for name in ("a.png", "sub dir/사진 1.png", "sub dir/deep/c.png", "notes.txt", ".hidden/d.png"):
        files.pipe(f"/bucket/{name}", picture())
    yield files
    files.store.clear()


def names(*arguments: str) -> list[str]:
    listing = Listing(list_sources(arguments))
    assert not listing.unreadable
    from tiepoint.batch.listing import Worker

    return [n for shard in listing.shards(1, Worker()) for n, _ in shard.sources]


def test_a_folder_gives_all_images_below_it(bucket: Any) -> None:
    expected = ["a.png", "sub dir/deep/c.png", "sub dir/사진 1.png"]
    assert names("memory://bucket") == names("memory://bucket/") == expected
    assert names("memory://bucket/sub dir") == ["deep/c.png", "사진 1.png"]
    assert names("memory://bucket", "memory://bucket/a.png") == [f"bucket/{n}" for n in expected]
    assert names("memory://bucket/*.png") == ["a.png"]
    assert names("memory://bucket/**/*.png") == expected


def test_names_of_a_storage_may_have_signs_of_urls(bucket: Any) -> None:
    for name in ("a#1.png", "a#2.png", "100%.png"):
        bucket.pipe(f"/signs/{name}", picture())
    expected = ["100%.png", "a#1.png", "a#2.png"]
    assert names("memory://signs") == expected
    listed = names(*(f"memory://signs/{name}" for name in expected))
    assert listed == [f"signs/{name}" for name in expected]


def test_a_glob_among_others_that_matches_nothing_is_reported(bucket: Any) -> None:
    lines = ["memory://bucket/a.png", "memory://bucket/no[1].png"]
    [missing] = Listing(list_sources(["-"], lines)).unreadable
    assert "no[1].png: no such file" in missing.reason
    assert not Listing(list_sources(["memory://bucket/no*.png"]))


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), RuntimeError("login")])
def test_a_server_that_refuses_the_connection_costs_its_images_alone(
    bucket: Any, here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = fsspec.core.url_to_fs

    def url_to_fs(url: str, **options: Any) -> Any:
        if "away" in url:
            raise error
        return real(url, **options)

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    lines = ["memory://bucket/a.png", "memory://away/b.png", "memory://away/c.tar"]
    for status in ("done", "skipped"):
        found = fill(here / "a.store", "-", lines=lines)
        assert statuses(found) == {status: 1, "failed": 2}
        reasons = [row.error for row in found if row.status == "failed"]
        assert all("cannot be reached" in str(reason) for reason in reasons)


def test_images_are_detected_and_their_store_resumes(bucket: Any, here: Path) -> None:
    assert statuses(fill(here / "a.store", "memory://bucket")) == {"done": 3}
    features = StoreFeatures(here / "a.store")["sub dir/사진 1.png"]
    assert features.meta["source"].startswith("memory://") and "사진 1.png" in str(features.meta)
    assert features.meta["image_file"]["bytes"] == len(picture())
    assert statuses(fill(here / "a.store", "memory://bucket")) == {"skipped": 3}
    bucket.pipe("/bucket/new.png", picture())
    assert statuses(fill(here / "a.store", "memory://bucket")) == {"done": 1, "skipped": 3}


def test_a_bad_and_a_vanished_image_are_rows(bucket: Any, here: Path) -> None:
    bucket.pipe("/bucket/bad.png", b"")
    found = fill(here / "a.store", "-", lines=("memory://bucket/bad.png", "memory://bucket/no.png"))
    assert statuses(found) == {"failed": 2}
    assert "no.png: no such file" in str(found[1].error)
    assert statuses(fill(here / "a.store", "memory://bucket")) == {"done": 3, "failed": 1}


def test_a_storage_that_fails_is_asked_again(
    bucket: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failing = type(bucket).cat_file, ["bucket/a.png"] * 5

    def cat_file(self: Any, path: str, *more: Any, **options: Any) -> Any:
        if failing and path.endswith(failing[-1]):
            failing.pop()
            raise ConnectionError("throttled")
        return read(self, path, *more, **options)

    monkeypatch.setattr(type(bucket), "cat_file", cat_file)
    found = fill(here / "a.store", "memory://bucket")
    assert statuses(found) == {"done": 2, "failed": 1}
    assert "cannot be reached (throttled)" in str([row.error for row in found])
    failing.pop()
    failing.pop()
    assert statuses(fill(here / "a.store", "memory://bucket")) == {"done": 1, "skipped": 2}


def test_a_listing_that_fails_is_reported(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    [missing] = Listing(list_sources(["memory://nowhere"])).unreadable
    assert "nowhere: no such file" in missing.reason

    def fail(*_: Any, **__: Any) -> None:
        raise TimeoutError("too slow")

    monkeypatch.setattr(type(bucket), "ls", fail)
    [slow] = Listing(list_sources(["memory://bucket"])).unreadable
    assert "cannot be reached (too slow)" in slow.reason


def test_an_image_above_the_limit_is_not_fetched(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiepoint.batch.listing.MAX_BYTES", 10)
    assert len(Listing(list_sources(["memory://bucket"])).unreadable) == 3
    monkeypatch.setattr(remote, "MAX_BYTES", 10)
    with pytest.raises(ImageError, match="larger than"):
        remote.read_bytes("memory://bucket/a.png")


def test_tars_are_streamed_from_the_storage(bucket: Any, here: Path) -> None:
    data = tar(here / "x.tar", {"one.png": picture(), "two.png": picture(40)}).read_bytes()
    bucket.pipe("/sets/0.tar", data)
    bucket.pipe("/sets/1.tar", data)
    assert statuses(fill(here / "a.store", "memory://sets/*.tar")) == {"done": 4}
    assert set(StoreFeatures(here / "a.store")) == {
        f"{number}/{name}.png" for number in (0, 1) for name in ("one", "two")
    }
    assert statuses(fill(here / "a.store", "memory://sets/*.tar")) == {"skipped": 4}
    assert not Listing(list_sources(["memory://sets"]))
    assert statuses(fill(here / "b.store", "memory://sets/1.tar")) == {"done": 2}


def test_an_unknown_scheme_is_a_wrong_argument() -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        list(list_sources(["nonsense://bucket"]))
    with pytest.raises(ConfigError, match="nonsense"):  # before any work, not at the image
        list(list_sources(["-"], ["a.png", "nonsense://bucket/a.png"]))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"tiepoint\[remote\]"):
        list(list_sources(["memory://bucket"]))


def test_credentials_stay_out_of_messages() -> None:
    error = patience.unreadable("x", OSError("away"))
    assert isinstance(error, UnreachableError)
    with pytest.raises(ConfigError) as raised:
        list(list_sources(["nonsense://me:secret@bucket/photos"]))
    assert "secret" not in str(raised.value)

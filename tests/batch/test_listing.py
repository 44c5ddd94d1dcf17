"""Arguments are listed lazily and cut into shards by the hash of the name."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from support.fake_detector import FakeDetector
from support.store_runs import fill, picture, pictures, statuses, tar
from tiepoint.batch.inputs import Input, Unreadable
from tiepoint.batch.listing import Listing, Shard, Worker, list_sources
from tiepoint.batch.store_run import open_store
from tiepoint.errors import ConfigError
from tiepoint.formats.features_store import StoreFeatures, is_store


def listed(*arguments: str, lines: tuple[str, ...] = ()) -> Listing:
    return Listing(list_sources(arguments, lines))


def shards(listing: Listing, count: int = 1) -> list[Shard]:
    return list(listing.shards(count, Worker()))


def many(count: int) -> Iterator[Input]:
    return (Input(f"a/{n:07}.jpg", PurePosixPath(f"{n:07}.jpg")) for n in range(count))


def test_a_shard_is_decided_by_the_name_alone() -> None:
    few, more = Listing(many(50)), Listing(many(100))
    where = {name: shard.name for shard in shards(more, 7) for name, _ in shard.sources}
    assert len(where) == 100
    for shard in shards(few, 7):
        assert {where[name] for name, _ in shard.sources} == {shard.name}


def test_shards_have_about_equal_parts() -> None:
    sizes = [len(shard.sources) for shard in shards(Listing(many(4000)), 16)]
    assert len(sizes) == 16 and min(sizes) > 180 and max(sizes) < 320


def test_the_number_of_shards_follows_that_of_the_images() -> None:
    assert [Listing(many(count)).default_shards() for count in (0, 1, 256, 257)] == [1, 1, 1, 2]


def test_names_and_sources_come_back_as_they_were(here: Path) -> None:
    names = ["a b.png", "사진/é.png", "e\u0301.png", "%41.png", "x'\".png"]
    pictures(here / "photos", names)
    [shard] = shards(listed("photos"))
    assert dict(shard.sources) == {name: f"photos/{name}" for name in names}
    [same] = shards(listed("-", lines=tuple(f"photos/{name}\n" for name in names)))
    assert dict(same.sources) == {f"photos/{name}": f"photos/{name}" for name in names}


def test_composed_and_decomposed_letters_are_two_names(here: Path) -> None:
    pytest.importorskip("h5py")
    pictures(here / "photos", ["\u00e9.png", "e\u0301.png"])
    if len(list((here / "photos").iterdir())) == 1:
        pytest.skip("this file system has one name for both")
    assert statuses(fill(here / "a.store", "photos")) == {"done": 2}
    assert set(StoreFeatures(here / "a.store")) == {"\u00e9.png", "e\u0301.png"}


def test_a_path_that_climbs_keeps_only_its_last_part(here: Path) -> None:
    pictures(here, ["x.png", "sub/y.png"])
    [shard] = shards(listed("sub/../x.png", str(here / "sub" / "y.png")))
    assert [name for name, _ in shard.sources] == ["x.png", "y.png"]


def test_an_image_named_twice_is_listed_once(here: Path) -> None:
    pictures(here, ["x.png"])
    [shard] = shards(listed("-", lines=("x.png", "x.png")))
    assert shard.sources == (("x.png", "x.png"),)


def test_nothing_found_is_an_empty_listing(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "empty" / "notes.xyz").write_text("")
    ignored: Counter[str] = Counter()
    assert not Listing(list_sources(["empty"], (), ignored)) and ignored == {".xyz": 1}
    assert shards(listed("empty"), 4) == []


def test_what_cannot_be_used_is_kept_for_the_report() -> None:
    listing = listed("", "a\0b.tar")
    assert [type(item) for item in listing.unreadable] == [Unreadable] * 2
    assert Listing([Input("a\0", PurePosixPath("a"))]).unreadable


def test_tars_are_named_as_folders_would_be(here: Path) -> None:
    for name in ("sets/1.tar", "sets/2.TAR", "sets/3.tar.gz"):
        (here / name).parent.mkdir(exist_ok=True)
        tar(here / name, {"x.png": picture()})
    assert [str(one.prefix) for one in listed("sets/1.tar").tars] == ["."]
    assert [str(one.prefix) for one in listed("sets/1.tar", "sets/2.TAR").tars] == [
        "sets/1",
        "sets/2",
    ]
    assert [str(one.prefix) for one in listed("sets/*.tar*").tars] == ["1", "3"]
    assert listed("sets").tars == []  # a folder of photographs may have a copy of them beside
    [far] = listed("https://me:secret@a.org/sets/1.tar?key=2", "x.png").tars
    assert str(far.prefix) == "a.org/sets/1"


@pytest.mark.parametrize("text", ["", "1", "1/", "a/b", "3/3", "-1/3", "1/0", "٣/٤"])
def test_a_worker_is_one_of_several_from_zero(text: str) -> None:
    with pytest.raises(ConfigError):
        Worker.parse(text)
    assert Worker.parse("2/3") == Worker(2, 3)


@pytest.mark.parametrize("shards", [0, -3, 1.5, True, 10_000_001])
def test_a_number_of_shards_that_no_manifest_may_have_is_refused(here: Path, shards: Any) -> None:
    detector, listing = FakeDetector(), Listing(many(3))
    with pytest.raises(ConfigError, match="shards is"):
        open_store(here, detector.provenance(), listing=listing, shards=shards)
    assert not is_store(here)
    with pytest.raises(ConfigError, match="count is"):
        Worker(0, 10**20)


def test_a_name_takes_little_memory() -> None:
    tracemalloc.start()
    listing = Listing(many(5_000))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert listing.images == 5_000 and peak_bytes < 5_000 * 160 + 100_000

"""A run on a Ray cluster of two nodes: the bytes of a local run, whatever is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.deadly_detector import DeadlyDetector
from support.store_runs import (
    fill,
    numbered,
    pictures,
    shard_bytes,
    statuses,
    store_job,
)
from tiepoint import Detector, __version__
from tiepoint.batch import ray as on_ray
from tiepoint.batch.listing import Listing, list_sources
from tiepoint.batch.ray_cluster import connect
from tiepoint.batch.ray_worker import Sight, look
from tiepoint.batch.records import ImageRecord
from tiepoint.errors import ConfigError
from tiepoint.files.lock import WriteLock
from tiepoint.formats.features_store import StoreFeatures, shard_path

pytest.importorskip("ray", reason="needs the extra ray")
pytest.importorskip("h5py")

SHARDS = 8
ATTEMPTS = 4
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each on this machine, with this process connected."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # for `support`
        started = Cluster()
        started_node(started, include_dashboard=False)
        second = started_node(started)
        connect(started.address)
        yield SimpleNamespace(end_second=lambda: started.remove_node(second, allow_graceful=False))
        ray.shutdown()
        started.shutdown()


def started_node(cluster: Any, **options: Any) -> Any:
    """A new node; Ray gives a process half a minute to start, which a busy machine exceeds."""
    for _ in range(ATTEMPTS):
        try:
            return cluster.add_node(**NODE, **options)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            print(f"once more: {error}")
    pytest.skip(f"no node of Ray started in {ATTEMPTS} attempts: the machine is too busy")


@pytest.fixture
def photos(here: Path) -> Path:
    return pictures(here / "photos", numbered(40))


def run(folder: Path, detector: Any = None, **job: Any) -> Iterator[ImageRecord]:
    listing = Listing(list_sources(["photos"]))
    return on_ray.run_on_ray(listing, store_job(folder, listing, detector, shards=SHARDS, **job))


def workers() -> list[int]:
    """Ids of the processes of the workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::ShardWorker"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def whole_files(folder: Path) -> list[str]:
    """Files of a store; the rest of a killed worker is removed by a later run."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".partial")


def test_a_store_has_the_bytes_of_a_local_run_and_is_resumed(
    photos: Path, here: Path, cluster: Any
) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    fill(here / "local.store", "photos", detector=Detector("small"), shards=SHARDS)
    found = run(here / "ray.store", Detector("small"))
    first = [next(found) for _ in range(3)]  # as interrupted
    found.close()
    assert first[0].size_hw is not None
    deadline = time.monotonic() + 20
    while workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers()
    records = list(run(here / "ray.store", Detector("small")))
    assert sorted(record.source for record in records) == sorted(
        f"photos/{name}" for name in [*numbered(40), "bad.png"]
    )
    assert statuses(records)["failed"] == 1 and statuses(records)["skipped"] >= 1
    assert shard_bytes(here / "ray.store") == shard_bytes(here / "local.store")
    assert whole_files(here / "ray.store") == whole_files(here / "local.store")


def test_a_shard_of_another_run_is_refused_and_the_others_are_made(
    photos: Path, here: Path, cluster: Any
) -> None:
    (here / "x.store").mkdir()
    lock = WriteLock(shard_path(here / "x.store", "00003", "h5"))
    try:
        records = list(run(here / "x.store"))
    finally:
        lock.release()
    busy = [record for record in records if record.status == "refused"]
    assert {record.reason for record in busy} == {"another run is writing the shard"}
    assert len(records) == 40 and statuses(records)["done"] == 40 - len(busy)


def test_an_image_that_ends_its_worker_each_time_does_not_end_the_run(
    photos: Path, here: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "MOST_LOSSES", 2)
    records = list(run(here / "x.store", DeadlyDetector("photos/1/004.png")))
    lost = [record for record in records if record.status == "refused"]
    assert "photos/1/004.png" in {record.source for record in lost}
    assert "2 workers ended while they made it" in str(lost[0].error)
    assert len(records) == 40 and statuses(records)["done"] == 40 - len(lost)


def test_a_node_that_does_not_see_the_images_is_named_before_any_work(
    photos: Path, here: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "_samples", lambda shards: ("elsewhere/a.png",))
    with pytest.raises(ConfigError, match="node .* does not see the image .*elsewhere/a.png"):
        next(run(here / "x.store"))
    assert whole_files(here / "x.store") == ["manifest.json"]


def test_a_node_that_leaves_before_the_work_begins_is_left_out(
    photos: Path, here: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    known = ray.nodes
    gone = {**next(node for node in known() if node["Alive"]), "NodeID": "0" * 56}
    asked: list[int] = []

    def nodes() -> list[dict[str, Any]]:
        asked.append(1)
        return [*known(), gone] if len(asked) == 1 else known()

    monkeypatch.setattr(ray, "nodes", nodes)
    assert statuses(run(here / "x.store"))["done"] == 40
    assert len(asked) > 1


def test_nothing_is_lost_or_made_twice_if_a_worker_and_a_node_are_killed(
    photos: Path, here: Path, cluster: Any
) -> None:
    fill(here / "local.store", "photos", detector=Detector("small"), shards=SHARDS)
    records = []
    for record in run(here / "ray.store", Detector("small")):
        records.append(record)
        if len(records) == 1:
            os.kill(workers()[0], signal.SIGKILL)
        if len(records) == 8:
            cluster.end_second()
    assert sorted(record.source for record in records) == [
        f"photos/{name}" for name in sorted(numbered(40))
    ]
    assert set(statuses(records)) <= {"done", "skipped"}
    assert shard_bytes(here / "ray.store") == shard_bytes(here / "local.store")
    assert len(StoreFeatures(here / "ray.store")) == 40
    assert whole_files(here / "ray.store") == whole_files(here / "local.store")


@pytest.mark.parametrize(
    ("cores", "gpus", "threads", "on_gpu", "expected"),
    [
        (8, 0, None, False, [(8, 0)]),
        (8, 0, 3, False, [(3, 0)] * 2),
        (2, 0, 4, False, [(2, 0)]),
        (0, 0, None, False, []),
        (8, 2, None, False, [(8, 0)]),
        (8, 2, None, True, [(4, 1)] * 2),
        (1, 4, None, True, [(1, 1)]),
        (8, 0, None, True, []),
    ],
)
def test_a_node_has_as_many_workers_as_fit(
    cores: int, gpus: int, threads: int | None, on_gpu: bool, expected: list[tuple[int, int]]
) -> None:
    has = {"CPU": float(cores), "GPU": float(gpus), "memory": 1e9}
    assert on_ray.places(has, threads, on_gpu=on_gpu) == expected


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no cluster answers .*ray start --head"),
        ("elsewhere", "expected auto or HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_refused(
    address: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=message):
        connect(address)


def test_a_node_looks_at_everything_that_it_needs(photos: Path, here: Path) -> None:
    token = here / "token"
    token.touch()
    sight = Sight(here, Path("token"), ("photos/0/000.png",), __version__)
    assert look(sight) is None
    for worse, reason in (
        (replace(sight, version="0.0"), "instead of 0.0; install the same"),
        (replace(sight, token=Path("none/token")), f"does not see the store {here / 'none'}"),
        (replace(sight, sources=("photos/none.png",)), "does not see the image"),
    ):
        assert reason in str(look(worse))

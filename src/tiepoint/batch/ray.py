"""A run into a store on a Ray cluster (extra `ray`): workers on all its nodes make the shards.

Each worker is an actor that holds the network and its part of a node's cores. It is given one shard
at a time, so that nothing queues up, and the shard of a worker that ends is given to another. The
lock of a shard refuses a second writer, and a shard that is made twice has the same bytes.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tiepoint._version import __version__
from tiepoint.batch.listing import Listing, Shard, Worker
from tiepoint.batch.ray_worker import ShardWorker, Sight, look
from tiepoint.batch.records import ImageRecord
from tiepoint.batch.remote import is_remote
from tiepoint.batch.shards import ShardJob
from tiepoint.batch.store_run import begin, refused
from tiepoint.errors import ConfigError, OutputError, TiepointError, import_extra
from tiepoint.files.lock import LockedError
from tiepoint.files.paths import exists
from tiepoint.files.writing import temporary_name, unwritable
from tiepoint.images.urls import is_url

POLL_S, NODES_S = 1.0, 5.0
"""Time between two looks at the clock, and at the list of nodes, s."""

LOOK_S = 180.0
"""Time in which each node must answer whether it sees the files, s."""

START_S = 60.0
"""Time after which a run without any worker warns, s; it waits on."""

LOCK_WAIT_S = 120.0
"""Time in which a lost worker may still hold its lock: NFS frees it after a lease of 90 s."""

MOST_LOSSES = 4
"""Workers that end while they make one shard, or start on one node; it is not by chance then."""

_SAMPLES = 8

logger = logging.getLogger(__name__)


def run_on_ray(
    listing: Listing, job: ShardJob, worker: Worker | None = None, *, threads: int | None = None
) -> Iterator[ImageRecord]:
    """Make the shards that are not made yet on the nodes of the cluster; see `run_store`.

    Nodes that join during the run take part. The records of a shard come when it is whole.

    Args:
        listing: All images, of all runs.
        job: Settings of the run. A detector on "cuda" needs a GPU for each worker.
        worker: Which shards are made; None makes all.
        threads: Cores of a worker, so that a node has as many workers as fit; None gives each
            node one worker with all its cores, or one for each of its GPUs.

    Yields:
        A record for each image, shard by shard, in no certain order.

    Raises:
        ConfigError: Ray is not connected (see `ray_cluster.connect`), has no node with a CPU or
            GPU, or a node does not see the store or the images.
        FormatError: The store has images of another tar under equal names.
        OutputError: The disk is full or read-only, or no node is left.
        MissingExtraError: The extra `ray` is not installed.
    """
    ray = import_extra("ray", "running on Ray", "ray")
    if not ray.is_initialized():
        raise ConfigError("Ray is not connected to a cluster: call ray.init first")
    if job.detector.device.startswith("cuda:"):
        raise ConfigError(f"device is {job.detector.device!r}, expected 'cuda': Ray deals the GPUs")
    yield from begin(listing, job)
    worker = worker or Worker()
    token = job.folder / temporary_name()
    try:
        token.write_bytes(b"")
    except OSError as error:
        raise unwritable(token, error) from error
    try:
        sources = _samples(listing.shards(job.manifest.shards, worker))
        masks = () if job.masks is None else (str(job.masks.path),)
        sight = Sight(Path.cwd(), token, sources + masks, __version__)
        pool = _Pool(ray, job, sight, threads)
        try:
            yield from _Run(pool, listing.shards(job.manifest.shards, worker)).records()
        finally:
            pool.close()
    finally:
        token.unlink(missing_ok=True)


def _samples(shards: Iterator[Shard]) -> tuple[str, ...]:
    """Local files of some shards, which this machine sees."""
    found = []
    for shard in islice(shards, _SAMPLES):
        sources = [source for _, source in shard.sources] or [shard.tar.source if shard.tar else ""]
        local = (s for s in sources if not is_url(s) and not is_remote(s) and exists(s))
        found += list(islice(local, 1))
    return tuple(found)


class Place(NamedTuple):
    """What a worker takes of its node: cores, and GPUs (0 or 1)."""

    cores: int
    gpus: int


def places(has: Mapping[str, float], threads: int | None, *, on_gpu: bool) -> list[Place]:
    """The workers that fit on a node with these resources; see `run_on_ray`."""
    cores, gpus = int(has.get("CPU", 0)), int(has.get("GPU", 0)) if on_gpu else 0
    if cores == 0 or (on_gpu and gpus == 0):
        return []
    each = min(threads or max(1, cores // max(1, gpus)), cores)
    count = cores // each
    return [Place(each, min(1, gpus))] * (min(count, gpus) if on_gpu else count)


@dataclass(frozen=True, eq=False)
class _Actor:
    """A worker on a node.

    Attributes:
        handle: Ray's handle of the `ShardWorker`.
        node: The node, as `ray.nodes()` lists it.
        place: What it takes of the node.
    """

    handle: Any
    node: dict[str, Any]
    place: Place


class _Pool:
    """The workers on the nodes of the cluster."""

    def __init__(self, ray: Any, job: ShardJob, sight: Sight, threads: int | None) -> None:
        self.ray, self._sight, self._threads = ray, sight, threads
        self._on_gpu = job.detector.device == "cuda"
        self._job = ray.put(job)
        self._known: set[str] = set()
        self._actors: set[_Actor] = set()
        nodes = self._new_nodes()
        self._require_sight(nodes)
        nodes = self._alive(nodes)
        if not nodes:
            kind = "GPU" if self._on_gpu else "CPU"
            raise ConfigError(f"the Ray cluster has no node with a {kind}; start one that has")
        self.starting = [actor for node in nodes for actor in self._start_all(node)]

    def join(self) -> list[_Actor]:
        """Workers on nodes that are new."""
        return [actor for node in self._new_nodes() for actor in self._start_all(node)]

    def replace(self, actor: _Actor) -> list[_Actor]:
        """A worker in the place of one that ended, if its node is still there."""
        self._actors.discard(actor)
        return [self._start(node, actor.place) for node in self._alive([actor.node])]

    def drop(self, actor: _Actor) -> None:
        """End a worker that cannot work."""
        self._actors.discard(actor)
        self.ray.kill(actor.handle)

    def close(self) -> None:
        """End all workers, so that others may use their cores."""
        for actor in list(self._actors):
            self.drop(actor)

    def _new_nodes(self) -> list[dict[str, Any]]:
        nodes = [
            node
            for node in self.ray.nodes()
            if node["Alive"] and node["NodeID"] not in self._known and self._places(node)
        ]
        self._known |= {node["NodeID"] for node in nodes}
        return nodes

    def _alive(self, nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of some nodes that are still in the cluster."""
        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        return [node for node in nodes if node["NodeID"] in alive]

    def _places(self, node: dict[str, Any]) -> list[Place]:
        return places(node["Resources"], self._threads, on_gpu=self._on_gpu)

    def _start_all(self, node: dict[str, Any]) -> list[_Actor]:
        return [self._start(node, place) for place in self._places(node)]

    def _start(self, node: dict[str, Any], place: Place) -> _Actor:
        made = self.ray.remote(ShardWorker).options(
            num_cpus=place.cores, num_gpus=place.gpus, scheduling_strategy=_on(node)
        )
        actor = _Actor(made.remote(self._job, self._sight, place.cores), node, place)
        self._actors.add(actor)
        return actor

    def _require_sight(self, nodes: list[dict[str, Any]]) -> None:
        """Raise ConfigError if a node cannot take part, before any work; it may leave."""
        if not nodes:
            return
        task = self.ray.remote(look)
        looks = {
            task.options(num_cpus=0, scheduling_strategy=_on(node)).remote(self._sight): node
            for node in nodes
        }
        self.ray.wait(list(looks), num_returns=len(looks), timeout=LOOK_S)
        reasons = []
        for ref, node in looks.items():
            try:
                reason = self.ray.get(ref, timeout=0.1)
            except self.ray.exceptions.GetTimeoutError:
                reason = f"gave no answer within {LOOK_S:.0f} s"
            except (self.ray.exceptions.RayError, RuntimeError) as error:  # no tiepoint there
                reason = f"cannot run tiepoint ({in_short(error)}); install it there"
            if reason is not None and self._alive([node]):
                reasons.append(f"node {_name(node)} {reason}")
        if reasons:
            more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            raise ConfigError("; ".join(reasons[:3]) + more)


class _Run:
    """The shards of a run, from the first to the last."""

    def __init__(self, pool: _Pool, shards: Iterator[Shard]) -> None:
        self._pool, self._ray = pool, pool.ray
        self._shards = shards
        self._again: deque[Shard] = deque()
        self._locked: list[Shard] = []
        self._is_last_round = False
        self._losses: Counter[str] = Counter()
        self._lost_at: dict[str, float] = {}
        self._failed_starts: Counter[str] = Counter()  # in a row, by node
        self._idle: list[_Actor] = []
        self._warn_at: float | None = time.monotonic() + START_S
        self._calls: dict[Any, tuple[_Actor, Shard | None]] = {}  # None: the worker starts

    def records(self) -> Iterator[ImageRecord]:
        """The records of all shards."""
        self._await_start(self._pool.starting)
        looked = time.monotonic()
        while self._has_work():
            if time.monotonic() > looked + NODES_S:
                self._await_start(self._pool.join())
                looked = time.monotonic()
            if self._calls:
                done, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=POLL_S)
                for call in done:
                    yield from self._finish(call)
            elif not self._idle:
                raise OutputError(
                    "no node of the Ray cluster is left that can work; repeat the same command "
                    "when there is one"
                )
            self._warn_if_none_starts()

    def _warn_if_none_starts(self) -> None:
        if self._warn_at is not None and time.monotonic() > self._warn_at:
            self._warn_at = None
            logger.warning("no worker has started yet: other programs may have the nodes' cores")

    def _await_start(self, actors: list[_Actor]) -> None:
        self._calls |= {actor.handle.start.remote(): (actor, None) for actor in actors}

    def _has_work(self) -> bool:
        """Give a shard to each idle worker; whether any are left or in work."""
        while self._idle and (shard := self._next()) is not None:
            actor = self._idle.pop()
            self._calls[actor.handle.make.remote(shard)] = actor, shard
        if any(shard is not None for _, shard in self._calls.values()):
            return True
        shard = self._next()
        if shard is not None:
            self._again.appendleft(shard)
            return True
        if not self._locked:
            return False
        if self._is_last_round:
            time.sleep(POLL_S)
        self._is_last_round = True
        self._again.extend(self._locked)
        self._locked.clear()
        return True

    def _next(self) -> Shard | None:
        return self._again.popleft() if self._again else next(self._shards, None)

    def _finish(self, call: Any) -> Iterator[ImageRecord]:
        actor, shard = self._calls.pop(call)
        try:
            result = self._ray.get(call)
        except self._ray.exceptions.RayTaskError:  # a mistake of ours, with its traceback
            raise
        except self._ray.exceptions.RayError as error:
            yield from self._lose(actor, shard, in_short(error))
            return
        if shard is None and result is not None:
            logger.warning("node %s is left out: it %s", _name(actor.node), result)
            self._pool.drop(actor)
            return
        self._idle.append(actor)
        self._warn_at = None
        self._failed_starts[actor.node["NodeID"]] = 0
        if isinstance(result, LockedError):
            yield from self._wait_for_lock(shard, result)  # type: ignore[arg-type]
        elif isinstance(result, TiepointError):
            raise result
        elif shard is not None:
            yield from result

    def _wait_for_lock(self, shard: Shard, error: LockedError) -> Iterator[ImageRecord]:
        until = self._lost_at.get(shard.name, -LOCK_WAIT_S) + LOCK_WAIT_S
        if not self._is_last_round or time.monotonic() < until:
            self._locked.append(shard)
        else:
            yield from refused(shard, str(error), "another run is writing the shard")

    def _lose(self, actor: _Actor, shard: Shard | None, reason: str) -> Iterator[ImageRecord]:
        """Take back the shard of a worker that ended, and start another worker."""
        where, node = _name(actor.node), actor.node["NodeID"]
        self._failed_starts[node] += shard is None
        if self._failed_starts[node] < MOST_LOSSES:
            self._await_start(self._pool.replace(actor))
        if shard is None:
            logger.warning("a worker on node %s did not start (%s)", where, reason)
            return
        self._losses[shard.name] += 1
        self._lost_at[shard.name] = time.monotonic()
        if self._losses[shard.name] < MOST_LOSSES:
            logger.warning(
                "a worker on node %s ended (%s); shard %s is made again", where, reason, shard.name
            )
            self._again.append(shard)
            return
        error = (
            f"shard {shard.name}: {MOST_LOSSES} workers ended while they made it, the last on node "
            f"{where} ({reason}); most often memory ran out: lower max_side or the number of "
            "workers on a node"
        )
        yield from refused(shard, error, f"{MOST_LOSSES} workers ended while they made the shard")


def in_short(error: BaseException) -> str:
    """A sentence of a message of Ray's, which may have a traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(". ")[0] if lines else type(error).__name__


def _on(node: dict[str, Any]) -> Any:
    """The strategy that places an actor on this node, or nowhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _name(node: dict[str, Any]) -> str:
    return str(node["NodeManagerHostname"] or node["NodeManagerAddress"])

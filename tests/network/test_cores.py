"""The number of cores: what the affinity and the quota of a container leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.checkpoints import random_checkpoint
from tiepoint.network import cores, engines, openvino_engine
from tiepoint.network.engines import EngineChoice


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(cores, "_affinity", lambda: 8)
    return tmp_path


def write(folder: Path, membership: str, **files: str) -> None:
    (folder / "membership").write_text(membership)
    for name, text in files.items():
        path = folder / "cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_without_control_groups_all_cores_are_used() -> None:
    assert cores.cpu_quota() is None
    assert cores.usable_cores() == 8
    assert cores.usable_cores(3) == 3
    assert cores.usable_cores(30) == 8


@pytest.mark.parametrize(
    ("limit", "count"),
    [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", 8),
     ("9900000 100000", 8), ("damaged", 8), ("0 0", 8)],
)  # fmt: skip
def test_the_quota_of_a_container_limits_the_cores(system: Path, limit: str, count: int) -> None:
    write(system, "0::/\n", cpu_max=limit)
    assert cores.usable_cores() == count


def test_the_quota_of_an_outer_group_counts(system: Path) -> None:
    write(system, "0::/a/b\n", a__cpu_max="300000 100000", a__b__cpu_max="max 100000")
    assert cores.usable_cores() == 3


def test_version_1_is_read_under_both_names(system: Path) -> None:
    membership = "5:memory:/x\n4:cpu,cpuacct:/docker/0123\n"
    for folder in ("cpu", "cpu,cpuacct"):
        files = {f"{folder}__cpu_cfs_quota_us": "-1", f"{folder}__cpu_cfs_period_us": "100000"}
        write(system, membership, **files)
        assert cores.cpu_quota() is None
        write(system, membership, **{f"{folder}__cpu_cfs_quota_us": "250000"})
        assert cores.cpu_quota() == 2.5
        assert cores.usable_cores() == 3
        write(system, membership, **{f"{folder}__cpu_cfs_quota_us": "-1"})


def test_openvino_takes_no_more_threads_than_the_quota(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Recorded:
        def __init__(self, *_: object, threads: int | None = None, **__: object) -> None:
            asked.append(threads)

    monkeypatch.setattr(openvino_engine, "OpenVinoEngine", Recorded)
    choice = EngineChoice("openvino", "cpu", "f32")
    engines.build_engine(random_checkpoint(1), choice)
    write(system, "0::/\n", cpu_max="200000 100000")
    for threads in (None, 5):
        engines.build_engine(random_checkpoint(1), choice, threads=threads)
    assert asked == [None, 2, 5]

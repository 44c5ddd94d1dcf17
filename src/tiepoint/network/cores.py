"""Processor cores that this process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath

from tiepoint.checks import check_whole

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(threads: int | None = None) -> int:
    """Cores that this process may use, at most `threads`.

    Raises:
        ConfigError: Fewer than one.
    """
    if threads is not None:
        check_whole("threads", threads, minimum=1, unit="threads, or None for all cores")
    cores = _affinity()
    quota = cpu_quota()
    if quota is not None:
        cores = min(cores, max(1, math.ceil(quota)))
    return min(threads or cores, cores)


def cpu_quota() -> float | None:
    """The time that the process may use, in cores; None without a limit.

    Linux's control groups (cgroup v2 `cpu.max`, v1 `cpu.cfs_quota_us`) limit time and not cores,
    so the affinity does not show them. A group is limited by those that it is in.
    """
    quotas = []
    for line in _read(MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            places = [CGROUPS]
        elif "cpu" in controllers.split(","):
            places = [CGROUPS / controllers, CGROUPS / "cpu"]
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        # A container may see its own group as the root, under a path of the host.
        for place in places:
            for group in (inside, *inside.parents):
                quotas += _quota(place / group)
    return min(quotas, default=None)


def _quota(group: Path) -> list[float]:
    fields = _read(group / "cpu.max").split()  # "max 100000"
    if not fields:
        fields = [_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    try:
        quota, period = map(int, fields)
    except ValueError:
        return []
    return [quota / period] if quota > 0 and period > 0 else []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

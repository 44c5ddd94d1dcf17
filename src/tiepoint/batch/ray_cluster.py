"""The connection to a Ray cluster (extra `ray`)."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading

from tiepoint.config import DeviceName, EngineName
from tiepoint.errors import ConfigError, import_extra, is_installed

ANSWER_S = 10.0
"""Time in which a cluster must answer, s."""

_HOST_PORT = re.compile(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d{1,5})")


def connect(address: str) -> None:
    """Connect this process to a cluster, unless it is already connected.

    Args:
        address: "auto" for the cluster of this machine or of the variable RAY_ADDRESS, HOST:PORT,
            or "local" for one that this process starts on this machine alone.

    Raises:
        ConfigError: No cluster answers at the address.
        MissingExtraError: The extra `ray` is not installed.
    """
    ray = import_extra("ray", "running on Ray", "ray")
    if ray.is_initialized():
        return
    _require_answer(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # "local" would report to Ray's makers
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, logging_level="ERROR", log_to_driver=False)
    except Exception as error:  # of many types, by the cause
        raise _unreachable(address, " ".join(str(error).split()) or type(error).__name__) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own exits with another status


def device_on_ray(engine: EngineName, device: DeviceName) -> DeviceName:
    """The device of a run: "auto" takes GPUs if the cluster has any, as on a single machine."""
    import ray

    has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
    if device == "auto" and engine != "openvino" and has_gpus and is_installed("torch"):
        return "cuda"
    return "cpu" if device == "auto" else device


def _require_answer(address: str) -> None:
    """Ray would wait for minutes for a cluster that is not there."""
    if address == "auto":
        address = _found()
    if address in ("auto", "local"):
        return
    match = _HOST_PORT.fullmatch(address)
    if match is None:
        raise ConfigError(f"Ray address {address!r}, expected auto or HOST:PORT")
    try:
        socket.create_connection((match[1], int(match[2])), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _found() -> str:
    """The address that Ray finds for "auto", which may be that of a cluster that has ended."""
    try:
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:  # it is no promise of Ray's
        return "auto"
    try:
        return canonicalize_bootstrap_address("auto") or "auto"
    except (ConnectionError, ValueError) as error:
        raise _unreachable("auto", " ".join(str(error).split())) from error


def _unreachable(address: str, reason: str) -> ConfigError:
    return ConfigError(
        f"Ray address {address!r}: no cluster answers ({reason}); `ray start --head` starts one "
        "and prints its address, and `ray status` shows it"
    )

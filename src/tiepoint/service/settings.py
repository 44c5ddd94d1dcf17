"""Settings of the service. Nothing here needs its extra, so that `--help` works without it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, fields
from pathlib import Path

from tiepoint.checks import check_whole
from tiepoint.config import DeviceName, EngineName, Precision, setting
from tiepoint.errors import ConfigError, import_extra
from tiepoint.network.cores import usable_cores

MOST_WORKERS = 4
"""Requests that run at once by default. The network takes all cores for each, one after the other;
more workers than this only decode images that then wait."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class LimitConfig:
    """Bounds of memory and of time; each is also an option of `tiepoint serve`."""

    max_bytes: int = setting(
        50_000_000, "Maximum size of a request with all its images, bytes.", metavar="BYTES"
    )
    max_pixels: int = setting(
        50_000_000,
        "Maximum number of pixels of an image, known from its header before it is decoded.",
        metavar="PX",
    )
    max_input_pixels: int = setting(
        12_000_000,
        "Maximum number of pixels of the network's input, over all scales and phases.",
        metavar="PX",
    )
    max_keypoints: int = setting(
        10_000, "Maximum number of keypoints per image that a request may get.", metavar="N"
    )
    workers: int | None = setting(
        None,
        f"Number of requests that run at once. None takes the usable cores, up to {MOST_WORKERS}.",
        metavar="N",
    )
    queue: int = setting(
        32, "Number of further requests that wait. One more gets status 429.", metavar="N"
    )
    receive_seconds: int = setting(
        30, "Time in which a request's header must arrive, and its body.", metavar="S"
    )
    timeout_seconds: int = setting(
        60, "Time from the last byte of a request to its answer, waiting included.", metavar="S"
    )
    send_seconds: int = setting(120, "Time in which a client must take its answer.", metavar="S")
    stop_seconds: int = setting(
        30, "Time that running requests have to end after SIGTERM or SIGINT.", metavar="S"
    )
    connections: int = setting(
        512, "Maximum number of open connections; beyond it the status is 503.", metavar="N"
    )

    def __post_init__(self) -> None:
        units = {"queue": (0, "requests"), "workers": (1, "requests, or None")}
        for each in fields(self):
            minimum, unit = units.get(each.name, (1, "a limit"))
            value = getattr(self, each.name)
            if value is not None or each.name != "workers":
                check_whole(each.name, value, minimum=minimum, unit=unit)

    @property
    def running(self) -> int:
        """Number of requests that run at once."""
        return self.workers or min(usable_cores(), MOST_WORKERS)


@dataclass(frozen=True)
class ServiceSettings:
    """What the service has, and whom it answers.

    Attributes:
        checkpoints: Checkpoints that requests may name, as for `Detector`; the first is the
            default. A folder is named by its last part.
        limits: Bounds of memory and of time.
        keys: API keys, any of which is accepted; none answers everyone.
        hosts: Names that the Host header may have, without port; None accepts any.
        root: Folder whose files requests may name; None reads uploads only.
        engine, device, precision, threads: As for `Detector`.
    """

    checkpoints: tuple[str, ...] = ("default",)
    limits: LimitConfig = field(default_factory=LimitConfig)
    keys: tuple[str, ...] = field(default=(), repr=False)
    hosts: frozenset[str] | None = frozenset(LOOPBACK_NAMES)
    root: Path | None = None
    engine: EngineName = "auto"
    device: DeviceName = "auto"
    precision: Precision = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise ConfigError("checkpoints is empty, expected at least one")
        if self.hosts is None and not self.keys:
            raise ConfigError("a service that others reach needs an API key: see docs/serve.md")
        if self.root is not None and not self.root.is_dir():
            raise ConfigError(f"root is {self.root}, expected a folder")


def check_installed(command: str) -> None:
    """Raise MissingExtraError without a library of the extra `serve`."""
    for library in ("fastapi", "uvicorn", "h11", "python_multipart", "prometheus_client"):
        import_extra(library, command, "serve")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host; a name that is no address counts as reachable."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def accepted_hosts(host: str, others: tuple[str, ...] = ()) -> frozenset[str] | None:
    """Names that the Host header may have when the service listens on `host`.

    Args:
        host: Address to listen on.
        others: Further names on loopback, of a reverse proxy.

    Returns:
        The names; None accepts any, because an API key is required there.

    Raises:
        ConfigError: A name with a port or a scheme, which no header would equal.
    """
    for name in others:
        if "/" in name or name.count(":") == 1:
            raise ConfigError(
                f"--allow-host {name}: expected the name alone, without scheme and port"
            )
    if not is_loopback(host):
        return None
    return frozenset(name.lower() for name in (*LOOPBACK_NAMES, host, *others))

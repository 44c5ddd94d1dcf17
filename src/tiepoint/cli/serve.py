"""`tiepoint serve`: arguments of the command line -> the service, until a signal stops it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import show
from tiepoint.cli.report import complain
from tiepoint.errors import ConfigError
from tiepoint.service.settings import (
    LimitConfig,
    ServiceSettings,
    accepted_hosts,
    check_installed,
    is_loopback,
)

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Host = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS", help="Address to listen on; others than this machine's need an API key."
    ),
]
Port = Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")]
Checkpoints = Annotated[
    list[str],
    typer.Option(
        "--checkpoint",
        "-c",
        metavar="NAME",
        help="Checkpoint that requests may name: a bundled name, a folder, or a Hub id org/name. "
        "Repeat it for several; the first is the default.",
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder whose files requests may name; without it, uploads only."
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        metavar="FILE",
        help="File of API keys, one a line, beside that of the variable TIEPOINT_API_KEY.",
    ),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="Further name in the Host header on loopback, such as a reverse proxy's; needs an API "
        "key.",
    ),
]
Limits = Annotated[dict[str, Any], options.Settings(LimitConfig)]


@options.command(
    app,
    "tiepoint serve",
    "tiepoint serve --port 9000 --root photos --checkpoint base --checkpoint small",
    "tiepoint serve --host 0.0.0.0 --api-key-file keys.txt",
    "curl -F image=@photo.jpg -F max_keypoints=500 127.0.0.1:8000/detect -o features.json",
)
def serve(
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    checkpoint: Checkpoints = [options.CHECKPOINT],  # noqa: B006 - typer copies it
    root: Root = None,
    api_key_file: KeyFile = None,
    allow_host: AllowedHosts = None,
    limits: Limits,
    engine: options.Engine = options.AUTO,
    device: options.Device = options.AUTO,
    precision: options.Precision = options.AUTO,
    threads: options.Threads = None,
) -> None:
    """Answer HTTP requests: /detect, /match, /register and /compare, described by /docs.

    Exit status: 0 stopped by SIGTERM or SIGINT, 1 stopped before all requests had ended, 2 wrong
    usage.
    """
    check_installed("tiepoint serve")
    from tiepoint.service.app import make_app
    from tiepoint.service.security import read_keys
    from tiepoint.service.server import StoppableServer, listen

    # Clients would fill the log with their mistakes, which they get as errors.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    keys = read_keys(api_key_file)
    names = tuple(allow_host or ())
    if not keys and (not is_loopback(host) or names):
        reached = f"--allow-host {names[0]}" if is_loopback(host) else f"--host {host}"
        raise ConfigError(
            f"{reached}: others reach the service, so it needs an API key: set the variable "
            "TIEPOINT_API_KEY, or give --api-key-file"
        )
    settings = ServiceSettings(
        checkpoints=tuple(checkpoint),
        limits=LimitConfig(**limits),
        keys=keys,
        hosts=accepted_hosts(host, names),
        root=root,
        engine=engine,
        device=device,
        precision=precision,
        threads=threads,
    )
    with listen(host, port) as listener:  # before the weights, which take longer
        server = StoppableServer(make_app(settings))
        address = f"[{host}]" if ":" in host else host
        show(f"serving on http://{address}:{listener.getsockname()[1]}, described by /docs")
        server.run(sockets=[listener])
    _end(is_clean=server.is_clean)


def _end(*, is_clean: bool) -> None:
    """Exit, even with a thread at work that cannot be stopped."""
    if is_clean:
        show("stopped", on_stderr=True)
        return
    complain("stopped before all requests had ended; give more --stop-seconds")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_codes.FAILED)

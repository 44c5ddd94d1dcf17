"""Serve a session on 127.0.0.1 until Ctrl-C."""

from __future__ import annotations

import socket
import threading
import webbrowser
from typing import Any

from tiepoint.errors import ConfigError, import_extra
from tiepoint.service.view.guard import Guard
from tiepoint.service.view.session import Session

ADDRESS = "127.0.0.1"
STOPPED_S = 1
"""Time that requests have at the end."""


def bind(port: int) -> socket.socket:
    """A socket that listens at this machine's own address; port 0 takes a free one.

    Requests wait until `serve` answers them.

    Raises:
        ConfigError: The port is in use or not allowed.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((ADDRESS, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"--port {port}: cannot be used ({error.strerror}); choose another, or leave it out"
        ) from error
    return bound


def make_app(session: Session, guard: Guard) -> Any:
    """The application with the routes of the page alone.

    Raises:
        MissingExtraError: FastAPI, of the extra `serve`, is not installed.
    """
    fastapi = import_extra("fastapi", "tiepoint view", "serve")
    from tiepoint.service.view.routes import make_router

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(make_router(session, guard))
    return app


def serve(session: Session, bound: socket.socket, guard: Guard) -> None:
    """Answer requests until SIGINT or SIGTERM.

    Args:
        bound: From `bind`; closed at the end.
    """
    uvicorn = import_extra("uvicorn", "tiepoint view", "serve")
    config = uvicorn.Config(
        make_app(session, guard), log_level="warning", access_log=False, lifespan="off",
        server_header=False, timeout_graceful_shutdown=STOPPED_S,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt:
        pass  # uvicorn raises it again after the requests have ended
    finally:
        bound.close()


def open_browser(guard: Guard) -> None:
    """Open the page in the browser of the system, if there is one."""
    threading.Thread(target=webbrowser.open, args=(guard.url,), daemon=True).start()

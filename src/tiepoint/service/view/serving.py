"""Serve a session on 127.0.0.1 until Ctrl-C."""

from __future__ import annotations

import socket
import threading
import webbrowser

from fastapi import FastAPI

from tiepoint.service.app import guarded_app
from tiepoint.service.server import StoppableServer
from tiepoint.service.settings import LimitConfig
from tiepoint.service.view.guard import Guard
from tiepoint.service.view.routes import make_router
from tiepoint.service.view.session import Session
from tiepoint.service.work import Work

ADDRESS = "127.0.0.1"
LIMITS = LimitConfig(max_bytes=10_000_000, stop_seconds=1)
"""Requests of the page have changes by hand, and no images."""


def make_app(session: Session, guard: Guard) -> FastAPI:
    """The application with the routes of the page alone, behind the guards of the service."""
    routers = [make_router(session, guard)]
    return guarded_app(Work(LIMITS), routers, guard.entrance, openapi_url=None)


def serve(session: Session, bound: socket.socket, guard: Guard) -> None:
    """Answer requests until SIGINT or SIGTERM.

    Args:
        bound: From `server.listen`.
    """
    try:
        StoppableServer(make_app(session, guard)).run(sockets=[bound])
    finally:
        session.close()


def open_browser(guard: Guard) -> None:
    """Open the page in the browser of the system, if there is one."""
    threading.Thread(target=webbrowser.open, args=(guard.url,), daemon=True).start()

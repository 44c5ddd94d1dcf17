"""The HTTP server: uvicorn with limits of time for headers and answers, and a stop that drains."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tiepoint.errors import ConfigError
from tiepoint.service.problems import JSON_TYPE, ProblemError
from tiepoint.service.settings import LimitConfig
from tiepoint.service.work import Work

if TYPE_CHECKING:
    from fastapi import FastAPI

TICK_S = 0.05
KEEP_ALIVE_S = 5
BACKLOG = 2048

logger = logging.getLogger(__name__)


class _Lingering:
    """A transport that is closed when the client has sent its request to the end.

    To close it with bytes unread resets the connection, and the client may lose the answer.
    """

    def __init__(self, transport: asyncio.Transport, protocol: TimedProtocol) -> None:
        self._transport, self._protocol = transport, protocol
        self._left: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close at once, or end the answer and discard what comes for a limited time."""
        protocol = self._protocol
        if self._left is not None or protocol.conn.their_state is not h11.SEND_BODY:
            self._transport.close()
            return
        seconds = protocol.limits.receive_seconds
        self._left = protocol.loop.call_later(seconds, self._transport.abort)
        protocol.flow.resume_reading()
        self._transport.write_eof()

    def abort(self) -> None:
        """Close at once."""
        self.forget()
        self._transport.abort()

    def forget(self) -> None:
        """Stop the time."""
        if self._left is not None:
            self._left.cancel()

    def is_closing(self) -> bool:
        """Whether nothing more is answered."""
        return self._left is not None or self._transport.is_closing()


class TimedProtocol(H11Protocol):
    """A connection that is closed when its client is too slow.

    uvicorn itself waits forever for the end of a header, and for a client to take its answer.
    """

    limits = LimitConfig()
    _head: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    _lingering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._lingering_transport = _Lingering(transport, self)
        super().connection_made(cast(asyncio.Transport, self._lingering_transport))
        if len(self.connections) > self.limits.connections:
            text = f"{self.limits.connections} connections are open already; ask again later"
            self._refuse(ProblemError(503, "too_many_connections", text))
            return
        self._head = self.loop.call_later(self.limits.receive_seconds, self._late_head)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._taking, self._lingering):
            if timer is not None:
                timer.cancel()
        self._lingering_transport.forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._time_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        self._time_head()
        if self.conn.their_state is h11.SEND_BODY:  # refused before its body was read
            # The rest is discarded: many clients read an answer only when they have sent all.
            seconds = self.limits.receive_seconds
            self._lingering = self.loop.call_later(seconds, self._end_linger, self.cycle)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(self.limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(ProblemError(400, "no_http", "not a valid HTTP request"))

    def _time_head(self) -> None:
        """Time the header that is awaited, from its first byte to its last."""
        waiting = self.conn.their_state is h11.IDLE
        begun = waiting and bool(self.conn.trailing_data[0])
        if not waiting and self._head is not None:
            self._head.cancel()
            self._head = None
        elif begun and self._head is None:
            self._head = self.loop.call_later(self.limits.receive_seconds, self._late_head)

    def _late_head(self) -> None:
        seconds = self.limits.receive_seconds
        text = f"the header did not arrive within {seconds} s"
        self._refuse(ProblemError(408, "slow_request", text, limit_seconds=seconds))

    def _end_linger(self, cycle: object) -> None:
        if cycle is self.cycle and self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()

    def _refuse(self, problem: ProblemError) -> None:
        """Answer outside of any request, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # within a request that the application has
            return
        body = problem.body()
        head = (
            f"HTTP/1.1 {problem.status} Error\r\ncontent-type: {JSON_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class StoppableServer(uvicorn.Server):
    """uvicorn, stopped by a signal: new requests get 503 until the running ones have ended.

    Args:
        app: From `make_app` or `guarded_app`.
    """

    def __init__(self, app: FastAPI) -> None:
        self._work: Work = app.state.work
        limits = self._work.limits
        protocol = type("Protocol", (TimedProtocol,), {"limits": limits})
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,
                backlog=BACKLOG,
            )
        )
        self._stop_seconds = limits.stop_seconds
        self._at_once = False
        self.is_clean = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal stops without waiting for requests."""
        self._at_once = self._work.stopping
        self._work.stopping = True

    async def main_loop(self) -> None:
        """Serve until a signal, then until no request is left or the time is over."""
        drain = asyncio.ensure_future(self._drain())
        try:
            await super().main_loop()
        finally:
            drain.cancel()
            self.is_clean = self._work.running == self._work.taken == 0

    async def _drain(self) -> None:
        while not self._work.stopping:
            await asyncio.sleep(TICK_S)
        logger.info("stopping: %d requests are running or waiting", self._work.taken)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._stop_seconds
        while self._work.taken and loop.time() < deadline and not self._at_once:
            await asyncio.sleep(TICK_S)
        self._work.abandon()
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        ConfigError: The address is in use, or is none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--host {host} --port {port}: cannot listen ({reason})") from error

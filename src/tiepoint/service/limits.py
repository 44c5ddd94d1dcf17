"""ASGI middleware: a request with a body takes a place, and is bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tiepoint.service.problems import ClientGoneError, ProblemError
from tiepoint.service.settings import LimitConfig
from tiepoint.service.work import Work

PIECE_BYTES = 1 << 18
"""Bytes of an answer to send at once, so that its place is kept until the client has taken it."""

WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")

logger = logging.getLogger(__name__)


class Limited:
    """Refuses early what is too much: before the body is read where the header shows it."""

    def __init__(self, app: ASGIApp, work: Work) -> None:
        self._app, self._limits, self._work = app, work.limits, work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._limits.send_seconds)
        try:
            with self._work.place():
                _check_length(scope, self._limits.max_bytes)
                await self._app(scope, _Body(receive, self._limits), answer)
        except ProblemError as problem:
            if answer.started:  # the connection is closed by the server
                raise
            await problem.send(send)
        except ClientGoneError:
            logger.debug("a client closed its connection")
            if not answer.started:  # for the metrics; no client sees it
                await ProblemError(499, "client_gone", "the client closed its connection").send(
                    send
                )


class _Body:
    """`receive` with limits of bytes and of time."""

    def __init__(self, receive: Receive, limits: LimitConfig) -> None:
        self._receive, self._limits = receive, limits
        self._bytes = 0
        deadline = asyncio.get_running_loop().time() + limits.receive_seconds
        self._deadline: float | None = deadline

    async def __call__(self) -> Message:
        limits = self._limits
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            seconds = limits.receive_seconds
            text = f"the request did not arrive within {seconds} s"
            raise ProblemError(408, "slow_request", text, limit_seconds=seconds) from error
        self._bytes += len(message.get("body", b""))
        if self._bytes > limits.max_bytes:
            raise too_many_bytes(limits.max_bytes)
        if not message.get("more_body", False):
            self._deadline = None
        return message


class _Answer:
    """`send` in pieces, and with a limit of time."""

    def __init__(self, send: Send, seconds: int) -> None:
        self._send, self._seconds = send, seconds
        self._deadline: float | None = None
        self.started = False

    async def __call__(self, message: Message) -> None:
        if not self.started:
            self.started = True
            self._deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._in_pieces(message)
        except TimeoutError as error:
            raise ClientGoneError from error

    async def _in_pieces(self, message: Message) -> None:
        body = message.get("body", b"")
        for start in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
            piece = body[start : start + PIECE_BYTES]
            await self._send({"type": message["type"], "body": piece, "more_body": True})
        if len(body) > PIECE_BYTES:
            rest = (len(body) - 1) // PIECE_BYTES * PIECE_BYTES
            message = {**message, "body": body[rest:]}
        await self._send(message)


def too_many_bytes(limit: int) -> ProblemError:
    """The answer to a request or a file above the limit of bytes."""
    return ProblemError(
        413, "too_many_bytes", f"more than the limit of {limit} bytes", limit_bytes=limit
    )


def _check_length(scope: Scope, limit: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit:  # digits, as the parser has checked
            raise too_many_bytes(limit)

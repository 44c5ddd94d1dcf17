"""Who may ask: API keys, the Host header and the origin of browsers' requests."""

from __future__ import annotations

import base64
import hmac
import logging
import os
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tiepoint.errors import ConfigError
from tiepoint.files.reading import text_lines
from tiepoint.service.problems import ProblemError

KEY_VARIABLE = "TIEPOINT_API_KEY"
LEAST_KEY_CHARACTERS = 16

OPEN_PATHS = ("/health", "/health/live", "/health/ready")
"""Paths that need no key, because probes have none."""

COMMON_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}
"""Headers of every answer that has none of its own: no cache keeps results, no browser runs them.
"""

_DEFAULT_PORTS = (None, 80, 443)

logger = logging.getLogger(__name__)


def read_keys(path: Path | None) -> tuple[str, ...]:
    """The API keys of a file, one a line, and of the environment variable TIEPOINT_API_KEY.

    Raises:
        ConfigError: The file cannot be read or has no key; a key that is too short or has spaces or
            other characters than printable ASCII.
    """
    keys = []
    if (from_environment := os.environ.get(KEY_VARIABLE)) is not None:
        keys.append(_checked(from_environment.strip(), KEY_VARIABLE))
    if path is not None:
        try:
            lines = [line.strip() for line in text_lines(path)]
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"--api-key-file {path}: cannot be read ({reason})") from error
        found = [_checked(line, f"--api-key-file {path}") for line in lines if line]
        if not found:
            raise ConfigError(f"--api-key-file {path}: no key, expected one a line")
        keys += found
    return tuple(keys)


def _checked(key: str, source: str) -> str:
    is_plain = key.isascii() and key.isprintable() and " " not in key  # a comment has spaces
    if len(key) < LEAST_KEY_CHARACTERS or not is_plain:
        raise ConfigError(
            f"{source}: a key of {len(key)} characters, expected {LEAST_KEY_CHARACTERS} or more, "
            "printable ASCII without spaces; make one with: openssl rand -hex 32"
        )
    return key


class Hardened:
    """ASGI middleware: headers of every answer; an unexpected error is logged, and not shown."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in COMMON_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            if scope["type"] != "http" or started:  # the server closes the connection
                raise
            logger.exception("an unexpected error")
            problem = ProblemError(500, "internal", "an unexpected error; the server's log has it")
            await problem.send(send_with_headers)


class Entrance(NamedTuple):
    """Who may ask.

    Attributes:
        keys: Accepted keys; none accepts every request.
        hosts: See `ServiceSettings.hosts`.
        cookie: Name of the cookie that holds the key of a page; None takes keys from headers. The
            parameter `token` of "/" is the key as well.
    """

    keys: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    cookie: str | None = None


class Guarded:
    """ASGI middleware: refuses other hosts' names, other sites' pages, and who has no key."""

    def __init__(self, app: ASGIApp, entrance: Entrance) -> None:
        self._app, self._entrance = app, entrance
        self._digests = [sha256(key.encode()).digest() for key in entrance.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._objection(scope)) is not None:
            await problem.send(send)
            return
        await self._app(scope, receive, send)

    def _objection(self, scope: Scope) -> ProblemError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        hosts = self._entrance.hosts
        if hosts is not None and _place(f"//{host}")[0] not in hosts:
            return ProblemError(
                421, "unknown_host", "the Host header names another host; see docs/serve.md"
            )
        origin = headers.get("origin")
        if origin is not None and _place(origin) != _place(f"//{host}"):
            return ProblemError(
                403, "other_origin", "a page of another site may not ask this service"
            )
        if not self._digests or scope["path"] in OPEN_PATHS or self._knows(scope):
            return None
        if self._entrance.cookie is not None:
            text = "open the page with the URL that tiepoint view printed: it contains a token"
            return ProblemError(403, "no_token", text)
        return ProblemError(
            401,
            "no_key",
            "no valid API key; give the header 'Authorization: Bearer KEY', or the key as the "
            "password of any user",
            headers={"WWW-Authenticate": 'Basic realm="tiepoint", charset="UTF-8", Bearer'},
        )

    def _knows(self, scope: Scope) -> bool:
        given = sha256(self._given(scope).encode("utf-8", "replace")).digest()
        matching = [hmac.compare_digest(given, known) for known in self._digests]
        return any(matching)  # after all were compared, so that the time depends on no key

    def _given(self, scope: Scope) -> str:
        request, cookie = Request(scope), self._entrance.cookie
        if cookie is None:
            return _key_of(request.headers)
        if scope["path"] == "/" and "token" in request.query_params:
            return request.query_params["token"]
        return request.cookies.get(cookie, "")


def _key_of(headers: Headers) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":  # which browsers ask their user for
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, no ASCII, or no UTF-8
            return ""
    return headers.get("x-api-key", "")


def _place(url: str) -> tuple[str | None, int | None]:
    """Host in lower case and port; the usual ports are one. (None, None) without a host."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None, None
    return host, None if port in _DEFAULT_PORTS else port

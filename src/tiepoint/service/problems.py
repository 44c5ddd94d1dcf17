"""Errors of the service: one shape of JSON, a status, and messages without the server's paths."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from starlette.types import Send

from tiepoint.errors import (
    CheckpointError,
    ConfigError,
    EngineError,
    ImageError,
    MissingExtraError,
    TiepointError,
    TooManyPixelsError,
)

JSON_TYPE = "application/json"

_SETTING = re.compile(r"^(\w+) (?:is|are|holds|has) (.+), expected (.+)$", re.DOTALL)
_ADVICE = re.compile(r"; raise max_pixels or \w+ if you trust the file$")
_PATH = re.compile(r"(?<![\w:/.])(?:/[^/\s:;,'\"()]+){2,}|\b[A-Za-z]:\\[^\s:;,'\"()]+")


class ProblemError(Exception):
    """An answer that is no result.

    Args:
        status: HTTP status.
        code: Name of the kind of error, for programs.
        message: What came, what was expected, what to do.
        headers: Further headers.
        details: Further members of the JSON object, such as `setting` and `limit`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers, self.details = dict(headers or {}), details

    def body(self) -> bytes:
        """The JSON text."""
        error = {"code": self.code, "message": self.message, **self.details}
        text = json.dumps({"error": error}, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace")  # paths may hold lone surrogates

    async def send(self, send: Send) -> None:
        """Answer a request with this error, from outside the routes."""
        body = self.body()
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        headers += [
            (b"content-type", JSON_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class ClientGoneError(Exception):
    """The client closed its connection before it was answered."""


def problem_of(error: TiepointError, settings: Collection[str], **details: Any) -> ProblemError:
    """The answer to an error of the library.

    Args:
        settings: Names of the request's settings, for `setting` in the answer.
        details: Further members, such as the part of the request.
    """
    message = without_paths(str(error))
    if isinstance(error, TooManyPixelsError):
        return ProblemError(413, "too_many_pixels", _ADVICE.sub("", message), **details)
    if isinstance(error, ImageError):
        return ProblemError(422, "unreadable_image", message, **details)
    if isinstance(error, MissingExtraError):
        return ProblemError(501, "not_installed", message, **details)
    if isinstance(error, ConfigError):
        if (parts := _SETTING.match(message)) and parts[1] in settings:
            details |= {"setting": parts[1], "got": parts[2], "expected": parts[3]}
        elif (name := message.partition(" ")[0]) in settings:
            details["setting"] = name
        return ProblemError(422, "invalid_setting", message, **details)
    if isinstance(error, EngineError | CheckpointError):
        return ProblemError(500, "engine_failed", message, **details)
    return ProblemError(422, "invalid_request", message, **details)


def without_paths(message: str) -> str:
    """A message in which absolute paths are replaced, because clients need not know them."""
    return _PATH.sub("(a path of the server)", message)

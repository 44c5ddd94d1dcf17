"""The format of an answer: JSON, NumPy's .npz or PNG, by `?format=` or the Accept header."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from tiepoint.checks import shown
from tiepoint.formats import as_json
from tiepoint.service.problems import JSON_TYPE, ProblemError

Format = Literal["json", "npz", "png"]

TYPES: dict[Format, str] = {"json": JSON_TYPE, "npz": "application/x-npz", "png": "image/png"}
_ACCEPTED: dict[str, Format] = {
    **{kind: name for name, kind in TYPES.items()},
    "application/zip": "npz",
    "application/octet-stream": "npz",
    "image/*": "png",
    "application/*": "json",
    "*/*": "json",
}


class Answer(NamedTuple):
    """The body of an answer, and its format."""

    body: bytes
    form: Format

    def response(self) -> Response:
        """As a response of Starlette."""
        return Response(self.body, media_type=TYPES[self.form])


def format_of(request: Request) -> Format:
    """The format that a request asks for.

    Raises:
        ProblemError: An unknown one, or other parameters in the query.
    """
    for name in request.query_params:
        if name != "format":
            raise ProblemError(
                422,
                "unknown_parameter",
                f"unknown parameter {shown(name)} in the query, expected 'format'; settings are "
                "fields of the form",
            )
    given = request.query_params.get("format")
    if given is None:
        return _accepted(request.headers.get("accept", "*/*"))
    for form in TYPES:
        if given == form:
            return form
    choices = ", ".join(TYPES)
    raise ProblemError(
        422,
        "unknown_format",
        f"format is {shown(given)}, expected one of {choices}",
        setting="format",
        got=shown(given),
        expected=choices,
    )


def _accepted(header: str) -> Format:
    """The format of the highest quality in an Accept header, the first of several."""
    best: tuple[float, Format] | None = None
    for entry in header.lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        form = _ACCEPTED.get(kind)
        if form is not None and quality > (best[0] if best else 0):
            best = quality, form
    if best is None:
        kinds = ", ".join(TYPES.values())
        raise ProblemError(406, "not_acceptable", f"the Accept header has none of {kinds}")
    return best[1]


def shortest(values: NDArray[np.float32]) -> list[Any]:
    """Numbers as lists; JSON then has the fewest digits that give the same float32 again."""
    digits: list[Any] = values.astype("U32").astype(np.float64).tolist()
    return digits


def json_answer(values: dict[str, Any]) -> Answer:
    """Plain values as JSON."""
    return Answer(json.dumps(as_json(values, "answer"), ensure_ascii=False).encode(), "json")


def png_answer(picture: NDArray[np.uint8]) -> Answer:
    """H W 3 RGB as PNG."""
    return Answer(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes(), "png")

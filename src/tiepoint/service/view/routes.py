"""The routes of the page: files, images by id, keypoints, registrations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from tiepoint._version import __version__
from tiepoint.errors import TiepointError
from tiepoint.registration.models import PLANE_MODELS
from tiepoint.service.problems import JSON_TYPE, ProblemError
from tiepoint.service.view import answers, pixels
from tiepoint.service.view.guard import Guard
from tiepoint.service.view.large import LargeSource
from tiepoint.service.view.session import Session

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load."""
PAGE = Path(__file__).parent / "page"
FILES = {
    "view.js": "text/javascript; charset=utf-8",
    "view.css": "text/css; charset=utf-8",
    "openseadragon.js": "text/javascript; charset=utf-8",
    "openseadragon.LICENSE.txt": "text/plain; charset=utf-8",
}
"""Files of the page besides index.html, and their types."""

MOST_ITEMS = 200
BINARY, PNG = "application/octet-stream", "image/png"


def make_router(session: Session, guard: Guard) -> APIRouter:
    """The routes of one session.

    Args:
        session: What is shown.
        guard: Its token, for the cookie of the page.
    """
    router = APIRouter()
    _add_page(router, guard)
    _add_lists(router, session)
    _add_images(router, session)
    _add_pairs(router, session)
    return router


def _add_page(router: APIRouter, guard: Guard) -> None:
    def page(request: Request) -> Response:
        if "token" not in request.query_params:
            page = _file("index.html", "text/html; charset=utf-8")
            page.headers["content-security-policy"] = POLICY
            return page
        response = RedirectResponse("/", 303)  # the token leaves the address bar
        response.set_cookie(guard.cookie, guard.token, httponly=True, samesite="strict")
        return response

    router.add_api_route("/", page, methods=["GET"])

    def file(name: str) -> Response:
        if name not in FILES:
            raise HTTPException(404, "no such file")
        return _file(name, FILES[name])

    router.add_api_route("/page/{name}", file, methods=["GET"])


def _add_lists(router: APIRouter, session: Session) -> None:
    items, pairs = list(session.items.values()), list(session.pairs.values())

    def about() -> Response:
        return _json(
            {
                "version": __version__,
                "items": len(items),
                "first": items[0].id if items else None,
                "pairs": [answers.pair_json(session, pair) for pair in pairs],
                "notes": list(session.notes),
                "models": list(PLANE_MODELS),
            }
        )

    router.add_api_route("/api/session", about, methods=["GET"])

    def some(offset: int = 0, limit: int = 60, q: str = "") -> Response:
        wanted = q.casefold()
        named = [item for item in items if wanted in item.name.casefold()]
        first = max(0, offset)
        part = named[first : first + min(max(0, limit), MOST_ITEMS)]
        known = session.known_features()
        return _json(
            {"total": len(named), "items": [answers.item_json(known, one) for one in part]}
        )

    router.add_api_route("/api/items", some, methods=["GET"])


def _add_images(router: APIRouter, session: Session) -> None:
    def image(item_id: str) -> Response:
        item = _found(session.items, item_id)
        return _json(
            {**answers.item_json(session.known_features(), item), **_tiles_json(session, item_id)}
        )

    router.add_api_route("/api/images/{item_id}", image, methods=["GET"])

    def source(source_id: str) -> Response:
        return _json(_tiles_json(session, source_id))

    router.add_api_route("/api/sources/{source_id}", source, methods=["GET"])

    def tile(source_id: str, level: int, column: int, row: int) -> Response:
        return _answer(lambda: pixels.tile(session.source(source_id), level, column, row), PNG)

    router.add_api_route("/api/tiles/{source_id}/{level}/{column}/{row}", tile, methods=["GET"])

    def thumbnail(item_id: str) -> Response:
        return _answer(lambda: session.thumbnail(item_id), "image/jpeg")

    router.add_api_route("/api/images/{item_id}/thumbnail", thumbnail, methods=["GET"])

    def patch(item_id: str, x: float, y: float) -> Response:
        if not (math.isfinite(x) and math.isfinite(y)):
            raise HTTPException(422, "x and y are px of the image")
        return _answer(lambda: pixels.patch(session.source(item_id), x, y), PNG)

    router.add_api_route("/api/images/{item_id}/patch", patch, methods=["GET"])

    def points(item_id: str, nms_radius: int | None = None, tiled: bool = False) -> Response:
        return _answer(lambda: answers.points(session, item_id, nms_radius, in_tiles=tiled), BINARY)

    router.add_api_route("/api/images/{item_id}/points", points, methods=["GET"])

    def nearest(item_id: str, index: int, nms_radius: int | None = None) -> Response:
        return _answer(lambda: answers.nearest(session, item_id, index, nms_radius), JSON_TYPE)

    router.add_api_route("/api/images/{item_id}/nearest", nearest, methods=["GET"])


def _add_pairs(router: APIRouter, session: Session) -> None:
    async def fit(pair_id: str, request: Request) -> Response:
        body = await _body(request)
        return await run_in_threadpool(
            _answer, lambda: answers.fitted(session, pair_id, answers.edit_of(body)), BINARY
        )

    router.add_api_route("/api/pairs/{pair_id}/fit", fit, methods=["POST"])

    def nearest(pair_id: str, side: str, index: int) -> Response:
        return _answer(lambda: answers.nearest_in_pair(session, pair_id, side, index), JSON_TYPE)

    router.add_api_route("/api/pairs/{pair_id}/nearest", nearest, methods=["GET"])


async def _body(request: Request) -> Any:
    """The JSON of a request."""
    try:
        return json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise HTTPException(422, f"not JSON: {error}") from error


def _tiles_json(session: Session, source_id: str) -> dict[str, Any]:
    """Size and levels of tiles, or the reason why there are none."""
    if source_id.partition("-")[0] not in {*session.items, *session.pairs}:
        raise HTTPException(404, "no such image")
    try:
        source = session.source(source_id)
        height, width = source.size_hw
    except KeyError as error:
        raise HTTPException(404, "no such image") from error
    except (TiepointError, OSError, MemoryError) as error:
        return {"source": source_id, "error": str(error) or type(error).__name__}
    levels = pixels.level_count((height, width))
    return {
        "source": source_id, "width": width, "height": height, "levels": levels,
        "tile": pixels.TILE_PX, "error": None, "windowed": isinstance(source, LargeSource),
    }  # fmt: skip


def _found(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise HTTPException(404, "no such image")
    return values[name]


def _answer(make: Callable[[], bytes], kind: str) -> Response:
    """What a function returns; its error is the answer, with the user's own paths."""
    try:
        return Response(make(), media_type=kind)
    except KeyError as error:
        raise HTTPException(404, "no such image") from error
    except (TiepointError, OSError, MemoryError) as error:
        text = str(error) or type(error).__name__
        raise ProblemError(422, "not_shown", text) from error


def _json(value: Any) -> Response:
    text = json.dumps(value, allow_nan=False)  # ASCII: names may hold lone surrogates
    return Response(text, media_type="application/json")


def _file(name: str, kind: str) -> Response:
    return Response((PAGE / name).read_bytes(), media_type=kind)

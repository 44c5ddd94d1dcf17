"""The application: routes inside, limits, keys and metrics around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tiepoint._version import __version__
from tiepoint.service import reference
from tiepoint.service.limits import Limited
from tiepoint.service.metrics import Metered, Metrics
from tiepoint.service.models import Limits, Models
from tiepoint.service.problems import JSON_TYPE, ProblemError
from tiepoint.service.root import Root
from tiepoint.service.routes import ROUTERS
from tiepoint.service.security import Entrance, Guarded, Hardened
from tiepoint.service.service import Service
from tiepoint.service.settings import ServiceSettings
from tiepoint.service.work import Work

DESCRIPTION = """\
Local keypoints from images: detection, matching, registration and comparison.

Images are parts of a multipart form, and settings are its fields, as text. Every error is JSON:
`{"error": {"code": ..., "message": ...}}`.
"""


def make_app(settings: ServiceSettings, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """The service as an ASGI application; loads its checkpoints.

    Args:
        settings: Checkpoints, limits, keys, hosts, root.
        routers: Further routes; `service.service_of(request)` gives them what is shared. Requests
            with a body take a place of the queue there too.

    Returns:
        The application, with a `Service` as `app.state.service`. Serve it by
        `server.StoppableServer`, which also bounds the time of headers.

    Raises:
        CheckpointError, ConfigError, MissingExtraError: As for `Detector`.
    """
    work = Work(settings.limits)
    service = Service(
        settings,
        Models(settings),
        Limits(settings.limits, work),
        work,
        None if settings.root is None else Root(settings.root),
    )
    entrance = Entrance(settings.keys, settings.hosts)
    all_routers = (*ROUTERS, reference.router, *routers)
    app = guarded_app(work, all_routers, entrance, title="tiepoint", description=DESCRIPTION)
    app.state.service = service
    return app


def guarded_app(
    work: Work, routers: Iterable[APIRouter], entrance: Entrance, **about: Any
) -> FastAPI:
    """Routes with limits, keys, metrics, headers and one shape of errors around them.

    Args:
        work: Places of requests with a body, and their limits.
        entrance: Who may ask.
        about: Title and the like, for FastAPI.

    Returns:
        The application, with `app.state.work`. Serve it by `server.StoppableServer`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        work.stop()

    app = FastAPI(
        version=__version__,
        docs_url=None,  # its page loads scripts of another host
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        **about,
    )
    app.state.work, app.state.metrics = work, Metrics(work)
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    # The last is the outermost.
    app.add_middleware(Limited, work=work)
    app.add_middleware(Guarded, entrance=entrance)
    app.add_middleware(Metered, metrics=app.state.metrics)
    app.add_middleware(Hardened)
    return app


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return Response(error.body(), error.status, error.headers, JSON_TYPE)


async def _http_problem(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, and errors of other routers."""
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    headers = dict(error.headers or {})
    problem = ProblemError(error.status_code, code, str(error.detail), headers=headers)
    return await _problem(request, problem)


async def _invalid(request: Request, error: Exception) -> Response:
    """Parameters of other routers that FastAPI refuses; the values are not repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    text = f"{name}: {first['msg']}"
    return await _problem(request, ProblemError(422, "invalid_request", text, setting=name))

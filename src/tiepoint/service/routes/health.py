"""`GET /health`, `/health/live`, `/health/ready` and `/metrics`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from tiepoint._version import __version__
from tiepoint.service import schemas
from tiepoint.service.service import service_of
from tiepoint.service.work import stopping

router = APIRouter(tags=["operation"])

STOPPING: dict[int | str, dict[str, Any]] = {
    503: {"model": schemas.ErrorAnswer, "description": "The service is stopping."}
}


@router.get("/health", summary="State of the service")
@router.get("/health/live", summary="Whether the process answers")
async def live(request: Request) -> schemas.Health:
    """The state; status 200 as long as the process answers."""
    service = service_of(request)
    return schemas.Health(
        live=True,
        ready=not service.work.stopping,
        checkpoints=list(service.models.names),
        version=__version__,
    )


@router.get("/health/ready", summary="Whether the service takes requests", responses=STOPPING)
async def ready(request: Request) -> schemas.Health:
    """The state; status 503 while the service stops."""
    if service_of(request).work.stopping:
        raise stopping()
    return await live(request)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Requests by route and status, their durations, and the places that are taken."""
    body, media_type = request.app.state.metrics.text()
    return Response(body, headers={"content-type": media_type})

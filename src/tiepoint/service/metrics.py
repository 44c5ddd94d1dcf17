"""Metrics for Prometheus, one registry for each app, labelled by route and never by path."""

from __future__ import annotations

import logging
import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tiepoint.service.work import Work

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
OTHER = "other"
"""Route of requests that were refused before one was found, and of unknown paths."""

logger = logging.getLogger(__name__)


class Metrics:
    """Counters of one app."""

    def __init__(self, work: Work) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._requests = Counter(
            "tiepoint_requests", "Requests.", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "tiepoint_request_seconds",
            "Time from the header of a request to the end of its answer.",
            ("route",),
            registry=self._registry,
            buckets=BUCKETS_S,
        )
        in_flight = Gauge(
            "tiepoint_requests_in_flight", "Requests, waiting or running.", registry=self._registry
        )
        in_flight.set_function(lambda: work.taken)
        running = Gauge("tiepoint_requests_running", "Threads at work.", registry=self._registry)
        running.set_function(lambda: work.running)

    def text(self) -> tuple[bytes, str]:
        """The exposition and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def add(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class Metered:
    """ASGI middleware: counts requests, and logs them at level INFO without what they carry."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def noticed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noticed)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", OTHER)
            self._metrics.add(route, status, seconds)
            logger.info("%s %s %d %.0f ms", scope["method"], route, status, 1000 * seconds)

"""What the routes share: settings, models, limits, and one way to run a request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from tiepoint.errors import TiepointError
from tiepoint.service.answers import Answer
from tiepoint.service.models import Limits, Models
from tiepoint.service.problems import problem_of
from tiepoint.service.root import Root
from tiepoint.service.settings import ServiceSettings
from tiepoint.service.work import Work


@dataclass(frozen=True)
class Service:
    """Everything that lives as long as the process; nothing of a request is in it.

    Attributes:
        settings: As given to `make_app`.
        models: The loaded checkpoints.
        limits: Bounds of one request's work.
        work: Places and threads.
        root: Folder whose files requests may name, or None.
    """

    settings: ServiceSettings
    models: Models
    limits: Limits
    work: Work
    root: Root | None

    async def answer(
        self, request: Request, names: Collection[str], work: Callable[[], Answer]
    ) -> Response:
        """Run a request in a thread.

        Args:
            request: All of whose body was received.
            names: Names of its settings, for errors.
            work: Returns the answer.

        Raises:
            ProblemError: An error of the library, or too late.
        """

        def safely() -> Answer:
            with as_problem(names):
                return work()

        answer = await self.work.run(safely, request.receive)
        return answer.response()


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


@contextmanager
def as_problem(names: Collection[str]) -> Iterator[None]:
    """Raise errors of the library as `problem_of` has them; `names` are the request's settings."""
    try:
        yield
    except TiepointError as error:
        raise problem_of(error, names) from error

"""Fields that several routes have, and the way of every request through the service."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from fastapi import Request, Response

from tiepoint.config import DetectionConfig, ProcessorConfig
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.formats.fields import CONVENTION
from tiepoint.images.reading import SourceImage
from tiepoint.service.answers import Answer, Format, format_of
from tiepoint.service.models import Model
from tiepoint.service.service import Service, as_problem, service_of
from tiepoint.service.uploads import Form, form_of

CHECKPOINT = "checkpoint"

MOST_LEARNED_KEYPOINTS = 4096
"""Keypoints per image for a learned matcher, whose memory and time grow with their square."""

OF_DETECTION = tuple(
    name for config in (ProcessorConfig, DetectionConfig) for name in config.__dataclass_fields__
)
"""Settings of `Detector`."""

CHECKPOINT_SCHEMA: dict[str, Any] = {
    "type": "string",
    "description": "Checkpoint: one of those that /health lists. Default: the first.",
}

A_AND_B = {
    "a": "Image file A.",
    "b": "Image file B.",
    "mask_a": "Mask of A; black and transparent pixels get no keypoints.",
    "mask_b": "Mask of B.",
}
"""Parts of a request with two images, and what they are; the masks are optional."""

FACTS: dict[str, Any] = {"convention": CONVENTION}
"""What every answer of two images states."""


class Asked(NamedTuple):
    """A request whose form has arrived.

    Attributes:
        service: What all requests share.
        form: Images and texts.
        form_name: Format of the answer.
    """

    service: Service
    form: Form
    form_name: Format

    @property
    def model(self) -> Model:
        """The checkpoint that the request names."""
        return self.service.models.get(self.form.texts.get(CHECKPOINT))

    def image(self, part: str = "image", mask: str = "mask") -> SourceImage:
        """Decode a part, and its mask if there is one."""
        images = self.form.images
        return self.service.limits.image(images[part], images.get(mask))

    def pair(self) -> tuple[SourceImage, SourceImage]:
        """Decode images A and B."""
        return self.image("a", "mask_a"), self.image("b", "mask_b")


async def answered(
    request: Request,
    images: Collection[str],
    fields: Collection[str],
    prepare: Callable[[Asked], Callable[[], Answer]],
) -> Response:
    """Receive a form, and run its work in a thread.

    Args:
        images: Parts that are images.
        fields: Parts that are texts.
        prepare: Checks the settings before the request waits for a worker; returns the work.

    Raises:
        ProblemError: See `form_of` and `Service.answer`.
    """
    service, form_name = service_of(request), format_of(request)
    async with form_of(request, images=images, fields=fields, root=service.root) as form:
        with as_problem(fields):
            work = prepare(Asked(service, form, form_name))
        return await service.answer(request, fields, work)


def check_learned(method: str, *counts: int) -> None:
    """Raise ConfigError for more keypoints than a learned matcher may get here."""
    if method == "learned" and max(counts) > MOST_LEARNED_KEYPOINTS:
        raise ConfigError(
            f"max_keypoints is {max(counts)}, expected at most {MOST_LEARNED_KEYPOINTS} for "
            "method 'learned' by this service"
        )


def sizes(a: Features, b: Features) -> dict[str, Any]:
    """Sizes and numbers of keypoints of two images."""
    return {"size_hw": [list(a.size_hw), list(b.size_hw)], "keypoints": [len(a), len(b)]}

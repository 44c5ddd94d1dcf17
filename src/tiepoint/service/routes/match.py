"""`POST /match`: two images -> the matches between them."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, cast

from fastapi import APIRouter, Request, Response

from tiepoint.config import DetectionConfig, DetectionOptions, MatchingConfig, ProcessorConfig
from tiepoint.features import Features, Matches
from tiepoint.formats import matches_npz
from tiepoint.matching.match import match as match_features
from tiepoint.plotting import plot_matches
from tiepoint.service import schemas
from tiepoint.service.answers import Answer, Format, format_of, json_answer, png_answer, shortest
from tiepoint.service.models import Limits, Model
from tiepoint.service.parameters import Parameters
from tiepoint.service.routes.common import (
    CHECKPOINT,
    CHECKPOINT_SCHEMA,
    FACTS,
    OF_DETECTION,
    check_learned,
    sizes,
)
from tiepoint.service.service import as_problem, service_of
from tiepoint.service.uploads import Form, form_of

router = APIRouter(tags=["images"])

DETECTION = Parameters(
    ProcessorConfig,
    DetectionConfig,
    only=[name for name in OF_DETECTION if name != "descriptors"],
)
MATCHING = Parameters(MatchingConfig)
IMAGES = {
    "a": "Image file A.",
    "b": "Image file B.",
    "mask_a": "Mask of A; black and transparent pixels get no keypoints.",
    "mask_b": "Mask of B.",
}
REQUIRED, OPTIONAL = ("a", "b"), ("mask_a", "mask_b")
FIELDS = (*DETECTION.names, *MATCHING.names, CHECKPOINT)


class _Settings(NamedTuple):
    detection: DetectionOptions
    matching: MatchingConfig


@router.post(
    "/match",
    summary="Match two images",
    responses=schemas.responses(
        schemas.MatchesAnswer,
        "Arrays pairs, scores, xy_a, xy_b and meta; `tiepoint.load_matches` reads it.",
        "Both images side by side, with lines between matches.",
    ),
    openapi_extra=schemas.request_body(
        IMAGES,
        REQUIRED,
        DETECTION,
        MATCHING,
        others={CHECKPOINT: CHECKPOINT_SCHEMA},
        example={"a": "left.jpg", "b": "right.jpg", "max_keypoints": 2000, "ratio": 0.9},
    ),
)
async def match(request: Request) -> Response:
    """Matches between two images, with the settings of `Detector` and of `match`."""
    service, form_name = service_of(request), format_of(request)
    async with form_of(
        request, required=REQUIRED, optional=OPTIONAL, fields=FIELDS, root=service.root
    ) as form:
        model = service.models.get(form.texts.get(CHECKPOINT))
        options = cast(DetectionOptions, DETECTION.given(form.texts))
        with as_problem(FIELDS):
            model.detector.provenance(**options)
            settings = _Settings(options, MatchingConfig(**MATCHING.given(form.texts)))

        def work() -> Answer:
            return _matched(service.limits, model, form, settings, form_name)

        return await service.answer(request, FIELDS, work)


def _matched(
    limits: Limits, model: Model, form: Form, settings: _Settings, form_name: Format
) -> Answer:
    images = form.images
    image_a = limits.image(images["a"], images.get("mask_a"))
    image_b = limits.image(images["b"], images.get("mask_b"))
    a = limits.detect(model, image_a, settings.detection)
    b = limits.detect(model, image_b, settings.detection)
    check_learned(settings.matching.method, len(a), len(b))
    matches = match_features(a, b, config=settings.matching)
    if form_name == "png":
        return png_answer(plot_matches(image_a, image_b, a, b, matches))
    if "checkpoint" in matches.meta:  # a folder is the server's
        matches = replace(matches, meta={**matches.meta, "checkpoint": model.name})
    if form_name == "npz":
        xy_a, xy_b = a.xy[matches.pairs[:, 0]], b.xy[matches.pairs[:, 1]]  # M 2
        return Answer(matches_npz.encode(matches, xy_a=xy_a, xy_b=xy_b), "npz")
    return _as_json(a, b, matches)


def _as_json(a: Features, b: Features, matches: Matches) -> Answer:
    return json_answer(
        {
            **FACTS,
            **sizes(a, b),
            "pairs": matches.pairs,
            "scores": shortest(matches.scores),
            "xy_a": shortest(a.xy[matches.pairs[:, 0]]),
            "xy_b": shortest(b.xy[matches.pairs[:, 1]]),
            "turned_deg": matches.turned_deg,
            "meta": matches.meta,
        }
    )

"""`POST /match`: two images -> the matches between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from fastapi import APIRouter, Request, Response

from tiepoint.config import DetectionConfig, DetectionOptions, MatchingConfig, ProcessorConfig
from tiepoint.features import Features, Matches
from tiepoint.formats import matches_npz
from tiepoint.matching.match import match as match_features
from tiepoint.plotting import plot_matches
from tiepoint.service import schemas
from tiepoint.service.answers import Answer, json_answer, png_answer, shortest
from tiepoint.service.models import Model
from tiepoint.service.parameters import Parameters
from tiepoint.service.routes.common import (
    A_AND_B,
    CHECKPOINT,
    CHECKPOINT_SCHEMA,
    FACTS,
    OF_DETECTION,
    Asked,
    answered,
    check_learned,
    sizes,
)

router = APIRouter(tags=["images"])

DETECTION = Parameters(
    ProcessorConfig,
    DetectionConfig,
    only=[name for name in OF_DETECTION if name != "descriptors"],
)
MATCHING = Parameters(MatchingConfig)
FIELDS = (*DETECTION.names, *MATCHING.names, CHECKPOINT)


@router.post(
    "/match",
    summary="Match two images",
    responses=schemas.responses(
        schemas.MatchesAnswer,
        "Arrays pairs, scores, xy_a, xy_b and meta; `tiepoint.load_matches` reads it.",
        "Both images side by side, with lines between matches.",
    ),
    openapi_extra=schemas.request_body(
        A_AND_B,
        DETECTION,
        MATCHING,
        others={CHECKPOINT: CHECKPOINT_SCHEMA},
        example={"a": "left.jpg", "b": "right.jpg", "max_keypoints": 2000, "ratio": 0.9},
    ),
)
async def match(request: Request) -> Response:
    """Matches between two images, with the settings of `Detector` and of `match`."""
    return await answered(request, A_AND_B, FIELDS, _prepared)


def _prepared(asked: Asked) -> Callable[[], Answer]:
    model, texts = asked.model, asked.form.texts
    options = cast(DetectionOptions, DETECTION.given(texts))
    model.detector.provenance(**options)
    config = MatchingConfig(**MATCHING.given(texts))
    return lambda: _matched(asked, model, options, config)


def _matched(
    asked: Asked, model: Model, options: DetectionOptions, config: MatchingConfig
) -> Answer:
    limits, (image_a, image_b) = asked.service.limits, asked.pair()
    a, b = (limits.detect(model, image, options) for image in (image_a, image_b))
    check_learned(config.method, len(a), len(b))
    matches = match_features(a, b, config=config)
    if asked.form_name == "png":
        return png_answer(plot_matches(image_a, image_b, a, b, matches))
    if "checkpoint" in matches.meta:  # a folder is the server's
        matches = replace(matches, meta={**matches.meta, "checkpoint": model.name})
    if asked.form_name == "npz":
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

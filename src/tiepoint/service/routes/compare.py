"""`POST /compare`: two images -> the transforms of several methods, and whether they agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from fastapi import APIRouter, Request, Response

from tiepoint.checks import shown
from tiepoint.config import (
    DetectionConfig,
    DetectionOptions,
    ProcessorConfig,
    RegistrationConfig,
    resolve_detection,
)
from tiepoint.evaluation import comparison_views as views
from tiepoint.evaluation.approaches import Approach, of_detector, of_opencv
from tiepoint.evaluation.compare import Comparison, check_methods
from tiepoint.evaluation.compare import compare as compare_methods
from tiepoint.evaluation.methods import BASELINES
from tiepoint.evaluation.settings import LEARNED_SUFFIX, CompareSettings
from tiepoint.features import Features
from tiepoint.formats.npz import packed
from tiepoint.images.reading import SourceImage
from tiepoint.service import schemas
from tiepoint.service.answers import Answer, json_answer, png_answer
from tiepoint.service.models import DEFAULT, Models, check_keypoints
from tiepoint.service.parameters import Parameters
from tiepoint.service.problems import ProblemError, without_paths
from tiepoint.service.routes.common import A_AND_B, FACTS, Asked, answered, check_learned
from tiepoint.service.service import Service

router = APIRouter(tags=["images"])

MOST_METHODS = 8
UNTIMED = 0
"""Repetitions: times measured beside other requests mean nothing."""
METHODS = "methods"
SETTINGS = Parameters(
    CompareSettings,
    RegistrationConfig,
    ProcessorConfig,
    only=(
        "max_side", "agree_px", "model", "max_keypoints", "threshold_px", "min_inliers", "guided",
        "seed",
    ),
)  # fmt: skip
OF_COMPARISON = ("max_side", "agree_px")
FIELDS = (METHODS, *SETTINGS.names)
OTHERS: dict[str, Any] = {
    METHODS: {
        "type": "string",
        "description": f"At most {MOST_METHODS} names with commas between: checkpoints that "
        f"/health lists, each also with {LEARNED_SUFFIX} for its learned matcher; "
        f"{', '.join(BASELINES)}. Default: the first checkpoint, sift and orb.",
    }
}


class _Settings(NamedTuple):
    methods: Sequence[str]
    comparison: CompareSettings
    registration: RegistrationConfig


@router.post(
    "/compare",
    summary="Compare methods on two images",
    responses=schemas.responses(
        schemas.ComparisonAnswer,
        "Arrays methods (names), matrices (NaN where a method has none), distances_px, and the "
        "JSON as text in summary.",
        "A row per method: both images, and lines between the inliers.",
    ),
    openapi_extra=schemas.request_body(
        A_AND_B,
        SETTINGS,
        others=OTHERS,
        example={"a": "scan1.jpg", "b": "scan2.jpg", "methods": "default,sift"},
    ),
)
async def compare(request: Request) -> Response:
    """The transforms from A to B by several methods, and which of them agree.

    A method that fails is no error: its `verdict` is failed, and `reason` explains it. Nothing is
    timed.
    """
    return await answered(request, A_AND_B, FIELDS, _prepared)


def _prepared(asked: Asked) -> Callable[[], Answer]:
    service, texts = asked.service, asked.form.texts
    given = SETTINGS.given(texts)
    of_comparison = {name: given.pop(name) for name in OF_COMPARISON if name in given}
    settings = _Settings(
        _names(texts.get(METHODS), service.models),
        CompareSettings(**of_comparison, repeats=UNTIMED),
        RegistrationConfig(**given),
    )
    check_methods(settings.methods, settings.registration)
    most = settings.registration.max_keypoints
    check_keypoints(most, service.limits.config.max_keypoints)
    if any(name.endswith(LEARNED_SUFFIX) for name in settings.methods):
        check_learned("learned", most)
    return lambda: _compared(asked, settings)


def _names(text: str | None, models: Models) -> list[str]:
    """The methods of a request, checkpoints by the names of /health.

    Raises:
        ProblemError: Another name, or too many.
    """
    if text is None:
        return [models.names[0], "sift", "orb"]
    names = []
    for given in filter(None, map(str.strip, text.split(","))):
        checkpoint = given.removesuffix(LEARNED_SUFFIX)
        if given in BASELINES:
            names.append(given)
        elif checkpoint in (DEFAULT, *models.names):
            names.append(models.get(checkpoint).name + given[len(checkpoint) :])
        else:
            known = ", ".join([*models.names, *BASELINES])
            raise _wrong(given, f"one of {known}; checkpoints also with {LEARNED_SUFFIX}")
    if len(names) > MOST_METHODS:
        raise _wrong(f"{len(names)} names", f"at most {MOST_METHODS}")
    return names


def _wrong(got: str, expected: str) -> ProblemError:
    return ProblemError(
        422,
        "invalid_setting",
        f"{METHODS} has {shown(got)}, expected {expected}",
        setting=METHODS,
        got=shown(got),
        expected=expected,
    )


def _compared(asked: Asked, settings: _Settings) -> Answer:
    image_a, image_b = asked.pair()
    result = compare_methods(
        image_a,
        image_b,
        settings.methods,
        config=settings.registration,
        settings=settings.comparison,
        threads=asked.service.settings.threads,
        source=lambda name: _approach(name, settings.comparison.max_side, asked.service),
    )
    public = (
        one if one.error is None else replace(one, error=without_paths(one.error))
        for one in result.methods
    )
    result = replace(result, methods=tuple(public))
    if asked.form_name == "png":
        return png_answer(views.comparison_picture(result))
    summary = {**FACTS, **views.comparison_json(result)}
    return json_answer(summary) if asked.form_name == "json" else _as_npz(result, summary)


def _approach(name: str, max_side: int | None, service: Service) -> Approach:
    """A method by its name, with the limits of the service."""
    processor, detection = ProcessorConfig(max_side=max_side), DetectionConfig()
    if name in BASELINES:
        approach = of_opencv(BASELINES[name], max_side)
    else:
        model = service.models.get(name.removesuffix(LEARNED_SUFFIX))
        options: DetectionOptions = {"max_side": max_side, "threshold": 0.0}
        approach = of_detector(name, model.detector, threads=service.settings.threads, **options)
        approach = replace(approach, settings={**approach.settings, "checkpoint": model.name})
        processor, detection = resolve_detection(model.detector.checkpoint.detection, options)

    def detect(image: SourceImage, k: int) -> Features:
        return service.limits.alone_if_large(
            image.size_hw, processor, detection, lambda: approach.detect(image, k)
        )

    return replace(approach, detect=detect)


def _as_npz(result: Comparison, summary: dict[str, Any]) -> Answer:
    matrices = np.full((len(result.methods), 3, 3), np.nan)
    for index, one in enumerate(result.methods):
        if one.registration is not None and one.registration.matrix is not None:
            matrices[index] = one.registration.matrix
    arrays = {
        "kind": np.array("tiepoint comparison"),
        "summary": np.array(json.dumps(summary)),
        "methods": np.array([one.name for one in result.methods]),
        "matrices": matrices,
        "distances_px": result.distances_px,
    }
    return Answer(packed(**arrays), "npz")

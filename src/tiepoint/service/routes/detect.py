"""`POST /detect`: one image -> its features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from fastapi import APIRouter, Request, Response

from tiepoint.config import DetectionConfig, DetectionOptions, ProcessorConfig
from tiepoint.formats import features_json, features_npz
from tiepoint.plotting import plot
from tiepoint.service import schemas
from tiepoint.service.answers import Answer, png_answer
from tiepoint.service.models import Model
from tiepoint.service.parameters import Parameters
from tiepoint.service.routes.common import (
    CHECKPOINT,
    CHECKPOINT_SCHEMA,
    OF_DETECTION,
    Asked,
    answered,
)

router = APIRouter(tags=["images"])

SETTINGS = Parameters(ProcessorConfig, DetectionConfig, only=OF_DETECTION)
IMAGES = {
    "image": "Image file: JPEG, PNG, TIFF, WebP and others.",
    "mask": "Mask of its size; black and transparent pixels get no keypoints.",
}
FIELDS = (*SETTINGS.names, CHECKPOINT)


@router.post(
    "/detect",
    summary="Detect keypoints",
    responses=schemas.responses(
        schemas.FeaturesAnswer,
        "Arrays xy, scores, descriptors, size_hw and meta; `tiepoint.load` reads it.",
        "The image with a ring around each keypoint.",
    ),
    openapi_extra=schemas.request_body(
        IMAGES,
        SETTINGS,
        others={CHECKPOINT: CHECKPOINT_SCHEMA},
        example={"image": "photo.jpg", "max_keypoints": 1000, "descriptors": False},
    ),
)
async def detect(request: Request) -> Response:
    """Keypoints, scores and descriptors of one image, with the settings of `Detector`."""
    return await answered(request, IMAGES, FIELDS, _prepared)


def _prepared(asked: Asked) -> Callable[[], Answer]:
    model, options = asked.model, cast(DetectionOptions, SETTINGS.given(asked.form.texts))
    model.detector.provenance(**options)
    return lambda: _detected(asked, model, options)


def _detected(asked: Asked, model: Model, options: DetectionOptions) -> Answer:
    image = asked.image()
    features: Any = model.public(asked.service.limits.detect(model, image, options))
    if asked.form_name == "png":
        return png_answer(plot(features, image))
    module = features_npz if asked.form_name == "npz" else features_json
    return Answer(module.encode(features), asked.form_name)

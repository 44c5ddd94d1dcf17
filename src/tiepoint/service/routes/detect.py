"""`POST /detect`: one image -> its features."""

from __future__ import annotations

from typing import Any, cast

from fastapi import APIRouter, Request, Response

from tiepoint.config import DetectionConfig, DetectionOptions, ProcessorConfig
from tiepoint.formats import features_json, features_npz
from tiepoint.plotting import plot
from tiepoint.service import schemas
from tiepoint.service.answers import Answer, Format, format_of, png_answer
from tiepoint.service.models import Limits, Model
from tiepoint.service.parameters import Parameters
from tiepoint.service.routes.common import CHECKPOINT, CHECKPOINT_SCHEMA, OF_DETECTION
from tiepoint.service.service import as_problem, service_of
from tiepoint.service.uploads import Form, form_of

router = APIRouter(tags=["images"])

SETTINGS = Parameters(ProcessorConfig, DetectionConfig, only=OF_DETECTION)
IMAGES = {
    "image": "Image file: JPEG, PNG, TIFF, WebP and others.",
    "mask": "Mask of its size; black and transparent pixels get no keypoints.",
}
REQUIRED, OPTIONAL = ("image",), ("mask",)
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
        REQUIRED,
        SETTINGS,
        others={CHECKPOINT: CHECKPOINT_SCHEMA},
        example={"image": "photo.jpg", "max_keypoints": 1000, "descriptors": False},
    ),
)
async def detect(request: Request) -> Response:
    """Keypoints, scores and descriptors of one image, with the settings of `Detector`."""
    service, form_name = service_of(request), format_of(request)
    async with form_of(
        request, required=REQUIRED, optional=OPTIONAL, fields=FIELDS, root=service.root
    ) as form:
        model = service.models.get(form.texts.get(CHECKPOINT))
        options = cast(DetectionOptions, SETTINGS.given(form.texts))
        with as_problem(FIELDS):
            model.detector.provenance(**options)  # refuses nonsense before the queue

        def work() -> Answer:
            return _detected(service.limits, model, form, options, form_name)

        return await service.answer(request, FIELDS, work)


def _detected(
    limits: Limits, model: Model, form: Form, options: DetectionOptions, form_name: Format
) -> Answer:
    image = limits.image(form.images["image"], form.images.get("mask"))
    features: Any = model.public(limits.detect(model, image, options))
    if form_name == "png":
        return png_answer(plot(features, image))
    module = features_npz if form_name == "npz" else features_json
    return Answer(module.encode(features), form_name)

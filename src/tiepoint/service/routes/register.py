"""`POST /register`: two images -> the transform from A to B, or the reason why there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from fastapi import APIRouter, Request, Response

from tiepoint.checks import check_choice
from tiepoint.config import (
    DetectionConfig,
    DetectionOptions,
    ProcessorConfig,
    RegistrationConfig,
    resolve_detection,
)
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.formats.npz import packed
from tiepoint.images.reading import SourceImage
from tiepoint.plotting import plot_matches, to_rgb8
from tiepoint.registration import epipolar, warping
from tiepoint.registration.models import TWO_VIEW_MODELS
from tiepoint.registration.register import register as register_images
from tiepoint.registration.result import Registration
from tiepoint.service import schemas
from tiepoint.service.answers import Answer, json_answer, png_answer
from tiepoint.service.models import Model, check_keypoints
from tiepoint.service.parameters import Parameters
from tiepoint.service.problems import ProblemError
from tiepoint.service.routes.common import (
    A_AND_B,
    CHECKPOINT,
    CHECKPOINT_SCHEMA,
    FACTS,
    Asked,
    answered,
    check_learned,
)

router = APIRouter(tags=["images"])

PictureName = Literal["overlay", "checkerboard", "warped", "matches"]

DETECTION = Parameters(
    ProcessorConfig, DetectionConfig, only=("max_side", "contrast", "scales", "phases")
)
REGISTRATION = Parameters(RegistrationConfig)
PICTURE, INTRINSICS = "picture", "intrinsics"
IMAGES = {**A_AND_B, "a": "Image file to align.", "b": "Image file that it is aligned with."}
FIELDS = (*DETECTION.names, *REGISTRATION.names, CHECKPOINT, PICTURE, INTRINSICS)
OTHERS: dict[str, Any] = {
    CHECKPOINT: CHECKPOINT_SCHEMA,
    PICTURE: {
        "type": "string",
        "enum": list(get_args(PictureName)),
        "default": "overlay",
        "description": "Picture of format png. overlay: A in red over B in cyan; checkerboard: "
        "squares of A and B; warped: A as B would show it; matches: lines between inliers.",
    },
    INTRINSICS: {
        "type": "string",
        "description": "Camera of both images for model 'essential', px: FX,FY,CX,CY; 8 numbers "
        "for A and then B.",
    },
}


class _Settings(NamedTuple):
    detection: DetectionOptions
    registration: RegistrationConfig
    picture: str
    cameras: list[list[list[float]]] | None


@router.post(
    "/register",
    summary="Register two images",
    responses=schemas.responses(
        schemas.RegistrationAnswer,
        "Arrays matrix (if registered), pairs, scores, xy_a, xy_b, inliers, and the JSON as text "
        "in summary.",
        "The picture that the field `picture` names; 422 if the images are not registered.",
    ),
    openapi_extra=schemas.request_body(
        IMAGES,
        DETECTION,
        REGISTRATION,
        others=OTHERS,
        example={"a": "scan1.jpg", "b": "scan2.jpg", "model": "similarity"},
    ),
)
async def register(request: Request) -> Response:
    """The transform from A to B with its uncertainty, or the reason why there is none.

    Images that do not align are no error: `success` is false, and `reason` explains it.
    """
    return await answered(request, IMAGES, FIELDS, _prepared)


def _prepared(asked: Asked) -> Callable[[], Answer]:
    model = asked.model
    settings = _settings(model, asked.form.texts)
    most = asked.service.limits.config.max_keypoints
    check_keypoints(settings.registration.max_keypoints, most)
    return lambda: _registered(asked, model, settings)


def _settings(model: Model, texts: Mapping[str, str]) -> _Settings:
    """The settings of a request; raises ConfigError before any work."""
    options = cast(DetectionOptions, {**DETECTION.given(texts), "threshold": 0.0})
    model.detector.provenance(**options)
    config = RegistrationConfig(**REGISTRATION.given(texts))
    check_learned(config.method, config.max_keypoints)
    picture = texts.get(PICTURE, "overlay")
    check_choice(PICTURE, picture, get_args(PictureName))
    text = texts.get(INTRINSICS)
    cameras = None if text is None else epipolar.cameras_of_text(text)
    epipolar.read_cameras(cameras, config.model)
    return _Settings(options, config, picture, cameras)


def _registered(asked: Asked, model: Model, settings: _Settings) -> Answer:
    image_a, image_b = asked.pair()
    options = settings.detection
    processor, detection = resolve_detection(model.detector.checkpoint.detection, options)

    def detect(image: SourceImage, **others: Any) -> Features:
        given = cast(DetectionOptions, {**options, **others})
        return asked.service.limits.alone_if_large(
            image.size_hw, processor, detection, lambda: model.detector(image, **given)
        )

    result = register_images(
        image_a,
        image_b,
        detector=cast(Detector, detect),  # which is only called
        intrinsics=settings.cameras,
        config=settings.registration,
    )
    if asked.form_name == "png":
        return png_answer(_picture(image_a, image_b, result, settings.picture))
    summary = {**FACTS, **result.summary()}
    return json_answer(summary) if asked.form_name == "json" else _as_npz(result, summary)


def _picture(
    image_a: SourceImage, image_b: SourceImage, result: Registration, name: str
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if not result.success:
        message = f"there is no picture of images that do not align: {result.reason}"
        raise ProblemError(422, "not_registered", message)
    if name == "matches":
        inliers = result.matches.take(result.inliers)
        return plot_matches(image_a, image_b, result.features_a, result.features_b, inliers)
    if result.model in TWO_VIEW_MODELS:
        raise ConfigError(
            f"picture is {name!r}, expected 'matches' for model {result.model!r}, which warps no "
            "image"
        )
    if name == "warped":
        warped: np.ndarray[Any, np.dtype[np.uint8]] = warping.warp(to_rgb8(image_a), result)
        return warped
    draw = warping.overlay if name == "overlay" else warping.checkerboard
    return draw(image_a, image_b, result)


def _as_npz(result: Registration, summary: dict[str, Any]) -> Answer:
    arrays: dict[str, Any] = {
        "kind": np.array("tiepoint registration"),
        "summary": np.array(json.dumps(summary)),
        "pairs": result.matches.pairs,
        "scores": result.matches.scores,
        "xy_a": result.xy_a,
        "xy_b": result.xy_b,
        "inliers": result.inliers,
    }
    if result.matrix is not None:
        arrays["matrix"] = result.matrix
    return Answer(packed(**arrays), "npz")

"""Schemas of requests and answers, for OpenAPI. Tests hold the answers to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tiepoint.service.answers import TYPES
from tiepoint.service.parameters import Parameters
from tiepoint.service.uploads import MULTIPART, PATH_SUFFIX, required_of

Size = tuple[int, int]
Point = tuple[float, float]
Row = tuple[float, float, float]
Convention = Literal["center0"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    convention: Convention = Field(
        description="Pixel convention: the centre of the top-left pixel is (0, 0).",
        examples=["center0"],
    )


class FeaturesAnswer(_Answer):
    """Features of one image, best score first; `tiepoint.load` reads it as a .json file."""

    size_hw: Size = Field(description="Height and width of the upright image, px.")
    meta: dict[str, Any] = Field(description="Name of the image, provenance, settings.")
    scores: list[float] = Field(description="N probabilities in 0..1.", examples=[[0.91, 0.87]])
    xy: list[Point] = Field(
        description="N positions, px of the upright image.", examples=[[[12.25, 40.5], [9.0, 7.5]]]
    )
    descriptors: list[list[float]] | None = Field(description="N vectors of unit length, or null.")
    covariance: list[tuple[Point, Point]] | None = Field(
        default=None, description="N covariances of the positions, px²."
    )
    scales_px: list[float] | None = Field(
        default=None, description="N scales: px of the image per px of the network's input."
    )
    descriptor_length: int | None = Field(
        default=None, description="Length of the descriptors, where there are no keypoints."
    )


class MatchesAnswer(_Answer):
    """Matches of two images, best score first."""

    size_hw: tuple[Size, Size] = Field(description="Height and width of A and of B, px.")
    keypoints: tuple[int, int] = Field(description="Number of keypoints of A and of B.")
    pairs: list[Size] = Field(description="M pairs: index of the keypoint in A and in B.")
    scores: list[float] = Field(description="M scores: cosines, or probabilities.")
    xy_a: list[Point] = Field(description="M positions in A, px.")
    xy_b: list[Point] = Field(description="M positions in B, px.")
    turned_deg: int = Field(
        description="Rotation of A that was matched, degrees counterclockwise.", examples=[0]
    )
    meta: dict[str, Any] = Field(description="How the matches were made.")


class Reprojection(BaseModel):
    """Distances of the inliers from the model, px of B; null without inliers."""

    model_config = ConfigDict(extra="forbid")

    median: float | None
    rms: float | None


class RegistrationAnswer(_Answer):
    """The transform from A to B, or the reason why there is none."""

    success: bool = Field(description="Whether the images are registered.", examples=[True])
    reason: str = Field(description="ok, or why the registration failed.", examples=["ok"])
    model: str = Field(description="Geometric model.", examples=["homography"])
    matrix: tuple[Row, Row, Row] | None = Field(
        description="Px of A to px of B, x_B ~ H x_A; or F or E with x_B^T F x_A = 0."
    )
    rotation: tuple[Row, Row, Row] | None = Field(description="R of an essential matrix.")
    translation: Row | None = Field(description="t of an essential matrix, of length 1.")
    keypoints: tuple[int, int] = Field(description="Number of keypoints of A and of B.")
    matches: int = Field(description="Number of matches.")
    inliers: int = Field(description="Number of matches that fit the model.")
    inlier_ratio: float = Field(description="Inliers among the matches, 0..1.")
    coverage: float = Field(description="Share of the overlap that contains inliers, 0..1.")
    agreement: float | None = Field(
        description="Share of keypoints whose surroundings look alike in both images, 0..1."
    )
    reprojection_px: Reprojection
    overlap_sd_px: float | None = Field(
        description="Standard deviation of a transformed point over the overlap, px of B."
    )
    corner_sd_px: float | None = Field(description="The same at the corners of A.")
    size_hw: tuple[Size, Size] = Field(description="Height and width of A and of B, px.")


class ComparedMethod(BaseModel):
    """One method of a comparison; one that ran also has the members of `RegistrationAnswer`."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description="Name of the method.", examples=["sift"])
    verdict: Literal["registered", "not registered", "failed"] = Field(
        description="Verdict of the checks of /register; failed if the method did not run."
    )
    success: bool = Field(description="Whether the images are registered.")
    reason: str = Field(description="ok, or why not.", examples=["ok"])
    settings: dict[str, Any] = Field(description="Weights and settings of the detection.")
    times_ms: None = Field(description="Always null: the service measures no times.")
    from_others_px: float | None = Field(
        description="Median distance from the transforms of the other registered methods, px of B."
    )
    in_consensus: bool | None = Field(
        description="Whether it is in the majority that agrees; null without one."
    )


class ComparisonAnswer(_Answer):
    """Several methods on two images, without ground truth; `tiepoint report` reads it."""

    kind: Literal["comparison"]
    a: str = Field(description="Name of the file of A.", examples=["a.jpg"])
    b: str = Field(description="Name of the file of B.", examples=["b.jpg"])
    size_hw: tuple[Size, Size] = Field(description="Height and width of A and of B, px.")
    versions: dict[str, str] = Field(description="Versions of tiepoint and OpenCV.")
    settings: dict[str, Any] = Field(description="Settings of all methods.")
    threads: dict[str, int] = Field(description="CPU cores of the networks and of OpenCV.")
    agree_px: float = Field(description="Largest distance of two transforms that agree, px of B.")
    consensus: list[str] = Field(description="Methods in the majority that agrees.")
    conclusion: str = Field(description="The agreement in a sentence.")
    spread_px: float | None = Field(description="Largest distance of two methods, px of B.")
    distances_px: list[list[float | None]] = Field(
        description="Distance of every two methods, px of B; null where one is not registered."
    )
    methods: list[ComparedMethod] = Field(description="The methods in the order asked for.")


class Error(BaseModel):
    """An error, for programs and for people; some have further members."""

    model_config = ConfigDict(extra="allow")

    code: str = Field(description="Kind of error.", examples=["invalid_setting"])
    message: str = Field(
        description="What came, what was expected, what to do.",
        examples=["max_keypoints is 0, expected a whole number >= 1 (keypoints, or None for all)"],
    )
    setting: str | None = Field(default=None, description="The field that is wrong.")
    got: str | None = Field(default=None, description="What came.")
    expected: str | list[str] | None = Field(default=None, description="What was expected.")
    part: str | None = Field(default=None, description="The image that is wrong.")


class ErrorAnswer(BaseModel):
    """Every answer that is no result."""

    error: Error


class Health(BaseModel):
    """State of the service."""

    live: bool = Field(description="Whether the process answers.", examples=[True])
    ready: bool = Field(description="Whether it takes requests.", examples=[True])
    checkpoints: list[str] = Field(
        description="Checkpoints that requests may name; the first is the default.",
        examples=[["default"]],
    )
    version: str = Field(description="Version of tiepoint.")


ERRORS: dict[int, str] = {
    400: "A broken multipart body.",
    401: "No valid API key.",
    403: "A page of another site asks, or a path is named without a folder.",
    404: "No such file below the folder.",
    406: "No format of the Accept header is known.",
    408: "The request arrived too slowly.",
    413: "Too many bytes, pixels, pixels of input or keypoints.",
    415: "No multipart request.",
    421: "The Host header names another host.",
    422: "An unknown field, a setting out of range, or a file that is no image.",
    429: "The queue is full: ask again after the time of Retry-After.",
    500: "An unexpected error.",
    501: "An extra is not installed.",
    503: "Stopping, or no worker was free in time.",
    504: "Too much work for the time limit.",
}


def responses(answer: type[BaseModel], npz: str, png: str) -> dict[int | str, dict[str, Any]]:
    """The answers of a route.

    Args:
        answer: Schema of its JSON.
        npz, png: What the other formats have.
    """
    binary = {"type": "string", "format": "binary"}
    done: dict[str, Any] = {
        "model": answer,
        "description": "The result, in the format of `?format=` or of the Accept header.",
        "content": {
            TYPES["npz"]: {"schema": {**binary, "description": npz}},
            TYPES["png"]: {"schema": {**binary, "description": png}},
        },
    }
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": text} for status, text in ERRORS.items()
    }
    return {200: done, **errors}


def request_body(
    images: Mapping[str, str],
    *groups: Parameters,
    others: Mapping[str, Any],
    example: Mapping[str, Any],
) -> dict[str, Any]:
    """The OpenAPI description of a multipart request and of its query.

    Args:
        images: Part -> what it is; those of `required_of` come as a file or as a path.
        groups: Settings.
        others: Further fields -> JSON schema.
        example: Values of some fields.
    """
    properties: dict[str, Any] = {
        name: {"type": "string", "format": "binary", "description": text}
        for name, text in images.items()
    }
    for group in groups:
        properties |= group.schemas()
    properties |= dict(others)
    paths = {
        f"{name}{PATH_SUFFIX}": {
            "type": "string",
            "description": f"Path of {name} below the folder of --root, in place of an upload.",
        }
        for name in images
    }
    schema = {
        "type": "object",
        "properties": {**properties, **paths},
        "additionalProperties": False,
        "allOf": [
            {"oneOf": [{"required": [name]}, {"required": [f"{name}{PATH_SUFFIX}"]}]}
            for name in required_of(images)
        ],
    }
    format_parameter = {
        "name": "format",
        "in": "query",
        "required": False,
        "schema": {"type": "string", "enum": list(TYPES)},
        "description": "Format of the answer; it takes precedence over the Accept header.",
    }
    content = {MULTIPART: {"schema": schema, "example": dict(example)}}
    return {
        "parameters": [format_parameter],
        "requestBody": {"required": True, "content": content},
    }

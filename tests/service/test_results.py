"""What the service answers is what the library returns."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tiepoint
from support.service import SMALL, Client, Part, picture, png, serving
from tiepoint import Detector, Features
from tiepoint.config import RegistrationConfig
from tiepoint.errors import ConfigError
from tiepoint.evaluation import approaches
from tiepoint.evaluation.approaches import Making, of_detector
from tiepoint.evaluation.compare import compare
from tiepoint.evaluation.comparison_views import comparison_json, comparison_picture
from tiepoint.evaluation.settings import CompareSettings
from tiepoint.registration import warping
from tiepoint.registration.register import register, registration_detector
from tiepoint.service import schemas
from tiepoint.weights.checkpoint import BUNDLED


def assert_equal(actual: Features, expected: Features) -> None:
    for name in ("xy", "scores", "descriptors", "covariance", "scales_px"):
        left, right = getattr(actual, name), getattr(expected, name)
        assert (left is None) == (right is None), name
        if left is not None:
            np.testing.assert_array_equal(left, right)
    assert actual.size_hw == expected.size_hw
    assert actual.provenance is not None and expected.provenance is not None
    assert actual.provenance.to_json() == expected.provenance.to_json()


@pytest.fixture(scope="module")
def views() -> tuple[bytes, bytes]:
    a, b = tiepoint.sample_views()
    return a.read_bytes(), b.read_bytes()


@pytest.mark.parametrize("form", ["json", "npz"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_keypoints": 40, "threshold": 0.0},
        {"max_keypoints": None, "scales": (1.0, 0.5), "phases": 4, "descriptors": False},
        {"max_side": 96, "nms_radius": 2, "subpixel": False, "covariance_scale": None},
        {"spread": True, "max_keypoints": 25, "contrast": "stretch", "border": 0},
    ],
)
def test_features_are_the_detectors_bit_for_bit(
    client: Client, detector: Detector, tmp_path: Path, form: str, settings: dict[str, Any]
) -> None:
    data = png(picture(1))
    answer = client.post(f"/detect?format={form}", image=data, **as_texts(settings))
    assert answer.status == 200, answer.body
    path = tmp_path / f"features.{form}"
    path.write_bytes(answer.body)
    expected = detector(data, **settings)
    assert len(expected) > 10
    assert_equal(tiepoint.load(path), expected)


def as_texts(settings: dict[str, Any]) -> dict[str, str]:
    def text(value: Any) -> str:
        if isinstance(value, tuple):
            return ",".join(map(str, value))
        return "none" if value is None else str(value).lower()

    return {name: text(value) for name, value in settings.items()}


def test_all_keypoints_are_returned_up_to_the_limit_of_the_service(detector: Detector) -> None:
    data = png(picture(2))
    count = len(detector(data, threshold=0.0))
    with serving(max_keypoints=count) as served:
        answer = served.client.post("/detect", image=data, threshold=0, descriptors="false")
        assert len(answer.json()["scores"]) == count
    with serving(max_keypoints=count - 1) as served:
        answer = served.client.post("/detect", image=data, threshold=0, descriptors="false")
        assert (answer.status, answer.error["code"]) == (413, "too_many_keypoints")


def test_a_mask_excludes_what_is_black(client: Client, detector: Detector) -> None:
    pixels = picture(3)
    mask = np.zeros(pixels.shape[:2], np.uint8)
    mask[:, 80:] = 255
    answer = client.post("/detect", image=png(pixels), mask=png(mask)).json()
    expected = detector(png(pixels), mask=mask)
    np.testing.assert_array_equal(np.float32(answer["xy"]), expected.xy)
    assert expected.xy[:, 0].min() > 70 and answer["meta"]["mask"] == "mask.png"


def test_the_name_of_the_upload_is_the_source_without_its_folders(client: Client) -> None:
    part = Part("image", png(picture()), "C:\\me\\../../etc/a b.png")
    assert client.post("/detect", part).json()["meta"]["source"] == "a b.png"


def test_a_picture_of_keypoints_is_that_of_plot(client: Client, detector: Detector) -> None:
    data = png(picture(4))
    answer = client.post("/detect?format=png", image=data, max_keypoints=30)
    assert answer.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(
        decoded(answer.body), tiepoint.plot(detector(data, max_keypoints=30), data)
    )


def decoded(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def test_matches_are_those_of_match(
    client: Client, detector: Detector, views: tuple[bytes, bytes], tmp_path: Path
) -> None:
    a, b = (detector(view, max_keypoints=300) for view in views)
    expected = tiepoint.match(a, b, ratio=0.9)
    fields: dict[str, Any] = {"max_keypoints": 300, "ratio": 0.9}
    answer = client.post("/match", a=views[0], b=views[1], **fields).json()
    assert len(expected) > 50
    np.testing.assert_array_equal(answer["pairs"], expected.pairs)
    np.testing.assert_array_equal(np.float32(answer["scores"]), expected.scores)
    np.testing.assert_array_equal(np.float32(answer["xy_a"]), a.xy[expected.pairs[:, 0]])
    np.testing.assert_array_equal(np.float32(answer["xy_b"]), b.xy[expected.pairs[:, 1]])

    packed = client.post("/match?format=npz", a=views[0], b=views[1], **fields).body
    (tmp_path / "matches.npz").write_bytes(packed)
    loaded = tiepoint.load_matches(tmp_path / "matches.npz")
    np.testing.assert_array_equal(loaded.pairs, expected.pairs)
    assert loaded.meta["settings"] == expected.meta["settings"]
    with np.load(tmp_path / "matches.npz") as arrays:
        np.testing.assert_array_equal(arrays["xy_b"], b.xy[expected.pairs[:, 1]])

    drawn = client.post("/match?format=png", a=views[0], b=views[1], **fields).body
    np.testing.assert_array_equal(
        decoded(drawn), tiepoint.plot_matches(views[0], views[1], a, b, expected)
    )


def test_a_registration_is_that_of_register(client: Client, views: tuple[bytes, bytes]) -> None:
    reference = registration_detector("small", device="cpu", precision="f32")
    expected = register(*views, detector=reference, max_keypoints=500)
    assert expected.success
    answer = client.post("/register", a=views[0], b=views[1], max_keypoints=500).json()
    assert answer == {"convention": "center0", **json.loads(json.dumps(expected.summary()))}
    fields = {"a": views[0], "b": views[1], "max_keypoints": 500}
    packed = client.post("/register?format=npz", **fields).body
    with np.load(BytesIO(packed)) as arrays:
        np.testing.assert_array_equal(arrays["matrix"], expected.matrix)
        np.testing.assert_array_equal(arrays["inliers"], expected.inliers)
        np.testing.assert_array_equal(arrays["xy_a"], expected.xy_a)
    for name, draw in {"overlay": warping.overlay, "checkerboard": warping.checkerboard}.items():
        drawn = client.post("/register?format=png", picture=name, **fields).body
        np.testing.assert_array_equal(decoded(drawn), draw(*views, expected))
    drawn = client.post("/register?format=png", picture="warped", **fields).body
    np.testing.assert_array_equal(decoded(drawn), tiepoint.warp(views[0], expected))
    assert decoded(client.post("/register?format=png", picture="matches", **fields).body).size


def test_a_comparison_is_that_of_compare(client: Client, views: tuple[bytes, bytes]) -> None:
    fields: dict[str, Any] = {
        "a": views[0], "b": views[1], "methods": "default,sift,orb", "max_keypoints": 400,
        "max_side": 400,
    }  # fmt: skip
    reference = registration_detector("small", device="cpu", precision="f32", max_side=400)
    expected = compare(
        *views,
        ("small", "sift", "orb"),
        config=RegistrationConfig(max_keypoints=400),
        settings=CompareSettings(max_side=400, repeats=0),
        source=lambda name: of_detector(name, reference) if name == "small" else Making(400)(name),
    )
    assert len(expected.consensus) == 3
    content = json.loads(json.dumps(comparison_json(expected)))
    answer = client.post("/compare", **fields).json()
    assert (answer.pop("a"), answer.pop("b")) == ("a.png", "b.png")
    assert answer == {"convention": "center0", **without(content, "a", "b")}
    packed = client.post("/compare?format=npz", **fields).body
    with np.load(BytesIO(packed)) as arrays:
        assert arrays["methods"].tolist() == ["small", "sift", "orb"]
        np.testing.assert_array_equal(arrays["distances_px"], expected.distances_px)
        for matrix, one in zip(arrays["matrices"], expected.methods, strict=True):
            assert one.registration is not None
            np.testing.assert_array_equal(matrix, one.registration.matrix)
    drawn = client.post("/compare?format=png", **fields).body
    np.testing.assert_array_equal(decoded(drawn), comparison_picture(expected))


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def test_a_method_that_fails_is_a_row_of_the_comparison(
    client: Client, views: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ConfigError("no learned matcher in /home/secret/matcher: train one")

    monkeypatch.setattr(approaches, "matcher_of", broken)
    fields = {"a": views[0], "b": views[1], "methods": "small+learned,orb"}
    answer = client.post("/compare", **fields)
    failed, orb = answer.json()["methods"]
    assert answer.status == 200 and failed["verdict"] == "failed" and orb["success"]
    assert "no learned matcher" in failed["reason"] and b"secret" not in answer.body
    with np.load(BytesIO(client.post("/compare?format=npz", **fields).body)) as arrays:
        assert np.isnan(arrays["matrices"][0]).all() and np.isfinite(arrays["matrices"][1]).all()


def test_images_that_do_not_align_are_an_answer_and_no_error(client: Client) -> None:
    fields = {"a": png(picture(5)), "b": png(np.full((64, 64), 128, np.uint8))}
    answer = client.post("/register", **fields)
    assert answer.status == 200
    assert answer.json()["success"] is False and "no keypoints in image B" in answer.body.decode()
    drawn = client.post("/register?format=png", **fields)
    assert (drawn.status, drawn.error["code"]) == (422, "not_registered")


def test_an_essential_matrix_takes_intrinsics(client: Client, views: tuple[bytes, bytes]) -> None:
    fields = {"a": views[0], "b": views[1], "model": "essential"}
    assert client.post("/register", **fields).error["message"].startswith('model "essential" needs')
    answer = client.post("/register", intrinsics="500,500,270,180", **fields)
    assert answer.json()["model"] == "essential"
    refused = client.post("/register", intrinsics="500,500", **fields)
    assert (refused.status, refused.error["setting"]) == (422, "intrinsics")
    drawn = client.post("/register?format=png", intrinsics="500,500,270,180", **fields)
    assert drawn.error["setting"] == "picture"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("text/html, image/*;q=0.8, */*;q=0.1", "image/png"),
        ("application/x-npz", "application/x-npz"),
        ("application/json;q=0.2, application/octet-stream", "application/x-npz"),
        ("image/png;q=nonsense, application/json;q=0.1", "application/json"),
    ],
)
def test_the_accept_header_chooses_the_format(client: Client, accept: str, kind: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    answer = client.post("/detect", image=png(picture()), headers=headers)
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    other = client.post("/detect?format=json", image=png(picture()), headers=headers)
    assert other.headers["content-type"] == "application/json"


def test_answers_follow_their_schemas(client: Client, views: tuple[bytes, bytes]) -> None:
    a, b = views
    for answer in (
        client.post("/detect", image=a, max_keypoints=20),
        client.post("/detect", image=a, max_keypoints=20, descriptors="false"),
        client.post("/detect", image=png(np.full((40, 40), 9, np.uint8))),  # no keypoints
    ):
        schemas.FeaturesAnswer.model_validate_json(answer.body, strict=True)
    for other in (b, png(np.full((40, 40), 9, np.uint8))):
        matches = client.post("/match", a=a, b=other, max_keypoints=20).body
        schemas.MatchesAnswer.model_validate_json(matches, strict=True)
        registration = client.post("/register", a=a, b=other).body
        schemas.RegistrationAnswer.model_validate_json(registration, strict=True)
        comparison = client.post("/compare", a=a, b=other).body
        schemas.ComparisonAnswer.model_validate_json(comparison, strict=True)
        for one in json.loads(comparison)["methods"]:
            members = {
                name: one[name] for name in schemas.RegistrationAnswer.model_fields if name in one
            }
            text = json.dumps({"convention": "center0", **members})
            schemas.RegistrationAnswer.model_validate_json(text, strict=True)
    schemas.Health.model_validate_json(client.get("/health").body, strict=True)
    schemas.ErrorAnswer.model_validate_json(client.post("/detect").body, strict=True)


def test_no_answer_has_a_path_of_the_server(tmp_path: Path, views: tuple[bytes, bytes]) -> None:
    folder = tmp_path / "secret" / "mine"
    shutil.copytree(BUNDLED / "small", folder)
    a, b = views
    with serving(replace(SMALL, checkpoints=(str(folder), "small"))) as served:
        client = served.client
        assert client.get("/health").json()["checkpoints"] == ["mine", "small"]
        answers = [
            client.post("/detect", image=a, max_keypoints=9),
            client.post("/detect", image=a, max_keypoints=9, checkpoint="default"),
            client.post("/detect?format=npz", image=a, max_keypoints=9),
            client.post("/match", a=a, b=b, max_keypoints=9),
            client.post("/match?format=npz", a=a, b=b, max_keypoints=9),
            client.post("/register", a=a, b=b),
            client.post("/match", a=a, b=b, method="learned"),
            client.post("/compare", a=a, b=b, methods="mine,small+learned,sift"),
            client.post("/detect", image=b"no image"),
            client.post("/detect", image=a, checkpoint=str(folder)),
            client.get("/metrics"),
        ]
        assert answers[0].json()["meta"]["provenance"]["checkpoint"] == "mine"
        assert (
            answers[6].status == 200
            and answers[6].json()["meta"]["settings"]["method"] == "learned"
        )
        assert answers[9].error["code"] == "unknown_checkpoint"
        other = client.post("/detect", image=a, max_keypoints=9, checkpoint="small")
        assert other.json()["meta"]["provenance"]["checkpoint"] == "small"
    for answer in answers[:9]:
        assert b"secret" not in answer.body and str(tmp_path).encode() not in answer.body

"""Wrong requests: one shape of errors, which names what came and what was expected."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from support.service import BOUNDARY, Client, Part, form, picture, png
from tiepoint.config import (
    DetectionConfig,
    DetectionOptions,
    MatchingConfig,
    ProcessorConfig,
    RegistrationConfig,
)
from tiepoint.service.routes import detect, match, register

IMAGE = png(picture())
KIND = f"multipart/form-data; boundary={BOUNDARY}"
WHOLE = form(Part("image", IMAGE, "a.png"))


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "", 415, "not_multipart"),
        (b"{}", "application/json", 415, "not_multipart"),
        (IMAGE, "image/png", 415, "not_multipart"),
        (b"image=1", "application/x-www-form-urlencoded", 415, "not_multipart"),
        (WHOLE, "multipart/form-data", 400, "broken_multipart"),
        (WHOLE, "multipart/form-data; boundary=other", 400, "broken_multipart"),
        (WHOLE, f"multipart/form-data; boundary={'x' * 300}", 400, "broken_multipart"),
        (b"", KIND, 400, "broken_multipart"),
        (WHOLE, KIND + "; charset=undefined", 400, "broken_multipart"),
        (b"\r\n\r\n", KIND, 400, "broken_multipart"),
        (WHOLE[: len(WHOLE) // 2], KIND, 400, "broken_multipart"),
        (WHOLE[:-4], KIND, 400, "broken_multipart"),
        (WHOLE[:30], KIND, 400, "broken_multipart"),
        (f"--{BOUNDARY}--\r\n".encode(), KIND, 422, "missing_image"),
        (f"--{BOUNDARY}\r\nX: 1\r\n\r\nv\r\n--{BOUNDARY}--\r\n".encode(), KIND, 400, None),
        (f"--{BOUNDARY}\r\n".encode() + b"A" * 100_000, KIND, 400, "broken_multipart"),
        (form(*[Part(f"f{i}", "1") for i in range(100)]), KIND, 400, "broken_multipart"),
        (form(*[Part("image", b"", "a")] * 20), KIND, 400, "broken_multipart"),
        (form(Part("scales", "1," * 10_000)), KIND, 400, "broken_multipart"),
        (form(Part("image", "text")), KIND, 422, "not_a_file"),
        (form(Part("image", b"", "a.png")), KIND, 422, "unreadable_image"),
        (form(Part("image", b"nonsense" * 9, "a.png")), KIND, 422, "unreadable_image"),
        (form(Part("image", IMAGE[:500], "a.png")), KIND, 422, "unreadable_image"),
        (form(*[Part("image", IMAGE, "a.png")] * 2), KIND, 422, "given_twice"),
        (form(Part("image", IMAGE, "a"), Part("image_path", "a")), KIND, 422, "given_twice"),
        (form(Part("image", IMAGE, "a"), Part("threshold", b"1", "b")), KIND, 422, "not_a_text"),
        (form(Part("image", IMAGE, "a"), Part("mask", IMAGE[:99], "b")), KIND, 422, None),
        (form(Part("image", IMAGE, "a"), Part("picture", IMAGE, "b")), KIND, 422, "unknown_field"),
        (form(Part("", IMAGE, "a")), KIND, 422, "unknown_field"),
        (form(Part("image_path", "a.png")), KIND, 403, "no_root"),
        (form(Part("url", "http://127.0.0.1/")), KIND, 422, "unknown_field"),
    ],
)
def test_a_broken_or_wrong_body_is_refused(
    client: Client, body: bytes, kind: str, status: int, code: str | None
) -> None:
    answer = client.request("POST", "/detect", body, {"Content-Type": kind})
    assert answer.status == status, answer.body
    assert code in (None, answer.error["code"])


def test_a_mask_of_another_size_is_refused_with_its_part(client: Client) -> None:
    error = client.post("/detect", image=IMAGE, mask=png(picture(0, (64, 64)))).error
    assert error["part"] == "mask" and "64x64 px, expected the 160x120 px" in error["message"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("max_keypoints", "0", "a whole number >= 1 (keypoints, or None for all)"),
        ("max_keypoints", "ten", "a whole number or 'none'"),
        ("max_keypoints", "", "a whole number or 'none'"),
        ("max_keypoints", "1_0", "a whole number or 'none'"),
        ("max_keypoints", "\u0663", "a whole number or 'none'"),
        ("scales", "1,0_5", "numbers separated by commas, such as 1,0.5"),
        ("max_keypoints", "1e9", "a whole number or 'none'"),
        ("max_keypoints", "1000000", "at most 10000"),
        ("threshold", "2", "a probability in 0..1"),
        ("threshold", "nan", "a probability in 0..1"),
        ("threshold", "none", "a number"),
        ("subpixel", "perhaps", "true or false"),
        ("scales", "1;2", "numbers separated by commas, such as 1,0.5"),
        ("scales", "3", "numbers above 0, up to 2"),
        ("scales", "1,1", "at least one and none twice"),
        ("phases", "3", "1, 2 or 4"),
        ("contrast", "more", "one of auto, none, stretch"),
        ("max_side", "-1", "a whole number >= 1 (px, or None for native size)"),
        ("nms_radius", "9" * 30, "a whole number up to 1000 (px)"),
        ("nms_radius", "9" * 4000, "a whole number up to 1000 (px)"),
        ("checkpoint", "../../etc", "small"),
    ],
)
def test_a_wrong_setting_is_named_with_what_came_and_what_was_expected(
    client: Client, name: str, text: str, expected: str
) -> None:
    answer = client.post("/detect", image=IMAGE, **{name: text})
    assert answer.status == 422
    error = answer.error
    assert (error["setting"], error["expected"]) == (name, expected)
    assert name in error["message"] and len(answer.body) < 2000
    assert error["got"].strip("'(")[:1] == text[:1]


def test_settings_that_contradict_each_other_are_refused(client: Client) -> None:
    answer = client.post("/detect", image=IMAGE, spread="true")
    assert (answer.status, answer.error["setting"]) == (422, "spread")
    answer = client.post("/match", a=IMAGE, b=IMAGE, scores="dual-softmax", ratio=0.8)
    assert (answer.status, answer.error["setting"]) == (422, "ratio")
    answer = client.post("/register", a=IMAGE, b=IMAGE, method="learned", max_keypoints=5000)
    assert answer.error["expected"].startswith("at most 4096")


@pytest.mark.parametrize(
    ("fields", "setting", "expected"),
    [
        ({"methods": "small,../../etc"}, "methods", "one of small, sift"),
        ({"methods": "base"}, "methods", "one of small, sift"),
        ({"methods": "sift+learned"}, "methods", "one of small, sift"),
        ({"methods": ",".join(["sift"] * 9)}, "methods", "at most 8"),
        ({"methods": "sift,sift"}, "methods", "at least one and no name twice"),
        ({"methods": "small,default"}, "methods", "at least one and no name twice"),
        ({"methods": " , "}, "methods", "at least one and no name twice"),
        ({"agree_px": "0"}, "agree_px", None),
        ({"repeats": "3"}, "repeats", None),
        ({"model": "essential"}, "model", None),
        ({"max_keypoints": "20000"}, "max_keypoints", "at most 10000"),
        ({"methods": "small+learned", "max_keypoints": "5000"}, "max_keypoints", "at most 4096"),
    ],
)
def test_a_comparison_of_what_the_service_lacks_is_refused_before_any_work(
    client: Client, fields: dict[str, str], setting: str, expected: str | None
) -> None:
    answer = client.post("/compare", a=b"no image", b=b"no image", **fields)
    error = answer.error
    assert (answer.status, error["setting"]) == (422, setting)
    assert expected is None or error["expected"].startswith(expected)


@pytest.mark.parametrize("name", ["max_keypoint", "Threshold", "engine", "folder", "a" * 300])
def test_an_unknown_setting_is_named_with_those_that_exist(client: Client, name: str) -> None:
    answer = client.post("/detect", image=IMAGE, **{name: "1"})
    error = answer.error
    assert answer.status == 422 and name.startswith(error["setting"])
    assert {"image", "max_keypoints", "threshold", "checkpoint"} <= set(error["expected"])
    assert len(answer.body) < 2000


def test_every_setting_of_the_library_is_one_of_the_service() -> None:
    assert set(detect.SETTINGS.names) == set(DetectionOptions.__annotations__)
    assert set(match.MATCHING.names) == {each.name for each in fields(MatchingConfig)}
    assert set(match.DETECTION.names) == set(detect.SETTINGS.names) - {"descriptors"}
    assert set(register.REGISTRATION.names) == {each.name for each in fields(RegistrationConfig)}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (ProcessorConfig, detect.SETTINGS),
        (DetectionConfig, detect.SETTINGS),
        (MatchingConfig, match.MATCHING),
        (RegistrationConfig, register.REGISTRATION),
    ],
)
def test_each_default_as_text_gives_the_default_again(config: Any, parameters: Any) -> None:
    texts = {
        each.name: "none"
        if each.default is None
        else ",".join(map(str, each.default))
        if isinstance(each.default, tuple)
        else str(each.default)
        for each in fields(config)
    }
    assert config(**parameters.given(texts)) == config()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/detect?format=jpeg", 422, "unknown_format"),
        ("/detect?max_keypoints=3", 422, "unknown_parameter"),
        ("/compares", 404, "not_found"),
        ("/detect/", 404, "not_found"),
        ("/health", 405, "method_not_allowed"),
        ("/..%2f..%2fetc/passwd", 404, "not_found"),
    ],
)
def test_a_wrong_path_query_or_method_is_an_error_of_the_same_shape(
    client: Client, path: str, status: int, code: str
) -> None:
    answer = client.post(path, image=IMAGE)
    assert (answer.status, answer.error["code"]) == (status, code)


def test_an_accept_header_without_a_known_format_is_refused(client: Client) -> None:
    answer = client.post("/detect", image=IMAGE, headers={"Accept": "text/html"})
    assert (answer.status, answer.error["code"]) == (406, "not_acceptable")

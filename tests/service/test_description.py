"""The OpenAPI description is true: its fields are accepted, its examples run, its page is whole."""

from __future__ import annotations

import re
from typing import Any

import pytest

import tiepoint
from support.service import Client, Part
from tiepoint.service.schemas import ERRORS

ROUTES = ("/detect", "/match", "/register", "/compare")


@pytest.fixture(scope="module")
def api(client: Client) -> dict[str, Any]:
    described: dict[str, Any] = client.get("/openapi.json").json()
    return described


def body_of(api: dict[str, Any], path: str) -> dict[str, Any]:
    content: dict[str, Any] = api["paths"][path]["post"]["requestBody"]["content"]
    return content["multipart/form-data"]  # type: ignore[no-any-return]


def default_text(schema: dict[str, Any]) -> str:
    value = schema["default"]
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("path", ROUTES)
def test_each_field_exists_and_takes_its_default(
    client: Client, api: dict[str, Any], path: str
) -> None:
    properties = body_of(api, path)["schema"]["properties"]
    view = tiepoint.sample_views()[0].read_bytes()
    images = [name for name, one in properties.items() if one.get("format") == "binary"]
    parts = [Part(name, view, "view.jpg") for name in images]
    fields = {name: default_text(one) for name, one in properties.items() if "default" in one}
    answer = client.post(path, *parts, **fields)
    assert answer.status == 200, answer.body
    known = client.post(path, unknown="1").error["expected"]
    assert set(known) == {name for name in properties if not name.endswith("_path")}
    assert all(one["description"] for one in properties.values())


@pytest.mark.parametrize("path", ROUTES)
def test_the_examples_run(client: Client, api: dict[str, Any], path: str) -> None:
    body = body_of(api, path)
    a, b = (view.read_bytes() for view in tiepoint.sample_views())
    parts, texts = [], {}
    for name, value in body["example"].items():
        if body["schema"]["properties"][name].get("format") == "binary":
            parts.append(Part(name, b if name == "b" else a, value))
        else:
            texts[name] = str(value).lower()
    assert parts and texts
    assert client.post(path, *parts, **texts).status == 200


@pytest.mark.parametrize("path", ROUTES)
def test_all_answers_are_described(api: dict[str, Any], path: str) -> None:
    responses = api["paths"][path]["post"]["responses"]
    assert set(responses) == {"200", *map(str, ERRORS)}
    kinds = {"application/json", "application/x-npz", "image/png"}
    assert set(responses["200"]["content"]) == kinds
    assert responses["413"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ErrorAnswer"
    }


def test_the_page_lists_every_route_and_field_without_scripts_or_other_hosts(
    client: Client, api: dict[str, Any]
) -> None:
    answer = client.get("/docs")
    page = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/html")
    for path in api["paths"]:
        assert f" {path}</code>" in page
    for path in ROUTES:
        for name in body_of(api, path)["schema"]["properties"]:
            assert f"<code>{name}</code>" in page
        assert f"http://127.0.0.1:8000{path}</pre>" in page
    assert "<script" not in page and "//" not in re.sub(r"http://127\.0\.0\.1:8000", "", page)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]

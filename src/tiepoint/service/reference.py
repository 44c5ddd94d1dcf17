"""`GET /docs`: the OpenAPI description as one page, without scripts and without other hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response

router = APIRouter(include_in_schema=False)

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #8884;padding:.3rem .6rem;
text-align:left;vertical-align:top}code,pre{font:14px/1.4 ui-monospace,monospace}
pre{padding:.8rem;background:#8882;overflow:auto}:root{color-scheme:light dark}
"""


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The page."""
    page = "\n".join(_page(request.app.openapi()))
    return Response(page, media_type="text/html", headers={"content-security-policy": POLICY})


def _page(api: Mapping[str, Any]) -> Iterator[str]:
    title = f"{api['info']['title']} {api['info']['version']}"
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
    yield "<meta name=viewport content='width=device-width'>"
    yield f"<style>{STYLE}</style><h1>{escape(title)}</h1>"
    for paragraph in api["info"]["description"].strip().split("\n\n"):
        yield f"<p>{escape(paragraph)}</p>"
    yield "<p>For programs: <a href=openapi.json>openapi.json</a></p>"
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            yield from _operation(path, method, operation)
    yield "<h2>Schemas of the answers</h2>"
    for name, schema in api["components"]["schemas"].items():
        yield f"<h3 id={escape(name)}>{escape(name)}</h3>"
        yield f"<p>{escape(schema.get('description', ''))}</p>"
        yield from _table(schema.get("properties", {}))


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema, example = content["schema"], content.get("example", {})
        files = schema["properties"]
        parts = (
            f"-F {name}={'@' if files[name].get('format') == 'binary' else ''}{_text(value)}"
            for name, value in example.items()
        )
        yield f"<pre>curl {escape(' '.join(parts))} http://127.0.0.1:8000{escape(path)}</pre>"
        yield from _table(files)
    rows = []
    for status, answer in operation["responses"].items():
        kinds = ", ".join(answer.get("content", {}))
        names = (
            one["schema"]["$ref"].rpartition("/")[2]
            for one in answer.get("content", {}).values()
            if "$ref" in one.get("schema", {})
        )
        links = " ".join(f"<a href=#{escape(name)}>{escape(name)}</a>" for name in names)
        rows.append(
            f"<tr><td>{escape(status)}<td>{escape(answer['description'])}"
            f"<td>{escape(kinds)}<td>{links}"
        )
    yield f"<table><tr><th>status<th>meaning<th>formats<th>schema{''.join(rows)}</table>"


def _table(properties: Mapping[str, Any]) -> Iterator[str]:
    if not properties:
        return
    yield "<table><tr><th>field<th>type<th>default<th>meaning"
    for name, schema in properties.items():
        default = _text(schema["default"]) if "default" in schema else ""
        text = escape(schema.get("description", ""))
        kind = escape(_kind(schema))
        yield f"<tr><td><code>{escape(name)}</code><td>{kind}<td>{escape(default)}<td>{text}"
    yield "</table>"


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("format") == "binary":
        return "file"
    if schema.get("type") == "array" and isinstance(schema.get("items"), Mapping):
        return f"array of {_kind(schema['items'])}"
    return str(schema.get("type", "any"))


def _text(value: Any) -> str:
    """A value as a form's field has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(f"{one:g}" for one in value)
    return str(value)

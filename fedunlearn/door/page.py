"""The OpenAPI schema as one readable page: no scripts and nothing fetched, for it must open where no internet is."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2024 }
h2 { margin: 2.5rem 0 .25rem; border-top: 1px solid #d5d9de; padding-top: 1.25rem } h2 b { color: #0a5c8a }
table { border-collapse: collapse; width: 100% } td { padding: .2rem .8rem .2rem 0; vertical-align: top }
td:first-child { white-space: nowrap } code { font: .9em ui-monospace, monospace }
@media (prefers-color-scheme: dark) { body { background: #16191d; color: #e4e7ea } h2 b { color: #7cc4ee } }
"""


def page(schema: Mapping[str, Any]) -> str:
    """Return the HTML page of an OpenAPI schema: its operations, then the objects they speak of."""
    info = schema["info"]
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style><h1>{escape(info['title'])}</h1>",
        *(f"<p>{escape(text)}</p>" for text in info["description"].split("\n\n")),
        '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts += _operation(method.upper(), path, operation)
    for name, model in schema["components"]["schemas"].items():
        rows = [
            (key, _kind(value), value.get("description", "")) for key, value in model["properties"].items()
        ]
        about = escape(model.get("description", ""))
        parts += [f'<h2 id="{escape(name)}">{escape(name)}</h2><p>{about}</p>', _table(rows)]
    return "\n".join(parts) + "</html>\n"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> list[str]:
    parts = [f"<h2><b>{method}</b> <code>{escape(path)}</code></h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in operation.get("description", "").split("\n\n")]
    rows = [
        (
            f"{parameter['name']} ({parameter['in']})",
            _kind(parameter["schema"]),
            parameter.get("description", ""),
        )
        for parameter in operation.get("parameters", ())
    ]
    if "requestBody" in operation:
        rows.append(("body", _content(operation["requestBody"]), ""))
    for status, response in operation["responses"].items():
        rows.append((status, _content(response), response.get("description", "")))
    return [*parts, _table(rows)]


def _content(holder: Mapping[str, Any]) -> str:
    return ", ".join(_kind(content.get("schema", {})) for content in holder.get("content", {}).values())


def _kind(schema: Mapping[str, Any]) -> str:
    """Return what a value is, in words, as HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    return escape(str(schema.get("type", "")))


def _table(rows: list[tuple[str, str, str]]) -> str:
    cells = (
        f"<tr><td><code>{escape(name)}</code><td>{kind}<td>{escape(text)}</tr>" for name, kind, text in rows
    )
    return f"<table>{''.join(cells)}</table>" if rows else ""

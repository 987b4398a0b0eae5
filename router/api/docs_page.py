"""The reference as HTML: written here from the OpenAPI document, so the page needs no script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

_CODE = re.compile(r"`([^`]+)`")
_KEYS = {
    "adminKey": "admin key",
    "clientKey": "client key",
}


def render(document: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        document: OpenAPI 3.1, with every schema among its components.
    """
    info = document["info"]
    operations = [
        (path, method, told)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    ]
    sections = "".join(
        _section(tag["name"], [row for row in operations if tag["name"] in row[2]["tags"]])
        for tag in document["tags"]
    )
    schemas = "".join(
        _schema(name, schema) for name, schema in document["components"]["schemas"].items()
    )
    title = escape(info["title"])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}: API reference</title>\n"
        '<link rel="stylesheet" href="/docs/docs.css">\n</head>\n<body>\n'
        f'<nav aria-label="Operations">{_contents(operations)}</nav>\n<main>\n'
        f"<h1>{title} <small>{escape(info['version'])}</small></h1>\n{_prose(info['description'])}"
        '<p>For programs: <a href="/openapi.json">/openapi.json</a></p>\n'
        f'{sections}<section id="schemas">\n<h2>Forms</h2>\n{schemas}</section>\n'
        "</main>\n</body>\n</html>\n"
    )


def _contents(operations: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    items = "".join(
        f'<li><a href="#{told["operationId"]}"><b>{method.upper()}</b> {escape(path)}</a></li>'
        for path, method, told in operations
    )
    return f'<ul>{items}<li><a href="#schemas">Forms</a></li></ul>'


def _section(name: str, rows: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    articles = "".join(_operation(*row) for row in rows)
    return f"<section>\n<h2>{escape(name)}</h2>\n{articles}</section>\n"


def _operation(path: str, method: str, told: Mapping[str, Any]) -> str:
    keys = [_KEYS[name] for wanted in told["security"] for name in wanted]
    needs = f'<span class="key">{escape(" or ".join(keys))}</span>' if keys else ""
    return (
        f'<article id="{told["operationId"]}">\n<h3><b class="{method}">{method.upper()}</b> '
        f"<code>{escape(path)}</code> {needs}</h3>\n<p><strong>{escape(told['summary'])}.</strong> "
        f"{_inline(told['description'])}</p>\n{_parameters(told.get('parameters', ()))}"
        f"{_request(told.get('requestBody'))}{_responses(told['responses'])}</article>\n"
    )


def _parameters(parameters: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (f"<code>{escape(each['name'])}</code> in {each['in']}", _type(each["schema"]),
         _inline(each["description"]))
        for each in parameters
    ]  # fmt: skip
    return _table(("Parameter", "Type", "Meaning"), rows) if rows else ""


def _request(body: Mapping[str, Any] | None) -> str:
    return f"<p>Body: {_contents_of(body['content'])}</p>\n" if body is not None else ""


def _responses(responses: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (f"<code>{status}</code>", _contents_of(each["content"]), _prose(each["description"]))
        for status, each in responses.items()
    ]
    return _table(("Status", "Form", "When"), rows)


def _contents_of(content: Mapping[str, Mapping[str, Any]]) -> str:
    return " or ".join(
        _type(each["schema"]) if media == "application/json" else f"<code>{escape(media)}</code>"
        for media, each in content.items()
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    about = _prose(schema.get("description", ""))
    required = set(schema.get("required", ()))
    rows = [
        (f"<code>{escape(field)}</code>{'' if field in required else ' (optional)'}",
         _type(each), _inline(each.get("description", "")))
        for field, each in schema.get("properties", {}).items()
    ]  # fmt: skip
    body = _table(("Field", "Type", "Meaning"), rows) if rows else f"<p>{_type(schema)}</p>\n"
    return f'<article id="form-{escape(name)}">\n<h3>{escape(name)}</h3>\n{about}{body}</article>\n'


def _type(schema: Mapping[str, Any]) -> str:
    """A type in a few words; forms are links."""
    return " or ".join(_types(schema))


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        yield f'<a href="#form-{name}">{name}</a>'
    elif "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from _types(each)
    elif "const" in schema or "enum" in schema:
        for value in schema.get("enum", [schema.get("const")]):
            yield f"<code>{escape(str(value))}</code>"
    elif schema.get("type") == "array":
        yield f"list of {_type(schema['items'])}"
    elif isinstance(schema.get("additionalProperties"), dict):
        yield f"object of {_type(schema['additionalProperties'])}"
    else:
        words = (schema.get("type", "anything"), schema.get("format", ""))
        yield escape(" ".join(word for word in words if word))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table>\n<thead><tr>{titles}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table>\n"


def _prose(text: str) -> str:
    parts = [part for part in text.split("\n\n") if part]
    return "".join(f"<p>{_inline(part)}</p>\n" for part in parts)


def _inline(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))

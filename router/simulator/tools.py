"""Tool calls and JSON answers: values that fit a schema, for a model that cannot think."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from router.simulator.body import Body, array
from router.simulator.errors import ApiError, bad_value

_SAMPLES: dict[str, Any] = {
    "string": "paper",
    "integer": 7,
    "number": 0.5,
    "boolean": True,
    "null": None,
    "array": [],
}
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The one call that an answer will make.

    Attributes:
        name: the tool.
        arguments: JSON text that fits the tool's schema.
        named: whether the request named the tool, rather than asking for any.
    """

    name: str
    arguments: str
    named: bool


def sample(schema: object, depth: int = 0) -> object:
    """A value that a JSON schema allows, as far as plain schemas go."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return {}
    if "const" in schema:
        return schema["const"]
    for key in ("enum", "examples", "anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            first = schema[key][0]
            return sample(first, depth + 1) if key.endswith("Of") else first
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    known = isinstance(kind, str) and kind in _SAMPLES
    return _SAMPLES[str(kind)] if known else _sample_object(schema, depth)


def _sample_object(schema: dict[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    wanted = schema.get("required")
    names = wanted if isinstance(wanted, list) else list(properties)
    return {n: sample(properties.get(n), depth + 1) for n in names if isinstance(n, str)}


def read_tool_call(body: Body) -> ToolCall | None:
    """The call that a chat request forces: `tool_choice` `required` or a named function."""
    tools = array(body, "tools")
    choice = body.get("tool_choice")
    if choice is None or choice == "none":
        return None
    if not tools:
        raise bad_value("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if choice == "auto":
        return None
    functions = [_function(tool) for tool in tools]
    if choice == "required":
        return _call(functions[0]["name"], functions[0].get("parameters"), named=False)
    wanted = choice.get("function") if isinstance(choice, dict) else None
    name = wanted.get("name") if isinstance(wanted, dict) else None
    for function in functions:
        if function["name"] == name:
            return _call(function["name"], function.get("parameters"), named=True)
    problem = "The tool specified in `tool_choice` does not match any of the specified `tools`"
    raise bad_value(problem, "tool_choice")


def read_tool_use(body: Body) -> ToolCall | None:
    """The same for `/v1/messages`: `tool_choice` of type `any` or `tool`."""
    tools = array(body, "tools") or []
    choice = body.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") not in ("any", "tool"):
        return None
    kind = choice["type"]
    for tool in tools:
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise ApiError("Every tool needs a name.")
        if kind == "any" or tool["name"] == choice.get("name"):
            return _call(tool["name"], tool.get("input_schema"), named=kind == "tool")
    problem = "The tool specified in `tool_choice` does not match any of the specified `tools`"
    raise bad_value(problem, "tool_choice")


def read_json_answer(body: Body) -> str | None:
    """The JSON text that `response_format` asks for, or None where it asks for text."""
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return json.dumps({"answer": "paper"})
    if kind == "json_schema" and isinstance(wanted, dict):
        outer = wanted.get("json_schema")
        return json.dumps(sample(outer.get("schema") if isinstance(outer, dict) else None))
    return None


def _function(tool: object) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ApiError("Every tool needs a function with a name.")
    return function


def _call(name: str, schema: object, *, named: bool) -> ToolCall:
    return ToolCall(name, json.dumps(sample(schema)), named)

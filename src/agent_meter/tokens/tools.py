"""Tool schemas as the model reads them.

OpenAI shows a model its tools as the declaration of a TypeScript namespace. Counting that text gives the API's own
numbers for the example of OpenAI's cookbook (105 with cl100k_base, 101 with o200k_base) and stays within one token
of eight recorded requests; the cookbook's sum of constants is off by up to six on the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from .messages import get

_DEPTH = 24
_MOST_TYPES = 5_000
_SCALARS = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
FRAME = 9  # what the API adds around the declaration
SYSTEM = 4  # what it saves when a system message is there to carry it


def declaration(tools: Iterable[Any]) -> str:
    """The namespace that declares `tools`: OpenAI, Anthropic or plain dicts, or LangChain tools."""
    return "\n".join(
        ["namespace functions {", "", *(line for tool in tools for line in _tool(tool)), "} // namespace functions"]
    )


def _tool(tool: Any) -> Iterator[str]:
    function = get(tool, "function")
    function = function if isinstance(function, Mapping) else tool
    name = get(function, "name") or get(function, "type") or get(tool, "__name__") or ""
    description = get(function, "description")
    if not description and not isinstance(function, Mapping):
        description = get(tool, "__doc__")
    if description:
        yield f"// {description}"
    fields = _Fields(_schema(function)).lines()
    if fields:
        yield f"type {name} = (_: {{"
        yield from fields
        yield "}) => any;"
    else:
        yield f"type {name} = () => any;"
    yield ""


def _schema(function: Any) -> Mapping[str, Any]:
    for key in ("parameters", "input_schema", "inputSchema"):
        if isinstance(found := get(function, key), Mapping):
            inner = found.get("json")  # Bedrock wraps it
            return inner if isinstance(inner, Mapping) else found
    # A LangChain tool with a pydantic class or a plain schema, or such a class itself.
    for found in (get(function, "tool_call_schema"), get(function, "args_schema"), function):
        if isinstance(found, Mapping) and found is not function:
            return found
        if callable(make := get(found, "model_json_schema")):
            with suppress(Exception):  # a field that JSON Schema cannot say
                made = make()
                return made if isinstance(made, Mapping) else {}
    return {}


class _Fields:
    """The fields of one JSON schema as TypeScript. Whatever refers to itself, or never ends, becomes `any`."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self.open: list[str] = []
        self.left = _MOST_TYPES

    def lines(self) -> list[str]:
        schema: Any = self.schema
        if isinstance(reference := schema.get("$ref"), str):  # pydantic's form of a class that holds itself
            self.open.append(reference)
            schema = self._definition(reference)
        return self._object(schema, 0) if isinstance(schema, Mapping) else []

    def _object(self, schema: Mapping[str, Any], depth: int) -> list[str]:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return []
        required = schema.get("required")
        required = required if isinstance(required, (list, tuple)) else ()
        lines: list[str] = []
        for key, value in properties.items():
            if description := get(value, "description"):
                lines.append(f"// {description}")
            lines.append(f"{key}{'' if key in required else '?'}: {self._type(value, depth + 1)},")
        return lines

    def _type(self, schema: Any, depth: int) -> str:
        self.left -= 1
        if not isinstance(schema, Mapping) or depth > _DEPTH or self.left < 0:
            return "any"
        if isinstance(reference := schema.get("$ref"), str):
            if reference in self.open:
                return "any"
            self.open.append(reference)
            text = self._type(self._definition(reference), depth + 1)
            self.open.pop()
            return text
        for key in ("anyOf", "oneOf", "type"):
            if isinstance(choices := schema.get(key), (list, tuple)):
                each = choices if key != "type" else [{**schema, "type": choice} for choice in choices]
                return " | ".join(self._type(choice, depth + 1) for choice in each)
        kind = schema.get("type")
        if isinstance(values := schema.get("enum"), (list, tuple)):
            return " | ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in values)
        if kind == "array":
            return f"{self._type(schema.get('items'), depth + 1)}[]"
        if kind == "object":
            return "\n".join(["{", *self._object(schema, depth + 1), "}"])
        return _SCALARS.get(str(kind), "any")

    def _definition(self, reference: str) -> Any:
        found: Any = self.schema
        for step in reference.removeprefix("#/").split("/"):
            found = get(found, step) if isinstance(found, Mapping) else None
        return found

"""Counting tool schemas."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from agent_meter.tokens import TokenCounter
from agent_meter.tokens.tools import declaration

# OpenAI's cookbook, "How to count tokens with tiktoken", section on tool calls.
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {
                    "type": "string",
                    "description": "The unit of temperature to return",
                    "enum": ["celsius", "fahrenheit"],
                },
            },
            "required": ["location"],
        },
    },
}
QUESTION = [
    {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]


@pytest.mark.parametrize(
    ("model", "tokens"), [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101), ("gpt-4o-mini", 101)]
)
def test_the_cookbooks_tool_counts_what_the_api_counts(model: str, tokens: int) -> None:
    counter = TokenCounter(model=model)

    assert counter.count_messages(QUESTION) + counter.count_tools([WEATHER]) == tokens
    assert counter.count_messages(QUESTION, tools=[WEATHER]) == tokens


def test_without_a_system_message_a_request_with_tools_has_one_of_its_own() -> None:
    counter = TokenCounter(model="gpt-4o")
    alone = counter.count_messages(QUESTION[1:])

    assert counter.count_messages(QUESTION[1:], tools=[WEATHER]) == alone + counter.count_tools([WEATHER]) + 4


def test_tools_are_declared_as_typescript() -> None:
    assert declaration([WEATHER]) == (
        "namespace functions {\n\n"
        "// Get the current weather in a given location\n"
        "type get_current_weather = (_: {\n"
        "// The city and state, e.g. San Francisco, CA\n"
        "location: string,\n"
        "// The unit of temperature to return\n"
        'unit?: "celsius" | "fahrenheit",\n'
        "}) => any;\n\n"
        "} // namespace functions"
    )


def test_the_same_tool_counts_the_same_in_every_vendors_shape() -> None:
    function: Any = WEATHER["function"]
    schema = function["parameters"]
    plain = {"name": function["name"], "description": function["description"]}
    counter = TokenCounter(model="gpt-4o")
    expected = counter.count_tools([WEATHER])
    shapes = [
        {"type": "function", **plain, "parameters": schema},
        {**plain, "input_schema": schema},
        {**plain, "inputSchema": {"json": schema}},
    ]

    assert [counter.count_tools([shape]) for shape in shapes] == [expected] * 3
    assert counter.count_tools(WEATHER) == expected


@tool
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def test_a_langchain_tool_counts_as_the_schema_that_it_sends() -> None:
    sent = {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]},
    }

    assert add.name == "add"
    assert declaration([sent]) in (declaration([add]), declaration([add]).replace("// Add two numbers.\n\n", ""))


class Name(BaseModel):
    text: str


class Point(BaseModel):
    """A place."""

    x: float
    name: Name
    tags: list[str] = Field(default=[], description="labels")
    parent: Point | None = None


def test_a_pydantic_model_is_followed_through_its_references_but_not_round_in_circles() -> None:
    text = declaration([Point])

    assert "// A place.\ntype Point = (_: {\n" in text
    assert "x: number,\nname: {\ntext: string,\n},\n// labels\ntags?: string[],\n" in text
    assert "parent?: any | null,\n}) => any;" in text


@pytest.mark.parametrize(
    ("schema", "typescript"),
    [
        ({"type": "integer"}, "number"),
        ({"type": "boolean"}, "boolean"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number | null"),
        ({"type": "array", "items": {"type": "string"}}, "string[]"),
        ({"type": "array"}, "any[]"),
        ({"enum": [1, "a"]}, '1 | "a"'),
        ({"type": "object", "properties": {"k": {"type": "string"}}}, "{\nk?: string,\n}"),
        ({}, "any"),
        ("nonsense", "any"),
        ({"$ref": "#/nowhere"}, "any"),
    ],
)
def test_json_schema_types_become_typescript(schema: Any, typescript: str) -> None:
    text = declaration([{"name": "f", "parameters": {"properties": {"p": schema}}}])

    assert f"p?: {typescript},\n}}) => any;" in text


def test_a_schema_that_explodes_is_cut_off() -> None:
    # Each of thirty definitions mentions the next one twice: 2³⁰ types when written out.
    definitions = {
        f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(30)
    }
    schema = {"$defs": definitions, "properties": {"p": {"$ref": "#/$defs/d0"}}}

    assert 0 < TokenCounter().count_tools([{"name": "f", "parameters": schema}]) < 20_000


@pytest.mark.parametrize("tools", [None, [], ()])
def test_no_tools_cost_nothing(tools: Any) -> None:
    assert TokenCounter().count_tools(tools) == 0


@pytest.mark.parametrize("odd", [{}, {"function": None}, {"name": 3}, {"parameters": []}, object(), None, "f"])
def test_an_odd_tool_is_survived(odd: Any) -> None:
    assert TokenCounter().count_tools([odd]) > 0

"""Keys: equal for what must be answered alike, different for everything else."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from openai import NOT_GIVEN
from pydantic import BaseModel

from agent_meter import ReplayCache
from agent_meter.replay import CacheKeyBuilder
from agent_meter.replay.keys import key_of

build = CacheKeyBuilder.build
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Weather(BaseModel):
    city: str
    tags: list[str] = []


class Other(BaseModel):
    town: str


class Struct(msgspec.Struct):
    x: int


def search(query: str) -> str:
    """Search the archive."""
    return query


CHANGES: list[dict[str, Any]] = [
    {"model": "gpt-4o-mini"},
    {"provider": "azure"},
    {"endpoint": "https://eu.example"},
    {"system_prompt": "Be kind."},
    {"messages": [{"role": "system", "content": "Hello"}]},
    {"messages": [{"role": "user", "content": "Hello"}, {"role": "user", "content": "Hello"}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;x"}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;y"}}]}]},
    {"messages": [{"role": "user", "content": "Hello", "name": "ada"}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"id": "2", "function": {"name": "f", "arguments": "{}"}}]}]},
    {"messages": [{"role": "tool", "tool_call_id": "1", "content": "Hello"}]},
    {"tools": [{"name": "search"}]},
    {"tools": [search]},
    {"temperature": 0.5},
    {"temperature": None},
    {"response_format": {"type": "json_object"}},
    {"response_format": Weather},
    {"response_format": Other},
    {"seed": 1},
    {"n": 2},
    {"max_tokens": 5},
    {"stop": ["\n"]},
]


def test_whatever_changes_the_answer_changes_the_key() -> None:
    keys = [build(**HELLO), *(build(**{**HELLO, **change}) for change in CHANGES)]

    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": Decimal("0.5")}, {"temperature": 0.5}),
        ({"seed": None}, {}),
        ({"seed": NOT_GIVEN}, {"seed": NOT_GIVEN}),
        ({"metadata": {"a": 1, "b": 2}}, {"metadata": {"b": 2, "a": 1}}),
        ({"stop": ["a"]}, {"stop": ("a",)}),
        ({"metadata": MappingProxyType({"a": 1})}, {"metadata": {"a": 1}}),
        ({"size": Colour.RED}, {"size": "red"}),
        ({"labels": {"a", "b", "c"}}, {"labels": frozenset(("c", "b", "a"))}),
        ({"id": UUID(int=1)}, {"id": str(UUID(int=1))}),
    ],
)
def test_how_a_value_is_spelt_does_not_change_it(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert build(**{**HELLO, **one}) == build(**{**HELLO, **other})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        (b"a", "a"),
        (date(2026, 1, 1), "2026-01-01"),
        (date(2026, 1, 1), date(2026, 1, 2)),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC)),
        (timedelta(1), timedelta(2)),
        ({1: "a"}, {"1": "a"}),
        (["ab"], ["a", "b"]),
        ([["a"], "b"], [["a", "b"]]),
        ({"a": None}, {}),
        (Point(1), Point(2)),
        (Weather(city="Ghent"), Weather(city="Bruges")),
        (Struct(1), Struct(2)),
        (HumanMessage("a"), HumanMessage("b")),
        (float("nan"), float("inf")),
        ("\ud800", "\ud801"),
        (10**18, float(10**18) + 1024),
    ],
)
def test_what_is_not_the_same_has_another_key(one: Any, other: Any) -> None:
    assert key_of(one) == key_of(one)
    assert key_of(one) != key_of(other)


def test_tools_of_a_framework_are_known_by_what_the_model_is_told() -> None:
    @tool
    def look(city: str) -> str:
        """Look out of the window."""
        return city

    renamed = look.model_copy(update={"description": "Look at the sky."})

    assert build(**HELLO, tools=[look]) == build(**HELLO, tools=[look])
    assert build(**HELLO, tools=[look]) != build(**HELLO, tools=[renamed])


@pytest.mark.parametrize("value", [object(), (piece for piece in "ab"), iter([1]), open])
def test_what_nobody_can_read_is_no_key(value: Any) -> None:
    if value is open:  # a function, which a tool may be
        assert key_of(value) == key_of(value)
        return
    with pytest.raises(TypeError, match="cannot be part of a cache key"):
        build(**HELLO, extra=value)


def test_a_value_that_contains_itself_is_no_key() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(TypeError, match="cannot be part of a cache key"):
        key_of(endless)


def test_the_cache_has_the_builder_at_hand() -> None:
    assert ReplayCache.key(**HELLO) == build(**HELLO)
    assert build(**HELLO).startswith("agent_meter:")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values, in which true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return bool(one == other)


@given(one=JSON, other=JSON)
def test_keys_are_equal_exactly_when_the_values_are(one: Any, other: Any) -> None:
    assert (key_of(one) == key_of(other)) is same(one, other)

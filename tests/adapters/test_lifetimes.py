"""How long a prompt cache was asked to keep what is written to it, in the words of both frameworks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agent_meter import TokenUsage
from agent_meter.adapters.lifetimes import by_request, times_to_live

HOUR = {"type": "ephemeral", "ttl": "1h"}
FIVE = {"type": "ephemeral"}


def message(*, blocks: Any = None, content: Any = None, **extra: Any) -> Any:
    told = {"additional_kwargs": extra, "content": content}
    return SimpleNamespace(**told, blocks=blocks) if blocks is not None else SimpleNamespace(**told)


@pytest.mark.parametrize(
    ("asked", "lives"),
    [
        ("hello", set()),
        (({"cache_control": HOUR}, None), {"1h"}),
        ({"tools": [{"name": "f", "cache_control": FIVE}]}, {"5m"}),
        ([message(content=[{"type": "text", "cache_control": HOUR}, {"cache_control": FIVE}])], {"1h", "5m"}),
        ([message(content="x", cache_control=HOUR)], {"1h"}),
        ([message(blocks=[SimpleNamespace(cache_control=SimpleNamespace(ttl="1h"))])], {"1h"}),
        ([message(blocks=[SimpleNamespace(cache_control=SimpleNamespace(ttl=None))])], {"5m"}),
    ],
)
def test_every_place_where_a_life_is_asked_for_is_found(asked: Any, lives: set[str]) -> None:
    assert times_to_live(asked) == lives


@pytest.mark.parametrize(
    ("asked", "hour", "missing"),
    [
        ({"cache_control": FIVE}, 0, ()),
        ({"cache_control": HOUR}, 80, ()),
        ([{"cache_control": HOUR}, {"cache_control": FIVE}], 0, ("cache_write_1h_tokens",)),
    ],
)
def test_writes_live_as_long_as_was_asked_or_it_is_said_not_to_be_known(
    asked: Any, hour: int, missing: tuple[str, ...]
) -> None:
    usage, notes = by_request(TokenUsage(100, 5, cache_write_tokens=80), asked)

    assert (usage.cache_write_1h_tokens, usage.missing) == (hour, missing)
    assert bool(notes) == bool(hour or missing)


def test_a_request_that_holds_itself_is_not_followed_for_ever() -> None:
    around: dict[str, Any] = {"cache_control": HOUR}
    around["again"] = around

    assert times_to_live(around) == {"1h"}

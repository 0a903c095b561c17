"""Every recorded conversation that an integration of LlamaIndex can ask for, with a MeterHandler listening."""

from __future__ import annotations

from typing import Any

import pytest
from tests.adapters.langchain.recorded import wrong
from tests.adapters.wire.test_corpus import check
from tests.corpus import conversations
from tests.environments.llama_index.integrations import INTEGRATIONS, Integration, Place, aask, ask

from agent_meter import Meter, UsageRecord
from agent_meter.adapters.llama_index import MeterHandler

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

# The asynchronous clients of the others take no endpoint from here.
ASYNC = [one for one in INTEGRATIONS if one.name not in ("BedrockConverse", "Cohere", "OpenAI (completions)")]

EVERYTHING = ("input_tokens", "output_tokens")
INPUT_OF_A_STREAM = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")
# What an integration hides, and what the record then calls missing.
HIDDEN = {
    # The integration cannot read the answer, and raises.
    ("azure--chat--test-chat-content-filtering--dc677c52", 0): EVERYTHING,
    ("anthropic--messages--chat-anthropic-claude-sonnet-4-6-compacts-a-long-conversatio--af581338", 0): EVERYTHING,
    ("anthropic--messages--test-anthropic-advisor-tool-message-replay--4157fa18", 0): EVERYTHING,
    # The start of a stream, in which older answers count their prompt, is dropped.
    ("anthropic--messages--anthropic-completion-stream--285e0499", 0): INPUT_OF_A_STREAM,
    ("anthropic--messages--test-anthropic-prompt-caching-stream-legacy--d8fa3d24", 0): INPUT_OF_A_STREAM,
    ("anthropic--messages--test-anthropic-prompt-caching-stream-legacy--d8fa3d24", 1): INPUT_OF_A_STREAM,
}


def _places(integration: Integration, server: Any) -> list[Place]:
    found = [
        Place(document, index, server) for document in conversations() for index in range(len(document["interactions"]))
    ]
    return [place for place in found if integration.asks(place)]


def _check(records: list[UsageRecord], place: Place) -> None:
    record, passes = records[0], records[1:]
    truth, where = place.truth, (place.document["id"], place.index)
    if truth["requests"] == 0:
        assert (record.total_tokens, record.estimated, record.billed_cost_usd) == (0, False, 0), where
    elif truth.get("ambiguous"):
        assert min(record.input_tokens, record.output_tokens, record.cache_read_tokens) >= 0, where
    elif where in HIDDEN:
        assert (record.estimated, record.missing) == (True, HIDDEN[where]), where
        assert not wrong(record, truth).keys() - set(record.missing) or record.usage is None, where
        assert record.notes, where
    elif truth["input_total"] is None:
        # The provider itself said nothing.
        assert (record.estimated, record.missing) == (True, EVERYTHING), where
    else:
        assert wrong(record, truth) == {}, where
        assert record.estimated is bool(record.usage and record.usage.problems), where
        billed = [(p["input_total"], p["output_total"]) for p in truth.get("billed_extra") or ()]
        assert [(p.input_tokens, p.output_tokens) for p in passes] == billed, where


@pytest.mark.parametrize("integration", INTEGRATIONS, ids=lambda integration: integration.name)
def test_recorded_tokens_are_the_providers_in_every_class(integration: Integration, recorded: Any) -> None:
    """… or the record says which class could not be seen."""
    for place in _places(integration, recorded):
        place.aim()
        model, meter = integration.make(place), Meter()
        with MeterHandler(meter):
            error = ask(model, place)

        assert place.served, (place.document["id"], place.index, error)
        _check(meter.history(), place)
        assert meter.health()["failures"] == {}
        assert meter.health()["open_calls"] == 0


@pytest.mark.parametrize("integration", ASYNC, ids=lambda integration: integration.name)
async def test_async_clients_are_read_as_well_as_sync_ones(integration: Integration, recorded: Any) -> None:
    for place in _places(integration, recorded)[::6]:
        place.aim()
        model, meter = integration.make(place), Meter()
        with MeterHandler(meter):
            error = await aask(model, place)

        assert place.served, (place.document["id"], place.index, error)
        _check(meter.history(), place)
        assert meter.health()["failures"] == {}
        assert meter.health()["open_calls"] == 0


# ------------------------------------------------------------------------------------------------- with the wire

# These speak to their servers as OpenAI's do: some of their calls will do.
ALIKE = ("OpenAILike", "OpenAILikeResponses")


@pytest.mark.parametrize("integration", INTEGRATIONS, ids=lambda integration: integration.name)
def test_with_the_wire_every_recorded_call_is_exact(integration: Integration, recorded: Any) -> None:
    """… in every class, on one record, none of it estimated: whatever the integration hides."""
    places = _places(integration, recorded)[:: 7 if integration.name in ALIKE else 1]
    found = {}
    for place in places:
        place.aim()
        model, meter = integration.make(place), Meter(prices={})
        with MeterHandler(meter, wire=True):
            error = ask(model, place)
        found[place.document["id"], place.index] = _with_the_wire(meter, place, error)

    assert places
    assert {where: what for where, what in found.items() if what} == {}


@pytest.mark.parametrize("integration", ASYNC, ids=lambda integration: integration.name)
async def test_with_the_wire_async_clients_are_exact_too(integration: Integration, recorded: Any) -> None:
    found = {}
    for place in _places(integration, recorded)[3::9]:
        place.aim()
        model, meter = integration.make(place), Meter(prices={})
        with MeterHandler(meter, wire=True):
            error = await aask(model, place)
        found[place.document["id"], place.index] = _with_the_wire(meter, place, error)

    assert {where: what for where, what in found.items() if what} == {}


def _with_the_wire(meter: Meter, place: Place, error: BaseException | None) -> str:
    if not place.served:
        return f"not asked for: {error!r}"
    health = meter.health()
    unwell = "" if health["ok"] and not health["open_calls"] else str(health)
    return check(meter.history(), place, error) or unwell

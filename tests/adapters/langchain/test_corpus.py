"""Every recorded OpenAI and Anthropic conversation, through ChatOpenAI and ChatAnthropic with a MeterCallback."""

from __future__ import annotations

from typing import Any

import pytest
from tests.adapters.langchain.recorded import APIS, aask, ask, client, wrong
from tests.corpus import conversations

from agent_meter import Meter, Status, UsageRecord
from agent_meter.adapters.langchain import MeterCallback

# The SDKs warn of fields that are newer than they are, and of models that are older.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

DOCUMENTS = [d for d in conversations() if any(i["api"] in APIS for i in d["interactions"])]
SAMPLE = DOCUMENTS[::4]

# What LangChain hides, and what the record then calls missing.
INPUT_OF_A_STREAM = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")
EVERYTHING = ("input_tokens", "output_tokens")
HIDDEN = {
    # The input stands in the first event only; langchain-anthropic reads the last one.
    ("anthropic--messages--test-anthropic-prompt-caching-stream-legacy--d8fa3d24", 0): INPUT_OF_A_STREAM,
    ("anthropic--messages--test-anthropic-prompt-caching-stream-legacy--d8fa3d24", 1): INPUT_OF_A_STREAM,
    ("anthropic--messages--anthropic-completion-stream--285e0499", 0): INPUT_OF_A_STREAM,
    # An answer without a message, on which ChatOpenAI raises.
    ("azure--chat--test-chat-content-filtering--dc677c52", 0): EVERYTHING,
    # The usage is in a field of Groq's own.
    ("groq--chat--testtokencounts-test-groq--5d3f58d5", 0): EVERYTHING,
    # An advisor's turn, which a stream does not count.
    ("anthropic--messages--test-anthropic-advisor-tool-stream--af0b04b6", 0): ("pass_tokens",),
}
# Sent to an endpoint that no LangChain client asks.
ELSEWHERE = {
    ("openai--responses--test-openai-responses-compact-with-instructions--6fce7a7b", 1),
    ("portkey--chat--test-prompt-template--218c3d38", 0),
}


def _asked(document: dict[str, Any]) -> list[int]:
    return [index for index, interaction in enumerate(document["interactions"]) if interaction["api"] in APIS]


def _check(records: list[UsageRecord], document: dict[str, Any], index: int, error: Exception | None) -> None:
    record, passes = records[0], records[1:]
    truth, place = document["truth"][index], (document["id"], index)

    assert record.status is (Status.OK if error is None else Status.ERROR)
    if error is None:
        assert record.streamed is document["interactions"][index]["stream"]
    if place in ELSEWHERE:
        assert (record.usage, record.estimated) == (None, False)
    elif truth["requests"] == 0:
        assert (record.total_tokens, record.estimated, record.billed_cost_usd) == (0, False, 0)
    elif truth.get("ambiguous"):
        assert record.usage is not None
        assert min(record.input_tokens, record.output_tokens, record.cache_read_tokens) >= 0
    elif place in HIDDEN:
        assert record.estimated
        assert record.missing == HIDDEN[place]
        assert not wrong(record, truth).keys() - set(record.missing)
        assert record.notes
    elif truth["input_total"] is None:
        # The provider itself said nothing.
        assert (record.estimated, record.missing) == (True, EVERYTHING)
        assert record.notes
    else:
        assert wrong(record, truth) == {}
        assert (record.estimated, record.notes) == (bool(record.usage and record.usage.problems), ())
        billed = [(p["input_total"], p["output_total"]) for p in truth.get("billed_extra") or ()]
        assert [(p.input_tokens, p.output_tokens) for p in passes] == billed


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["id"])
def test_recorded_tokens_are_the_providers_in_every_class(document: dict[str, Any], replay: Any) -> None:
    """… or the record says which class could not be seen."""
    meter = Meter()

    for index in _asked(document):
        before = len(meter.history())
        stream = document["interactions"][index]["stream"]
        error = ask(client(replay, document, index), stream, {"callbacks": [MeterCallback(meter)]})
        _check(meter.history()[before:], document, index, error)

    assert meter.health()["failures"] == {}
    assert meter.health()["open_calls"] == 0


@pytest.mark.parametrize("document", SAMPLE, ids=lambda document: document["id"])
async def test_async_clients_are_read_as_well_as_sync_ones(document: dict[str, Any], replay: Any) -> None:
    meter = Meter()

    for index in _asked(document):
        before = len(meter.history())
        stream = document["interactions"][index]["stream"]
        error = await aask(client(replay, document, index), stream, {"callbacks": [MeterCallback(meter)]})
        _check(meter.history()[before:], document, index, error)

    assert meter.health()["failures"] == {}
    assert meter.health()["open_calls"] == 0


def _record(document: str, index: int, replay: Any, corpus: dict[str, dict[str, Any]]) -> list[UsageRecord]:
    meter = Meter()
    interaction = corpus[document]["interactions"][index]
    ask(client(replay, corpus[document], index), interaction["stream"], {"callbacks": [MeterCallback(meter)]})
    return meter.history()


def test_a_compaction_is_a_record_of_its_own_and_leaves_the_messages_usage_alone(replay: Any, corpus: Any) -> None:
    place = "anthropic--messages--chat-anthropic-claude-sonnet-4-6-compacts-a-long-conversatio--af581338"

    message, compaction = _record(place, 0, replay, corpus)

    assert (message.input_tokens, message.output_tokens) == (162, 11)
    assert message.usage is not None
    assert (message.usage.units, message.cost.missing) == ({}, ())
    assert (compaction.input_tokens, compaction.output_tokens) == (99_195, 81)
    assert compaction.model == message.model
    assert compaction.notes == (f"compaction pass, billed beside the answer of {message.id}",)
    # Sonnet 4.6: $3 and $15 a million.
    assert message.cost.list_pico == 162 * 3_000_000 + 11 * 15_000_000
    assert compaction.cost.list_pico == 99_195 * 3_000_000 + 81 * 15_000_000


def test_an_advisor_is_priced_as_the_model_that_it_is(replay: Any, corpus: Any) -> None:
    place = "anthropic--messages--test-anthropic-advisor-tool-message-replay--4157fa18"

    message, advice = _record(place, 0, replay, corpus)

    assert (advice.request_model, advice.input_tokens, advice.output_tokens) == ("claude-opus-4-8", 2529, 38)
    assert advice.model != message.model
    assert advice.cost.list_pico is not None


def test_a_streamed_advisor_makes_the_price_a_lower_bound(replay: Any, corpus: Any) -> None:
    """LangChain's streams tell that there was one, and nothing of its tokens."""
    place = "anthropic--messages--test-anthropic-advisor-tool-stream--af0b04b6"

    (record,) = _record(place, 0, replay, corpus)

    assert record.usage is not None
    assert record.usage.units == {"passes": 1}
    assert (record.cost.status, record.cost.missing) == ("partial", ("passes",))


@pytest.mark.parametrize(
    ("document", "searches"),
    [
        ("anthropic--messages--test-anthropic-web-search-tool-stream", 2),
        ("openai--responses--test-run--1c709908", 7),
        ("openai--responses--test-openai-responses-model-web-search-tool", 1),
    ],
)
def test_searches_are_counted_where_langchain_keeps_only_the_content(
    document: str, searches: int, replay: Any, corpus: Any
) -> None:
    for place in corpus:
        if place.startswith(document):
            record = _record(place, 0, replay, corpus)[0]

            assert record.usage is not None
            assert record.usage.units == {"web_searches": searches}, place

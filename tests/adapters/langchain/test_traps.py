"""What makes a naive handler count twice, or not at all: attachment, run ids, running totals, tiers, caches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from tests.adapters.langchain.clients import Scripted, anthropic, openai
from tests.adapters.langchain.clients import usage as _usage

from agent_meter import Meter, Status
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.testing import LoopbackProvider, RecordingPlugin, Reply

Loopback = Callable[..., LoopbackProvider]
FULL = Reply("one two three", input_tokens=1000, output_tokens=100, cache_read_tokens=600, reasoning_tokens=40)


# ------------------------------------------------------------------------------------------------- attachment


def _in_both(model: Any, meter: Meter) -> tuple[Any, Any]:
    handler = MeterCallback(meter)
    return model.with_config(callbacks=[handler]), {"callbacks": [handler]}


def _twice_in_a_list(model: Any, meter: Meter) -> tuple[Any, Any]:
    handler = MeterCallback(meter)
    return model, {"callbacks": [handler, handler]}


def _two_handlers(model: Any, meter: Meter) -> tuple[Any, Any]:
    return model.model_copy(update={"callbacks": [MeterCallback(meter)]}), {"callbacks": [MeterCallback(meter)]}


@pytest.mark.parametrize("attach", [_in_both, _twice_in_a_list, _two_handlers])
async def test_attached_twice_counts_once(attach: Any, loopback: Loopback, meter: Meter) -> None:
    provider = loopback([FULL], loop=True)
    model, config = attach(openai(provider), meter)

    model.invoke("hello", config)
    await model.ainvoke("hello", config)
    list(model.stream("hello", config))
    async for _ in model.astream("hello", config):
        pass

    assert len(meter.history()) == len(provider.requests) == 4
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (4000, 400)


def test_a_tool_that_hears_two_handlers_is_called_once(meter: Meter) -> None:
    @tool
    def now() -> str:
        """The time."""
        return "noon"

    now.invoke({}, {"callbacks": [MeterCallback(meter), MeterCallback(meter)]})

    metrics = meter.analytics.get_metrics("now")
    assert metrics is not None
    assert metrics.total_calls == 1


def test_two_meters_count_each_for_itself(loopback: Loopback, meter: Meter) -> None:
    provider, other = loopback([FULL]), Meter()

    openai(provider).invoke("hello", {"callbacks": [MeterCallback(meter), MeterCallback(other)]})

    assert meter.usage.total_tokens == other.usage.total_tokens == 1100


def test_a_handler_on_the_graph_and_on_its_model_counts_once(loopback: Loopback, meter: Meter, config: Any) -> None:
    provider = loopback([FULL])
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [openai(provider).invoke("hello", config)]})
    graph.add_edge(START, "ask")

    graph.compile(name="asker").invoke({"messages": []}, config)

    assert meter.usage.total_tokens == 1100


def test_callbacks_of_its_own_do_not_tear_a_call_out_of_its_run(loopback: Loopback, meter: Meter, config: Any) -> None:
    """LangChain drops the parent along with the inherited handlers."""
    provider, seen = loopback([FULL]), RecordingPlugin()
    meter.register(seen)
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [openai(provider).invoke("hello", config)]})
    graph.add_edge(START, "ask")

    graph.compile(name="asker").invoke({"messages": []}, config)

    (record,) = meter.history()
    run = next(run for run in seen.run_records if run.name == "asker")
    assert (record.run_id, record.agent) == (run.id, "asker")


def test_one_handler_serves_many_threads(loopback: Loopback, meter: Meter, config: Any) -> None:
    provider = loopback(lambda request: FULL)
    model = openai(provider)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: copy_context().run(model.invoke, "hello", config), range(40)))

    assert (len(meter.history()), meter.usage.total_tokens) == (40, 44_000)


def test_a_copy_of_a_handler_is_the_handler(meter: Meter) -> None:
    """Configurations are copied, and handlers are put into sets."""
    handler = MeterCallback(meter)

    assert copy.deepcopy(handler) is copy.copy(handler) is handler
    assert len({handler, MeterCallback(meter), MeterCallback(Meter())}) == 2


def test_it_does_not_make_every_call_a_stream(meter: Meter) -> None:
    """LangChain takes any handler with these two methods for one that wants tokens, and asks for a stream."""
    from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler

    handler: Any = MeterCallback(meter)

    assert not isinstance(handler, (_StreamingCallbackHandler, _V2StreamingCallbackHandler))
    assert (handler.run_inline, handler.raise_error) == (True, True)


# ---------------------------------------------------------------------------------------------------- run ids


def test_a_run_id_may_be_used_again(loopback: Loopback, meter: Meter, config: Any) -> None:
    provider, same = loopback([FULL], loop=True), uuid4()
    model = openai(provider)

    for _ in range(3):
        model.invoke("hello", {**config, "run_id": same})
        list(model.stream("hello", {**config, "run_id": same}))

    assert len(meter.history()) == len(provider.requests) == 6


def test_a_run_id_may_be_used_again_after_its_run_was_given_up(loopback: Loopback, meter: Meter, config: Any) -> None:
    """The first run never ends; its parent's end gave it up, and the id is kept alive by the program."""
    provider, same, handler = loopback([FULL]), uuid4(), MeterCallback(meter)
    parent = uuid4()
    handler.on_chain_start(None, {}, run_id=parent, name="chain")
    handler.on_chat_model_start({}, [[]], run_id=same, parent_run_id=parent, metadata={"ls_model_name": "gpt-4o"})
    handler.on_chain_end({}, run_id=parent)

    openai(provider).invoke("hello", {**config, "run_id": same})

    assert [record.status for record in meter.history()] == [Status.ABANDONED, Status.OK]
    assert meter.usage.total_tokens == 1100


def test_a_run_outlives_an_equal_run_id_that_is_collected(meter: Meter) -> None:
    """The id was used before, by a run without an end; the program made it twice."""
    handler = MeterCallback(meter)
    first, second = UUID(int=7), UUID(int=7)
    handler.on_chat_model_start({}, [[]], run_id=first, metadata={"ls_model_name": "gpt-4o"})
    meter.expire(older_than=-1)
    handler.on_chat_model_start({}, [[]], run_id=second, metadata={"ls_model_name": "gpt-4o"})

    del first
    handler.on_llm_end(_result(AIMessage("x", usage_metadata=_usage(10, 5))), run_id=second)

    assert [(r.status, r.total_tokens) for r in meter.history()] == [(Status.ABANDONED, 0), (Status.OK, 15)]


def test_an_end_after_all_corrects_what_was_given_up(meter: Meter) -> None:
    handler, parent, run = MeterCallback(meter), uuid4(), uuid4()
    handler.on_chain_start(None, {}, run_id=parent, name="chain")
    handler.on_chat_model_start({}, [[]], run_id=run, parent_run_id=parent, metadata={"ls_model_name": "gpt-4o"})
    handler.on_chain_end({}, run_id=parent)
    assert meter.usage.unpriced_requests == 1

    handler.on_llm_end(_result(AIMessage("x", usage_metadata=_usage(10, 5))), run_id=run)

    assert (meter.usage.requests, meter.usage.total_tokens, meter.usage.unpriced_requests) == (1, 15, 0)
    assert meter.health()["corrected_calls"] == 1


# -------------------------------------------------------------------------------------- running totals, tiers


def _result(message: AIMessage) -> Any:
    from langchain_core.outputs import LLMResult

    return LLMResult(generations=[[ChatGeneration(message=message)]])


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param([_usage(100, 5), _usage(100, 12), _usage(100, 20)], (100, 20), id="running totals"),
        pytest.param([None, _usage(100, 5), None, _usage(100, 20)], (100, 20), id="running totals now and then"),
        pytest.param(
            [_usage(100, 1), _usage(100, 1), _usage(100, 1)], (100, 3), id="input repeated, output one by one"
        ),
        pytest.param([_usage(100, 5), _usage(0, 7), _usage(0, 8)], (100, 20), id="increments"),
        pytest.param([_usage(100, 0), None, _usage(0, 20)], (100, 20), id="input first, output last"),
        pytest.param([None, None, _usage(100, 20)], (100, 20), id="the last one only"),
    ],
)
def test_usage_that_comes_with_many_chunks_is_neither_added_up_nor_lost(
    chunks: list[Any], expected: tuple[int, int], meter: Meter, config: Any
) -> None:
    list(Scripted(chunks=chunks).stream("hello", config))

    (record,) = meter.history()
    assert (record.input_tokens, record.output_tokens) == expected
    assert record.estimated is False


def test_running_totals_are_known_also_to_a_handler_that_hears_each_chunk_twice(meter: Meter) -> None:
    handlers = [MeterCallback(meter), MeterCallback(meter)]

    list(Scripted(chunks=[_usage(100, 5), _usage(100, 12), _usage(100, 20)]).stream("hello", {"callbacks": handlers}))

    (record,) = meter.history()
    assert (record.input_tokens, record.output_tokens) == (100, 20)


@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_a_service_tier_renames_the_details_and_hides_nothing(tier: str, meter: Meter, config: Any) -> None:
    usage = _usage(
        1000,
        300,
        input_token_details={f"{tier}_cache_read": 600, tier: 400},
        output_token_details={f"{tier}_reasoning": 120, tier: 180},
    )

    Scripted(message=AIMessage("x", usage_metadata=usage)).invoke("hello", config)

    (record,) = meter.history()
    assert record.usage is not None
    assert (record.input_tokens, record.output_tokens) == (1000, 300)
    assert (record.cache_read_tokens, record.reasoning_tokens) == (600, 120)
    assert record.usage.context["service_tier"] == tier


def test_a_cost_among_the_usage_is_no_token(meter: Meter, config: Any) -> None:
    usage = _usage(10, 5, total_cost=0.25)

    Scripted(message=AIMessage("x", usage_metadata=usage)).invoke("hello", config)

    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (10, 5)


# ----------------------------------------------------------------------------------------------------- caches


@pytest.mark.parametrize("client", [openai, anthropic])
async def test_a_hit_in_langchains_cache_is_a_replay(
    client: Any, loopback: Loopback, meter: Meter, config: Any
) -> None:
    """Full usage and list price, nothing billed, and what was saved."""
    provider = loopback([FULL], loop=True)
    model = client(provider, cache=InMemoryCache())

    model.invoke("hello", config)
    model.invoke("hello", config)
    await model.ainvoke("hello", config)

    paid, *hits = meter.history()
    assert len(provider.requests) == 1
    assert (paid.cached, paid.status, paid.billed_cost_usd) == (False, Status.OK, paid.cost_usd)
    for hit in hits:
        assert (hit.cached, hit.status, hit.billed_cost_usd) == (True, Status.OK, 0)
        assert (hit.input_tokens, hit.output_tokens, hit.cost_usd) == (1000, 100, paid.cost_usd)
    assert (meter.usage.requests, meter.usage.api_calls, meter.usage.cached_requests) == (3, 1, 2)
    assert meter.usage.saved_cost_usd == 2 * paid.cost_usd
    assert meter.usage.billed_cost_usd == paid.cost_usd


def test_an_answer_is_read_before_the_cache_marks_it_as_a_replay(loopback: Loopback, meter: Meter, config: Any) -> None:
    """The first hit changes the very result that the paid call ended with: whoever reads it later is wrong."""
    kept: list[Any] = []

    class Keeper(BaseCallbackHandler):
        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            kept.append(response)

    model, handlers = openai(loopback([FULL]), cache=InMemoryCache()), [*config["callbacks"], Keeper()]

    model.invoke("hello", {"callbacks": handlers})
    model.invoke("hello", {"callbacks": handlers})

    assert kept[0].generations[0][0].message.usage_metadata["total_cost"] == 0
    assert [record.cached for record in meter.history()] == [False, True]


def test_a_hit_of_an_answer_without_usage_is_an_estimate(meter: Meter, config: Any) -> None:
    model = Scripted(message=AIMessage("an answer of a few words"), cache=InMemoryCache())

    model.invoke("hello", config)
    model.invoke("hello", config)

    paid, hit = meter.history()
    assert [(r.cached, r.estimated) for r in (paid, hit)] == [(False, True), (True, True)]
    assert hit.output_tokens == paid.output_tokens > 0
    assert hit.billed_cost_usd == 0


async def test_a_hit_that_is_bare_text_is_seen(meter: Meter, config: Any) -> None:
    """Caches that were filled by text models, or keep no messages, answer with a plain generation."""

    class Texts(InMemoryCache):
        def lookup(self, prompt: str, llm_string: str) -> Any:
            return [Generation(text="known")]

        async def alookup(self, prompt: str, llm_string: str) -> Any:
            return self.lookup(prompt, llm_string)

    model = Scripted(message=AIMessage("never asked"), cache=Texts())

    model.invoke("hello", config)
    await model.ainvoke("hello", config)

    assert [(r.cached, r.estimated, r.billed_cost_usd) for r in meter.history()] == [(True, True, 0)] * 2


def test_a_provider_that_says_a_call_was_free_has_not_been_replayed(meter: Meter, config: Any) -> None:
    message = AIMessage("x", usage_metadata=_usage(10, 5, total_cost=0))

    Scripted(message=message, about={"model_name": "gpt-4o"}).invoke("hello", config)

    list(Scripted(chunks=[None, _usage(10, 5, total_cost=0)]).stream("hello", config))

    assert [record.cached for record in meter.history()] == [False, False]


def test_a_hit_that_streams_is_a_hit(loopback: Loopback, meter: Meter, config: Any) -> None:
    """Inside a graph that streams, the cache is asked before the model is."""
    provider = loopback([FULL])
    model = openai(provider, cache=InMemoryCache())
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [model.invoke("hello")]})
    graph.add_edge(START, "ask")

    for _ in range(2):
        list(graph.compile().stream({"messages": []}, config, stream_mode="messages"))

    assert [(r.cached, r.total_tokens) for r in meter.history()] == [(False, 1100), (True, 1100)]

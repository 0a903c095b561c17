"""MeteredCache: what a cache answers is a replay, with the list price of the original and nothing to pay."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
from langchain_core.caches import RETURN_VAL_TYPE, BaseCache, InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage
from langchain_core.outputs import Generation
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI, OpenAI
from langgraph.graph import MessagesState, StateGraph

from agent_meter import CacheStats, Denial, Meter, UsageRecord, hookimpl
from agent_meter.adapters.langchain import MeterCallback, MeteredCache
from agent_meter.records import TOKEN_CLASSES
from agent_meter.testing import LoopbackProvider, RecordingPlugin, Reply

REPLY = Reply("Hello", input_tokens=1000, output_tokens=100, cache_read_tokens=400, reasoning_tokens=64)


@pytest.fixture
def meter() -> Meter:
    return Meter(strict=True)


@pytest.fixture
def config(meter: Meter) -> dict[str, Any]:
    return {"callbacks": [MeterCallback(meter)]}


@pytest.fixture
def cache(meter: Meter) -> MeteredCache:
    return MeteredCache(InMemoryCache(), meter)


@pytest.fixture
def provider(loopback: Callable[..., LoopbackProvider]) -> LoopbackProvider:
    return loopback([REPLY], loop=True)


def chat(provider: LoopbackProvider, cache: BaseCache | None, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none", cache=cache, **options)


def check_replay(meter: Meter, price: Decimal | None = None) -> None:
    """The second of two calls is the first one's, replayed."""
    paid, replay = meter.history()
    assert (paid.cached, replay.cached) == (False, True)
    assert replay.usage == paid.usage
    assert not replay.estimated
    assert replay.cost_usd == paid.cost_usd == (price or paid.cost_usd)
    assert replay.cost_usd
    assert (paid.billed_cost_usd, replay.billed_cost_usd) == (paid.cost_usd, 0)
    assert meter.usage.saved_cost_usd == replay.cost_usd


# ------------------------------------------------------------------------------------------------- chat models


def test_a_hit_has_the_originals_usage_and_list_price_and_bills_nothing(
    meter: Meter, cache: MeteredCache, provider: LoopbackProvider, config: Any
) -> None:
    model = chat(provider, cache)

    model.invoke("Hi", config)
    model.invoke("Hi", config)

    assert len(provider.requests) == 1
    assert all(getattr(meter.history()[0].usage, name) == getattr(provider.total, name) for name in TOKEN_CLASSES)
    check_replay(meter, Decimal("0.003"))  # 600 × $2.50 + 400 × $1.25 + 100 × $10, per million


async def test_an_asynchronous_hit_is_a_replay_too(
    meter: Meter, cache: MeteredCache, provider: LoopbackProvider, config: Any
) -> None:
    model = chat(provider, cache)

    await model.ainvoke("Hi", config)
    await model.ainvoke("Hi", config)

    assert len(provider.requests) == 1
    check_replay(meter)
    assert cache.stats == CacheStats(hits=1, misses=1)


def test_a_hit_of_several_choices_counts_once(
    meter: Meter, cache: MeteredCache, provider: LoopbackProvider, config: Any
) -> None:
    model = chat(provider, cache, n=3)

    model.generate([[AIMessage("Hi")]], callbacks=config["callbacks"])
    model.generate([[AIMessage("Hi")]], callbacks=config["callbacks"])

    check_replay(meter)


def test_a_hit_while_a_graph_streams_messages_is_a_replay(
    meter: Meter, cache: MeteredCache, provider: LoopbackProvider, config: Any
) -> None:
    """`stream_mode="messages"` makes a stream of every `invoke`, after the look-up in the cache."""
    model = chat(provider, cache, stream_usage=True)
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [model.invoke("Hi")]})
    graph.set_entry_point("ask")
    agent = graph.compile()

    for _ in range(2):
        list(agent.stream({"messages": []}, config, stream_mode="messages"))

    assert len(provider.requests) == 1
    check_replay(meter)


def test_the_cache_of_the_process_is_metered_like_that_of_a_model(
    meter: Meter, cache: MeteredCache, provider: LoopbackProvider, config: Any
) -> None:
    model = chat(provider, None)
    set_llm_cache(cache)
    try:
        model.invoke("Hi", config)
        model.invoke("Hi", config)
    finally:
        set_llm_cache(None)

    check_replay(meter)


def test_an_answer_that_somebody_has_does_not_change_with_a_hit(
    cache: MeteredCache, provider: LoopbackProvider
) -> None:
    """LangChain writes `total_cost: 0` into what the cache gives it; an in-memory cache gives the first answer."""
    first = chat(provider, cache).generate([[AIMessage("Hi")]])
    second = chat(provider, cache).generate([[AIMessage("Hi")]])

    assert "total_cost" not in first.generations[0][0].message.usage_metadata
    assert second.generations[0][0].message.usage_metadata["total_cost"] == 0


def test_what_somebody_does_to_an_answer_does_not_reach_the_cache(
    cache: MeteredCache, provider: LoopbackProvider
) -> None:
    model = chat(provider, cache)

    model.invoke("Hi").content = "changed"
    model.invoke("Hi").content = "changed"

    assert model.invoke("Hi").content == "Hello"


def test_a_cache_that_keeps_texts_alone_is_a_hit_with_estimated_usage(
    meter: Meter, provider: LoopbackProvider, config: Any
) -> None:
    class Texts(InMemoryCache):
        def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
            super().update(prompt, llm_string, [Generation(text=one.text) for one in return_val])

    model = chat(provider, MeteredCache(Texts(), meter))

    model.invoke("Hi", config)
    model.invoke("Hi", config)

    replay = meter.history()[1]
    assert (replay.cached, replay.estimated, replay.billed_cost_usd) == (True, True, 0)
    assert replay.total_tokens > 0


def test_a_denied_call_is_denied_though_the_cache_has_the_answer(provider: LoopbackProvider, config: Any) -> None:
    """LangChain tells of a call before it looks into the cache: nobody knows yet that it would cost nothing."""
    meter = Meter([Guard(at=2)])
    model = chat(provider, MeteredCache(InMemoryCache(), meter))
    callbacks = {"callbacks": [MeterCallback(meter)]}

    model.invoke("Hi", callbacks)
    with pytest.raises(Exception, match="enough"):
        model.invoke("Hi", callbacks)


class Guard:
    """Denies every call from the `at`th on."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.asked = 0

    @hookimpl
    def meter_admit_call(self, call: Any) -> Denial | None:
        self.asked += 1
        return Denial("enough") if self.asked >= self.at else None


# ------------------------------------------------------------------------------------------------- text models


class Completions:
    """OpenAI's completions: usage of the whole request, whichever way it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.requests.append(body)
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        choices = [
            {"text": f"re: {prompt}", "index": index, "finish_reason": "stop", "logprobs": None}
            for index, prompt in enumerate(prompts)
        ]
        used = {"prompt_tokens": sum(map(len, prompts)), "completion_tokens": 7 * len(prompts)}
        used["total_tokens"] = sum(used.values())
        document = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct"}
        return httpx.Response(200, json={**document, "choices": choices, "usage": used})

    def model(self, cache: BaseCache) -> OpenAI:
        transport = httpx.MockTransport(self.answer)
        return OpenAI(
            model="gpt-3.5-turbo-instruct",
            api_key="none",
            cache=cache,
            http_client=httpx.Client(transport=transport),
            http_async_client=httpx.AsyncClient(transport=transport),
        )


def test_a_hit_of_a_text_model_is_recorded_though_it_fires_no_event(
    meter: Meter, cache: MeteredCache, config: Any
) -> None:
    provider = Completions()
    model = provider.model(cache)

    model.invoke("How are you?", config)
    model.invoke("How are you?", config)

    assert len(provider.requests) == 1
    assert (meter.history()[1].input_tokens, meter.history()[1].output_tokens) == (12, 7)
    assert meter.history()[1].provider == meter.history()[0].provider == "openai"
    assert meter.history()[1].model == meter.history()[0].model == "gpt-3.5-turbo-instruct"
    check_replay(meter)


async def test_replays_of_text_models_at_the_same_time_keep_each_their_own_usage(
    meter: Meter, cache: MeteredCache, config: Any
) -> None:
    model = Completions().model(cache)
    prompts = ["x" * length for length in range(1, 21)]

    await asyncio.gather(*(model.ainvoke(prompt, config) for prompt in prompts))
    await asyncio.gather(*(model.ainvoke(prompt, config) for prompt in prompts))

    replays = [record for record in meter.history() if record.cached]
    assert sorted(record.input_tokens for record in replays) == list(range(1, 21))
    assert not any(record.estimated for record in replays)


def test_a_batch_sent_as_one_request_is_replayed_with_estimates(meter: Meter, cache: MeteredCache, config: Any) -> None:
    """The provider tells the usage of all prompts together: which of them used what, nobody knows."""
    model = Completions().model(cache)

    model.batch(["one", "two", "three"], config)
    model.batch(["one", "two", "three"], config)

    replays = [record for record in meter.history() if record.cached]
    assert [(record.estimated, record.billed_cost_usd) for record in replays] == [(True, 0)] * 3


def test_a_text_model_whose_paid_call_nobody_metered_is_replayed_with_estimates(
    meter: Meter, cache: MeteredCache
) -> None:
    model = Completions().model(cache)

    model.invoke("How are you?")
    model.invoke("How are you?")

    (replay,) = meter.history()
    assert (replay.cached, replay.estimated, replay.missing) == (True, True, ("input_tokens", "output_tokens"))
    assert replay.input_tokens > 0


def test_another_call_between_a_miss_and_its_answer_is_not_taken_for_it(
    meter: Meter, cache: MeteredCache, config: Any, provider: LoopbackProvider
) -> None:
    text, other = Completions().model(cache), chat(provider, None)

    class Curious(MeterCallback):
        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            super().on_llm_end(response, **kwargs)
            other.invoke("Hi", config)

    text.invoke("How are you?", {"callbacks": [Curious(meter)]})
    text.invoke("How are you?", config)

    assert meter.history()[-1].cached
    assert meter.history()[-1].estimated


def test_a_replay_of_a_text_model_belongs_to_the_run_around_it(meter: Meter, cache: MeteredCache, config: Any) -> None:
    model = Completions().model(cache)
    seen = RecordingPlugin()
    meter.register(seen)
    chain = RunnableLambda(lambda prompt: model.invoke(prompt)).with_config(metadata={"user_id": "u1"})

    chain.invoke("How are you?", config)
    with meter.scope(task="again"):
        chain.invoke("How are you?", config)

    replay: UsageRecord = meter.history()[-1]
    assert (replay.cached, replay.user, replay.task) == (True, "u1", "again")
    assert replay.parent_id == replay.run_id == seen.run_records[-1].id
    assert seen.run_records[-1].usage.requests == 1


def test_no_guard_is_asked_about_a_replay_of_a_text_model() -> None:
    """It is free, and the cache knows that it is one."""
    guard = Guard(at=2)
    meter = Meter([guard])
    config: Any = {"callbacks": [MeterCallback(meter)]}
    model = Completions().model(MeteredCache(InMemoryCache(), meter))

    model.invoke("How are you?", config)
    model.invoke("How are you?", config)

    assert (guard.asked, meter.usage.requests) == (1, 2)


def test_without_a_meter_a_replay_goes_to_the_one_that_is_attached_around_it(meter: Meter, config: Any) -> None:
    model = Completions().model(MeteredCache(InMemoryCache()))
    chain = RunnableLambda(lambda prompt: model.invoke(prompt))

    chain.invoke("How are you?", config)
    chain.invoke("How are you?", config)

    check_replay(meter)


# ------------------------------------------------------------------------------------------------ any cache


class SqliteCache(BaseCache):
    """A durable cache, which keeps answers as LangChain's JSON."""

    def __init__(self, path: str) -> None:
        self.path = path
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS answers (prompt TEXT, llm TEXT, answer TEXT)")

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        with sqlite3.connect(self.path) as connection:
            found = connection.execute("SELECT answer FROM answers WHERE prompt=? AND llm=?", (prompt, llm_string))
            row = found.fetchone()
        return loads(row[0], allowed_objects="all") if row else None

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute("INSERT INTO answers VALUES (?, ?, ?)", (prompt, llm_string, dumps(list(return_val))))

    def clear(self, **kwargs: Any) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute("DELETE FROM answers")


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
@pytest.mark.parametrize("text", [False, True], ids=["chat", "text"])
def test_a_durable_cache_remembers_what_was_paid_in_an_earlier_process(
    text: bool, meter: Meter, provider: LoopbackProvider, config: Any, tmp_path: Any
) -> None:
    def model() -> Any:
        cache = MeteredCache(SqliteCache(str(tmp_path / "answers.db")), meter)
        return Completions().model(cache) if text else chat(provider, cache)

    model().invoke("Hi", config)
    model().invoke("Hi", config)

    check_replay(meter)


def test_the_stats_count_hits_and_misses_until_the_cache_is_cleared(
    cache: MeteredCache, provider: LoopbackProvider
) -> None:
    model = chat(provider, cache)
    before = cache.stats

    for question in ("a", "b", "a", "a"):
        model.invoke(question)

    assert before == CacheStats()
    assert cache.stats == CacheStats(hits=2, misses=2, evictions=0)
    assert (cache.stats.total_requests, cache.stats.hit_rate) == (4, 0.5)
    assert repr(cache.stats) == "CacheStats(hits=2, misses=2, evictions=0, hit_rate=50.00%)"

    cache.clear()
    model.invoke("a")

    assert cache.stats == CacheStats(hits=0, misses=1)


async def test_clearing_asynchronously_clears_the_inner_cache(cache: MeteredCache, provider: LoopbackProvider) -> None:
    model = chat(provider, cache)
    await model.ainvoke("a")

    await cache.aclear()
    await model.ainvoke("a")

    assert len(provider.requests) == 2


async def test_the_report_says_what_each_cache_has_saved(
    meter: Meter, cache: MeteredCache, provider: LoopbackProvider, config: Any
) -> None:
    other = MeteredCache(InMemoryCache(), meter)
    one, two = chat(provider, cache), chat(provider, other)
    one.invoke("a", config)
    one.batch(["a", "a"], config)
    await asyncio.gather(*(two.ainvoke("b", config) for _ in range(2)))  # both are misses
    await two.abatch(["b", "b"], config)
    report = cache.report()

    assert (report.stats, report.api_calls_saved, report.tokens_saved) == (cache.stats, 2, 2200)
    assert (report.saved_usd, other.report().saved_usd) == (Decimal("0.006"), Decimal("0.006"))
    assert report.saved_usd + other.report().saved_usd == meter.usage.saved_cost_usd
    assert str(report).startswith("Cache: 2 hits, 1 misses (66.7%), 0 evictions\n  - API calls saved: 2")
    cache.clear()
    assert cache.report().api_calls_saved == 0


def test_the_report_of_a_text_model_is_the_same(meter: Meter, cache: MeteredCache, config: Any) -> None:
    model = Completions().model(cache)
    for _ in range(3):
        model.invoke("Hi", config)

    assert (cache.report().hits, cache.report().api_calls_saved) == (2, 2)
    assert cache.report().tokens_saved == sum(record.total_tokens for record in meter.history() if record.cached)


def test_stats_of_a_cache_that_nobody_asked_have_a_hit_rate_of_zero() -> None:
    assert CacheStats().hit_rate == 0.0


def test_an_inner_caches_own_evictions_are_told() -> None:
    class Small(InMemoryCache):
        stats = CacheStats(evictions=3)

    assert MeteredCache(Small()).stats.evictions == 3


def test_an_answer_that_cannot_be_copied_is_handed_out_as_it_is(provider: LoopbackProvider) -> None:
    """A failure of ours is counted, and the cache goes on as it would without us."""

    class Odd(InMemoryCache):
        def lookup(self, prompt: str, llm_string: str) -> Any:
            found = super().lookup(prompt, llm_string)
            return found and [Broken(text=one.text) for one in found]

    class Broken(Generation):
        def model_copy(self, **_: Any) -> Any:
            raise RuntimeError("not me")

    meter = Meter()
    model = chat(provider, MeteredCache(Odd(), meter))

    model.invoke("Hi")

    assert model.invoke("Hi").content == "Hello"
    assert meter.health()["failures"] == {"MeteredCache": {"lookup": 1}}


def test_ten_caches_of_one_meter_add_one_plugin(meter: Meter, config: Any) -> None:
    before = len(meter.plugins.names())

    for _ in range(10):
        Completions().model(MeteredCache(InMemoryCache(), meter)).invoke("Hi", config)

    assert len(meter.plugins.names()) == before + 1


def test_what_is_handed_out_says_that_it_is_a_hit_and_what_is_kept_does_not() -> None:
    """`MeterCallback` need not guess by other signs; and an inner cache may be used without us again."""
    inner = InMemoryCache()
    cache = MeteredCache(inner, Meter(strict=True))

    cache.update("[]", "llm", [Generation(text="Hello", generation_info={"finish_reason": "stop"})])

    (hit,) = cache.lookup("[]", "llm") or ()
    (kept,) = inner.lookup("[]", "llm") or ()
    info = hit.generation_info or {}
    assert info.pop("agent_meter_cache_hit")
    assert info == {"finish_reason": "stop"}
    assert kept.generation_info == {"finish_reason": "stop"}

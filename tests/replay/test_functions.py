"""Decorated functions: what is asked once, what a hit replays, and what is not kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from anthropic import Anthropic
from openai import AsyncOpenAI, OpenAI

from agent_meter import Budget, BudgetExceeded, Denial, Meter, ReplayCache, TokenUsage, hookimpl
from agent_meter.testing import ErrorReply, LoopbackProvider, Reply, ToolCall

Loopback = Callable[..., LoopbackProvider]
USED = TokenUsage(1000, 100)


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def cache(meter: Meter) -> ReplayCache:
    return ReplayCache(meter=meter)


def openai(provider: LoopbackProvider) -> OpenAI:
    return OpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0)


def test_an_sdk_method_is_answered_from_the_cache(meter: Meter, cache: ReplayCache, loopback: Loopback) -> None:
    provider = loopback([Reply("Hello!", input_tokens=1000, output_tokens=100, cache_read_tokens=600)])
    create = cache.replayed(meter, provider="openai")(openai(provider).chat.completions.create)
    request: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    first, second = create(**request), create(**request)

    assert len(provider.requests) == 1
    assert (second, second is first, type(second)) == (first, False, type(first))
    assert [record.cached for record in meter.history()] == [False, True]
    assert meter.history()[1].usage == meter.history()[0].usage
    assert (meter.usage.input_tokens, meter.usage.cache_read_tokens, meter.usage.output_tokens) == (2000, 1200, 200)
    assert meter.usage.saved_cost_usd == meter.usage.billed_cost_usd == Decimal("0.00275")


async def test_an_asynchronous_sdk_method_too(meter: Meter, cache: ReplayCache, loopback: Loopback) -> None:
    provider = loopback([Reply("Hello!")])
    client = AsyncOpenAI(base_url=provider.openai_base_url, api_key="none", max_retries=0)
    create = cache.replayed(meter, provider="openai")(client.chat.completions.create)
    request: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    answers = [await create(**request), await create(**request)]

    assert (len(provider.requests), answers[0]) == (1, answers[1])
    assert [record.cached for record in meter.history()] == [False, True]


def test_every_dialect_is_read(meter: Meter, cache: ReplayCache, loopback: Loopback) -> None:
    provider = loopback([Reply(tool_calls=[ToolCall("search", {"q": 1})], cache_write_tokens=50, input_tokens=90)])
    client = Anthropic(base_url=provider.anthropic_base_url, api_key="none", max_retries=0)
    create = cache.replayed(meter, provider="anthropic")(client.messages.create)
    for _ in range(2):
        create(model="claude-sonnet-4-6", max_tokens=50, messages=[{"role": "user", "content": "Hi"}])

    truth = provider.truth[0]
    assert [(r.input_tokens, r.cache_write_tokens, r.output_tokens) for r in meter.history()] == [
        (90, 50, truth.output_tokens)
    ] * 2
    assert [r.tools for r in meter.history()] == [("search",)] * 2


def test_another_question_model_parameter_or_endpoint_is_another_key(
    meter: Meter, cache: ReplayCache, loopback: Loopback
) -> None:
    provider, other = loopback(), loopback()
    messages: Any = [{"role": "user", "content": "Hi"}]
    for client in (openai(provider), openai(other)):
        create = cache.replayed(meter)(client.chat.completions.create)
        create(model="gpt-4o", messages=messages)
        create(model="gpt-4o-mini", messages=messages)
        create(model="gpt-4o", messages=messages, temperature=0)
        create(model="gpt-4o", messages=messages, temperature=0.0, timeout=9)  # the same question

    assert (len(provider.requests), len(other.requests)) == (3, 3)


def test_a_function_may_hand_out_its_usage_beside_its_answer(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(model="gpt-4o", agent="greeter")
    def ask(question: str, tone: str = "kind") -> tuple[str, TokenUsage]:
        return f"{question}!", USED

    assert ask("Hi") == ask("Hi", tone="kind") == ("Hi!", USED)
    assert (cache.stats.hits, meter.usage_by("agent")["greeter"].total_tokens) == (1, 2200)


async def test_coroutines_are_answered_from_the_cache(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter, model="gpt-4o")
    async def ask(question: str) -> tuple[str, TokenUsage]:
        return question, USED

    assert await ask("Hi") == await ask("Hi")
    assert (cache.stats.hits, cache.stats.misses) == (1, 1)


def test_the_bare_decorator_takes_the_caches_meter(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed
    def ask(model: str, question: str) -> tuple[str, TokenUsage]:
        return question, USED

    ask("gpt-4o", "Hi")
    ask("gpt-4o", "Hi")

    assert [(record.model, record.cached) for record in meter.history()] == [("gpt-4o", False), ("gpt-4o", True)]


# ------------------------------------------------------------------------------- functions that meter themselves


def test_what_a_function_meters_itself_is_what_a_hit_replays(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter)
    def research(topic: str) -> str:
        with meter.run("research"):
            with meter.llm("gpt-4o") as call:
                call.finish(USED, tools=("search",))
            with meter.tool("search", {"q": topic}):
                pass
            with meter.llm("gpt-4o-mini") as call:
                call.finish(TokenUsage(500, 50))
        return "found"

    research("pluggy")
    paid = meter.usage
    research("pluggy")
    after = meter.usage

    assert (after.requests, after.api_calls, after.total_tokens) == (4, 2, 2 * paid.total_tokens)
    assert (after.billed_cost_usd, after.saved_cost_usd) == (paid.cost_usd, paid.cost_usd)
    assert meter.analytics.get_metrics("search").total_calls == 1  # type: ignore[union-attr]
    assert cache.report().api_calls_saved == 2


def test_a_retry_that_failed_is_not_replayed(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter)
    def ask(question: str) -> str:
        for attempt in range(2):
            try:
                with meter.llm("gpt-4o") as call:
                    if attempt == 0:
                        raise TimeoutError
                    call.finish(USED)
            except TimeoutError:
                continue
        return question

    ask("Hi")
    ask("Hi")

    assert [(r.status, r.cached) for r in meter.history()] == [("error", False), ("ok", False), ("ok", True)]


def test_cached_functions_inside_cached_functions_are_counted_once(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter, model="gpt-4o")
    def inner(question: str) -> tuple[str, TokenUsage]:
        return question, USED

    @cache.replayed(meter)
    def outer(question: str) -> Any:
        return inner(question)

    outer("Hi")
    outer("Hi")
    inner("Hi")

    assert [record.cached for record in meter.history()] == [False, True, True]


# --------------------------------------------------------------------------------------------- what is not kept


def test_errors_are_raised_recorded_and_not_kept(meter: Meter, cache: ReplayCache, loopback: Loopback) -> None:
    provider = loopback([ErrorReply(500, "overloaded"), Reply("Hello!")])
    create = cache.replayed(meter)(openai(provider).chat.completions.create)
    request: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    with pytest.raises(Exception, match="500"):
        create(**request)
    create(**request)

    assert [(record.status, record.cached) for record in meter.history()] == [("error", False), ("ok", False)]
    assert (cache.stats.hits, cache.stats.misses) == (0, 2)


def test_an_answer_that_is_an_error_is_not_kept(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter, model="gpt-4o")
    def ask(question: str) -> Any:
        return {"error": {"type": "overloaded_error"}}

    ask("Hi")
    ask("Hi")

    assert ([record.status for record in meter.history()], cache.size) == (["error", "error"], 0)


class Guard:
    """Denies everything from the second call on."""

    def __init__(self) -> None:
        self.asked = 0

    @hookimpl
    def meter_admit_call(self, call: object) -> Denial | None:
        self.asked += 1
        return Denial("the budget is gone") if self.asked > 1 else None


def test_a_denied_call_is_not_kept_and_a_hit_asks_no_guard(meter: Meter, cache: ReplayCache) -> None:
    meter.register(guard := Guard())

    @cache.replayed(meter, model="gpt-4o")
    def ask(question: str) -> tuple[str, TokenUsage]:
        return question, USED

    ask("Hi")
    with pytest.raises(BudgetExceeded):
        ask("Something else")
    hit = ask("Hi")

    assert (hit, guard.asked, cache.size) == (("Hi", USED), 2, 1)


def test_what_a_function_says_when_it_was_denied_is_no_answer(meter: Meter, cache: ReplayCache) -> None:
    meter.register(guard := Guard())
    guard.asked = 1

    @cache.replayed(meter)
    def ask(question: str) -> str:
        try:
            with meter.llm("gpt-4o"):
                return "unreachable"
        except BudgetExceeded:
            return "Sorry, the budget is gone."

    assert (ask("Hi"), cache.size) == ("Sorry, the budget is gone.", 0)


# --------------------------------------------------------------------------------------------------- keys


def test_arguments_that_cannot_be_a_key_are_asked_every_time_and_counted(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter, model="gpt-4o")
    def ask(client: object, question: str) -> tuple[str, TokenUsage]:
        return question, USED

    ask(object(), "Hi")
    ask(object(), "Hi")

    assert (cache.stats.misses, meter.health()["failures"]) == (2, {"ReplayCache": {"key": 2}})
    assert "object cannot be part of a cache key" in meter.health()["last_errors"]["ReplayCache"]["key"]


def test_arguments_can_be_ignored_or_a_key_be_given(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter, model="gpt-4o", ignore=("client",))
    def ask(client: object, question: str) -> tuple[str, TokenUsage]:
        return question, USED

    class Agent:
        system = "Be kind."

        @cache.replayed(meter, model="gpt-4o", key=lambda self, question: (self.system, question))
        def ask(self, question: str) -> tuple[str, TokenUsage]:
            return question, USED

    for _ in range(2):
        ask(object(), "Hi")
        Agent().ask("Hi")
    rude = Agent()
    rude.system = "Be rude."
    rude.ask("Hi")

    assert (cache.stats.hits, cache.stats.misses) == (2, 3)


def test_a_method_must_say_what_its_answers_depend_on(meter: Meter, cache: ReplayCache) -> None:
    with pytest.raises(TypeError, match="is a method: say what changes its answers"):

        class Agent:
            @cache.replayed(meter, model="gpt-4o")
            def ask(self, question: str) -> str:
                return question


def test_a_bound_method_is_asked_on_behalf_of_its_object(meter: Meter, cache: ReplayCache) -> None:
    @dataclass
    class Agent:
        system: str

        def ask(self, question: str) -> Any:
            return f"{self.system} {question}", USED

    class Client:
        def __init__(self) -> None:
            self._client = object()  # as SDKs have, and this is none

        def ask(self, question: str) -> Any:
            return question, USED

    asked = [cache.replayed(meter, model="gpt-4o")(Agent(system).ask)("Hi")[0] for system in ("kind", "rude", "kind")]

    assert (asked, cache.stats.hits) == (["kind Hi", "rude Hi", "kind Hi"], 1)
    with pytest.raises(TypeError, match=r"Client\.ask: Client cannot be part of a cache key.* key=lambda"):
        cache.replayed(meter, model="gpt-4o")(Client().ask)


def test_what_a_function_encloses_is_part_of_the_question(meter: Meter, cache: ReplayCache) -> None:
    def made(system: str, client: object = None) -> Callable[[str], Any]:
        def ask(question: str) -> Any:
            return (f"{system} {question} {client and 'client'}", USED)

        return cache.replayed(meter, model="gpt-4o")(ask)  # type: ignore[no-any-return]

    kind, rude, kind_again = made("kind"), made("rude"), made("kind")
    with_a_client, with_another = made("kind", object()), made("kind", object())
    answers = [ask("Hi")[0] for ask in (kind, rude, kind_again, with_a_client, with_another, with_another)]

    assert answers == ["kind Hi None", "rude Hi None", "kind Hi None", *["kind Hi client"] * 3]
    assert (cache.stats.hits, cache.stats.misses) == (2, 4)


def test_a_call_with_wrong_arguments_fails_as_it_would_have(meter: Meter, cache: ReplayCache) -> None:
    @cache.replayed(meter, model="gpt-4o")
    def ask(question: str) -> str:
        return question

    with pytest.raises(TypeError, match="unexpected keyword argument 'quesion'"):
        ask(quesion="Hi")


def test_an_answer_that_cannot_be_copied_is_given_and_not_kept(meter: Meter, cache: ReplayCache) -> None:
    import threading

    @cache.replayed(meter, model="gpt-4o")
    def ask(question: str) -> Any:
        return threading.Lock(), USED

    ask("Hi")

    assert (cache.size, meter.health()["failures"]) == (0, {"ReplayCache": {"set": 1}})


def test_a_used_up_budget_lets_hits_pass_and_counts_none_of_them() -> None:
    meter = Meter(budgets=[Budget("calls", requests=1, usd="1")])
    cache = ReplayCache(meter=meter)

    @cache.replayed(model="gpt-4o", provider="openai", max_output_tokens=100, input_tokens=1000)
    def ask(question: str) -> tuple[str, TokenUsage]:
        return question, USED

    answers = [ask("Hi") for _ in range(5)]
    with pytest.raises(BudgetExceeded):
        ask("Something else")

    assert answers == [("Hi", USED)] * 5
    assert (meter.usage.api_calls, meter.usage.requests, meter.usage.denied_requests) == (1, 5, 1)

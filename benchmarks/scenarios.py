"""Thirteen things that an application does, and what handlers make of them.

The provider is scripted: each answer used 1,000 tokens of input, 600 of them from its cache, and 500 of output, 300 of
them reasoning. By gpt-4o's prices of $2.50, $1.25 and $10 a million that is $0.00675. A stream that is left is billed
for its input and for what was generated until then, which nobody is told: there only a flag is right.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from unittest.mock import patch

from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from agent_meter.adapters.langchain import MeteredEmbeddings
from agent_meter.testing import LoopbackProvider, Reply, ToolCall

from .handlers import MORE, Counter, Ours, Said, installed
from .writing import Page

COUNTS: dict[str, Any] = {
    "input_tokens": 1000,
    "cache_read_tokens": 600,
    "output_tokens": 500,
    "reasoning_tokens": 300,
}
REPLY = Reply("Twelve words of an answer that is long enough to be streamed.", **COUNTS)
TRUTH = {"input_total": 1000, "cache_read": 600, "output_total": 500, "reasoning": 300}
COST = 0.00675
EMBEDDED = 1000
WELL = ("exact", "flagged", "tokens exact, unpriced")
USERS = 4


class Scenario(NamedTuple):
    name: str
    what: str
    run: Callable[[LoopbackProvider, Counter], None]
    calls: int = 1
    priced: bool = True
    known: bool = True  # the provider tells its count
    replies: tuple[Reply, ...] = (REPLY,)


def _model(provider: LoopbackProvider, **options: Any) -> ChatOpenAI:
    options = {"model": "gpt-4o", "stream_usage": True, "max_retries": 0, **options}
    return ChatOpenAI(base_url=provider.openai_base_url, api_key="none", **options)


def _listening(handler: Counter, **more: Any) -> Any:
    return {"callbacks": handler.callbacks(), **more}


def _invoke(provider: LoopbackProvider, handler: Counter) -> None:
    _model(provider).invoke("hello", _listening(handler))


def _stream_as_it_is(provider: LoopbackProvider, handler: Counter) -> None:
    model = ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none", max_retries=0)
    list(model.stream("hello", _listening(handler)))


def _stream(provider: LoopbackProvider, handler: Counter) -> None:
    list(_model(provider).stream("hello", _listening(handler)))


def _astream(provider: LoopbackProvider, handler: Counter) -> None:
    async def read() -> None:
        async for _ in _model(provider).astream("hello", _listening(handler)):
            pass

    asyncio.run(read())


def _break(provider: LoopbackProvider, handler: Counter) -> None:
    stream: Any = _model(provider).stream("hello", _listening(handler))
    for _ in range(3):
        next(stream)
    stream.close()


def _unknown(provider: LoopbackProvider, handler: Counter) -> None:
    # Reached as a provider is whose address nobody names: a model on this machine would be free.
    with patch.dict(os.environ, {"OPENAI_BASE_URL": provider.openai_base_url}):
        model = ChatOpenAI(model="acme-new-model-9", api_key="none", max_retries=0)  # type: ignore[arg-type]
    model.invoke("hello", _listening(handler))


def _replay(provider: LoopbackProvider, handler: Counter) -> None:
    model = _model(provider, cache=InMemoryCache())
    config = _listening(handler)
    for _ in range(3):
        model.invoke("hello", config)


def _threads(provider: LoopbackProvider, handler: Counter) -> None:
    model, callbacks = _model(provider), handler.callbacks()

    def ask(number: int) -> None:
        model.invoke("hello", {"callbacks": callbacks, "metadata": {"user_id": f"user-{number % USERS}"}})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(24)))


def _batch(provider: LoopbackProvider, handler: Counter) -> None:
    _model(provider).batch(["hello"] * 5, _listening(handler))


def _embed(provider: LoopbackProvider, handler: Counter) -> None:
    options: dict[str, Any] = {"check_embedding_ctx_length": False, "max_retries": 0}
    inner = OpenAIEmbeddings(
        model="text-embedding-3-small", base_url=provider.openai_base_url, api_key="none", **options
    )
    handler.callbacks()
    if isinstance(handler, Ours):
        MeteredEmbeddings(inner, meter=handler.meter).embed_documents(["hello"])
    else:  # LangChain tells its handlers nothing of embeddings, and they have no wrapper
        inner.embed_documents(["hello"])


def _responses(provider: LoopbackProvider, handler: Counter) -> None:
    _model(provider, use_responses_api=True).invoke("hello", _listening(handler))


def _agent(provider: LoopbackProvider, handler: Counter) -> None:
    from langchain.agents import create_agent

    def weather(city: str) -> str:
        """The weather in a city."""
        return f"Rain in {city}."

    agent = create_agent(_model(provider), [weather])
    agent.invoke({"messages": [HumanMessage("weather?")]}, _listening(handler))


ASKS = Reply("", tool_calls=[ToolCall("weather", {"city": "Ghent"})], **COUNTS)
SCENARIOS = (
    Scenario("invoke", "one answer in one piece", _invoke),
    Scenario("stream as it is", "from a server of one's own, usage not asked for", _stream_as_it_is, known=False),
    Scenario("stream with usage", "`stream_usage=True`", _stream),
    Scenario("astream with usage", "the same, asynchronous", _astream),
    Scenario("stream left", "the consumer goes after three chunks", _break, known=False),
    Scenario("unknown model", "no price list has it: tokens, and no price", _unknown, priced=False),
    Scenario(
        "snapshot", "gpt-4o is asked, gpt-4o-2024-08-06 answers", _invoke,
        replies=(Reply("Fine.", model="gpt-4o-2024-08-06", **COUNTS),),
    ),
    Scenario("cache replay", "three equal calls with LangChain's cache: one is paid for", _replay),
    Scenario("users in threads", f"24 calls of {USERS} users in 8 threads", _threads, calls=24),
    Scenario("batch", "`batch` of five", _batch, calls=5),
    Scenario("embeddings", f"{EMBEDDED} tokens of text-embedding-3-small", _embed),
    Scenario("responses", "OpenAI's Responses API", _responses),
    Scenario("agent with a tool", "two model calls around one tool", _agent, calls=2, replies=(ASKS, REPLY)),
)  # fmt: skip


def verdict(scenario: Scenario, handler: Counter, said: Said | None) -> str:
    """One cell of the table."""
    if scenario.run is _embed:
        return _of_embeddings(said)
    truth = {name: count * scenario.calls for name, count in TRUTH.items() if name in handler.reads}
    if said is None or not any(said.counts.values()):
        return "lost"
    if not scenario.known:
        return "flagged" if {"input_total", "output_total"} <= said.unseen else "silent"
    billed = {name: said.counts.get(name, 0) for name in truth}
    if isinstance(handler, Ours):
        return _ours(scenario, handler, truth)
    if billed != truth:
        return f"silent: {billed['input_total']:,}/{billed['output_total']:,}"
    if not handler.prices:
        return "tokens exact, no money"
    if not scenario.priced:
        return "tokens exact, unpriced" if said.usd is None else f"tokens exact, ${said.usd:.5f} for unknown"
    if said.usd is None:
        return "tokens exact, unpriced"
    right = abs(said.usd - COST * scenario.calls) < 1e-9
    return "exact" if right else f"tokens exact, ${said.usd:.5f} for ${COST * scenario.calls:.5f}"


def _ours(scenario: Scenario, handler: Ours, truth: dict[str, int]) -> str:
    records = [record for record in handler.meter.history() if not record.cached]
    found = {
        "input_total": sum(r.input_tokens for r in records),
        "cache_read": sum(r.cache_read_tokens for r in records),
        "output_total": sum(r.output_tokens for r in records),
        "reasoning": sum(r.reasoning_tokens for r in records),
    }
    spent = sum(r.billed_cost_usd or 0 for r in records)
    if found != truth:
        return f"silent: {found['input_total']:,}/{found['output_total']:,}"
    if scenario.run is _threads:
        users = [sum(r.user == f"user-{number}" for r in records) for number in range(USERS)]
        if users != [scenario.calls // USERS] * USERS:
            return f"users wrong: {users}"
    if not scenario.priced:
        return "tokens exact, unpriced" if all(r.billed_cost_usd is None for r in records) else "silent: priced"
    right = abs(float(spent) - COST * scenario.calls) < 1e-12
    return "exact" if right else f"tokens exact, ${spent} for ${COST * scenario.calls:.5f}"


def _of_embeddings(said: Said | None) -> str:
    if said is None or not said.counts.get("input_total"):
        return "lost"
    return "exact" if said.counts["input_total"] == EMBEDDED else "silent"


def report(page: Page, handlers: list[Counter]) -> None:
    handlers = [*handlers, *installed(MORE)]
    page.title("Thirteen scenarios")
    page.say(
        "A scripted provider whose every answer used 1,000 tokens of input (600 cached) and 500 of output (300 of them "
        "reasoning): $0.00675 with gpt-4o. Where a provider does not tell its count, only a flag is right. Of users, "
        "only ours are judged; of the others the sums."
    )
    page.say()
    rows: list[list[object]] = []
    for scenario in SCENARIOS:
        cells: list[object] = []
        for handler in handlers:
            replies = (Reply("", input_tokens=EMBEDDED),) if scenario.run is _embed else scenario.replies
            with LoopbackProvider(list(replies), loop=True) as provider:
                scenario.run(provider, handler)
            cells.append(verdict(scenario, handler, handler.said()))
        rows.append([f"{scenario.name}: {scenario.what}", *cells])
    page.say(", ".join(handler.title() for handler in handlers) + ".")
    page.say()
    page.table(["scenario", *(handler.name for handler in handlers)], rows, 0)
    good = [
        sum(str(row[column]) in (WELL if row[0].startswith("unknown") else WELL[:2]) for row in rows)
        for column in range(1, len(handlers) + 1)
    ]
    told = ", ".join(f"{handler.name} {count}" for handler, count in zip(handlers, good, strict=True))
    page.say(f"Exact in tokens and money, or flagged, of {len(SCENARIOS)}: {told}.")
    page.say()


if __name__ == "__main__":
    report(Page(), installed())

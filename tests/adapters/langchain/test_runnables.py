"""What stands around a model: structured output, retries, fallbacks, branches, retrievers, tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel
from pydantic import BaseModel
from tests.adapters.langchain.clients import agrees, anthropic, openai

from agent_meter import Kind, Meter, Status
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.testing import ErrorReply, LoopbackProvider, RecordingPlugin, Reply, ToolCall

Loopback = Callable[..., LoopbackProvider]
FULL = Reply(
    "one two three four five",
    input_tokens=1000,
    output_tokens=100,
    cache_read_tokens=600,
    cache_write_tokens=200,
    reasoning_tokens=40,
)


class Answer(BaseModel):
    """An answer."""

    number: int


RIGHT = ToolCall("Answer", {"number": 42})
WRONG = ToolCall("Answer", {"number": "forty-two"})


@pytest.mark.parametrize("include_raw", [False, True])
def test_structured_output_is_one_call_also_when_it_cannot_be_parsed(
    include_raw: bool, loopback: Loopback, meter: Meter, config: Any
) -> None:
    """The parser fails after the answer was paid for."""
    provider = loopback([Reply(tool_calls=[RIGHT]), Reply(tool_calls=[WRONG])])
    model = openai(provider).with_structured_output(Answer, method="function_calling", include_raw=include_raw)

    model.invoke("hello", config)
    try:
        model.invoke("hello", config)
        failed = False
    except ValueError:
        failed = True

    assert failed is not include_raw
    assert agrees(meter, provider)
    assert [record.status for record in meter.history()] == [Status.OK, Status.OK]


def test_structured_output_that_is_tried_again_is_counted_each_time(
    loopback: Loopback, meter: Meter, config: Any
) -> None:
    provider = loopback([Reply(tool_calls=[WRONG]), Reply(tool_calls=[WRONG]), Reply(tool_calls=[RIGHT])])
    model = openai(provider).with_structured_output(Answer, method="function_calling")

    answer = model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False).invoke("hello", config)

    assert answer == Answer(number=42)
    assert agrees(meter, provider)
    assert [record.attempt for record in meter.history()] == [1, 2, 3]


def test_an_answer_cut_by_the_length_limit_is_paid_for_although_the_sdk_raises(
    loopback: Loopback, meter: Meter, config: Any
) -> None:
    provider = loopback([Reply('{"number": 4', input_tokens=50, output_tokens=8, finish="length")])
    model = openai(provider).with_structured_output(Answer, method="json_schema")

    with pytest.raises(Exception, match="length limit"):
        model.invoke("hello", config)

    (record,) = meter.history()
    assert (record.status, record.error_type) == (Status.ERROR, "LengthFinishReasonError")
    assert (record.input_tokens, record.output_tokens, record.estimated) == (50, 8, False)


def test_attempts_are_numbered_and_refused_ones_cost_nothing(loopback: Loopback, meter: Meter, config: Any) -> None:
    provider = loopback([ErrorReply(500, should_retry=False), ErrorReply(429, should_retry=False), FULL])

    openai(provider).with_retry(stop_after_attempt=3, wait_exponential_jitter=False).invoke("hello", config)

    records = meter.history()
    assert [(r.attempt, r.status, r.total_tokens) for r in records] == [
        (1, Status.ERROR, 0),
        (2, Status.ERROR, 0),
        (3, Status.OK, 1100),
    ]
    assert [(r.estimated, r.billed_cost_usd) for r in records[:2]] == [(False, 0), (False, 0)]
    assert meter.usage.unpriced_requests == 0


def test_attempts_of_a_whole_chain_are_numbered_on_its_model_calls(
    loopback: Loopback, meter: Meter, config: Any
) -> None:
    """LangChain marks only the chain that is tried again."""
    provider = loopback([ErrorReply(500, should_retry=False), FULL])
    chain = ChatPromptTemplate.from_messages([("user", "{q}")]) | openai(provider)

    chain.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).invoke({"q": "?"}, config)

    assert [(record.attempt, record.status) for record in meter.history()] == [(1, Status.ERROR), (2, Status.OK)]


def test_a_fallback_is_a_call_of_its_own_below_the_same_run(loopback: Loopback, meter: Meter, config: Any) -> None:
    provider = loopback([ErrorReply(500, should_retry=False), FULL])

    openai(provider).with_fallbacks([anthropic(provider)]).invoke("hello", config)

    failed, answered = meter.history()
    assert [(r.provider, r.status) for r in (failed, answered)] == [("openai", "error"), ("anthropic", "ok")]
    assert failed.run_id == answered.run_id is not None
    assert answered.total_tokens == 1100


async def test_parallel_branches_are_all_counted_below_one_run(loopback: Loopback, meter: Meter, config: Any) -> None:
    provider = loopback([FULL], loop=True)
    branches = RunnableParallel(
        a=openai(provider), b=openai(provider), c=RunnableLambda(lambda q: q) | openai(provider)
    )

    branches.invoke("hello", config)
    await branches.ainvoke("hello", config)

    assert agrees(meter, provider)
    assert len(provider.requests) == 6
    assert len({record.run_id for record in meter.history()}) == 2


class Shelf(BaseRetriever):
    """Finds the same document always, or nothing at all."""

    broken: bool = False

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        if self.broken:
            raise OSError("the shelf fell down")
        return [Document("a page")]


def test_a_retriever_is_a_step(meter: Meter) -> None:
    seen = RecordingPlugin()
    meter.register(seen)
    config: Any = {"callbacks": [MeterCallback(meter)], "metadata": {"user_id": "ada"}}

    Shelf().invoke("where?", config)
    with pytest.raises(OSError, match="fell down"):
        Shelf(broken=True).invoke("where?", config)

    assert [(r.kind, r.name, r.status, r.error_type, r.user) for r in seen.run_records] == [
        (Kind.STEP, "Shelf", Status.OK, None, "ada"),
        (Kind.STEP, "Shelf", Status.ERROR, "OSError", "ada"),
    ]


def test_a_tool_may_say_what_it_cost(meter: Meter, config: Any) -> None:
    from langchain_core.callbacks import dispatch_custom_event
    from langchain_core.tools import tool

    @tool
    def search(q: str) -> str:
        """Search."""
        dispatch_custom_event("tool_cost", {"usd": "0.005"})
        dispatch_custom_event("tool_cost", {"usd": "0.0025"})
        dispatch_custom_event("progress", {"usd": "1000"})
        return q

    search.invoke({"q": "x"}, config)

    metrics = meter.analytics.get_metrics("search")
    assert metrics is not None
    assert str(metrics.total_cost) == "0.0075"

"""Every way in which LangChain asks a model, and what a handler is told of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.language_models import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.prompt_values import StringPromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel
from pydantic import BaseModel
from tests.adapters.langchain.clients import anthropic, openai

from agent_meter import Kind, Meter, Status, TokenUsage
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.records import TOKEN_CLASSES
from agent_meter.testing import ErrorReply, FakeClock, LoopbackProvider, RecordingPlugin, Reply, ToolCall

Loopback = Callable[..., LoopbackProvider]
FULL = Reply(
    "one two three four five",
    input_tokens=1000,
    output_tokens=100,
    cache_read_tokens=600,
    cache_write_tokens=200,
    reasoning_tokens=40,
)


@pytest.fixture
def meter() -> Iterator[Meter]:
    """Whatever a test does, nothing stays open and nothing has failed inside."""
    meter = Meter()
    yield meter
    assert meter.health()["failures"] == {}
    assert meter.health()["open_calls"] == 0


@pytest.fixture
def config(meter: Meter) -> Any:
    return {"callbacks": [MeterCallback(meter)]}


def counts(usage: TokenUsage | None) -> tuple[int, ...]:
    return () if usage is None else tuple(getattr(usage, name) for name in TOKEN_CLASSES)


def agrees(meter: Meter, provider: LoopbackProvider) -> bool:
    """Record for record what the provider served, whatever the order in which the answers came."""
    recorded = sorted(counts(record.usage) for record in meter.history())
    return bool(recorded) and recorded == sorted(counts(usage) for usage in provider.truth)


# --------------------------------------------------------------------------------------------- chat models


def _responses(provider: LoopbackProvider) -> Any:
    return openai(provider, use_responses_api=True)


def _prompts() -> Any:
    return [StringPromptValue(text="hello"), StringPromptValue(text="there")]


async def _all(stream: Any) -> list[Any]:
    return [item async for item in stream]


async def _all_of(stream: Any) -> list[Any]:
    return await _all(await stream)


# How it is asked, how many calls that is, and whether they stream.
MODES: dict[str, tuple[Callable[[Any, Any], Any], int, bool]] = {
    "invoke": (lambda model, config: model.invoke("hello", config), 1, False),
    "ainvoke": (lambda model, config: model.ainvoke("hello", config), 1, False),
    "batch": (lambda model, config: model.batch(["hello", "there"], config), 2, False),
    "abatch": (lambda model, config: model.abatch(["hello", "there"], config), 2, False),
    "generate": (lambda model, config: model.generate_prompt(_prompts(), **config), 2, False),
    "agenerate": (lambda model, config: model.agenerate_prompt(_prompts(), **config), 2, False),
    "stream": (lambda model, config: list(model.stream("hello", config)), 1, True),
    "astream": (lambda model, config: _all(model.astream("hello", config)), 1, True),
    "astream_events v2": (lambda model, config: _all(model.astream_events("hello", config, version="v2")), 1, True),
    "stream_events v3": (lambda model, config: list(model.stream_events("hello", config, version="v3")), 1, True),
    "astream_events v3": (lambda model, config: _all_of(model.astream_events("hello", config, version="v3")), 1, True),
}


@pytest.mark.filterwarnings("ignore:.*beta", "ignore:Unexpected type for token usage")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("client", [openai, _responses, anthropic], ids=["chat", "responses", "anthropic"])
async def test_every_mode_is_counted_as_the_provider_counts(
    client: Any, mode: str, loopback: Loopback, meter: Meter, config: Any
) -> None:
    provider = loopback([FULL], loop=True)
    ask, calls, streams = MODES[mode]

    answer = ask(client(provider), config)
    if inspect.isawaitable(answer):
        await answer
    for _ in range(100):  # an asynchronous v3 stream ends in the background
        if not meter.health()["open_calls"]:
            break
        await asyncio.sleep(0.01)

    assert len(provider.requests) == calls
    assert agrees(meter, provider)
    for record in meter.history():
        assert (record.status, record.streamed, record.estimated) == (Status.OK, streams, False)
        assert (record.response_model, record.attempt) == (record.request_model, 1)
        # The provider's own, where LangChain hands it on; never LangChain's stand-in for it.
        assert record.response_id is None or record.response_id.startswith(("chatcmpl-", "resp_", "msg_"))
        assert streams or record.response_id is not None
        if streams:
            assert record.time_to_first_token is not None
            assert 0 < record.time_to_first_token <= record.duration
        else:
            assert record.time_to_first_token is None


def test_the_time_to_the_first_token_is_not_the_time_to_the_first_chunk(loopback: Loopback) -> None:
    """The first chunk of a stream carries a role, and no token."""
    clock = FakeClock()
    meter = Meter(clock=clock)
    stream = openai(loopback([FULL])).stream("hello", {"callbacks": [MeterCallback(meter)]})
    texts = []

    while (chunk := next(stream, None)) is not None:
        texts.append(chunk.text)
        clock.advance(1)

    (record,) = meter.history()
    assert not texts[0]
    assert texts[1]
    assert (record.time_to_first_token, record.duration) == (1.0, float(len(texts)))


def test_a_stream_of_nothing_but_a_tool_call_has_a_first_token(loopback: Loopback, meter: Meter, config: Any) -> None:
    provider = loopback([Reply(tool_calls=[ToolCall("search", {"q": "it"})])])

    list(openai(provider).stream("hello", config))

    (record,) = meter.history()
    assert record.time_to_first_token is not None
    assert record.tools == ("search",)


@pytest.mark.parametrize("streaming", [False, True])
def test_several_choices_are_one_answer(streaming: bool, loopback: Loopback, meter: Meter, config: Any) -> None:
    """Each of them repeats the usage of all; a stream merges their model names into one."""
    provider = loopback([Reply("one two", input_tokens=100, output_tokens=20, model="gpt-4o-2024-08-06")])
    model = openai(provider, n=2)

    if streaming:
        list(model.stream("hello", config))
    else:
        model.invoke("hello", config)

    (record,) = meter.history()
    assert provider.requests[0].choices == 2
    assert (record.input_tokens, record.output_tokens) == (100, 20)
    assert (record.response_model, record.model) == ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06")
    assert record.cost.status == "priced"


@pytest.mark.parametrize("mode", ["messages", "values", "updates"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_that_streams_is_counted_once(
    mode: str, asynchronous: bool, loopback: Loopback, meter: Meter, config: Any
) -> None:
    provider = loopback([FULL])
    agent, question = create_agent(openai(provider), []), {"messages": [("user", "hello")]}

    if asynchronous:
        await _all(agent.astream(question, config, stream_mode=mode))
    else:
        list(agent.stream(question, config, stream_mode=mode))

    assert agrees(meter, provider)
    (record,) = meter.history()
    assert record.streamed is (mode == "messages")


def test_the_served_model_prices_the_call_and_the_asked_one_is_kept(
    loopback: Loopback, meter: Meter, config: Any
) -> None:
    provider = loopback([Reply("x", input_tokens=1000, output_tokens=100, model="gpt-4o-mini-2024-07-18")])

    openai(provider).bind(model="gpt-4o-mini").invoke("hello", config)

    (record,) = meter.history()
    assert (record.request_model, record.response_model) == ("gpt-4o-mini", "gpt-4o-mini-2024-07-18")
    assert record.cost.list_pico == 1000 * 150_000 + 100 * 600_000  # $0.15 and $0.60 a million


# --------------------------------------------------------------------------------------------- text models


class Completions(BaseLLM):
    """A text model as OpenAI's completions are: one request for all prompts, and the usage of all of them."""

    asked: list[int] = []

    @property
    def _llm_type(self) -> str:
        return "openai"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-3.5-turbo-instruct", "ls_model_type": "llm"}

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        self.asked.append(len(prompts))
        usage = {"prompt_tokens": 10 * len(prompts), "completion_tokens": 4 * len(prompts)}
        return LLMResult(
            generations=[[Generation(text=f"answer to {prompt}")] for prompt in prompts],
            llm_output={"token_usage": usage, "model_name": "gpt-3.5-turbo-instruct"},
        )


async def test_a_text_model_is_counted(meter: Meter, config: Any) -> None:
    model = Completions(asked=[])

    model.invoke("hello", config)
    await model.ainvoke("there", config)

    assert [(r.input_tokens, r.output_tokens, r.estimated) for r in meter.history()] == [(10, 4, False)] * 2
    assert {record.model for record in meter.history()} == {"gpt-3.5-turbo-instruct"}


async def test_a_batch_of_a_text_model_is_one_request_and_its_usage_counts_once(meter: Meter, config: Any) -> None:
    """LangChain leaves the usage of all prompts on the first run."""
    model = Completions(asked=[])

    model.batch(["a", "b", "c"], config)
    await model.abatch(["a", "b", "c"], config)

    assert model.asked == [3, 3]
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (60, 24)
    assert [record.total_tokens for record in meter.history()] == [42, 0, 0, 42, 0, 0]
    assert meter.usage.estimated_requests == 0
    assert "the usage of all is on the first of them" in meter.history()[1].notes[0]


def test_a_text_model_that_says_nothing_is_estimated_and_flagged(meter: Meter, config: Any) -> None:
    """Also alone in its batch: an empty usage is no sign that a sibling has it."""

    class Silent(Completions):
        def _generate(self, *args: Any, **kwargs: Any) -> LLMResult:
            result = super()._generate(*args, **kwargs)
            return LLMResult(generations=result.generations, llm_output={"token_usage": {}})

    Silent(asked=[]).invoke("a question of some length, in English", config)

    (record,) = meter.history()
    assert (record.estimated, record.missing) == (True, ("input_tokens", "output_tokens"))
    assert 5 <= record.input_tokens <= 14
    assert record.output_tokens >= 8


@pytest.mark.parametrize("tells", [True, False])
def test_a_stream_of_a_text_model_is_one(tells: bool, meter: Meter, config: Any) -> None:
    """Whether it tells of each token is up to the model; if it does, the first one is timed."""

    class Streaming(Completions):
        def _stream(self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            for word in ("some ", "words"):
                chunk = GenerationChunk(text=word)
                if tells:
                    run_manager.on_llm_new_token(word, chunk=chunk)
                yield chunk

    "".join(Streaming(asked=[]).stream("hello", config))

    (record,) = meter.history()
    assert (record.streamed, record.estimated) == (True, True)
    assert (record.time_to_first_token is not None) is tells
    assert 1 <= record.output_tokens <= 4


def test_a_text_batch_that_fails_is_one_error_for_each_prompt(meter: Meter, config: Any) -> None:
    class Failing(Completions):
        def _generate(self, *args: Any, **kwargs: Any) -> LLMResult:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Failing(asked=[]).batch(["a", "b"], config)

    assert [record.status for record in meter.history()] == [Status.ERROR, Status.ERROR]


# ------------------------------------------------------------------------------------- around a model: runnables


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

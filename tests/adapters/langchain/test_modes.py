"""Every way in which LangChain asks a model, and what a handler is told of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.prompt_values import StringPromptValue
from tests.adapters.langchain.clients import agrees, anthropic, openai

from agent_meter import Meter, Status
from agent_meter.adapters.langchain import MeterCallback
from agent_meter.testing import FakeClock, LoopbackProvider, Reply, ToolCall

Loopback = Callable[..., LoopbackProvider]
FULL = Reply(
    "one two three four five",
    input_tokens=1000,
    output_tokens=100,
    cache_read_tokens=600,
    cache_write_tokens=200,
    reasoning_tokens=40,
)


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

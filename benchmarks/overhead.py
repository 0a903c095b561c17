"""What metering adds to a LangChain call, beside other handlers, measured in turn in one process.

The model answers at once, so what is measured is LangChain and the handler. "cost" is the CPU time over a bare call;
the ratio is to `UsageMetadataCallbackHandler`, LangChain's own counter. Promise: ≤ 1.25 for invoke and stream, ≤ 0.25
for ainvoke and astream. langfuse and openinference are in the table when they are installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from agent_meter import Meter
from agent_meter.adapters.langchain import MeterCallback

from .measuring import Timed, machine, microseconds, table, title

CHUNKS = 100
USAGE = {
    "input_tokens": 1200,
    "output_tokens": 100,
    "total_tokens": 1300,
    "input_token_details": {"cache_read": 1024},
    "output_token_details": {"reasoning": 0},
}
ABOUT = {"model_name": "gpt-4o-2024-08-06", "model_provider": "openai", "finish_reason": "stop"}
PROMISED = {"invoke": 1.25, "stream": 1.25, "ainvoke": 0.25, "astream": 0.25}


class Instant(BaseChatModel):
    """Answers at once, as ChatOpenAI would."""

    @property
    def _llm_type(self) -> str:
        return "openai-chat"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_model_type": "chat"}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        message = AIMessage("x" * 400, usage_metadata=USAGE, response_metadata=dict(ABOUT))  # type: ignore[arg-type]
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output={"model_name": ABOUT["model_name"]})

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._generate(messages)

    def _chunks(self) -> Iterator[ChatGenerationChunk]:
        for _ in range(CHUNKS - 1):
            yield ChatGenerationChunk(message=AIMessageChunk("word "))
        last = AIMessageChunk("", usage_metadata=USAGE, response_metadata=dict(ABOUT))  # type: ignore[arg-type]
        yield ChatGenerationChunk(message=last)

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        for chunk in self._chunks():
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        for chunk in self._chunks():
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


class Nothing(BaseCallbackHandler):
    """The floor: an inline handler that does nothing."""

    run_inline = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None: ...


def handlers() -> dict[str, list[BaseCallbackHandler]]:
    found: dict[str, list[BaseCallbackHandler]] = {
        "bare": [],
        "inline handler that does nothing": [Nothing()],
        "agent_meter MeterCallback": [MeterCallback(Meter())],
        "UsageMetadataCallbackHandler": [UsageMetadataCallbackHandler()],
    }
    if find_spec("langchain_community"):
        from langchain_community.callbacks import OpenAICallbackHandler  # type: ignore[import-not-found,unused-ignore]

        found["OpenAICallbackHandler"] = [OpenAICallbackHandler()]
    found.update(_peers())
    return found


def _peers() -> dict[str, list[BaseCallbackHandler]]:
    """Peers that report to a server, with an exporter that sends nothing."""
    found: dict[str, list[BaseCallbackHandler]] = {}
    if find_spec("langfuse"):
        from langfuse import Langfuse  # type: ignore[import-not-found,unused-ignore]
        from langfuse.langchain import CallbackHandler  # type: ignore[import-not-found,unused-ignore]
        from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult  # type: ignore[import-not-found,unused-ignore]

        class Discard(SpanExporter):  # type: ignore[misc,unused-ignore]
            def export(self, spans: Any) -> Any:
                return SpanExportResult.SUCCESS

        Langfuse(public_key="pk", secret_key="sk", base_url="http://127.0.0.1:9", span_exporter=Discard())
        found["langfuse"] = [CallbackHandler(public_key="pk")]
    if find_spec("openinference") and find_spec("openinference.instrumentation.langchain"):
        from openinference.instrumentation import OITracer, TraceConfig  # type: ignore[import-not-found,unused-ignore]
        from openinference.instrumentation.langchain._tracer import (  # type: ignore[import-not-found,unused-ignore]
            OpenInferenceTracer,
        )
        from opentelemetry.sdk.trace import TracerProvider  # type: ignore[import-not-found,unused-ignore]

        tracer = OITracer(TracerProvider().get_tracer("bench"), TraceConfig())
        found["openinference"] = [OpenInferenceTracer(tracer, False)]
    return found


def timed(mode: str, attached: list[BaseCallbackHandler], loop: asyncio.AbstractEventLoop) -> Timed:
    model = Instant()
    config: Any = {"callbacks": attached}

    def invoke(number: int) -> None:
        for _ in range(number):
            model.invoke("question", config)

    def stream(number: int) -> None:
        for _ in range(number):
            for _chunk in model.stream("question", config):
                pass

    async def _ainvoke(number: int) -> None:
        for _ in range(number):
            await model.ainvoke("question", config)

    async def _astream(number: int) -> None:
        for _ in range(number):
            async for _chunk in model.astream("question", config):
                pass

    return {
        "invoke": invoke,
        "stream": stream,
        "ainvoke": lambda number: loop.run_until_complete(_ainvoke(number)),
        "astream": lambda number: loop.run_until_complete(_astream(number)),
    }[mode]


def measure(mode: str, number: int) -> dict[str, float]:
    loop = asyncio.new_event_loop()
    try:
        return microseconds({name: timed(mode, attached, loop) for name, attached in handlers().items()}, number)
    finally:
        loop.close()


def main() -> None:
    for mode, number in (("invoke", 1500), ("stream", 150), ("ainvoke", 800), ("astream", 40)):
        what = f"{mode} of {CHUNKS} chunks" if "stream" in mode else mode
        title(f"{what}, CPU µs ({machine()}, median of 5 interleaved runs)")
        medians = measure(mode, number)
        bare = medians["bare"]
        yardstick = medians["UsageMetadataCallbackHandler"] - bare
        table(
            ("handler", "µs a call", "cost", "ratio"),
            [
                (name, f"{median:,.0f}", f"{median - bare:+,.0f}", f"{(median - bare) / yardstick:.2f}")
                for name, median in medians.items()
            ],
        )
        print(f"\npromised: ratio ≤ {PROMISED[mode]}")


if __name__ == "__main__":
    main()

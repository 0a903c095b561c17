"""What metering adds to a LlamaIndex call, beside other handlers, measured in turn in one process.

The model answers at once, so what is measured is LlamaIndex and the handler. "cost" is the CPU time over a bare call.
Promise: a chat costs at most 40 µs, a stream of 100 chunks at most 300 µs. openinference is in the table when it is
installed, with an exporter that sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback

from agent_meter import Meter
from agent_meter.adapters.llama_index import MeterHandler

from .measuring import Timed, machine, microseconds, table, title

CHUNKS = 100
RAW = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [],
    "usage": {
        "prompt_tokens": 1200,
        "completion_tokens": 100,
        "total_tokens": 1300,
        "prompt_tokens_details": {"cached_tokens": 1024},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
}
PROMISED = {"chat": 40, "stream_chat": 300}
QUESTION = [ChatMessage(role="user", content="question")]
ANSWER = ChatResponse(message=ChatMessage(role="assistant", content="word " * CHUNKS), raw=RAW)
PIECES = [
    ChatResponse(
        message=ChatMessage(role="assistant", content="word " * number),
        delta="word ",
        raw={"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [{"delta": {"content": "word "}}]},
    )
    for number in range(1, CHUNKS)
] + [ChatResponse(message=ANSWER.message, delta="", raw=RAW)]


class Instant(CustomLLM):
    """Answers at once, in chat, as OpenAI's would."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="gpt-4o", is_chat_model=True)

    @llm_chat_callback()
    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return ANSWER

    @llm_chat_callback()
    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        def gen() -> Iterator[ChatResponse]:
            yield from PIECES

        return gen()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


Attached = tuple[Instant, Callable[[], AbstractContextManager[Any]]]


def handlers() -> dict[str, Attached]:
    """A model, and what attaches the handler for a block of calls."""
    found: dict[str, Attached] = {
        "bare": (Instant(), nullcontext),
        "agent_meter MeterHandler": (Instant(), _dispatching(MeterHandler(Meter()).register)),
    }
    counting = Instant()
    counter = TokenCountingHandler()
    counting.callback_manager = CallbackManager([counter])

    @contextmanager
    def emptied() -> Iterator[None]:
        counter.reset_counts()  # it keeps every prompt and every answer
        yield

    found["TokenCountingHandler"] = (counting, emptied)
    if find_spec("openinference") and find_spec("openinference.instrumentation.llama_index"):
        from openinference.instrumentation.llama_index import (  # type: ignore[import-not-found,unused-ignore]
            LlamaIndexInstrumentor,
        )
        from opentelemetry.sdk.trace import TracerProvider  # type: ignore[import-not-found,unused-ignore]

        instrument = partial(LlamaIndexInstrumentor().instrument, tracer_provider=TracerProvider())
        found["openinference"] = (Instant(), _dispatching(instrument))
    return found


def _dispatching(register: Callable[[], object]) -> Callable[[], AbstractContextManager[Any]]:
    """Registered once; then its handlers are put on the dispatcher, and taken away, between blocks of calls."""
    dispatcher = get_dispatcher()
    events, spans = dispatcher.event_handlers, dispatcher.span_handlers
    dispatcher.event_handlers, dispatcher.span_handlers = list(events), list(spans)
    register()
    own = dispatcher.event_handlers, dispatcher.span_handlers
    dispatcher.event_handlers, dispatcher.span_handlers = events, spans

    @contextmanager
    def attached() -> Iterator[None]:
        before = dispatcher.event_handlers, dispatcher.span_handlers
        dispatcher.event_handlers, dispatcher.span_handlers = own
        yield
        dispatcher.event_handlers, dispatcher.span_handlers = before

    return attached


def timed(mode: str, attached: Attached) -> Timed:
    model, attach = attached

    def chat(number: int) -> None:
        with attach():
            for _ in range(number):
                model.chat(QUESTION)

    def stream(number: int) -> None:
        with attach():
            for _ in range(number):
                for _chunk in model.stream_chat(QUESTION):
                    pass

    return chat if mode == "chat" else stream


def measure(mode: str, number: int, found: dict[str, Attached]) -> dict[str, float]:
    return microseconds({name: timed(mode, attached) for name, attached in found.items()}, number)


def main() -> None:
    found = handlers()
    for mode, number in (("chat", 2000), ("stream_chat", 300)):
        what = f"{mode} of {CHUNKS} chunks" if "stream" in mode else mode
        title(f"LlamaIndex, {what}, CPU µs ({machine()}, median of 5 interleaved runs)")
        medians = measure(mode, number, found)
        bare = medians["bare"]
        table(
            ("handler", "µs a call", "cost"),
            [(name, f"{median:,.0f}", f"{median - bare:+,.0f}") for name, median in medians.items()],
        )
        print(f"\npromised: cost ≤ {PROMISED[mode]}")


if __name__ == "__main__":
    main()

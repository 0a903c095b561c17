"""What a tap of the transport adds to a call of OpenAI's SDK, beside peers that patch the SDK, in one process.

The answers come from a transport in memory, so what is measured is the SDK and what is put around it. CPU µs a call
over the bare client, the things in turn. Promise: an answer in one piece ≤ +60 µs, a stream of 100 chunks ≤ +150 µs,
a host that is not tapped ≤ +2 µs. Peers are in the table when they are installed; their exporters send nothing.

    python -m benchmarks.overhead_wire [runs]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import openai

from agent_meter import Meter

from .measuring import Timed, machine, microseconds, table, title

CHUNKS = 100
USAGE = {"prompt_tokens": 1200, "completion_tokens": CHUNKS, "total_tokens": 1200 + CHUNKS}
ABOUT = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o-2024-08-06"}
MESSAGES: Any = [{"role": "user", "content": "What is a tap?"}]


def _whole() -> bytes:
    message = {"role": "assistant", "content": "word " * CHUNKS}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return json.dumps({**ABOUT, "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def _events() -> list[bytes]:
    def event(**more: Any) -> bytes:
        return b"data: " + json.dumps({**ABOUT, "object": "chat.completion.chunk", **more}).encode() + b"\n\n"

    words = [event(choices=[{"index": 0, "delta": {"content": "word "}}]) for _ in range(CHUNKS - 1)]
    end = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    return [*words, end, event(choices=[], usage=USAGE), b"data: [DONE]\n\n"]


WHOLE, EVENTS = _whole(), _events()


def _client() -> Any:
    """OpenAI's client on a transport that answers at once, of whichever HTTP library this SDK uses."""
    http: Any = __import__(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])

    class Events(http.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            return iter(EVENTS)

    class Instant(http.BaseTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            if b'"stream":true' in request.content:
                return http.Response(200, headers={"content-type": "text/event-stream"}, stream=Events())
            return http.Response(200, headers={"content-type": "application/json"}, content=WHOLE)

    return openai.OpenAI(api_key="none", http_client=http.Client(transport=Instant()), max_retries=0)


def _ask(client: Any) -> None:
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)


def _stream(client: Any) -> None:
    options = {"include_usage": True}
    for _ in client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True, stream_options=options):
        pass


def _elsewhere(client: Any) -> None:
    """A path that is no model's."""
    client.get("/files/none", cast_to=object)


Ask = Callable[[Any], None]


def _times(client: Any, ask: Ask) -> Timed:
    def times(number: int) -> None:
        for _ in range(number):
            ask(client)

    return times


def _patched(start: Callable[[], None], stop: Callable[[], None], client: Any, ask: Ask) -> Timed:
    """A peer that patches the SDK's classes: in place for its own blocks alone."""

    def times(number: int) -> None:
        start()
        try:
            for _ in range(number):
                ask(client)
        finally:
            stop()

    return times


def _contenders(ask: Ask) -> dict[str, Timed]:
    meter = Meter()
    found = {"bare": _times(_client(), ask), "agent_meter, wrapped": _times(meter.wrap(_client()), ask)}
    for name, module in (
        ("openinference", "openinference.instrumentation.openai"),
        ("opentelemetry-instrumentation-openai", "opentelemetry.instrumentation.openai"),
    ):
        if _installed(module):
            from importlib import import_module

            from opentelemetry.sdk.trace import TracerProvider

            provider = TracerProvider()
            tracing = import_module(module).OpenAIInstrumentor()

            def start(tracing: Any = tracing, provider: Any = provider) -> None:
                tracing.instrument(tracer_provider=provider)

            found[name] = _patched(start, tracing.uninstrument, _client(), ask)
    return found


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def main(runs: int = 5) -> None:
    kinds = (
        ("an answer in one piece", _ask, 400, 60),
        (f"a stream of {CHUNKS} chunks", _stream, 100, 150),
        ("a path that is no model's", _elsewhere, 400, 2),
    )
    for name, ask, number, promised in kinds:
        title(f"{name}, CPU µs ({machine()}, openai {openai.__version__}, median of {runs} interleaved runs)")
        things = _contenders(ask)
        took = microseconds(things, number, runs)
        rows = [(thing, f"{took[thing]:,.0f}", f"{took[thing] - took['bare']:+,.1f}") for thing in things]
        table(("client", "µs a call", "added"), rows)
        print(f"\npromised: ≤ +{promised} µs")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

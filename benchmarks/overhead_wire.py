"""What a tap of the transport adds to a call of OpenAI's SDK, beside peers that patch the SDK.

The answers come from a transport in memory, so what is measured is the SDK and what is put around it. CPU µs a call
over the bare client; each contender in processes of its own, in turn. Wanted: an answer in one piece ≤ +60 µs, a
stream of 100 chunks ≤ +150 µs, a path that is no model's ≤ +2 µs. Peers are in the table when they are installed; their
exporters send nothing.

    python -m benchmarks.overhead_wire [runs]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import openai

from agent_meter import Meter

from .measuring import machine, table, title

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


KINDS: dict[str, tuple[str, Callable[[Any], None], int, int]] = {
    "whole": ("an answer in one piece", _ask, 400, 60),
    "stream": (f"a stream of {CHUNKS} chunks", _stream, 60, 150),
    "elsewhere": ("a path that is no model's", _elsewhere, 800, 2),
}
PEERS = {
    "openinference": "openinference.instrumentation.openai",
    "opentelemetry-instrumentation-openai": "opentelemetry.instrumentation.openai",
}
BARE, OURS = "bare", "agent_meter, wrapped"


def _client_of(name: str) -> Any:
    """A client as a contender leaves it; peers patch the SDK for good, so each is alone in its process."""
    if name == OURS:
        return Meter().wrap(_client())
    if name != BARE:
        from opentelemetry.sdk.trace import TracerProvider

        import_module(PEERS[name]).OpenAIInstrumentor().instrument(tracer_provider=TracerProvider())
    return _client()


def _measure(name: str, kind: str) -> None:
    """Print the CPU µs of a call, the median of ten blocks."""
    _, ask, number, _ = KINDS[kind]
    client, took = _client_of(name), []
    for _ in range(number // 4):
        ask(client)  # warm
    for _ in range(10):
        start = time.process_time_ns()
        for _ in range(number // 10):
            ask(client)
        took.append((time.process_time_ns() - start) / (number // 10) / 1000)
    print(statistics.median(took))


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def main(runs: int = 5) -> None:
    names = [BARE, OURS, *(name for name, module in PEERS.items() if _installed(module))]
    for kind, (what, _, _, promised) in KINDS.items():
        samples: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(runs):
            for name in names:
                command = [sys.executable, "-m", "benchmarks.overhead_wire", "--one", name, kind]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                samples[name].append(float(done.stdout.split()[-1]))
        took = {name: statistics.median(found) for name, found in samples.items()}
        title(f"{what}, CPU µs ({machine()}, openai {openai.__version__}, median of {runs} runs in turn)")
        rows = [(name, f"{took[name]:,.0f}", f"{took[name] - took[BARE]:+,.1f}") for name in names]
        table(("client", "µs a call", "added"), rows)
        print(f"\nwanted: ≤ +{promised} µs")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _measure(*sys.argv[2:4])
    else:
        main(*map(int, sys.argv[1:]))

"""The accuracy of handlers under LlamaIndex: `python -m benchmarks.accuracy_llama_index`, in LlamaIndex's environment.

As `benchmarks.accuracy`, through LlamaIndex's integrations: ours, LlamaIndex's `TokenCountingHandler`, and
openinference's where it is installed. `--write` also writes docs/explanation/accuracy-llama-index.md.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from tests.corpus import VARIABLE, conversations, replay_server
from tests.environments.llama_index.integrations import INTEGRATIONS, Integration, Place, ask

from agent_meter import Meter

from .accuracy import Finding, judge, tables, wrong_of_ours
from .handlers import BESIDE, CLASSES, Counter, Ours, Said
from .writing import Page

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "accuracy-llama-index.md"
INTRODUCTION = """\
The same recorded answers as on [the page about LangChain](accuracy.md), served to LlamaIndex's own integrations, with
every handler listening to the same call; *exact*, *flagged*, *silent* and *lost* are explained there. A call that an
integration makes in several ways is counted for each. With `wire=True` the provider's HTTP answers are read, too; that
is asked once more, and alone.

This page is written by `python -m benchmarks.accuracy_llama_index --write`, in the environment of
`make test-llama-index`.
"""


class Handler(Counter):
    """One that is attached to LlamaIndex for one call."""

    package = "llama-index-core"

    def callbacks(self) -> list[Any]:
        return []

    def attach(self, model: Any) -> None: ...

    def detach(self) -> None: ...


class OursHere(Ours, Handler):
    name = "MeterHandler"
    wire = False

    def attach(self, model: Any) -> None:
        from agent_meter.adapters.llama_index import MeterHandler

        self.meter = Meter()
        self.handler = MeterHandler(self.meter, wire=self.wire).register()

    def detach(self) -> None:
        self.handler.unregister()


class OursWithTheWire(OursHere):
    name = "MeterHandler(wire=True)"
    wire = True


class LlamaIndexs(Handler):
    name = "TokenCountingHandler"
    reads = ("input_total", "output_total", BESIDE)

    def attach(self, model: Any) -> None:
        from llama_index.core.callbacks import CallbackManager, TokenCountingHandler

        self.handler = TokenCountingHandler()
        model.callback_manager = CallbackManager([self.handler])

    def said(self) -> Said | None:
        events = self.handler.llm_token_counts
        if not events:
            return None
        counts = {
            "input_total": sum(event.prompt_token_count for event in events),
            "output_total": sum(event.completion_token_count for event in events),
        }
        return Said(counts)


class OpenInferences(Handler):
    name = "openinference"
    package = "openinference-instrumentation-llama-index"
    reads = ("input_total", "output_total", "cache_read", "cache_write", "reasoning", "audio_in", "audio_out", BESIDE)
    names: ClassVar = {
        "input_total": "prompt",
        "output_total": "completion",
        "cache_read": "prompt_details.cache_read",
        "cache_write": "prompt_details.cache_write",
        "reasoning": "completion_details.reasoning",
        "audio_in": "prompt_details.audio",
        "audio_out": "completion_details.audio",
    }

    @classmethod
    def installed(cls) -> bool:
        return (
            find_spec("openinference") is not None
            and find_spec("openinference.instrumentation.llama_index") is not None
        )

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))

    def attach(self, model: Any) -> None:
        from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

        self.spans.clear()
        self.instrumentor = LlamaIndexInstrumentor()
        self.instrumentor.instrument(tracer_provider=self.provider)

    def detach(self) -> None:
        self.instrumentor.uninstrument()

    def said(self) -> Said | None:
        for _ in range(60):  # a stream's span is exported by a thread, a little later
            told = [a for span in self.spans.get_finished_spans() if (a := span.attributes or {})]
            llm = [a for a in told if "llm.token_count.prompt" in a]
            if llm:
                return Said(
                    {ours: sum(int(a.get(f"llm.token_count.{w}") or 0) for a in llm) for ours, w in self.names.items()}
                )
            if told:
                break
            time.sleep(0.005)
        return None


def installed() -> list[Handler]:
    kinds: tuple[type[Handler], ...] = (OursHere, OursWithTheWire, LlamaIndexs, OpenInferences)
    return [kind() for kind in kinds if kind.installed()]


def measure(handlers: list[Handler]) -> tuple[list[Finding], int, int]:
    findings: list[Finding] = []
    calls = ambiguous = 0
    with replay_server(match_stream=False) as server:
        for integration in INTEGRATIONS:
            for document in conversations() if integration.installed else ():
                for index in range(len(document["interactions"])):
                    place = Place(document, index, server)
                    if not integration.asks(place):
                        continue
                    if place.truth.get("ambiguous"):
                        ambiguous += 1
                        continue
                    calls += 1
                    findings += _one(integration, place, handlers)
    return findings, calls, ambiguous


def _one(integration: Integration, place: Place, handlers: list[Handler]) -> list[Finding]:
    # The wire asks for the usage of streams, and takes it out again: nobody else is to gain or lose by that.
    wired = [handler for handler in handlers if isinstance(handler, OursWithTheWire)]
    for listening in ([handler for handler in handlers if handler not in wired], wired):
        model = integration.make(place)
        place.aim()
        for handler in listening:
            handler.attach(model)
        ask(model, place)
        for handler in listening:
            handler.detach()
    found = []
    for handler in handlers:
        said = handler.said()
        verdict, differs = judge(said, place.truth, [name for name in handler.reads if name in (*CLASSES, BESIDE)])
        where = f"{place.document['id']}, call {place.index}"
        found.append(Finding(handler.name, integration.name, where, verdict, differs, said.notes if said else ()))
    return found


def on_the_wire(page: Page, findings: list[Finding]) -> list[Finding]:
    """Says how exact the wire is; returns what is not, though the provider told what was used."""
    found = [f for f in findings if f.handler == OursWithTheWire.name]
    told = {
        f"{document['id']}, call {index}"
        for document in conversations()
        for index, truth in enumerate(document["truth"])
        if truth["requests"] == 0 or truth["input_total"] is not None
    }
    asked = [f for f in found if f.place in told]
    inexact = [f for f in asked if f.verdict != "exact"]
    page.title("On the wire", 3)
    page.say(
        f"Of {len(asked)} calls whose provider told what was used, or refused, {len(asked) - len(inexact)} are exact in"
        " every class, and none of their numbers is estimated. Of the other "
        f"{len(found) - len(asked)} the provider itself told nothing, and their records say so."
    )
    return inexact


def main() -> None:
    if not os.environ.get(VARIABLE):
        raise SystemExit(f"{VARIABLE} is not set; it names the folder of recorded traffic")
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    page, handlers = Page(), installed()
    findings, calls, ambiguous = measure(handlers)
    page.title("Accuracy under LlamaIndex", 1)
    page.say(INTRODUCTION)
    tables(page, handlers, findings, calls, ambiguous)
    inexact = on_the_wire(page, findings)
    if "--write" in sys.argv:  # with every peer installed; a run with fewer would make a poorer page
        page.write(PAGE)
    if wrong := wrong_of_ours(findings, handlers) + inexact:
        raise SystemExit(f"{len(wrong)} of our own are silent or lost, or not exact on the wire: {wrong}")


if __name__ == "__main__":
    main()

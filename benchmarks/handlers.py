"""Handlers that count tokens for LangChain, ours and others', and what each says of a call.

A peer that is not installed is left out. Peers that report to a server get an exporter that keeps its spans here.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

from agent_meter import Meter

CLASSES = {  # the corpus's names, and those of our records
    "input_total": "input_tokens",
    "output_total": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "reasoning": "reasoning_tokens",
    "audio_in": "input_audio_tokens",
    "audio_out": "output_audio_tokens",
}
BESIDE = "billed_beside"  # tokens of passes that Anthropic bills, and leaves out of the answer's usage


class Said(NamedTuple):
    """What a handler says of what happened since it was last asked. A class that it has no counter for is absent."""

    counts: Mapping[str, int]  # by the corpus's names
    unseen: frozenset[str] = frozenset()  # classes that it says it could not see
    notes: tuple[str, ...] = ()
    usd: float | None = None


class Counter(ABC):
    """One handler. `callbacks` are new for every call; `said` is asked once after it."""

    name = ""
    package = "langchain-core"
    reads = (*CLASSES, BESIDE)  # the classes that it has a counter for
    prices = False

    @classmethod
    def installed(cls) -> bool:
        return True

    @classmethod
    def title(cls) -> str:
        return f"{cls.name} ({cls.package} {version(cls.package)})"

    @abstractmethod
    def callbacks(self) -> list[Any]: ...

    @abstractmethod
    def said(self) -> Said | None:
        """None if it noticed no call, or knows of it nothing about tokens."""


class Ours(Counter):
    name = "MeterCallback"
    package = "agent-meter"
    prices = True

    def __init__(self) -> None:
        self.meter = Meter()

    def callbacks(self) -> list[Any]:
        from agent_meter.adapters.langchain import MeterCallback

        self.meter = Meter()
        return [MeterCallback(self.meter)]

    def said(self) -> Said | None:
        """Of the answer itself; passes that are billed beside it are records of their own."""
        records = self.meter.history()
        if not records:
            return None
        answers = [record for record in records if not record.notes or "pass, billed beside" not in record.notes[0]]
        passes = [record for record in records if record not in answers]
        counts = {theirs: sum(getattr(r.usage, ours, 0) for r in answers) for theirs, ours in CLASSES.items()}
        counts[BESIDE] = sum(record.total_tokens for record in passes)
        missing = {name for record in answers if record.estimated for name in record.missing}
        unseen = {theirs for theirs, ours in CLASSES.items() if ours in missing}
        if {"input_tokens", "output_tokens"} <= missing:
            unseen = set(CLASSES)
        if "pass_tokens" in missing or any(record.usage is None and record.estimated for record in answers):
            unseen.add(BESIDE)
        notes = tuple(note for record in answers if record.estimated for note in record.notes)
        return Said(counts, frozenset(unseen), notes)


def _usage_metadata(found: Mapping[str, Any]) -> dict[str, int]:
    inside = found.get("input_token_details") or {}
    outside = found.get("output_token_details") or {}
    five, hour = (inside.get(f"ephemeral_{ttl}_input_tokens") or 0 for ttl in ("5m", "1h"))
    return {
        "input_total": found.get("input_tokens") or 0,
        "output_total": found.get("output_tokens") or 0,
        "cache_read": inside.get("cache_read") or 0,
        "cache_write": max(inside.get("cache_creation") or 0, five + hour),
        "cache_write_1h": hour,
        "reasoning": outside.get("reasoning") or 0,
        "audio_in": inside.get("audio") or 0,
        "audio_out": outside.get("audio") or 0,
    }


class LangChains(Counter):
    name = "UsageMetadataCallbackHandler"

    def callbacks(self) -> list[Any]:
        from langchain_core.callbacks import UsageMetadataCallbackHandler

        self.handler = UsageMetadataCallbackHandler()
        return [self.handler]

    def said(self) -> Said | None:
        by_model = [_usage_metadata(usage) for usage in self.handler.usage_metadata.values()]
        return Said({name: sum(u[name] for u in by_model) for name in CLASSES}) if by_model else None


class OpenAIs(Counter):
    name = "OpenAICallbackHandler"
    package = "langchain-community"
    prices = True
    reads = ("input_total", "output_total", "cache_read", "reasoning", BESIDE)

    @classmethod
    def installed(cls) -> bool:
        return find_spec("langchain_community") is not None

    def callbacks(self) -> list[Any]:
        from langchain_community.callbacks.openai_info import OpenAICallbackHandler

        self.handler = OpenAICallbackHandler()
        return [self.handler]

    def said(self) -> Said | None:
        h = self.handler
        if not h.total_tokens:
            return None
        counts = {
            "input_total": h.prompt_tokens,
            "output_total": h.completion_tokens,
            "cache_read": h.prompt_tokens_cached,
            "reasoning": h.reasoning_tokens,
        }
        return Said(counts, usd=h.total_cost)


class Langfuses(Counter):
    """langfuse takes what it has a detail for out of the input and the output, except where its total says not."""

    name = "langfuse's CallbackHandler"
    package = "langfuse"

    @classmethod
    def installed(cls) -> bool:
        return find_spec("langfuse") is not None

    def __init__(self) -> None:
        from langfuse import Langfuse
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.spans = InMemorySpanExporter()
        self.client = Langfuse(
            public_key="pk", secret_key="sk", base_url="http://127.0.0.1:9", span_exporter=self.spans, flush_at=1
        )

    def callbacks(self) -> list[Any]:
        from langfuse.langchain import CallbackHandler

        self.spans.clear()
        return [CallbackHandler(public_key="pk")]

    def said(self) -> Said | None:
        self.client.flush()
        told = [
            json.loads(str(span.attributes["langfuse.observation.usage_details"]))
            for span in self.spans.get_finished_spans()
            if span.attributes and "langfuse.observation.usage_details" in span.attributes
        ]
        if not told:
            return None
        sums = [self._read(usage) for usage in told]
        return Said({name: sum(one[name] for one in sums) for name in CLASSES})

    @staticmethod
    def _read(usage: Mapping[str, int]) -> dict[str, int]:
        def part(side: str, name: str) -> int:
            return sum(usage.get(f"{side}_{tier}{name}", 0) for tier in ("", "priority_", "flex_"))

        def whole(side: str) -> int:
            return sum(count for key, count in usage.items() if key == side or key.startswith(f"{side}_"))

        plain = usage.get("input", 0) + usage.get("output", 0) == usage.get("total")
        read, written = (usage.get(f"cache_{word}_input_tokens", 0) for word in ("read", "creation"))  # Anthropic's
        five, hour = (
            part("input", f"ephemeral_{ttl}_input_tokens")
            or usage.get(f"cache_creation_ephemeral_{ttl}_input_tokens", 0)
            for ttl in ("5m", "1h")
        )
        return {
            "input_total": (usage["input"] if plain else whole("input")) + read + written,
            "output_total": usage["output"] if plain else whole("output"),
            "cache_read": part("input", "cache_read") or read,
            "cache_write": max(part("input", "cache_creation"), written, five + hour),
            "cache_write_1h": hour,
            "reasoning": part("output", "reasoning"),
            "audio_in": part("input", "audio"),
            "audio_out": part("output", "audio"),
        }


class OpenInferences(Counter):
    name = "openinference's tracer"
    package = "openinference-instrumentation-langchain"
    reads = (*(name for name in CLASSES if name != "cache_write_1h"), BESIDE)

    @classmethod
    def installed(cls) -> bool:
        return (
            find_spec("openinference") is not None and find_spec("openinference.instrumentation.langchain") is not None
        )

    def __init__(self) -> None:
        from openinference.instrumentation import OITracer, TraceConfig
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = OITracer(provider.get_tracer("accuracy"), TraceConfig())

    def callbacks(self) -> list[Any]:
        from openinference.instrumentation.langchain._tracer import OpenInferenceTracer

        self.spans.clear()
        return [OpenInferenceTracer(self.tracer, False)]

    def said(self) -> Said | None:
        told = [
            s.attributes for s in self.spans.get_finished_spans() if "llm.token_count.prompt" in (s.attributes or {})
        ]
        if not told:
            return None
        names = {
            "input_total": "prompt",
            "output_total": "completion",
            "cache_read": "prompt_details.cache_read",
            "cache_write": "prompt_details.cache_write",
            "reasoning": "completion_details.reasoning",
            "audio_in": "prompt_details.audio",
            "audio_out": "completion_details.audio",
        }
        counts = {ours: sum(int(a.get(f"llm.token_count.{word}") or 0) for a in told) for ours, word in names.items()}
        return Said(counts)


class TokenCopilots(Counter):
    """It has no counters but the two sums."""

    name = "TokenCoPilot"
    package = "token-copilot"
    prices = True
    reads = ("input_total", "output_total")

    @classmethod
    def installed(cls) -> bool:
        return find_spec("token_copilot") is not None

    def callbacks(self) -> list[Any]:
        from token_copilot import TokenCoPilot

        self.handler = TokenCoPilot()
        return [self.handler]

    def said(self) -> Said | None:
        entries = self.handler.tracker._entries
        if not self.handler.tokens:
            return None
        counts = {
            "input_total": sum(entry.input_tokens for entry in entries),
            "output_total": sum(entry.output_tokens for entry in entries),
        }
        return Said(counts, usd=self.handler.cost)


class Cendors(Counter):
    name = "CendorCallbackHandler"
    package = "cendor-core"
    prices = True
    reads = ("input_total", "output_total", "cache_read", "cache_write", "reasoning", BESIDE)

    @classmethod
    def installed(cls) -> bool:
        return find_spec("cendor") is not None

    def __init__(self) -> None:
        from cendor.core import bus

        self.heard: list[Any] = []
        bus.subscribe(self.heard.append)

    def callbacks(self) -> list[Any]:
        from cendor.core.langchain import CendorCallbackHandler

        self.heard.clear()
        return [CendorCallbackHandler()]

    def said(self) -> Said | None:
        calls = [event for event in self.heard if getattr(event, "usage", None) is not None]
        if not calls:
            return None
        names = {
            "input_total": "input_tokens",
            "output_total": "output_tokens",
            "cache_read": "cached_tokens",
            "cache_write": "cache_write",
            "reasoning": "reasoning_tokens",
        }
        counts = {ours: sum(getattr(c.usage, word) for c in calls) for ours, word in names.items()}
        costs = [call.cost for call in calls]
        return Said(counts, usd=None if None in costs else sum(float(cost.amount) for cost in costs))


COUNTERS: tuple[type[Counter], ...] = (Ours, LangChains, OpenAIs, Langfuses, OpenInferences)
# Smaller libraries, which are compared by the scenarios alone.
MORE: tuple[type[Counter], ...] = (TokenCopilots, Cendors)


def installed(kinds: Sequence[type[Counter]] = COUNTERS) -> list[Counter]:
    return [kind() for kind in kinds if kind.installed()]


def left_out() -> list[str]:
    return [kind.package for kind in (*COUNTERS, *MORE) if not kind.installed()]

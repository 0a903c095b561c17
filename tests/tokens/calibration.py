"""How far our counts are from what providers counted, over recorded traffic. Prints the table of the docs:

AGENT_METER_CORPUS=<folder> python tests/tokens/calibration.py
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agent_meter.tokens import TokenCounter, counter_for
from agent_meter.tokens.families import family_of

CHAT = {
    "openai.chat",
    "openai.responses",
    "anthropic.messages",
    "gemini.generateContent",
    "bedrock.converse",
    "ollama.chat",
}


class Sample(NamedTuple):
    """One text that a provider counted: `truth` is its number, `got` ours, `rough` that of characters alone."""

    id: str
    model: str
    truth: int
    got: int
    rough: int

    @property
    def error(self) -> float:
        return abs(self.got - self.truth) / self.truth

    @property
    def rough_error(self) -> float:
        return abs(self.rough - self.truth) / self.truth


def without_a_file(model: str) -> TokenCounter:
    """A counter as on a machine that has no tokenizer file."""
    counter = TokenCounter(model=model)
    counter._why_not = "left out on purpose"
    return counter


def _calls(conversations: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], str]]:
    for conversation in conversations:
        for interaction, truth in zip(conversation["interactions"], conversation["truth"], strict=True):
            model = truth.get("model") or truth.get("model_requested") or ""
            if truth.get("ambiguous") or not model or interaction["api"] not in CHAT:
                continue
            yield conversation["id"], interaction, truth, model


def requests(conversations: Iterable[dict[str, Any]]) -> Iterator[Sample]:
    """Requests of text only, without tools, whose whole input is in the request."""
    for name, interaction, truth, model in _calls(conversations):
        request, tokens = interaction["request"], truth.get("input_total")
        body = request.get("body")
        if not tokens or not isinstance(body, dict) or request.get("stubbed"):
            continue
        held_elsewhere = (
            body.get("previous_response_id") or body.get("context_management") or "compact" in request["path"]
        )
        if held_elsewhere or body.get("tools") or body.get("functions") or body.get("toolConfig"):
            continue
        if "compound" in model or "0301" in model:  # an agent behind a model's name; a template of its own, long gone
            continue
        messages = body.get("messages") or body.get("contents") or body.get("input") or []
        messages = [messages] if isinstance(messages, str) else messages
        if system := body.get("system") or body.get("instructions") or body.get("systemInstruction"):
            content = system.get("parts") if isinstance(system, dict) else system
            messages = [{"role": "system", "content": content}, *messages]
        words = json.dumps(messages).split()
        filler = len(words) > 200 and len(set(words)) < len(words) / 10  # "hello hello hello": no language
        counter = counter_for(model)
        if filler or not messages or counter.uncounted(messages) or '"image' in json.dumps(messages):
            continue
        rough = without_a_file(model).count_messages(messages)
        yield Sample(name, model, tokens, counter.count_messages(messages), rough)


def answers(conversations: Iterable[dict[str, Any]]) -> Iterator[Sample]:
    """Answers of text only, without reasoning or tool calls, of twenty tokens and more."""
    for name, interaction, truth, model in _calls(conversations):
        tokens = truth.get("output_total") or 0
        body = interaction["request"].get("body")
        several = isinstance(body, dict) and (body.get("n") or 1) > 1
        text = _answer(interaction["response"].get("body") or "")
        if tokens < 20 or truth.get("reasoning") or several or not text:
            continue
        yield Sample(name, model, tokens, counter_for(model).count(text), without_a_file(model).count(text))


def _answer(body: str) -> str:
    """The text of an answer, plain or streamed; empty when it holds anything but text."""
    try:
        documents = [json.loads(body)]
    except ValueError:
        lines = (line[5:].strip() for line in body.splitlines() if line.startswith("data:"))
        documents = [json.loads(line) for line in lines if line.startswith("{")]
    texts: list[str] = []
    flat = (item for document in documents for item in (document if isinstance(document, list) else [document]))
    for event in flat:
        if not isinstance(event, dict) or event.get("type") in ("message_start", "response.created"):
            continue
        delta = event.get("delta") if isinstance(event.get("delta"), dict) else {}
        if "partial_json" in delta or "thinking" in delta:
            return ""
        texts.append(delta.get("text") or "")
        parts = list(event.get("content") or []) if event.get("type") == "message" else []
        output = event.get("output")
        if isinstance(output, dict):
            parts += output.get("message", {}).get("content") or []
        for candidate in event.get("candidates") or []:
            parts += (candidate.get("content") or {}).get("parts") or []
        for choice in event.get("choices") or []:
            said = choice.get("message") or choice.get("delta") or {}
            if any(said.get(key) for key in ("tool_calls", "function_call", "reasoning_content", "reasoning", "audio")):
                return ""
            parts += [{"text": said["content"]}] if isinstance(said.get("content"), str) else said.get("content") or []
        for part in parts:
            if not isinstance(part.get("text"), str) or part.get("thought"):
                return ""
            texts.append(part["text"])
    return "".join(texts)


def by_family(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[family_of(sample.model).name].append(sample)
    return groups


def quantile(values: Iterable[float], q: float) -> float:
    """The value that a share `q` of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def main() -> None:
    folder = Path(os.environ["AGENT_METER_CORPUS"], "conversations")
    corpus = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    for title, samples in (("requests", requests(corpus)), ("answers", answers(corpus))):
        print(f"{title:10s}  n  median    p90    max | characters only: median p90")
        for name, group in sorted(by_family(samples).items()):
            errors, rough = [s.error for s in group], [s.rough_error for s in group]
            figures = f"{quantile(errors, 0.5):7.1%} {quantile(errors, 0.9):6.1%} {max(errors):6.1%}"
            print(f"{name:10s} {len(group):2d} {figures} | {quantile(rough, 0.5):6.1%} {quantile(rough, 0.9):6.1%}")


if __name__ == "__main__":
    sys.exit(main())

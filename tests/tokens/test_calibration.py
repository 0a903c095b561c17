"""Our counts against what providers counted, over recorded traffic."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_meter.tokens import TokenCounter, counter_for
from agent_meter.tokens.families import family_of

_spec = importlib.util.spec_from_file_location("calibration", Path(__file__).with_name("calibration.py"))
assert _spec is not None
assert _spec.loader is not None
calibration = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(calibration)

Corpus = Iterator[dict[str, Any]]


def test_plain_requests_to_openai_models_count_exactly_what_openai_counted(corpus: Corpus) -> None:
    samples = [s for s in calibration.requests(corpus) if family_of(s.model).exact]

    assert len(samples) >= 30
    assert [s for s in samples if s.got != s.truth] == []


def test_answers_of_openai_models_count_exactly_but_for_their_end_mark(corpus: Corpus) -> None:
    samples = [s for s in calibration.answers(corpus) if family_of(s.model).exact]

    assert len(samples) >= 15
    # gpt-5 counts up to four more: the channel marks around an answer.
    assert [s for s in samples if not 0 <= s.truth - s.got <= 4] == []


def test_nine_of_ten_counts_of_other_vendors_are_within_the_stated_error(corpus: Corpus) -> None:
    conversations = list(corpus)
    samples = [*calibration.requests(conversations), *calibration.answers(conversations)]
    groups = calibration.by_family(s for s in samples if not family_of(s.model).exact)
    judged = {name: group for name, group in groups.items() if len(group) >= 5}

    assert {"claude", "gemini", "llama"} <= set(judged)
    for name, group in judged.items():
        stated = max(family_of(s.model).error for s in group)
        assert calibration.quantile([s.error for s in group], 0.9) <= stated, name


def test_nine_of_ten_answers_are_within_the_stated_error_without_any_file(corpus: Corpus) -> None:
    samples = list(calibration.answers(corpus))

    assert len(samples) >= 40
    within = [s for s in samples if s.rough_error <= calibration.without_a_file(s.model).error]
    assert len(within) >= 0.9 * len(samples)


def test_requests_with_function_tools_count_within_one_token_for_gpt_4_models(corpus: Corpus) -> None:
    seen = []
    for conversation in corpus:
        for interaction, truth in zip(conversation["interactions"], conversation["truth"], strict=True):
            body, model = interaction["request"].get("body"), truth.get("model") or ""
            if interaction["api"] != "openai.chat" or not isinstance(body, dict) or not body.get("tools"):
                continue
            if model.startswith(("gpt-4", "gpt-3.5")) and truth.get("input_total"):
                counted = counter_for(model).count_messages(body["messages"], tools=body["tools"])
                seen.append((truth["input_total"] - counted, model, conversation["id"]))

    assert len(seen) >= 8
    assert [miss for miss in seen if abs(miss[0]) > 1] == []


def test_every_recorded_request_can_be_counted(corpus: Corpus) -> None:
    counted = 0
    for conversation in corpus:
        for interaction in conversation["interactions"]:
            body = interaction["request"].get("body")
            if isinstance(body, dict) and (
                messages := body.get("messages") or body.get("contents") or body.get("input")
            ):
                counter = TokenCounter(model=str(body.get("model", "")))
                assert counter.count_messages(messages, tools=body.get("tools")) > 0
                counter.uncounted(messages)
                counted += 1

    assert counted > 200


def test_without_the_corpus_ci_fails_and_others_skip(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.delenv("AGENT_METER_CORPUS", raising=False)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="set AGENT_METER_CORPUS"):
        request.getfixturevalue("corpus")

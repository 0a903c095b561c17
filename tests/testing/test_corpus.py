from __future__ import annotations

from pathlib import Path

import pytest
from openai import OpenAI
from tests import corpus as helper


def test_a_missing_corpus_skips_and_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(helper.VARIABLE, raising=False)
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match="set AGENT_METER_CORPUS to the folder"):
        helper.corpus_dir()


def test_a_missing_corpus_fails_on_a_build_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(helper.VARIABLE, raising=False)
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="AGENT_METER_CORPUS is not set"):
        helper.corpus_dir()


def test_a_folder_that_is_no_corpus_fails_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(helper.VARIABLE, str(tmp_path))
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.fail.Exception, match="has no folder 'conversations'"):
        helper.corpus_dir()


def test_the_corpus_can_be_chosen_from_by_dialect_and_provider(corpus) -> None:
    chosen = helper.conversations(api="anthropic.messages", provider="anthropic")

    assert 0 < len(chosen) < len(corpus)
    assert {(document["api"], document["provider"]) for document in chosen} == {("anthropic.messages", "anthropic")}


def test_a_recorded_conversation_is_replayed_to_a_real_client(corpus, replay) -> None:
    """What the client reads is what the recording says, and the next test finds the server at its start."""
    document = next(
        d
        for d in helper.conversations(api="openai.chat", provider="openai")
        if d["n_calls"] == 1 and d["truth"][0]["usage_raw"] and not d["interactions"][0]["stream"]
    )
    client = OpenAI(base_url=replay.base_url(document["id"]), api_key="none", max_retries=0)

    answer = client.chat.completions.create(model="any", messages=[{"role": "user", "content": "hi"}])

    assert answer.usage.prompt_tokens == document["truth"][0]["input_total"]
    assert answer.usage.completion_tokens == document["truth"][0]["output_total"]
    assert replay.used(document["id"]) == [0]

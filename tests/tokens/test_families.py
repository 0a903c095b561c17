"""Model names, as people and gateways write them, find their encoding."""

from __future__ import annotations

import pytest

from agent_meter.tokens.families import family_of

OPENAI = {
    "o200k_base": """gpt-4o GPT-4o-mini gpt-4o-2024-08-06 chatgpt-4o-latest gpt-4.5-preview gpt-4.1
        gpt-4.1-nano-2025-04-14 gpt-41-mini gpt-5 gpt-5.2-pro gpt-5-codex codex-mini-latest
        o1 o1-mini o3 o3-pro o4-mini o4-mini:high openai/o3
        openai/gpt-4o azure/gpt-4o openrouter/openai/gpt-4o:free ft:gpt-4o:acme::9x
        ft:gpt-4o-mini-2024-07-18:acme:mine:1 gpt-audio-mini computer-use-preview""",
    "cl100k_base": """gpt-4 gpt-4-turbo gpt-4-0613 gpt-3.5-turbo gpt-35-turbo azure/gpt-35-turbo-16k
        ft:gpt-3.5-turbo:acme::1 text-embedding-3-small text-embedding-ada-002 davinci-002""",
    "o200k_harmony": "gpt-oss-120b openai/gpt-oss-20b openai.gpt-oss-120b-1:0 gpt-oss:20b",
}


@pytest.mark.parametrize(
    ("model", "encoding"),
    [(model, encoding) for encoding, models in OPENAI.items() for model in [*models.split(), f" {models.split()[0]} "]],
)
def test_openai_models_have_their_own_encoding_exactly(model: str, encoding: str) -> None:
    family = family_of(model)

    assert (family.encoding, family.exact, family.factor, family.error) == (encoding, True, 1.0, 0.0)


def test_our_table_agrees_with_tiktokens_wherever_tiktoken_knows_a_model() -> None:
    from tiktoken.model import MODEL_TO_ENCODING

    ours = ("o200k_base", "o200k_harmony", "cl100k_base")
    for model, encoding in MODEL_TO_ENCODING.items():
        if encoding in ours:
            assert family_of(model).encoding == encoding, model


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("claude-sonnet-4-5-20250929", "claude"),
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", "claude"),
        ("anthropic/claude-haiku-4.5", "claude"),
        ("models/gemini-2.5-flash", "gemini"),
        ("mistral-large-latest", "mistral"),
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", "llama"),
        ("@cf/meta/llama-3.1-8b-instruct", "llama"),
        ("deepseek-r1-distill-llama-70b", "llama"),
        ("command-a-plus-05-2026", "cohere"),
        ("deepseek-chat", "deepseek"),
        ("qwen3-max", "qwen"),
        ("us.amazon.nova-2-lite-v1:0", "nova"),
        ("my-own-model", "other"),
        ("", "other"),
        ("o2-something", "other"),
        ("o1x", "other"),
    ],
)
def test_other_models_are_estimated_and_say_so(model: str, name: str) -> None:
    family = family_of(model)

    assert (family.name, family.exact) == (name, False)
    assert family.error > 0


def test_a_gpt_that_nobody_knows_yet_is_not_called_exact() -> None:
    assert not family_of("gpt-9").exact
    assert family_of("gpt-9").encoding == "o200k_base"


def test_claudes_newer_tokenizer_counts_more() -> None:
    assert family_of("claude-opus-4-8").factor > family_of("claude-opus-4-5").factor

"""A prompt is estimated as its messages are counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter.tokens import TokenCounter, estimate_prompt
from agent_meter.tokens.estimate import ERROR
from agent_meter.tokens.prompts import prompt_at_most, prompt_size

MESSAGES = [
    {"role": "system", "content": "You answer questions about geography, in one sentence, and name your source."},
    {"role": "user", "content": "Which of the rivers that flow through Paris is the longest one?"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Look a river up in the atlas.",
            "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        },
    }
]


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["messages", "messages and tools"])
def test_a_prompt_is_within_the_stated_error_of_its_count(tools: list[dict[str, object]] | None) -> None:
    exact = TokenCounter(model="gpt-4o").count_messages(MESSAGES, tools=tools)

    assert estimate_prompt(MESSAGES, "gpt-4o", tools) == pytest.approx(exact, rel=ERROR)


def test_a_string_is_a_prompt_and_nothing_is_none() -> None:
    assert estimate_prompt("Which city?") > 0
    assert estimate_prompt("") == 0


@given(st.lists(st.text(), max_size=5))
def test_the_size_of_a_prompt_is_no_less_than_its_tokens(texts: list[str]) -> None:
    messages = [{"role": "user", "content": text} for text in texts]

    assert prompt_size(messages, "gpt-4o") >= sum(len(text.encode("utf-8", "replace")) for text in texts)
    assert prompt_size("".join(texts)) == len("".join(texts).encode("utf-8", "replace"))
    assert prompt_size(None) >= 0


@pytest.mark.parametrize(
    ("text", "true"),
    [  # o200k tokens, counted with tiktoken
        ("The meter counts what was used, and says whose it was. " * 20, 260),
        ("QmFzZTY0IGlzIGFuIGVuY29kaW5nIG9mIGJ5dGVzIGluIHRleHQu" * 20, 800),
        ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" * 10, 400),
    ],
)
def test_the_high_side_is_above_the_truth_and_not_above_the_bytes(text, true):
    assert true <= prompt_at_most([{"role": "user", "content": text}], "gpt-4o")
    assert min(prompt_at_most(text, "gpt-4o"), prompt_size(text)) <= prompt_size(text)

"""Counting conversations: OpenAI's documented formula, and every shape in which messages come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock, ToolCallBlock

from agent_meter.tokens import TokenCounter

# OpenAI's cookbook, "How to count tokens with tiktoken", with the API's own numbers.
JARGON = [
    (
        "system",
        None,
        "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    ),
    ("system", "example_user", "New synergies will help drive top-line growth."),
    ("system", "example_assistant", "Things working well together will increase revenue."),
    (
        "system",
        "example_user",
        "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    ),
    ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
    ("user", None, "This late pivot means we don't have time to boil the ocean for the client deliverable."),
]
COOKBOOK = [{"role": r, "content": c} | ({"name": n} if n else {}) for r, n, c in JARGON]


@pytest.mark.parametrize(
    ("model", "tokens"),
    [("gpt-3.5-turbo", 129), ("gpt-4-0613", 129), ("gpt-4", 129), ("gpt-4o", 124), ("gpt-4o-mini", 124)],
)
def test_the_cookbooks_conversation_counts_what_the_api_counts(model: str, tokens: int) -> None:
    assert TokenCounter(model=model).count_messages(COOKBOOK) == tokens


def test_an_empty_conversation_is_nothing() -> None:
    counter = TokenCounter()

    assert counter.count_messages([]) == counter.count_messages(None) == 0


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


HELLO = "Hello there, how are you?"
SAME_AS_A_USER_SAYING_HELLO: list[Any] = [
    user(HELLO),
    HELLO,
    ("user", HELLO),
    ("human", HELLO),
    {"role": "user", "content": HELLO, "tool_calls": None, "name": None},
    {"role": "user", "content": [{"type": "text", "text": HELLO}]},
    {"role": "user", "content": [{"type": "input_text", "text": HELLO}]},
    {"role": "user", "content": [HELLO]},
    {"role": "user", "content": [{"text": HELLO}, {"cachePoint": {"type": "default"}}]},
    {"role": "user", "parts": [{"text": HELLO}]},
    {"type": "message", "role": "user", "content": HELLO},
    HumanMessage(HELLO),
    HumanMessage([{"type": "text", "text": HELLO}]),
    ChatMessage(role=MessageRole.USER, content=HELLO),
    ChatMessage(role="user", blocks=[TextBlock(text=HELLO)]),
    SimpleNamespace(role="user", content=HELLO),
]


@pytest.mark.parametrize("message", SAME_AS_A_USER_SAYING_HELLO, ids=range(len(SAME_AS_A_USER_SAYING_HELLO)))
def test_the_same_message_counts_the_same_in_every_shape(message: Any) -> None:
    counter = TokenCounter(model="gpt-4o")

    assert counter.count_messages([message]) == 3 + 3 + 1 + counter.count(HELLO)
    assert counter.uncounted([message]) == ()


CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
ARGUMENTS = {"city": "Paris"}
SAME_TOOL_CALL: list[Any] = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "assistant", "content": None, "function_call": CALL["function"]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "get_weather", "input": ARGUMENTS}]},
    {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "get_weather", "input": ARGUMENTS}}]},
    {"role": "model", "parts": [{"functionCall": {"name": "get_weather", "args": ARGUMENTS}}]},
    {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": '{"city":"Paris"}'},
    AIMessage("", tool_calls=[{"name": "get_weather", "args": ARGUMENTS, "id": "t"}]),
    AIMessageChunk("", tool_calls=[{"name": "get_weather", "args": ARGUMENTS, "id": "t"}]),
    AIMessage(
        [{"type": "tool_use", "id": "t", "name": "get_weather", "input": ARGUMENTS}],
        tool_calls=[{"name": "get_weather", "args": ARGUMENTS, "id": "t"}],
    ),
    ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_name="get_weather", tool_kwargs=ARGUMENTS)]),
    ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [CALL]}),
]


@pytest.mark.parametrize("message", SAME_TOOL_CALL, ids=range(len(SAME_TOOL_CALL)))
def test_a_tool_call_counts_its_name_and_arguments_in_every_shape(message: Any) -> None:
    counter = TokenCounter(model="gpt-4o")
    expected = 3 + 4 + 7 + counter.count("get_weather") + counter.count('{"city":"Paris"}')

    assert counter.count_messages([message]) == expected


SAME_RESULT: list[Any] = [
    {"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 22C"},
    {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "Sunny, 22C"},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "Sunny, 22C"}]},
    {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "Sunny, 22C"}]}]},
    {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "Sunny, 22C"}]}}]},
    {"type": "function_call_output", "call_id": "c", "output": "Sunny, 22C"},
    ToolMessage("Sunny, 22C", tool_call_id="t", name="get_weather"),
]


@pytest.mark.parametrize("message", SAME_RESULT, ids=range(len(SAME_RESULT)))
def test_a_tool_result_counts_its_text_in_every_shape(message: Any) -> None:
    counter = TokenCounter(model="gpt-4o")

    assert counter.count_messages([message]) == 3 + 4 + counter.count("Sunny, 22C")


def test_a_structured_result_counts_as_json() -> None:
    counter = TokenCounter(model="gpt-4o")
    gemini = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"ok": True}}}]}
    bedrock = {"role": "user", "content": [{"toolResult": {"content": [{"json": {"ok": True}}]}}]}

    for message in (gemini, bedrock):
        assert counter.count_messages([message]) == 3 + 4 + counter.count('{"ok":true}')


def test_a_refusal_counts() -> None:
    counter = TokenCounter(model="gpt-4o")
    message = {"role": "assistant", "content": None, "refusal": "I cannot do that."}

    assert counter.count_messages([message]) == 3 + 4 + counter.count("I cannot do that.")


UNCOUNTED = [
    ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "input_audio"),
    ({"type": "file", "file": {"file_id": "file-1"}}, "file"),
    ({"type": "document", "source": {"type": "base64", "data": "AAAA"}}, "document"),
    ({"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}, "inlineData"),
    ({"guardContent": {"text": {"text": "x"}}}, "guardContent"),
    ({"type": "thinking", "thinking": "hm"}, "thinking"),
    (b"raw", "bytes"),
    (SimpleNamespace(block_type="audio"), "audio"),
]


@pytest.mark.parametrize(("part", "name"), UNCOUNTED, ids=[name for _, name in UNCOUNTED])
def test_what_is_counted_as_nothing_is_named(part: Any, name: str) -> None:
    counter = TokenCounter(model="gpt-4o")
    message = {"role": "user", "content": ["hi", part, part]}

    assert counter.count_messages([message]) == counter.count_messages([user("hi")])
    assert counter.uncounted([message]) == (name,)


def test_langchain_and_dict_conversations_count_alike() -> None:
    objects = [
        SystemMessage("Be brief."),
        HumanMessage("Weather?"),
        AIMessage("", tool_calls=[{"name": "w", "args": {}, "id": "1"}]),
        ToolMessage("fine", tool_call_id="1"),
    ]
    dicts = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "w", "arguments": "{}"}}]},
        {"role": "tool", "content": "fine", "tool_call_id": "1"},
    ]
    counter = counter_gpt4o()

    assert counter.count_messages(objects) == counter.count_messages(dicts)


def counter_gpt4o() -> TokenCounter:
    return TokenCounter(model="gpt-4o")


def test_an_unusual_role_counts_its_own_tokens() -> None:
    counter = counter_gpt4o()
    role = "antidisestablishmentarianism"

    assert counter.count_messages([{"role": role, "content": "x"}]) == 3 + 3 + counter.count(role) + 1


def test_a_llama_index_image_counts_by_its_own_bytes() -> None:
    png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (300).to_bytes(4, "big") * 2 + b"\x08\x06\x00\x00\x00"
    message = ChatMessage(role="user", blocks=[ImageBlock.model_construct(image=png, block_type="image")])

    assert counter_gpt4o().count_messages([message]) == 3 + 4 + 85 + 170


class Nasty:
    @property
    def content(self) -> str:
        raise RuntimeError("lazy and broken")


SPEAKING = "role type content text parts tool_calls name input image_url function json additional_kwargs blocks"
KEYS = st.text(max_size=5) | st.sampled_from(SPEAKING.split(" "))
JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@given(messages=st.lists(JSONISH, max_size=4))
@settings(max_examples=300, deadline=None)
def test_no_conversation_however_odd_raises(messages: list[Any]) -> None:
    counter = counter_gpt4o()

    assert counter.count_messages(messages) >= 0
    assert isinstance(counter.uncounted(messages), tuple)


def test_messages_that_hold_themselves_or_raise_are_survived() -> None:
    loop: list[Any] = []
    loop.append(loop)
    arguments: dict[str, Any] = {}
    arguments["self"] = arguments
    messages = [
        {"role": "user", "content": loop},
        {"role": "assistant", "tool_calls": [{"name": "f", "args": arguments}]},
        Nasty(),
    ]
    counter = counter_gpt4o()

    assert counter.count_messages(messages) > 0
    assert counter.uncounted(messages) == ("nested",)


@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=6))
@settings(deadline=None)
def test_a_conversation_is_the_sum_of_its_messages(texts: list[str]) -> None:
    counter = counter_gpt4o()
    each = sum(counter.count_messages([user(text)]) - 3 for text in texts)

    assert counter.count_messages([user(text) for text in texts]) == each + 3

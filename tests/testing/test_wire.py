"""What the loopback provider says on the wire, beside the usage that test_clients.py reads."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import NotFoundError as OpenAINotFound
from tests.testing.readers import ASK_CLAUDE, PROMPT, anthropic, ask, openai

from agent_meter import TokenUsage
from agent_meter.testing import Reply, ToolCall

# ----------------------------------------------------------------------------------------- what the wire says


def test_a_chat_stream_says_its_usage_only_when_asked(loopback) -> None:
    provider = loopback([Reply("a few words", input_tokens=11, output_tokens=3)], loop=True)

    silent = list(ask(provider, stream=True))
    asked = list(ask(provider, stream=True, stream_options={"include_usage": True}))

    assert [chunk.usage for chunk in silent if chunk.usage] == []
    assert all(chunk.choices for chunk in silent)
    assert [(c.choices, c.usage.total_tokens) for c in asked if c.usage] == [([], 14)]
    assert asked[-1].usage is not None
    assert provider.truth == [TokenUsage(11, 3)] * 2  # what is not said is still used


def test_langchain_does_not_ask_for_the_usage_of_a_stream_when_it_has_a_base_url(loopback) -> None:
    """So says the how-to page; where this changes, the page must too."""
    provider = loopback([Reply("a few words", input_tokens=11, output_tokens=3)])

    chunks = list(ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none").stream(PROMPT))

    assert [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata] == []


def test_n_choices_share_one_usage(loopback) -> None:
    provider = loopback([Reply("red", input_tokens=9, output_tokens=6)], loop=True)

    plain = ask(provider, n=3)
    chunks = list(ask(provider, n=3, stream=True, stream_options={"include_usage": True}))

    assert [(choice.index, choice.message.content) for choice in plain.choices] == [(0, "red"), (1, "red"), (2, "red")]
    assert plain.usage.completion_tokens == 6
    said = dict.fromkeys(range(3), "")
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        said[choice.index] += choice.delta.content or ""
    assert said == {0: "red", 1: "red", 2: "red"}
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [6]


def test_n_choices_have_tool_calls_of_their_own(loopback) -> None:
    choices = ask(loopback(Reply(tool_calls=[ToolCall("a"), ToolCall("b")])), n=2).choices

    ids = [call.id for choice in choices for call in choice.message.tool_calls]
    assert len(set(ids)) == 4


def test_a_tool_call_keeps_an_id_that_was_given(loopback) -> None:
    provider = loopback([Reply(tool_calls=[ToolCall("a", {}, id="call_mine")])], loop=True)

    chat = ask(provider).choices[0].message.tool_calls[0].id
    response = openai(provider).responses.create(model="gpt-4o", input=PROMPT).output[0].call_id
    message = anthropic(provider).messages.create(**ASK_CLAUDE).content[0].id

    assert (chat, response, message) == ("call_mine", "call_mine", "call_mine")


def test_a_stream_has_as_many_pieces_as_the_reply_says(loopback) -> None:
    provider = loopback([Reply("0123456789", chunks=4), Reply("ab", chunks=100)])

    first = [c.choices[0].delta.content for c in ask(provider, stream=True) if c.choices[0].delta.content]
    second = [c.choices[0].delta.content for c in ask(provider, stream=True) if c.choices[0].delta.content]

    assert (len(first), "".join(first)) == (4, "0123456789")
    assert second == ["a", "b"]


def test_an_answer_that_ran_into_its_limit_says_so_in_each_dialect(loopback) -> None:
    provider = loopback([Reply("unfin", input_tokens=5, output_tokens=2, finish="length")], loop=True)
    client = openai(provider)

    response = client.responses.create(model="gpt-4o", input=PROMPT)
    last = list(client.responses.create(model="gpt-4o", input=PROMPT, stream=True))[-1]

    assert ask(provider).choices[0].finish_reason == "length"
    assert anthropic(provider).messages.create(**ASK_CLAUDE).stop_reason == "max_tokens"
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (last.type, last.response.usage.total_tokens) == ("response.incomplete", 7)


def test_an_anthropic_stream_splits_cache_writes_in_its_first_event_only(loopback) -> None:
    reply = Reply("hi", input_tokens=100, cache_read_tokens=30, cache_write_tokens=50, cache_write_1h_tokens=20)

    events = list(anthropic(loopback(reply)).messages.create(**ASK_CLAUDE, stream=True))

    start, delta = events[0].message.usage, next(e for e in events if e.type == "message_delta").usage
    assert (start.input_tokens, start.cache_read_input_tokens, start.cache_creation_input_tokens) == (20, 30, 50)
    split = start.cache_creation
    assert (split.ephemeral_5m_input_tokens, split.ephemeral_1h_input_tokens) == (30, 20)
    assert (delta.input_tokens, delta.cache_read_input_tokens, delta.cache_creation_input_tokens) == (20, 30, 50)
    assert not hasattr(delta, "cache_creation")
    assert [event.type for event in events][-2:] == ["message_delta", "message_stop"]


def test_thinking_is_shown_as_each_dialect_shows_it(loopback) -> None:
    provider = loopback([Reply("so", thinking="hm", reasoning_tokens=8, output_tokens=9)], loop=True)

    message = anthropic(provider).messages.create(**ASK_CLAUDE)
    response = openai(provider).responses.create(model="gpt-4o", input=PROMPT)

    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == "hm"
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].summary[0].text == "hm"


def test_no_two_answers_share_an_id(loopback) -> None:
    """Not even the same reply, of two providers: whoever joins answers by id must be able to."""
    reply = Reply("again", tool_calls=[ToolCall("t")])
    providers = [loopback([reply], loop=True) for _ in range(2)]

    answers = [ask(provider) for provider in providers for _ in range(3)]

    assert len({answer.id for answer in answers}) == 6
    assert len({answer._request_id for answer in answers}) == 6
    assert len({answer.choices[0].message.tool_calls[0].id for answer in answers}) == 6


# ---------------------------------------------------------------------------------------------- embeddings


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_have_usage_and_depend_on_their_text_alone(encoding: str, loopback) -> None:
    provider = loopback([Reply(input_tokens=12), Reply(input_tokens=12)])
    options = {"model": "text-embedding-3-small", "encoding_format": encoding}

    first = openai(provider).embeddings.create(input=["left", "right", "left"], dimensions=16, **options)
    openai(provider).embeddings.create(input="left", **options)

    vectors = [item.embedding for item in first.data]
    if encoding == "base64":
        assert len({*vectors}) == 2
    else:
        assert [len(vector) for vector in vectors] == [16, 16, 16]
        assert sum(number**2 for number in vectors[0]) == pytest.approx(1)
    assert vectors[0] == vectors[2] != vectors[1]
    assert (first.usage.prompt_tokens, first.usage.total_tokens) == (12, 12)
    assert provider.truth == [TokenUsage(12), TokenUsage(12)]


def test_embedding_input_that_is_tokens_already_counts_them(loopback) -> None:
    provider = loopback()
    tokens = [[1, 2, 3], [4, 5]]

    answer = openai(provider).embeddings.create(model="text-embedding-3-small", input=tokens)
    openai(provider).embeddings.create(model="text-embedding-3-small", input=[7, 8, 9, 10])

    assert len(answer.data) == 2
    assert provider.truth == [TokenUsage(5), TokenUsage(4)]


def test_langchain_reads_embeddings_in_the_order_of_its_texts(loopback) -> None:
    provider = loopback()
    model = OpenAIEmbeddings(base_url=provider.openai_base_url, api_key="none", check_embedding_ctx_length=False)

    left, right = model.embed_documents(["left", "right"])

    assert (left == right, model.embed_query("left") == left) == (False, True)
    assert provider.total == TokenUsage(3 + 1)  # 9 characters, then 4


def test_the_same_reply_embeds_different_texts_differently(loopback) -> None:
    provider = loopback([Reply(input_tokens=1)], loop=True)
    client = openai(provider)

    vectors = [client.embeddings.create(model="m", input=text).data[0].embedding for text in ("left", "right")]

    assert vectors[0] != vectors[1]


# ---------------------------------------------------------------------------------------- models, wrong paths


def test_both_vendors_list_the_models(loopback) -> None:
    provider = loopback(models=["small", "large"])

    assert [model.id for model in openai(provider).models.list()] == ["small", "large"]
    assert [model.id for model in anthropic(provider).models.list()] == ["small", "large"]
    assert openai(provider).models.retrieve("large").id == "large"
    with pytest.raises(OpenAINotFound, match="`none` does not exist"):
        openai(provider).models.retrieve("none")
    assert provider.requests == []  # nobody asked a model


def test_a_wrong_path_is_told_the_right_ones(loopback) -> None:
    provider = loopback(["never said"])

    with pytest.raises(OpenAINotFound, match=r"does not know POST /v1/completions\. It answers POST to"):
        openai(provider).completions.create(model="gpt-4o", prompt="x")
    assert provider.remaining == 1


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"\xff\xfe"])
def test_a_body_that_is_no_json_object_is_refused(body: bytes, loopback) -> None:
    request = urllib.request.Request(f"{loopback().openai_base_url}/chat/completions", data=body)

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)
    assert caught.value.code == 400
    assert "no JSON object" in json.load(caught.value)["error"]["message"]

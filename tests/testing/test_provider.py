"""Scripts, truth and lifetime of the loopback provider."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import APIConnectionError, APIStatusError, InternalServerError
from openai import NotFoundError as OpenAINotFound
from tests.testing.readers import ASK_CLAUDE, MESSAGES, PROMPT, anthropic, chat_openai, openai

from agent_meter import TokenUsage
from agent_meter.testing import ErrorReply, LoopbackProvider, Reply, Request, ToolCall


def _ask(provider: LoopbackProvider, text: str = PROMPT, **options: Any) -> Any:
    client = openai(provider)
    return client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": text}], **options)


# -------------------------------------------------------------------------------------------------- scripts


def test_one_script_serves_all_dialects_in_order(loopback) -> None:
    provider = loopback(["one", "two", "three"])

    chat = _ask(provider).choices[0].message.content
    message = anthropic(provider).messages.create(**ASK_CLAUDE).content[0].text
    response = openai(provider).responses.create(model="gpt-4o", input=PROMPT).output_text

    assert (chat, message, response) == ("one", "two", "three")
    assert [r.dialect for r in provider.requests] == ["openai.chat", "anthropic.messages", "openai.responses"]
    assert [r.number for r in provider.requests] == [1, 2, 3]


def test_after_the_last_reply_comes_an_error_that_says_so_and_is_not_retried(loopback) -> None:
    provider = loopback(["one", "two"])
    client = openai(provider).with_options(max_retries=5)
    ask = {"model": "gpt-4o", "messages": MESSAGES}
    client.chat.completions.create(**ask)
    assert provider.remaining == 1
    client.chat.completions.create(**ask)
    assert provider.remaining == 0

    with pytest.raises(APIStatusError, match="it has 2 replies, and this is request 3") as caught:
        client.chat.completions.create(**ask)

    assert caught.value.status_code == 410
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(provider.requests) == 3
    assert len(provider.truth) == 2


def test_a_loop_starts_again(loopback) -> None:
    provider = loopback(["one", "two"], loop=True)

    assert [_ask(provider).choices[0].message.content for _ in range(5)] == ["one", "two", "one", "two", "one"]
    assert provider.remaining is None


def test_a_single_reply_or_string_is_a_script_of_one(loopback) -> None:
    assert _ask(loopback("alone")).choices[0].message.content == "alone"
    assert _ask(loopback(Reply("alone too"))).choices[0].message.content == "alone too"


def test_a_function_sees_the_request_and_runs_an_agent_loop(loopback) -> None:
    """A tool is asked for until its result is there."""

    def reply(request: Request) -> Reply | str:
        if any(message["role"] == "tool" for message in request.body["messages"]):
            return f"so it is {request.last_text}"
        return Reply(tool_calls=[ToolCall("search", {"q": request.last_text})])

    provider = loopback(reply)
    model = chat_openai(provider).bind_tools([{"name": "search", "description": "", "parameters": {}}])
    asked = model.invoke("where?")
    (call,) = asked.tool_calls

    result = {"role": "tool", "content": "here", "tool_call_id": call["id"]}
    answer = model.invoke([{"role": "user", "content": "where?"}, asked, result])

    assert call["args"] == {"q": "where?"}
    assert answer.content == "so it is here"
    assert [(r.model, r.stream, r.path) for r in provider.requests] == [("gpt-4o", False, "/v1/chat/completions")] * 2


def test_a_function_that_raises_is_heard_of_and_not_retried(loopback) -> None:
    def reply(request: Request) -> Reply:
        raise KeyError("no such prompt")

    provider = loopback(reply)

    with pytest.raises(InternalServerError, match=r"raised KeyError: 'no such prompt'"):
        openai(provider).with_options(max_retries=5).chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert len(provider.requests) == 1


def test_a_function_that_gives_no_answer_is_heard_of(loopback) -> None:
    with pytest.raises(InternalServerError, match=r"an answer is a Reply, .* got None"):
        _ask(loopback(lambda request: None))


def test_an_answer_that_cannot_be_sent_is_heard_of(loopback) -> None:
    provider = loopback([Reply(tool_calls=[ToolCall("when", {"at": object()})])])

    with pytest.raises(InternalServerError, match="raised TypeError: Object of type object is not JSON serializable"):
        _ask(provider)
    assert (provider.requests[0].status, provider.truth) == (500, [])


def test_without_a_script_it_echoes_and_counts_four_characters_a_token(loopback) -> None:
    provider = loopback()
    client = openai(provider)
    turns = [{"role": "system", "content": "12345678"}, {"role": "user", "content": "a question"}]

    first = client.chat.completions.create(model="gpt-4o", messages=turns)
    again = client.chat.completions.create(model="gpt-4o", messages=turns)

    assert first.choices[0].message.content == "a question"
    assert provider.truth == [TokenUsage(5, 3), TokenUsage(5, 3)]  # 18 and 10 characters
    assert (first.usage, first.id == again.id) == (again.usage, False)


def test_an_echo_keeps_to_the_output_limit(loopback) -> None:
    provider = loopback()

    cut = _ask(provider, "abcdefghijkl", max_tokens=2)

    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("abcdefgh", "length")
    assert cut.usage.completion_tokens == 2


def test_the_same_text_counts_the_same_in_every_dialect(loopback) -> None:
    provider = loopback()

    _ask(provider)
    openai(provider).responses.create(model="gpt-4o", input=PROMPT)
    openai(provider).responses.create(
        model="gpt-4o", input=[{"role": "user", "content": [{"type": "input_text", "text": PROMPT}]}]
    )
    anthropic(provider).messages.create(**ASK_CLAUDE)

    assert provider.truth == [TokenUsage(5, 5)] * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Reply(input_tokens=10, cache_read_tokens=8, cache_write_tokens=3), "11 > input_tokens 10"),
        (lambda: Reply(output_tokens=10, reasoning_tokens=11), "reasoning_tokens 11 > output_tokens 10"),
        (lambda: Reply(cache_write_tokens=1, cache_write_1h_tokens=2), "cache_write_1h_tokens 2 > cache_write"),
        (lambda: Reply(input_tokens=-1), "input_tokens -1 < 0"),
        (lambda: Reply(chunks=0), "at least one chunk, got chunks=0"),
        (lambda: Reply(delay=-1.0), r"got -1\.0"),
        (lambda: ErrorReply(200), "from 400 to 599, got 200"),
        (lambda: LoopbackProvider([], loop=True), "has none"),
        (lambda: LoopbackProvider(lambda request: "x", loop=True), "has none"),
    ],
)
def test_a_script_that_no_provider_could_play_is_refused(wrong, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_script_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match=r"an answer is a Reply, .* got 42"):
        LoopbackProvider([42])  # type: ignore[list-item]


def test_counts_not_given_are_never_less_than_their_parts(loopback) -> None:
    provider = loopback([Reply("x", cache_read_tokens=900, reasoning_tokens=70)])

    _ask(provider)

    assert provider.truth == [TokenUsage(900, 70, cache_read_tokens=900, reasoning_tokens=70)]


# ----------------------------------------------------------------------------------------- what the wire says


def test_a_chat_stream_says_its_usage_only_when_asked(loopback) -> None:
    provider = loopback([Reply("a few words", input_tokens=11, output_tokens=3)], loop=True)

    silent = list(_ask(provider, stream=True))
    asked = list(_ask(provider, stream=True, stream_options={"include_usage": True}))

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

    plain = _ask(provider, n=3)
    chunks = list(_ask(provider, n=3, stream=True, stream_options={"include_usage": True}))

    assert [(choice.index, choice.message.content) for choice in plain.choices] == [(0, "red"), (1, "red"), (2, "red")]
    assert plain.usage.completion_tokens == 6
    said = dict.fromkeys(range(3), "")
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        said[choice.index] += choice.delta.content or ""
    assert said == {0: "red", 1: "red", 2: "red"}
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [6]


def test_n_choices_have_tool_calls_of_their_own(loopback) -> None:
    choices = _ask(loopback(Reply(tool_calls=[ToolCall("a"), ToolCall("b")])), n=2).choices

    ids = [call.id for choice in choices for call in choice.message.tool_calls]
    assert len(set(ids)) == 4


def test_a_tool_call_keeps_an_id_that_was_given(loopback) -> None:
    provider = loopback([Reply(tool_calls=[ToolCall("a", {}, id="call_mine")])], loop=True)

    chat = _ask(provider).choices[0].message.tool_calls[0].id
    response = openai(provider).responses.create(model="gpt-4o", input=PROMPT).output[0].call_id
    message = anthropic(provider).messages.create(**ASK_CLAUDE).content[0].id

    assert (chat, response, message) == ("call_mine", "call_mine", "call_mine")


def test_a_stream_has_as_many_pieces_as_the_reply_says(loopback) -> None:
    provider = loopback([Reply("0123456789", chunks=4), Reply("ab", chunks=100)])

    first = [c.choices[0].delta.content for c in _ask(provider, stream=True) if c.choices[0].delta.content]
    second = [c.choices[0].delta.content for c in _ask(provider, stream=True) if c.choices[0].delta.content]

    assert (len(first), "".join(first)) == (4, "0123456789")
    assert second == ["a", "b"]


def test_an_answer_that_ran_into_its_limit_says_so_in_each_dialect(loopback) -> None:
    provider = loopback([Reply("unfin", input_tokens=5, output_tokens=2, finish="length")], loop=True)
    client = openai(provider)

    response = client.responses.create(model="gpt-4o", input=PROMPT)
    last = list(client.responses.create(model="gpt-4o", input=PROMPT, stream=True))[-1]

    assert _ask(provider).choices[0].finish_reason == "length"
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

    answers = [_ask(provider) for provider in providers for _ in range(3)]

    assert len({answer.id for answer in answers}) == 6
    assert len({answer._request_id for answer in answers}) == 6
    assert len({answer.choices[0].message.tool_calls[0].id for answer in answers}) == 6


# ---------------------------------------------------------------------------------------------- embeddings


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_have_usage_and_depend_on_their_text_alone(encoding: str, loopback) -> None:
    provider = loopback([Reply(input_tokens=12), Reply(input_tokens=12)])
    ask = {"model": "text-embedding-3-small", "encoding_format": encoding}

    first = openai(provider).embeddings.create(input=["left", "right", "left"], dimensions=16, **ask)
    openai(provider).embeddings.create(input="left", **ask)

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


# ------------------------------------------------------------------------------------ concurrency, lifetime


def test_sixteen_threads_get_every_reply_exactly_once(loopback) -> None:
    replies = [Reply(f"reply {n}", input_tokens=1000 + n, output_tokens=n) for n in range(160)]
    provider = loopback(replies)
    client = openai(provider)

    def work(_: int) -> list[tuple[str, int]]:
        answers = [client.chat.completions.create(model="gpt-4o", messages=MESSAGES) for _ in range(10)]
        return [(answer.choices[0].message.content, answer.usage.prompt_tokens) for answer in answers]

    with ThreadPoolExecutor(16) as pool:
        seen = [pair for pairs in pool.map(work, range(16)) for pair in pairs]

    assert sorted(seen, key=lambda pair: pair[1]) == [(reply.text, reply.input_tokens) for reply in replies]
    assert [request.number for request in provider.requests] == list(range(1, 161))
    assert provider.truth == [reply.usage(0, 0) for reply in replies]
    assert provider.total == TokenUsage(sum(range(1000, 1160)), sum(range(160)))
    assert provider.remaining == 0


def test_the_truth_is_there_when_the_answer_is(loopback) -> None:
    """However fast the client looks: the truth is written before the first byte is sent."""
    provider = loopback([Reply("x", input_tokens=1, output_tokens=1)], loop=True)
    client = openai(provider)

    for number in range(1, 101):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        assert len(provider.truth) == number


def test_a_provider_that_does_not_run_says_what_to_do() -> None:
    provider = LoopbackProvider()

    with pytest.raises(RuntimeError, match=r"call start\(\) first"):
        _ = provider.openai_base_url


def test_it_starts_again_and_remembers() -> None:
    provider = LoopbackProvider(["one", "two"])
    with provider as running:
        assert running is provider
        _ask(provider)
    with provider:
        second = _ask(provider)

    assert second.choices[0].message.content == "two"
    assert len(provider.requests) == 2


def test_starting_and_stopping_twice_is_harmless() -> None:
    provider = LoopbackProvider().start()
    port = provider.url

    assert provider.start().url == port
    provider.stop()
    provider.stop()


def test_stopping_leaves_no_thread_behind_and_does_not_wait_for_a_delay() -> None:
    before = set(threading.enumerate())
    provider = LoopbackProvider([Reply("late", delay=60)]).start()
    client = openai(provider)
    heard: list[Exception] = []

    def ask() -> None:
        try:
            client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        except APIConnectionError as error:
            heard.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while not provider.requests:
        time.sleep(0.001)

    begun = time.monotonic()
    provider.stop()
    asking.join(5)

    assert time.monotonic() - begun < 5
    assert len(heard) == 1
    assert set(threading.enumerate()) - before == set()
    client.close()


def test_a_given_port_is_used(unused_tcp_port: int) -> None:
    with LoopbackProvider(port=unused_tcp_port) as provider:
        assert provider.openai_base_url == f"http://127.0.0.1:{unused_tcp_port}/v1"
        assert provider.anthropic_base_url == f"http://127.0.0.1:{unused_tcp_port}"


def test_the_api_key_is_kept_out_of_what_is_printed(loopback) -> None:
    provider = loopback()
    openai(provider).with_options(api_key="sk-secret").chat.completions.create(model="gpt-4o", messages=MESSAGES)

    (request,) = provider.requests
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in repr(request)

"""Scripts, truth and lifetime of the loopback provider."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import APIConnectionError, APIStatusError, InternalServerError
from tests.testing.readers import ASK_CLAUDE, MESSAGES, PROMPT, anthropic, ask, chat_openai, openai

from agent_meter import TokenUsage
from agent_meter.testing import ErrorReply, LoopbackProvider, Reply, Request, ToolCall

# -------------------------------------------------------------------------------------------------- scripts


def test_one_script_serves_all_dialects_in_order(loopback) -> None:
    provider = loopback(["one", "two", "three"])

    chat = ask(provider).choices[0].message.content
    message = anthropic(provider).messages.create(**ASK_CLAUDE).content[0].text
    response = openai(provider).responses.create(model="gpt-4o", input=PROMPT).output_text

    assert (chat, message, response) == ("one", "two", "three")
    assert [r.dialect for r in provider.requests] == ["openai.chat", "anthropic.messages", "openai.responses"]
    assert [r.number for r in provider.requests] == [1, 2, 3]


def test_after_the_last_reply_comes_an_error_that_says_so_and_is_not_retried(loopback) -> None:
    provider = loopback(["one", "two"])
    client = openai(provider).with_options(max_retries=5)
    options = {"model": "gpt-4o", "messages": MESSAGES}
    client.chat.completions.create(**options)
    assert provider.remaining == 1
    client.chat.completions.create(**options)
    assert provider.remaining == 0

    with pytest.raises(APIStatusError, match="it has 2 replies, and this is request 3") as caught:
        client.chat.completions.create(**options)

    assert caught.value.status_code == 410
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(provider.requests) == 3
    assert len(provider.truth) == 2


def test_a_loop_starts_again(loopback) -> None:
    provider = loopback(["one", "two"], loop=True)

    assert [ask(provider).choices[0].message.content for _ in range(5)] == ["one", "two", "one", "two", "one"]
    assert provider.remaining is None


def test_a_single_reply_or_string_is_a_script_of_one(loopback) -> None:
    assert ask(loopback("alone")).choices[0].message.content == "alone"
    assert ask(loopback(Reply("alone too"))).choices[0].message.content == "alone too"


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
        ask(loopback(lambda request: None))


def test_an_answer_that_cannot_be_sent_is_heard_of(loopback) -> None:
    provider = loopback([Reply(tool_calls=[ToolCall("when", {"at": object()})])])

    with pytest.raises(InternalServerError, match="raised TypeError: Object of type object is not JSON serializable"):
        ask(provider)
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

    cut = ask(provider, "abcdefghijkl", max_tokens=2)

    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("abcdefgh", "length")
    assert cut.usage.completion_tokens == 2


def test_the_same_text_counts_the_same_in_every_dialect(loopback) -> None:
    provider = loopback()

    ask(provider)
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

    ask(provider)

    assert provider.truth == [TokenUsage(900, 70, cache_read_tokens=900, reasoning_tokens=70)]


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
        ask(provider)
    with provider:
        second = ask(provider)

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

    def wait() -> None:
        try:
            client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        except APIConnectionError as error:
            heard.append(error)

    asking = threading.Thread(target=wait)
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

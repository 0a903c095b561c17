"""A model provider on 127.0.0.1 for tests: it says what it is told to say, and knows what it said."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from ..records import NO_USAGE, TokenUsage
from .dialects import dialect_of, encode, error_response, usage_of
from .replies import Answer, Cut, ErrorReply, Hang, Reply, Script, count_tokens
from .request import Dialect, Request
from .server import HttpRequest, LoopbackServer, Sending
from .wire import dumps, whole


def echo(request: Request) -> Reply:
    """The answer of a provider without a script: the last message, as far as the output limit lets it."""
    text, limit = request.last_text, request.max_output_tokens
    if limit is not None and count_tokens(text) > limit:
        return Reply(text[: 4 * limit], finish="length")
    return Reply(text)


class LoopbackProvider:
    """Speaks OpenAI's chat completions, responses and embeddings and Anthropic's messages, JSON and stream.

    `script` is a list of answers, served in order to whatever asks, in any dialect (a string is a `Reply`);
    or a function from `Request` to an answer, called on the connection's thread, several at a time; or
    nothing: then it echoes. After the last answer of a list comes status 410, which no SDK retries;
    `loop=True` starts again instead. `port` 0 takes a free one.

    Use it as a context manager, or `start()` and `stop()` it. It listens on 127.0.0.1 alone.

    >>> with LoopbackProvider([Reply("Hello", input_tokens=120, output_tokens=30)]) as provider:
    ...     client = OpenAI(base_url=provider.openai_base_url, api_key="none")
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        loop: bool = False,
        port: int = 0,
        models: Sequence[str] = ("gpt-4o", "claude-sonnet-4-6"),
    ) -> None:
        self._answers: list[Answer] = []
        self._ask: Callable[[Request], Answer | str] | None = None
        if script is None:
            self._ask = echo
        elif callable(script):
            self._ask = script
        else:
            listed = [script] if isinstance(script, Answer | str) else script
            self._answers = [_answer(item) for item in listed]
        if loop and not self._answers:
            raise ValueError("loop=True repeats a list of answers; a function, an echo or an empty list has none")
        self._loop, self._port, self._models = loop, port, models
        self._server: LoopbackServer | None = None
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        # Unlike any other provider's: two of them in one test must not repeat each other's response ids.
        self._prefix = os.urandom(8).hex()

    # ------------------------------------------------------------------------------------------- lifetime

    def start(self) -> LoopbackProvider:
        """Listen. Returns itself; raises `OSError` when the port is taken."""
        if self._server is None:
            self._server = LoopbackServer(self._handle, self._port)
        return self

    def stop(self) -> None:
        """Hang up. What came in stays readable."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    __enter__ = start

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the provider is not running: use it in a with statement, or call start() first")
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def openai_base_url(self) -> str:
        """What OpenAI's SDK, LangChain's ChatOpenAI and their like take as `base_url`."""
        return f"{self.url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """What Anthropic's SDK and LangChain's ChatAnthropic take as `base_url`."""
        return self.url

    # ------------------------------------------------------------------------------------- what came of it

    @property
    def requests(self) -> list[Request]:
        """The requests for a model so far, oldest first; a copy."""
        with self._lock:
            return list(self._requests)

    @property
    def truth(self) -> list[TokenUsage]:
        """The usage of each complete answer, in the order of the requests; there before the answer is sent.

        A stream that was not asked to end with its usage counts all the same: what is not said is still used.
        """
        return [request.usage for request in self.requests if request.usage is not None]

    @property
    def total(self) -> TokenUsage:
        """The sum of `truth`."""
        return sum(self.truth, NO_USAGE)

    @property
    def remaining(self) -> int | None:
        """How many answers of the list are left; None where they do not run out."""
        if self._ask is not None or self._loop:
            return None
        return max(0, len(self._answers) - len(self.requests))

    # -------------------------------------------------------------------------------------------- serving

    def _handle(self, http: HttpRequest) -> Sending:
        dialect = dialect_of(http.path)
        if http.method == "GET" and (http.path.endswith("/models") or "/models/" in http.path):
            return self._list_models(http.path)
        if http.method != "POST" or dialect is None:
            message = (
                f"The loopback provider does not know {http.method} {http.path}. It answers POST to "
                "/v1/chat/completions, /v1/responses, /v1/embeddings and /v1/messages, and GET /v1/models."
            )
            return error_response(ErrorReply(404, "not_found", message, should_retry=False), dialect)
        try:
            body = json.loads(http.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return error_response(ErrorReply(400, message="The body of the request is no JSON object."), dialect)

        request = self._note(dialect, http, body)
        try:
            return self._tell(request, self._choose(request))
        except Exception as error:  # of the test's own script: it must hear of it, and no SDK may retry it
            message = f"The script of the loopback provider raised {type(error).__name__}: {error}"
            return self._tell(request, ErrorReply(500, "script_error", message, should_retry=False))

    def _tell(self, request: Request, answer: Answer) -> Sending:
        reply = answer.told if isinstance(answer, Cut) else answer
        usage = usage_of(reply, request) if isinstance(reply, Reply) else NO_USAGE
        sending = encode(answer, request, usage, f"{self._prefix}{request.number:08d}")
        # Before the first byte goes out, so that who has the answer finds the truth.
        request.answer = answer
        request.status = _status(answer, request)
        request.usage = usage if isinstance(answer, Reply) else None
        return sending

    def _note(self, dialect: Dialect, http: HttpRequest, body: dict[str, object]) -> Request:
        model, stream = body.get("model"), body.get("stream") is True
        with self._lock:
            number = len(self._requests) + 1
            name = model if isinstance(model, str) else ""
            request = Request(number, dialect, name, stream, http.path, body, http.headers)
            self._requests.append(request)
        return request

    def _choose(self, request: Request) -> Answer:
        if self._ask is not None:
            return _answer(self._ask(request))
        place, count = request.number - 1, len(self._answers)
        if place < count or self._loop:
            return self._answers[place % count]
        message = (
            f"The script is over: it has {count} {'reply' if count == 1 else 'replies'}, and this is request "
            f"{request.number}. Give LoopbackProvider more of them, or loop=True."
        )
        return ErrorReply(410, "script_over", message, should_retry=False)

    def _list_models(self, path: str) -> Sending:
        """Both vendors' shapes at once, for the path is the same."""
        both = [
            {
                "id": name,
                "object": "model",
                "created": 1735689600,
                "owned_by": "loopback",
                "type": "model",
                "display_name": name,
                "created_at": "2025-01-01T00:00:00Z",
            }
            for name in self._models
        ]
        if path.endswith("/models"):
            ends = {"first_id": self._models[0], "last_id": self._models[-1]} if both else {}
            return Sending((whole(200, dumps({"object": "list", "data": both, "has_more": False, **ends})),))
        wanted = path.rpartition("/models/")[2]
        for model in both:
            if model["id"] == wanted:
                return Sending((whole(200, dumps(model)),))
        return error_response(ErrorReply(404, message=f"The model `{wanted}` does not exist."), None)


def _answer(item: object) -> Answer:
    if isinstance(item, str):
        return Reply(item)
    if isinstance(item, Answer):
        return item
    raise TypeError(f"an answer is a Reply, ErrorReply, Cut, Hang or a string, got {item!r}")


def _status(answer: Answer, request: Request) -> int | None:
    """The HTTP status of an answer; None for none."""
    if isinstance(answer, Hang):
        return None
    if isinstance(answer, Cut) and answer.error and not request.stream:
        return answer.error.status
    return answer.status if isinstance(answer, ErrorReply) else 200

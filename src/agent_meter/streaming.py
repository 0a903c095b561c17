"""Streams of own loops: handed on chunk by chunk, and finished with what was seen of them."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from .handles import LlmHandle

# Events that come before the first token.
_SILENT = frozenset(
    (
        "message_start", "content_block_start", "ping", "message-start", "content-start", "stream-start",
        "response.created", "response.queued", "response.in_progress", "response.output_item.added",
        "response.content_part.added",
    )
)  # fmt: skip


def streamed(call: LlmHandle, chunks: Any) -> Streamed:
    return AsyncStream(call, chunks) if hasattr(chunks, "__aiter__") else Stream(call, chunks)


class Streamed:
    """What both kinds share. It ends its call once: whole, failed, or left early."""

    def __init__(self, call: LlmHandle, chunks: Any) -> None:
        self._call = call
        self._chunks = chunks
        self._seen: list[Any] = []
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._chunks, name)

    def _saw(self, chunk: Any) -> Any:
        self._seen.append(chunk)
        call = self._call.call
        if call.first_token_at is None and speaks(chunk):
            self._call.first_token()
        return chunk

    def _end(self, error: BaseException | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        call = self._call
        call.call.streamed = True
        try:
            if error is None or self._seen:
                # Where nothing came, nothing is known to have been used.
                call.finish(self._seen, error=error, estimated=error is not None)
            else:
                call.finish(None, error=error)
        except Exception as failure:
            call._meter.plugins.failed("stream", "finish", failure)

    def left(self, error: BaseException | None) -> None:
        """Nobody reads on. Who leaves after the last word, as many do, has left nothing."""
        if self._ended:
            return
        if error is None or isinstance(error, GeneratorExit):
            from .adapters.payloads import read

            model = self._call.call.model
            whole = not read(self._seen, model.provider if model else None).usage.missing
            error = None if whole else error or GeneratorExit("left before its end")
        self._end(error)

    def __del__(self) -> None:
        if "_ended" not in self.__dict__ or self._ended:
            return
        try:
            self.left(None)
        except Exception as failure:  # nobody could catch it here; at the end of the process imports fail
            self._call._meter.plugins.failed("stream", "dropped", failure)


class Stream(Streamed):
    """An iterator of chunks."""

    def __init__(self, call: LlmHandle, chunks: Any) -> None:
        super().__init__(call, chunks)
        self._items = iter(chunks)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            chunk = next(self._items)
        except StopIteration:
            self._end()
            raise
        except BaseException as error:
            self._end(error)
            raise
        return self._saw(chunk)

    def close(self) -> None:
        """Stop reading, and close what is read."""
        try:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()
        finally:
            self.left(None)

    def __enter__(self) -> Self:
        enter = getattr(self._chunks, "__enter__", None)
        if enter is not None:
            enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        try:
            leave = getattr(self._chunks, "__exit__", None)
            return leave(kind, error, trace) if leave is not None else None
        finally:
            self.left(error)


class AsyncStream(Streamed):
    """An async iterator of chunks."""

    def __init__(self, call: LlmHandle, chunks: Any) -> None:
        super().__init__(call, chunks)
        self._items = aiter(chunks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            chunk = await anext(self._items)
        except StopAsyncIteration:
            self._end()
            raise
        except BaseException as error:
            self._end(error)
            raise
        return self._saw(chunk)

    async def aclose(self) -> None:
        """Stop reading, and close what is read."""
        try:
            close = getattr(self._chunks, "aclose", None) or getattr(self._chunks, "close", None)
            if close is not None:
                await close()
        finally:
            self.left(None)

    close = aclose

    async def __aenter__(self) -> Self:
        enter = getattr(self._chunks, "__aenter__", None)
        if enter is not None:
            await enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        try:
            leave = getattr(self._chunks, "__aexit__", None)
            return await leave(kind, error, trace) if leave is not None else None
        finally:
            self.left(error)


def speaks(chunk: Any) -> bool:
    """Whether there is a token in it: many streams begin with a chunk that only says who answers."""
    from .adapters.payloads.fields import fields, items

    event = fields(chunk)
    kind = event.get("type")
    if isinstance(kind, str):
        return kind not in _SILENT
    choices = event.get("choices")
    if choices is None:
        return True
    for choice in items(choices):
        c = fields(choice)
        delta = fields(c.get("delta"))
        words = ("content", "tool_calls", "reasoning_content", "reasoning", "refusal", "function_call", "audio")
        if c.get("text") or any(delta.get(word) for word in words):
            return True
    return False

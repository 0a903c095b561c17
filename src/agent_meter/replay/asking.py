"""One attempt to get an answer from the model itself: opened, listened to, ended, and kept if it is an answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..handles import LlmHandle
from ..records import TokenUsage, UsageRecord
from ..streaming import speaks
from .entries import ASYNC, SYNC, Entry, copied
from .listening import Heard, attach, listen

if TYPE_CHECKING:
    from .functions import Question


def stream_kind(answer: Any) -> str:
    """Whether an answer comes piece by piece, and how it is read; empty for one that is there."""
    kind = type(answer)
    return SYNC if hasattr(kind, "__next__") else ASYNC if hasattr(kind, "__anext__") else ""


class Attempt:
    """The call to the model, and what is recorded while it lasts. A function that meters itself has no call of ours."""

    def __init__(self, question: Question) -> None:
        self._question = question
        attach(question.meter)
        self._call = question.call()
        self._heard = Heard(question.meter)
        if self._call is not None:
            with self.listening():  # a denial is heard too
                self._call.__enter__()

    def listening(self) -> listen:
        return listen(self._question.meter, self._heard)

    def failed(self, error: BaseException) -> None:
        if self._call is not None:
            with self.listening():
                self._call.__exit__(type(error), error, error.__traceback__)

    def ended(self, answer: Any) -> Entry | None:
        """The answer is here: what to keep of it, if it is one."""
        if self._call is not None:
            with self.listening():
                finish(self._call, answer)
        return self._question.entry(answer, self._heard)

    def streaming(self, stream: Any) -> Any:
        """The answer is on its way: what to hand out in its place."""
        if self._call is not None:
            self._call.call.streamed = True
            self._question.meter.detach(self._call.call)
        return (Pieces if stream_kind(stream) == SYNC else AsyncPieces)(self, stream)

    def streamed(self, pieces: list[Any], kind: str, end: Any = None) -> None:
        """It was read to its end; `end` is what a generator returned."""
        if self._call is not None:
            with self.listening():
                finish(self._call, pieces if used(end) is None else end)
        if not _was_cut(pieces):
            entry = self._question.entry(pieces, self._heard, kind)
            if entry is not None:
                self._question.store(entry)

    def left(self, pieces: list[Any], error: BaseException | None) -> None:
        """Nobody reads on, or it broke: what was seen is a lower bound, unless the last word was."""
        call = self._call
        if call is None:
            return
        if error is None and (not pieces or _is_text(pieces) or _missing(pieces, call)):
            error = GeneratorExit("left before its end")
        with self.listening():
            finish(call, pieces or None, error=error, estimated=error is not None and bool(pieces))

    def piece(self, piece: Any) -> None:
        if self._call is not None and self._call.call.first_token_at is None and speaks(piece):
            self._call.first_token()


def finish(call: LlmHandle, answer: Any, **options: Any) -> None:
    """End a call with its answer: an SDK's object, a JSON body, its pieces, or a pair of anything and its usage."""
    usage = used(answer)
    # Text is an answer and not a provider's message, whatever it looks like.
    told = usage is not None or isinstance(answer, str) or _is_text(answer)
    call.finish(usage if told else answer, **options)


def used(answer: Any) -> TokenUsage | None:
    """The usage that a function hands out with its answer: (answer, `TokenUsage` or `UsageRecord`), or a last piece."""
    if type(answer) is list and answer:
        answer = answer[-1]
    if type(answer) is tuple and len(answer) == 2:
        answer = answer[1]
    if isinstance(answer, UsageRecord):
        return answer.usage
    return answer if isinstance(answer, TokenUsage) else None


def _is_text(pieces: Any) -> bool:
    return type(pieces) is list and bool(pieces) and isinstance(pieces[0], str)


def _missing(pieces: list[Any], call: LlmHandle) -> bool:
    usage = used(pieces)
    if usage is None:
        from ..adapters.payloads import read

        usage = read(pieces, call.call.model.provider if call.call.model else None).usage
    return bool(usage.missing)


def _was_cut(pieces: list[Any]) -> bool:
    """A provider's stream that ended before its last event."""
    if not pieces or _is_text(pieces) or used(pieces) is not None:
        return False
    from ..adapters.payloads.fields import CUT
    from ..adapters.payloads.streams import fold

    try:
        return bool(fold(pieces).get(CUT))
    except Exception:
        return True


# --------------------------------------------------------------------------------------------- piece by piece


class _Pieces:
    """A stream that is handed on as it comes and kept when it was read to its end."""

    kind = ""

    def __init__(self, attempt: Attempt, stream: Any) -> None:
        self._attempt = attempt
        self._stream = stream
        self._pieces: list[Any] = []
        self._open = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _came(self, piece: Any) -> Any:
        self._attempt.piece(piece)
        try:
            self._pieces.append(copied(piece))
        except Exception:
            self._pieces.append(piece)  # `entry` will say that it cannot be kept
        return piece

    def _ended(self, end: Any = None) -> None:
        if self._open:
            self._open = False
            self._attempt.streamed(self._pieces, self.kind, end)

    def _left(self, error: BaseException | None = None) -> None:
        if self._open:
            self._open = False
            self._attempt.left(self._pieces, error)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be on its way out
            self._left()


class Pieces(_Pieces):
    kind = SYNC

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            with self._attempt.listening():
                piece = next(self._stream)
        except StopIteration as end:
            self._ended(end.value)
            raise
        except BaseException as error:
            self._left(error)
            raise
        return self._came(piece)

    def close(self) -> None:
        """Read no further."""
        self._left()
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncPieces(_Pieces):
    kind = ASYNC

    def __aiter__(self) -> AsyncPieces:
        return self

    async def __anext__(self) -> Any:
        try:
            with self._attempt.listening():
                piece = await anext(self._stream)
        except StopAsyncIteration:
            self._ended()
            raise
        except BaseException as error:
            self._left(error)
            raise
        return self._came(piece)

    async def aclose(self) -> None:
        """Read no further."""
        self._left()
        close = getattr(self._stream, "aclose", None) or getattr(self._stream, "close", None)
        if close is not None:
            await close()

    close = aclose

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Again:
    """A stream that was kept, given again: all of its pieces are there at once."""

    def __init__(self, pieces: list[Any]) -> None:
        self._pieces = iter(pieces)

    def __iter__(self) -> Again:
        return self

    def __next__(self) -> Any:
        return next(self._pieces)

    def __aiter__(self) -> Again:
        return self

    async def __anext__(self) -> Any:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pieces = iter(())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pieces = iter(())

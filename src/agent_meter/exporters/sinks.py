"""What every format has in common: a sink is given one record after another, and closed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Self

import msgspec

from ..records import Record

Beside = Callable[[str], AbstractContextManager[BinaryIO]]  # opens a file beside the one that is written


class Sink:
    """Writes records to a file that others can read. Its memory does not grow with the number of records.

    A context manager: a block that ends well closes it. The file itself is closed by whoever opened it.
    """

    skipped = 0  # records that the format has no place for

    def write(self, record: Record) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Write what has to come last."""

    def discard(self, error: BaseException) -> None:
        """Let go of everything: nobody will read the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
        else:
            self.discard(error)


json_bytes = msgspec.json.Encoder().encode


def require(module: str, extra: str, what: str) -> Any:
    """An optional dependency. `ImportError` says how to install it."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} needs {module.partition('.')[0]}: pip install 'agent-meter[{extra}]'") from error

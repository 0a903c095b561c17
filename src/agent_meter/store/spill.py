"""The file beside a store for records that it had no room for, until it is well again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

import msgspec

from ..encoding import from_document, to_document
from ..records import Record
from .writer import Item

_PIECE = 2_000  # records that are taken back at once


class Spill:
    """One document a line, appended whole, so that any number of processes can leave records in one file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def leave(self, items: Sequence[Item]) -> None:
        """Append records; `OSError` when there is no room here either. Does not wait for the disk."""
        lines = b"".join(msgspec.json.encode(to_document(item.record)) + b"\n" for item in items)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            size = os.fstat(file).st_size
            written = os.write(file, lines)
            if written < len(lines):  # a full disk takes what fits
                with contextlib.suppress(OSError):
                    os.ftruncate(file, size)
                raise OSError(f"{self.path}: only {written:,} of {len(lines):,} bytes could be written")
        finally:
            os.close(file)

    def take_back(self, store: Callable[[list[Item]], None]) -> int:
        """Give what was left to `store`, in whose hands it is safe; how many. What it raises leaves the file alone."""
        if not os.path.exists(self.path):
            return 0
        # Another process may append meanwhile, and may not find half of what it wrote gone.
        taken = f"{self.path}.{os.getpid()}"
        os.replace(self.path, taken)
        count = 0
        try:
            for piece in _pieces(taken):
                store([Item(record) for record in piece])  # a record that is stored already counts once
                count += len(piece)
        except BaseException:
            with open(taken, "rb") as left:
                rest = left.read()
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(file, "wb") as back:
                back.write(rest)
            os.unlink(taken)
            raise
        os.unlink(taken)
        return count


def _pieces(path: str) -> Iterator[list[Record]]:
    piece: list[Record] = []
    with open(path, "rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):  # torn by a power cut
                piece.append(from_document(msgspec.json.decode(line)))
            if len(piece) >= _PIECE:
                yield piece
                piece = []
    if piece:
        yield piece

"""Files that are either the old ones or the new ones, never half of one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from .records import new_id


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 exactly as it is (no newline translation), as `replacing` does it.

    A lone surrogate, which UTF-8 does not have, is written as its escape, `\\udc80`.
    """
    data = text.encode("utf-8", "backslashreplace")
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of the one at `path` when the block ends well; makes parent folders.

    The file is replaced in one step once the new content is on disk: whoever reads meanwhile sees the old
    content, and a block that fails leaves it as it was. A symbolic link stays one, an existing file keeps its
    permissions. Raises OSError.
    """
    target = os.path.realpath(path)
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        with open(target, "wb") as device:  # a pipe, /dev/stdout: nothing to replace
            yield device
        return
    folder = os.path.dirname(target)
    os.makedirs(folder, exist_ok=True)
    draft = os.path.join(folder, f".{new_id()}.tmp")
    try:
        with open(draft, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(draft, stat.S_IMODE(mode))
        os.replace(draft, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft)
        raise

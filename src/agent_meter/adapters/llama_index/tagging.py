"""`with tagged(user_id="u1", team="search"):` says whose calls LlamaIndex makes, in LlamaIndex's own tags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llama_index_instrumentation.dispatcher import active_instrument_tags


@contextmanager
def tagged(**tags: object) -> Iterator[None]:
    """Add tags to what runs inside; those of the blocks around stay.

    `instrument_tags`, LlamaIndex's own, replaces them. `user_id`, `session_id` and `agent` become the user, the session
    and the agent of the records, any other name a tag of its own. Every handler of LlamaIndex sees them; for our
    records alone, `meter.scope(...)` does the same.
    """
    token = active_instrument_tags.set({**active_instrument_tags.get(), **tags})
    try:
        yield
    finally:
        try:
            active_instrument_tags.reset(token)
        except ValueError:  # a generator that is closed in another context than it began in
            active_instrument_tags.set({k: v for k, v in active_instrument_tags.get().items() if k not in tags})

"""The corpus of recorded provider traffic, for tests. It is read where it lies and never copied.

`AGENT_METER_CORPUS` names its folder. Without it, tests of the corpus are skipped, except on a build server
(`CI=true`), where a check that quietly did not run would be worse than a red one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "AGENT_METER_CORPUS"


def corpus_dir() -> Path:
    """The folder of the corpus. Skips the test (or the module) that asks when there is none; fails it on CI."""
    named = os.environ.get(VARIABLE, "")
    folder = Path(named)
    if named and (folder / "conversations").is_dir():
        return folder
    wrong = f"{VARIABLE}={named} has no folder 'conversations'" if named else f"{VARIABLE} is not set"
    reason = f"{wrong}; set {VARIABLE} to the folder of recorded traffic (the one that holds replay_server.py)"
    if named or os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def conversations(*, api: str | None = None, provider: str | None = None) -> list[dict[str, Any]]:
    """The recorded conversations, by id; only those of a wire dialect or of a provider where one is named.

    The documents are shared between callers: read them, do not change them.
    """
    return [
        document
        for document in _load(corpus_dir())
        if api in (None, document["api"]) and provider in (None, document["provider"])
    ]


@functools.cache
def _load(folder: Path) -> tuple[dict[str, Any], ...]:
    files = sorted((folder / "conversations").glob("*.json"))
    return tuple(json.loads(file.read_text(encoding="utf-8")) for file in files)


@functools.cache
def _replay_module(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("recorded_replay_server", folder / "replay_server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def replay_server(**options: Any) -> Iterator[Any]:
    """A running `ReplayServer` of the whole corpus; `options` are those of its class (loop, delay, cut_after, …)."""
    documents = {document["id"]: document for document in conversations()}
    with _replay_module(corpus_dir()).ReplayServer(documents, **options) as server:
        yield server

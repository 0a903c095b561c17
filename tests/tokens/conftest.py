"""Every test of this room runs without a network: a connection that is tried fails the test."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_meter.tokens import bpe


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **_: object) -> None:
        pytest.fail(f"a network connection was tried: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture
def bundled() -> Path:
    """The folder of encodings that llama-index-core ships."""
    spec = importlib.util.find_spec("llama_index")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "core/_static/tiktoken_cache"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has loaded no encoding yet, and whose tiktoken has none either."""
    from tiktoken import registry

    monkeypatch.setattr(bpe, "_built", {})
    monkeypatch.setattr(registry, "ENCODINGS", {})


@pytest.fixture
def bare(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any encoding file, but for what a test puts into the returned cache folder."""
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(bpe, "_SHIPPED", ())
    return cache


@pytest.fixture
def corpus() -> Iterator[dict[str, Any]]:
    """The recorded conversations, one dict each."""
    folder = os.environ.get("AGENT_METER_CORPUS")
    if not folder:
        reason = "set AGENT_METER_CORPUS to the folder of recorded provider traffic"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    files = sorted(Path(folder, "conversations").glob("*.json"))
    assert files, f"no conversations in {folder}"
    return (json.loads(file.read_text(encoding="utf-8")) for file in files)

"""TokenCounter: what it counts, what it refuses, and what it says of itself."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import msgspec
import pluggy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agent_meter
from agent_meter.tokens import TokenCounter, counter_for


@pytest.mark.parametrize(
    ("encoding", "text", "tokens"),
    [
        # From OpenAI's cookbook, "How to count tokens with tiktoken".
        ("o200k_base", "antidisestablishmentarianism", 6),
        ("cl100k_base", "antidisestablishmentarianism", 6),
        ("o200k_base", "2 + 2 = 4", 7),
        ("cl100k_base", "2 + 2 = 4", 7),
        ("o200k_base", "お誕生日おめでとう", 8),
        ("cl100k_base", "お誕生日おめでとう", 9),
        ("o200k_base", "tiktoken is great!", 6),
        ("cl100k_base", "tiktoken is great!", 6),
    ],
)
def test_counts_are_the_published_ones(encoding: str, text: str, tokens: int) -> None:
    counter = TokenCounter(encoding)

    assert counter.count(text) == tokens
    assert (counter.exact, counter.error, counter.method) == (True, 0.0, f"tiktoken {encoding}")


def test_the_default_is_o200k_base() -> None:
    assert TokenCounter().encoding == "o200k_base"
    assert TokenCounter().count("お誕生日おめでとう") == 8


@pytest.mark.parametrize("text", ["<|endoftext|>", "<|im_start|>user", "<|fim_prefix|>"])
def test_special_tokens_in_a_text_are_text(text: str) -> None:
    for encoding in ("o200k_base", "cl100k_base"):
        assert TokenCounter(encoding).count(text) > 1


def test_nothing_counts_nothing() -> None:
    assert TokenCounter().count(None) == 0
    assert TokenCounter().count("") == 0


@pytest.mark.parametrize(
    "data", [b"hello", bytearray(b"hello"), memoryview(b"hello")], ids=["bytes", "bytearray", "view"]
)
def test_bytes_are_refused_with_a_word_of_help(data: object) -> None:
    with pytest.raises(TypeError, match=r"decode them first, e\.g\. data\.decode\('utf-8'\)"):
        TokenCounter().count(data)  # type: ignore[arg-type]


def test_what_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="takes a str, not list"):
        TokenCounter().count(["hello"])  # type: ignore[arg-type]


def test_an_unknown_encoding_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown encoding 'gpt-4o', known are cl100k_base, .*TokenCounter\(model='gpt-4o'\)"
    ):
        TokenCounter("gpt-4o")


@given(text=st.text(st.characters(), max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_text_counts_lone_surrogates_included(text: str) -> None:
    counted = TokenCounter().count(text)

    assert 0 < counted <= 4 * len(text) if text else counted == 0


@given(one=st.text(st.characters(), max_size=300), two=st.text(st.characters(), max_size=300))
@settings(max_examples=200, deadline=None)
def test_two_texts_apart_are_about_as_many_tokens_as_together(one: str, two: str) -> None:
    counter = TokenCounter()
    together, apart = counter.count(one + two), counter.count(one) + counter.count(two)

    # Where they meet at most a piece breaks differently; the rest is cut alike.
    assert abs(together - apart) <= 12


# ------------------------------------------------------------------------------------ without a tokenizer


def test_without_a_file_the_count_is_an_estimate_that_says_so(bare: Path) -> None:
    counter = TokenCounter(model="gpt-4o")

    assert not counter.exact
    assert counter.method == "characters by script (no o200k_base file on this machine)"
    assert counter.error == 0.3
    assert 9 <= counter.count("tiktoken is great, and so is counting without it.") <= 14
    assert list(bare.iterdir()) == []


def test_another_vendors_model_is_an_estimate_that_says_so() -> None:
    counter = TokenCounter(model="claude-sonnet-4-5")

    assert not counter.exact
    assert counter.method == "tiktoken o200k_base × 1.15, for claude models"
    assert counter.error == 0.2


def test_both_errors_add_up_when_neither_model_nor_file_is_known(bare: Path) -> None:
    counter = TokenCounter(model="claude-sonnet-4-5")

    assert counter.error == 0.36  # √(0.3² + 0.2²)
    assert counter.method.startswith("characters by script × 1.15, for claude models (")


def test_an_encoding_asked_for_by_name_is_counted_without_a_factor() -> None:
    text = "tiktoken is great! " * 20
    counter = TokenCounter("o200k_base", model="claude-sonnet-4-5")

    assert counter.count(text) == TokenCounter("o200k_base").count(text)
    assert not counter.exact
    assert TokenCounter("o200k_base", model="gpt-4o").exact
    assert not TokenCounter("cl100k_base", model="gpt-4o").exact


def test_a_download_happens_only_when_asked_for(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    asked: list[str] = []

    def get_encoding(name: str) -> tiktoken.Encoding:
        asked.append(name)
        return tiktoken.Encoding(
            name, pat_str=".", mergeable_ranks={bytes([b]): b for b in range(256)}, special_tokens={}
        )

    monkeypatch.setattr(tiktoken, "get_encoding", get_encoding)

    assert not TokenCounter("cl100k_base").exact
    assert asked == []
    assert TokenCounter("cl100k_base", download=True).count("abc") == 3
    assert asked == ["cl100k_base"]


def test_a_failed_download_leaves_an_estimate_that_says_so(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    def get_encoding(name: str) -> tiktoken.Encoding:
        raise ConnectionError("offline")

    monkeypatch.setattr(tiktoken, "get_encoding", get_encoding)
    counter = TokenCounter(download=True)

    assert counter.count("hello world") >= 2
    assert counter.method == "characters by script (o200k_base could not be downloaded (ConnectionError))"


CHILD = """
import socket, sys, time
sys.path[:0] = {path!r}
tried = []
def refuse(*args, **kwargs):
    tried.append(args)
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from agent_meter.tokens import TokenCounter
start = time.perf_counter()
counter = TokenCounter()
count = counter.count("hello world, this machine has no tokenizer file at all")
print(counter.exact, count, time.perf_counter() - start, tried)
"""


def test_a_process_without_any_file_estimates_at_once_and_tries_no_connection(tmp_path: Path) -> None:
    import tiktoken

    # -S and -I: nothing but the standard library, and what is linked here, can be imported.
    site = tmp_path / "site"
    site.mkdir()
    for module in (msgspec, pluggy, tiktoken):
        assert module.__file__ is not None
        folder = Path(module.__file__).parent
        (site / folder.name).symlink_to(folder)
    (site / "tiktoken_ext").symlink_to(Path(tiktoken.__file__).parent.parent / "tiktoken_ext")
    empty = tmp_path / "empty"
    empty.mkdir()
    path = [str(site), str(Path(agent_meter.__file__).parent.parent)]
    environment = {**os.environ, "TIKTOKEN_CACHE_DIR": str(empty), "TMPDIR": str(empty)}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CHILD.format(path=path)],
        capture_output=True, text=True, check=True, env=environment, timeout=60,
    )  # fmt: skip
    exact, count, seconds, tried = done.stdout.split(maxsplit=3)

    assert (exact, tried.strip()) == ("False", "[]")
    assert 9 <= int(count) <= 15  # 11 by tiktoken
    assert float(seconds) < 1.0
    assert list(empty.iterdir()) == []


# ---------------------------------------------------------------------------------------------- housekeeping


def test_importing_the_room_imports_no_tokenizer() -> None:
    code = (
        "import sys, agent_meter.tokens\n"
        "heavy = ('tiktoken', 'requests', 'regex', 'json', 'tempfile', 'hashlib', 'base64', 'dataclasses')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    bare = subprocess.run(
        [sys.executable, "-I", "-c", code.replace("agent_meter.tokens", "agent_meter.records")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert not {"tiktoken", "requests", "regex"} & set(eval(done.stdout))
    assert set(eval(done.stdout)) == set(eval(bare.stdout))


def test_a_counter_travels_to_another_process_without_its_table() -> None:
    counter = TokenCounter(model="gpt-4o")
    counter.count("load")
    sent = pickle.dumps(counter)

    assert len(sent) < 500
    assert pickle.loads(sent).count("tiktoken is great!") == 6


def test_counters_are_shared_by_model_and_boundedly_many() -> None:
    counter_for.cache_clear()
    first = counter_for("gpt-4o")

    assert counter_for("gpt-4o") is first
    for number in range(1000):
        counter_for(f"model-{number}")
    assert counter_for.cache_info().currsize == 256


def test_its_repr_says_what_it_counts_with() -> None:
    assert repr(TokenCounter()) == "TokenCounter('o200k_base')"
    assert repr(TokenCounter(model="gpt-4")) == "TokenCounter('cl100k_base', model='gpt-4')"

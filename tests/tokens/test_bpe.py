"""Finding, checking and loading encodings, and counting in bounded pieces."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_meter.tokens import TokenCounter, bpe

SAMPLES = {
    "empty": "",
    "english": "It's a meter: exact tokens, exact cost, budgets that hold. We'll see what they've done!\n\n  Indented.",
    "code": "def add(a: int, b: int = 42) -> int:\n    return a + b  # why not?\n\n\n\tx = {'k': [1, 2.5e-3]}\n",
    "json": '{"id":"call_BPhRQvs8","arguments":{"x":2,"path":"/tmp/a_b/c.txt"},"ok":true}',
    "chinese": "机器学习是人工智能的一个分支，它使计算机能够从数据中学习。",
    "hindi": "मशीन लर्निंग कृत्रिम बुद्धिमत्ता की एक शाखा है।",
    "arabic": "التعلم الآلي هو فرع من الذكاء الاصطناعي.",
    "emoji": "👩‍👩‍👧‍👦 family 🎉🎉",
    "special": "<|endoftext|><|im_start|>system<|endofprompt|>",
    "decomposed": "e\u0301te\u0301 nai\u0308ve",
    "whitespace": " \t\n\r\n   \u00a0\u2003\n\n",
    "camel": "parseHTTPResponseBody2JSON_v10",
}


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
@pytest.mark.parametrize("sample", SAMPLES)
def test_the_encoding_we_build_is_tiktokens_own(
    name: str, sample: str, bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiktoken

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(bundled))
    theirs = tiktoken.get_encoding(name).encode_ordinary(SAMPLES[sample])
    monkeypatch.setattr(bpe, "_tiktokens_own", lambda _: None)
    ours, _ = bpe.load(name)

    assert ours is not None
    assert ours is not tiktoken.get_encoding(name)
    assert ours.encode_ordinary(SAMPLES[sample]) == theirs


@pytest.mark.parametrize("name", list(bpe.SOURCES))
def test_sources_name_the_files_and_hashes_that_tiktoken_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken_ext.openai_public as theirs

    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(theirs, "load_tiktoken_bpe", lambda url, expected_hash: seen.append((url, expected_hash)) or {})
    getattr(theirs, name)()

    assert seen == [(bpe.SOURCES[name].url, bpe.SOURCES[name].sha256)]


def test_the_bundled_files_are_found_without_importing_their_package(bundled: Path) -> None:
    code = (
        "import sys; from agent_meter.tokens import bpe\n"
        f"assert {str(bundled)!r} in list(bpe.directories())\n"
        "print([m for m in sys.modules if m.startswith(('llama_index', 'litellm', 'tiktoken', 'requests'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_users_own_cache_comes_first(bare: Path, bundled: Path) -> None:
    filename = bpe.SOURCES["cl100k_base"].filename
    shutil.copy(bundled / filename, bare / filename)

    assert TokenCounter("cl100k_base").exact
    assert next(iter(bpe.directories())) == str(bare)


@pytest.mark.parametrize("content", [b"", b"aGVsbG8= 0\n", b"\x00" * 4096], ids=["empty", "short", "zeros"])
def test_a_file_that_does_not_match_is_neither_used_nor_touched(bare: Path, content: bytes) -> None:
    file = bare / bpe.SOURCES["o200k_base"].filename
    file.write_bytes(content)
    counter = TokenCounter()

    assert not counter.exact
    assert counter.count("hello world") > 0
    assert file.read_bytes() == content
    assert "no o200k_base file" in counter.method


def test_a_file_that_does_not_match_does_not_hide_a_good_one(
    bare: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    filename = bpe.SOURCES["cl100k_base"].filename
    (bare / filename).write_bytes(b"broken")
    second = tmp_path / "second"
    second.mkdir()
    shutil.copy(bundled / filename, second / filename)
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(second))

    assert TokenCounter("cl100k_base").exact


def test_what_is_not_a_file_is_passed_over(bare: Path) -> None:
    (bare / bpe.SOURCES["o200k_base"].filename).mkdir()
    os.mkfifo(bare / bpe.SOURCES["cl100k_base"].filename)  # opening it would wait for a writer for ever

    assert not TokenCounter("o200k_base").exact
    assert not TokenCounter("cl100k_base").exact


def test_loading_leaves_the_environment_as_it_was(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    before = dict(os.environ)
    TokenCounter().count("hello")

    assert dict(os.environ) == before


def test_loading_does_not_wait_for_tiktokens_lock(fresh: None) -> None:
    from tiktoken import registry

    done: list[int] = []
    with registry._lock:
        # tiktoken holds this lock for as long as a download hangs.
        worker = threading.Thread(target=lambda: done.append(TokenCounter().count("hello world")), daemon=True)
        worker.start()
        worker.join(timeout=20)

    assert done == [2]


def test_an_encoding_is_built_once_however_many_threads_ask(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    real = bpe._build

    def build(name: str, data: bytes) -> object:
        built.append(name)
        time.sleep(0.05)
        return real(name, data)

    monkeypatch.setattr(bpe, "_build", build)
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(TokenCounter("cl100k_base").count("hello world")))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert built == ["cl100k_base"]
    assert counts == [2] * 16


def test_what_the_program_has_loaded_through_tiktoken_is_shared(
    fresh: None, bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiktoken

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(bundled))
    theirs = tiktoken.get_encoding("cl100k_base")

    assert bpe.load("cl100k_base") == (theirs, "")


def test_harmony_shares_the_table_of_o200k(fresh: None) -> None:
    assert bpe.load("o200k_harmony")[0] is bpe.load("o200k_base")[0]


def test_without_tiktoken_there_is_an_estimate(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    counter = TokenCounter()

    assert not counter.exact
    assert "tiktoken cannot be used" in counter.method
    assert counter.count("hello world") >= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_child_forked_during_a_load_does_not_wait_for_its_parents_lock(fresh: None) -> None:
    with bpe._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if TokenCounter().count("hello world") == 2 else 1)
        deadline = time.monotonic() + 30
        status: tuple[int, int] = (0, 0)
        while status[0] == 0 and time.monotonic() < deadline:
            status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.02)
        if status[0] == 0:
            os.kill(child, 9)
            os.waitpid(child, 0)

    assert status == (child, 0)


# ---------------------------------------------------------------------------------------------- in pieces

ODD = "the It's don't x2 3.14159 2024-01-02 機械学習 학습 привет हिन्दी 🙂 f.g(h) {\"k\": [1,2] a_b // / ' ， 。 !? ²3"
WORDS = st.sampled_from([*ODD.split(), "\n", "\n\n", "  ", "\t", "\r\n", ""])


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
@given(words=st.lists(WORDS, min_size=120, max_size=700))
@settings(max_examples=60, deadline=None)
def test_text_with_spaces_counts_in_pieces_exactly_as_whole(name: str, words: list[str]) -> None:
    encoding, _ = bpe.load(name)
    assert encoding is not None
    text = " ".join(words)

    assert bpe.count(encoding.encode_ordinary, text) == len(encoding.encode_ordinary(text))


def test_python_source_and_prose_count_in_pieces_exactly_as_whole() -> None:
    encoding, _ = bpe.load("o200k_base")
    assert encoding is not None
    # `unicodedata`-like tables may hold runs without any boundary; plain modules do not.
    for module in ("argparse", "http.client", "asyncio.base_events", "typing"):
        file = importlib.import_module(module).__file__
        assert file is not None
        text = Path(file).read_text(encoding="utf-8")

        assert bpe.count(encoding.encode_ordinary, text) == len(encoding.encode_ordinary(text))


ALPHABETS = [
    "a",
    "ab",
    "etaoinshrdlu",
    "aA",
    "^~=",
    " ",
    " \n\t",
    "0123456789",
    "中文机器学习",
    "กขคงจฉ",
    "🙂🎉",
    "e\u0301",
    "\ud83d\udc69",
]


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
@given(alphabet=st.sampled_from(ALPHABETS), length=st.integers(130, 3000), random=st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_a_forced_cut_moves_the_count_by_at_most_four(name: str, alphabet: str, length: int, random) -> None:  # type: ignore[no-untyped-def]
    encoding, _ = bpe.load(name)
    assert encoding is not None
    text = "".join(random.choices(alphabet, k=length))
    cuts = length // (512 if text.isascii() else 128)
    whole = len(encoding.encode_ordinary(text))

    assert abs(bpe.count(encoding.encode_ordinary, text) - whole) <= 4 * cuts


MEGABYTES = {
    "one letter": "a" * 5_000_000,
    "spaces": " " * 5_000_000,
    "newlines": "\n" * 5_000_000,
    "one sign": "^" * 5_000_000,
    "digits": "7" * 5_000_000,
    "letters": "qzxjkvbp" * 625_000,
    "one ideograph": "中" * 1_666_666,
    "emoji": "🙂" * 1_250_000,
    "accents": ("e" + "\u0301" * 999) * 2_500,
    "lone surrogates": "\ud83d" * 1_666_666,
}


@pytest.fixture(scope="module")
def prose_seconds() -> float:
    """Processor seconds that five megabytes of ordinary prose take: how slow this machine is now."""
    counter = TokenCounter()
    counter.count("load")
    before = time.process_time()
    counter.count("The committee will meet again on Thursday, to discuss 17 results.\n" * 75_000)
    return time.process_time() - before


@pytest.mark.parametrize("what", MEGABYTES)
def test_five_megabytes_of_anything_count_within_two_seconds(what: str, prose_seconds: float) -> None:
    counter = TokenCounter()
    before = time.process_time()
    counted = counter.count(MEGABYTES[what])
    spent = time.process_time() - before

    # Or, where two seconds are short because the machine is slow or busy, not much longer than prose takes.
    assert spent < max(2.0, 6 * prose_seconds)
    assert counted > 10_000

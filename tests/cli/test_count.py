"""`agent-meter count`: tokens of a text, and how sure that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_meter.tokens import TokenCounter, bpe

from .conftest import Invoke, Run

TEXT = "tiktoken is great! 机器学习 <|endoftext|>\n" * 40


@pytest.mark.parametrize("model", ["", "gpt-4o", "gpt-4", "claude-sonnet-4-5", "gemini-2.5-pro", "anything-else"])
def test_the_count_is_the_token_counters(model: str, invoke: Invoke, folder: Path) -> None:
    (folder / "text.md").write_text(TEXT, encoding="utf-8")
    counter = TokenCounter(model=model or None)

    result = invoke("count", "text.md", "--json", *(["--model", model] if model else []))

    assert json.loads(result.stdout) == {
        "tokens": counter.count(TEXT),
        "exact": counter.exact,
        "error": counter.error,
        "method": counter.method,
        "encoding": counter.encoding,
        "model": model or None,
        "characters": len(TEXT),
    }


def test_the_installed_command_counts_its_standard_input(run: Run) -> None:
    for typed in (("count",), ("count", "-")):
        result = run(*typed, "--model", "gpt-4o", input="tiktoken is great!")

        assert (result.stdout, result.stderr, result.returncode) == ("6 tokens, exact (tiktoken o200k_base)\n", "", 0)


@pytest.mark.parametrize(
    ("text", "model", "answer"),
    [
        ("tiktoken is great!", "claude-sonnet-4-5",
         "7 tokens, estimated, mostly within 20% (tiktoken o200k_base × 1.15, for claude models)\n"),
        ("a", "gpt-4o", "1 token, exact (tiktoken o200k_base)\n"),
        ("", "gpt-4o", "0 tokens, exact (tiktoken o200k_base)\n"),
        ("word " * 20_000, "gpt-4o", "20,001 tokens, exact (tiktoken o200k_base)\n"),
    ],
)  # fmt: skip
def test_the_answer_is_a_line_for_people(text: str, model: str, answer: str, invoke: Invoke) -> None:
    assert invoke("count", "-", "--model", model, input=text).output == answer


def test_a_byte_order_mark_is_not_a_token(invoke: Invoke) -> None:
    marked, bare = (
        invoke("count", "--model", "gpt-4o", input=data).output for data in (b"\xef\xbb\xbfhello", b"hello")
    )  # fmt: skip

    assert marked == bare


def test_what_is_no_text_is_refused_with_the_byte_that_says_so(invoke: Invoke, folder: Path) -> None:
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n")

    result = invoke("count", "picture.png")

    assert (result.exit_code, result.output) == (
        1,
        "picture.png is not a text in UTF-8: byte 0x89 at position 0.\n",
    )


def test_a_file_that_is_not_there_is_a_usage_error_that_names_the_nearest(invoke: Invoke) -> None:
    result = invoke("count", "price.toml")

    assert result.exit_code == 2
    assert "no file 'price.toml'; did you mean 'prices.toml'?" in result.output


def test_without_the_tokenizers_file_the_estimate_says_why(
    invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpe, "_built", {})
    monkeypatch.setattr(bpe, "_SHIPPED", ())
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))

    result = invoke("count", "--model", "gpt-4o", input="tiktoken is great!")

    assert result.exit_code == 0
    assert "estimated, mostly within 30% (characters by script (no o200k_base file" in result.output

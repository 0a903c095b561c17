"""Which tokenizer and which chat template a model name stands for.

Each row was fitted to recorded provider traffic: `factor` to the text of long answers and prompts,
`request` and `message` to what the provider counted above the text. docs/explanation/tokens.md has the figures.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Family(NamedTuple):
    """How models of one kind count.

    `encoding` is the model's own when `exact`, else the nearest that is public, and text is its count times
    `factor`. `request` is added once to a request, `message` for each message (its role included),
    `tool_call` for each tool call with its result, `tools` when any tool is declared. `error` is the relative
    error that nine of ten counts stay within, given the encoding; where fewer than five recorded calls back
    it, it is a cautious guess.
    """

    name: str
    encoding: str = "o200k_base"
    exact: bool = False
    factor: float = 1.0
    request: int = 3
    message: int = 4
    tool_call: int = 7
    tools: int = 0
    error: float = 0.25


O200K = "o200k_base"
OPENAI = Family("openai", O200K, exact=True, error=0.0)
OPENAI_CL100K = Family("openai", "cl100k_base", exact=True, error=0.0)
# From gpt-5 on, requests count one token less than the documented formula, and a tool call six more.
OPENAI_5 = Family("openai", O200K, exact=True, request=2, tool_call=13, error=0.0)
OPENAI_UNKNOWN = Family("openai", O200K, request=2, tool_call=13, error=0.1)
# The harmony template puts a system message of its own before every request.
GPT_OSS = Family("gpt-oss", "o200k_harmony", exact=True, request=62, message=5, error=0.0)
CLAUDE = Family("claude", factor=1.15, request=3, tool_call=40, tools=350, error=0.2)
# The tokenizer that came with Opus 4.7 cuts the same text into about a quarter more pieces.
CLAUDE_NEW = Family("claude", factor=1.4, request=3, tool_call=40, tools=350, error=0.25)
GEMINI = Family("gemini", factor=1.08, request=0, message=0, tool_call=4, error=0.15)
LLAMA_3 = Family("llama", factor=1.02, request=31, message=4)
LLAMA = Family("llama", factor=1.02, request=6, message=4)
LLAMA_2 = Family("llama", factor=1.3, request=3, message=4, error=0.3)
MISTRAL = Family("mistral", factor=1.01, request=2, message=1)
MISTRAL_SMALL = MISTRAL._replace(request=14)
MISTRAL_OLD = Family("mistral", factor=1.3, request=2, message=1, error=0.3)
COHERE = Family("cohere", factor=1.05, request=22, message=4)
QWEN = Family("qwen", factor=1.01, request=5, message=5)
DEEPSEEK = Family("deepseek", factor=1.1, request=2, message=2)
NOVA = Family("nova", factor=1.06, request=42, message=4)
GROK = Family("grok", request=185, message=7)
SONAR = Family("sonar", request=0, message=1)
OTHER = Family("other", factor=1.1)

# In order: the first word that the model's own name contains decides, so gpt-4o stands before gpt-4.
_OPENAI: tuple[tuple[str, Family], ...] = (
    ("gpt-oss", GPT_OSS),
    ("gpt-4o", OPENAI),
    ("gpt-4.1", OPENAI),
    ("gpt-4.5", OPENAI),
    ("gpt-41", OPENAI),  # Azure deployment names may not contain dots
    ("gpt-5", OPENAI_5),
    ("codex", OPENAI_5),
    ("computer-use", OPENAI),
    ("gpt-audio", OPENAI),
    ("gpt-realtime", OPENAI),
    ("gpt-4", OPENAI_CL100K),
    ("gpt-3.5", OPENAI_CL100K),
    ("gpt-35", OPENAI_CL100K),
    ("text-embedding-3", OPENAI_CL100K),
    ("text-embedding-ada", OPENAI_CL100K),
    ("davinci-002", OPENAI_CL100K),
    ("babbage-002", OPENAI_CL100K),
    ("gpt-", OPENAI_UNKNOWN),
)

_OTHERS: tuple[tuple[tuple[str, ...], Family], ...] = (
    (("claude-opus-4-7", "claude-opus-4-8", "claude-opus-4.7", "claude-opus-4.8"), CLAUDE_NEW),
    (("claude-opus-5", "claude-sonnet-5", "claude-haiku-5", "claude-fable"), CLAUDE_NEW),
    (("claude",), CLAUDE),
    (("gemini", "gemma", "palm", "bison"), GEMINI),
    (("mistral-7b", "mixtral", "open-mistral"), MISTRAL_OLD),
    (("mistral-small",), MISTRAL_SMALL),
    (("mistral", "ministral", "magistral", "codestral", "devstral", "pixtral", "voxtral"), MISTRAL),
    (("qwen", "qwq"), QWEN),
    (("llama-2", "llama2", "codellama"), LLAMA_2),
    (("llama-3.1", "llama-3.2", "llama-3.3", "llama3.1", "llama3.2", "llama3.3", "llama3-1", "llama3-2"), LLAMA_3),
    (("llama-v3p1", "llama-v3p2", "llama-v3p3", "llama3-3"), LLAMA_3),
    (("llama",), LLAMA),
    (("command", "cohere", "aya-"), COHERE),
    (("deepseek",), DEEPSEEK),
    (("nova-",), NOVA),
    (("grok-4",), GROK),
    (("sonar",), SONAR),
)


def own_name(model: str) -> str:
    """The model's name without routing prefixes, in lower case: `Azure/GPT-4o` and `ft:gpt-4o:acme` → gpt-4o…"""
    name = model.strip().lower().rsplit("/", 1)[-1]
    return name.removeprefix("ft:").removeprefix("openai.")


@lru_cache(maxsize=1024)
def family_of(model: str) -> Family:
    """The row for a model; never raises, an unknown name gets a middling estimate."""
    name = own_name(model)
    if name[:2] in ("o1", "o3", "o4") and name[2:3] in ("", "-", "_", ":", "@", "."):
        return OPENAI
    for word, family in _OPENAI:
        if word in name:
            return family
    whole = model.lower()
    for words, family in _OTHERS:
        if any(word in whole for word in words):
            return family
    return OTHER

"""Tokens before the provider has counted them: exact with a tokenizer file, an honest estimate without.

    TokenCounter(model="gpt-4o").count_messages(messages)     # exact where the encoding's file is at hand
    estimate_tokens(text, model="claude-sonnet-4-5")          # microseconds, loads nothing

Nothing here opens a network connection unless a `TokenCounter` was made with `download=True`.
"""

from __future__ import annotations

from .counter import TokenCounter, counter_for
from .estimate import estimate_tokens
from .prompts import estimate_prompt

__all__ = ["TokenCounter", "counter_for", "estimate_prompt", "estimate_tokens"]

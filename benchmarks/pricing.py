"""What it costs to price a call: warm and cold, beside genai-prices, LiteLLM and tokencost where they are installed.

Run `python benchmarks/pricing.py`. Figures are CPU time, the best of several rounds, so that a busy machine
changes them little. LiteLLM is kept from fetching its price map (`LITELLM_LOCAL_MODEL_COST_MAP=True`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

ROUNDS = 9
WARM_CALLS = 3000
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
TARGETS = {"warm": 5.0, "cold": 500.0}  # µs


class Row(NamedTuple):
    """`us` is CPU microseconds a call; `usd` what the call was said to cost, to see that the same was measured."""

    what: str
    who: str
    us: float | None
    usd: str = ""


def best(call: Callable[[], Any], calls: int = WARM_CALLS, rounds: int = ROUNDS) -> float:
    """CPU microseconds of one call, the best of several rounds."""
    found = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(calls):
            call()
        found = min(found, time.process_time() - start)
    return found / calls * 1e6


def cases() -> list[tuple[str, str, str, dict[str, int], dict[str, str]]]:
    """What is priced: a name, whose model, which, the counts by unit of genai-prices, and the request's context."""
    chat = {"input_tokens": 1200, "output_tokens": 350}
    cached = {**chat, "cache_read_tokens": 900}
    claude = {**cached, "cache_write_tokens": 200, "cache_write_1h_tokens": 50}
    seven = {**claude, "output_reasoning_tokens": 120, "web_searches": 2}
    return [
        ("2 units: gpt-4o", "openai", "gpt-4o", chat, {}),
        ("2 units, tier said: gpt-4o", "openai", "gpt-4o", chat, {"service_tier": "default"}),
        ("3 units: gpt-4o", "openai", "gpt-4o", cached, {}),
        ("5 units: claude-sonnet-4", "anthropic", "claude-sonnet-4-20250514", claude, {}),
        ("7 units: claude-sonnet-4", "anthropic", "claude-sonnet-4-20250514", seven, {}),
        ("3 units, by tier: gemini-2.5-pro", "google", "gemini-2.5-pro", cached, {}),
        ("3 units, by date and hour: deepseek-v4-pro", "deepseek", "deepseek-v4-pro", cached, {}),
    ]


def ours() -> list[Row]:
    from agent_meter.pricing import PriceBook
    from agent_meter.pricing.units import FIELD_UNITS
    from agent_meter.records import FrozenMap, Model, TokenUsage

    rows = []
    book = PriceBook(discover=False).preload()
    for what, provider, name, counts, context in cases():
        units = {unit: n for unit, n in counts.items() if unit not in FIELD_UNITS}
        usage = TokenUsage(*(counts.get(unit, 0) for unit in FIELD_UNITS), FrozenMap(units))  # type: ignore[arg-type]
        rates = book.find(Model(provider, name))
        said = FrozenMap(context)
        us = best(lambda rates=rates, usage=usage, said=said: rates.price(usage, AT, said))  # type: ignore[misc]
        rows.append(Row(what, "agent_meter", us, f"{rates.price(usage, AT, said).amount:f}"))
    seconds = TokenUsage(units=FrozenMap({"audio_seconds": Decimal("12.5")}))
    whisper = book.find(Model("groq", "whisper-large-v3"))
    price = best(lambda: whisper.price(seconds, AT))
    rows.append(Row("itemised: seconds of audio", "agent_meter", price, f"{whisper.price(seconds, AT).amount:f}"))
    model = Model("openai", "gpt-4o")
    rows.append(Row("find, warm", "agent_meter", best(lambda: book.find(model))))
    return rows + cold()


def cold() -> list[Row]:
    """A model's first lookup, price list already imported, over names of each kind; and a miss."""
    logging.getLogger("agent_meter").setLevel(logging.ERROR)
    from agent_meter.pricing import PriceBook
    from agent_meter.records import Model, TokenUsage

    names = [
        ("openai", "gpt-4o-2024-08-06"), ("anthropic", "claude-sonnet-4-5-20250929"), ("google", "gemini-2.5-pro"),
        ("groq", "llama-3.3-70b-versatile"), ("mistral", "mistral-small-latest"), ("azure", "gpt-4o"),
        ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"), ("deepseek", "deepseek-chat"), ("x-ai", "grok-4"),
        ("openrouter", "meta-llama/llama-3.3-70b-instruct"), ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("", "gpt-4o"), ("", "claude-3-opus"), ("openai", "no-such-model"),
    ]  # fmt: skip
    usage = TokenUsage(1200, 350)
    taken: dict[str, float] = {}
    for _ in range(ROUNDS):
        book = PriceBook(discover=False)
        for provider, name in names:
            model = Model(provider, name)
            start = time.process_time_ns()
            book.find(model).price(usage, AT)
            us = (time.process_time_ns() - start) / 1000
            key = f"{provider or 'no provider'}/{name}"
            taken[key] = min(us, taken.get(key, us))
    slowest = max(taken, key=lambda key: taken[key])
    middle = sorted(taken.values())[len(taken) // 2]
    return [
        Row("cold: find and price, median of 14 names", "agent_meter", middle),
        Row(f"cold: the slowest, {slowest}", "agent_meter", taken[slowest]),
    ]


def theirs_genai() -> list[Row]:
    import genai_prices

    rows = []
    for what, provider, name, counts, context in cases():
        usage = genai_prices.Usage(**counts)  # type: ignore[arg-type]

        def call(usage: Any = usage, name: str = name, provider: str = provider, context: Any = context) -> Any:
            return genai_prices.calc_price(
                usage, name, provider_id=provider, genai_request_timestamp=AT, price_context=context or None
            )

        rows.append(Row(what, "genai-prices", best(call, 300), f"{call().total_price:f}"))
    return rows


def theirs_litellm() -> list[Row]:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import litellm

    rows = []
    for what, provider, name, counts, context in cases():
        if context or counts.keys() - {
            "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"
        }:  # fmt: skip
            continue  # no argument for it

        def call(name: str = name, provider: str = provider, counts: dict[str, int] = counts) -> Any:
            return litellm.cost_per_token(
                model=name,
                custom_llm_provider="gemini" if provider == "google" else provider,
                prompt_tokens=counts["input_tokens"],
                completion_tokens=counts["output_tokens"],
                cache_read_input_tokens=counts.get("cache_read_tokens", 0),
            )

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                usd = sum(call())
                rows.append(Row(what, "litellm", best(call, 300), f"{usd:.10f}".rstrip("0")))
        except Exception as error:
            rows.append(Row(what, "litellm", None, type(error).__name__))
    return rows


def theirs_tokencost() -> list[Row]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import tokencost

    rows = []
    for what, _, name, counts, context in cases():
        if context or len(counts) > 2:
            continue  # it has no argument for cached tokens here

        def call(name: str = name, counts: dict[str, int] = counts) -> Any:
            return tokencost.calculate_cost_by_tokens(
                counts["input_tokens"], name, "input"
            ) + tokencost.calculate_cost_by_tokens(counts["output_tokens"], name, "output")

        rows.append(Row(what, "tokencost", best(call, 300), f"{call():f}"))
    return rows


def imports() -> list[Row]:
    """CPU milliseconds of an import in a fresh process (in the column of microseconds, times a thousand)."""
    found = []
    for module, who in (("agent_meter.pricing", "agent_meter"), ("genai_prices", "genai-prices"),
                        ("litellm", "litellm"), ("tokencost", "tokencost")):  # fmt: skip
        code = f"import time; t = time.process_time(); import {module}; print((time.process_time() - t) * 1e6)"
        env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        runs = [
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
            for _ in range(3)
        ]
        if all(run.returncode == 0 for run in runs):
            found.append(Row("import", who, min(float(run.stdout.split()[-1]) for run in runs)))
    return found


def table(rows: list[Row]) -> str:
    width = max(len(row.what) for row in rows)
    lines = [f"{'what':<{width}}  {'who':<12}  {'CPU µs':>12}  US$"]
    for row in rows:
        us = "-" if row.us is None else f"{row.us:,.2f}" if row.us < 1000 else f"{row.us:,.0f}"
        lines.append(f"{row.what:<{width}}  {row.who:<12}  {us:>12}  {row.usd}")
    return "\n".join(lines)


def main() -> list[Row]:
    """Measure, print the table, and return its rows."""
    rows = ours()
    for measure in (theirs_genai, theirs_litellm, theirs_tokencost):
        try:
            rows += measure()
        except ImportError as error:
            print(f"({error.name} is not installed)")
    rows += imports()
    order = {what: n for n, what in enumerate(dict.fromkeys(row.what for row in rows))}
    rows.sort(key=lambda row: order[row.what])
    print(table(rows))
    own = [row for row in rows if row.who == "agent_meter" and row.us is not None]
    warm = max(row.us for row in own if row.us is not None and row.what[0].isdigit())
    late = max(row.us for row in own if row.us is not None and row.what.startswith("cold"))
    print(f"\nwarm, 2 to 7 units: at most {warm:.2f} µs (target {TARGETS['warm']:.0f})")
    print(f"cold: at most {late:.0f} µs (target {TARGETS['cold']:.0f})")
    return rows


if __name__ == "__main__":
    main()

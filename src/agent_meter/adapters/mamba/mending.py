"""One thing in pydantic-ai that is mended, for where it breaks there is no usage to read, ours or its own.

pydantic-ai (seen in 1.39.1, which mamba-agents 0.1.7 needs) hands all that genai-prices finds in an answer to
`RequestUsage(**found)`. Since 0.2, genai-prices finds units that the class does not have, such as reasoning tokens;
the `TypeError` is passed over in silence, and the usage is empty. With or without agent_meter: pydantic-ai takes any
release of genai-prices.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

_PROBE = {
    "model": "gpt-4o",
    "usage": {
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "total_tokens": 2,
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}


def mend_usage() -> bool:
    """Let `RequestUsage.extract` pass over units that it does not know. True when that was needed and is done."""
    module = sys.modules.get("pydantic_ai.usage")
    usage: Any = getattr(module, "RequestUsage", None)
    if usage is None or not hasattr(usage, "extract") or hasattr(usage.extract, "_mended"):
        return False
    seen = usage.extract(_PROBE, provider="openai", provider_url="", provider_fallback="openai", api_flavor="chat")
    if seen.output_tokens:
        return False
    known = {field.name for field in dataclasses.fields(usage)}
    original = usage.extract.__func__

    def extract(cls: Any, data: Any, /, **about: Any) -> Any:
        found = original(cls, data, **about)
        if found.input_tokens or found.output_tokens:
            return found
        return _extract(cls, known, data, **about) or found

    extract._mended = True  # type: ignore[attr-defined]
    usage.extract = classmethod(extract)
    return True


def _extract(
    cls: Any,
    known: set[str],
    data: Any,
    *,
    provider: str,
    provider_url: str,
    provider_fallback: str,
    api_flavor: str = "default",
    details: dict[str, Any] | None = None,
) -> Any:
    """As pydantic-ai does it, less what the class does not have."""
    from genai_prices.data_snapshot import get_snapshot

    for name, url in ((None, provider_url), (provider, None), (provider_fallback, None)):
        try:
            _, extracted = get_snapshot().find_provider(None, name, url).extract_usage(data, api_flavor=api_flavor)
        except Exception:  # noqa: S112 - unknown here, or no such flavor: the next one
            continue
        units = {unit: count for unit, count in vars(extracted).items() if count is not None}
        more = dict(details or {})
        if reasoning := units.get("output_reasoning_tokens"):
            more.setdefault("reasoning_tokens", reasoning)
        return cls(**{unit: count for unit, count in units.items() if unit in known}, details=more)
    return None

"""From what a framework calls a model to an entry of the price list, or to the reason why there is none.

Only rewriting that keeps the meaning is silent (case, vendor prefixes, dates in another spelling). Where a rate
is taken from something that merely resembles the name, the answer carries a note, and the cost says estimated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ..records import Model
from .names import DIALECTS, LOCAL, base_name, local_tag, private, proprietary, provider_key

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

_PATHS = re.compile(r"^(?:projects/[^/]+/locations/[^/]+/)?(?:publishers/[^/]+/)?models/|^accounts/[^/]+/models/")
_REGIONS = "us|eu|apac|au|jp|ca|sa|global|us-gov"
_REGION = re.compile(rf"^(?:{_REGIONS})\.(?=[a-z0-9]+\.)")
_MAKERS = "anthropic|amazon|meta|mistral|cohere|ai21|deepseek|openai|qwen|stability|writer|twelvelabs|luma"
_BEDROCK = re.compile(rf"^(?:(?:{_REGIONS})\.)?(?:{_MAKERS})\.")
_MONTH, _DAY = "(?:0[1-9]|1[0-2])", r"(?:[0-2]\d|3[01])"
_DATED = re.compile(rf"[-@](?:20\d{{2}}-?{_MONTH}-?{_DAY}|{_MONTH}-{_DAY}-20\d{{2}}|{_MONTH}-?{_DAY}|2[3-9]{_MONTH})$")
# Who made a model, as model hubs write it: says nothing of who hosts it.
_MAKERS_PATHS = ("mistralai/", "deepseek-ai/", "google/", "meta/", "openai/", "amazon/")
_ROUTES = (":online", ":nitro", ":floor", ":exacto", ":extended", ":thinking", ":beta")


class Found(NamedTuple):
    """Whose a model is and the name to look it up by; its entry of the price list, or a sentence why there is none."""

    provider: str
    ref: str
    model: ModelInfo | None = None
    notes: tuple[str, ...] = ()  # what the match assumed
    reason: str = ""


def resolve(model: Model, providers: dict[str, Provider]) -> Found:
    """Who answers to a model's name, and what the price list calls it."""
    ref = undoubled(model.name.strip().lower())
    found = _resolve(model, ref, providers)
    return Found(model.provider, ref, reason=found) if isinstance(found, str) else found


def _resolve(model: Model, ref: str, providers: dict[str, Provider]) -> Found | str:
    if not ref:
        return "no model was named"
    hint = provider_key(model.provider)
    if ref.startswith("arn:") and "application-inference-profile" in ref:
        return "an application inference profile hides its model; say which with like = … in the price file"
    host = _by_endpoint(model.endpoint, providers)
    pid = host or _listed(hint, providers)
    notes: list[str] = []
    if host is None and hint in DIALECTS:
        head, rest = _prefixed(ref, providers)
        if head:
            if not hint and ref.startswith(_MAKERS_PATHS) and not proprietary(rest):
                notes.append(f"no provider named; {head} rates used")
            pid, ref = head, rest
    if pid is None and hint not in DIALECTS:
        if hint in LOCAL:
            return f"{model.name!r} is not on a machine of yours, and its price is not known"
        pid = _prefixed(ref, providers)[0] or _vendor(ref, providers) if proprietary(ref) else None
        if pid is None:
            return f"unknown provider {model.provider!r}"
        notes.append(f"provider {model.provider!r} is not in the price list; {pid} rates used")
    if pid is None:
        if local_tag(ref):
            return "looks like a local model; name its provider"
        pid = _vendor(ref, providers)
        if pid is None:
            return f"no provider named, and none is known for {model.name!r}"
        if not proprietary(ref) and not _BEDROCK.match(ref) and not ref.startswith("arn:"):
            notes.append(f"no provider named; {pid} rates used")
    found = _find(providers[pid], ref, providers, notes)
    if found is None and host is None and hint in DIALECTS:
        # A gateway that speaks OpenAI's dialect serves anybody's models.
        vendor = _vendor(ref, providers) if proprietary(ref) else None
        if vendor and vendor != pid:
            found = _find(providers[vendor], ref, providers, [f"not {pid}'s model; {vendor} rates used"])
    return found or Found(
        pid, [c for c, note in candidates(pid, ref) if not note][-1], reason=_missing(pid, ref, model)
    )


def undoubled(ref: str) -> str:
    """LangChain joins streamed metadata of several choices, so that a name arrives twice (langchain#38366)."""
    half, odd = divmod(len(ref), 2)
    return ref[:half] if half > 3 and not odd and ref[:half] == ref[half:] else ref


def _find(provider: Provider, ref: str, providers: dict[str, Provider], notes: list[str]) -> Found | None:
    everybody = list(providers.values())
    for candidate, note in candidates(provider.id, ref):
        model = provider.find_model(candidate, all_providers=everybody)
        if model is not None:
            return Found(provider.id, candidate, model, tuple([*notes, note] if note else notes))
    return None


def candidates(pid: str, ref: str) -> Iterator[tuple[str, str]]:
    """Spellings of a name to look up in turn, each with what it assumes (nothing: an empty note)."""
    yield ref, ""
    if pid == "openrouter":
        for route in _ROUTES:
            if ref.endswith(route):
                yield ref.removesuffix(route), f"the suffix {route} may change the price"
        return
    bare = ref
    if bare.startswith("arn:"):
        bare = bare.rsplit("/", 1)[-1]
        yield bare, ""
    stripped = _PATHS.sub("", bare)
    if stripped != bare:
        bare = stripped
        yield bare, ""
    if "@" in bare:
        head, _, tail = bare.partition("@")
        yield f"{head}-{tail}", ""
        bare = head
        yield bare, ""
    if "/" in bare:
        bare = bare.rsplit("/", 1)[-1]
        yield bare, ""
    if ":" in bare and not bare.startswith("ft:") and pid != "aws":
        head = bare.split(":", 1)[1] if provider_key(bare.split(":", 1)[0]) == pid else bare.split(":", 1)[0]
        yield head, "" if bare.endswith(":" + head) else f"{bare!r} priced as {head!r}"
    if pid == "aws" and bare.startswith("openai.") and ":" not in bare:
        yield f"{bare}-1:0", ""  # as Bedrock's OpenAI-compatible endpoint calls them
    region = _REGION.match(bare)
    if region:
        yield bare[region.end() :], f"no rates for the region prefix {region[0]!r}"
    dated = _DATED.search(bare)
    if dated and not bare.startswith("ft:"):
        yield bare[: dated.start()], f"{bare!r} is not in the price list; priced as {bare[: dated.start()]!r}"


def _missing(pid: str, ref: str, model: Model) -> str:
    if ref.startswith("ft:"):
        return f"fine-tuned {model.name!r} has no rate in the price list"
    if pid == "azure":
        return f"{model.name!r} is not in azure's price list; say which model a deployment is with like = …"
    return f"{model.name!r} is not in {pid}'s price list"


def _listed(hint: str, providers: dict[str, Provider]) -> str | None:
    if not hint or hint in LOCAL:
        return None
    for spelling in (hint, hint.replace("_", "-")):
        if spelling in providers:
            return spelling
    for pid, provider in providers.items():
        # Not `contains` matches: "azure.ai.openai" contains openai, "my-openai-proxy" is anybody's.
        if provider.provider_match is not None and hint.startswith(pid) and provider.provider_match.is_match(hint):
            return pid
    return None


def _by_endpoint(endpoint: str, providers: dict[str, Provider]) -> str | None:
    if not endpoint or private(endpoint):
        return None
    url = endpoint.strip() if "://" in endpoint else f"https://{endpoint.strip()}"
    for pid, provider in providers.items():
        if re.match(provider.api_pattern, url):
            return pid
    # Residency hosts: eu.api.openai.com, us.api.openai.com.
    if re.match(r"https://[a-z]{2}\.api\.openai\.com", url):
        return "openai"
    return None


def _prefixed(ref: str, providers: dict[str, Provider]) -> tuple[str | None, str]:
    """`provider/name` or `provider:name`, as LiteLLM, OpenRouter and LangChain's init_chat_model write it."""
    if ref.startswith(("ft:", "arn:", "models/", "publishers/", "projects/", "accounts/")):
        return None, ref
    for mark in ("/", ":"):
        head, found, rest = ref.partition(mark)
        if found and rest and "/" not in head:
            pid = _listed(provider_key(head), providers)
            if pid:
                return pid, rest
    return None, ref


def _vendor(ref: str, providers: dict[str, Provider]) -> str | None:
    """Whose model a name without a provider is."""
    ref = _PATHS.sub("", ref)
    if ref.startswith("arn:aws") or _BEDROCK.match(ref):
        return "aws"
    base = base_name(ref)
    if base.startswith(("ft:", "omni-moderation", "chatgpt")) or (
        base.startswith("text-embedding-") and base not in ("text-embedding-004", "text-embedding-005")
    ):
        return "openai"
    for pid, provider in providers.items():
        match = provider.model_match
        if match is not None and (match.is_match(ref) or match.is_match(base)):
            return pid
    return None

"""OpenAI's words, and those of everybody who speaks like it: chat, responses, completions, embeddings, images, audio.

`prompt_tokens` and `input_tokens` include what was cached, `completion_tokens` and `output_tokens` include
reasoning. Some vendors count a part outside (xAI its reasoning, Mistral its audio): their own `total_tokens`
says so, and decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from msgspec.structs import replace

from agent_meter.records import EMPTY, TokenUsage

from .fields import (
    MISSING_BOTH,
    MISSING_INPUT,
    MISSING_OUTPUT,
    UNKNOWN,
    Fields,
    Pass,
    Reading,
    Units,
    amount,
    context,
    fields,
    frozen,
    items,
    number,
    spent,
    text,
    tier,
)

# Where `total_tokens` is not given, these count reasoning beside the completion.
REASONING_OUTSIDE = frozenset({"xai", "x-ai", "x_ai", "perplexity"})
AUDIO_OUTSIDE = frozenset({"mistral", "mistralai", "mistral_ai"})

# A cache read in the words of DeepSeek, Together and Moonshot, gateways to Claude, Mistral.
CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens", "num_cached_tokens")

# Hosted tools with a fee: the items that the answer lists them as, and the unit that is billed.
FEES = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
    "image_generation_call": "image_generations",
}
XAI_FEES = {
    "web_search_calls": "web_searches",
    "x_search_calls": "social_searches",
    "code_interpreter_calls": "code_executions",
    "file_search_calls": "storage_searches",
    "document_search_calls": "document_searches",
    "image_generation_calls": "image_generations",
}


def chat_usage(u: Fields, provider: str = "", about: Mapping[str, str] = EMPTY, answers: bool = True) -> TokenUsage:
    """The usage of a chat or text completion; also of embeddings, which have no output (`answers` is False).

    `about` is the context that the answer around it tells.
    """
    get = u.get
    prompt, completion, total = (
        number(get("prompt_tokens")),
        number(get("completion_tokens")),
        number(get("total_tokens")),
    )
    read = write = hour = audio = image = reasoning = spoken = drawn = None
    detail = get("prompt_tokens_details") or get("prompt_token_details")
    if detail:
        d = detail.get if type(detail) is dict else fields(detail).get
        # Most details are not there, or zero: only what is there is worth a call.
        read, write = number(d("cached_tokens")), number(d("cache_write_tokens"))
        audio, image = (found := d("audio_tokens")) and number(found), (found := d("image_tokens")) and number(found)
        if write is None:
            write, hour = _other_writes(d)
    detail = get("completion_tokens_details")
    if detail:
        d = detail.get if type(detail) is dict else fields(detail).get
        reasoning = number(d("reasoning_tokens"))
        spoken, drawn = (found := d("audio_tokens")) and number(found), (found := d("image_tokens")) and number(found)
    if read is None:
        for name in CACHED:
            if (read := number(get(name))) is not None:
                break
    if write is None:
        write = number(get("cache_creation_input_tokens"))
    if not about and (service := text(get("service_tier"))):  # Mistral
        about = tier(service)
    if (size := text(get("search_context_size"))) is not None:
        about = context(**about, search_context_size=size)
    searches, served, sources, seconds = (
        get("num_search_queries"), get("server_tool_use"), get("num_sources_used"), get("prompt_audio_seconds"),
    )  # fmt: skip
    units: Units = EMPTY
    if searches or served or sources or seconds:
        units = frozen(
            {
                "web_searches": number(searches) or number(fields(served).get("web_search_requests")),
                "search_sources": number(sources),
                "input_audio_seconds": amount(seconds),
            }
        )
    if reasoning is None and (reasoning := number(get("reasoning_tokens"))):
        cited = number(get("citation_tokens")) or 0
        if completion is not None and (cited or searches or provider == "perplexity" or reasoning > completion):
            # Perplexity's completion and its total leave out both its thinking and what it cites.
            completion += cited + (reasoning if total is None or total <= (prompt or 0) + completion else 0)
            total = None if total is None else max(total, (prompt or 0) + completion)
            provider = ""
            units = frozen({**units, "output_citation_tokens": cited})
    return inclusive(
        prompt, completion, total, read or 0, write or 0, hour or 0, reasoning or 0, audio or 0, spoken or 0,
        image or 0, drawn or 0, units, about, spent(u), provider, answers,
    )  # fmt: skip


def _other_writes(d: Callable[[str], Any]) -> tuple[int | None, int | None]:
    """Cache writes, and those for an hour, as gateways to Anthropic's and Alibaba's models name them."""
    for name in ("cache_creation_input_tokens", "cache_creation_tokens"):
        if (write := number(d(name))) is not None:
            return write, number(fields(d("cache_creation")).get("ephemeral_1h_input_tokens"))
    return None, None


def responses_usage(
    u: Fields, provider: str = "", units: Units | None = None, about: Mapping[str, str] = EMPTY
) -> TokenUsage:
    """The usage of the Responses API, of images and transcriptions by token, and of realtime sessions."""
    get = u.get
    if units is None:
        units = hosted_fees((), u)
    i = fields(get("input_tokens_details") or get("input_token_details") or get("prompt_tokens_details")).get
    o = fields(get("output_tokens_details") or get("output_token_details")).get
    read = number(i("cached_tokens"))
    if read is None:
        read = number(i("cache_read_input_tokens"))
    cached = i("cached_tokens_details")
    if cached is not None:  # realtime
        c = fields(cached).get
        named = {f"cache_{kind}_read_tokens": number(c(f"{kind}_tokens")) for kind in ("audio", "image")}
        units = frozen({**units, **named})
    return inclusive(
        number(get("input_tokens")), number(get("output_tokens")), number(get("total_tokens")),
        read or 0, number(i("cache_write_tokens")) or 0, 0, number(o("reasoning_tokens")) or 0,
        number(i("audio_tokens")) or 0, number(o("audio_tokens")) or 0,
        number(i("image_tokens")) or 0, number(o("image_tokens")) or 0, units, about, spent(u), provider, True,
    )  # fmt: skip


def inclusive(
    prompt: int | None, completion: int | None, total: int | None, read: int, write: int, hour: int, reasoning: int,
    audio: int, spoken: int, image: int, drawn: int, units: Units, about: Mapping[str, str], cost: int | None,
    provider: str, answers: bool,
) -> TokenUsage:  # fmt: skip
    """Wholes that include their parts, unless the provider's own total shows that they do not."""
    missing: tuple[str, ...] = ()
    if prompt is None or completion is None:
        if not answers:
            completion = completion or 0
            if prompt is None:
                prompt = total
        elif total is not None:  # the other one is the rest
            if prompt is not None and total >= prompt:
                completion = total - prompt
            elif completion is not None and total >= completion:
                prompt = total - completion
        if prompt is None or completion is None:
            missing = (
                MISSING_OUTPUT if prompt is not None else MISSING_INPUT if completion is not None else MISSING_BOTH
            )
        prompt, completion = prompt or 0, completion or 0
    if total is None or provider == "perplexity":  # whose total leaves reasoning out, too
        if reasoning and provider in REASONING_OUTSIDE:
            completion += reasoning
        if audio and provider in AUDIO_OUTSIDE:
            prompt += audio
    elif not missing and (rest := total - prompt - completion) > 0:
        for inside, outside in (
            (0, reasoning), (audio, 0), (read + write, 0), (image, 0),
            (audio, reasoning), (read + write, reasoning), (image, reasoning),
        ):  # fmt: skip
            if inside + outside == rest:
                prompt, completion = prompt + inside, completion + outside
                break
        else:
            if provider in AUDIO_OUTSIDE:  # where the parts were not passed on
                prompt, audio = prompt + rest, audio + rest
            else:  # in no class at all: Gemini hides its thinking so, behind OpenAI's words
                missing = ("reasoning_tokens",)
    return TokenUsage(
        prompt, completion, read, write, hour, reasoning, audio, spoken, image, drawn, units, missing, about, cost
    )


# ------------------------------------------------------------------------------------------------ answers


def chat(body: Fields, provider: str) -> Reading:
    """A chat completion, a text completion, or what was folded from their chunks."""
    get = body.get
    u = get("usage")
    if u is None:
        u = fields(get("x_groq")).get("usage")
    service = get("service_tier")
    about = tier(service) if type(service) is str and service else EMPTY
    if u is None:
        usage = TokenUsage(missing=MISSING_BOTH, context=about)
    else:
        usage = chat_usage(u if type(u) is dict else fields(u), provider, about)
    choices = get("choices")
    return Reading(usage, text(get("model")), text(get("id")), chat_tools(choices) if choices else ())


def chat_tools(choices: object) -> tuple[str, ...]:
    """The names of the functions that the choices ask for."""
    names = []
    for choice in items(choices):
        message = fields(fields(choice).get("message"))
        for call in items(message.get("tool_calls")):
            c = fields(call)
            named = c.get("function") or c.get("custom")
            if name := text(fields(named).get("name")):
                names.append(name)
        old = message.get("function_call")
        if old is not None and (name := text(fields(old).get("name"))):
            names.append(name)
    return tuple(names)


def responses(body: Fields, provider: str) -> Reading:
    """An answer of the Responses API."""
    get = body.get
    output = items(get("output"))
    names = tuple(
        name
        for item in output
        if (f := fields(item)).get("type") in ("function_call", "custom_tool_call") and (name := text(f.get("name")))
    )
    u = get("usage")
    service = text(get("service_tier"))
    about = tier(service) if service else EMPTY
    tools = fields(get("tool_usage"))
    units = hosted_fees(output, fields(u), tools)
    if u is None:
        usage = TokenUsage(units=units, missing=MISSING_BOTH, context=about)
    else:
        usage = responses_usage(fields(u), provider, units, about)
    passes: tuple[Pass, ...] = ()
    drawn = tools.get("image_gen")
    if drawn is not None and (pictures := responses_usage(fields(drawn))).total_tokens:
        passes = (Pass("image_generation", "", pictures),)
        units = {name: count for name, count in units.items() if name != "image_generations"}
        usage = replace(usage, units=frozen({**units, "pass_tokens": pictures.total_tokens}))
    return Reading(usage, text(get("model")), text(get("id")), names, None, passes)


def hosted_fees(output: object, u: Fields = EMPTY, tool_usage: Fields = EMPTY) -> Units:
    """What the hosted tools of an answer are billed by, from its items or from LangChain's content blocks.

    Web search: each search, not the pages opened in it; the provider's own count wins. Code interpreter: each
    container, however often it ran.
    """
    used: dict[str, int | None] = {}
    told = u.get("server_side_tool_usage_details")
    if told is not None:  # xAI
        t = fields(told).get
        return frozen({unit: number(t(name)) for name, unit in XAI_FEES.items()})
    containers: set[str] = set()
    for item in items(output):
        f = fields(item)
        unit = FEES.get(kind) if isinstance(kind := f.get("type"), str) else None
        if unit is None:
            continue
        if unit == "web_searches" and fields(f.get("action")).get("type") in ("open_page", "find_in_page"):
            continue
        if unit == "code_executions" and (container := text(f.get("container_id"))):
            if container in containers:
                continue
            containers.add(container)
        used[unit] = (used.get(unit) or 0) + 1
    searched = number(fields(tool_usage.get("web_search")).get("num_requests"))
    if searched is None:
        searched = number(fields(fields(u.get("tool_calls_details")).get("search_web")).get("invocation"))
    if searched is not None:
        used["web_searches"] = searched
    return frozen(used) if used else EMPTY


def spoken_text(body: Fields) -> Reading:
    """A transcription that tells its duration and no usage: started seconds are billed."""
    seconds = amount(body.get("duration"))
    units = frozen({"input_audio_seconds": seconds if seconds is None else ceil(seconds)})
    return Reading(TokenUsage(units=units, missing=() if units else MISSING_BOTH))


def listing(body: Fields, provider: str) -> Reading:
    """Embeddings and reranks: a list of data, input only."""
    u = body.get("usage")
    if u is None:
        usage = TokenUsage(missing=MISSING_INPUT)
    else:
        f = fields(u)
        usage = chat_usage(f, provider, answers=False)
        if pixels := number(f.get("image_pixels")):  # Voyage
            usage = replace(usage, units=frozen({**usage.units, "input_pixels": pixels}))
    return Reading(usage, text(body.get("model")), text(body.get("id")))


def by_token_or_time(body: Fields, provider: str, f: Fields) -> Reading:
    """Transcriptions and images: billed by token, by the second, by the picture, or only in money (xAI)."""
    about = context(body.get("service_tier") or f.get("service_tier"))
    if (seconds := amount(f.get("seconds"))) is not None and f.get("input_tokens") is None:
        usage = TokenUsage(units=frozen({"input_audio_seconds": seconds}), context=about)
    elif f.get("input_tokens") is not None:
        usage = responses_usage(f, provider, about=about)
    elif f.get("prompt_tokens") is not None:
        usage = chat_usage(f, provider, about)
    else:
        pictures = len(items(body.get("data")))
        cost = spent(f)
        usage = TokenUsage(
            units=frozen({"images": pictures}),
            missing=() if pictures else UNKNOWN.missing,
            context=about,
            reported_pico=cost,
        )
    return Reading(usage, text(body.get("model")), text(body.get("id")))

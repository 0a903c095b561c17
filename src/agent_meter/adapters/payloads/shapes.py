"""Which dialect is it? Told by the names that an answer has; nobody's provider name is needed, or trusted."""

from __future__ import annotations

from msgspec.structs import replace

from agent_meter.records import FrozenMap, TokenUsage

from . import anthropic, google, openai, others, streams
from .fields import Fields, Pass, Reading, fields, items, number, text

# A usage object that came without its answer.
BARE = (
    "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "inputTokens", "promptTokenCount",
    "prompt_token_count", "total_input_tokens", "billed_units", "total_tokens",
)  # fmt: skip


def usage_of(u: Fields, provider: str = "") -> TokenUsage:
    """A bare usage object, in anybody's words."""
    has = u.get
    if has("prompt_tokens") is not None or has("completion_tokens") is not None:
        return openai.chat_usage(u, provider)
    if has("cache_read_input_tokens") is not None or has("cache_creation_input_tokens") is not None:
        return anthropic.usage_of(u)
    if has("input_tokens_details") is not None or has("input_token_details") is not None:
        return openai.responses_usage(u, provider)
    if has("inputTokens") is not None or has("outputTokens") is not None:
        return others.converse_usage(u)
    if has("tokens") is not None or has("billed_units") is not None:
        return others.cohere_usage(u)
    if has("total_input_tokens") is not None:
        return google.interaction_usage(u)
    if google.pick(u, "promptTokenCount", "prompt_token_count") is not None:
        return google.usage_of(u)
    if has("eval_count") is not None or has("prompt_eval_count") is not None:
        return others.ollama_usage(u)
    if has("generated_token_count") is not None or has("input_token_count") is not None:
        return others.plain(number(has("input_token_count")), number(has("generated_token_count")))
    if has("input_tokens") is not None or has("output_tokens") is not None:
        return anthropic.usage_of(u)
    return openai.chat_usage(u, provider)


def passes_of(u: Fields) -> tuple[Pass, ...]:
    return anthropic.passes_of(u) if u.get("iterations") else ()


def body_of(body: Fields, provider: str) -> Reading:
    """One whole answer, parsed."""
    get = body.get
    u = get("usage")
    if get("choices") is not None or get("x_groq") is not None:
        return openai.chat(body, provider)
    kind, thing = get("type"), get("object")
    if kind in ("message", "completion"):
        return anthropic.message(body)
    if kind is not None and (how := streams.kind_of(body)) is not None:  # one event of a stream
        return body_of(how([body]), provider)
    if thing == "response" or thing == "response.compaction" or get("output_text") is not None:
        return openai.responses(body, provider)
    if thing == "interaction":
        return google.interaction(body)
    if u is not None:
        return _by_usage(body, fields(u), provider)
    if google.pick(body, "usageMetadata", "usage_metadata") is not None or get("candidates") is not None:
        return google.generate(body)
    return _without_usage(body, provider)


def _by_usage(body: Fields, u: Fields, provider: str) -> Reading:
    get, has = body.get, u.get
    if has("inputTokens") is not None:
        return others.converse(body)
    if has("tokens") is not None or has("billed_units") is not None:
        return others.cohere(body)
    cached = has("cache_read_input_tokens") is not None or has("cache_creation_input_tokens") is not None
    if cached and has("prompt_tokens") is None:
        return anthropic.message(body)
    if has("total_input_tokens") is not None:
        return google.interaction(body)
    if get("output") is not None and has("input_tokens") is not None:
        return openai.responses(body, provider)
    if get("object") == "list" or (
        has("completion_tokens") is None and has("input_tokens") is None and has("total_tokens") is not None
    ):
        return openai.listing(body, provider)
    if get("content") is not None:
        return anthropic.message(body)
    return openai.by_token_or_time(body, provider, u)


def _without_usage(body: Fields, provider: str) -> Reading:
    get = body.get
    wrapped = fields(get("response")).get("body") or fields(get("result")).get("message")
    if wrapped is not None:  # a line of a batch's results
        return _of_batch(body_of(fields(wrapped), provider))
    if get("meta") is not None and fields(get("meta")).get("billed_units") is not None:
        return others.cohere(body)
    if get("eval_count") is not None or get("prompt_eval_count") is not None or isinstance(get("done"), bool):
        return others.ollama(body)
    if get("inputTextTokenCount") is not None:
        return others.titan(body)
    if get("generation_token_count") is not None:
        return others.llama(body)
    if get("num_tokens_generated") is not None:
        return others.aleph_alpha(body)
    if get("usage_info") is not None:
        return others.pages(body)
    if get("details") is not None and fields(get("details")).get("generated_tokens") is not None:
        return others.hugging_face(body)
    results = items(get("results"))
    if results and fields(results[0]).get("generated_token_count") is not None:
        return others.watsonx(body)
    if get("predictions") is not None or (get("metadata") is not None and get("deployedModelId") is not None):
        return google.predict(body)
    if get("completions") is not None:
        return others.jurassic(body)
    if get("object") == "list":
        return openai.listing(body, provider)
    if get("data") is not None and get("created") is not None:
        return openai.by_token_or_time(body, provider, {})
    if get("duration") is not None and get("text") is not None:
        return openai.spoken_text(body)
    if any(get(name) is not None for name in BARE):
        return Reading(usage_of(body, provider), passes=passes_of(body))
    how = streams.kind_of(body)
    if how is not None:
        return body_of(how([body]), provider)
    raw = get("raw")
    if raw is not None and raw is not body:  # LlamaIndex wraps the SDK's object
        return body_of(fields(raw), provider)
    return Reading(response_model=text(get("model")), response_id=text(get("id")))


def _of_batch(reading: Reading) -> Reading:
    usage = reading.usage
    context = FrozenMap({**usage.context, "processing": "batch"})
    return replace(reading, usage=replace(usage, context=context))

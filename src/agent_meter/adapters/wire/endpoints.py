"""Which requests ask a model, and whom: by the host where it is known, by the shape of the path where it is not.

Everything else passes a tap untouched. `add_endpoint` teaches it a path of your own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from ...records import EMBEDDING, LLM, RERANK, Kind


class Endpoint(NamedTuple):
    """What a request to it asks for. `dialect` is whose words the answer is in, such as "openai.chat"."""

    kind: Kind
    dialect: str
    provider: str = ""  # where the host, or a dialect that nobody else speaks, tells
    model: str = ""  # where the path names it
    sure: bool = True  # else only a body that names a model makes it one
    deployment: bool = False  # the model in the path is a name that the customer gave


# By the end of the host's name.
HOSTS = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure",
    "services.ai.azure.com": "azure",
    "cognitiveservices.azure.com": "azure",
    "models.ai.azure.com": "azure",
    "models.inference.ai.azure.com": "azure",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "google",
    "aiplatform.googleapis.com": "google",
    "amazonaws.com": "aws",
    "api.aws": "aws",
    "api.mistral.ai": "mistral",
    "codestral.mistral.ai": "mistral",
    "api.groq.com": "groq",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.deepseek.com": "deepseek",
    "openrouter.ai": "openrouter",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.fireworks.ai": "fireworks",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x-ai",
    "api.cerebras.ai": "cerebras",
    "api.voyageai.com": "voyageai",
    "api.moonshot.ai": "moonshotai",
    "api.moonshot.cn": "moonshotai",
    "api.z.ai": "zai",
    "bigmodel.cn": "zhipuai",
    "dashscope.aliyuncs.com": "alibaba",
    "dashscope-intl.aliyuncs.com": "alibaba",
    "router.huggingface.co": "huggingface",
    "api-inference.huggingface.co": "huggingface",
    "api.cloudflare.com": "cloudflare",
    "inference.heroku.com": "heroku",
    "azuredatabricks.net": "databricks",
    "cloud.databricks.com": "databricks",
    "gcp.databricks.com": "databricks",
    "snowflakecomputing.com": "snowflake",
    "ml.cloud.ibm.com": "watsonx",
    "api.aleph-alpha.com": "alephalpha",
    "api.ai21.com": "ai21",
    "api.jina.ai": "jina",
    "api.novita.ai": "novita",
    "api.hyperbolic.xyz": "hyperbolic",
    "api.sambanova.ai": "sambanova",
    "api.deepinfra.com": "deepinfra",
    "api.nebius.ai": "nebius",
    "integrate.api.nvidia.com": "nvidia",
    "api.minimax.io": "minimax",
    "ollama.com": "ollama_cloud",
    "api.inference.crusoecloud.com": "crusoe",
    "gateway.ai.cloudflare.com": "",
    "api.portkey.ai": "",
    "gateway.pydantic.dev": "",
    "models.github.ai": "github",
    "api.githubcopilot.com": "github-copilot",
}
_SUFFIXES = tuple("." + host for host in HOSTS)

# The end of a path: kind, dialect, provider, and whether anybody else has such paths.
_PATHS: list[tuple[str, Kind, str, str, bool]] = [
    ("/chat/completions", LLM, "openai.chat", "", True),
    ("/v1/completions", LLM, "openai.completions", "", True),
    ("/completions", LLM, "openai.completions", "", False),
    ("/responses/compact", LLM, "openai.responses", "", False),
    ("/responses", LLM, "openai.responses", "", False),
    ("/v1/embeddings", EMBEDDING, "openai.embeddings", "", False),
    ("/api/embeddings", EMBEDDING, "ollama.embed", "ollama", False),
    ("/api/embed", EMBEDDING, "ollama.embed", "ollama", False),
    ("/embeddings", EMBEDDING, "openai.embeddings", "", False),
    ("/multimodalembeddings", EMBEDDING, "openai.embeddings", "", False),
    ("/v1/messages", LLM, "anthropic.messages", "anthropic", False),
    ("/messages", LLM, "anthropic.messages", "anthropic", False),
    ("/v1/complete", LLM, "anthropic.complete", "anthropic", False),
    ("/complete", LLM, "alephalpha.complete", "", False),
    ("/v1beta/interactions", LLM, "gemini.interactions", "google", True),
    ("/interactions", LLM, "gemini.interactions", "google", False),
    ("/api/chat", LLM, "ollama.chat", "ollama", False),
    ("/api/generate", LLM, "ollama.chat", "ollama", False),
    ("/v1/chat", LLM, "cohere.chat", "cohere", False),
    ("/v2/chat", LLM, "cohere.chat", "cohere", False),
    ("/v1/generate", LLM, "cohere.generate", "cohere", False),
    ("/v1/embed", EMBEDDING, "cohere.embed", "cohere", False),
    ("/v2/embed", EMBEDDING, "cohere.embed", "cohere", False),
    ("/rerank", RERANK, "cohere.rerank", "", False),
    ("/images/generations", LLM, "openai.images", "", True),
    ("/images/edits", LLM, "openai.images", "", True),
    ("/images/variations", LLM, "openai.images", "", True),
    ("/images", LLM, "openai.images", "", False),
    ("/audio/transcriptions", LLM, "openai.transcriptions", "", True),
    ("/audio/translations", LLM, "openai.transcriptions", "", True),
    ("/audio/speech", LLM, "openai.speech", "", True),
    ("/v1/ocr", LLM, "mistral.ocr", "mistral", False),
    ("/text/generation", LLM, "watsonx.generate", "watsonx", False),
    ("/text/generation_stream", LLM, "watsonx.generate", "watsonx", False),
    ("/generation/text", LLM, "watsonx.generate", "watsonx", True),
    ("/text/chat", LLM, "openai.chat", "watsonx", False),
    ("/text/chat_stream", LLM, "openai.chat", "watsonx", False),
]
# Google's verbs, and AWS's: the model is in the path.
_VERBS = {
    "generateContent": (LLM, "gemini.generateContent"),
    "streamGenerateContent": (LLM, "gemini.generateContent"),
    "embedContent": (EMBEDDING, "gemini.embed"),
    "batchEmbedContents": (EMBEDDING, "gemini.embed"),
    "predict": (EMBEDDING, "vertex.predict"),
    "predictLongRunning": (LLM, "vertex.predict"),
    "rawPredict": (LLM, "vertex.raw"),
    "streamRawPredict": (LLM, "vertex.raw"),
}
_BEDROCK = {
    "converse": "bedrock.converse",
    "converse-stream": "bedrock.converse",
    "invoke": "bedrock.invoke",
    "invoke-with-response-stream": "bedrock.invoke",
}
_DRAWING = ("imagen", "veo")


def add_endpoint(path: str, kind: str = "llm", dialect: str = "openai.chat", provider: str = "") -> None:
    """Let every tap of the process look at requests whose path ends so, whatever the host.

    `dialect` is in whose words the answer is, such as "openai.chat" or "anthropic.messages".
    """
    _PATHS.insert(0, ("/" + path.strip("/"), Kind(kind), dialect, provider, True))
    endpoint_of.cache_clear()


@lru_cache(maxsize=4096)
def endpoint_of(host: str, path: str) -> Endpoint | None:
    """What a POST to this asks for; None when it asks no model. `path` may have a query string."""
    path = path.partition("?")[0].rstrip("/")
    known = provider_of(host)
    head, _, last = path.replace("%3A", ":").rpartition("/")
    if ":" in last:
        name, _, verb = last.rpartition(":")
        if verb in _VERBS:
            return _of_google(unquote(name), verb, path, known)
    if last in _BEDROCK and "/model/" in path:
        model = unquote(head.partition("/model/")[2])
        embeds = "embed" in model and last == "invoke"
        provider = known or "aws"
        return Endpoint(EMBEDDING if embeds else LLM, _BEDROCK[last], provider, model, True, model.startswith("arn:"))
    for end, kind, dialect, provider, sure in _PATHS:
        if path.endswith(end) or path == end[1:]:
            model, deployment = "", False
            if "/deployments/" in path:
                model, deployment = unquote(path.partition("/deployments/")[2].partition("/")[0]), True
            elif dialect == "openai.completions" and "/prompts/" in path:
                dialect, sure = "openai.chat", True  # Portkey: the model is in the prompt that is named
            return Endpoint(
                kind, dialect, known or provider, model, sure or known is not None or deployment, deployment
            )
    return None


def _of_google(model: str, verb: str, path: str, known: str | None) -> Endpoint | None:
    kind, dialect = _VERBS[verb]
    if verb == "predict" and "embed" not in model and "gecko" not in model:
        if not model.startswith(_DRAWING):
            return None  # a model of the customer's own, which answers in words of its own
        kind = LLM
    if "/publishers/anthropic/" in path:
        dialect = "anthropic.messages"
    elif "/publishers/mistralai/" in path:
        dialect = "openai.chat"
    return Endpoint(kind, dialect, known or "google", model)


def provider_of(host: str) -> str | None:
    """Who answers at a host; None when it is nobody known, "" when it is a gateway to many."""
    host = host.partition(":")[0].lower()
    found = HOSTS.get(host)
    if found is None and host.endswith(_SUFFIXES):
        found = next(name for end, name in HOSTS.items() if host.endswith("." + end))
    return found


# ----------------------------------------------------------------------------------------------------- names of models


@lru_cache(maxsize=1024)
def same_model(announced: str, asked: str) -> bool:
    """Whether a request for `asked` may be the call that was announced for `announced`: spelt or dated otherwise."""
    if not announced or not asked:
        return True
    a, b = _plain(announced), _plain(asked)
    if not a or not b or a == b:
        return True
    shorter, longer = sorted((a, b), key=len)
    return longer.startswith(shorter) and _is_version(longer[len(shorter) :])


_REGIONS = ("us", "eu", "apac", "jp", "au", "ca", "global", "us-gov", "sa")


def _plain(name: str) -> str:
    name = unquote(name).lower().strip()
    if name.startswith("arn:"):
        return ""
    name = name.rstrip("/").rpartition("/")[2]
    region, dot, rest = name.partition(".")
    if dot and region in _REGIONS:
        name = rest
    return name


def _is_version(rest: str) -> bool:
    """`-2024-08-06`, `@20250219`, `-001`, `-v2:0`, `:latest`, `-latest`: the same model, more exactly."""
    if rest[:1] in ("@", ":"):
        return True
    first = rest.removeprefix("-").partition("-")[0]
    return first == "latest" or (first.isdigit() and len(first) > 2) or (first[:1] == "v" and first[1:2].isdigit())

"""The vendors' own clients, each pointed at the recorded calls that it can ask for again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tests.adapters.langchain.integrations import Place

REGION = "us-east-1"
MESSAGES = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Sdk:
    """`make` a client for a recorded call, `ask` it for that; `aask` is the same with the asynchronous client."""

    name: str
    package: str
    asks: Callable[[Place], bool]
    make: Callable[[Place], Any]
    ask: Callable[[Place, Any], Any]
    amake: Callable[[Place], Any] | None = None
    aask: Callable[[Place, Any], Any] | None = None

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None


def _path(place: Place) -> str:
    return str(place.interaction["request"]["path"].partition("?")[0])


def _drained(answer: Any) -> Any:
    """A stream, read to its end."""
    return list(answer) if hasattr(answer, "__iter__") and not isinstance(answer, (dict, str, bytes)) else answer


async def _adrained(answer: Any) -> Any:
    return [item async for item in answer] if hasattr(answer, "__aiter__") else answer


# ---------------------------------------------------------------------------------------------------------- openai

OPENAI = {
    "openai.chat": "/chat/completions",
    "openai.completions": "/completions",
    "openai.responses": "/responses",
    "openai.embeddings": "/embeddings",
    "openai.images": "/images/",
    "openai.transcriptions": "/audio/transcriptions",
}


def _of_openai(place: Place) -> bool:
    path = _path(place)
    end = OPENAI.get(place.api)
    if end is None or "/prompts/" in path:
        return False
    return end in path if end.endswith("/") else path.endswith((end, "/compact"))


def _base(place: Place) -> str:
    path = _path(place)
    for end in (*OPENAI.values(), "/responses/compact", "generations", "edits"):
        path = path.removesuffix(end)
    return place.root + path.removesuffix("/images/").removesuffix("/images")


def _openai_client(place: Place) -> Any:
    import openai

    fast = openai.DefaultHttpxClient(verify=False)  # reading certificates takes most of a client's making
    return openai.OpenAI(base_url=_base(place), api_key="none", max_retries=0, timeout=20, http_client=fast)


def _openai_async(place: Place) -> Any:
    import openai

    fast = openai.DefaultAsyncHttpxClient(verify=False)
    return openai.AsyncOpenAI(base_url=_base(place), api_key="none", max_retries=0, timeout=20, http_client=fast)


def _openai_call(place: Place, client: Any) -> Any:
    model, stream = place.model, place.streamed
    if place.api == "openai.chat":
        return client.chat.completions.create(model=model, messages=MESSAGES, stream=stream)
    if place.api == "openai.completions":
        return client.completions.create(model=model, prompt="hello", stream=stream)
    if place.api == "openai.responses":
        if _path(place).endswith("/compact"):
            return client.responses.compact(model=model, input="hello")
        return client.responses.create(model=model, input="hello", stream=stream)
    if place.api == "openai.embeddings":
        return client.embeddings.create(model=model, input=["hello"], encoding_format="float")
    if place.api == "openai.transcriptions":
        return client.audio.transcriptions.create(model=model, file=("a.wav", b"RIFF"))
    if _path(place).endswith("/edits"):
        return client.images.edit(model=model, image=("a.png", b"\x89PNG"), prompt="a cat")
    return client.images.generate(model=model, prompt="a cat")


async def _aopenai_call(place: Place, client: Any) -> Any:
    return await _adrained(await _openai_call(place, client))


# -------------------------------------------------------------------------------------------------------- anthropic


def _of_anthropic(place: Place) -> bool:
    return place.api == "anthropic.messages"


def _anthropic_client(place: Place) -> Any:
    import anthropic

    fast = anthropic.DefaultHttpxClient(verify=False)
    return anthropic.Anthropic(base_url=place.root, api_key="none", max_retries=0, timeout=20, http_client=fast)


def _anthropic_async(place: Place) -> Any:
    import anthropic

    fast = anthropic.DefaultAsyncHttpxClient(verify=False)
    return anthropic.AsyncAnthropic(base_url=place.root, api_key="none", max_retries=0, timeout=20, http_client=fast)


def _anthropic_call(place: Place, client: Any) -> Any:
    return client.messages.create(model=place.model, max_tokens=1000, messages=MESSAGES, stream=place.streamed)


async def _aanthropic_call(place: Place, client: Any) -> Any:
    return await _adrained(await _anthropic_call(place, client))


# ----------------------------------------------------------------------------------------------------------- google


def _of_google(place: Place) -> bool:
    return place.api in ("gemini.generateContent", "gemini.embed") and ":embedContent" not in _path(place)


def _google_client(place: Place) -> Any:
    from google import genai

    args = {"verify": False}
    options = {"base_url": place.root, "timeout": 20_000, "client_args": args, "async_client_args": args}
    return genai.Client(api_key="none", http_options=options)


def _google_call(place: Place, client: Any) -> Any:
    models = client.models
    if place.api == "gemini.embed":
        return models.embed_content(model=place.model, contents=["hello", "there"])
    if place.streamed:
        return list(models.generate_content_stream(model=place.model, contents="hello"))
    return models.generate_content(model=place.model, contents="hello")


async def _agoogle_call(place: Place, client: Any) -> Any:
    models = client.aio.models
    if place.api == "gemini.embed":
        return await models.embed_content(model=place.model, contents=["hello", "there"])
    if place.streamed:
        return await _adrained(await models.generate_content_stream(model=place.model, contents="hello"))
    return await models.generate_content(model=place.model, contents="hello")


# ------------------------------------------------------------------------------------------------------------- groq


def _groq_client(place: Place) -> Any:
    import groq

    return groq.Groq(base_url=_base(place).removesuffix("/openai/v1"), api_key="none", max_retries=0, timeout=20)


def _groq_async(place: Place) -> Any:
    import groq

    return groq.AsyncGroq(base_url=_base(place).removesuffix("/openai/v1"), api_key="none", max_retries=0, timeout=20)


def _of(api: str, provider: str) -> Callable[[Place], bool]:
    return lambda place: place.api == api and place.provider == provider


# ---------------------------------------------------------------------------------------------------------- mistral


def _mistral_client(place: Place) -> Any:
    try:
        from mistralai import Mistral
    except ImportError:
        from mistralai.client import Mistral

    return Mistral(api_key="none", server_url=place.root, timeout_ms=20_000)


def _of_mistral(place: Place) -> bool:
    return place.provider == "mistral" and place.api in ("openai.chat", "openai.embeddings")


def _mistral_call(place: Place, client: Any) -> Any:
    if place.api == "openai.embeddings":
        return client.embeddings.create(model=place.model, inputs=["hello"])
    if place.streamed:
        return list(client.chat.stream(model=place.model, messages=MESSAGES))
    return client.chat.complete(model=place.model, messages=MESSAGES)


async def _amistral_call(place: Place, client: Any) -> Any:
    if place.api == "openai.embeddings":
        return await client.embeddings.create_async(model=place.model, inputs=["hello"])
    if place.streamed:
        return await _adrained(await client.chat.stream_async(model=place.model, messages=MESSAGES))
    return await client.chat.complete_async(model=place.model, messages=MESSAGES)


# ----------------------------------------------------------------------------------------------------------- cohere


def _of_cohere(place: Place) -> bool:
    return place.provider == "cohere" and place.api in ("cohere.chat", "cohere.rerank", "cohere.generate")


def _cohere_version(place: Place) -> int:
    return 2 if "/v2/" in _path(place) else 1


def _cohere_client(place: Place) -> Any:
    import cohere

    kind = cohere.ClientV2 if _cohere_version(place) == 2 else cohere.Client
    return kind(api_key="none", base_url=place.root, timeout=20)


def _cohere_async(place: Place) -> Any:
    import cohere

    kind = cohere.AsyncClientV2 if _cohere_version(place) == 2 else cohere.AsyncClient
    return kind(api_key="none", base_url=place.root, timeout=20)


def _cohere_call(place: Place, client: Any) -> Any:
    if place.api == "cohere.rerank":
        return client.rerank(model=place.model, query="hello", documents=["hello", "there"])
    if place.api == "cohere.generate":
        return client.generate(prompt="hello", model=place.model)
    if _cohere_version(place) == 1:
        asked = {"model": place.model, "message": "hello"}
        return client.chat_stream(**asked) if place.streamed else client.chat(**asked)
    asked = {"model": place.model, "messages": MESSAGES}
    return client.chat_stream(**asked) if place.streamed else client.chat(**asked)


async def _acohere_call(place: Place, client: Any) -> Any:
    answer = _cohere_call(place, client)
    return await _adrained(answer) if hasattr(answer, "__aiter__") else await answer


# ----------------------------------------------------------------------------------------------------------- ollama


def _ollama_client(place: Place) -> Any:
    import ollama

    return ollama.Client(host=place.root)


def _ollama_async(place: Place) -> Any:
    import ollama

    return ollama.AsyncClient(host=place.root)


def _ollama_call(place: Place, client: Any) -> Any:
    return client.chat(model=place.model, messages=MESSAGES, stream=place.streamed)


async def _aollama_call(place: Place, client: Any) -> Any:
    return await _adrained(await client.chat(model=place.model, messages=MESSAGES, stream=place.streamed))


# ------------------------------------------------------------------------------------------------------------ boto3


def _boto_client(place: Place) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "bedrock-runtime",
        region_name=REGION,
        endpoint_url=place.root,
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(retries={"max_attempts": 1}, read_timeout=20),
    )


def _boto_call(place: Place, client: Any) -> Any:
    if place.api == "bedrock.converse":
        asked: dict[str, Any] = {"modelId": place.model, "messages": [{"role": "user", "content": [{"text": "hello"}]}]}
        return list(client.converse_stream(**asked)["stream"]) if place.streamed else client.converse(**asked)
    body = json.dumps(place.interaction["request"].get("body") or {"prompt": "hello"})
    if place.streamed:
        return list(client.invoke_model_with_response_stream(modelId=place.model, body=body)["body"])
    return json.loads(client.invoke_model(modelId=place.model, body=body)["body"].read())


# ------------------------------------------------------------------------------------------------ without an SDK


def _httpx_call(place: Place, client: Any) -> Any:
    request = place.interaction["request"]
    body = request.get("body")
    answer = client.post(place.root + request["path"], json=body if isinstance(body, dict) else {"model": place.model})
    return answer.read()


def _httpx_client(place: Place) -> Any:
    import httpx

    return httpx.Client(timeout=20, verify=False)


def _requests_call(place: Place, client: Any) -> Any:
    request = place.interaction["request"]
    body = request.get("body")
    with client.post(
        place.root + request["path"], json=body if isinstance(body, dict) else {"model": place.model}, stream=True
    ) as answer:
        return io.BytesIO(b"".join(answer.iter_content(1000))).getvalue()


def _requests_client(place: Place) -> Any:
    import requests

    return requests.Session()


async def _aiohttp_call(place: Place, client: Any) -> Any:
    request = place.interaction["request"]
    body = request.get("body")
    async with client.post(
        place.root + request["path"], json=body if isinstance(body, dict) else {"model": place.model}
    ) as answer:
        return b"".join([chunk async for chunk in answer.content.iter_any()])


async def _aiohttp_client(place: Place) -> Any:
    import aiohttp

    return aiohttp.ClientSession()


def _any(place: Place) -> bool:
    """Everything but what is counted by the letter or not at all."""
    return place.api not in ("openai.moderations", "openai.speech", "vertex.predict")


def _openai_ask(place: Place, client: Any) -> Any:
    return _drained(_openai_call(place, client))


def _anthropic_ask(place: Place, client: Any) -> Any:
    return _drained(_anthropic_call(place, client))


def _cohere_ask(place: Place, client: Any) -> Any:
    return _drained(_cohere_call(place, client))


def _ollama_ask(place: Place, client: Any) -> Any:
    return _drained(_ollama_call(place, client))


_groqs, _ollamas = _of("openai.chat", "groq"), _of("ollama.chat", "ollama")

SDKS = (
    Sdk("openai", "openai", _of_openai, _openai_client, _openai_ask, _openai_async, _aopenai_call),
    Sdk("anthropic", "anthropic", _of_anthropic, _anthropic_client, _anthropic_ask, _anthropic_async, _aanthropic_call),
    Sdk("google-genai", "google.genai", _of_google, _google_client, _google_call, _google_client, _agoogle_call),
    Sdk("groq", "groq", _groqs, _groq_client, _openai_ask, _groq_async, _aopenai_call),
    Sdk("mistralai", "mistralai", _of_mistral, _mistral_client, _mistral_call, _mistral_client, _amistral_call),
    Sdk("cohere", "cohere", _of_cohere, _cohere_client, _cohere_ask, _cohere_async, _acohere_call),
    Sdk("ollama", "ollama", _ollamas, _ollama_client, _ollama_ask, _ollama_async, _aollama_call),
    Sdk("boto3", "boto3", lambda place: place.api.startswith("bedrock."), _boto_client, _boto_call),
    Sdk("httpx", "httpx", _any, _httpx_client, _httpx_call),
    Sdk("requests", "requests", _any, _requests_client, _requests_call),
    Sdk("aiohttp", "aiohttp", _any, _httpx_client, _httpx_call, _aiohttp_client, _aiohttp_call),
)

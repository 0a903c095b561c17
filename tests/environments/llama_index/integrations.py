"""LlamaIndex's integrations, each pointed at the recorded conversations that it can ask for again.

Nothing is imported from an integration before its model is made: whoever has not installed one can drive the others.
"""

from __future__ import annotations

from typing import Any

from tests.adapters.langchain.integrations import CHAT, REGION, RESPONSES, TEXT, Integration, Place, asks

LLMS = "llama_index.llms."


def question(place: Place) -> Any:
    """What to ask: as little as the integration takes."""
    from llama_index.core.llms import ChatMessage

    return [ChatMessage(role="user", content="hello")]


def ask(model: Any, place: Place) -> Exception | None:
    """One call; what the integration made of an error, or of an answer that it cannot read."""
    try:
        if place.api == TEXT or place.api == "cohere.generate":
            if place.streamed:
                for _ in model.stream_complete("hello"):
                    pass
            else:
                model.complete("hello")
        elif place.streamed:
            for _ in model.stream_chat(question(place)):
                pass
        else:
            model.chat(question(place))
    except Exception as error:
        return error
    return None


async def aask(model: Any, place: Place) -> Exception | None:
    try:
        if place.streamed:
            async for _ in await model.astream_chat(question(place)):
                pass
        else:
            await model.achat(question(place))
    except Exception as error:
        return error
    return None


# ------------------------------------------------------------------------------------------------- OpenAI's words


def _named(kind: type, place: Place) -> type:
    """A class of the integration that takes any model's name: it has a table of those that it knows."""
    from llama_index.core.base.llms.types import LLMMetadata

    class Named(kind):  # type: ignore[misc, valid-type]
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(model_name=self.model, is_chat_model=place.api != TEXT, context_window=100_000)

        @property
        def _tokenizer(self) -> None:
            return None

    Named.__module__ = kind.__module__
    Named.__name__ = kind.__name__
    return Named


def _options(place: Place) -> dict[str, Any]:
    return {"model": place.model, "api_base": place.url, "api_key": "none", "max_retries": 0, "timeout": 20}


def _openai(place: Place) -> Any:
    from llama_index.llms.openai import OpenAI

    return _named(OpenAI, place)(**_options(place))


def _responses(place: Place) -> Any:
    from llama_index.llms.openai import OpenAIResponses

    return _named(OpenAIResponses, place)(**_options(place))


def _openai_like(place: Place) -> Any:
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(
        **_options(place), is_chat_model=place.api == CHAT, context_window=100_000, is_function_calling_model=True
    )


def _openai_like_responses(place: Place) -> Any:
    from llama_index.llms.openai_like import OpenAILikeResponses

    return OpenAILikeResponses(**_options(place), context_window=100_000)


# ------------------------------------------------------------------------------------------------ words of their own


def _anthropic(place: Place) -> Any:
    from llama_index.llms.anthropic import Anthropic

    return _named(Anthropic, place)(
        model=place.model, base_url=place.root, api_key="none", max_retries=0, timeout=20, max_tokens=1000
    )


def _google(place: Place) -> Any:
    from google.genai import types
    from llama_index.llms.google_genai import GoogleGenAI

    return GoogleGenAI(
        model=place.model,
        api_key="none",
        max_retries=1,
        context_window=100_000,
        max_tokens=1000,
        http_options=types.HttpOptions(base_url=place.root, timeout=20_000),
    )


def _mistral(place: Place) -> Any:
    from llama_index.llms.mistralai import MistralAI

    url = place.url.removesuffix("/v1")
    return _named(MistralAI, place)(model=place.model, endpoint=url, api_key="none", max_retries=1, timeout=20)


def _ollama(place: Place) -> Any:
    from llama_index.llms.ollama import Ollama

    return Ollama(model=place.model, base_url=place.root, request_timeout=20, context_window=8000)


def _converse(place: Place) -> Any:
    import boto3
    from botocore.config import Config
    from llama_index.llms.bedrock_converse import BedrockConverse

    client = boto3.client(
        "bedrock-runtime",
        region_name=REGION,
        aws_access_key_id="none",
        aws_secret_access_key="none",
        endpoint_url=place.root,
        config=Config(retries={"max_attempts": 1}, read_timeout=20),
    )
    return _named(BedrockConverse, place)(
        model=place.model, region_name=REGION, client=client, max_retries=1, max_tokens=1000
    )


def _cohere_asks(place: Place) -> bool:
    """It speaks the first version of Cohere's API alone."""
    return asks("cohere.chat")(place) and place.interaction["request"]["path"].startswith("/v1/")


def _cohere(place: Place) -> Any:
    import cohere
    from llama_index.llms.cohere import Cohere

    model = Cohere(model=place.model, api_key="none", timeout=20, max_retries=1)
    model._client = cohere.Client("none", base_url=place.root, timeout=20)
    return model


INTEGRATIONS = (
    Integration("OpenAI", LLMS + "openai", asks(CHAT), _openai),
    Integration("OpenAIResponses", LLMS + "openai", asks(RESPONSES), _responses),
    Integration("OpenAI (completions)", LLMS + "openai", asks(TEXT), _openai),
    Integration("OpenAILike", LLMS + "openai_like", asks(CHAT), _openai_like),
    Integration("OpenAILikeResponses", LLMS + "openai_like", asks(RESPONSES), _openai_like_responses),
    Integration("Anthropic", LLMS + "anthropic", asks("anthropic.messages"), _anthropic),
    Integration("GoogleGenAI", LLMS + "google_genai", asks("gemini.generateContent"), _google),
    Integration("MistralAI", LLMS + "mistralai", asks(CHAT, "mistral"), _mistral),
    Integration("BedrockConverse", LLMS + "bedrock_converse", asks("bedrock.converse"), _converse),
    Integration("Ollama", LLMS + "ollama", asks("ollama.chat"), _ollama),
    Integration("Cohere", LLMS + "cohere", _cohere_asks, _cohere),
)

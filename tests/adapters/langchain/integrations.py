"""LangChain's integrations, each pointed at the recorded conversations that it can ask for again.

Nothing is imported from an integration before its model is made: whoever has not installed one can drive the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

REGION = "us-east-1"


class Place(NamedTuple):
    """One recorded call: the conversation, which of its calls, and the server that replays it."""

    document: Mapping[str, Any]
    index: int
    server: Any = None

    @property
    def interaction(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.document["interactions"][self.index]
        return found

    @property
    def truth(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.document["truth"][self.index]
        return found

    @property
    def api(self) -> str:
        return str(self.interaction["api"])

    @property
    def provider(self) -> str:
        return str(self.interaction.get("provider") or self.document["provider"])

    @property
    def model(self) -> str:
        return str(self.truth.get("model_requested") or self.truth["model"] or "some-model")

    @property
    def url(self) -> str:
        """What a client takes as its base URL: the path of this call without the endpoint."""
        path = self.interaction["request"]["path"].partition("?")[0]
        for end in ("/chat/completions", "/responses", "/completions", "/embeddings"):
            path = path.removesuffix(end)
        return f"{self.root}{path}"

    @property
    def root(self) -> str:
        return str(self.server.root(self.document["id"]))

    @property
    def streamed(self) -> bool:
        """Whether it was asked for as a stream; a refusal is recorded as none."""
        path = self.interaction["request"]["path"]
        return bool(self.interaction["stream"]) or "-stream" in path or ":stream" in path

    @property
    def question(self) -> Any:
        """What to ask: sound where sound was recorded, for it decides what Google's answers are counted as."""
        kinds = _sounds(self.interaction["request"].get("body")) if self.api == "gemini.generateContent" else set()
        if not kinds:
            return "hello"
        from langchain_core.messages import HumanMessage

        sounds = [{"type": kind.partition("/")[0], "base64": "AAAA", "mime_type": kind} for kind in sorted(kinds)]
        return [HumanMessage([{"type": "text", "text": "hello"}, *sounds])]

    def aim(self) -> None:
        """Make the server answer with this call and no other."""
        conversation = self.server.conv[self.document["id"]]
        conversation.reset()
        conversation.used.update(set(range(len(self.document["interactions"]))) - {self.index})

    @property
    def served(self) -> bool:
        """Whether a client came for it."""
        return self.index in self.server.conv[self.document["id"]].used


def _sounds(value: Any) -> set[str]:
    """The media types of sound and film anywhere in a recorded request."""
    if isinstance(value, str):
        return {value} if value.startswith(("audio/", "video/")) and len(value) < 40 else set()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(_sounds, inner)) if inner else set()


@dataclass(frozen=True)
class Integration:
    name: str
    package: str
    asks: Callable[[Place], bool]
    make: Callable[[Place], Any]

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None


def integrations_of(place: Place) -> list[Integration]:
    """Every integration that can ask for this call, installed or not."""
    return [integration for integration in INTEGRATIONS if integration.asks(place)]


# The ends of the paths that clients ask; a gateway's own and a compaction's are none of them.
ENDS = {"openai.chat": "/chat/completions", "openai.responses": "/responses"}


def asks(api: str, *providers: str) -> Callable[[Place], bool]:
    def asks(place: Place) -> bool:
        path = place.interaction["request"]["path"].partition("?")[0]
        return place.api == api and path.endswith(ENDS.get(api, "")) and (not providers or place.provider in providers)

    return asks


# ------------------------------------------------------------------------------------------------- OpenAI's words


def _openai(place: Place, **options: Any) -> dict[str, Any]:
    return {"model": place.model, "base_url": place.url, "api_key": "none", "max_retries": 0, "timeout": 20, **options}


def _chat_openai(place: Place) -> Any:
    from langchain_openai import ChatOpenAI

    # Without a word it sends newer models to the Responses API.
    return ChatOpenAI(**_openai(place, stream_usage=True, use_responses_api=False))


def _responses(place: Place) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(**_openai(place, use_responses_api=True))


def _text(place: Place) -> Any:
    from langchain_openai import OpenAI

    return OpenAI(**_openai(place))


def _azure(place: Place) -> dict[str, Any]:
    return {
        "azure_endpoint": place.root,
        "azure_deployment": place.model,
        "api_version": "2024-12-01-preview",
        "api_key": "none",
        "max_retries": 0,
        "timeout": 20,
    }


def _chat_azure(place: Place) -> Any:
    from langchain_openai import AzureChatOpenAI

    return AzureChatOpenAI(use_responses_api=place.api == "openai.responses", **_azure(place))


def _text_azure(place: Place) -> Any:
    from langchain_openai import AzureOpenAI

    return AzureOpenAI(**_azure(place))


def _groq(place: Place) -> Any:
    from langchain_groq import ChatGroq

    # Its client adds the whole path itself.
    url = place.url.removesuffix("/openai/v1")
    return ChatGroq(model=place.model, base_url=url, api_key="none", max_retries=0, timeout=20)


def _mistral(place: Place) -> Any:
    from langchain_mistralai import ChatMistralAI

    return ChatMistralAI(model=place.model, base_url=place.url, api_key="none", max_retries=1, timeout=20)


def _deepseek(place: Place) -> Any:
    from langchain_deepseek import ChatDeepSeek

    return ChatDeepSeek(**_openai(place))


def _xai(place: Place) -> Any:
    from langchain_xai import ChatXAI

    return ChatXAI(**_openai(place, use_responses_api=place.api == "openai.responses"))


def _openrouter(place: Place) -> Any:
    from langchain_openrouter import ChatOpenRouter

    return ChatOpenRouter(model=place.model, base_url=place.url, api_key="none", max_retries=0, timeout=20_000)


def _perplexity(place: Place) -> Any:
    from langchain_perplexity import ChatPerplexity
    from perplexity import AsyncPerplexity, Perplexity

    model = ChatPerplexity(model=place.model, api_key="none", timeout=20, max_retries=0)
    options: dict[str, Any] = {"api_key": "none", "base_url": place.url, "max_retries": 0, "timeout": 20}
    return model.model_copy(update={"client": Perplexity(**options), "async_client": AsyncPerplexity(**options)})


def _together(place: Place) -> Any:
    from langchain_together import ChatTogether

    return ChatTogether(**_openai(place))


def _cerebras(place: Place) -> Any:
    from langchain_cerebras import ChatCerebras

    return ChatCerebras(**_openai(place))


# ------------------------------------------------------------------------------------------------ words of their own


def _chat_anthropic(place: Place) -> Any:
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(
        model=place.model, base_url=place.root, api_key="none", max_retries=0, timeout=20, max_tokens=1000
    )


def _google(place: Place) -> Any:
    from langchain_google_genai import ChatGoogleGenerativeAI

    return ChatGoogleGenerativeAI(
        model=place.model, base_url=place.root, api_key="none", max_retries=1, timeout=20, vertexai=False
    )


def _aws(place: Place) -> dict[str, Any]:
    from botocore.config import Config

    return {
        "region_name": REGION,
        "aws_access_key_id": "none",
        "aws_secret_access_key": "none",
        "endpoint_url": place.root,
        "config": Config(retries={"max_attempts": 1}, read_timeout=20),
    }


def _family(model: str) -> str:
    """Whose model a Bedrock identifier names, without the region in front of it."""
    parts = model.split(".")
    return parts[1] if len(parts[0]) in (2, 4) and len(parts) > 2 else parts[0]


def _converse(place: Place) -> Any:
    from langchain_aws import ChatBedrockConverse

    return ChatBedrockConverse(model=place.model, provider=_family(place.model), **_aws(place))


def _invoke(place: Place) -> Any:
    from langchain_aws import ChatBedrock

    return ChatBedrock(model=place.model, provider=_family(place.model), **_aws(place))


def _invoke_text(place: Place) -> Any:
    from langchain_aws import BedrockLLM

    return BedrockLLM(model=place.model, provider=_family(place.model), **_aws(place))


def _claude_on_bedrock(place: Place) -> Any:
    from langchain_aws import ChatAnthropicBedrock

    class Here(ChatAnthropicBedrock):
        """It has no parameter for the endpoint."""

        @property
        def _client_params(self) -> dict[str, Any]:
            return {**super()._client_params, "base_url": place.root}

    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
    return Here(model=place.model, region_name=REGION, max_retries=0, max_tokens=1000, **keys)


def _cohere(place: Place) -> Any:
    from langchain_cohere import ChatCohere

    return ChatCohere(model=place.model, base_url=place.root, cohere_api_key="none", timeout_seconds=20)


def _ollama(place: Place) -> Any:
    from langchain_ollama import ChatOllama

    return ChatOllama(model=place.model, base_url=place.root)


CHAT, RESPONSES, TEXT = "openai.chat", "openai.responses", "openai.completions"
INVOKED_CHATS = ("anthropic", "meta", "mistral")  # Nova speaks Converse only


def _asks_to_invoke(*families: str) -> Callable[[Place], bool]:
    return lambda place: place.api == "bedrock.invoke" and _family(place.model) in families


def _asks_a_text_model(place: Place) -> bool:
    return place.api == "bedrock.invoke" and any(name in place.model for name in ("titan", "llama2", "mistral-7b"))


INTEGRATIONS = (
    Integration("ChatOpenAI", "langchain_openai", asks(CHAT), _chat_openai),
    Integration("ChatOpenAI (responses)", "langchain_openai", asks(RESPONSES), _responses),
    Integration("OpenAI", "langchain_openai", asks(TEXT), _text),
    Integration("AzureChatOpenAI", "langchain_openai", asks(CHAT, "azure"), _chat_azure),
    Integration("AzureChatOpenAI (responses)", "langchain_openai", asks(RESPONSES, "azure"), _chat_azure),
    Integration("AzureOpenAI", "langchain_openai", asks(TEXT, "azure"), _text_azure),
    Integration("ChatAnthropic", "langchain_anthropic", asks("anthropic.messages"), _chat_anthropic),
    Integration("ChatGoogleGenerativeAI", "langchain_google_genai", asks("gemini.generateContent"), _google),
    Integration("ChatBedrockConverse", "langchain_aws", asks("bedrock.converse"), _converse),
    Integration("ChatBedrock", "langchain_aws", _asks_to_invoke(*INVOKED_CHATS), _invoke),
    Integration("ChatAnthropicBedrock", "langchain_aws", _asks_to_invoke("anthropic"), _claude_on_bedrock),
    Integration("BedrockLLM", "langchain_aws", _asks_a_text_model, _invoke_text),
    Integration("ChatMistralAI", "langchain_mistralai", asks(CHAT, "mistral"), _mistral),
    Integration("ChatGroq", "langchain_groq", asks(CHAT, "groq"), _groq),
    Integration("ChatDeepSeek", "langchain_deepseek", asks(CHAT, "deepseek"), _deepseek),
    Integration("ChatXAI", "langchain_xai", asks(CHAT, "xai"), _xai),
    Integration("ChatXAI (responses)", "langchain_xai", asks(RESPONSES, "xai"), _xai),
    Integration("ChatOpenRouter", "langchain_openrouter", asks(CHAT, "openrouter"), _openrouter),
    Integration("ChatPerplexity", "langchain_perplexity", asks(CHAT, "perplexity"), _perplexity),
    Integration("ChatTogether", "langchain_together", asks(CHAT, "together"), _together),
    Integration("ChatCerebras", "langchain_cerebras", asks(CHAT, "cerebras"), _cerebras),
    Integration("ChatCohere", "langchain_cohere", asks("cohere.chat"), _cohere),
    Integration("ChatOllama", "langchain_ollama", asks("ollama.chat"), _ollama),
)

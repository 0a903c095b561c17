"""What integrations keep to themselves: said to be missing where it may matter, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from agent_meter import Meter, Status, UsageRecord
from agent_meter.adapters.langchain import MeterCallback

USAGE = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
SOUND = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}
FILM = {"type": "media", "mime_type": "video/mp4", "file_uri": "gs://a/film.mp4"}


class Integration(BaseChatModel):
    """Says what it is told to, as the integration of `provider`."""

    provider: str
    answer: Any = None
    chunks: list[Any] = []
    error: Any = None

    @property
    def _llm_type(self) -> str:
        return f"{self.provider}-chat"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": self.provider, "ls_model_name": "some-model", "ls_model_type": "chat"}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        if self.error is not None:
            raise self.error
        return ChatResult(generations=[ChatGeneration(message=self.answer)])

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        for message in self.chunks:
            yield ChatGenerationChunk(message=message)


def invoked(provider: str, asked: Any = "hello", kept: Any = USAGE, **about: Any) -> UsageRecord:
    meter = Meter(strict=True)
    answer = AIMessage("Hi.", usage_metadata=kept, response_metadata=about)  # type: ignore[arg-type]
    Integration(provider=provider, answer=answer).invoke(asked, {"callbacks": [MeterCallback(meter)]})
    return meter.history()[0]


def streamed(provider: str, *usages: dict[str, Any], **about: Any) -> UsageRecord:
    meter = Meter(strict=True)
    chunks = [AIMessageChunk("Hi", usage_metadata=usage, response_metadata=about) for usage in usages]
    list(Integration(provider=provider, chunks=chunks).stream("hello", {"callbacks": [MeterCallback(meter)]}))
    return meter.history()[0]


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    return {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion, **more}


# -------------------------------------------------------------------------------------------------- Google


@pytest.mark.parametrize("block", [SOUND, FILM], ids=["sound", "film"])
def test_gemini_does_not_tell_the_tokens_of_sound(block: dict[str, Any]) -> None:
    record = invoked("google_genai", [HumanMessage([{"type": "text", "text": "What is this?"}, block])])

    assert (record.estimated, record.missing) == (True, ("input_audio_tokens",))
    assert (record.input_tokens, record.output_tokens) == (100, 20)


def test_sound_in_the_middle_of_a_conversation_is_heard() -> None:
    record = invoked("google_genai", [HumanMessage([SOUND]), AIMessage("A bird."), HumanMessage("Which?")])

    assert record.missing == ("input_audio_tokens",)


def test_an_ordinary_question_to_gemini_is_exact() -> None:
    picture = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}

    for asked in ("hello", [HumanMessage([{"type": "text", "text": "What is this?"}, picture])]):
        record = invoked("google_genai", asked)

        assert (record.estimated, record.missing, record.notes) == (False, (), ())


def test_the_differences_that_google_streams_are_added_up() -> None:
    """Gemini sends running totals, and its integration subtracts; its last chunk may correct the prompt."""
    record = streamed("google_genai", usage(55, 4), usage(0, 4), usage(202, 0))
    growing = streamed("google_genai", usage(10, 1), usage(20, 5))

    assert (record.input_tokens, record.output_tokens, record.estimated) == (257, 8, False)
    assert (growing.input_tokens, growing.output_tokens) == (30, 6)


def test_totals_that_fall_on_one_side_are_no_running_totals() -> None:
    record = streamed("somebody", usage(55, 8), usage(202, 0))

    assert (record.input_tokens, record.output_tokens) == (257, 8)


def test_running_totals_of_anybody_else_are_counted_once() -> None:
    record = streamed("somebody", usage(12, 1), usage(12, 5), usage(12, 8))

    assert (record.input_tokens, record.output_tokens) == (12, 8)


# ------------------------------------------------------------------------------------------ Cohere, Mistral


def test_coheres_own_count_tells_the_reasoning_and_not_the_cache() -> None:
    counted = {"input_tokens": 100.0, "output_tokens": 20.0, "reasoning_tokens": 7}

    record = invoked("cohere", token_count=counted)

    assert (record.input_tokens, record.output_tokens, record.reasoning_tokens) == (100, 20, 7)
    assert (record.estimated, record.missing) == (True, ("cache_read_tokens",))


def test_of_a_stream_cohere_tells_only_what_is_billed() -> None:
    record = streamed("cohere", usage(51, 66), token_count=usage(51, 66), finish_reason="COMPLETE")

    assert record.estimated
    assert {"input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"} <= set(record.missing)
    assert record.input_tokens >= 51
    assert record.output_tokens >= 66


def test_mistral_keeps_the_cache_of_a_stream_to_itself() -> None:
    assert streamed("mistral", usage(100, 20)).missing == ("cache_read_tokens",)
    assert invoked("mistral", token_usage={"prompt_tokens": 100, "completion_tokens": 20}).missing == ()


def test_what_mistrals_total_has_more_is_sound() -> None:
    record = streamed("mistral", {"input_tokens": 9, "output_tokens": 248, "total_tokens": 632})

    assert (record.input_tokens, record.usage and record.usage.input_audio_tokens) == (384, 375)


# ------------------------------------------------------------------------------------------------ Bedrock


def _cached_for(lives: str) -> list[HumanMessage]:
    control = {"type": "ephemeral", "ttl": lives}
    return [HumanMessage([{"type": "text", "text": "A long text.", "cache_control": control}])]


@pytest.mark.parametrize("provider", ["amazon_bedrock", "anthropic-bedrock"])
def test_bedrock_does_not_tell_which_cache_writes_live_for_an_hour(provider: str) -> None:
    written = usage(100, 20, input_token_details={"cache_creation": 90})
    told = usage(100, 20, input_token_details={"cache_creation": 0, "ephemeral_1h_input_tokens": 90})

    assert invoked(provider, _cached_for("1h"), written).missing == ("cache_write_1h_tokens",)
    assert invoked(provider, _cached_for("5m"), written).missing == ()
    assert invoked(provider, _cached_for("1h")).missing == ()
    assert invoked(provider, _cached_for("1h"), told).missing == ()


# ----------------------------------------------------------------------------------------------- refusals


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, status: int) -> None:
        super().__init__("refused")
        self.response = {"Error": {"Code": "Throttling"}, "ResponseMetadata": {"HTTPStatusCode": status}}


def _wrapped() -> Exception:
    request = httpx.Request("POST", "http://localhost/")
    wrapped = RuntimeError("rate limited")
    wrapped.__cause__ = httpx.HTTPStatusError("429", request=request, response=httpx.Response(429, request=request))
    return wrapped


@pytest.mark.parametrize("error", [ClientError(403), _wrapped()], ids=["botocore", "raised from an HTTP error"])
def test_a_refused_call_costs_nothing_whatever_raises(error: Exception) -> None:
    meter = Meter(strict=True)

    with pytest.raises(type(error)):
        Integration(provider="somebody", error=error).invoke("hello", {"callbacks": [MeterCallback(meter)]})

    (record,) = meter.history()
    assert (record.status, record.estimated, record.billed_cost_usd) == (Status.ERROR, False, 0)


def test_an_answer_that_botocore_received_may_have_been_billed() -> None:
    meter = Meter(strict=True)

    with pytest.raises(ClientError):
        Integration(provider="somebody", error=ClientError(200)).invoke("hello", {"callbacks": [MeterCallback(meter)]})

    assert meter.history()[0].estimated

"""Whatever a framework or a provider calls a model, the right entry of the price list is found, or a reason given."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent_meter.pricing import PriceBook, Rates
from agent_meter.pricing.names import host_of, local_tag, private, proprietary, provider_key
from agent_meter.records import CostStatus, Model, TokenUsage

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
USAGE = TokenUsage(1000, 500)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(discover=False)


def status(rates: Rates) -> CostStatus:
    return rates.price(USAGE, AT).status


@pytest.mark.parametrize(
    ("provider", "name", "found"),
    [
        ("openai", "gpt-4o", "openai/gpt-4o"),
        ("", "gpt-4o", "openai/gpt-4o"),
        ("", "GPT-4o", "openai/gpt-4o"),
        ("", " gpt-4o ", "openai/gpt-4o"),
        ("openai", "gpt-4o-2024-08-06", "openai/gpt-4o"),
        ("openai", "gpt-4o-20240806", "openai/gpt-4o"),
        ("openai", "gpt-4o-2024-05-13", "openai/gpt-4o-2024-05-13"),
        ("", "openai/gpt-4o", "openai/gpt-4o"),
        ("", "openai:gpt-4o", "openai/gpt-4o"),
        ("ChatOpenAI", "gpt-4o", "openai/gpt-4o"),
        ("openai", "gpt-4ogpt-4o", "openai/gpt-4o"),
        ("", "o3", "openai/o3"),
        ("", "text-embedding-3-small", "openai/text-embedding-3-small"),
        ("", "chatgpt-4o-latest", "openai/chatgpt-4o-latest"),
        ("", "ft:gpt-4o-mini-2024-07-18:org::abc", "openai/ft:gpt-4o-mini"),
        ("azure_openai", "gpt-4o", "azure/gpt-4o"),
        ("azure", "gpt-35-turbo", "azure/gpt-3.5-turbo"),
        ("azure.ai.openai", "gpt-4o", "azure/gpt-4o"),
        ("az.ai.openai", "gpt-4o", "azure/gpt-4o"),
        ("AzureChatOpenAI", "gpt-4o", "azure/gpt-4o"),
        ("", "azure/gpt-4o", "azure/gpt-4o"),
        ("litellm", "azure/gpt-4o", "azure/gpt-4o"),
        ("", "anthropic/claude-3-5-sonnet-20241022", "anthropic/claude-3-5-sonnet"),
        ("", "claude-3-5-sonnet-latest", "anthropic/claude-3-5-sonnet"),
        ("", "claude-3-opus", "anthropic/claude-3-opus-latest"),
        ("google_vertexai", "claude-3-5-sonnet-v2@20241022", "google/claude-3-5-sonnet"),
        ("google_genai", "models/gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("", "gemini/gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("vertex_ai", "publishers/google/models/gemini-2.5-pro", "google/gemini-2.5-pro"),
        ("gcp.gemini", "gemini-2.5-pro", "google/gemini-2.5-pro"),
        (
            "vertexai",
            "projects/p/locations/us-central1/publishers/google/models/gemini-2.5-pro",
            "google/gemini-2.5-pro",
        ),
        (
            "bedrock",
            "anthropic.claude-3-5-sonnet-20241022-v2:0",
            "aws/regional.anthropic.claude-3-5-sonnet-20241022-v2:0",
        ),
        ("", "bedrock/amazon.nova-pro-v1:0", "aws/amazon.nova-pro-v1:0"),
        (
            "",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "aws",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "aws.bedrock",
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0",
            "aws/regional.anthropic.claude-3-haiku-20240307-v1:0",
        ),
        ("groq", "llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile"),
        ("", "groq/llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile"),
        ("groq", "openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        ("openrouter", "openai/gpt-4o", "openrouter/openai/gpt-4o"),
        ("", "openrouter/openai/gpt-4o", "openrouter/openai/gpt-4o"),
        ("x_ai", "grok-4", "x-ai/grok-4-0709"),
        ("mistralai", "mistral-small-latest", "mistral/mistral-small-latest"),
        ("together_ai", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "together/meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("voyage", "voyage-3-large", "voyageai/voyage-3-large"),
        ("", "cohere/command-a-03-2025", "cohere/command-a"),
        ("deepseek", "deepseek-chat", "deepseek/deepseek-chat"),
        ("perplexity_ai", "sonar", "perplexity/sonar"),
    ],
)
def test_a_name_is_found_for_certain(book: PriceBook, provider: str, name: str, found: str) -> None:
    rates = book.find(Model(provider, name))

    assert rates.known, rates
    assert f"{rates.provider}/{rates.model}".lower() == found.lower()
    assert not any("rates used" in segment.note for segment in rates.segments), rates.segments


@pytest.mark.parametrize(
    ("provider", "name", "found"),
    [
        ("my-gateway", "gpt-4o", "openai/gpt-4o"),
        ("portkey", "openai/gpt-4o", "openai/gpt-4o"),
        ("openai", "claude-3-haiku", "anthropic/claude-3-haiku"),
        ("", "gpt-4o-2099-01-01", "openai/gpt-4o"),
        ("openrouter", "openai/gpt-4o:online", "openrouter/openai/gpt-4o"),
        ("", "mistral-nemo", "mistral/mistral-nemo"),
        ("", "mistralai/mistral-nemo", "mistral/mistral-nemo"),
    ],
)
def test_a_guess_is_estimated_and_says_what_it_assumed(book: PriceBook, provider: str, name: str, found: str) -> None:
    rates = book.find(Model(provider, name))

    cost = rates.price(USAGE, AT)

    assert f"{rates.provider}/{rates.model}" == found
    assert cost.status is CostStatus.ESTIMATED
    assert cost.assumptions


@pytest.mark.parametrize(
    ("provider", "name", "reason"),
    [
        ("", "", "no model was named"),
        ("", "gpt-9-turbo", "'gpt-9-turbo' is not in openai's price list"),
        ("", "nobodys-model", "no provider named, and none is known for 'nobodys-model'"),
        ("acme", "llama-3", "unknown provider 'acme'"),
        ("watsonx", "google/flan-ul2", "unknown provider 'watsonx'"),
        ("azure", "my-deployment", "like ="),
        ("", "deepseek-r1:8b", "looks like a local model"),
        ("", "llama3.2:latest", "looks like a local model"),
        ("openai", "ft:gpt-5-nano:org::x", "fine-tuned"),
        ("aws", "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", "hides its model"),
        ("ollama", "gpt-oss:120b-cloud", "not on a machine of yours"),
    ],
)
def test_what_cannot_be_priced_says_why(book: PriceBook, provider: str, name: str, reason: str) -> None:
    rates = book.find(Model(provider, name))

    cost = rates.price(USAGE, AT)

    assert not rates.known
    assert reason in rates.reason
    assert (cost.status, cost.list_pico, cost.reason) == (CostStatus.UNPRICED, None, rates.reason)


@pytest.mark.parametrize(
    "model",
    [
        Model("ollama", "llama3"),
        Model("ollama", "gpt-4o"),  # somebody's own tag
        Model("ChatOllama", "qwen3"),
        Model("", "ollama/llama3.2"),
        Model("llama.cpp", "anything"),
        Model("llamafile", "x"),
        Model("vllm", "meta-llama/Llama-3.3-70B-Instruct", "https://gpu.example.com/v1"),
        Model("hosted_vllm", "deepseek-r1"),
        Model("lmstudio", "x"),
        Model("lm_studio", "x"),
        Model("LM-Studio", "x"),
        Model("localai", "x"),
        Model("gpt4all", "x"),
        Model("mlx", "x"),
        Model("text-generation-inference", "x", "http://10.1.2.3:8080"),
        Model("openai", "llama3.2", "http://localhost:11434/v1"),
        Model("openai", "mistralai/ministral-3-14b-reasoning", "http://127.0.0.1:1234/v1"),
        Model("openai", "command-r:35b", "http://localhost:11434/v1"),
        Model("openai", "gpt-oss:20b", "localhost:11434"),
        Model("openai", "nobodys-model", "http://10.0.0.3:8000/v1"),
        Model("", "nobodys-model", "http://[::1]:8000/v1"),
        Model("openai", "qwen2.5-coder", "http://vllm:8000/v1"),
        Model("openai", "gemma-3", "http://models.corp.internal/v1"),
        Model("anthropic", "qwen3-coder", "http://127.0.0.1:8080"),
    ],
    ids=str,
)
def test_what_runs_on_own_machines_is_free(book: PriceBook, model: Model) -> None:
    cost = book.find(model).price(USAGE, AT)

    assert (cost.status, cost.list_pico) == (CostStatus.FREE, 0)


@pytest.mark.parametrize(
    "model",
    [
        Model("openai", "gpt-4o", "http://localhost:4000"),
        Model("openai", "o3-mini", "http://127.0.0.1:4000/v1"),
        Model("anthropic", "claude-sonnet-4-5", "http://localhost:8080"),
        Model("openai", "claude-sonnet-4-5", "http://litellm:4000"),
        Model("google", "gemini-2.5-pro", "http://192.168.1.9:9000"),
        Model("xai", "grok-4", "http://localhost:1"),
        Model("cohere", "command-r-plus", "http://localhost:1"),
        Model("openai", "mistral-large-latest", "http://localhost:1"),
        Model("openai", "groq/llama-3.3-70b-versatile", "http://localhost:4000"),
        Model("groq", "llama-3.3-70b-versatile", "http://127.0.0.1:9"),
    ],
    ids=str,
)
def test_a_vendors_model_behind_a_local_address_is_a_gateway_and_is_priced(book: PriceBook, model: Model) -> None:
    cost = book.find(model).price(USAGE, AT)

    assert cost.list_pico
    assert cost.status in (CostStatus.PRICED, CostStatus.ESTIMATED)


def test_a_rented_inference_server_is_not_local(book: PriceBook) -> None:
    rented = book.find(Model("text-generation-inference", "llama-3", "https://x.endpoints.huggingface.cloud"))

    assert "not on a machine of yours" in rented.reason


def test_the_address_says_who_answers_when_an_openai_client_calls_somebody_else(book: PriceBook) -> None:
    found = book.find(Model("openai", "openai/gpt-oss-120b", "https://api.groq.com/openai/v1"))

    assert (found.provider, status(found)) == ("groq", CostStatus.PRICED)


def test_a_free_model_of_openrouter_is_free_and_a_model_without_rates_is_not(book: PriceBook) -> None:
    free = book.find(Model("openrouter", "meta-llama/llama-3.3-70b-instruct:free"))
    blank = [m for m in book.price_list.providers["cerebras"].models if not vars(m.prices)]

    assert status(free) is CostStatus.FREE
    assert blank
    assert status(book.find(Model("cerebras", blank[0].id))) is CostStatus.UNPRICED


@pytest.mark.parametrize(
    ("endpoint", "host", "is_private"),
    [
        ("http://localhost:11434/v1", "localhost", True),
        ("127.0.0.1:8000", "127.0.0.1", True),
        ("http://[::1]:80/", "::1", True),
        ("http://user:pw@10.1.2.3/v1", "10.1.2.3", True),
        ("http://172.16.0.1", "172.16.0.1", True),
        ("http://172.32.0.1", "172.32.0.1", False),
        ("http://100.64.1.1", "100.64.1.1", True),
        ("http://host.docker.internal:1234", "host.docker.internal", True),
        ("https://api.openai.com/v1", "api.openai.com", False),
        ("https://10.example.com", "10.example.com", False),
        ("", "", False),
    ],
)
def test_a_private_address_is_told_from_a_public_one(endpoint: str, host: str, is_private: bool) -> None:
    assert (host_of(endpoint), private(endpoint)) == (host, is_private)


def test_proprietary_names_are_told_from_open_weights() -> None:
    vendors = (
        "gpt-4o o1 o3-mini chatgpt-4o-latest openai/gpt-5 claude-3-haiku gemini-2.5-pro grok-4 command-r-plus "
        "mistral-large-latest ft:gpt-4o-mini:o::x text-embedding-3-small"
    )
    anybodys = "gpt-oss-120b llama-3.3 qwen3 deepseek-r1 mistral-nemo olmo-2 command-r:35b phi-4"

    assert [name for name in vendors.split() if not proprietary(name)] == []
    assert [name for name in anybodys.split() if proprietary(name)] == []


def test_tags_of_ollama_are_told_from_versions_of_bedrock() -> None:
    tagged = "llama3.2:latest deepseek-r1:8b qwen2:7b-instruct-q4_0 gemma3n:e4b"
    others = "gpt-4o amazon.nova-pro-v1:0 ft:gpt-4o:org::x a/b:free"

    assert all(local_tag(name) for name in tagged.split())
    assert not any(local_tag(name) for name in others.split())


def test_one_provider_has_one_spelling() -> None:
    assert {provider_key(n) for n in ("azure_openai", "Azure-OpenAI", "az.ai.openai", "AzureChatOpenAI")} == {"azure"}


def test_hits_and_misses_are_remembered_and_forgotten_in_bounds(book: PriceBook) -> None:
    for n in range(9000):
        book.find(Model("openai", f"no-such-model-{n}"))

    assert len(list(book.known())) <= 4096
    assert book.find(Model("openai", "gpt-4o")) is book.find(Model("openai", "gpt-4o"))

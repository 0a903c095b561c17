"""MeteredEmbeddings: the provider's own count where its client tells it, else an estimate that says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import llama_index.core
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import AzureOpenAIEmbeddings, OpenAIEmbeddings
from langgraph.errors import GraphBubbleUp
from pydantic import BaseModel, PrivateAttr

from agent_meter import BudgetExceeded, Call, Denial, Kind, Meter, Status, hookimpl
from agent_meter.adapters.langchain import MeterCallback, MeteredEmbeddings, metering
from agent_meter.testing import ErrorReply, Hang, LoopbackProvider, RecordingPlugin, Reply

MODEL = "text-embedding-3-small"  # $0.02 for 1M tokens


@pytest.fixture
def meter() -> Meter:
    return Meter(strict=True)


@pytest.fixture
def provider(loopback: Callable[..., LoopbackProvider]) -> LoopbackProvider:
    return loopback()


def openai(provider: LoopbackProvider, **options: Any) -> OpenAIEmbeddings:
    options = {"check_embedding_ctx_length": False, "max_retries": 0, **options}
    return OpenAIEmbeddings(model=MODEL, base_url=provider.openai_base_url, api_key="none", **options)


# ------------------------------------------------------------------------------------------------ exact counts


def test_openais_count_and_price_are_recorded(meter: Meter, loopback: Callable[..., LoopbackProvider]) -> None:
    provider = loopback([Reply(input_tokens=1_000_000)])
    embeddings = MeteredEmbeddings(openai(provider), meter)

    vectors = embeddings.embed_documents(["a", "b"])

    (record,) = meter.history()
    assert len(vectors) == 2
    assert (record.kind, record.input_tokens, record.output_tokens) == (Kind.EMBEDDING, 1_000_000, 0)
    assert (record.provider, record.request_model, record.response_model) == ("openai", MODEL, MODEL)
    assert (record.estimated, record.cost_usd) == (False, Decimal("0.02"))
    assert meter.usage.embedding_tokens == 1_000_000
    assert meter.usage.total_tokens == 0  # embeddings are counted beside


async def test_every_way_to_ask_is_counted(meter: Meter, provider: LoopbackProvider) -> None:
    embeddings = MeteredEmbeddings(openai(provider), meter)

    embeddings.embed_query("one")
    embeddings.embed_documents(["one", "two"])
    await embeddings.aembed_query("three")
    await embeddings.aembed_documents(["three", "four"])

    assert [record.input_tokens for record in meter.history()] == [usage.input_tokens for usage in provider.truth]
    assert meter.usage.embedding_tokens == provider.total.input_tokens > 0
    assert not any(record.estimated for record in meter.history())


def test_the_vectors_are_those_of_the_wrapped_embeddings(meter: Meter, provider: LoopbackProvider) -> None:
    inner = openai(provider, dimensions=5)

    assert MeteredEmbeddings(inner, meter).embed_documents(["a", "b"]) == inner.embed_documents(["a", "b"])


@pytest.fixture
def _tokenizer_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken fetches an encoding unless it is cached; llama-index-core ships this one."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(Path(llama_index.core.__file__).parent / "_static/tiktoken_cache"))


@pytest.mark.usefixtures("_tokenizer_files")
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_several_requests_of_one_call_add_up(asynchronous: bool, meter: Meter, provider: LoopbackProvider) -> None:
    """A text beyond the context length is cut in parts, and only so many are sent at once."""
    inner = openai(provider, check_embedding_ctx_length=True, embedding_ctx_length=10, chunk_size=2)
    embeddings = MeteredEmbeddings(inner, meter)

    texts = ["word " * 35, "short", "another short one"]
    if asynchronous:
        asyncio.run(embeddings.aembed_documents(texts))
    else:
        embeddings.embed_documents(texts)

    assert len(provider.requests) == 3
    assert [record.input_tokens for record in meter.history()] == [provider.total.input_tokens]
    assert not meter.history()[0].estimated


def test_azures_count_is_recorded_under_the_model_that_answered(meter: Meter, provider: LoopbackProvider) -> None:
    inner = AzureOpenAIEmbeddings(
        model=MODEL,
        azure_deployment="my-deployment",
        azure_endpoint=provider.url,
        api_version="2024-06-01",
        api_key="none",
        check_embedding_ctx_length=False,
    )

    MeteredEmbeddings(inner, meter).embed_query("one")

    (record,) = meter.history()
    assert (record.provider, record.model, record.estimated) == ("azure", MODEL, False)
    assert record.input_tokens == provider.total.input_tokens


def test_calls_at_the_same_time_hear_each_their_own_answer(meter: Meter, provider: LoopbackProvider) -> None:
    embeddings = MeteredEmbeddings(openai(provider), meter)
    texts = ["x" * 4 * tokens for tokens in range(1, 41)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(embeddings.embed_query, texts))

    assert sorted(record.input_tokens for record in meter.history()) == list(range(1, 41))


async def test_tasks_at_the_same_time_hear_each_their_own_answer(meter: Meter, provider: LoopbackProvider) -> None:
    embeddings = MeteredEmbeddings(openai(provider), meter)
    texts = ["x" * 4 * tokens for tokens in range(1, 41)]

    await asyncio.gather(*map(embeddings.aembed_query, texts))

    assert sorted(record.input_tokens for record in meter.history()) == list(range(1, 41))


def test_the_wrapped_embeddings_stay_as_they_are(meter: Meter, provider: LoopbackProvider) -> None:
    inner = openai(provider)
    clients = inner.client, inner.async_client
    embeddings = MeteredEmbeddings(inner, meter)

    embeddings.embed_query("one")
    inner.embed_query("unmetered")

    assert (inner.client, inner.async_client) == clients
    assert meter.usage.requests == 1
    assert embeddings.model == MODEL
    assert isinstance(embeddings, Embeddings)


class Client:
    """A client as those of Cohere and Ollama are: `embed` tells what was used."""

    def __init__(self, **answer: Any) -> None:
        self._answer = SimpleNamespace(**answer)

    def embed(self, **_: Any) -> Any:
        return self._answer


class OfCohere(BaseModel, Embeddings):
    """Asks as langchain-cohere does."""

    model: str = "embed-v4.0"
    client: Any = None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.client.embed(texts=texts).embeddings

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class OfOllama(OfCohere):
    """Asks as langchain-ollama does."""

    _client: Any = PrivateAttr()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._client.embed(input=texts).embeddings


def test_cohere_tells_what_it_bills(meter: Meter) -> None:
    billed = SimpleNamespace(billed_units=SimpleNamespace(input_tokens=17))
    inner = OfCohere(client=Client(embeddings=[[0.0]], meta=billed))

    MeteredEmbeddings(inner, meter, provider="cohere").embed_query("one")

    (record,) = meter.history()
    assert (record.input_tokens, record.estimated, record.provider) == (17, False, "cohere")


def test_ollama_tells_what_it_read(meter: Meter) -> None:
    inner = OfOllama(model="nomic-embed-text")
    inner._client = Client(embeddings=[[0.0]], prompt_eval_count=11, model="nomic-embed-text")

    MeteredEmbeddings(inner, meter, provider="ollama").embed_query("one")

    (record,) = meter.history()
    assert (record.input_tokens, record.estimated, record.cost_usd) == (11, False, 0)


# --------------------------------------------------------------------------------------------------- estimates


async def test_what_a_client_does_not_tell_is_estimated_and_flagged(meter: Meter) -> None:
    embeddings = MeteredEmbeddings(DeterministicFakeEmbedding(size=3), meter, model=MODEL, provider="openai")

    embeddings.embed_documents(["How are you today?", "Fine."])
    await embeddings.aembed_query("How are you today?")

    first, second = meter.history()
    assert 4 <= second.input_tokens <= 7  # five to OpenAI's own tokenizer
    assert first.input_tokens > second.input_tokens
    assert first.estimated
    assert (first.missing, first.notes) == (
        ("input_tokens",),
        ("the client does not tell what was used; it is estimated",),
    )
    assert first.cost.status == "estimated"


@pytest.mark.parametrize(
    ("kind", "provider", "model"),
    [("FakeEmbeddings", "fake", ""), ("HuggingFaceEmbeddings", "huggingface", "e5"), ("Mine", "mine", "e5")],
)
def test_a_class_of_nobodys_package_names_its_provider(kind: str, provider: str, model: str, meter: Meter) -> None:
    def embed_query(self: object, text: str) -> list[float]:
        return [0.0]

    members = {"embed_query": embed_query, "embed_documents": lambda self, texts: [], "model_name": model}

    MeteredEmbeddings(type(kind, (Embeddings,), members)(), meter).embed_query("one")

    assert (meter.history()[0].provider, meter.history()[0].request_model) == (provider, model)


def test_a_server_that_tells_no_usage_is_estimated(meter: Meter) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        data = [{"object": "embedding", "index": 0, "embedding": [0.0]}]
        return httpx.Response(200, json={"object": "list", "data": data, "model": "local"})

    inner = OpenAIEmbeddings(
        model="local",
        api_key="none",
        base_url="http://127.0.0.1/v1",
        check_embedding_ctx_length=False,
        http_client=httpx.Client(transport=httpx.MockTransport(answer)),
    )

    MeteredEmbeddings(inner, meter).embed_query("How are you today?")

    (record,) = meter.history()
    assert record.estimated
    assert record.input_tokens > 0


def test_no_texts_are_no_call(meter: Meter, provider: LoopbackProvider) -> None:
    assert MeteredEmbeddings(openai(provider), meter).embed_documents([]) == []
    assert (meter.usage.requests, provider.requests) == (0, [])


# ------------------------------------------------------------------------------------------------------ errors


def test_a_refused_request_is_an_error_that_bills_nothing(
    meter: Meter, loopback: Callable[..., LoopbackProvider]
) -> None:
    embeddings = MeteredEmbeddings(openai(loopback([ErrorReply(400)])), meter)

    with pytest.raises(Exception, match="400"):
        embeddings.embed_query("one")

    (record,) = meter.history()
    assert (record.status, record.error_type, record.usage) == (Status.ERROR, "BadRequestError", None)
    assert (record.billed_cost_usd, record.estimated) == (0, False)


def test_what_was_answered_before_a_request_failed_is_kept(
    meter: Meter, loopback: Callable[..., LoopbackProvider]
) -> None:
    provider = loopback([Reply(input_tokens=30), Reply(input_tokens=12), ErrorReply(400)])
    embeddings = MeteredEmbeddings(openai(provider, chunk_size=1), meter)

    with pytest.raises(Exception, match="400"):
        embeddings.embed_documents(["a", "b", "c", "d"])

    (record,) = meter.history()
    assert (record.status, record.input_tokens, record.estimated) == (Status.ERROR, 42, False)
    assert record.billed_cost_usd == 42 * Decimal("0.00000002")


async def test_a_cancelled_call_has_unknown_usage(meter: Meter, loopback: Callable[..., LoopbackProvider]) -> None:
    embeddings = MeteredEmbeddings(openai(loopback([Hang(10)])), meter)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(embeddings.aembed_query("one"), 0.2)

    (record,) = meter.history()
    assert (record.status, record.usage, record.estimated, record.cost_usd) == (Status.CANCELLED, None, True, None)
    assert meter.health()["open_calls"] == 0


def test_an_answer_that_cannot_be_read_reaches_its_caller(meter: Meter) -> None:
    """A failure of ours is counted, and the vectors are there."""

    class Answer:
        embeddings = ((0.0,),)

        @property
        def meta(self) -> Any:
            raise RuntimeError("not me")

    class Odd(Client):
        def embed(self, **_: Any) -> Any:
            return Answer()

    embeddings = MeteredEmbeddings(OfCohere(client=Odd()), meter)

    assert embeddings.embed_query("one") == (0.0,)
    assert meter.history()[0].estimated


def test_a_copy_that_cannot_be_made_fails_no_call(provider: LoopbackProvider) -> None:
    class Uncopied(OfCohere):
        def model_copy(self, **_: Any) -> Any:
            raise RuntimeError("not me")

    meter = Meter()
    embeddings = MeteredEmbeddings(Uncopied(client=Client(embeddings=[[0.0]])), meter)

    assert embeddings.embed_query("one") == [0.0]
    assert meter.health()["failures"] == {"langchain": {"embedding": 1}}
    assert (meter.usage.requests, meter.health()["open_calls"]) == (1, 0)


# ------------------------------------------------------------------------------------------ refusals, content


class Guard:
    def __init__(self) -> None:
        self.reserved: list[Any] = []

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        self.reserved.append(call.reserve)
        return Denial("the budget is gone", "budget")


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_denied_call_is_never_sent(asynchronous: bool, provider: LoopbackProvider) -> None:
    guard = Guard()
    meter = Meter([guard])
    embeddings = MeteredEmbeddings(openai(provider), meter)

    def ask(text: str) -> object:
        return asyncio.run(embeddings.aembed_query(text)) if asynchronous else embeddings.embed_query(text)

    with pytest.raises(BudgetExceeded, match="the budget is gone") as caught:
        ask("How are you today?")

    assert provider.requests == []
    assert [record.status for record in meter.history(include_denied=True)] == [Status.DENIED]
    assert isinstance(caught.value, GraphBubbleUp)  # no retry or tool-error handler of LangGraph swallows it
    assert guard.reserved[0].input_tokens >= 5


def test_texts_are_content_only_where_somebody_asks_for_it(provider: LoopbackProvider) -> None:
    curious, incurious = RecordingPlugin(), RecordingPlugin()
    curious.wants_content = True  # type: ignore[attr-defined]

    for plugin in (curious, incurious):
        MeteredEmbeddings(openai(provider), Meter([plugin])).embed_query("secret")

    assert curious.calls[0].content == ["secret"]
    assert incurious.calls[0].content is None


# ------------------------------------------------------------------------------------------------- whose it is


def test_inside_a_chain_it_belongs_to_the_chain_and_to_its_meter(meter: Meter, provider: LoopbackProvider) -> None:
    """No meter given: it is the one that is attached to the chain."""
    embeddings = MeteredEmbeddings(openai(provider))
    chain = RunnableLambda(lambda text: embeddings.embed_query(text)).with_config(run_name="search")

    with meter.scope(task="indexing"):
        chain.invoke("one", {"callbacks": [MeterCallback(meter)], "metadata": {"user_id": "u1", "thread_id": "t1"}})

    (record,) = meter.history()
    assert (record.user, record.session, record.task) == ("u1", "t1", "indexing")
    assert record.parent_id == record.run_id is not None
    assert meter.tree(record.run_id).usage.embedding_tokens == provider.total.input_tokens


def test_inside_a_tool_it_belongs_to_the_tool(meter: Meter, provider: LoopbackProvider) -> None:
    embeddings = MeteredEmbeddings(openai(provider), meter)
    seen = RecordingPlugin()
    meter.register(seen)

    @tool
    def search(query: str) -> str:
        """Look something up."""
        return str(len(embeddings.embed_query(query)))

    search.invoke({"query": "one"}, {"callbacks": [MeterCallback(meter)]})

    (used,) = (call for call in seen.calls if call.kind is Kind.TOOL)
    assert meter.history()[0].parent_id == used.id


async def test_inside_metering_it_belongs_to_the_block(meter: Meter, provider: LoopbackProvider) -> None:
    with metering(meter, "index") as run:
        await MeteredEmbeddings(openai(provider)).aembed_query("one")

    assert meter.history()[0].run_id == run.id
    assert run.usage.embedding_tokens == provider.total.input_tokens


class Caching(Embeddings):
    """What `CacheBackedEmbeddings` does: asks for what it does not have."""

    def __init__(self, inner: Embeddings) -> None:
        self.inner = inner
        self.kept: dict[str, str] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        new = [text for text in texts if text not in self.kept]
        self.kept.update(zip(new, map(json.dumps, self.inner.embed_documents(new)), strict=True))
        return [json.loads(self.kept[text]) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.inner.embed_query(text)


def test_inside_a_cache_only_what_is_sent_is_counted(meter: Meter, provider: LoopbackProvider) -> None:
    embeddings = Caching(MeteredEmbeddings(openai(provider), meter))

    embeddings.embed_documents(["a", "b"])
    embeddings.embed_documents(["b", "c"])
    embeddings.embed_documents(["a", "b", "c"])

    assert [request.body["input"] for request in provider.requests] == [["a", "b"], ["c"]]
    assert [record.usage for record in meter.history()] == provider.truth

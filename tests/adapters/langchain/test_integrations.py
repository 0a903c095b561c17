"""Every integration with every recorded conversation that it can ask for: right in all classes, or said to be not.

`test_corpus.py` does the same, call by call, for ChatOpenAI and ChatAnthropic.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.adapters.langchain.integrations import INTEGRATIONS, Integration, Place
from tests.adapters.langchain.recorded import aask, ask, wrong
from tests.corpus import conversations, replay_server

from agent_meter import Meter, Status, UsageRecord
from agent_meter.adapters.langchain import MeterCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # the SDKs', of fields newer and models older than they are

ELSEWHERE = {"ChatOpenAI", "ChatOpenAI (responses)", "ChatAnthropic"}
UNREAD = "it was sent and failed; whether it was answered, and billed, was not seen"
# What a client told nothing of, and the record then says.
TOLD = {
    "ChatCohere": "langchain-cohere tells neither what was cached nor what is billed",
    "ChatMistralAI": "langchain-mistralai does not tell how much of a stream's prompt was cached",
    "ChatGoogleGenerativeAI": "langchain-google-genai does not tell tokens of sound and pictures apart",
}
# Not in the dev extra, tried where they are: the others must be there.
OPTIONAL = {"langchain_together", "langchain_cerebras"}
CASES = [
    (integration, Place(document, index))
    for integration in INTEGRATIONS
    if integration.name not in ELSEWHERE and (integration.installed or integration.package not in OPTIONAL)
    for document in conversations()
    for index in range(len(document["interactions"]))
    if integration.asks(Place(document, index))
]
SAMPLE = [case for case in CASES if case[0].name != "BedrockLLM"][::6]  # which cannot ainvoke


def _name(value: Any) -> str:
    return f"{value.document['id']}-{value.index}" if isinstance(value, Place) else str(value.name)


@pytest.fixture(scope="module")
def lenient() -> Iterator[Any]:
    """A server that answers in the recorded form: ChatOllama asks for streams only."""
    with replay_server(match_stream=False) as server:
        yield server


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """langchain-aws logs the traceback of every refusal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    yield
    logging.disable(before)


def _model(integration: Integration, place: Place) -> Any:
    model = integration.make(place)
    place.aim()
    return model


def _check(meter: Meter, integration: Integration, place: Place, error: Exception | None) -> None:
    (record,) = meter.history()
    truth, usage = place.truth, record.usage

    assert place.served
    assert record.status is (Status.OK if error is None else Status.ERROR)
    assert meter.health()["failures"] == {}
    if truth["requests"] == 0:
        assert (record.total_tokens, record.estimated, record.billed_cost_usd) == (0, False, 0)
    elif truth.get("ambiguous"):
        assert usage is not None
        assert min(record.input_tokens, record.output_tokens, record.cache_read_tokens) >= 0
    elif usage is None:
        assert error is not None
        assert (record.estimated, record.notes) == (True, (UNREAD,))
    elif truth["input_total"] is None:
        assert (record.estimated, record.missing) == (True, ("input_tokens", "output_tokens"))
        assert record.notes
    else:
        _exact_or_flagged(record, truth, integration)


def _exact_or_flagged(record: UsageRecord, truth: Any, integration: Integration) -> None:
    assert wrong(record, truth).keys() <= set(record.missing)
    assert "input_tokens" not in record.missing
    assert "output_tokens" not in record.missing
    if record.missing:
        assert record.estimated
        assert record.notes == (TOLD[integration.name],)
    else:
        assert not record.estimated


@pytest.mark.parametrize(("integration", "place"), CASES, ids=_name)
def test_every_class_is_the_providers_or_said_to_be_missing(
    integration: Integration, place: Place, lenient: Any
) -> None:
    meter, place = Meter(), place._replace(server=lenient)
    model = _model(integration, place)

    error = ask(model, place.streamed, {"callbacks": [MeterCallback(meter)]}, place.question)

    _check(meter, integration, place, error)


@pytest.mark.parametrize(("integration", "place"), SAMPLE, ids=_name)
async def test_async_clients_lose_no_more(integration: Integration, place: Place, lenient: Any) -> None:
    meter, place = Meter(), place._replace(server=lenient)
    model = _model(integration, place)

    error = await aask(model, place.streamed, {"callbacks": [MeterCallback(meter)]}, place.question)

    _check(meter, integration, place, error)

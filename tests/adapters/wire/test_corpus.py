"""Every recorded call of real providers, through their own clients: exact in every class, on one record each."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.adapters.langchain.integrations import Place
from tests.adapters.langchain.recorded import wrong
from tests.adapters.wire.sdks import SDKS, Sdk
from tests.corpus import conversations, replay_server

from agent_meter import Meter, Status, UsageRecord, install

# Recorded answers whose own counts the truth has left out: a guardrail that stepped in, told in the model's words.
UNTOLD = {"bedrock--invoke--test-guardrail-invoke-stream--800ba95e"}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with replay_server(match_stream=False) as running:
        yield running


def places(sdk: Sdk, server: Any) -> Iterator[Place]:
    for document in conversations():
        for index in range(len(document["interactions"])):
            place = Place(document, index, server)
            if sdk.asks(place):
                yield place


def check(records: list[UsageRecord], place: Place, error: BaseException | None) -> str:
    """What is wrong with the records of one call, as a sentence."""
    truth: Mapping[str, Any] = place.truth
    beside = [record for record in records if any("billed beside" in note for note in record.notes)]
    answers = [record for record in records if record not in beside]
    if len(answers) != 1:
        return f"{len(answers)} records"
    (record,) = answers
    if len(record.attempts) != 1:
        return f"{len(record.attempts)} attempts"
    if truth["requests"] == 0:
        right = record.status is Status.ERROR and not record.total_tokens and not record.estimated
        return "" if right else f"a refused call: {record}"
    if truth.get("ambiguous") or place.document["id"] in UNTOLD:
        return "" if min(record.input_tokens, record.output_tokens) >= 0 else "negative"
    if truth["input_total"] is None:
        return "" if record.estimated or (record.usage and record.usage.units) else "nothing told, and nothing flagged"
    if wrong(record, truth):
        return f"{wrong(record, truth)} {record.notes} {record.status} {error!r}"
    if record.estimated and not (record.usage and record.usage.problems):
        return f"estimated: {record.missing} {record.notes}"
    told = sum(p["input_total"] + p["output_total"] for p in truth.get("billed_extra") or ())
    return "" if sum(r.total_tokens for r in beside) == told else "passes"


@pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if sdk.name != "aiohttp"], ids=lambda sdk: sdk.name)
def test_through_its_own_client_every_call_is_exact(sdk: Sdk, server: Any) -> None:
    if not sdk.installed:
        pytest.skip(f"{sdk.package} is not installed")
    failed, calls = [], 0
    for place in list(places(sdk, server))[:: 3 if sdk.name == "requests" else 1]:
        meter = Meter(prices={})
        client = meter.wrap(sdk.make(place))
        place.aim()
        error = _ask(sdk, place, client)
        assert place.served, (sdk.name, place.document["id"], place.index, error)
        calls += 1
        if found := check(meter.history(), place, error) or unwell(meter):
            failed.append(f"{place.document['id']}, call {place.index}: {found}")
        _close(client)

    assert failed == []
    assert calls


@pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if sdk.aask is not None], ids=lambda sdk: sdk.name)
async def test_through_its_asynchronous_client_too(sdk: Sdk, server: Any) -> None:
    if not sdk.installed:
        pytest.skip(f"{sdk.package} is not installed")
    failed, calls = [], 0
    assert sdk.amake is not None
    assert sdk.aask is not None
    for number, place in enumerate(places(sdk, server)):
        if number % 3 and sdk.name in ("openai", "aiohttp"):
            continue
        client = sdk.amake(place)
        if inspect.isawaitable(client):
            client = await client
        meter = Meter(prices={})
        meter.wrap(client)
        place.aim()
        error = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                await sdk.aask(place, client)
            except Exception as raised:
                error = raised.with_traceback(None)
                gc.collect()  # some clients leave a stream open that has failed
                await asyncio.sleep(0.01)
        assert place.served, (sdk.name, place.document["id"], place.index, error)
        calls += 1
        if found := check(meter.history(), place, error) or unwell(meter):
            failed.append(f"{place.document['id']}, call {place.index}: {found}")
        await _aclose(client)

    assert failed == []
    assert calls


@pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if sdk.name != "aiohttp"], ids=lambda sdk: sdk.name)
def test_installed_in_the_process_it_is_the_same(sdk: Sdk, server: Any) -> None:
    if not sdk.installed:
        pytest.skip(f"{sdk.package} is not installed")
    failed = []
    for place in list(places(sdk, server))[::5]:
        client = sdk.make(place)
        place.aim()
        with Meter(prices={}) as meter, install(meter, wire=True):
            error = _ask(sdk, place, client)
            if found := check(meter.history(), place, error) or unwell(meter):
                failed.append(f"{place.document['id']}, call {place.index}: {found}")
        _close(client)

    assert failed == []


def _ask(sdk: Sdk, place: Place, client: Any) -> BaseException | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sdk.ask(place, client)
        except Exception as error:
            error.with_traceback(None)
            gc.collect()  # some clients leave a stream open that has failed
            return error
    return None


def unwell(meter: Meter) -> str:
    health = meter.health()
    return "" if health["ok"] and not health["open_calls"] else str(health)


def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        client.close()


async def _aclose(client: Any) -> None:
    with contextlib.suppress(Exception):
        closed = client.close()
        if inspect.isawaitable(closed):
            await closed

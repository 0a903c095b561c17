"""A denied call is never sent, the caller sees it, and a model's own rate limiter is left to it."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.rate_limiter import BaseRateLimiter
from tests.adapters.llama_index.models import Completing, Embedding, Scripted, turn
from tests.adapters.llama_index.test_calls import QUESTION, WAYS

from agent_meter import BudgetExceeded, Meter, Status, hookimpl
from agent_meter.adapters.llama_index import MeterHandler
from agent_meter.records import Call, Denial

# LlamaIndex looks at every attribute of an agent, its deprecated ones too.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Guard:
    """Lets so many model calls through."""

    def __init__(self, calls: int = 0) -> None:
        self.left = calls
        self.asked = 0

    @hookimpl
    def meter_admit_call(self, call: Call) -> Denial | None:
        self.asked += 1
        self.left -= 1
        return Denial("that was enough") if self.left < 0 else None


@pytest.fixture
def guard(meter: Meter) -> Guard:
    guard = Guard()
    meter.register(guard)
    return guard


class Limiter(BaseRateLimiter):
    """The user's own. Equal to another one with the same count, and it pickles."""

    def __init__(self) -> None:
        self.acquired = 0
        self.pace = 3

    def acquire(self, num_tokens: int = 0) -> None:
        self.acquired += 1

    async def async_acquire(self, num_tokens: int = 0) -> None:
        self.acquired += 1


@pytest.mark.parametrize("way", WAYS)
def test_a_denied_call_is_not_sent_whichever_way_it_is_asked(way: str, meter: Meter, guard: Guard) -> None:
    llm = Completing(asked=[])

    with pytest.raises(BudgetExceeded, match="that was enough"):
        WAYS[way](llm)

    assert llm.asked == []
    assert meter.history() == []
    assert [record.status for record in meter.history(include_denied=True)] == [Status.DENIED]


@pytest.mark.parametrize("way", WAYS)
def test_guards_are_asked_once_for_one_call(way: str, meter: Meter, guard: Guard) -> None:
    guard.left = 1

    WAYS[way](Completing(asked=[]))

    assert guard.asked == 1
    assert meter.usage.requests == 1


EMBEDDINGS: dict[str, Callable[[Any], Any]] = {
    "query": lambda model: model.get_query_embedding("a"),
    "aquery": lambda model: asyncio.run(model.aget_query_embedding("a")),
    "text": lambda model: model.get_text_embedding("a"),
    "batch": lambda model: model.get_text_embedding_batch(["a", "b"]),
    "abatch": lambda model: asyncio.run(model.aget_text_embedding_batch(["a", "b"])),
}


@pytest.mark.parametrize("way", EMBEDDINGS)
def test_a_denied_embedding_is_not_sent(way: str, meter: Meter, guard: Guard) -> None:
    model = Embedding(sent=[])

    with pytest.raises(BudgetExceeded):
        EMBEDDINGS[way](model)

    assert model.sent == []
    assert meter.history() == []


async def test_a_denial_ends_an_agents_run(meter: Meter, guard: Guard) -> None:
    def lookup(word: str) -> str:
        """Looks a word up."""
        return word

    guard.left = 2  # the model, and the tool that it asks for
    llm = Scripted(turns=[turn("", ("lookup", {"word": "x"}))])

    with pytest.raises(BudgetExceeded):
        await FunctionAgent(llm=llm, tools=[lookup]).run("What is x?")

    assert llm.asked == 1
    assert meter.usage.requests == 1


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_refused_too_and_have_the_users_own_limiter(
    copied: Callable[[Any], Any], meter: Meter, guard: Guard, recwarn: pytest.WarningsRecorder
) -> None:
    guard.left = 1
    llm = Completing(asked=[], rate_limiter=Limiter())
    llm.complete("Is it?")

    again = copied(llm)

    with pytest.raises(BudgetExceeded):
        again.complete("Is it?")
    assert again.rate_limiter.pace == 3
    assert llm.rate_limiter.acquired == 1
    assert not [warning for warning in recwarn if "unpickleable" in str(warning.message).lower()]


def test_a_copy_without_a_meter_has_the_limiter_itself(meter: Meter) -> None:
    llm = Completing(asked=[], rate_limiter=Limiter())
    bare = Completing(asked=[])
    llm.complete("Is it?")
    bare.complete("Is it?")

    assert type(copy.deepcopy(llm).rate_limiter) is Limiter
    assert copy.deepcopy(bare).rate_limiter is None
    assert type(pickle.loads(pickle.dumps(llm)).rate_limiter) is Limiter


def test_the_users_own_limiter_is_asked_as_before(meter: Meter) -> None:
    limiter = Limiter()
    Completing(asked=[], rate_limiter=limiter).complete("Is it?")

    assert limiter.acquired == 1


def test_what_the_users_own_limiter_raises_is_his_and_nothing_was_sent(meter: Meter) -> None:
    class Full(Limiter):
        def acquire(self, num_tokens: int = 0) -> None:
            raise TimeoutError("too many")

    llm = Completing(asked=[], rate_limiter=Full())

    with pytest.raises(TimeoutError, match="too many"):
        llm.complete("Is it?")
    assert llm.asked == []


def test_unregistering_gives_everything_back() -> None:
    limiter, meter = Limiter(), Meter()
    llm = Completing(asked=[], rate_limiter=limiter)
    embedding = Embedding(sent=[])

    with MeterHandler(meter):
        llm.complete("Is it?")
        embedding.get_text_embedding("a")
    llm.complete("Is it?")

    assert llm.rate_limiter is limiter
    assert embedding.rate_limiter is None
    assert meter.usage.requests == 2


@pytest.fixture
def two() -> Iterator[tuple[Meter, Meter]]:
    first, second = Meter(), Meter()
    with MeterHandler(first), MeterHandler(second):
        yield first, second


def test_two_meters_both_count_and_either_may_refuse(two: tuple[Meter, Meter]) -> None:
    first, second = two
    Completing(asked=[]).complete("Is it?")
    second.register(Guard())

    with pytest.raises(BudgetExceeded):
        Completing(asked=[]).complete("Is it?")

    assert (first.usage.input_tokens, second.usage.input_tokens) == (12, 12)
    assert first.health()["open_calls"] == second.health()["open_calls"] == 0


def test_a_question_that_was_asked_in_vain_changes_nothing(meter: Meter, guard: Guard) -> None:
    llm = Completing(asked=[])
    for _ in range(3):
        with pytest.raises(BudgetExceeded):
            llm.chat(QUESTION)

    guard.left = 1
    llm.chat(QUESTION)

    assert meter.usage.requests == 1
    assert meter.usage.denied_requests == 3

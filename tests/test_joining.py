"""Which call a request on the wire belongs to, and whose numbers count."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from agent_meter import Attempt, Call, Kind, Meter, Model, TokenUsage
from agent_meter.adapters.payloads import Pass, Reading
from agent_meter.attribution import announced
from agent_meter.joining import Wire, join
from agent_meter.records import Status


class Answer:
    """An exchange that a test makes up."""

    def __init__(
        self, usage: TokenUsage | None = None, *, answered: bool = True, refused: bool = False, status: int = 200,
        passes: tuple[Pass, ...] = (),
    ) -> None:  # fmt: skip
        self.usage = usage
        self.answered = answered
        self.refused = refused
        self.status = status
        self.passes = passes

    def attempt(self) -> Attempt:
        return Attempt(self.status, 0.1, error_type=None if self.answered else "rate_limit_error")

    def reading(self) -> Reading | None:
        return None if self.usage is None else Reading(self.usage, "gpt-4o-2024", "resp_1", passes=self.passes)


REFUSED = {"answered": False, "refused": True, "status": 429}


def anything(call: Call) -> bool:
    return True


@pytest.fixture
def meter() -> Meter:
    meter = Meter()
    meter.joining.taps = 1
    return meter


@pytest.fixture(autouse=True)
def nobody_before_us() -> None:
    announced.set(None)


def ask(meter: Meter, kind: Kind = Kind.LLM, name: str = "gpt-4o") -> Call:
    return meter.open(Call(kind, model=Model("openai", name)))


def test_a_request_belongs_to_the_call_that_is_open_in_its_context(meter: Meter) -> None:
    call = ask(meter)

    assert join(Answer(), anything) == [call]


def test_without_a_tap_nothing_is_announced() -> None:
    ask(Meter())

    assert announced.get() is None


def test_a_tool_call_is_not_what_a_request_answers(meter: Meter) -> None:
    call = ask(meter)
    meter.open(Call(Kind.TOOL, "search"))

    assert join(Answer(), anything) == [call]


def test_a_request_after_the_end_belongs_to_nobody(meter: Meter) -> None:
    meter.close(ask(meter), TokenUsage(1, 1))

    assert join(Answer(), anything) == []


def test_a_request_between_two_chunks_belongs_to_nobody(meter: Meter) -> None:
    ask(meter)
    join(Answer(), anything)

    assert join(Answer(), anything) == []


def test_a_request_that_does_not_fit_belongs_to_nobody(meter: Meter) -> None:
    ask(meter)

    assert join(Answer(), lambda call: call.kind is Kind.EMBEDDING) == []


def test_a_call_that_was_refused_is_asked_again(meter: Meter) -> None:
    call = ask(meter)
    join(Answer(**REFUSED), anything)

    assert join(Answer(), anything) == [call]


def test_a_long_list_of_texts_to_embed_takes_several_requests(meter: Meter) -> None:
    call = ask(meter, Kind.EMBEDDING)
    join(Answer(TokenUsage(10)), anything)
    join(Answer(TokenUsage(7)), anything)

    assert meter.close(call, TokenUsage(17)).usage == TokenUsage(17)
    assert meter.health()["disagreements"] == 0


def test_the_call_around_is_asked_when_the_one_inside_has_ended(meter: Meter) -> None:
    outer = ask(meter)
    meter.close(ask(meter, name="gpt-4o-mini"), TokenUsage(1, 1))

    assert join(Answer(), anything) == [outer]


def test_one_request_that_two_meters_announced_is_on_both(meter: Meter) -> None:
    other = Meter()
    other.joining.taps = 1
    calls = [ask(meter), ask(other)]

    join(Answer(TokenUsage(10, 2)), anything)

    assert [meter.close(calls[0]).usage, other.close(calls[1]).usage] == [TokenUsage(10, 2)] * 2


def test_of_one_meter_only_the_innermost_call_has_the_request(meter: Meter) -> None:
    ask(meter)
    inner = ask(meter)

    assert join(Answer(), anything) == [inner]


def test_requests_of_a_group_are_answers_to_its_calls_in_order(meter: Meter) -> None:
    group = [ask(meter) for _ in range(3)]
    for call in group:
        call.wire = Wire(group=group)

    assert [join(Answer(**REFUSED), anything), join(Answer(), anything), join(Answer(), anything)] == [
        [group[0]],
        [group[0]],
        [group[1]],
    ]


async def test_a_task_of_a_group_that_asks_again_asks_for_the_same_call(meter: Meter) -> None:
    group = [ask(meter) for _ in range(2)]
    for call in group:
        call.wire = Wire(group=group)

    async def prompt() -> list[list[Call]]:
        first = join(Answer(**REFUSED), anything)
        await asyncio.sleep(0)
        return [first, join(Answer(), anything)]

    assert await asyncio.gather(prompt(), prompt()) == [[[call], [call]] for call in group]


def test_a_call_is_not_announced_in_other_contexts(meter: Meter) -> None:
    contextvars.copy_context().run(ask, meter)

    assert join(Answer(), anything) == []


# -------------------------------------------------------------------------------------------------- whose numbers count


def test_the_wire_wins_and_the_difference_is_counted_and_told(meter: Meter) -> None:
    call = ask(meter)
    join(Answer(TokenUsage(366, 59)), anything)

    record = meter.close(call, TokenUsage(360, 59), response_model="gpt-4o")

    assert (record.usage, record.response_model, record.response_id) == (TokenUsage(366, 59), "gpt-4o-2024", "resp_1")
    assert record.notes == ("input_tokens: the wire says 366, the caller said 360",)
    assert meter.health()["disagreements"] == 1


def test_an_estimate_that_the_wire_replaces_is_no_disagreement(meter: Meter) -> None:
    call = ask(meter)
    join(Answer(TokenUsage(366, 59)), anything)

    record = meter.close(call, TokenUsage(6, 3), estimated=True, notes=("estimated from the text",))

    assert (record.usage, record.estimated, record.notes) == (TokenUsage(366, 59), False, ())
    assert meter.health()["disagreements"] == 0


def test_what_the_wire_does_not_say_the_framework_does(meter: Meter) -> None:
    call = ask(meter)
    join(Answer(TokenUsage(missing=("input_tokens", "output_tokens"))), anything)

    assert meter.close(call, TokenUsage(6, 3)).usage == TokenUsage(6, 3)


def test_a_cut_answer_keeps_what_was_seen_and_the_estimate_of_the_rest(meter: Meter) -> None:
    call = ask(meter)
    join(Answer(TokenUsage(366, 1, missing=("output_tokens",)), answered=False), anything)

    record = meter.close(call, TokenUsage(360, 20), status=Status.ERROR, error_type="ReadError", estimated=True)

    assert record.usage == TokenUsage(366, 20, missing=("output_tokens",))
    assert record.estimated


def test_refused_attempts_cost_nothing_and_are_listed(meter: Meter) -> None:
    call = ask(meter)
    for _ in range(3):
        join(Answer(**REFUSED), anything)

    record = meter.close(call, status=Status.ERROR, error_type="RateLimitError", estimated=True, notes=("unseen",))

    assert (record.usage, record.estimated, record.cost.billed_pico) == (None, False, 0)
    assert [attempt.status for attempt in record.attempts] == [429] * 3
    assert record.retries == 2


def test_what_is_billed_beside_the_answer_is_recorded_once(meter: Meter) -> None:
    call = ask(meter)
    passes = (Pass("compaction", None, TokenUsage(100, 10)),)
    join(Answer(TokenUsage(366, 59), passes=passes), anything)

    meter.close(call, TokenUsage(366, 59))
    meter.record_passes(call, passes)

    assert [record.usage for record in meter.history()] == [TokenUsage(366, 59), TokenUsage(100, 10)]


def test_a_replayed_answer_was_not_sent(meter: Meter) -> None:
    call = ask(meter)
    call.wire = Wire()

    assert meter.close(call, TokenUsage(5, 5), cached=True).usage == TokenUsage(5, 5)


def test_a_reader_that_fails_leaves_the_framework_s_word(meter: Meter) -> None:
    class Broken(Answer):
        def reading(self) -> Reading | None:
            raise RuntimeError("no")

    call = ask(meter)
    join(Broken(), anything)

    assert meter.close(call, TokenUsage(6, 3)).usage == TokenUsage(6, 3)
    assert meter.health()["failures"] == {"wire": {"reconcile": 1}}

"""install() meters LlamaIndex too, the handler leaves nothing behind, and the older callbacks stand in for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.instrumentation import get_dispatcher
from tests.adapters.llama_index.models import Completing, Embedding
from tests.adapters.llama_index.test_calls import QUESTION
from tests.adapters.llama_index.test_denied import Guard

import agent_meter
from agent_meter import BudgetExceeded, Meter
from agent_meter.adapters.llama_index import MeterCallbackHandler, MeterHandler


def test_what_is_installed_meters_llama_index() -> None:
    meter = Meter()

    with agent_meter.install(meter):
        Completing(asked=[]).complete("Is it?")
    Completing(asked=[]).complete("Is it?")

    assert meter.usage.requests == 1


def test_llama_index_that_is_imported_later_is_metered_from_its_first_call() -> None:
    program = (
        "import agent_meter, sys\n"
        "meter = agent_meter.Meter()\n"
        "agent_meter.install(meter)\n"
        "assert not any(name.startswith('llama_index') for name in sys.modules)\n"
        "from llama_index.core.llms import MockLLM\n"
        "MockLLM().complete('a')\n"
        "print(meter.usage.requests, meter.health()['failures'])\n"
    )

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)

    assert run.stdout.strip() == "1 {}", run.stderr


def test_registering_twice_counts_once_and_unregistering_leaves_nothing() -> None:
    dispatcher, meter = get_dispatcher(), Meter()
    before = list(dispatcher.event_handlers), list(dispatcher.span_handlers)

    first, second = MeterHandler(meter).register(), MeterHandler(meter).register()
    Completing(asked=[]).complete("Is it?")
    first.unregister()
    first.unregister()
    Completing(asked=[]).complete("Is it?")
    second.unregister()
    Completing(asked=[]).complete("Is it?")

    assert meter.usage.requests == 2
    assert [
        [h is b for h, b in zip(now, was, strict=True)]
        for now, was in zip((dispatcher.event_handlers, dispatcher.span_handlers), before, strict=True)
    ] == [[True] * len(was) for was in before]


def test_the_older_callbacks_count_once_what_is_wrapped() -> None:
    meter = Meter()
    callbacks = CallbackManager([MeterCallbackHandler(meter)])

    Completing(asked=[], callback_manager=callbacks).chat(QUESTION)
    list(Completing(asked=[], callback_manager=callbacks).stream_complete("Is it?"))
    Embedding(sent=[], callback_manager=callbacks).get_text_embedding("a")

    assert [(r.kind, r.input_tokens > 0, r.estimated) for r in meter.history()] == [
        ("llm", True, False),
        ("llm", True, False),
        ("embedding", True, True),
    ]
    assert meter.health()["failures"] == {}
    assert meter.health()["open_calls"] == 0


def test_the_older_callbacks_refuse_a_call() -> None:
    meter = Meter(plugins=[Guard()])
    llm = Completing(asked=[], callback_manager=CallbackManager([MeterCallbackHandler(meter)]))

    with pytest.raises(BudgetExceeded):
        llm.complete("Is it?")

    assert llm.asked == []


def test_beside_a_registered_handler_the_older_callbacks_keep_silent(meter: Meter) -> None:
    llm = Completing(asked=[], callback_manager=CallbackManager([MeterCallbackHandler(meter)]))

    llm.chat(QUESTION)

    assert meter.usage.requests == 1

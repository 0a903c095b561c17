"""install(): the whole process, on every thread, counted once, and taken back."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers import context as langchain_hooks
from langchain_openai import ChatOpenAI

import agent_meter
from agent_meter import Meter
from agent_meter.adapters.langchain import MeterCallback, metering
from agent_meter.testing import LoopbackProvider, Reply

REPLY = Reply("Hello", input_tokens=100, output_tokens=20)


@pytest.fixture
def provider(loopback: Callable[..., LoopbackProvider]) -> LoopbackProvider:
    return loopback([REPLY], loop=True)


@pytest.fixture
def model(provider: LoopbackProvider) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none")


@pytest.fixture
def meter() -> Iterator[Meter]:
    meter = Meter(strict=True)
    with agent_meter.install(meter):
        yield meter


def in_a_new_process(program: str) -> str:
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_model_that_is_told_nothing_is_metered(meter: Meter, model: ChatOpenAI) -> None:
    model.invoke("Hi")

    assert (meter.usage.requests, meter.usage.input_tokens, meter.usage.output_tokens) == (1, 100, 20)


async def test_asynchronous_calls_and_streams_are_metered(meter: Meter, model: ChatOpenAI) -> None:
    await model.ainvoke("Hi")
    async for _ in model.astream("Hi", stream_usage=True):
        pass

    assert [record.streamed for record in meter.history()] == [False, True]
    assert meter.usage.input_tokens == 200


def test_threads_that_no_context_reaches_are_metered(meter: Meter, model: ChatOpenAI) -> None:
    threads = [threading.Thread(target=model.invoke, args=("Hi",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert meter.usage.requests == 4


def test_a_model_with_callbacks_of_its_own_inside_a_chain_is_metered(meter: Meter, model: ChatOpenAI) -> None:
    """`callbacks=[]` takes the place of every handler that the chain would have handed down."""
    chain = RunnableLambda(lambda question: model.invoke(question, {"callbacks": []}))

    chain.invoke("Hi")

    assert meter.usage.requests == 1


def test_with_everything_else_attached_as_well_it_counts_once(meter: Meter, provider: LoopbackProvider) -> None:
    callback = MeterCallback(meter)
    model = ChatOpenAI(
        model="gpt-4o", base_url=provider.openai_base_url, api_key="none", callbacks=[MeterCallback(meter)]
    )

    with agent_meter.install(meter), metering(meter):
        model.with_config(callbacks=[callback]).invoke("Hi", {"callbacks": [callback]})

    assert len(provider.requests) == meter.usage.requests == 1


def test_two_installed_meters_both_count(meter: Meter, model: ChatOpenAI) -> None:
    other = Meter(strict=True)

    with agent_meter.install(other):
        model.invoke("Hi")
    model.invoke("Hi")

    assert (meter.usage.requests, other.usage.requests) == (2, 1)


def test_what_is_closed_meters_no_more(model: ChatOpenAI) -> None:
    meter = Meter(strict=True)
    installation = agent_meter.install(meter)
    model.invoke("Hi")

    installation.close()
    installation.close()
    model.invoke("Hi")

    assert meter.usage.requests == 1


def test_a_run_that_is_under_way_when_it_is_closed_ends_as_it_began(model: ChatOpenAI) -> None:
    meter = Meter(strict=True)
    installation = agent_meter.install(meter)

    def closing(question: str) -> object:
        installation.close()
        return model.invoke(question)

    RunnableLambda(closing).invoke("Hi")

    assert meter.usage.requests == 1
    assert meter.health()["open_calls"] == 0


def test_without_a_meter_it_is_the_default_meter(model: ChatOpenAI) -> None:
    before = agent_meter.default_meter().usage.requests

    with agent_meter.install() as installation:
        model.invoke("Hi")

    assert installation.meter is agent_meter.default_meter()
    assert agent_meter.default_meter().usage.requests == before + 1


def test_installing_a_thousand_times_leaves_one_hook() -> None:
    """LangChain asks every hook at every run: one for each use would slow all later calls down."""
    agent_meter.install(Meter()).close()
    before = len(langchain_hooks._configure_hooks)

    for _ in range(1000):
        agent_meter.install(Meter()).close()

    assert len(langchain_hooks._configure_hooks) == before


def test_installing_imports_no_framework() -> None:
    loaded = in_a_new_process(
        "import sys, agent_meter\n"
        "installation = agent_meter.install()\n"
        "print([name for name in sys.modules if name.startswith(('langchain', 'langgraph', 'llama_index'))])\n"
        "installation.close()\n"
        "print(any('agent_meter' in type(finder).__module__ for finder in sys.meta_path))\n"
    )

    assert loaded.split() == ["[]", "False"]


BEFORE_LANGCHAIN = """
import threading
import agent_meter
from agent_meter.testing import LoopbackProvider, Reply

meter = agent_meter.Meter(strict=True)
installation = agent_meter.install(meter)
{first}
from langchain_openai import ChatOpenAI

with LoopbackProvider([Reply("Hello", input_tokens=100, output_tokens=20)], loop=True) as provider:
    model = ChatOpenAI(model="gpt-4o", base_url=provider.openai_base_url, api_key="none")
    model.invoke("Hi")
    thread = threading.Thread(target=model.invoke, args=("Hi",))
    thread.start()
    thread.join()
    installation.close()
    model.invoke("Hi")
print(meter.usage.requests, meter.health()["ok"])
"""


@pytest.mark.parametrize(
    "first",
    [
        "",
        "import langchain_core.tracers.context",
        "from langchain_core.callbacks import get_usage_metadata_callback",
        "import langchain_core.tracers.evaluation",
    ],
)
def test_what_is_imported_after_it_is_metered_from_its_first_call(first: str) -> None:
    """Whichever module of LangChain comes first: the adapter must not load the rest of it at the wrong moment."""
    assert in_a_new_process(BEFORE_LANGCHAIN.format(first=first)).split() == ["2", "True"]


def test_closed_before_the_import_nothing_is_metered() -> None:
    program = BEFORE_LANGCHAIN.format(first="installation.close()")

    assert in_a_new_process(program).split() == ["0", "True"]


def test_an_adapter_that_fails_fails_no_import() -> None:
    """A LangChain that the adapter does not fit is imported and used as ever; `health()` says what went wrong."""
    program = """
import agent_meter
from agent_meter import installation

installation.ADAPTERS["langchain_core.tracers.context"] = ".no_such_module"
meter = agent_meter.Meter()
agent_meter.install(meter)
import langchain_core.tracers.context
print(meter.health()["failures"])
"""

    assert "{'install': {'langchain_core.tracers.context': 1}}" in in_a_new_process(program)


def test_a_handler_that_cannot_be_made_fails_no_run() -> None:
    program = """
import sys
sys.modules["agent_meter.adapters.langchain.callback"] = None
import agent_meter
from langchain_core.runnables import RunnableLambda

meter = agent_meter.Meter()
agent_meter.install(meter)
print(RunnableLambda(lambda x: x + 1).invoke(1), meter.health()["failures"])
"""

    assert in_a_new_process(program).strip() == "2 {'langchain': {'install': 1}}"

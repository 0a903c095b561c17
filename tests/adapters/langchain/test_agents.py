"""Agents and graphs: recorded tool loops add up, and everything is whose it is."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from tests.adapters.langchain.clients import anthropic, openai
from tests.corpus import conversations, corpus_dir

from agent_meter import Kind, Meter, Status
from agent_meter.adapters.langchain import MeterCallback, metering
from agent_meter.testing import LoopbackProvider, RecordingPlugin, Reply, ToolCall
from agent_meter.tree import RunTree

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
HELLO = {"messages": [("user", "hello")]}
Loopback = Callable[..., LoopbackProvider]


# ------------------------------------------------------------------------------------------- recorded tool loops


@functools.cache
def _example() -> Any:
    """The corpus's own example of an agent, loaded from where it lies."""
    path = corpus_dir() / "example_agent_loop.py"
    spec = importlib.util.spec_from_file_location("recorded_agent_loop", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOOPS = [document for document in conversations() if _example().fits(document)]


@pytest.mark.parametrize("document", LOOPS, ids=lambda document: document["id"])
def test_a_recorded_tool_loop_adds_up_exactly(document: dict[str, Any], replay: Any) -> None:
    meter = Meter()

    with metering(meter, "loop") as run:
        _example().run(replay, document["id"])

    totals, usage = document["totals"], run.usage
    asked = [name for i in document["interactions"] for name in _example().tool_names(i)]
    assert usage.requests == document["n_calls"]
    assert {name: asked.count(name) for name in asked} == usage.tool_usage
    assert meter.health()["open_calls"] == 0
    if any(truth["input_total"] is None for truth in document["truth"]):  # recorded without usage
        assert usage.estimated_requests == document["n_calls"]
        return
    assert (usage.input_tokens, usage.output_tokens) == (totals["input_total"], totals["output_total"])
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (totals["cache_read"], totals["cache_write"])
    assert usage.reasoning_tokens == totals["reasoning"]
    assert sum(usage.tool_tokens.values()) <= usage.total_tokens
    # Some providers' numbers contradict themselves: kept as they came, and flagged.
    assert usage.estimated_requests == sum(truth.get("ambiguous", False) for truth in document["truth"])


def test_there_are_recorded_tool_loops_of_every_dialect() -> None:
    assert {document["interactions"][0]["api"] for document in LOOPS} == {
        "openai.chat",
        "openai.responses",
        "anthropic.messages",
    }
    assert len(LOOPS) > 20


# ------------------------------------------------------------------------------------------------- sub-agents


def _boss(provider: LoopbackProvider, model: Any = openai) -> Any:
    """An agent with a tool that is another agent: four turns, 100/10, 50/5, 60/6, 120/12 tokens."""

    @tool
    def search(q: str) -> str:
        """Search."""
        return f"about {q}"

    researcher = create_agent(model(provider), [search], name="researcher")

    @tool
    def ask_researcher(question: str) -> str:
        """Ask the researcher."""
        answer: str = researcher.invoke({"messages": [("user", question)]})["messages"][-1].text
        return answer

    @tool
    def now() -> str:
        """The time."""
        return "noon"

    return create_agent(model(provider), [ask_researcher, now], name="boss", checkpointer=InMemorySaver())


def _turns(request: Any) -> Reply:
    """What is answered depends on who asks, for two tools of one turn run at the same time."""
    if "about" in request.last_text:
        return Reply("found", input_tokens=60, output_tokens=6)
    if request.last_text == "who?":
        return Reply(input_tokens=50, output_tokens=5, tool_calls=[ToolCall("search", {"q": "it"})])
    if request.last_text == "hello":
        calls = [ToolCall("ask_researcher", {"question": "who?"}), ToolCall("now")]
        return Reply(input_tokens=100, output_tokens=10, tool_calls=calls)
    return Reply("done", input_tokens=120, output_tokens=12)


def _config(meter: Meter, **more: Any) -> Any:
    return {
        "callbacks": [MeterCallback(meter)],
        "configurable": {"thread_id": "thread-1"},
        "metadata": {"user_id": "ada"},
        **more,
    }


def _flat(tree: RunTree) -> list[tuple[str, str, int, int]]:
    return [
        (tree.kind, tree.name, tree.own.total_tokens, tree.usage.total_tokens),
        *(line for child in tree.children for line in _flat(child)),
    ]


@pytest.mark.parametrize("model", [openai, anthropic])
def test_a_sub_agent_is_counted_once_and_under_its_own_name(model: Any, loopback: Loopback) -> None:
    provider, seen = loopback(_turns), RecordingPlugin()
    meter = Meter([seen])

    _boss(provider, model).invoke(HELLO, _config(meter))

    assert [(record.agent, record.total_tokens) for record in meter.history()] == [
        ("boss", 110),
        ("researcher", 55),
        ("researcher", 66),
        ("boss", 132),
    ]
    assert meter.usage.total_tokens == provider.total.total_tokens == 363
    by_agent = {agent: usage.total_tokens for agent, usage in meter.usage_by("agent").items()}
    assert by_agent == {"boss": 242, "researcher": 121}
    root = next(record for record in seen.run_records if record.parent_id is None)
    tree = meter.tree(root.id)
    assert tree.usage.total_tokens == 363
    assert sum(own for _, _, own, _ in _flat(tree)) == 363
    assert ("run", "researcher", 0, 121) in _flat(tree)
    assert ("tool", "ask_researcher", 0, 121) in _flat(tree)
    assert meter.health()["open_calls"] == 0


def test_runs_and_steps_are_recorded_with_their_names_and_numbers(loopback: Loopback) -> None:
    seen = RecordingPlugin()
    meter = Meter([seen])

    _boss(loopback(_turns)).invoke(HELLO, _config(meter))

    runs = [(r.name, r.agent, r.status) for r in seen.run_records if r.kind is Kind.RUN]
    assert runs == [("researcher", "researcher", Status.OK), ("boss", "boss", Status.OK)]
    steps = [(r.name, r.step_number) for r in seen.run_records if r.kind is Kind.STEP and r.agent == "boss"]
    assert sorted(steps) == [("model", 1), ("model", 3), ("tools", 2), ("tools", 2)]
    by_run = {record.run_id: record.agent for record in meter.history()}
    assert sorted(by_run.values()) == ["boss", "researcher"]


def test_thread_user_step_and_node_reach_every_call(loopback: Loopback) -> None:
    seen = RecordingPlugin()
    meter = Meter([seen])

    _boss(loopback(_turns)).invoke(HELLO, _config(meter))

    everything = [*meter.history(), *seen.tool_records, *seen.run_records]
    assert {record.session for record in everything} == {"thread-1"}
    assert {record.user for record in everything} == {"ada"}
    assert [(record.step, record.tags) for record in meter.history()] == [
        ("1", {"node": "model"}),
        ("1", {"node": "model"}),
        ("3", {"node": "model"}),
        ("3", {"node": "model"}),
    ]
    assert {record.name: record.step for record in seen.tool_records} == {
        "ask_researcher": "2",
        "now": "2",
        "search": "2",
    }


def test_the_tokens_of_a_turn_are_shared_out_among_the_tools_it_asked_for(loopback: Loopback) -> None:
    meter = Meter()

    _boss(loopback(_turns)).invoke(HELLO, _config(meter))

    assert meter.usage.tool_usage == {"ask_researcher": 1, "now": 1, "search": 1}
    assert meter.usage.tool_tokens == {"ask_researcher": 55, "now": 55, "search": 55}
    assert sum(meter.usage.tool_tokens.values()) <= meter.usage.total_tokens


def test_tool_calls_carry_the_models_id_and_the_arguments(loopback: Loopback) -> None:
    seen = RecordingPlugin()
    reply = Reply(tool_calls=[ToolCall("search", {"q": "meters"}, id="call_7")])
    provider = loopback([reply, "done"])

    @tool
    def search(q: str) -> str:
        """Search."""
        return q

    create_agent(openai(provider), [search]).invoke(HELLO, _config(Meter([seen])))

    (record,) = seen.tool_records
    assert (record.name, record.call_id, record.params, record.success) == ("search", "call_7", {"q": "meters"}, True)


async def test_an_async_agent_is_metered_as_a_sync_one(loopback: Loopback) -> None:
    provider = loopback(_turns)
    meter = Meter()

    await _boss(provider).ainvoke(HELLO, _config(meter))

    assert {agent: usage.total_tokens for agent, usage in meter.usage_by("agent").items()} == {
        "boss": 242,
        "researcher": 121,
    }
    assert meter.health()["open_calls"] == 0


def test_the_middlewares_own_calls_say_what_they_are_for(loopback: Loopback) -> None:
    from langchain.agents.middleware import SummarizationMiddleware

    provider = loopback(["a summary", "an answer"])
    model = openai(provider)
    summarise = SummarizationMiddleware(model=model, trigger=("messages", 2), keep=("messages", 1))
    meter = Meter()

    create_agent(model, [], name="boss", middleware=[summarise]).invoke(
        {"messages": [("user", "one"), ("ai", "two"), ("user", "three")]}, _config(meter)
    )

    assert [record.tags.get("purpose") for record in meter.history()] == ["summarization", None]
    assert {record.agent for record in meter.history()} == {"boss"}


# ----------------------------------------------------------------------------------------------------- graphs


def _graph(provider: LoopbackProvider, name: str) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("draft", lambda state: {"messages": [openai(provider).invoke("draft")]})
    graph.add_edge(START, "draft")
    return graph.compile(name=name)


def test_a_named_graph_and_the_named_graphs_in_it_are_agents(loopback: Loopback) -> None:
    """As a node, called in a node, or an agent as a node: each is a run below the other."""
    provider = loopback(lambda request: Reply("x", input_tokens=10, output_tokens=1))
    editor, worker = _graph(provider, "editor"), create_agent(openai(provider), [], name="worker")
    graph = StateGraph(MessagesState)
    graph.add_node("plan", lambda state: {"messages": [openai(provider).invoke("plan")]})
    graph.add_node("edit", editor)
    graph.add_node("call", lambda state: editor.invoke(state))
    graph.add_node("team", worker)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "edit")
    graph.add_edge("edit", "call")
    graph.add_edge("call", "team")
    seen = RecordingPlugin()
    meter = Meter([seen])

    graph.compile(name="newsroom").invoke(HELLO, _config(meter))

    assert [record.agent for record in meter.history()] == ["newsroom", "editor", "editor", "worker"]
    root = next(record for record in seen.run_records if record.parent_id is None)
    assert _flat(meter.tree(root.id)) == [
        ("run", "newsroom", 0, 44),
        ("step", "plan", 11, 11),
        ("step", "edit", 0, 11),
        ("run", "editor", 0, 11),
        ("step", "draft", 11, 11),
        ("step", "call", 0, 11),
        ("run", "editor", 0, 11),
        ("step", "draft", 11, 11),
        ("step", "team", 0, 11),
        ("run", "worker", 0, 11),
        ("step", "model", 11, 11),
    ]


def test_a_named_graph_below_an_agent_keeps_its_own_name(loopback: Loopback) -> None:
    """LangChain hands the agent's name down to it."""
    provider = loopback([Reply(tool_calls=[ToolCall("edit")]), "draft", "done"])
    editor = _graph(provider, "editor")

    @tool
    def edit() -> str:
        """Edit."""
        editor.invoke(HELLO)
        return "edited"

    meter = Meter()
    create_agent(openai(provider), [edit], name="boss").invoke(HELLO, _config(meter, run_name="nightly"))

    assert [record.agent for record in meter.history()] == ["boss", "editor", "boss"]


def test_a_named_chain_in_a_node_is_no_agent(loopback: Loopback) -> None:
    from langchain_core.prompts import ChatPromptTemplate

    provider = loopback(["x"])
    chain = (ChatPromptTemplate.from_messages([("user", "{q}")]) | openai(provider)).with_config(run_name="writing")
    graph = StateGraph(MessagesState)
    graph.add_node("write", lambda state: {"messages": [chain.invoke({"q": "?"})]})
    graph.add_edge(START, "write")
    seen = RecordingPlugin()
    meter = Meter([seen])

    graph.compile().invoke(HELLO, _config(meter))

    assert [record.agent for record in meter.history()] == [""]
    assert [(record.kind, record.name) for record in seen.run_records] == [("step", "write"), ("run", "LangGraph")]


def test_handing_over_to_the_graph_above_is_no_failure(loopback: Loopback) -> None:
    """LangGraph does it with an exception."""
    from langgraph.types import Command

    provider, seen = loopback(["x"], loop=True), RecordingPlugin()
    meter = Meter([seen])

    def ask(state: Any) -> Any:
        openai(provider).invoke("hello")
        return Command(goto="after", graph=Command.PARENT)

    inner: Any = StateGraph(MessagesState)
    inner.add_node("ask", ask)
    inner.add_edge(START, "ask")
    outer: Any = StateGraph(MessagesState)
    outer.add_node("inner", inner.compile(name="scout"))
    outer.add_node("after", lambda state: {"messages": []})
    outer.add_edge(START, "inner")

    outer.compile(name="captain").invoke(HELLO, _config(meter))

    assert {(run.name, run.status) for run in seen.run_records} == {
        (name, Status.OK) for name in ("ask", "scout", "inner", "after", "captain")
    }
    assert [record.agent for record in meter.history()] == ["scout"]


def test_a_plain_chain_is_one_run(loopback: Loopback) -> None:
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    provider, seen = loopback(["x"]), RecordingPlugin()
    meter = Meter([seen])
    chain = ChatPromptTemplate.from_messages([("user", "{q}")]) | openai(provider) | StrOutputParser()

    chain.invoke({"q": "?"}, {"callbacks": [MeterCallback(meter)], "run_name": "answering"})

    (run,) = seen.run_records
    (record,) = meter.history()
    assert (run.kind, run.name, run.usage.total_tokens) == ("run", "answering", provider.total.total_tokens)
    assert record.run_id == record.parent_id == run.id


def test_a_scope_of_the_program_says_whose_it_is_before_the_metadata_does(loopback: Loopback) -> None:
    provider = loopback(["x"])
    meter = Meter()

    with meter.scope(user="grace", task="report", team="search"):
        openai(provider).invoke("hello", _config(meter))

    (record,) = meter.history()
    assert (record.user, record.task, record.tags["team"]) == ("grace", "report", "search")


def test_a_session_of_a_plain_chain_is_found_in_its_configurable(loopback: Loopback) -> None:
    """LangChain does not copy it into the metadata of handlers."""
    from langchain_core.runnables import RunnableLambda

    provider = loopback(["x"])
    meter = Meter()
    chain = RunnableLambda(lambda question: question) | openai(provider)

    chain.invoke("hello", {"callbacks": [MeterCallback(meter)], "configurable": {"session_id": "s1", "user_id": "u1"}})

    (record,) = meter.history()
    assert (record.session, record.user) == ("s1", "u1")

"""Query engines and retrieval: one run, its steps, and an answer that is read when the query is long over."""

from __future__ import annotations

import threading
from typing import Any

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.tools import QueryEngineTool
from tests.adapters.llama_index.models import Client, Completing, Embedding
from tests.adapters.llama_index.test_agents import Records

from agent_meter import Meter


def _index() -> VectorStoreIndex:
    embedding = Embedding(sent=[], client=Client())
    return VectorStoreIndex.from_documents([Document(text="a"), Document(text="b")], embed_model=embedding)


def _records(meter: Meter) -> Records:
    records = Records()
    meter.register(records)
    return records


def test_a_query_is_a_run_with_its_retrieval_its_embedding_and_its_answer(meter: Meter) -> None:
    engine = _index().as_query_engine(llm=Completing(asked=[]))
    records = _records(meter)
    before = len(meter.history())

    engine.query("Which?")

    embedded, answered = meter.history()[before:]
    assert (embedded.kind, embedded.input_tokens, answered.kind, answered.input_tokens) == ("embedding", 7, "llm", 12)
    assert [(run.kind, run.name) for run in records.runs] == [
        ("step", "VectorIndexRetriever"),
        ("run", "RetrieverQueryEngine"),
    ]
    assert {embedded.run_id, answered.run_id} == {records.runs[-1].id}


def test_a_streamed_answer_belongs_to_the_query_that_asked_for_it(meter: Meter) -> None:
    """It is asked for when it is read, after the query's own span has ended."""
    engine = _index().as_query_engine(llm=Completing(asked=[]), streaming=True)
    records = _records(meter)

    response: Any = engine.query("Which?")
    text = "".join(response.response_gen)

    assert text == "yes"
    record = meter.history()[-1]
    assert (record.kind, record.input_tokens, record.streamed) == ("llm", 12, True)
    assert record.run_id == records.runs[-1].id


def test_what_a_chat_engine_streams_from_a_thread_is_its_own(meter: Meter) -> None:
    records = _records(meter)
    engine = SimpleChatEngine.from_defaults(llm=Completing(asked=[]))

    response = engine.stream_chat("Is it?")
    text = "".join(response.response_gen)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(1)

    assert text == "yes"
    (record,) = meter.history()
    assert (record.input_tokens, record.run_id) == (12, records.runs[-1].id)


def test_a_query_that_a_tool_makes_is_a_run_below_the_tool(meter: Meter) -> None:
    tool = QueryEngineTool.from_defaults(_index().as_query_engine(llm=Completing(asked=[])), name="docs")
    records = _records(meter)

    tool("Which?")

    (called,) = records.tools
    run = records.runs[-1]
    assert (called.name, dict(called.params), run.kind, run.parent_id) == (
        "docs",
        {"input": "Which?"},
        "run",
        called.id,
    )

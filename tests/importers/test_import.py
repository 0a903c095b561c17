"""History from elsewhere: our own files, CloudEvents, Langfuse, OpenTelemetry."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.exporters.samples import records
from tests.exporters.test_export import private

from agent_meter import Meter, UsageRecord
from agent_meter.errors import ImportFailed
from agent_meter.exporters import export
from agent_meter.importers import import_file, read
from agent_meter.importers.building import moment, stable_id
from agent_meter.records import Record, ToolRecord
from agent_meter.store import MemoryStore

START = "2026-03-30T22:30:00.250Z"
AT = datetime(2026, 3, 30, 22, 30, 0, 250_000, tzinfo=UTC)


def written(path: Path, *documents: Any, lines: bool = True) -> Path:
    text = "\n".join(map(json.dumps, documents)) if lines else json.dumps(list(documents), indent=2)
    path.write_text(text, encoding="utf-8")
    return path


def one(path: Path) -> Any:
    (record,) = read(path)
    return record


# --------------------------------------------------------------------------------------------------- our own


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.cloudevents.jsonl"])
def test_what_was_exported_comes_back_as_it_was(name: str, tmp_path: Path):
    found, _ = records()
    export(found, tmp_path / name)

    assert list(read(tmp_path / name)) == [private(record) for record in found]


def test_an_import_counts_what_is_new_and_a_second_one_finds_nothing_new(tmp_path: Path):
    found, meter = records()
    export(found, tmp_path / "a.jsonl")
    store = MemoryStore()

    first = import_file(tmp_path / "a.jsonl", store)
    second = import_file(tmp_path / "a.jsonl", store)

    assert (first.records, first.stored, first.duplicates) == (len(found), len(found), 0)
    assert (second.records, second.stored, second.duplicates) == (len(found), 0, len(found))
    assert store.usage().cost_usd == meter.usage.cost_usd
    assert store.usage().total_tokens == meter.usage.total_tokens


def test_one_bad_line_does_not_hide_the_others(tmp_path: Path):
    found, _ = records()
    export(found, tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    lines[2:2] = ["{not json", '{"kind": "llm", "id": "x", "started_at": "yesterday"}', "", "[1, 2]"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")

    result = import_file(tmp_path / "a.jsonl", MemoryStore())

    assert (result.records, result.unreadable) == (len(found), 4)
    assert "line 3" in result.problems[0]


@pytest.mark.parametrize("text", ["hello", '{"a": 1}', '[{"a": 1}]', "\0\0\0"])
def test_a_file_in_no_form_that_can_be_read_is_refused(text: str, tmp_path: Path):
    (tmp_path / "a.txt").write_text(text)
    store = MemoryStore()

    if text.startswith(("{", "[")):
        with pytest.raises(ImportFailed, match="neither records of agent_meter"):
            import_file(tmp_path / "a.txt", store)
    else:
        assert import_file(tmp_path / "a.txt", store).unreadable == 1


def test_an_empty_file_has_no_records(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("\n\n")

    assert import_file(tmp_path / "a.jsonl", MemoryStore()).records == 0


def test_events_of_others_are_counted_and_left(tmp_path: Path):
    path = written(tmp_path / "a.jsonl", {"specversion": "1.0", "id": "1", "source": "/x", "type": "com.example"})

    result = import_file(path, MemoryStore())

    assert (result.records, result.others) == (0, 1)


# --------------------------------------------------------------------------------------------------- Langfuse


def generation(**more: Any) -> dict[str, Any]:
    return {
        "id": "obs-1", "traceId": "trace-1", "type": "GENERATION", "name": "ChatOpenAI", "startTime": START,
        "endTime": "2026-03-30T22:30:02.250Z", "completionStartTime": "2026-03-30T22:30:00.750Z", "model": "gpt-4o",
        "level": "DEFAULT", "parentObservationId": "span-1", "userId": "ada", "sessionId": "s1",
        "usageDetails": {"input": 800, "input_cached_tokens": 200, "output": 70, "output_reasoning_tokens": 30,
                         "total": 1100},
        **more,
    }  # fmt: skip


def test_a_generation_becomes_a_priced_model_call(tmp_path: Path):
    record = one(written(tmp_path / "a.jsonl", generation()))

    assert type(record) is UsageRecord
    assert (record.model, record.provider, record.framework) == ("gpt-4o", "openai", "langfuse")
    assert (record.started_at, record.duration, record.time_to_first_token) == (AT, 2.0, 0.5)
    assert (record.user, record.session, record.run_id) == ("ada", "s1", "trace-1")
    assert (record.input_tokens, record.cache_read_tokens) == (1000, 200)
    assert (record.output_tokens, record.reasoning_tokens) == (100, 30)
    assert record.cost_usd == Decimal("0.00325")  # 800 x 2.50 + 200 x 1.25 + 100 x 10, a million


def test_parts_that_the_total_shows_to_be_included_stay_included(tmp_path: Path):
    details = {"input": 1000, "input_cached_tokens": 200, "output": 100, "total": 1100}
    record = one(written(tmp_path / "a.jsonl", generation(usageDetails=details)))

    assert (record.input_tokens, record.cache_read_tokens, record.output_tokens) == (1000, 200, 100)


def test_the_cache_classes_of_anthropic_are_added_to_the_input(tmp_path: Path):
    details = {"input": 10, "cache_read_input_tokens": 500, "cache_creation_input_tokens": 90, "output": 5}
    record = one(written(tmp_path / "a.jsonl", generation(model="claude-sonnet-4-5", usageDetails=details)))

    assert (record.input_tokens, record.cache_read_tokens, record.cache_write_tokens) == (600, 500, 90)


def test_the_older_form_of_usage_is_read(tmp_path: Path):
    usage = {"promptTokens": 12, "completionTokens": 3, "totalTokens": 15, "unit": "TOKENS"}
    record = one(written(tmp_path / "a.jsonl", generation(usageDetails=None, usage=usage)))

    assert (record.input_tokens, record.output_tokens) == (12, 3)


def test_a_model_without_a_card_has_the_cost_that_langfuse_knew(tmp_path: Path):
    record = one(written(tmp_path / "a.jsonl", generation(model="acme-1", costDetails={"total": 0.0125})))

    assert (record.cost.status, record.cost_usd) == ("reported", Decimal("0.0125"))


def test_the_pages_form_of_keys_and_the_envelope_of_the_api_are_read(tmp_path: Path):
    snake = {
        "id": "o", "trace_id": "t", "type": "GENERATION", "start_time": "2026-03-30 22:30:00.250", "model": "gpt-4o",
        "usage_details": {"input": 1, "output": 2},
    }  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [snake, {**snake, "type": "SPAN"}], "meta": {"page": 1}}, indent=1))
    store = MemoryStore()

    result = import_file(path, store)

    assert (result.records, result.others, store.usage().total_tokens) == (1, 1, 3)


def test_a_tool_observation_becomes_a_tool_call(tmp_path: Path):
    record = one(written(tmp_path / "a.jsonl", generation(type="TOOL", name="search", level="ERROR")))

    assert type(record) is ToolRecord
    assert (record.name, record.success, record.duration) == ("search", False, 2.0)


# ------------------------------------------------------------------------------------------------------ OTel


def span(**attributes: Any) -> dict[str, Any]:
    def typed(value: Any) -> dict[str, Any]:
        return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}

    return {
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "parentSpanId": "eee19b7ec3c1b173",
        "name": "chat gpt-4o", "startTimeUnixNano": "1774909800250000000", "endTimeUnixNano": "1774909802250000000",
        "attributes": [{"key": key, "value": typed(value)} for key, value in attributes.items()],
    }  # fmt: skip


def otlp(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "x"}, "spans": list(spans)}]}]}


CHAT = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06", "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100,
    "gen_ai.usage.cache_read.input_tokens": 200, "gen_ai.agent.name": "researcher", "gen_ai.conversation.id": "s1",
}  # fmt: skip


def test_a_span_of_otlp_becomes_a_priced_model_call(tmp_path: Path):
    record = one(written(tmp_path / "a.jsonl", otlp(span(**CHAT))))

    assert type(record) is UsageRecord
    assert (record.started_at, record.duration) == (AT, 2.0)
    assert (record.provider, record.request_model, record.response_model) == ("openai", "gpt-4o", "gpt-4o-2024-08-06")
    assert (record.input_tokens, record.cache_read_tokens, record.output_tokens) == (1000, 200, 100)
    assert (record.agent, record.session, record.response_id) == ("researcher", "s1", "chatcmpl-1")
    assert record.run_id == "5b8efff798038103d269b633813fc60c"
    assert record.cost_usd == Decimal("0.00325")


def test_older_spellings_and_openinference_mean_the_same(tmp_path: Path):
    old = {
        "gen_ai.operation.name": "chat", "gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.completion_tokens": 2,
    }  # fmt: skip
    inference = {
        "openinference.span.kind": "LLM", "llm.provider": "openai", "llm.model_name": "gpt-4o",
        "llm.token_count.prompt": 10, "llm.token_count.completion": 2,
    }  # fmt: skip
    usages = [one(written(tmp_path / "a.jsonl", otlp(span(**each)))).usage for each in (old, inference)]

    assert usages[0] == usages[1]
    assert (usages[0].input_tokens, usages[0].output_tokens) == (10, 2)


def test_the_sums_of_an_agents_span_are_not_counted_on_top_of_its_calls(tmp_path: Path):
    agent = {**CHAT, "gen_ai.operation.name": "invoke_agent"}
    store = MemoryStore()

    result = import_file(written(tmp_path / "a.jsonl", otlp(span(**agent), span(**CHAT))), store)

    assert (result.records, result.others, store.usage().total_tokens) == (1, 1, 1100)


def test_tools_and_embeddings_are_read(tmp_path: Path):
    tool = span(**{"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "error.type": "TimeoutError"})
    embedding = span(
        **{
            "gen_ai.operation.name": "embeddings",
            "gen_ai.request.model": "text-embedding-3-small",
            "gen_ai.usage.input_tokens": 9,
        }
    )
    embedding["spanId"] = "b"
    path = written(tmp_path / "a.jsonl", otlp({**tool, "status": {"code": 2}}, embedding))
    first, second = read(path)

    assert (type(first), first.status, first.error_type) == (ToolRecord, "error", "TimeoutError")
    assert type(second) is UsageRecord
    assert (second.kind, second.embedding_tokens, second.estimated) == ("embedding", 9, False)


def test_the_sdks_own_spans_are_read(tmp_path: Path):
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="pip install 'agent-meter[otel]'")
    kept: list[Any] = []

    class Keep(sdk.SpanProcessor):  # type: ignore[misc, name-defined]
        def on_end(self, span: Any) -> None:
            kept.append(span)

    provider = sdk.TracerProvider()
    provider.add_span_processor(Keep())
    for _ in range(2):
        with provider.get_tracer("x").start_as_current_span("chat gpt-4o", attributes=CHAT):
            pass
    (tmp_path / "spans.json").write_text("\n".join(span.to_json() for span in kept))

    record, other = read(tmp_path / "spans.json")

    assert record.id != other.id
    assert (record.input_tokens, record.output_tokens) == (1000, 100)
    assert record.run_id == format(kept[0].context.trace_id, "032x")


def test_a_call_that_says_no_usage_is_unpriced_and_not_zero(tmp_path: Path):
    record = one(written(tmp_path / "a.jsonl", otlp(span(**{"gen_ai.operation.name": "chat"}))))

    assert (record.usage, record.cost_usd, record.estimated) == (None, None, True)


def test_a_failed_call_without_usage_cost_nothing(tmp_path: Path):
    failed = {**span(**{"gen_ai.operation.name": "chat"}), "status": {"code": 2}}
    record = one(written(tmp_path / "a.jsonl", otlp(failed)))

    assert (record.status, record.cost_usd) == ("error", 0)


# --------------------------------------------------------------------------------------------------- identity


@given(st.integers(0, 4 * 10**15), st.lists(st.text(), max_size=3))
def test_an_id_depends_on_its_source_alone_and_sorts_by_time(micros: int, source: list[str]):
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    id = stable_id(at, *source)

    assert id == stable_id(at, *source)
    assert (len(id), id[14], id[19] in "89ab") == (36, "7", True)
    assert int(id.replace("-", "")[:12], 16) == micros // 1000
    assert id != stable_id(at, *source, "another")


@pytest.mark.parametrize("name", ["langfuse", "otel"])
def test_importing_a_foreign_file_twice_adds_nothing(name: str, tmp_path: Path):
    documents = [generation(id=f"o{i}") for i in range(5)]
    if name == "otel":
        documents = [otlp(*({**span(**CHAT), "spanId": f"s{i}"} for i in range(5)))]
    path = written(tmp_path / "a.jsonl", *documents)
    store = MemoryStore()

    assert import_file(path, store).stored == 5
    assert (import_file(path, store).stored, import_file(path, store).duplicates) == (0, 5)


@pytest.mark.parametrize(
    "text", ["2026-03-30T22:30:00.250Z", "2026-03-31T00:30:00.250+02:00", "1774909800250000000", 1774909800.25]
)
def test_times_are_read_as_exports_write_them(text: object):
    assert moment(text) == AT


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4))
def test_whatever_an_entry_holds_the_import_goes_on(tmp_path_factory: pytest.TempPathFactory, value: Any):
    path = tmp_path_factory.mktemp("odd") / "a.jsonl"
    written(
        path,
        generation(),
        generation(id="2", usageDetails=value, model=value, startTime=value, metadata=value),
        {**span(**CHAT), "attributes": value, "startTimeUnixNano": value},
        {"kind": value, "id": value, "started_at": value},
    )

    result = import_file(path, MemoryStore())

    assert result.records + result.others + result.unreadable == 4
    assert result.records >= 1


def test_history_can_be_replayed_into_a_meter_of_the_same_prices(tmp_path: Path):
    found, meter = records()
    export(found, tmp_path / "a.jsonl")
    again: list[Record] = list(read(tmp_path / "a.jsonl"))
    other = Meter()
    for record in again:
        other.plugins.record(record)

    assert other.usage.cost_usd == meter.usage.cost_usd

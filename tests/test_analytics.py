"""Tool analytics: what the seed document's reader expects, within bounds, whatever is recorded."""

from __future__ import annotations

import csv
import json
import math
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_meter.analytics import AgentAnalytics, ToolMetrics
from agent_meter.records import Status, ToolRecord

SUMMARY = """
============================================================
Tool Usage Analytics
============================================================


calculate:
  Calls: 23
  Success rate: 100.0% (23/23)
  Avg duration: 0.012s
  Total duration: 0.276s
  Percentiles: p50 0.012s, p95 0.012s, p99 0.012s
  Common parameters:
    operation: "add" (12x, 4 unique)

search:
  Calls: 15
  Success rate: 93.3% (14/15)
  Failures: 1
  Avg duration: 0.234s
  Total duration: 3.510s
  Percentiles: p50 0.234s, p95 0.234s, p99 0.234s
  Total cost: $0.001250
  Streaming calls: 2/15
  Total chunks: 9 (avg: 4.5/call)
  Common parameters:
    query: "Python tutorials" (8x, 5 unique)
    top_k: 5

============================================================"""

HEADER = "tool_name,total_calls,successful_calls,failed_calls,success_rate,avg_duration,total_duration,total_cost"


@pytest.fixture
def analytics() -> AgentAnalytics:
    return AgentAnalytics()


@pytest.fixture
def sample() -> AgentAnalytics:
    """The two tools of the seed document's sample, with chunks and a number."""
    made = AgentAnalytics()
    queries = ["Python tutorials"] * 8 + ["asyncio"] * 3 + ["typing"] * 2 + ["pytest", "mypy"]
    for number, query in enumerate(queries):
        made.record_tool_call(
            "search",
            number != 3,
            0.234,
            {"query": query, "top_k": 5},
            0.00125 if number == 0 else 0.0,
            {1: 4, 2: 5}.get(number, 0),
            error_type=None if number != 3 else "TimeoutError",
        )
    for operation in ["add"] * 12 + ["subtract"] * 5 + ["multiply"] * 4 + ["divide"] * 2:
        made.record_tool_call("calculate", True, 0.012, {"operation": operation})
    return made


def metrics_of(analytics: AgentAnalytics, name: str = "t") -> ToolMetrics:
    metrics = analytics.get_metrics(name)
    assert metrics is not None
    return metrics


def a_record(status: Status = Status.OK, **fields: Any) -> ToolRecord:
    return ToolRecord("id", "t", "call", datetime.now(UTC), fields.pop("duration", 0.5), status, **fields)


class TestRecording:
    def test_one_call_of_each_outcome(self, analytics: AgentAnalytics):
        analytics.record_tool_call("t", True, 0.25, {"q": "a"}, 0.5, 3)
        analytics.record_tool_call("t", False, 0.75, {"q": "b"}, error_type="ValueError")

        metrics = metrics_of(analytics)
        assert (metrics.total_calls, metrics.successful_calls, metrics.failed_calls) == (2, 1, 1)
        assert (metrics.success_rate, metrics.failure_rate) == (50.0, 50.0)
        assert (metrics.total_duration, metrics.avg_duration) == (1.0, 0.5)
        assert (metrics.min_duration, metrics.max_duration) == (0.25, 0.75)
        assert (metrics.total_cost, metrics.total_chunks, metrics.streaming_calls) == (Decimal("0.5"), 3, 1)
        assert metrics.parameter_usage == {"q": {"a": 1, "b": 1}}
        assert metrics.last_errors == ("ValueError",)
        assert metrics.distinct("q") == 2

    def test_a_finished_record_counts_like_a_call(self, analytics: AgentAnalytics):
        analytics.record(a_record(params={"q": "a"}, cost_pico=250, chunk_count=2))
        analytics.record(a_record(Status.ERROR, error_type="KeyError"))

        metrics = metrics_of(analytics)
        assert (metrics.total_calls, metrics.failed_calls, metrics.total_chunks) == (2, 1, 2)
        assert metrics.total_cost == Decimal("2.5E-10")
        assert metrics.last_errors == ("KeyError",)

    def test_a_denied_call_is_counted_apart(self, analytics: AgentAnalytics):
        analytics.record(a_record(Status.DENIED, duration=9.0, params={"q": "a"}))

        metrics = metrics_of(analytics)
        assert (metrics.denied_calls, metrics.total_calls, metrics.total_duration) == (1, 0, 0.0)
        assert "Calls: 0" in analytics.summary()
        assert "Denied: 1" in analytics.summary()

    @pytest.mark.parametrize("status", [Status.CANCELLED, Status.ABANDONED])
    def test_a_call_that_was_given_up_is_a_failure_with_that_name(self, analytics: AgentAnalytics, status: Status):
        analytics.record(a_record(status))

        assert metrics_of(analytics).last_errors == (str(status),)
        assert metrics_of(analytics).failure_rate == 100.0

    def test_the_last_five_error_types_are_kept_the_newest_last(self, analytics: AgentAnalytics):
        for number in range(7):
            analytics.record_tool_call("t", False, 0.1, {}, error_type=f"E{number}")

        assert metrics_of(analytics).last_errors == ("E2", "E3", "E4", "E5", "E6")

    @pytest.mark.parametrize(
        ("error", "expected"),
        [(ValueError, "ValueError"), (KeyError("x"), "KeyError"), ("x" * 999, "x" * 100 + "…")],
        ids=["class", "exception", "long text"],
    )
    def test_an_error_may_be_a_class_or_an_exception(self, analytics: AgentAnalytics, error: Any, expected: str):
        analytics.record_tool_call("t", False, 0.1, {}, error_type=error)

        assert metrics_of(analytics).last_errors == (expected,)

    def test_cost_is_exact_where_floats_are_not(self, analytics: AgentAnalytics):
        for _ in range(1_000):
            analytics.record_tool_call("t", True, 0.1, {}, 0.0001)
        analytics.record_tool_call("t", True, 0.1, {}, Decimal("0.00000015"))

        cost = metrics_of(analytics).total_cost
        assert cost == Decimal("0.10000015")
        assert f"${cost:.6f}" == "$0.100000"
        assert cost * 2 == Decimal("0.2000003")

    @settings(deadline=None)
    @given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=60))
    def test_percentiles_are_within_1_1_percent(self, durations: list[float]):
        analytics = AgentAnalytics()
        for duration in durations:
            analytics.record_tool_call("t", True, duration, {})

        metrics = metrics_of(analytics)
        for share, value in ((0.5, metrics.p50), (0.95, metrics.p95), (0.99, metrics.p99)):
            rank = max(math.ceil(share * len(durations) - 1e-9), 1)
            assert value == pytest.approx(sorted(durations)[rank - 1], rel=0.011)

    def test_metrics_made_by_hand_have_rates_of_their_own(self):
        made = ToolMetrics(name="t", total_calls=4, successful_calls=3, failed_calls=1, total_duration=2.0)
        assert (made.success_rate, made.failure_rate, made.avg_duration) == (75.0, 25.0, 0.5)

        empty = ToolMetrics("t")
        assert (empty.success_rate, empty.failure_rate, empty.avg_duration, empty.p50, empty.p99) == (0, 0, 0, 0, 0)
        assert (empty.min_duration, empty.max_duration, empty.distinct("q")) == (0.0, 0.0, 0)

    def test_a_tool_that_was_never_called_has_no_metrics(self, analytics: AgentAnalytics):
        assert analytics.get_metrics("t") is None

    def test_snapshots_do_not_change_and_change_nothing(self, analytics: AgentAnalytics):
        analytics.record_tool_call("t", True, 0.1, {"q": "a"})
        before = metrics_of(analytics)
        analytics.get_all_metrics()["t"].total_calls = 999
        metrics_of(analytics).parameter_usage["q"]["a"] = 999
        metrics_of(analytics).durations.record(99.0)
        analytics.record_tool_call("t", True, 0.3, {"q": "a"})

        after = metrics_of(analytics)
        assert (before.total_calls, before.parameter_usage, before.max_duration) == (1, {"q": {"a": 1}}, 0.1)
        assert (after.total_calls, after.parameter_usage, after.max_duration) == (2, {"q": {"a": 2}}, 0.3)

    def test_reset_forgets_everything_and_keeps_the_rules(self):
        analytics = AgentAnalytics(deny=["secret_plan"])
        analytics.record_tool_call("t", True, 0.1, {"q": 1})

        analytics.reset()

        assert analytics.get_all_metrics() == {}
        analytics.record_tool_call("t", True, 0.1, {"q": 1, "secret_plan": 2})
        assert metrics_of(analytics).parameter_usage == {"q": {"1": 1}}

    def test_reset_gives_back_the_room_for_parameters(self, analytics: AgentAnalytics):
        for _ in range(2):
            analytics.reset()
            for number in range(40):
                analytics.record_tool_call(f"t{number}", True, 0.1, {f"p{other}": 1 for other in range(32)})

        assert len(metrics_of(analytics, "t0").parameter_usage) == 32

    def test_parameters_can_be_switched_off(self):
        analytics = AgentAnalytics(parameters=False)
        analytics.record_tool_call("t", True, 0.1, {"q": "private"})

        assert metrics_of(analytics).parameter_usage == {}
        assert "private" not in analytics.summary() + json.dumps(analytics.to_dict())

    def test_tools_beyond_max_tools_are_counted_together(self):
        analytics = AgentAnalytics(max_tools=2)
        for number in range(5):
            analytics.record_tool_call(f"tool {number}", True, 0.1, {"q": number})

        counts = {name: one.total_calls for name, one in analytics.get_all_metrics().items()}
        assert counts == {"(other)": 3, "tool 0": 1, "tool 1": 1}
        assert metrics_of(analytics, "(other)").parameter_usage == {}

    def test_max_tools_below_one_is_an_error(self):
        with pytest.raises(ValueError, match="at least 1, not 0"):
            AgentAnalytics(max_tools=0)


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text of me")

    __repr__ = __str__
    __hash__ = None  # type: ignore[assignment]


RING: list[Any] = []
RING.append(RING)

# By name, because some of them break pytest's own way to name them.
VALUES: dict[str, Any] = {
    "hostile": Hostile(),
    "nan": math.nan,
    "10 MB": b"x" * 10**7,
    "unhashable": [[]],
    "ring": RING,
    "ring in a dict": {"a": RING},
    "surrogate": "\udc80",
    "huge int": 10**5000,
    "zero byte": "\0",
}
DURATIONS: dict[str, Any] = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "-1": -1.0,
    "a clock set back": -3599.99,
    "1e300": 1e300,
    "None": None,
    "text": "1.0",
    "huge int": 10**400,
    "hostile": Hostile(),
}


class TestPoison:
    @pytest.mark.parametrize("kind", VALUES)
    def test_any_value_is_counted_and_can_be_written_out(self, analytics: AgentAnalytics, tmp_path: Path, kind: str):
        for _ in range(2):
            analytics.record_tool_call("t", True, 0.1, {"p": VALUES[kind]})
        analytics.to_json(tmp_path / "a.json")

        written = json.loads((tmp_path / "a.json").read_text("utf-8"), parse_constant=pytest.fail)
        assert list(written["tools"]["t"]["parameter_usage"]["p"].values()) == [2]
        assert "    p: " in analytics.summary()

    @pytest.mark.parametrize("kind", DURATIONS)
    def test_a_duration_that_is_none_counts_as_zero_and_is_flagged(self, analytics: AgentAnalytics, kind: str):
        analytics.record_tool_call("t", True, 2.0, {})
        analytics.record_tool_call("t", True, DURATIONS[kind], {})

        metrics = metrics_of(analytics)
        assert (metrics.total_calls, metrics.total_duration, metrics.invalid_durations) == (2, 2.0, 1)
        assert (metrics.min_duration, metrics.max_duration) == (0.0, 2.0)

    @pytest.mark.parametrize("cost", [math.nan, math.inf, -0.01, None, "free", Decimal("sNaN"), Decimal("1e999999999")])
    def test_a_cost_that_is_none_counts_as_zero_and_is_flagged(self, analytics: AgentAnalytics, cost: Any):
        analytics.record_tool_call("t", True, 0.1, {}, 0.5)
        analytics.record_tool_call("t", True, 0.1, {}, cost)

        metrics = metrics_of(analytics)
        assert (metrics.total_calls, metrics.total_cost, metrics.invalid_costs) == (2, Decimal("0.5"), 1)

    @pytest.mark.parametrize("chunks", [-3, None, math.nan, "many"])
    def test_chunks_that_are_no_number_are_no_chunks(self, analytics: AgentAnalytics, chunks: Any):
        analytics.record_tool_call("t", True, 0.1, {}, 0.0, chunks)

        assert (metrics_of(analytics).total_chunks, metrics_of(analytics).streaming_calls) == (0, 0)

    @pytest.mark.parametrize(("name", "expected"), [(None, "None"), (7, "7"), ("", ""), ("x" * 10**6, "x" * 100 + "…")])
    def test_a_tool_may_be_called_anything(self, analytics: AgentAnalytics, name: Any, expected: str):
        analytics.record_tool_call(name, True, 0.1, {})

        assert list(analytics.get_all_metrics()) == [expected]
        assert metrics_of(analytics, name).total_calls == 1

    def test_recording_a_huge_value_copies_nothing_of_its_size(self, analytics: AgentAnalytics):
        value = {"p": b"x" * 10**7, "q": "x" * 10**7, "r": list(range(10**5))}
        tracemalloc.start()
        analytics.record_tool_call("t", True, 0.1, value)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        assert peak < 100_000

    def test_100000_unique_values_grow_memory_by_less_than_3_mb(self, analytics: AgentAnalytics):
        analytics.record_tool_call("t", True, 0.1, {"q": "warm", "page": 0})
        analytics.summary()
        tracemalloc.start()
        for number in range(100_000):
            analytics.record_tool_call("t", True, number / 1000, {"q": f"question {number}", "page": number})
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()

        assert grown < 300_000
        assert len(json.dumps(analytics.to_dict())) < 20_000
        assert metrics_of(analytics).distinct("page") == pytest.approx(100_000, rel=0.1)


class TestSummary:
    def test_it_is_laid_out_as_the_document_shows(self, sample: AgentAnalytics):
        assert sample.summary() == SUMMARY

    def test_without_data_it_says_so(self, analytics: AgentAnalytics):
        assert analytics.summary() == "No tool usage data collected."

    def test_tools_are_sorted_by_calls_and_then_by_name(self, analytics: AgentAnalytics):
        for name in ("b", "c", "a", "c"):
            analytics.record_tool_call(name, True, 0.1, {})

        assert [line for line in analytics.summary().splitlines() if line.endswith(":")] == ["c:", "a:", "b:"]

    def test_names_and_values_cannot_forge_lines_or_colours(self, analytics: AgentAnalytics):
        analytics.record_tool_call("a\n\x1b[2Jb:", True, 0.1, {"p\r": "x\n  Calls: 99"})

        summary = analytics.summary()
        assert "\na\\n\\x1b[2Jb::\n" in summary
        assert '    p\\r: "x\\n  Calls: 99"\n' in summary
        assert "\x1b" not in summary

    def test_a_tiny_cost_is_not_rounded_to_nothing(self, analytics: AgentAnalytics):
        analytics.record_tool_call("t", True, 0.1, {}, 1.5e-7)

        assert "  Total cost: $0.00000015\n" in analytics.summary()


class TestToDict:
    def test_it_has_the_documents_shape(self, sample: AgentAnalytics):
        data = sample.to_dict()

        assert list(data) == ["tools", "summary"]
        assert data["summary"] == {"total_tools": 2, "total_calls": 38, "total_duration": 3.786, "total_cost": 0.00125}
        assert data["tools"]["search"] == {
            "name": "search",
            "total_calls": 15,
            "successful_calls": 14,
            "failed_calls": 1,
            "success_rate": 93.33,
            "failure_rate": 6.67,
            "total_duration": 3.51,
            "avg_duration": 0.234,
            "total_cost": 0.00125,
            "parameter_usage": {
                "query": {"Python tutorials": 8, "asyncio": 3, "typing": 2, "mypy": 1, "pytest": 1},
                "top_k": {"5": 15},
            },
            "total_chunks": 9,
            "streaming_calls": 2,
            "p50": 0.234,
            "p95": 0.234,
            "p99": 0.234,
            "min_duration": 0.234,
            "max_duration": 0.234,
            "distinct_values": {"query": 5, "top_k": 1},
            "last_errors": ["TimeoutError"],
            "denied_calls": 0,
            "invalid_durations": 0,
            "invalid_costs": 0,
            "other_parameters": 0,
        }

    def test_the_json_file_is_the_dict(self, sample: AgentAnalytics, tmp_path: Path):
        sample.to_json(tmp_path / "analytics.json")

        assert json.loads((tmp_path / "analytics.json").read_text("utf-8")) == sample.to_dict()


class TestCsv:
    def rows(self, analytics: AgentAnalytics, path: Path) -> list[list[str]]:
        analytics.to_csv(path)
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))

    def test_it_has_exactly_the_eight_columns(self, sample: AgentAnalytics, tmp_path: Path):
        sample.to_csv(tmp_path / "analytics.csv")

        assert (tmp_path / "analytics.csv").read_bytes().decode() == (
            f"{HEADER}\r\n"
            "calculate,23,23,0,100.00,0.0120,0.2760,0.000000\r\n"
            "search,15,14,1,93.33,0.2340,3.5100,0.001250\r\n"
        )

    def test_without_data_there_is_the_header(self, analytics: AgentAnalytics, tmp_path: Path):
        assert self.rows(analytics, tmp_path / "a.csv") == [HEADER.split(",")]

    @pytest.mark.parametrize(
        ("name", "cell"),
        [
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1+1", "'+1+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("  =1", "'  =1"),
            ("＝1", "'＝1"),
            ("\t=1", "\\t=1"),
            ("\r\n=1", "\\r\\n=1"),
            ('a,"b"', 'a,"b"'),
            ("größer 🙂", "größer 🙂"),
        ],
    )
    def test_a_tool_name_is_never_a_formula(self, analytics: AgentAnalytics, tmp_path: Path, name: str, cell: str):
        analytics.record_tool_call(name, True, 0.1, {})

        rows = self.rows(analytics, tmp_path / "a.csv")

        assert rows[1][0] == cell
        assert [len(row) for row in rows] == [8, 8]

    def test_a_semicolon_does_not_start_a_cell(self, analytics: AgentAnalytics, tmp_path: Path):
        analytics.record_tool_call("a;=1+1", True, 0.1, {})
        analytics.to_csv(tmp_path / "a.csv")

        with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
            cells = [row[0] for row in csv.reader(file, delimiter=";")]
        assert cells[1].startswith("a;=1+1")


class TestThreads:
    def run(self, *work: Callable[[], None]) -> None:
        failures: list[BaseException] = []

        def guarded(one: Callable[[], None]) -> None:
            try:
                one()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    @pytest.fixture(autouse=True)
    def _often(self) -> Iterator[None]:
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        yield
        sys.setswitchinterval(before)

    def test_32_threads_lose_nothing(self, analytics: AgentAnalytics):
        def work() -> None:
            for number in range(500):
                analytics.record_tool_call("t", number % 2 == 0, 0.25, {"q": "a"}, 0.001, 1, error_type="E")

        self.run(*[work] * 32)

        metrics = metrics_of(analytics)
        assert (metrics.total_calls, metrics.failed_calls, metrics.total_chunks) == (16_000, 8_000, 16_000)
        assert (metrics.total_duration, metrics.total_cost) == (4_000.0, Decimal(16))
        assert metrics.parameter_usage == {"q": {"a": 16_000}}
        assert metrics.durations.count == 16_000

    def test_first_calls_of_a_tool_meet_in_one_entry(self):
        for _ in range(50):
            analytics = AgentAnalytics()
            self.run(*[lambda: analytics.record_tool_call("t", True, 0.1, {"q": 1})] * 8)  # noqa: B023
            assert metrics_of(analytics).parameter_usage == {"q": {"1": 8}}

    def test_reading_while_others_record_never_raises_and_never_tears(self, analytics: AgentAnalytics, tmp_path: Path):
        done = threading.Event()

        def record() -> None:
            for number in range(3_000):
                analytics.record_tool_call(f"t{number % 40}", True, 0.5, {f"p{number % 7}": number})
            done.set()

        def read() -> None:
            while not done.is_set():
                analytics.summary()
                analytics.to_json(tmp_path / f"{threading.get_ident()}.json")
                for metrics in analytics.get_all_metrics().values():
                    assert metrics.durations.count == metrics.total_calls
                    assert metrics.total_duration == metrics.total_calls * 0.5
                    arguments = sum(sum(counts.values()) for counts in metrics.parameter_usage.values())
                    assert arguments == metrics.total_calls

        self.run(record, record, read, read)

    def test_a_call_recorded_from_inside_a_recording_is_counted_and_does_not_hang(self, analytics: AgentAnalytics):
        class Reentrant(Mapping[str, int]):
            """Stands for a finalizer or a signal handler that runs in the middle."""

            def __getitem__(self, key: str) -> int:
                analytics.record_tool_call("inner", True, 0.1, {})
                return 1

            def __iter__(self) -> Iterator[str]:
                return iter("ab")

            def __len__(self) -> int:
                return 2

        self.run(lambda: analytics.record_tool_call("outer", True, 0.1, Reentrant()))

        counts = {name: one.total_calls for name, one in analytics.get_all_metrics().items()}
        assert counts == {"inner": 2, "outer": 1}
        assert metrics_of(analytics, "outer").parameter_usage == {"a": {"1": 1}, "b": {"1": 1}}

    def test_a_call_recorded_between_any_two_lines_of_recording_or_reading_does_no_harm(
        self, analytics: AgentAnalytics
    ):
        fired = 0

        def interrupt(frame: Any, event: str, arg: object) -> Any:
            """As a signal handler or a finalizer would, in the middle of the library's own lines."""
            nonlocal fired
            if "agent_meter" not in frame.f_code.co_filename:
                return None
            if event == "line" and fired < 2_000:
                fired += 1
                analytics.record_tool_call("t", True, 0.25, {f"p{fired % 30}": fired})
            return interrupt

        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            for number in range(5):
                analytics.record_tool_call("t", True, 0.25, {"q": number})
                analytics.to_dict()
        finally:
            sys.settrace(before)

        metrics = metrics_of(analytics)
        arguments = sum(sum(counts.values()) for counts in metrics.parameter_usage.values())
        assert fired > 1_000
        assert (metrics.total_calls, metrics.durations.count, arguments) == (fired + 5,) * 3


def test_the_seed_documents_alert_loop_works(sample: AgentAnalytics):
    failing = [
        f"{name}: {metrics.failure_rate:.1f}%, {metrics.avg_duration:.2f}s"
        for name, metrics in sample.get_all_metrics().items()
        if metrics.failure_rate > 5.0
    ]

    assert failing == ["search: 6.7%, 0.23s"]

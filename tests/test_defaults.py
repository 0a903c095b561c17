"""The built-ins: what every meter is made of, the log line, the cost warning."""

from __future__ import annotations

import logging
import subprocess
import sys
from decimal import Decimal

import pytest

from agent_meter import BudgetExceeded, Denial, Meter, PriceBook, PriceError, TokenUsage, hookimpl
from agent_meter.testing import FakeClock, RecordingPlugin

USAGE = TokenUsage(30, 15)


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "agent_meter" and record.levelno == level and not record.getMessage().startswith("No price")
    ]


# ------------------------------------------------------------------------------------------- what is built in


def test_built_ins_are_plugins_like_any_other() -> None:
    assert Meter().plugins.names() == ["prices", "log", "analytics", "usage"]
    assert Meter(cost_warning_threshold=1).plugins.names() == ["prices", "log", "cost warning", "analytics", "usage"]


def test_prices_may_be_a_book_or_a_mapping_with_blended_rates_beside() -> None:
    book = PriceBook({"house": {"input": "1", "output": "2"}})
    own = Meter(prices=book, cost_rates={"blended": 0.001})
    mapped = Meter(prices={"house": {"input": "1", "output": "2"}})

    assert own.prices is book
    costs = [
        meter.record_usage(model=model, input_tokens=1_000_000, output_tokens=1_000_000).cost_usd
        for meter, model in ((own, "house"), (own, "blended"), (mapped, "house"))
    ]
    assert costs == [3, 2, 3]


def test_what_is_unpriced_may_be_refused() -> None:
    meter = Meter(on_unpriced="block")

    with pytest.raises(BudgetExceeded), meter.llm("zz-unknown"):
        pytest.fail("the call was made")
    with meter.llm("gpt-4o") as call:
        call.finish(USAGE)
    with pytest.raises(PriceError, match="on_unpriced"):
        Meter(on_unpriced="maybe")


# ------------------------------------------------------------------------------------------------- the log


@pytest.fixture
def meter() -> Meter:
    return Meter(clock=FakeClock())


def test_a_finished_call_is_one_line(caplog: pytest.LogCaptureFixture, meter: Meter) -> None:
    with caplog.at_level(logging.INFO, logger="agent_meter"):
        meter.record_usage(model="gpt-4o-mini", input_tokens=30, output_tokens=15, duration=0.4124)
        meter.record_usage(model="gpt-4o", input_tokens=30, output_tokens=5, duration=0.412)

    assert lines(caplog) == [
        "Request completed: 45 tokens, $0.0000 (gpt-4o-mini, 412 ms)",
        "Request completed: 35 tokens, $0.0001 (gpt-4o, 412 ms)",
    ]


def test_the_line_is_exactly_this_one(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter(prices={"gpt-4o": {"input": "2.2", "output": "2.2"}})

    with caplog.at_level(logging.INFO, logger="agent_meter"):
        meter.record_usage(model="gpt-4o", input_tokens=30, output_tokens=15, duration=0.412)

    (record,) = [record for record in caplog.records if record.name == "agent_meter"]
    assert record.getMessage() == "Request completed: 45 tokens, $0.0001 (gpt-4o, 412 ms)"
    assert (record.levelname, record.name) == ("INFO", "agent_meter")


def test_the_line_says_what_is_special(caplog: pytest.LogCaptureFixture, meter: Meter) -> None:
    with caplog.at_level(logging.INFO, logger="agent_meter"):
        meter.record_usage(model="gpt-4o", input_tokens=30, output_tokens=15, cached=True, duration=0.0)
        meter.record_usage(model="zz-unknown", input_tokens=30)
        with pytest.raises(TimeoutError), meter.llm("gpt-4o"):
            raise TimeoutError
        with meter.tool("t"):
            pass

    assert lines(caplog) == [
        "Request completed: 45 tokens, $0.0002 (gpt-4o, 0 ms, cached)",
        "Request completed: 30 tokens, unpriced (zz-unknown)",
        "Request completed: 0 tokens, $0.0000 (gpt-4o, 0 ms, error)",
    ]


def test_nothing_is_logged_unless_it_is_asked_for() -> None:
    """And `logging` is not even imported for it."""
    program = (
        "import sys\n"
        "from agent_meter import Meter\n"
        "meter = Meter()\n"
        "before = 'logging' in sys.modules\n"
        "meter.record_usage(model='ollama/x', provider='ollama', input_tokens=30)\n"
        "print('logging' in sys.modules and not before, file=sys.stdout)\n"
        "import logging\n"
        "meter.record_usage(model='ollama/x', provider='ollama', input_tokens=30)\n"
    )
    quiet = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loud = subprocess.run(
        [
            sys.executable,
            "-c",
            program.replace("import logging\n", "import logging\nlogging.basicConfig(level='INFO')\n"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert (quiet.stdout, quiet.stderr) == ("False\n", "")
    assert loud.stderr == "INFO:agent_meter:Request completed: 30 tokens, $0.0000 (ollama/x)\n"


# -------------------------------------------------------------------------------------------- the warning


def test_the_warning_comes_once_with_the_seeds_sentence(caplog: pytest.LogCaptureFixture) -> None:
    watching = RecordingPlugin()
    meter = Meter([watching], cost_warning_threshold=0.001)
    for _ in range(10):
        meter.record_usage(model="gpt-4o", input_tokens=200)  # $0.0005 each

    assert lines(caplog, logging.WARNING) == ["⚠️  Cost Warning: Total cost $0.001500 exceeds threshold $0.001000"]
    assert [alert.message for alert in watching.alerts] == [
        "Cost Warning: Total cost $0.001500 exceeds threshold $0.001000"
    ]


def test_a_total_that_equals_the_threshold_has_not_crossed_it() -> None:
    watching = RecordingPlugin()
    meter = Meter([watching], cost_warning_threshold=Decimal("0.001"))
    for _ in range(2):
        meter.record_usage(model="gpt-4o", input_tokens=200)
    assert watching.alerts == []

    meter.record_usage(model="gpt-4o", input_tokens=1)

    assert len(watching.alerts) == 1


def test_after_a_reset_it_may_be_crossed_again() -> None:
    watching = RecordingPlugin()
    meter = Meter([watching], cost_warning_threshold=0.001)
    for tokens in ([4000], [100, 100, 4000], [3000]):
        for number in tokens:
            meter.record_usage(model="gpt-4o", input_tokens=number)
        meter.reset()

    assert [alert.used for alert in watching.alerts] == [10**10, 10_500_000_000, 7_500_000_000]


def test_unpriced_denied_and_free_calls_do_not_warn() -> None:
    class Gate:
        @hookimpl
        def meter_admit_call(self, call: object) -> Denial:
            return Denial("closed")

    watching = RecordingPlugin()
    meter = Meter([watching, Gate()], cost_warning_threshold=0)
    meter.record_usage(model="zz-unknown", input_tokens=10**9)
    meter.record_usage(model="llama3", provider="ollama", input_tokens=10**9)
    with pytest.raises(BudgetExceeded), meter.llm("gpt-4o"):
        pass

    assert watching.alerts == []


@pytest.mark.parametrize("threshold", [float("nan"), "much"])
def test_a_threshold_that_is_no_amount_is_refused_at_once(threshold: object) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        Meter(cost_warning_threshold=threshold)  # type: ignore[arg-type]

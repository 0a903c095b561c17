"""Rules at work: they fire once, for whom they should, do what they say, and survive a restart."""

from __future__ import annotations

import json
import logging
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tests.rules.test_loading import SEED

from agent_meter import Budget, BudgetExceeded, Meter, TokenUsage
from agent_meter.rules import Rule, RuleError, Rules, read
from agent_meter.rules.actions import deliveries
from agent_meter.shelf import FileShelf
from agent_meter.testing import FakeClock, RecordingPlugin

LIMITS = {"daily_limit": 10_000, "agent_hourly_limit": 1_000, "task_limit": 500}


def metered(rules, **options):
    clock = FakeClock()
    meter = Meter(clock=clock, **options)
    watch = RecordingPlugin()
    meter.register(watch)
    meter.register(rules)
    return meter, clock, watch


def use(meter, tokens, **whose):
    meter.record_usage(model="gpt-4o", input_tokens=tokens, **whose)


def rule(condition, message="", **options):
    return Rule.make("it", condition, message, **options)


def test_the_four_rules_of_the_seed_fire_with_their_messages():
    rules = Rules.of(read(SEED), limits=LIMITS, interval=None)
    meter, _clock, watch = metered(rules)
    with meter.scope(agent="researcher", task="t1"):
        use(meter, 2_001)
    rules.check()
    assert {alert.message for alert in watch.alerts} >= {
        "Agent researcher token usage spiked: 2,001/hr",
        "Agent researcher may be looping: 2,001 tokens/task",
    }
    with meter.scope(agent="other"):
        use(meter, 8_000)
    rules.check()
    messages = [alert.message for alert in watch.alerts]
    assert "Daily token budget exceeded: 10,001/10,000" in messages
    (forecast,) = [message for message in messages if message.startswith("On track")]
    assert int(forecast.split()[-1].rstrip("%").replace(",", "")) > 0
    assert [alert.severity for alert in watch.alerts if alert.name == "daily_budget_exceeded"] == ["P1"]


def test_a_limit_that_nobody_set_is_an_error_when_the_rules_are_registered():
    with pytest.raises(RuleError, match=r"rules:3: rule daily_budget_exceeded: nobody set daily_limit"):
        Meter().register(Rules.of(read(SEED), interval=None))


def test_limits_come_from_the_budgets_of_the_meter():
    budgets = [
        Budget("all", tokens=10_000, per="day", mode="soft"),
        Budget("agents", tokens=1_000, per="hour", agent="*", mode="soft"),
        Budget("writer", tokens=500, per="hour", agent="writer", mode="soft"),
        Budget("run", tokens=400, per="run", mode="soft"),
        Budget("gpt-4o only", tokens=1, per="day", model="gpt-4o", mode="soft"),
    ]
    rules = Rules.of(read(SEED), interval=None)
    meter, _, watch = metered(rules, budgets=budgets)
    use(meter, 1_001, agent="writer", task="t")
    use(meter, 1_001, agent="researcher", task="t")
    rules.check()
    spiked = [alert.message for alert in watch.alerts if alert.name == "agent_spike"]
    assert spiked == ["Agent writer token usage spiked: 1,001/hr"]
    use(meter, 9_000, agent="researcher", task="t")
    rules.check()
    alerts = {alert.name: alert for alert in watch.alerts}
    assert (alerts["daily_budget_exceeded"].used, alerts["daily_budget_exceeded"].limit) == (11_002, 10_000)
    assert alerts["runaway_detected"].limit == 400


def test_a_rule_fires_once_until_its_condition_was_false():
    rules = Rules([rule("hourly_tokens > 100")], interval=None)
    meter, clock, _watch = metered(rules)
    use(meter, 101)
    assert len(rules.check()) == 1
    use(meter, 101)
    assert rules.check() == []
    clock.advance(3600)
    assert rules.check() == []  # quiet again: the hour is over
    use(meter, 101)
    assert len(rules.check()) == 1


def test_hysteresis_keeps_a_rule_that_flutters_quiet():
    flutter = rule("hourly_requests >= 2", until="hourly_requests < 1")
    rules = Rules([flutter], interval=None)
    meter, clock, _ = metered(rules)
    use(meter, 1), use(meter, 1)
    assert len(rules.check()) == 1
    clock.advance(3600)
    use(meter, 1)  # the condition is false, but `until` is not true either
    assert rules.check() == []
    use(meter, 1)
    assert rules.check() == []


def test_for_means_that_the_condition_must_hold_so_long():
    rules = Rules([rule("daily_tokens > 10", hold="5m")], interval=None)
    meter, clock, _ = metered(rules)
    use(meter, 11)
    assert rules.check() == []
    clock.advance(299)
    assert rules.check() == []
    clock.advance(1)
    assert len(rules.check()) == 1


def test_what_has_fired_before_a_restart_does_not_fire_again(tmp_path):
    shelf = tmp_path / "state.json"
    for expected in (1, 0):
        rules = Rules([rule("daily_tokens > 10")], interval=None, shelf=FileShelf(shelf))
        meter, _, watch = metered(rules)
        use(meter, 11)
        rules.check()
        assert len(watch.alerts) == expected
        meter.shutdown()


def test_two_processes_that_see_the_same_fire_once(tmp_path):
    """Two engines on one shelf stand for two processes."""
    fired = []
    for _ in range(2):
        rules = Rules([rule("daily_tokens > 10")], interval=None, shelf=FileShelf(tmp_path / "state.json"))
        meter, _, _ = metered(rules)
        use(meter, 11)
        fired += rules.check()
    assert len(fired) == 1


def test_pausing_spares_critical_agents_and_resume_lets_go():
    rules = Rules(
        [rule("daily_tokens > 10", action="pause_all_noncritical_agents")], interval=None, critical=["billing"]
    )
    meter, _, _ = metered(rules)
    use(meter, 11)
    rules.check()
    with meter.scope(agent="billing"), meter.llm("gpt-4o") as call:
        call.finish(TokenUsage(1, 1))
    with meter.scope(agent="support", critical=True), meter.llm("gpt-4o") as call:
        call.finish(TokenUsage(1, 1))
    with (
        meter.scope(agent="researcher"),
        pytest.raises(BudgetExceeded, match=r"every agent: paused .* agent-meter resume"),
    ):
        meter.llm("gpt-4o").__enter__()
    rules.controls.resume()
    with meter.scope(agent="researcher"), meter.llm("gpt-4o") as call:
        call.finish(TokenUsage(1, 1))


def test_killing_a_task_stops_that_task_of_that_agent_alone():
    rules = Rules([rule("agent_tokens_per_task > 100", action="kill_agent_task")], interval=None)
    meter, _, _ = metered(rules)
    use(meter, 101, agent="a", task="t")
    rules.check()
    with meter.scope(agent="a", task="t"), pytest.raises(BudgetExceeded, match="task t of a: stopped"):
        meter.llm("gpt-4o").__enter__()
    for whose in ({"agent": "a", "task": "u"}, {"agent": "b", "task": "t"}):
        with meter.scope(**whose), meter.llm("gpt-4o") as call:
            call.finish(TokenUsage(1, 1))


def test_an_action_of_your_own_is_told_everything():
    told = []
    rules = Rules(
        [rule("agent_daily_cost > 0.001", "{name}: {used}", action="page")],
        interval=None,
        actions={"page": told.append},
    )
    meter, _, _ = metered(rules)
    use(meter, 1_000, agent="a")
    rules.check()
    (firing,) = told
    assert (firing.agent, firing.alert.message) == ("a", "a: $0.002500")
    assert firing.alert.unit == "usd_pico"
    assert firing.alert.used == 2_500_000_000


def test_an_action_that_raises_is_counted_and_the_next_one_runs(caplog):
    def broken(firing):
        raise RuntimeError("no pager")

    rules = Rules([rule("daily_tokens > 10", action=["page", "log"])], interval=None, actions={"page": broken})
    meter, _, _ = metered(rules)
    use(meter, 11)
    with caplog.at_level(logging.WARNING, "agent_meter.rules"):
        rules.check()
    assert meter.health()["failures"] == {"rules": {"page": 1}}
    assert "[P3] it: daily_tokens > 10" in caplog.text


def test_investigating_says_where_the_tokens_went(caplog):
    rules = Rules([rule("agent_hourly_tokens > 10", action="investigate_agent")], interval=None)
    meter, _, _ = metered(rules)
    use(meter, 90, agent="a", tools=("search",))
    with caplog.at_level(logging.WARNING, "agent_meter.rules"):
        rules.check()
    assert "a: gpt-4o 90 tokens in 1 calls; tool search 1×" in caplog.text


@pytest.mark.parametrize(
    ("condition", "action", "says"),
    [
        ("daily_tokens > 1", "kill_agent_task", "a condition about tasks"),
        ("daily_tokens > 1", "investigate_agent", "a condition about agents"),
        ("daily_tokens > 1", "page", "there is no action 'page'"),
        ("daily_tokens > 1", {"log": {"a": 1}}, "takes no options"),
        ("daily_tokens > 1", "webhook", "needs a url"),
        ("daily_tokens > 1", {"webhook": {"url": "file:///etc/passwd"}}, "needs a url"),
        ("daily_tokens > 1", {"webhook": {"url": "http://x", "tries": 1}}, "knows no 'tries'"),
    ],
)
def test_an_action_that_cannot_work_is_an_error_at_load(condition, action, says):
    with pytest.raises(RuleError, match=says):
        Rules([rule(condition, action=action)])


def test_a_webhook_is_delivered_after_a_failure_and_off_the_callers_path(monkeypatch):
    bodies, answers = [], iter([500, 200])
    slow = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            slow.wait(5)
            bodies.append((self.headers["Authorization"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(next(answers))
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PAGER_TOKEN", "t0k")
    url = f"http://127.0.0.1:{server.server_port}/alerts"
    action = {"webhook": {"url": url, "headers": {"Authorization": "Bearer ${PAGER_TOKEN}"}}}
    rules = Rules([rule("daily_tokens > 10", "used {used}", severity="P1", action=action)], interval=None)
    meter, _, _ = metered(rules)
    use(meter, 11)
    rules.check()  # returns although nobody has answered yet
    slow.set()
    assert deliveries.flush(10)
    server.shutdown()
    assert [auth for auth, _ in bodies] == ["Bearer t0k"] * 2
    assert json.loads(bodies[1][1])["text"] == "[P1] used 11"


def test_the_thread_checks_by_itself_and_ends_with_the_meter():
    rules = Rules([rule("daily_tokens > 10")], interval=0.02)
    meter, _, watch = metered(rules)
    use(meter, 11)
    for _ in range(200):
        if watch.alerts:
            break
        threading.Event().wait(0.02)
    assert [alert.name for alert in watch.alerts] == ["it"]
    meter.shutdown()
    assert rules._stopped.is_set()


def test_a_call_counts_where_it_began_and_a_denied_one_not_at_all():
    rules = Rules([rule("daily_tokens > 10")], interval=None)
    meter, clock, _ = metered(rules)
    meter.record_usage(model="gpt-4o", input_tokens=11, started_at=clock.now() - timedelta(days=1))
    meter.record_usage(model="gpt-4o", input_tokens=11, status="denied")
    assert rules.check() == []

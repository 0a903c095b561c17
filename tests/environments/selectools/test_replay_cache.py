"""`AgentConfig(cache=ReplayCache())`: selectools takes our cache for one of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent_meter import CacheStats, Meter, ReplayCache
from agent_meter.adapters.selectools import MeterObserver
from agent_meter.testing import Reply

DONE = Reply("done", input_tokens=200, output_tokens=30)


def test_the_sample_of_the_seed_document_runs_with_a_replay_cache(
    agent: Any, openai: Any, loopback: Any, meter: Meter
) -> None:
    cache = ReplayCache(max_size=500, default_ttl=600)
    served = loopback([DONE])
    cached = agent(openai(served), MeterObserver(meter), cache=cache)
    cached.run("Hello")
    cached.reset()
    answer = cached.run("Hello")  # cache hit

    assert (answer.content, len(served.requests)) == ("done", 1)
    assert (f"{cache.stats.hit_rate:.1%}", cache.stats) == ("50.0%", CacheStats(hits=1, misses=1, evictions=0))
    assert [record.cached for record in meter.history()] == [False, True]
    assert meter.usage.saved_cost_usd == meter.usage.billed_cost_usd


def test_what_somebody_does_to_an_answer_does_not_reach_the_cache(agent: Any, openai: Any, loopback: Any) -> None:
    cached = agent(openai(loopback([DONE])), cache=ReplayCache())
    cached.run("Hi")
    cached.usage.iterations[0].prompt_tokens = 9_999
    cached.reset()
    cached.run("Hi")

    assert cached.usage.iterations[0].prompt_tokens == 200


def test_another_process_finds_the_answers_in_the_file(agent: Any, openai: Any, loopback: Any, tmp_path: Path) -> None:
    served, path = loopback([DONE]), tmp_path / "answers.db"
    answers = [agent(openai(served), cache=ReplayCache(path=path)).run("Hi").content for _ in range(2)]

    assert (answers, len(served.requests)) == (["done", "done"], 1)

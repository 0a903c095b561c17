"""The pages about exports and metrics tell the truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pages import read, run_examples

from agent_meter.exporters import FORMATS
from agent_meter.exporters.columns import NAMES
from agent_meter.exporters.figures import ITERATIONS, MAX_AGENTS, MAX_MODELS, MAX_TOOLS, SECONDS
from agent_meter.exporters.names import METRICS, TOKEN_COUNTERS, TOKEN_HISTOGRAM


@pytest.mark.parametrize("page", ["how-to/export-usage.md", "how-to/send-metrics.md"])
def test_the_examples_run_and_print_what_they_say(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    run_examples(page)


@pytest.mark.parametrize("page", ["how-to/export-usage.md", "how-to/send-metrics.md"])
def test_how_to_pages_end_in_verify_and_troubleshoot(page: str):
    headings = [line for line in read(page).splitlines() if line.startswith("## ")]

    assert headings[-2:] == ["## Verify", "## Troubleshoot"]


def test_every_metric_is_on_the_page_with_its_help():
    page = read("reference/metrics.md")

    for metric in METRICS.values():
        assert f"| `{metric.prometheus}` |" in page
        assert metric.help in page
        assert not metric.otel or f"`{metric.otel}`" in page
    assert all(f"`{name}`" in page for name in (TOKEN_HISTOGRAM, *TOKEN_COUNTERS.values()))


def test_the_bounds_on_the_page_are_those_of_the_code():
    page = read("reference/metrics.md")

    assert {MAX_AGENTS, MAX_MODELS, MAX_TOOLS} == {200}
    assert f"{SECONDS[0]}, {SECONDS[1]}, {SECONDS[2]} … {SECONDS[-1]} seconds" in page
    assert f"… {int(ITERATIONS[-1])}." in page


def test_every_column_and_every_format_is_on_the_page():
    page = read("reference/exports.md")

    assert [name for name in (*NAMES, *FORMATS) if f"`{name}`" not in page] == []

"""Prices depend on files and variables of whoever runs the tests; these tests must not."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, and none of our variables."""
    monkeypatch.chdir(tmp_path)
    for name in ("AGENT_METER_PRICES", "AGENT_METER_COST_RATES", "AGENT_METER_PRICE_LIST"):
        monkeypatch.delenv(name, raising=False)

"""mamba-agents runs here, beside the meter."""

from __future__ import annotations

import mamba_agents


def test_mamba_agents_can_be_imported() -> None:
    assert mamba_agents.__version__

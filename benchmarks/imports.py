"""What `import agent_meter` costs beside `import pluggy`, which it needs. Promise: ≤ 2.5 times.

`from agent_meter import Meter` is the same plus the meter itself.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

from .measuring import machine, table, title

PROMISED = 2.5
CODE = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
STATEMENTS = ("import pluggy", "import agent_meter", "from agent_meter import Meter")


def milliseconds(statement: str, bytecode: str) -> float:
    """With bytecode, as both are once installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    answer = subprocess.run(
        [sys.executable, "-c", CODE.format(statement)],
        check=True,
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPYCACHEPREFIX": bytecode},
    )
    return float(answer.stdout) * 1000


def main(rounds: int = 15) -> None:
    title(f"import, ms ({machine()}, median of {rounds} interleaved runs)")
    samples: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    with tempfile.TemporaryDirectory() as bytecode:
        for statement in samples:
            milliseconds(statement, bytecode)  # compiles
        for _ in range(rounds):
            for statement, values in samples.items():
                values.append(milliseconds(statement, bytecode))
    medians = {statement: statistics.median(values) for statement, values in samples.items()}
    pluggy = medians["import pluggy"]
    table(
        ("statement", "ms", "ratio"),
        [(statement, f"{median:.1f}", f"{median / pluggy:.2f}") for statement, median in medians.items()],
    )
    print(f"\npromised for import agent_meter: ≤ {PROMISED}")


if __name__ == "__main__":
    main()

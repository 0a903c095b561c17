"""Interleaved measurements: on a shared machine the ratio of two things measured in turn holds, a single time not."""

from __future__ import annotations

import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping

Timed = Callable[[int], None]  # does the thing n times


def microseconds(things: Mapping[str, Timed], number: int, runs: int = 5, blocks: int = 20) -> dict[str, float]:
    """CPU microseconds (all threads of the process) of each thing, the median of `runs` runs.

    A run does each thing `number` times in `blocks` blocks, the things in turn and in another order every time, so
    that a machine which slows down slows them all down alike.
    """
    samples: dict[str, list[float]] = {name: [] for name in things}
    names = list(things)
    each = max(1, number // blocks)
    for name in names:
        things[name](each)  # warm
    shuffle = random.Random(1).shuffle
    for _ in range(runs):
        spent = dict.fromkeys(names, 0)
        for _ in range(blocks):
            shuffle(names)
            for name in names:
                start = time.process_time_ns()
                things[name](each)
                spent[name] += time.process_time_ns() - start
        for name, nanoseconds in spent.items():
            samples[name].append(nanoseconds / (each * blocks) / 1000)
    return {name: statistics.median(samples[name]) for name in things}


def title(text: str) -> None:
    print(f"\n## {text}\n")


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, tuple("-" * width for width in widths), *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("| " + " | ".join(cells) + " |")


def machine() -> str:
    return f"Python {platform.python_version()}, {platform.machine()}, {sys.platform}"

"""Bounded summaries of unbounded streams: how long, how often, how many different.

Each has a stated error, takes no more memory after ten million calls than after a thousand, answers the same
in every process (nothing depends on Python's salted `hash`), and merges. None of them locks; whoever shares one
between threads does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, inf, log, log2
from typing import Any

# The exponential histogram of OpenTelemetry at scale 5: bucket i holds (2^(i/32), 2^((i+1)/32)].
SCALE = 5
_PER_OCTAVE = 1 << SCALE
_BASE = 2.0 ** (1 / _PER_OCTAVE)
_MIDDLE = 2 * _BASE / (1 + _BASE)  # times the lower bound: equally far, relatively, from both bounds
_SMALLEST = 1e-6
_LARGEST = 1e6
_TOP = ceil(log2(_LARGEST) * _PER_OCTAVE)  # everything above _LARGEST
_ZERO = ceil(log2(_SMALLEST) * _PER_OCTAVE) - 2  # everything below _SMALLEST
_LIMIT = 1e15  # so that no sum of them overflows


class LogHistogram:
    """Quantiles of numbers >= 0 within ±1.1 %, from at most 1,278 counters, made as they are needed.

    The bound holds from 1e-6 to 1e6 (for seconds: a microsecond to eleven days). Below, the error is less than
    1e-6; a quantile above 1e6 is answered with the largest value seen. `min`, `max` and `count` are exact, `sum`
    is a sum of floats.
    """

    __slots__ = ("_buckets", "_high", "_low", "_sum")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._sum = 0.0
        self._low = inf
        self._high = 0.0

    def record(self, value: float) -> None:
        """Count one number; a negative one, NaN, or one above 1e15 raises ValueError and changes nothing."""
        if not 0.0 <= value <= _LIMIT:
            raise ValueError(f"not a number between 0 and {_LIMIT:g}: {value!r}")
        self._sum += value
        if value < self._low:
            self._low = value
        if value > self._high:
            self._high = value
        if value < _SMALLEST:
            index = _ZERO
        elif value > _LARGEST:
            index = _TOP
        else:
            index = ceil(log2(value) * 32.0) - 1
        try:
            self._buckets[index] += 1
        except KeyError:
            self._buckets[index] = 1

    @property
    def count(self) -> int:
        return sum(self._buckets.values())

    @property
    def sum(self) -> float:
        return self._sum

    @property
    def min(self) -> float | None:
        """The smallest value, `None` before the first."""
        return self._low if self._buckets else None

    @property
    def max(self) -> float | None:
        """The largest value, `None` before the first."""
        return self._high if self._buckets else None

    def quantile(self, q: float) -> float | None:
        """The value of rank ceil(q x count), ±1.1 %; exact at both ends, `None` before the first value."""
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile is between 0 and 1, not {q!r}")
        count = self.count
        if not count:
            return None
        rank = ceil(q * count - 1e-9)  # 0.07 * 100 is 7.000000000000001
        if rank <= 1:
            return self._low
        if rank >= count:
            return self._high
        index = _TOP
        for index in sorted(self._buckets):
            rank -= self._buckets[index]
            if rank <= 0:
                break
        if index == _TOP:
            return self._high
        middle = 0.0 if index == _ZERO else 2.0 ** (index / _PER_OCTAVE) * _MIDDLE
        return min(max(middle, self._low), self._high)

    def merge(self, other: LogHistogram) -> None:
        """Add everything that `other` has counted."""
        for index, count in other._buckets.items():
            self._buckets[index] = self._buckets.get(index, 0) + count
        self._sum += other._sum
        self._low = min(self._low, other._low)
        self._high = max(self._high, other._high)

    def copy(self) -> LogHistogram:
        twin = LogHistogram()
        twin._buckets = self._buckets.copy()
        twin._sum, twin._low, twin._high = self._sum, self._low, self._high
        return twin

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `buckets` are [index, count] as OpenTelemetry numbers them, `zero_count` is below 1e-6."""
        return {
            "scale": SCALE,
            "count": self.count,
            "sum": self._sum,
            "min": self.min,
            "max": self.max,
            "zero_count": self._buckets.get(_ZERO, 0),
            "buckets": [[index, self._buckets[index]] for index in sorted(self._buckets) if index != _ZERO],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LogHistogram:
        """The histogram that `to_dict` wrote; one of another scale raises ValueError."""
        if data["scale"] != SCALE:
            raise ValueError(f"a histogram of scale {SCALE} is needed, not {data['scale']!r}")
        new = cls()
        new._buckets = {int(index): int(count) for index, count in data["buckets"]}
        if data["zero_count"]:
            new._buckets[_ZERO] = int(data["zero_count"])
        if new._buckets:
            new._sum, new._low, new._high = float(data["sum"]), float(data["min"]), float(data["max"])
        return new

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogHistogram) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<LogHistogram of {self.count:,}: {self.min} … {self.max}>"


_PRECISION = 11
_REGISTERS = 1 << _PRECISION
_RANK_BITS = 64 - _PRECISION
_RANK_MASK = (1 << _RANK_BITS) - 1


class Distinct:
    """How many different texts: HyperLogLog with 2,048 registers of one byte, standard error 2.3 %.

    The estimator is Ertl's ("New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6),
    which needs no tables and is without bias from a few to billions.
    """

    __slots__ = ("_hash", "_registers")

    def __init__(self) -> None:
        from hashlib import blake2b  # here, because importing it costs more than the rest of this module

        self._hash = blake2b
        self._registers = bytearray(_REGISTERS)

    def add(self, text: str) -> None:
        try:
            data = text.encode()
        except UnicodeEncodeError:  # a lone surrogate
            data = text.encode("utf-8", "surrogatepass")
        bits = int.from_bytes(self._hash(data, digest_size=8).digest(), "big")
        index = bits >> _RANK_BITS
        rank = _RANK_BITS + 1 - (bits & _RANK_MASK).bit_length()
        if rank > self._registers[index]:
            self._registers[index] = rank

    def estimate(self) -> int:
        registers = self._registers
        total = 0.0
        # Rank 54, a hash of 53 zero bits, would need the paper's second correction; nobody counts to 2^63.
        for rank in range(max(registers), 0, -1):
            total = 0.5 * (total + registers.count(rank))
        total += _REGISTERS * _sigma(registers.count(0) / _REGISTERS)
        return round(_REGISTERS * _REGISTERS / (2 * log(2) * total))

    def merge(self, other: Distinct) -> None:
        """Add everything that `other` has seen; exactly what one sketch would have seen of both."""
        self._registers = bytearray(map(max, self._registers, other._registers))

    def to_hex(self) -> str:
        return self._registers.hex()

    @classmethod
    def from_hex(cls, text: str) -> Distinct:
        new = cls()
        registers = bytearray.fromhex(text)
        if len(registers) != _REGISTERS:
            raise ValueError(f"{_REGISTERS} registers are needed, not {len(registers)}")
        new._registers = registers
        return new


def _sigma(share: float) -> float:
    if share == 1.0:
        return inf
    weight, total, before = 1.0, share, -1.0
    while total != before:
        share *= share
        before = total
        total += share * weight
        weight += weight
    return total


class TopValues:
    """The most common texts and how many different ones there were, from at most `capacity` counters.

    Exact until more than `capacity` different texts have come. From then on each text that is kept has a lower
    and an upper bound, and whatever is not kept came at most `error` times, where `error` is less than
    `total / (capacity // 2)`: a text with a larger share than that is always among the kept. The number of
    different ones is then an estimate (see `Distinct`).

    This is Space-Saving, made cheap: instead of searching the smallest counter for each newcomer, at least half
    of the counters are given up at once whenever they run out.
    """

    __slots__ = ("_counts", "_distinct", "_head_starts", "capacity", "error", "total")

    def __init__(self, capacity: int = 64) -> None:
        if capacity < 2:
            raise ValueError(f"capacity must be at least 2, not {capacity!r}")
        self.capacity = capacity
        self.total = 0
        self.error = 0
        self._counts: dict[str, int] = {}  # upper bounds
        self._head_starts: dict[str, int] = {}  # how much of it may be too much; absent: nothing
        self._distinct: Distinct | None = None

    def add(self, text: str) -> None:
        self.total += 1
        seen = self._counts.get(text)
        if seen is not None:
            self._counts[text] = seen + 1
        else:
            self._welcome(text)

    def _welcome(self, text: str) -> None:
        if self._distinct is not None:
            self._distinct.add(text)
            # It may have been here before and been given up, so it starts with all that it may have had then.
            self._head_starts[text] = self.error
        self._counts[text] = self.error + 1
        if len(self._counts) > self.capacity:
            self._make_room()

    def _make_room(self) -> None:
        self._remember_all()
        counts = self._counts
        self.error = error = sorted(counts.values(), reverse=True)[self.capacity // 2]
        newest = next(reversed(counts))
        # Where no text is more common than another all would go; the newest stays, as an example.
        self._counts = {text: n for text, n in counts.items() if n > error} or {newest: counts[newest]}
        self._head_starts = {text: n for text, n in self._head_starts.items() if text in self._counts}

    def _remember_all(self) -> Distinct:
        """From now on different texts are estimated; until now all of them are among the counters."""
        if self._distinct is None:
            self._distinct = Distinct()
            for text in self._counts:
                self._distinct.add(text)
        return self._distinct

    @property
    def exact(self) -> bool:
        """Whether nothing has been given up yet."""
        return self._distinct is None

    @property
    def distinct(self) -> int:
        return len(self._counts) if self._distinct is None else self._distinct.estimate()

    def top(self, n: int | None = None) -> list[tuple[str, int, int]]:
        """(text, came at least, came at most) of the n most common, or of all that are kept; ties by text."""
        head_starts = self._head_starts
        rows = [(text, count - head_starts.get(text, 0), count) for text, count in self._counts.items()]
        rows.sort(key=lambda row: (-row[1], row[0]))
        return rows[:n]

    def merge(self, other: TopValues) -> None:
        """Add everything that `other` has counted; the bounds of the sum are the sums of the bounds."""
        counts, head_starts = {}, {}
        for text in {**self._counts, **other._counts}:
            counts[text] = self._counts.get(text, self.error) + other._counts.get(text, other.error)
            start = self._most_unseen(text) + other._most_unseen(text)
            if start:
                head_starts[text] = start
        if not self.exact or not other.exact:
            # `other` is only read: what it still has exactly is remembered here.
            mine = self._remember_all()
            if other._distinct is None:
                for text in other._counts:
                    mine.add(text)
            else:
                mine.merge(other._distinct)
        self._counts, self._head_starts = counts, head_starts
        self.total += other.total
        self.error += other.error
        if len(counts) > self.capacity:
            self._make_room()

    def _most_unseen(self, text: str) -> int:
        return self._head_starts.get(text, 0) if text in self._counts else self.error

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `values` are [text, at most, of which uncertain]."""
        return {
            "capacity": self.capacity,
            "total": self.total,
            "error": self.error,
            "values": [[text, high, high - low] for text, low, high in self.top()],
            "registers": None if self._distinct is None else self._distinct.to_hex(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TopValues:
        new = cls(int(data["capacity"]))
        new.total, new.error = int(data["total"]), int(data["error"])
        values: Iterable[tuple[str, int, int]] = data["values"]
        for text, high, uncertain in values:
            new._counts[text] = int(high)
            if uncertain:
                new._head_starts[text] = int(uncertain)
        if data["registers"] is not None:
            new._distinct = Distinct.from_hex(data["registers"])
        return new

"""Rollups: sums of the records of a minute, an hour, a day or a month, by those dimensions that people ask for.

A cube is one question: some dimensions, and how fine its periods are. Its cells add up to the records, each
record once in every cube; what a tool's turns used is in rows of their own (`part`), beside the row of the whole.
Not the cross product of all dimensions: that would be as long as the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from operator import add as add_numbers
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from ..dimensions import DIMENSIONS, PERIODS
from ..records import DENIED, OK, Record, RunRecord, ToolRecord
from ..sketches import LogHistogram
from ..totals import COUNTERS, Totals
from .counting import add

MINUTE, HOUR, DAY, MONTH = range(4)
KEYS = 3  # columns k1 … k3
MAX_CELLS = 50_000  # of one cube and one period: newcomers sum into "(other)" from then on
MEASURES = (*COUNTERS, "asked", "ran")
MICROS = 60_000_000  # of a minute
_NAMES = ("agent", "task", "user", "session", "step", "provider", "model")


class Cube(msgspec.Struct, frozen=True):
    """One question. The month that is running has cells of its own only when `live`: else it is the sum of its days."""

    name: str
    dimensions: tuple[str, ...]
    grains: tuple[int, ...]
    live: bool = False


CUBES = (
    Cube("model", ("agent", "provider", "model"), (MINUTE, HOUR, DAY, MONTH), live=True),
    Cube("user", ("user",), (DAY, MONTH), live=True),
    Cube("user and agent", ("user", "agent"), (DAY, MONTH)),
    Cube("user and model", ("user", "provider", "model"), (DAY, MONTH)),
    Cube("session", ("session", "user", "agent"), (DAY, MONTH)),
    Cube("task", ("task", "agent"), (DAY, MONTH), live=True),
    Cube("step", ("step", "agent"), (DAY, MONTH), live=True),
)
TAGS = Cube("tag", ("tag", "value"), (DAY, MONTH))  # records that have the tag only
LIVE = frozenset(cube.name for cube in CUBES if cube.live)
_BLANK = len(_NAMES)
_PLACES = tuple(
    (
        cube.name,
        cube.grains[0],
        itemgetter(*[*map(_NAMES.index, cube.dimensions), _BLANK, _BLANK, _BLANK][:KEYS]),
    )
    for cube in CUBES
)

# Which row: cube, grain, minutes since 1970 of the beginning of its period (UTC), k1, k2, k3, and the tool whose part
# it is, or "" for the whole.
Key = tuple[str, int, int, str, str, str, str]
Cells = dict[Key, list[int]]  # MEASURES, in their order
Units = dict[Key, "int | Decimal"]  # the last of the key is the unit


class ToolDay(msgspec.Struct):
    """What a tool's calls of one day were like."""

    ok: int = 0
    failed: int = 0
    denied: int = 0
    pico: int = 0
    chunks: int = 0
    streamed: int = 0
    durations: LogHistogram = msgspec.field(default_factory=LogHistogram)


class Sums:
    """What some records add to the cells."""

    def __init__(self) -> None:
        self._fine: dict[tuple[Any, ...], Totals] = {}  # by whole attribution and minute
        self._taken_back = False
        self.tools: dict[tuple[str, int], ToolDay] = {}  # by name and day

    def add(self, record: Record, sign: int = 1) -> None:
        """Count a record, or take it back."""
        if type(record) is RunRecord:
            return
        whose: Any = record
        at = record.started_at
        minute = (at.toordinal() - _FIRST_DAY) * 1440 + at.hour * 60 + at.minute
        tool = type(record) is ToolRecord
        key = (
            record.agent,
            record.task,
            record.user,
            record.session,
            record.step,
            "" if tool else whose.provider,
            "" if tool else whose.model,
            "",
            record.tags or None,  # None hashes faster than an empty map
            minute,
        )
        fine = self._fine.get(key)
        if fine is None:
            fine = self._fine[key] = Totals()
        if sign == 1:
            add(fine, record)
        else:
            one = Totals()
            add(one, record)
            fine.merge(one, sign)
            self._taken_back = True
        if tool and not whose.paused:
            self._tool(whose, minute // 1440 * 1440)

    def _tool(self, record: ToolRecord, day: int) -> None:
        of_day = self.tools.setdefault((record.name, day), ToolDay())
        if record.status is DENIED:
            of_day.denied += 1
            return
        if record.status is OK:
            of_day.ok += 1
        else:
            of_day.failed += 1
        of_day.pico += record.cost_pico
        if record.chunk_count > 0:
            of_day.chunks += record.chunk_count
            of_day.streamed += 1
        try:
            of_day.durations.record(record.duration)
        except ValueError:  # a clock that was set back
            of_day.durations.record(0.0)

    def cells(self, closed: int) -> tuple[Cells, Units]:
        """What these records add to which cells. Months before `closed` have cells in every cube."""
        cells: Cells = {}
        units: Units = {}
        for key, totals in self._fine.items():
            if self._taken_back:
                totals.tidy()
            if not totals:
                continue
            minute = key[-1]
            day = minute // 1440 * 1440
            places: list[tuple[Any, ...]] = [
                (name, grain, day if grain == DAY else minute, *keys(key)) for name, grain, keys in _PLACES
            ]
            places += [(TAGS.name, DAY, day, *tag, "") for tag in (key[_BLANK + 1] or {}).items()]
            if _month(day) < closed:
                places += [(place[0], MONTH, _month(day), *place[3:]) for place in places if place[0] not in LIVE]
            for part, counts in _parts(totals):
                for place in places:
                    _add(cells, (*place, part), counts)
            for unit, amount in (totals.units or {}).items():
                for place in places:
                    one: Any = (*place, unit)
                    units[one] = units.get(one, 0) + amount
        for sums in (cells, units):  # the coarser from the finer: there are fewer of them
            for grain in (MINUTE, HOUR, DAY):
                for row in [row for row in sums if row[1] == grain and (grain < DAY or row[0] in LIVE)]:
                    coarser = (row[0], grain + 1, _down(row[2], grain + 1), *row[3:])
                    if sums is cells:
                        _add(cells, coarser, cells[row])
                    else:
                        units[coarser] = units.get(coarser, 0) + units[row]
        return cells, units


def _add(cells: Cells, key: Key, counts: list[int]) -> None:
    known = cells.get(key)
    # Never changed in place: cells share their first counts.
    cells[key] = counts if known is None else list(map(add_numbers, known, counts))


def _parts(totals: Totals) -> Iterator[tuple[str, list[int]]]:
    """The whole, and each tool's part of it."""
    yield "", [*totals.counts(), 0, 0]
    turns, ran = totals.turns or {}, totals.ran or {}
    for tool in {**turns, **ran}:
        share = turns.get(tool)
        counts = [0] * len(COUNTERS) if share is None else share.counts()
        yield tool, [*counts, 0 if share is None else share.asked, ran.get(tool, 0)]


def fill(totals: Totals, part: str, counts: Sequence[int]) -> None:
    """Add a cell, or a tool's part of one, to totals."""
    if not part:
        totals.add_counts(counts)
        return
    asked, ran = counts[-2:]
    if asked or any(counts[:-2]):
        share = totals.share(part)
        share.asked += asked
        share.add_counts(counts)
    if ran:
        totals.tool_ran(part, ran)


def add_unit(totals: Totals, unit: str, amount: Decimal) -> None:
    units = totals.units = totals.units or {}
    total = units.get(unit, 0) + (int(amount) if amount == int(amount) else amount)
    units[unit] = total


# ---------------------------------------------------------------------------------------------- periods

_FIRST_DAY = date(1970, 1, 1).toordinal()
_months: dict[int, int] = {}


def _month(day: int) -> int:
    """The beginning of the month of a day; both in minutes since 1970."""
    found = _months.get(day)
    if found is None:
        first = date.fromordinal(_FIRST_DAY + day // 1440).replace(day=1)
        found = _months[day] = (first.toordinal() - _FIRST_DAY) * 1440
    return found


def hour_of(minute: int) -> int:
    """Hours since the proleptic epoch, as `dimensions.period_of` wants them."""
    return _FIRST_DAY * 24 + minute // 60


class Plan(NamedTuple):
    """Which cells answer for a question, and which stretches of time must be counted from the records."""

    cube: Cube | None
    cells: tuple[tuple[int, int, int], ...]  # (grain, from, to) in minutes
    scans: tuple[tuple[int | None, int | None], ...]  # in microseconds


def plan(
    dimensions: tuple[str, ...],
    since: int | None,
    until: int | None,
    first: int,
    last: int,
    closed: int = 0,
    floors: Mapping[int, int] | None = None,
) -> Plan:
    """How to answer: `since` and `until` in microseconds; the rollups begin at minute `first` and end before `last`.

    Months before `closed` have cells in every cube. `floors` says from which minute on the cells of a grain are still
    there.
    """
    cube = cube_for(dimensions)
    if cube is None:
        return Plan(None, (), ((since, until),))
    if first >= last:
        return Plan(cube, (), ())
    start = first if since is None else max(first, -(-since // MICROS))
    stop = last if until is None else min(last, until // MICROS)
    finest = HOUR if "hour" in dimensions else DAY if {"day", "week"} & set(dimensions) else MONTH
    if finest not in cube.grains:
        return Plan(None, (), ((since, until),))
    cells: list[tuple[int, int, int]] = []
    grains = [grain for grain in sorted(cube.grains, reverse=True) if grain <= finest]
    covered = _cover(start, stop, grains, cells) if start < stop else None
    if covered is None:
        if (since is None or since < last * MICROS) and (until is None or until > first * MICROS):
            return Plan(cube, (), ((since, until),))
        return Plan(cube, (), ())
    low, high = covered
    scans: list[tuple[int | None, int | None]] = []
    if since is not None and since < low * MICROS and since >= first * MICROS:
        scans.append((since, low * MICROS))
    if until is not None and until > high * MICROS and until <= last * MICROS:
        scans.append((high * MICROS, until))
    kept = []
    for grain, start, stop in cells:
        if grain == MONTH and stop > closed and not cube.live:
            kept.append((DAY, max(start, closed), stop))
            stop = closed
            if start >= stop:
                continue
        floor = (floors or {}).get(grain, start)
        if start < floor:
            scans.append((start * MICROS, min(stop, floor) * MICROS))
        if floor < stop:
            kept.append((grain, max(start, floor), stop))
    return Plan(cube, tuple(kept), tuple(scans))


def _cover(start: int, stop: int, grains: list[int], cells: list[tuple[int, int, int]]) -> tuple[int, int] | None:
    """Cover as much of a range as whole periods can, the longest inside; where they begin and end."""
    grain = grains[0]
    low, high = _up(start, grain), _down(stop, grain)
    if low >= high:
        return _cover(start, stop, grains[1:], cells) if len(grains) > 1 else None
    before = _cover(start, low, grains[1:], cells) if len(grains) > 1 and start < low else None
    cells.append((grain, low, high))
    after = _cover(high, stop, grains[1:], cells) if len(grains) > 1 and high < stop else None
    return (before[0] if before else low), (after[1] if after else high)


_MINUTES = {MINUTE: 1, HOUR: 60, DAY: 1440}


def _down(minute: int, grain: int) -> int:
    if grain == MONTH:
        return _month(minute // 1440 * 1440)
    return minute // _MINUTES[grain] * _MINUTES[grain]


def _up(minute: int, grain: int) -> int:
    down = _down(minute, grain)
    if down == minute:
        return minute
    if grain == MONTH:
        return _month(down + 32 * 1440)
    return down + _MINUTES[grain]


def cube_for(dimensions: tuple[str, ...]) -> Cube | None:
    """The smallest cube that has all of these; a tag has one to itself."""
    plain = {name for name in dimensions if name != "tool" and name not in PERIODS}
    if len(plain) == 1 and not plain <= set(DIMENSIONS):
        return TAGS
    for cube in CUBES:
        if plain <= set(cube.dimensions):
            return cube
    return None


def minute_of(at: datetime) -> int:
    return (at.toordinal() - _FIRST_DAY) * 1440 + at.hour * 60 + at.minute


def month_of(minute: int) -> int:
    """The beginning of its month."""
    return _down(minute, MONTH)


def next_month(minute: int) -> int:
    return _up(minute + 1, MONTH)

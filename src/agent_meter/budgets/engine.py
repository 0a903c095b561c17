"""What a budget engine does: it holds, settles, and never lets used + held pass a limit.

An engine knows counters and holds, and nothing of budgets: which counters a call touches, how much of each and up to
which limit comes with the call. A counter is a key and a slot (see `windows`); amounts are integers in the unit of
the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """One counter that a call touches. `limit` is None where it is only counted."""

    key: str
    slot: int
    since: int
    until: int
    amount: int
    limit: int | None


class Refusal(NamedTuple):
    """The tightest of the counters that refuse: its position, how it stands, and its oldest slot in use."""

    position: int
    used: int
    reserved: int
    oldest: int | None


class Change(NamedTuple):
    """How one counter moved: the most that the window had seen, and what it has now."""

    before: int
    after: int


class Count(NamedTuple):
    used: int
    reserved: int
    oldest: int | None = None


class Engine(Protocol):
    """Counters and holds behind one lock, one transaction or one script. Every method may be called by any thread."""

    blocking: bool  # whether a method may wait for a disk or another machine

    def now(self) -> int:
        """Milliseconds since 1970 by the clock that all users of these counters share; never goes back."""

    def reserve(self, hold: str, entries: Sequence[Entry], expires: int) -> Refusal | None:
        """Hold all amounts, or none. The same hold again changes nothing.

        A counter refuses when `used + reserved + amount > limit`, and always when its limit is 0.
        """

    def settle(self, hold: str, amounts: Sequence[int], *, final: bool = True) -> list[Change] | None:
        """Put what was really used in the place of what was held, in the slots of the hold.

        Not `final`: as far as is known; a later settle puts its amounts in the place of these. `None` for a hold
        that is not known, or that has been settled for good.
        """

    def add(self, entries: Sequence[Entry]) -> list[Change]:
        """Count what nothing was held for; amounts may be negative (a correction), limits do not matter."""

    def extend(self, holds: Sequence[str], expires: int) -> None:
        """Open holds stay open until then."""

    def expire(self) -> list[str]:
        """Charge the holds whose time is up with what they held, the oldest first: each is settled, not finally."""

    def read(self, key: str, since: int) -> Count:
        """How a counter stands, over its slots from `since` on."""

    def keys(self, prefix: str) -> list[str]:
        """The counters whose keys begin so."""

    def forget(self, key: str) -> None:
        """Set what was used to zero; what is held stays held."""

    def drop(self, keys: Iterable[str]) -> None:
        """These counters will not be asked for again; what is shared may stay until its time is up."""

    def kept(self, source: str) -> dict[str, str]:
        """Budgets that are kept here, JSON documents by name: `set` by a person, or told by a program (`code`)."""

    def keep(self, name: str, source: str, document: str | None) -> None:
        """Keep a budget's document; `None` takes it away."""

    def close(self) -> None: ...


def tightest(refusals: Sequence[tuple[Refusal, Entry]]) -> Refusal:
    """Of several counters that refuse, the one that leaves the smallest part of what was asked for."""

    def part(pair: tuple[Refusal, Entry]) -> float:
        refusal, entry = pair
        left = (entry.limit or 0) - refusal.used - refusal.reserved
        return left / entry.amount if entry.amount else float(left)

    return min(refusals, key=part)[0]

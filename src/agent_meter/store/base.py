"""What a store is: where records go so that they outlive the process, and who can be asked about them.

`memory`, `sqlite` and `postgres` keep this one protocol, and one suite of tests holds all three to it
(`tests/store/test_conformance.py`). Writing never raises into the caller's run and does no I/O on it; reading
answers with everything that was flushed, by whichever process, and never makes a writer wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from ..records import Cost, Record, RunRecord, UsageRecord
    from ..tool_metrics import ToolMetrics
    from ..tree import RunTree
    from ..usage import AgentUsage

Progress = Callable[[int, int], None]  # (records looked at, records there are), now and then
Price = Callable[["UsageRecord"], "Cost | None"]  # what a record costs by today's cards; None: no opinion


class Settlement(Protocol):
    """Something that must become true together with a record, or not at all: a budget's hold that is settled."""

    def apply(self, connection: Any) -> None:
        """Do it on the store's connection, inside the transaction that writes the record.

        It may be tried again when the transaction fails, and must not commit. It is not applied when the record
        turns out to be a duplicate of one that is stored.
        """


class Difference(msgspec.Struct, frozen=True):
    """One thing that `verify` found: what is wrong, where, and both figures."""

    what: str  # rollup, price, duplicate, dead, damage
    where: str
    stored: Any = None
    computed: Any = None
    repaired: bool = False

    def __str__(self) -> str:
        said = f"{self.what} {self.where}: stored {self.stored}, computed {self.computed}"
        return f"{said} (repaired)" if self.repaired else said


class Audit(msgspec.Struct):
    """What `verify` looked at and what it found. `ok` when nothing is wrong, or all of it was repaired."""

    records: int = 0
    cells: int = 0
    dead: int = 0  # records that could not be stored and wait in the dead-letter table
    differences: list[Difference] = []

    @property
    def ok(self) -> bool:
        return all(difference.repaired for difference in self.differences)


@runtime_checkable
class Store(Protocol):
    """Where records go. Times are aware datetimes; `since` is inside, `until` is not.

    Ranges from midnight to midnight UTC are answered from daily sums alone, however many records there are.
    """

    # -------------------------------------------------------------------------------------------- writing

    def put(self, record: Record) -> None:
        """Hand a finished record over; durable after `flush()`. A record whose id is stored already is ignored."""

    def attach(self, record_id: str, settlement: Settlement) -> None:
        """Have `settlement` applied in the transaction that writes the record of this id; call it before `put`."""

    def flush(self, timeout: float | None = None) -> None:
        """Return when all that was put before is durable; `StoreError` when it is not, or not in `timeout` seconds."""

    def close(self, timeout: float | None = 10.0) -> None:
        """Flush and let go of the store. Twice is as good as once; what could not be written is counted, not raised."""

    def health(self) -> dict[str, Any]:
        """Counts since this store was opened: `stored`, `duplicates`, `queued`, `dropped`, `dead`, `spilled`,
        `failures`, and `last_error`."""

    # -------------------------------------------------------------------------------------------- reading

    def usage(self, since: datetime | None = None, until: datetime | None = None) -> AgentUsage:
        """Everything that the store has, or what began in a range."""

    def usage_by(
        self,
        *dimensions: str,
        since: datetime | None = None,
        until: datetime | None = None,
        progress: Progress | None = None,
    ) -> dict[Any, AgentUsage]:
        """Usage by agent, task, user, session, step, provider, model, tool, hour, day, week, month, or a tag's name.

        Several dimensions give tuple keys; what nobody attributed is under "". Combinations that no rollup has are
        counted from the records themselves, which takes longer: `progress` is told how far it is.
        """

    def history(self, limit: int | None = None, include_denied: bool = False) -> list[UsageRecord]:
        """Model calls in the order in which they were stored, newest last; a corrected one in its last version."""

    def records(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        kinds: Sequence[str] = (),
        newest_first: bool = False,
        **filters: str,
    ) -> Iterator[Record]:
        """Records by the time they began, a page at a time, each in its last version.

        `kinds` picks some of llm, embedding, rerank, tool, run, step. `filters` are values of agent, task, user,
        session, step, provider, model, status, run_id, framework, `tool` (asked for or called), or of a tag.
        """

    def changes(self, after: int = 0, limit: int = 1000) -> tuple[list[Record], int]:
        """Records in the order in which they were stored, and where to go on: for `tail` and for exporters.

        Start with 0, or with `end()` for what is yet to come. A correction comes as a record of its own.
        """

    def end(self) -> int:
        """The position behind the last record: what comes later is `changes(after=end())`."""

    def find(self, record_id: str) -> Record:
        """The last version of a record, by its id or by the beginning of it. `LookupError` for none or several."""

    def tools(self, since: datetime | None = None, until: datetime | None = None) -> dict[str, ToolMetrics]:
        """Calls, failures, durations, percentiles and cost of each tool, the most called first."""

    def runs(self, limit: int = 20, since: datetime | None = None, until: datetime | None = None) -> list[RunRecord]:
        """The last runs that ended, newest first."""

    def tree(self, run_id: str) -> RunTree:
        """What a run used itself and with everything below it. `LookupError` for a run that is not known."""

    # --------------------------------------------------------------------------------------------- upkeep

    def prune(self, before: datetime) -> int:
        """Delete records that began before midnight UTC of `before`; how many. Daily sums of them stay for ever."""

    def verify(self, *, repair: bool = False, price: Price | None = None, progress: Progress | None = None) -> Audit:
        """Count everything anew from the records and compare; with `price`, compute their cost anew, too.

        `repair` puts the sums right, and writes a correcting record for each cost that is not what `price` says.
        """

    def now(self) -> datetime:
        """The store's clock: the one that all its users share."""


class SharedStore(Store, Protocol):
    """A store that several processes share, and that budgets can keep their counters in."""

    def transaction(self) -> AbstractContextManager[Any]:
        """A connection on which nobody else writes meanwhile; committed at the end, rolled back on an exception."""

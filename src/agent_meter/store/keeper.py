"""The built-in plugin that gives every record to a store, and answers from there instead of from memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..dimensions import keys_of
from ..hookspecs import hookimpl
from ..records import Record, UsageRecord
from ..tree import RunTree
from ..usage import AgentUsage
from .base import Store

if TYPE_CHECKING:
    from ..accounts import Accounts
    from ..meter import Meter

T = TypeVar("T")

_PATIENCE = 30.0  # seconds that an answer waits for what is on its way to the store


class Keeper:
    """Answers like `Accounts`, for the whole store: for earlier processes and for others, too.

    While the store cannot be had, it answers with what this process has seen, and the failure is counted: whoever
    needs to know calls `meter.flush()`, which raises.
    """

    def __init__(self, store: Store, accounts: Accounts, keep: int, *, owned: bool) -> None:
        self.store = store
        self._accounts = accounts
        self._keep = keep
        self._owned = owned
        self._failed: Callable[[str, BaseException], None] = lambda hook, error: None

    @hookimpl
    def meter_startup(self, meter: Meter) -> None:
        def failed(hook: str, error: BaseException) -> None:
            meter.plugins.failed("store", hook, error)

        self._failed = failed
        if (tell := getattr(self.store, "on_failure", None)) is not None:
            tell(lambda error: failed("write", error))

    # Early, so that whoever is told of a call finds it in the answers; after the budgets, which are registered later
    # and attach what must be settled together with it.
    @hookimpl(tryfirst=True)
    def meter_record(self, record: Record) -> None:
        self.store.put(record)

    @hookimpl
    def meter_shutdown(self) -> None:
        if self._owned:
            self.store.close()
        else:
            self.store.flush(_PATIENCE)

    # ------------------------------------------------------------------------------------------- answering

    def usage(self) -> AgentUsage:
        def whole() -> AgentUsage:
            return AgentUsage.snapshot(self.store.usage().totals, self._last)

        return self._asked("usage", whole, self._accounts.usage)

    def usage_by(self, dimensions: tuple[str, ...]) -> dict[Any, AgentUsage]:
        def belongs(record: UsageRecord, key: object) -> bool:
            return key in keys_of(record, dimensions)

        def whole() -> dict[Any, AgentUsage]:
            groups = self.store.usage_by(*dimensions)
            last = _once(self._last)
            return {key: AgentUsage.snapshot(group.totals, last, belongs, key) for key, group in groups.items()}

        return self._asked("usage_by", whole, lambda: self._accounts.usage_by(dimensions))

    def history(self, limit: int | None = None, include_denied: bool = False) -> list[UsageRecord]:
        return self._asked(
            "history",
            lambda: self.store.history(limit, include_denied),
            lambda: self._accounts.history(limit, include_denied),
        )

    def run(self, run_id: str) -> RunTree:
        try:
            return self._accounts.run(run_id)  # it is, or was, running here
        except LookupError as unknown:
            message = str(unknown)

        def nowhere() -> RunTree:
            raise LookupError(message)

        return self._asked("tree", lambda: self.store.tree(run_id), nowhere)

    def _last(self) -> Sequence[UsageRecord]:
        return self._asked("history", lambda: self.store.history(self._keep), self._accounts.history)

    def _asked(self, what: str, ask: Callable[[], T], instead: Callable[[], T]) -> T:
        try:
            self.store.flush(_PATIENCE)
            return ask()
        except (ValueError, LookupError):  # a wrong question
            raise
        except Exception as error:
            self._failed(what, error)
            return instead()


def _once(fetch: Callable[[], Sequence[UsageRecord]]) -> Callable[[], Sequence[UsageRecord]]:
    found: list[Sequence[UsageRecord]] = []

    def fetched() -> Sequence[UsageRecord]:
        if not found:
            found.append(fetch())
        return found[0]

    return fetched

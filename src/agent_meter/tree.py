"""The live tree of runs: what each run, step and tool used itself, and with everything below it.

Only own totals are stored; subtree totals are computed when asked for, so a sub-agent is counted once however
deep it is. The tree is bounded: when it is full, the oldest ended leaves are folded into their parents.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .records import RUN, Call, RunRecord, ToolRecord, UsageRecord
from .totals import Totals
from .usage import AgentUsage, money

MAX_NODES = 10_000


class _Node:
    __slots__ = ("children", "id", "kind", "name", "own", "parent_id", "status")

    def __init__(self, id: str, kind: str, name: str, parent_id: str | None) -> None:
        self.id = id
        self.kind = kind
        self.name = name
        self.parent_id = parent_id
        self.status = ""  # still open
        self.own = Totals()
        self.children: dict[str, None] = {}


class RunTree(msgspec.Struct, frozen=True):
    """One run, step or tool of `meter.tree(run_id)`.

    `own` is what it used itself, `usage` what it used with everything below it. `status` is "" while it runs.
    """

    id: str
    kind: str
    name: str
    status: str
    own: AgentUsage
    usage: AgentUsage
    children: tuple[RunTree, ...] = ()

    def __str__(self) -> str:
        lines, waiting = [], [(0, self)]
        while waiting:
            depth, run = waiting.pop()
            cost = f"{'≥ ' if run.usage.is_lower_bound else ''}{money(run.usage.totals.list_pico)}"
            lines.append(f"{'  ' * depth}{run.name or run.kind}: {run.usage.total_tokens:,} tokens, {cost}")
            waiting += [(depth + 1, child) for child in reversed(run.children)]
        return "\n".join(lines)


class _Below:
    """Which records belong to a part of a tree; found out when somebody asks."""

    __slots__ = ("all_ids", "children", "found", "id")

    def __init__(self, id: str, children: tuple[RunTree, ...], all_ids: frozenset[str]) -> None:
        self.id = id
        self.children = children
        self.all_ids = all_ids
        self.found: set[str] | None = None

    def ids(self) -> set[str]:
        if self.found is None:
            found, waiting = {self.id}, list(self.children)
            while waiting:
                below = waiting.pop()
                found.add(below.id)
                waiting += below.children
            self.found = found
        return self.found


def _belongs(record: UsageRecord, part: _Below) -> bool:
    ids = part.ids()
    return record.parent_id in ids or (record.run_id in ids and record.parent_id not in part.all_ids)


class Tree:
    """Not locked: its owner holds the lock."""

    def __init__(self, max_nodes: int = MAX_NODES) -> None:
        self._nodes: dict[str, _Node] = {}
        self._moved: dict[str, str] = {}  # open leaves that had to make room, and where their usage goes now
        self._max = max_nodes

    @property
    def full(self) -> bool:
        return len(self._nodes) >= self._max

    def reset(self) -> None:
        """Forget what has ended, and what the rest has used so far."""
        self._nodes = {id: node for id, node in self._nodes.items() if not node.status}
        self._moved = {id: above for id, above in self._moved.items() if above in self._nodes}
        for node in self._nodes.values():
            node.own = Totals()
            node.children = {child: None for child in node.children if child in self._nodes}

    def opened(self, call: Call) -> None:
        """Add a run, a step, or a tool that has something below it, and whatever is above it."""
        missing = []
        above: Call | None = call
        while above is not None and above.id not in self._nodes:
            missing.append(above)
            above = above.parent
        for one in reversed(missing):
            parent = one.parent
            if self.full:
                self._make_room(parent.id if parent else None)
            self._nodes[one.id] = _Node(one.id, one.kind, one.name, parent.id if parent else None)
            self._moved.pop(one.id, None)
            if parent is not None and (node := self._nodes.get(parent.id)) is not None:
                node.children[one.id] = None

    def closed(self, record: RunRecord | ToolRecord) -> None:
        self._moved.pop(record.id, None)
        if (node := self._nodes.get(record.id)) is not None:
            node.status = record.status
            if record.name:
                node.name = record.name

    def running(self, run_id: str) -> None:
        """Add a run of which only calls are known."""
        self._nodes[run_id] = _Node(run_id, RUN, "", None)

    def ended(self, records: Sequence[RunRecord | ToolRecord]) -> None:
        """Add what has ended, in one go: whoever comes first, each finds its parent among them."""
        for record in records:
            node = self._nodes[record.id] = _Node(record.id, record.kind, record.name, record.parent_id)
            node.status = record.status
        for record in records:
            if (parent := self._nodes.get(record.parent_id or "")) is not None:
                parent.children[record.id] = None

    def add(self, parent_id: str | None, run_id: str | None, totals: Totals) -> None:
        """Add what was used below `parent_id`; where that is no run, step or tool of the tree, to the run around."""
        if (node := self._find(parent_id) or self._find(run_id)) is not None:
            node.own.merge(totals)

    def home(self, parent_id: str | None, run_id: str | None) -> str | None:
        """Where `add` would put it."""
        node = self._find(parent_id) or self._find(run_id)
        return None if node is None else node.id

    def _find(self, id: str | None) -> _Node | None:
        while id is not None and id not in self._nodes:
            id = self._moved.get(id)
        return None if id is None else self._nodes[id]

    def own(self, id: str) -> Totals:
        node = self._nodes.get(id)
        return Totals() if node is None else node.own.copy()

    def view(self, id: str, records: Sequence[UsageRecord] = ()) -> RunTree:
        """The run, step or tool and what is below it; `records` are those to pick its iterations from."""
        if id not in self._nodes:
            raise LookupError(
                f"no run {id!r}: never opened here, or forgotten (the last {self._max:,} runs and steps are kept)"
            )
        order = [self._nodes[id]]
        for node in order:  # grows while it is walked: parents before their children
            order += [self._nodes[child] for child in node.children if child in self._nodes]
        views: dict[str, RunTree] = {}
        all_ids = frozenset(node.id for node in order)
        for node in reversed(order):
            children = tuple(views[child] for child in node.children if child in views)
            total = node.own.copy()
            for child in children:
                total.merge(child.usage.totals)
            views[node.id] = RunTree(
                node.id,
                node.kind,
                node.name,
                node.status,
                AgentUsage.snapshot(node.own.copy(), records, _belongs, _Below(node.id, (), all_ids)),
                AgentUsage.snapshot(total, records, _belongs, _Below(node.id, children, all_ids)),
                children,
            )
        return views[id]

    def _make_room(self, spare: str | None) -> None:
        """Fold the oldest ended leaves into their parents, a tenth of the tree at a time; never the one to `spare`."""
        target = self._max - max(1, self._max // 10)
        while len(self._nodes) > target:
            leaves = [node for node in self._nodes.values() if not node.children and node.id != spare]
            if not leaves:
                return  # one long chain, as long as somebody holds it open
            # A tree of open runs alone must not grow for ever either.
            ended = [node for node in leaves if node.status] or leaves
            for node in ended[: len(self._nodes) - target]:
                del self._nodes[node.id]
                parent = self._nodes.get(node.parent_id or "")
                if parent is None:
                    continue
                parent.own.merge(node.own)
                del parent.children[node.id]
                if not node.status:
                    self._moved[node.id] = parent.id

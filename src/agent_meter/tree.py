"""The live tree of runs: what each run, step and tool used itself, and with everything below it.

Only own totals are stored; subtree totals are computed when asked for, so a sub-agent is counted once however
deep it is. The tree is bounded: when it is full, the oldest ended leaves are folded into their parents.
"""

from __future__ import annotations

import msgspec

from .records import Call, Kind, RunRecord
from .usage import AgentUsage, Totals, money

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
        return "\n".join(self._lines(""))

    def _lines(self, indent: str) -> list[str]:
        bound = "≥ " if self.usage.is_lower_bound else ""
        cost = f"{bound}{money(self.usage.totals.list_pico)}"
        line = f"{indent}{self.name or self.kind}: {self.usage.total_tokens:,} tokens, {cost}"
        return [line, *(line for child in self.children for line in child._lines(indent + "  "))]


class Tree:
    """Not locked: its owner holds the lock."""

    def __init__(self, max_nodes: int = MAX_NODES) -> None:
        self._nodes: dict[str, _Node] = {}
        self._max = max_nodes

    def reset(self) -> None:
        """Forget what has ended, and what the rest has used so far."""
        self._nodes = {id: node for id, node in self._nodes.items() if not node.status}
        for node in self._nodes.values():
            node.own = Totals()
            node.children = {child: None for child in node.children if child in self._nodes}

    def opened(self, call: Call) -> _Node:
        """Add a run, a step, or a tool that has something below it."""
        node = self._nodes.get(call.id)
        if node is not None:
            return node
        parent = call.parent
        if parent is not None:
            self.opened(parent)
        if len(self._nodes) >= self._max:
            self._make_room()
        node = self._nodes[call.id] = _Node(call.id, call.kind, call.name, parent.id if parent else None)
        if parent is not None and (above := self._nodes.get(parent.id)) is not None:
            above.children[call.id] = None
        return node

    def closed(self, record: RunRecord) -> None:
        if (node := self._nodes.get(record.id)) is not None:
            node.status = record.status
            if record.name:
                node.name = record.name

    def add(self, id: str, totals: Totals) -> None:
        if (node := self._nodes.get(id)) is not None:
            node.own.merge(totals)

    def own(self, id: str) -> Totals:
        node = self._nodes.get(id)
        return Totals() if node is None else node.own.copy()

    def view(self, id: str) -> RunTree:
        node = self._nodes.get(id)
        if node is None:
            raise LookupError(
                f"no run {id!r}: never opened here, or forgotten (the last {self._max:,} runs and steps are kept)"
            )
        children = tuple(self.view(child) for child in node.children if child in self._nodes)
        total = node.own.copy()
        for child in children:
            total.merge(child.usage.totals)
        return RunTree(
            node.id,
            node.kind,
            node.name,
            node.status,
            AgentUsage.snapshot(node.own.copy()),
            AgentUsage.snapshot(total),
            children,
        )

    def _make_room(self) -> None:
        """Fold the oldest ended leaves into their parents, a tenth of the tree at a time."""
        target = self._max - max(1, self._max // 10)
        while len(self._nodes) > target:
            leaves = [n for n in self._nodes.values() if not n.children and (n.status or n.kind is Kind.TOOL)]
            # A tree of open runs alone must not grow for ever either.
            leaves = leaves or [n for n in self._nodes.values() if not n.children]
            for node in leaves[: len(self._nodes) - target]:
                del self._nodes[node.id]
                parent = self._nodes.get(node.parent_id or "")
                if parent is not None:
                    parent.own.merge(node.own)
                    del parent.children[node.id]

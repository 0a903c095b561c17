"""The events of tools, chains, graphs and retrievers: what they hold belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ...handles import status_of
from ...records import CANCELLED, EMPTY, ERROR, INTERRUPTED, OK, RUN, STEP, TOOL, Call, Status
from .asking import UNNAMED, ambient_parent, attribute, is_node, tool_cost
from .fence import Fenced, fenced
from .flights import FRAMEWORK, Flight

# LangGraph's own signals: an interrupt is a pause, and handing over to another graph is no error either.
_PAUSES = frozenset(("GraphInterrupt", "NodeInterrupt"))
_HAND_OVER = "ParentCommand"


class RunEvents(Fenced):
    """Everything but the model calls."""

    # ------------------------------------------------------------------------------------------ tool calls

    @fenced
    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._flights.is_open(run_id):
            return
        name = (serialized or EMPTY).get("name") or kwargs.get("name") or ""
        parent = self._flights.find(parent_run_id or ambient_parent())
        call = Call(TOOL, str(name), parent=parent.call if parent else None, framework=FRAMEWORK)
        attribute(call, metadata or EMPTY, parent)
        call.params = inputs if inputs is not None else {"input": input_str} if input_str else EMPTY
        call.call_id = str(kwargs.get("tool_call_id") or "")
        self.meter.open(call)
        self._flights.add(Flight.of(run_id, call, parent, metadata), run_id)

    @fenced
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        failed = getattr(output, "status", None) == "error"  # handled, and told to the model
        self._end(run_id, ERROR if failed else OK, "handled_error" if failed else None, output)

    @fenced
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._failed(error, run_id)

    @fenced
    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool declares what it cost: `dispatch_custom_event("agent_meter.tool_cost", {"usd": "0.005"})`."""
        flight = self._flights.find(run_id)
        if flight is not None and flight.call.kind is TOOL and (cost := tool_cost(name, data)) is not None:
            flight.call.cost_pico += cost

    # ----------------------------------------------------------------------------- chains, graphs, retrievers

    @fenced
    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chain is a run (the root, and each agent below it), a step (a node of a graph), or neither."""
        flights = self._flights
        if flights.is_open(run_id):
            return
        known = metadata or EMPTY
        parent = flights.find(parent_run_id or ambient_parent())
        name = str(kwargs.get("name") or (serialized or EMPTY).get("name") or "")
        node = is_node(tags)
        if node and parent is not None and not parent.graph:
            self._is_graph(parent)
        if parent is None or parent.call.kind is TOOL:
            kind = RUN
        elif node:
            kind = STEP
        else:
            flights.add(Flight.of(run_id, parent.call, parent, known, tags, name, own=False), run_id)
            return
        call = Call(kind, name, parent=parent.call if parent else None, framework=FRAMEWORK)
        attribute(call, known, parent)
        if kind is STEP and isinstance(known.get("langgraph_step"), int):
            call.step_number = known["langgraph_step"]
        if self.meter.wants_content and kind is RUN:
            call.content = inputs
        self.meter.open(call)
        flights.add(Flight.of(run_id, call, parent, known, tags, name), run_id)

    def _is_graph(self, flight: Flight) -> None:
        """A chain turned out to be a graph, for a node of it begins: with a name it is an agent, and a run.

        The name that was given to an agent (`lc_agent_name`) is handed down to every graph below it, also to those
        that have a name of their own.
        """
        flight.graph = True
        agent = flight.handed if flight.handed and flight.handed != flight.above else flight.name
        if agent in UNNAMED:
            return
        flight.overruled = "" if agent == flight.handed else flight.handed
        if flight.own:
            flight.call.agent = agent
            return
        call = Call(RUN, flight.name, parent=flight.call, framework=FRAMEWORK)
        call.agent = agent
        self.meter.open(call)
        flight.call, flight.own = call, True

    @fenced
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, OK, None, outputs)

    @fenced
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._failed(error, run_id)

    @fenced
    def on_retriever_start(
        self,
        serialized: dict[str, Any],
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._flights.is_open(run_id):
            return
        known = metadata or EMPTY
        parent = self._flights.find(parent_run_id or ambient_parent())
        name = kwargs.get("name") or known.get("ls_retriever_name") or "retriever"
        call = Call(STEP, str(name), parent=parent.call if parent else None, framework=FRAMEWORK)
        attribute(call, known, parent)
        self.meter.open(call)
        self._flights.add(Flight.of(run_id, call, parent, known), run_id)

    @fenced
    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, OK, None, documents)

    @fenced
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._failed(error, run_id)

    # -------------------------------------------------------------------------------- what they have in common

    def _end(
        self, run_id: UUID, status: Status, error_type: str | None, response: Any, error: BaseException | None = None
    ) -> None:
        flight = self._flights.take(run_id)
        if flight is None or not flight.own:
            return
        flight.call.error = error
        if self.meter.wants_content:
            flight.call.response = response
        self.meter.close(flight.call, status=status, error_type=error_type)

    def _failed(self, error: BaseException, run_id: UUID) -> None:
        name = type(error).__name__
        if name == _HAND_OVER:
            self._end(run_id, OK, None, None)
        elif name in _PAUSES:
            self._end(run_id, CANCELLED, INTERRUPTED, None, error)
        else:
            self._end(run_id, status_of(error), name, None, error)

"""What LlamaIndex tells of, for one meter: spans say what is inside of what, events what was asked and answered."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from llama_index_instrumentation.span import active_span_id

from ... import joining
from ...errors import BudgetExceeded
from ...handles import status_of
from ...meter import Meter
from ...records import CANCELLED, EMPTY, ERROR, INTERRUPTED, OK, RUN, STEP, TOOL, Call, Kind, Status
from . import gate
from .asking import attribute
from .collecting import collecting
from .embeddings import Embeddings
from .models import FRAMEWORK, Models
from .nodes import Node, Nodes, Role, frame_of, runs
from .requesting import ask_for_usage
from .roles import role_of
from .silent import Silent

_PAUSE = "WaitingForEvent"  # a tool that waits for a person: it is dropped, and run again from its beginning
_UUID = 37  # a span id is "Class.method-" and a UUID
_HANDED = 4096  # tool calls whose agent is remembered


class Listener:
    """The span handler and the event handler of one meter, without LlamaIndex's base classes."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.nodes = Nodes()
        self.models = Models(meter, self.nodes)
        self.embeddings = Embeddings(meter, self.nodes)
        self._silent = Silent(meter, self.nodes)
        self._agents: dict[tuple[Any, str], str] = {}  # who asked for a tool, by run and tool call
        self._lost: deque[Node] = deque()
        self._leaving: Callable[[], None] | None = None
        models, embeddings = self.models, self.embeddings
        # By the name of the class: unknown events are ignored, and a class may move.
        self._by_name: dict[str, Callable[[Any], None]] = {
            "LLMChatStartEvent": models.start,
            "LLMCompletionStartEvent": models.start,
            "LLMChatInProgressEvent": models.chunk,
            "LLMCompletionInProgressEvent": models.chunk,
            "LLMChatEndEvent": models.end,
            "LLMCompletionEndEvent": models.end,
            "ExceptionEvent": models.failed,
            "EmbeddingStartEvent": embeddings.start,
            "EmbeddingEndEvent": embeddings.end,
            "SparseEmbeddingStartEvent": embeddings.start,
            "SparseEmbeddingEndEvent": embeddings.end,
            "ReRankStartEvent": embeddings.rank_start,
            "ReRankEndEvent": embeddings.rank_end,
            "SpanCancelledEvent": self._step_cancelled,
        }
        self._by_type: dict[type, Callable[[Any], None]] = {}

    # ---------------------------------------------------------------------------------------------- handlers

    def handle(self, event: Any, **kwargs: Any) -> None:
        try:
            hear = self._by_type[event.__class__]
        except KeyError:
            hear = self._by_type[event.__class__] = self._by_name.get(event.__class__.__name__, _nothing)
        try:
            hear(event)
        except Exception as error:
            self._caught(event.__class__.__name__, error)
        if self._leaving is not None:
            self._left()

    def span_enter(
        self,
        id_: str,
        bound_args: Any,
        instance: Any = None,
        parent_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        try:
            if self._lost:
                self.give_up_lost()
            self._enter(id_, bound_args.arguments, instance, parent_id, tags)
        except Exception as error:
            self._caught("span_enter", error)

    def span_exit(self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any) -> None:
        try:
            node = self.nodes.take(id_)
            if node is not None and node.id == id_:
                self._exit(node, bound_args.arguments, instance, result)
        except Exception as error:
            self._caught("span_exit", error)
        if self._leaving is not None:
            self._left()

    def span_drop(self, id_: str, bound_args: Any, instance: Any = None, err: Any = None, **kwargs: Any) -> None:
        try:
            node = self.nodes.take(id_)
            if node is not None and node.id == id_:
                self._drop(node, bound_args.arguments, instance, err)
        except Exception as error:
            self._caught("span_drop", error)
        if self._leaving is not None:
            self._left()

    def admit(self, span_id: str) -> None:
        """Ask the guards about what is about to be sent under a span. Raises `BudgetExceeded`, and nothing else."""
        try:
            node = self.nodes.find(span_id)
            if node is None or node.id != span_id:
                return
            if node.role is Role.EMBED:
                self.embeddings.admit(node)
            elif (flight := node.flight()) is not None:
                self.models.admit(flight)
        except BudgetExceeded:
            raise
        except Exception as error:
            self._caught("rate limiter", error)

    async def aadmit(self, span_id: str) -> None:
        try:
            node = self.nodes.find(span_id)
            if node is None or node.id != span_id:
                return
            if node.role is Role.EMBED:
                await self.embeddings.aadmit(node)
            elif (flight := node.flight()) is not None:
                await self.models.aadmit(flight)
        except BudgetExceeded:
            raise
        except Exception as error:
            self._caught("rate limiter", error)

    def missed(self, span_id: str | None) -> None:
        """An embedding model's cache has not got a text, which is sent next. Raises `BudgetExceeded`."""
        try:
            self.embeddings.missed(span_id)
        except BudgetExceeded:
            raise
        except Exception as error:
            self._caught("embedding cache", error)

    async def amissed(self, span_id: str | None) -> None:
        try:
            await self.embeddings.amissed(span_id)
        except BudgetExceeded:
            raise
        except Exception as error:
            self._caught("embedding cache", error)

    def sending(self) -> Iterator[Call]:
        """The model calls that are being made on this call stack: by the span around, and by streams that are read.

        Most integrations send for a stream when it is first read, by then in any context.
        """
        around = self.nodes.find(active_span_id.get())
        if around is not None and around.role in (Role.ASK, Role.STRUCTURED):
            flight = around.flight()
            if flight is not None and flight.call is not None:
                yield flight.call
        for node in self.nodes.read_here():
            flight = node.flight()
            if flight is not None and flight.call is not None:
                yield flight.call

    def stay(self) -> None:
        self._leaving = None

    def leave(self, take_away: Callable[[], None]) -> None:
        """Hear nothing new; `take_away` is called when what is under way has ended."""
        self._leaving = take_away
        self._left()

    def _left(self) -> None:
        leaving = self._leaving
        if leaving is not None and not self.nodes.open and not len(self.models):
            self._leaving = None
            leaving()

    def _caught(self, what: str, error: Exception) -> None:
        # LlamaIndex would swallow it, and nobody would know.
        self.meter.plugins.failed(FRAMEWORK, what, error)

    # ------------------------------------------------------------------------------------------------ spans

    def _enter(self, id_: str, arguments: Mapping[str, Any], instance: Any, parent_id: str | None, tags: Any) -> None:
        nodes = self.nodes
        parent = nodes.parent(parent_id)
        if parent is None and self._leaving is not None:
            return
        method = id_[:-_UUID].rpartition(".")[2]
        role = role_of(instance, method, arguments)
        if role is Role.NOTHING:
            if parent is not None:
                nodes.open[id_] = parent
            return
        node = Node(id_, parent, role, method, None if parent is None else parent.call, instance=instance)
        if role is Role.ASK:
            gate.attach(instance)
            if "stream" in method:
                ask_for_usage(instance)
        elif role is Role.EMBED:
            gate.attach(instance)
            self.embeddings.listen(instance, method)
        elif role is Role.STRUCTURED:
            self._silent.entered(node, arguments, instance, tags)
        elif role is Role.TOOL:
            self._tool(node, arguments, instance, tags)
        elif role is Role.STEP:
            self._step(node, arguments, tags)
        elif role is Role.RUN:
            self._run(node, instance, tags)
        elif role is Role.QUERY or role is Role.RETRIEVE:
            self._query(node, instance, tags)
        elif role is Role.RANK:
            self.embeddings.listen(instance, method)
        nodes.open[id_] = node

    def _exit(self, node: Node, arguments: Mapping[str, Any], instance: Any, result: Any) -> None:
        role = node.role
        if role is Role.ASK:
            flight = node.flight()
            if flight is not None and frame_of(result) is not None:
                # The span ends here; the call ends with its stream.
                self.nodes.flows(node, result, self._gone)
                if flight.call is not None:
                    self.meter.detach(flight.call)
                    joining.handed_over(flight.call, partial(runs, node.stream))
            else:
                node.instance = None
            return
        if role is Role.STRUCTURED:
            self._silent.answered(node, arguments, instance, result)
        elif role is Role.TOOL:
            self._tool_ends(node, result, None)
        elif role is Role.STEP:
            self._step_ends(node, arguments, result)
        elif role is Role.EMBED or role is Role.RANK:
            self.embeddings.left(node)
        elif node.own:
            stream = getattr(result, "response_gen", None) if role is Role.QUERY else None
            if frame_of(stream) is not None:
                self.nodes.flows(node, stream, _nothing)
            self._close(node, CANCELLED if node.cancelled else OK, None)
        node.instance = None

    def _drop(self, node: Node, arguments: Mapping[str, Any], instance: Any, error: BaseException | None) -> None:
        role = node.role
        if role is Role.ASK:
            self.models.dropped(node, error)
        elif role is Role.STRUCTURED:
            self._silent.failed(node, arguments, instance, error)
        elif role is Role.TOOL:
            self._tool_ends(node, None, error)
        elif role is Role.EMBED or role is Role.RANK:
            self.embeddings.dropped(node, error)
        elif node.own:
            self._close(node, status_of(error), error)
        node.instance = None

    # ------------------------------------------------------------------------------------------------- tools

    def _tool(self, node: Node, arguments: Mapping[str, Any], instance: Any, tags: Any) -> None:
        """A tool counts once, however many of its methods call each other; an output schema is nobody's tool."""
        name = str(instance.metadata.name or "")
        node.name = name
        above = node.parent
        while above is not None:
            if above.role is Role.TOOL:
                if above.name == name:
                    return
                break
            if above.role is Role.STRUCTURED or above.role is Role.PROGRAM:
                return
            if above.role is Role.STEP or above.role is Role.RUN:
                above.used_tool = True
                break
            above = above.parent
        call = Call(TOOL, name, parent=node.call, framework=FRAMEWORK)
        attribute(call, tags)
        call.params = _params(arguments)
        step = above if above is not None and above.role is Role.STEP else None
        if step is not None and step.call is not None:
            call.call_id = step.call.call_id
        self._open(node, call)

    def _tool_ends(self, node: Node, result: Any, error: BaseException | None) -> None:
        if not node.own or node.call is None:
            return
        if error is not None:
            if type(error).__name__ == _PAUSE:
                self._close(node, CANCELLED, error, INTERRUPTED)
            else:
                self._close(node, status_of(error), error)
        elif getattr(result, "is_error", False):
            told = getattr(result, "exception", None)
            self._close(node, ERROR, told, None if told is not None else "handled_error")
        else:
            node.call.response = result if self.meter.wants_content else None
            self._close(node, OK, None)

    # --------------------------------------------------------------------------------------- runs and steps

    def _run(self, node: Node, instance: Any, tags: Any) -> None:
        name = getattr(instance, "name", None)
        agent = name if isinstance(name, str) and not hasattr(instance, "agents") else ""
        call = Call(RUN, agent or type(instance).__name__, parent=node.call, framework=FRAMEWORK)
        call.agent = agent
        attribute(call, tags)
        self._open(node, call)

    def _step(self, node: Node, arguments: Mapping[str, Any], tags: Any) -> None:
        run = node.parent
        while run is not None and run.role is not Role.RUN:
            run = run.parent
        call = Call(STEP, node.name, parent=node.call, framework=FRAMEWORK)
        call.step = node.name
        event = arguments.get("ev")
        agent = getattr(event, "current_agent_name", None)
        if run is not None:
            if node.name == "run_agent_step":
                run.steps += 1
            if run.steps:
                call.step_number, call.step = run.steps, str(run.steps)
        if node.name == "call_tool":
            call.call_id = str(getattr(event, "tool_id", None) or "")
            agent = self._agents.pop((_run_id(tags), call.call_id), None)
        attribute(call, tags)
        if isinstance(agent, str) and agent:
            call.agent = agent
        self._open(node, call)

    def _step_ends(self, node: Node, arguments: Mapping[str, Any], result: Any) -> None:
        if node.name == "run_agent_step" and result is not None:
            run_id = _run_id_of(node)
            for asked in getattr(result, "tool_calls", None) or ():
                if len(self._agents) >= _HANDED:
                    self._agents.pop(next(iter(self._agents)), None)
                self._agents[run_id, asked.tool_id] = result.current_agent_name
        elif node.name == "call_tool" and not node.used_tool:
            output = getattr(result, "tool_output", None)
            if output is not None and output.is_error:
                self._unknown_tool(node, arguments, result)
        self._close(node, CANCELLED if node.cancelled else OK, None)

    def _unknown_tool(self, node: Node, arguments: Mapping[str, Any], result: Any) -> None:
        """A tool that the model made up: nothing was called, and the model is told so."""
        call = Call(TOOL, str(result.tool_name), parent=node.call, framework=FRAMEWORK)
        call.call_id = str(result.tool_id or "")
        call.params = dict(result.tool_kwargs or EMPTY)
        self.meter.open(call)
        self.meter.close(call, status=ERROR, error_type="unknown_tool")

    def _query(self, node: Node, instance: Any, tags: Any) -> None:
        """The outermost query is a run; what is inside of another one, and retrieval, is a step."""
        above = node.call
        nested = above is not None and above.kind is not TOOL
        kind: Kind = STEP if nested or node.role is Role.RETRIEVE else RUN
        if nested and any(_same(up, instance) for up in _up(node)):
            return
        call = Call(kind, type(instance).__name__, parent=above, framework=FRAMEWORK)
        attribute(call, tags)
        self._open(node, call)

    def _step_cancelled(self, event: Any) -> None:
        node = self.nodes.find(event.span_id)
        if node is not None:
            node.cancelled = True

    # -------------------------------------------------------------------------------- what they have in common

    def _open(self, node: Node, call: Call) -> None:
        try:
            self.meter.open(call)
        except BudgetExceeded as error:
            # Only a tool can be denied here, and LlamaIndex swallows it: say so, the record of the denial is made.
            self._caught("a denied tool was run", error)
            return
        node.call, node.own = call, True

    def _close(self, node: Node, status: Status, error: BaseException | None, error_type: str | None = None) -> None:
        call = node.call
        if call is None or not node.own:
            return
        call.error = error
        if error_type is None and error is not None:
            error_type = type(error).__name__
        self.meter.close(call, status=status, error_type=error_type)

    # ------------------------------------------------------------------------------------- streams without end

    def _gone(self, node: Node) -> None:
        """A stream was collected: at once where its last name went, later where the garbage collector found it.

        A collection may begin anywhere, with any lock held.
        """
        if collecting():
            self._lost.append(node)
            with suppress(RuntimeError):  # synchronous code: the next event closes it
                asyncio.get_running_loop().call_soon(self.give_up_lost)
            return
        self._give_up(node)

    def give_up_lost(self) -> None:
        while self._lost:
            try:
                node = self._lost.popleft()
            except IndexError:  # another thread was quicker
                return
            self._give_up(node)

    def _give_up(self, node: Node) -> None:
        try:
            self.models.lost(node)
        except Exception as error:
            self._caught("lost stream", error)
        if self._leaving is not None:
            self._left()


def _nothing(_: Any) -> None: ...


def _up(node: Node) -> Any:
    above = node.parent
    while above is not None:
        yield above
        above = above.parent


def _same(node: Node, instance: Any) -> bool:
    return node.instance is instance and node.role in (Role.QUERY, Role.RETRIEVE)


def _params(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of a tool, as far as they are data: a workflow's context is none."""
    named = {name: value for name, value in arguments.items() if name not in ("args", "kwargs", "self")}
    named.update(arguments.get("kwargs") or {})
    positional: tuple[Any, ...] = arguments.get("args") or ()
    if len(positional) == 1 and not named:
        named["input"] = positional[0]
    elif positional:
        named["args"] = positional
    return {name: value for name, value in named.items() if type(value).__name__ != "Context"}


def _run_id(tags: Any) -> Any:
    return (tags or EMPTY).get("llamaindex.run_id")


def _run_id_of(node: Node) -> Any:
    from llama_index_instrumentation.dispatcher import active_instrument_tags

    return active_instrument_tags.get().get("llamaindex.run_id")

"""The spans that matter, by LlamaIndex's span id, and the one model call that each may be.

A span that says nothing of its own is known under its parent's node. What has ended stays findable for a while: a
thread or a late stream may still name it as its parent. A stream is consumed after its span has ended, and whatever
is asked meanwhile has no parent at all: then the call stack tells, for the stream's generator is on it.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import msgspec

from ...records import Call

KEPT = 2048  # nodes that have ended


class Role:
    """What a span is to us. Plain numbers: in Python 3.11 a member of an enum costs seven times as much to name."""

    NOTHING = 0
    ASK = 1  # a method of a model that fires events
    STRUCTURED = 2  # a model's structured prediction, which may ask without any event
    PROGRAM = 3  # what asks a model for an object, by an output tool that is nobody's tool
    EMBED = 4
    RANK = 5
    TOOL = 6
    STEP = 7
    RETRIEVE = 8
    QUERY = 9
    RUN = 10


class Flight(msgspec.Struct, eq=False, weakref=True):
    """A model call that LlamaIndex announced, and that has not ended.

    `call` is gone once a call inside of it has taken its place: then this one was a wrapper.
    """

    span_id: str
    node: Node
    call: Call | None
    opened: bool = False
    ended: bool = False
    denial: BaseException | None = None  # it was refused where nobody could be told
    asked: Any = None  # messages, a prompt, texts: for an estimate
    params: Mapping[str, Any] = {}
    last: Any = None  # the newest chunk; its text is all that was said so far
    told: list[Any] = []  # raw chunks with usage
    streamed: bool = False
    used: list[Any] = []  # what a tapped client told, one entry a request
    response_model: str | None = None


class Node(msgspec.Struct, eq=False, weakref=True):
    """One span. `call` is what is opened below it has as its parent; its own, if `own`."""

    id: str
    parent: Node | None
    role: int
    name: str = ""
    call: Call | None = None
    own: bool = False
    instance: Any = None
    flights: list[Flight] | None = None
    asked: bool = False  # a model call was seen below
    used_tool: bool = False
    cancelled: bool = False
    steps: int = 0  # of a run: how often its agent was asked
    hits: set[str] | None = None  # of an embedding: the texts that its cache had
    stream: weakref.ref[Any] | None = None
    tags: Any = None
    started: float = 0.0

    def flight(self) -> Flight | None:
        """The one that has not ended, the first of several."""
        if self.flights is not None:
            for flight in self.flights:
                if not flight.ended:
                    return flight
        return None


class Nodes:
    """Open spans by id, the last that ended, and streams on their way by the frame of their generator."""

    def __init__(self) -> None:
        self.open: dict[str, Node | None] = {}
        self._ended: dict[str, Node] = {}
        self._frames: dict[int, weakref.ref[Node]] = {}

    def __len__(self) -> int:
        return len(self.open)

    def find(self, span_id: str | None) -> Node | None:
        if span_id is None:
            return None
        return self.open.get(span_id) or self._ended.get(span_id)

    def parent(self, parent_id: str | None) -> Node | None:
        node = self.find(parent_id)
        if node is None and self._frames:
            node = next(self.read_here(), None)
        return node

    def take(self, span_id: str) -> Node | None:
        """Remove and return what a span is known as; it stays findable for a while."""
        node = self.open.pop(span_id, None)
        if node is not None and node.role is not Role.ASK and node.role is not Role.EMBED:
            ended = self._ended
            ended[span_id] = node
            if len(ended) > KEPT:
                for oldest in list(ended)[: KEPT // 8]:
                    ended.pop(oldest, None)
        return node

    # ---------------------------------------------------------------------------------------------- streams

    def flows(self, node: Node, stream: Any, lost: Callable[[Node], None]) -> None:
        """`node` goes on as long as `stream`, its generator, does; `lost` is called when that is collected."""
        frame = frame_of(stream)
        if frame is None:
            return
        key = id(frame)
        kept = weakref.ref(node)

        def gone(_: object) -> None:
            if self._frames.get(key) is kept:
                del self._frames[key]
            lost(node)

        node.stream = weakref.ref(stream, gone)
        if self._at(frame) is None:  # else a method hands on what its `super()` made, and that one is inside of it
            self._frames[key] = kept

    def flowing(self, stream: Any) -> Node | None:
        """The innermost one that goes on as long as `stream` does."""
        frame = frame_of(stream)
        return None if frame is None else self._at(frame)

    def _at(self, frame: FrameType) -> Node | None:
        kept = self._frames.get(id(frame))
        node = None if kept is None else kept()
        stream = node.stream() if node is not None and node.stream is not None else None
        return node if stream is not None and frame_of(stream) is frame else None

    def dry(self, node: Node) -> None:
        """Its stream has come to its end."""
        stream = node.stream() if node.stream is not None else None
        frame = None if stream is None else frame_of(stream)
        if frame is not None:
            self._frames.pop(id(frame), None)
        node.stream = None

    def read_here(self) -> Iterator[Node]:
        """Those whose streams are being read on this call stack, the innermost first."""
        frame: FrameType | None = sys._getframe(1) if self._frames else None
        while frame is not None:
            node = self._at(frame)
            if node is not None:
                yield node
            frame = frame.f_back


def runs(stream: weakref.ref[Any] | None) -> bool:
    """Whether somebody reads this generator right now."""
    generator = None if stream is None else stream()
    return bool(getattr(generator, "gi_running", False) or getattr(generator, "ag_running", False))


def frame_of(stream: Any) -> FrameType | None:
    """The frame of a generator or an async generator; None for one that has ended, and for anything else."""
    frame = getattr(stream, "gi_frame", None) or getattr(stream, "ag_frame", None)
    return frame if isinstance(frame, FrameType) else None

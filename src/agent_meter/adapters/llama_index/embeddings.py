"""Embeddings and rerankers: what their events announce, and what their clients are told.

LlamaIndex's integrations throw away what the provider said was used. Where the client can be listened to, its own
numbers are recorded; else tokens are estimated, and flagged. What a cache answered is told by what was not sent.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from ...errors import BudgetExceeded
from ...handles import status_of
from ...meter import Meter
from ...records import DENIED, EMBEDDING, EMPTY, ERROR, OK, RERANK, Call, FrozenMap, Model, Status, TokenUsage
from ...tokens import estimate_tokens
from ..failing import UNSEEN, never_answered
from ..payloads import read
from ..payloads.fields import UNKNOWN, number
from . import probe, tap
from .asking import attribute, model_of, provider_of
from .models import FRAMEWORK
from .nodes import Flight, Node, Nodes, Role

GUESSED = "the client does not tell what was used; it is estimated"
FROM_CACHE = "answered by the embedding model's own cache; tokens are estimated"
SEARCH = 100  # documents that one search may rank: Cohere's, Amazon's and Google's search units are all of this size

# The batch whose request is sent in this context: LlamaIndex starts several at once under one span.
_sending: ContextVar[Flight | None] = ContextVar("agent_meter_llama_index_sending", default=None)


class Embeddings(tap.Ear):
    """The embeddings and rerankings of one meter."""

    def __init__(self, meter: Meter, nodes: Nodes) -> None:
        self.meter = meter
        self._nodes = nodes

    def listen(self, instance: Any, method: str) -> None:
        probe.attach(instance)
        tap.make_clients(instance, asynchronous=method[:1] == "a")
        tap.attach(instance)

    def hit(self, span_id: str | None, text: str) -> None:
        """The embedding model's cache had it."""
        node = self._embedding(span_id)
        if node is not None:
            if node.hits is None:
                node.hits = set()
            node.hits.add(text)

    def _embedding(self, span_id: str | None) -> Node | None:
        """The embedding or reranking that a span is part of."""
        node = self._nodes.find(span_id)
        while node is not None and node.role is not Role.EMBED and node.role is not Role.RANK:
            node = node.parent
        return node

    # ------------------------------------------------------------------------------------------------ begin

    def start(self, event: Any) -> None:
        """`EmbeddingStartEvent`: one for each batch; of several that are sent at once, all before the first."""
        node = self._nodes.find(event.span_id)
        if node is None:
            return
        if node.role is not Role.EMBED:
            node = Node(event.span_id, node, Role.EMBED, call=node.call)
            self._nodes.open[event.span_id] = node
        model = model_of(node.instance, event.model_dict, EMPTY)
        flight = Flight(event.span_id, node, None)
        around = _around(node)
        if around is not None and around.call is not None:
            call = flight.call = around.call
            flight.opened, around.call = around.opened, None
            if call.model != model:
                call.model = model
                if flight.opened:
                    call.rates = self.meter.rates(model)
        else:
            call = flight.call = Call(EMBEDDING, model=model, parent=node.call, framework=FRAMEWORK)
        attribute(call, event.tags)
        self._fly(node, flight)

    def rank_start(self, event: Any) -> None:
        node = self._nodes.find(event.span_id)
        if node is None or node.role is not Role.RANK:
            return
        provider = provider_of(type(node.instance))
        flight = Flight(event.span_id, node, None)
        flight.asked = len(event.nodes)
        call = Call(RERANK, model=Model(provider, event.model_name), parent=node.call, framework=FRAMEWORK)
        flight.call = call
        attribute(call, event.tags)
        if self.meter.wants_content:
            call.content = event.query
        self._fly(node, flight)

    def _fly(self, node: Node, flight: Flight) -> None:
        if node.flights is None:
            node.flights = []
        node.flights.append(flight)

    def admit(self, node: Node) -> None:
        """The rate limiter is asked, once for each batch: the first that was not, is sent next."""
        flight = None if probe.watches(node.instance) else self._next(node)
        if flight is not None:
            self._admit(flight)

    async def aadmit(self, node: Node) -> None:
        """`admit` where a budget may wait."""
        await self._aadmit(None if probe.watches(node.instance) else self._next(node))

    def missed(self, span_id: str | None) -> None:
        """The model's cache was asked, and has not got a text: the batch that it is of will be sent."""
        flight = self._missing(span_id)
        if flight is not None:
            self._admit(flight)

    async def amissed(self, span_id: str | None) -> None:
        await self._aadmit(self._missing(span_id))

    def _missing(self, span_id: str | None) -> Flight | None:
        node = self._embedding(span_id)
        if node is None:
            return None
        sending = _sending.get()
        if sending is not None and not sending.ended and sending in (node.flights or ()):
            return None  # of this batch another text is missing as well
        return self._next(node)

    async def _aadmit(self, flight: Flight | None) -> None:
        if flight is not None and flight.call is not None:
            flight.opened = True
            try:
                await self.meter.aopen(flight.call)
            except BudgetExceeded:
                flight.ended = True
                raise

    def _next(self, node: Node) -> Flight | None:
        for flight in node.flights or ():
            if not flight.opened and not flight.ended:
                _sending.set(flight)
                return flight
        return None

    def _admit(self, flight: Flight) -> None:
        call = flight.call
        if call is None or flight.opened or flight.ended:
            return
        flight.opened = True
        try:
            self.meter.open(call)
        except BudgetExceeded:
            flight.ended = True
            raise

    # --------------------------------------------------------------------------------------- what clients hear

    def before(self) -> Flight | None:
        try:
            flight = self._current()
            if flight is not None:
                self._admit(flight)
            return flight
        except BudgetExceeded:
            raise
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, "client", error)
            return None

    def after(self, about: Flight | None, answer: Any) -> None:
        if about is None or about.call is None:
            return
        try:
            rank = about.call.kind is RERANK
            model = about.call.model or Model()
            reading = read(answer, model.provider, api="rerank" if rank else "openai.embeddings")
            usage = reading.usage
            if usage.missing == UNKNOWN.missing and (total := number(getattr(answer, "total_tokens", None))):
                usage = TokenUsage(total)  # Voyage's own objects; there is no output
            tells = usage.units or usage.input_tokens if rank else usage.input_tokens
            about.used.append(usage if tells else None)
            about.response_model = reading.response_model or about.response_model
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, "client", error)

    def _current(self) -> Flight | None:
        """The one whose request is being sent: this context's, else the first of the span around."""
        from llama_index_instrumentation.span import active_span_id

        flight = _sending.get()
        if flight is not None and not flight.ended and flight.call is not None:
            return flight
        node = self._embedding(active_span_id.get())
        return None if node is None else node.flight()

    # -------------------------------------------------------------------------------------------------- end

    def end(self, event: Any) -> None:
        """`EmbeddingEndEvent`: in the order of the starts."""
        node = self._nodes.find(event.span_id)
        flight = None if node is None else node.flight()
        if node is None or flight is None:
            return
        chunks = event.chunks if isinstance(event.chunks, list) else [event.chunks]
        texts = [chunk for chunk in chunks if isinstance(chunk, str)]
        had = node.hits or ()
        hits = [text for text in texts if text in had]
        self._embedded(flight, [text for text in texts if text not in had], bool(hits))
        if hits and flight.call is not None and not _counts_hits(node.instance):
            self._from_cache(flight.call, hits, node)

    def _embedded(self, flight: Flight, texts: list[str], some_cached: bool) -> None:
        flight.ended = True
        call = flight.call
        if call is None:
            return
        told = [usage for usage in flight.used if usage is not None]
        usage: TokenUsage | None
        notes: tuple[str, ...] = ()
        if told and len(told) == len(flight.used):
            usage = sum(told, TokenUsage())
        elif not texts and some_cached:
            usage = None
        else:
            usage, notes = _guess(texts, call), (GUESSED,)
        if flight.opened:
            if usage is None:  # the guards were asked, and nothing was sent: the cache had everything
                self.meter.close(call, TokenUsage(), cached=True)
            else:
                self.meter.close(call, usage, response_model=flight.response_model, notes=notes)
        elif usage is not None:
            flight.opened = True
            self.meter.record_call(call, usage, response_model=flight.response_model, notes=notes)

    def _from_cache(self, asked: Call, texts: list[str], node: Node) -> None:
        """What a cache answered was paid for before: it is used, and not billed."""
        call = Call(EMBEDDING, model=asked.model, parent=node.call, framework=FRAMEWORK)
        for name in ("agent", "task", "user", "session", "step", "tags"):
            setattr(call, name, getattr(asked, name))
        self.meter.record_call(call, _guess(texts, call), cached=True, notes=(FROM_CACHE,))

    def rank_end(self, event: Any) -> None:
        node = self._nodes.find(event.span_id)
        flight = None if node is None else node.flight()
        if node is None or flight is None or flight.call is None:
            return
        flight.ended = True
        notes: tuple[str, ...] = ()
        told = [usage for usage in flight.used if usage is not None]
        if told and len(told) == len(flight.used):
            usage = sum(told, TokenUsage())
        elif node.asked:  # a language model ranked, and is counted itself
            if not flight.opened:
                return
            usage = TokenUsage()
        else:
            searches = max(1, -(-int(flight.asked or 0) // SEARCH))
            usage = TokenUsage(units=FrozenMap({"rerank_searches": searches}), missing=("rerank_searches",))
            notes = (GUESSED,)
        self._finish(flight, usage, OK, None, notes)

    def left(self, node: Node) -> None:
        """The span ended well: a batch that has no end of its own was not sent."""
        for flight in node.flights or ():
            if not flight.ended:
                told = [usage for usage in flight.used if usage is not None]
                self._finish(flight, sum(told, TokenUsage()), OK, None, ())
        node.flights = None  # no cycle is left for the garbage collector

    def dropped(self, node: Node, error: BaseException | None) -> None:
        denied = isinstance(error, BudgetExceeded)
        for flight in node.flights or ():
            if flight.ended:
                continue
            told = [usage for usage in flight.used if usage is not None]
            usage = sum(told, TokenUsage()) if told else None
            status: Status = DENIED if denied else ERROR if error is None else status_of(error)
            if denied and told:
                status = OK  # this batch was answered; another one was denied
            notes = () if error is None or denied or never_answered(error) else UNSEEN
            self._finish(flight, usage, status, None if status is OK else error, notes)
        node.flights = None

    def _finish(
        self, flight: Flight, usage: TokenUsage | None, status: Status, error: BaseException | None, notes: Any
    ) -> None:
        flight.ended = True
        call = flight.call
        if call is None:
            return
        call.error = error
        error_type = None if error is None else type(error).__name__
        if flight.opened:
            self.meter.close(
                call,
                usage,
                status=status,
                error_type=error_type,
                response_model=flight.response_model,
                estimated=status is not OK and bool(notes),
                notes=notes,
            )
        elif status is OK and (usage is None or usage != TokenUsage()):
            self.meter.record_call(call, usage, response_model=flight.response_model, notes=notes)


def _around(node: Node) -> Flight | None:
    """An embedding model inside an embedding model: the one around is a wrapper."""
    above = node.parent
    while above is not None:
        if above.role is Role.EMBED:
            return above.flight()
        above = above.parent
    return None


def _guess(texts: list[str], call: Call) -> TokenUsage:
    name = call.model.name if call.model is not None else ""
    return TokenUsage(sum(estimate_tokens(text, name) for text in texts), missing=("input_tokens",))


def _counts_hits(instance: Any) -> bool:
    """Whether its cache is a metered one, which records its hits itself, with what was paid for."""
    return getattr(getattr(instance, "embeddings_cache", None), "meters_hits", False) is True

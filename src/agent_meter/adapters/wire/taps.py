"""What all taps share: whose request is it, may it be sent, and who hears of its end.

A transport asks `begin` before it sends, and tells the exchange what comes back. Nothing in here raises into it,
but for `BudgetExceeded` where a call that nobody announced is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ... import joining
from ...attribution import announced
from ...errors import BudgetExceeded
from ...handles import status_of
from ...joining import Wire
from ...meter import Meter
from ...records import CANCELLED, DENIED, ERROR, OK, Call, Model, Reserve, TokenUsage
from ..payloads import read
from .asking import Asked, asked, asked_by, tokens_in
from .endpoints import Endpoint, endpoint_of, provider_of, same_model
from .exchange import Exchange, since
from .limits import Body

FRAMEWORK = "wire"
ASKABLE = frozenset(("openai.chat", "openai.completions"))
# These tell of usage in every stream, and some of them refuse to be asked.
UNASKED = frozenset(("mistral", "groq", "perplexity", "x-ai", "cohere", "google"))
ESTIMATED = "the answer told no usage: input estimated from the request, output counted by the events that came"
NEVER_READ = "sent through a transport that no tap watches; read from what the client returned"


class Owner(msgspec.Struct, frozen=True):
    """A meter that wants calls which nobody announced: of one client (`meter.wrap`) or of the process (`install`)."""

    meter: Meter
    ask_for_usage: bool = False
    provider: str = ""  # of the client, where the host does not tell
    cap_output: int | None = None  # for requests that name no maximum


# Those of the process.
installed: list[Owner] = []
# Hosts that refused to be asked for usage.
refusing: set[str] = set()


def begin(
    host: str, path: str, body: Callable[[], Any], owners: Sequence[Owner] = (), request: Any = None
) -> Exchange | None:
    """The exchange of a POST that is about to be sent; None when it is nobody's, and passes untouched.

    `body` gives the bytes to be sent, and is asked only where they matter; `request` has the
    headers in which a client names itself.
    """
    endpoint = endpoint_of(host, path)
    if endpoint is None:
        return None
    if announced.get() is None and not owners and not installed and not joining.readers:
        return None
    try:
        return _begin(host, endpoint, body, owners, request)
    except BudgetExceeded:
        raise
    except Exception as error:
        complain_to(owners, "begin", error)
        return None


def _begin(
    host: str, endpoint: Endpoint, body: Callable[[], Any], owners: Sequence[Owner], request: Any
) -> Exchange | None:
    content = body()
    told = _known(endpoint) or (asked_by(content) if isinstance(content, dict) else asked(content))
    if not endpoint.sure and not told.model and content is not None:
        return None
    exchange = Exchange(endpoint, told)
    exchange.request = content
    exchange.calls = joining.join(exchange, fitting(endpoint, told.model, host))
    if not exchange.calls:
        owners = wanting(owners)
        if not owners or not (endpoint.sure or told.model):
            return None
        agent = "" if request is None or endpoint.provider else request.headers.get("user-agent") or ""
        opened = open_own(owners, endpoint, told, content, agent)
        for own in opened:
            own.wire.on_end = own.ended
            own.wire.exchanges.append(exchange)
        exchange.calls = [own.call for own in opened]
    first = exchange.calls[0].wire
    if first is not None and len(first.exchanges) > 1:
        exchange.waited = since(first.exchanges[:-1], time.perf_counter())
    exchange.failed_to = _complaint(exchange.calls)
    return exchange


def _known(endpoint: Endpoint) -> Asked | None:
    """What is asked for by a call that was opened in front of a client's loop of attempts, and is being sent now."""
    call = announced.get()
    if call is None or call.done or call.wire is None or call.wire.asked is None or call.kind is not endpoint.kind:
        return None
    # What has its answer already sends nothing: this is somebody else's request.
    return call.wire.asked if call.wire.free else None


def wanting(owners: Iterable[Owner]) -> list[Owner]:
    """Who wants a call that nobody announced, each meter once."""
    found: list[Owner] = []
    for owner in (*owners, *installed):
        if all(owner.meter is not other.meter for other in found):
            found.append(owner)
    return found


def fitting(endpoint: Endpoint, model: str, host: str) -> Callable[[Call], bool]:
    """Whether an announced call may have asked for this."""

    def fits(call: Call) -> bool:
        wanted = call.model
        if call.kind is not endpoint.kind:
            return False
        if wanted is None:
            return True
        if wanted.endpoint and not _same_host(wanted.endpoint, host):
            return False
        return endpoint.deployment or same_model(wanted.name, model or endpoint.model)

    return fits


@lru_cache(maxsize=1024)
def _same_host(url: str, host: str) -> bool:
    """Whether a call that was announced for `url` may go to `host`.

    A vendor's own address is often no more than a default that a proxy or a subclass has taken the place of.
    """
    try:
        wanted = urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return True
    here = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0].lower()
    if not wanted or wanted == here or {wanted, here} <= _LOOPBACK:
        return True
    vendor = provider_of(wanted)
    return vendor is not None and provider_of(here) in (None, vendor)


_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1", "0.0.0.0"))  # noqa: S104 - names, nothing is bound


def asks_for_usage(exchange: Exchange, host: str, owners: Sequence[Owner] = ()) -> bool:
    """Whether this request is a stream that would end without usage, and somebody wants it asked for."""
    endpoint, told = exchange.endpoint, exchange.asked
    if not told.streamed or told.usage_in_stream or endpoint.dialect not in ASKABLE:
        return False
    if endpoint.provider in UNASKED or host in refusing:
        return False
    if any(call.joining is not None and call.joining.asking for call in exchange.calls):
        return True
    return any(owner.ask_for_usage for owner in owners)


# ------------------------------------------------------------------------------------- calls that nobody announced


class Own:
    """One call that nobody announced, on the record of one meter."""

    __slots__ = ("call", "meter", "wire")

    def __init__(self, meter: Meter, call: Call, told: Asked) -> None:
        self.meter = meter
        self.call = call
        self.wire = call.wire = Wire()
        self.wire.asked = told

    def fenced(self, step: Callable[[Any], None], told: Any) -> None:
        """A step of this call's end, which raises nothing."""
        try:
            step(told)
        except Exception as error:
            self.meter.plugins.failed(FRAMEWORK, step.__name__, error)

    def ended(self, exchange: Exchange) -> None:
        """Its answer is over, one way or another."""
        self.fenced(self._ended, exchange)

    def _ended(self, exchange: Exchange) -> None:
        reading = exchange.reading()
        status, error_type = OK, exchange.error_type
        if error_type is not None:
            status = CANCELLED if error_type in ("CancelledError", "KeyboardInterrupt", "GeneratorExit") else ERROR
        elif exchange.refused:
            status, error_type = ERROR, exchange.attempt().error_type
        elif reading is not None and reading.error_type is not None:
            status, error_type = ERROR, reading.error_type
        elif not exchange.finished:
            status, error_type = CANCELLED, "closed"
        usage: TokenUsage | None = None
        notes: tuple[str, ...] = ()
        if not exchange.refused and (exchange.status is not None):
            usage, notes = lower_bound(exchange)
        self.meter.close(
            self.call,
            usage,
            status=status,
            error_type=error_type,
            response_model=reading.response_model if reading is not None else None,
            response_id=reading.response_id if reading is not None else None,
            estimated=not exchange.refused and not exchange.unreached,
            notes=notes,
        )

    def failed(self, error: BaseException) -> None:
        """The client gave up; what was seen of its attempts is on the record."""
        seen = self.wire.exchanges
        unseen = not seen or any(not exchange.refused for exchange in seen)
        self.meter.close(self.call, status=status_of(error), error_type=type(error).__name__, estimated=unseen)

    def returned(self, answer: Any) -> None:
        """The client has an answer: read on the wire, still on its way, or from a transport that no tap watches."""
        last: Any = self.wire.exchanges[-1] if self.wire.exchanges else None
        if last is None:
            reading = read(answer)
            self.meter.close(
                self.call,
                reading.own_usage,
                response_model=reading.response_model,
                response_id=reading.response_id,
                tools=reading.tools,
                notes=(NEVER_READ,),
            )
            self.meter.record_passes(self.call, reading.passes)
            return
        self.wire.on_end = self.ended
        if last.ended is not None:
            self.ended(last)


def lower_bound(exchange: Exchange) -> tuple[TokenUsage | None, tuple[str, ...]]:
    """What was used at least, where the answer does not say: what was asked, and what was seen of the answer."""
    reading = exchange.reading()
    if reading is None:
        return None, ()
    usage = reading.usage
    if "input_tokens" not in usage.missing or exchange.request is None:
        return None, ()
    asked_for = round(tokens_in(exchange.request))
    seen = usage.output_tokens
    return TokenUsage(max(asked_for, usage.input_tokens), seen, missing=usage.missing, context=usage.context), (
        ESTIMATED,
    )


def open_own(owners: Iterable[Owner], endpoint: Endpoint, told: Asked, content: Any, agent: str = "") -> list[Own]:
    """Open the call for every meter that wants it. Raises `BudgetExceeded`: then none is open."""
    opened: list[Own] = []
    for own in _calls(owners, endpoint, told, content, agent):
        try:
            own.meter.open(own.call)
        except BudgetExceeded:
            _give_back(opened)
            raise
        _opened(own, opened)
    return opened


async def aopen_own(owners: Iterable[Owner], endpoint: Endpoint, told: Asked, content: Any) -> list[Own]:
    """`open_own` for async clients: where a budget must wait, or ask a shared store, the event loop goes on."""
    opened: list[Own] = []
    for own in _calls(owners, endpoint, told, content):
        try:
            await own.meter.aopen(own.call)
        except BaseException:  # cancelled while it waited: the others will not be made either
            _give_back(opened)
            raise
        _opened(own, opened)
    return opened


def _opened(own: Own, opened: list[Own]) -> None:
    own.call.joining = own.meter.joining
    own.call.prompt = None
    opened.append(own)


def _give_back(opened: Iterable[Own]) -> None:
    for other in opened:
        other.meter.close(other.call, status=DENIED, error_type="BudgetExceeded")


def _calls(owners: Iterable[Owner], endpoint: Endpoint, told: Asked, content: Any, agent: str = "") -> Iterator[Own]:
    for owner in owners:
        meter = owner.meter
        provider = endpoint.provider or owner.provider or provider_by(agent)
        call = Call(endpoint.kind, model=Model(provider, told.model or endpoint.model), framework=FRAMEWORK)
        most = call.max_output_tokens = told.max_output
        call.streamed = told.streamed
        if meter.plugins.guarded:
            call.prompt = Body(content)
            call.reserve = Reserve(call.prompt.tokens(), most, assumed=("input_tokens",))
        if meter.wants_content:
            call.content = _messages(content)
        yield Own(meter, call, told)


def provider_by(agent: str) -> str:
    """Whose client it is, by what it calls itself."""
    name = agent.lower()
    if name.startswith(("openai/", "asyncopenai/")):
        return "openai"
    return "azure" if name.startswith(("azureopenai/", "asyncazureopenai/")) else ""


def _messages(content: Any) -> Any:
    if isinstance(content, (bytes, str)):
        try:
            content = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeError):
            return None
    if not isinstance(content, dict):
        return None
    return next((content[name] for name in ("messages", "input", "contents", "prompt") if name in content), None)


def _complaint(calls: Sequence[Call]) -> Callable[[str, Exception], None]:
    def failed_to(what: str, error: Exception) -> None:
        for call in calls:
            if call.joining is not None:
                call.joining.failed(what, error)

    return failed_to


def complain_to(owners: Sequence[Owner], what: str, error: Exception) -> None:
    for owner in wanting(owners):
        owner.meter.plugins.failed(FRAMEWORK, what, error)

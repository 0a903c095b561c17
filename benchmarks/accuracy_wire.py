"""What the wire says on recorded traffic: every call through LangChain, and through the vendors' own clients.

`--write` also writes docs/explanation/accuracy-wire.md. The corpus is found through `AGENT_METER_CORPUS`.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.adapters.langchain.integrations import INTEGRATIONS, Place
from tests.adapters.langchain.recorded import ask
from tests.adapters.wire.sdks import SDKS
from tests.corpus import VARIABLE, conversations, replay_server

from agent_meter import Meter
from agent_meter.adapters.langchain import MeterCallback

from .accuracy import VERDICTS, judge
from .handlers import Ours
from .writing import Page

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "accuracy-wire.md"
INTRODUCTION = """\
Recorded answers of real providers, served to LangChain's clients and to the vendors' own. Where a tap reads the wire,
the record is compared with what the provider said, class by class: input, output, cache reads and writes, reasoning,
audio, and the passes that are billed beside an answer. A call is *exact* when every class that the provider reported is
right, *flagged* when the record says which class it could not see, *silent* when a number is wrong and nothing says so,
*lost* when the record has no tokens: pictures and searches are billed by the piece, and tell none.

This page is written by `python -m benchmarks.accuracy_wire --write`.
"""


def _places(server: Any) -> Iterator[Place]:
    for document in conversations():
        for index in range(len(document["interactions"])):
            place = Place(document, index, server)
            if not place.truth.get("ambiguous"):
                yield place


def measure() -> list[tuple[str, str, str, str, tuple[str, ...]]]:
    """(by what, who asked, where, verdict, notes) of each call."""
    found = []
    ours = Ours()
    with replay_server(match_stream=False) as server:
        for place in _places(server):
            where = f"{place.document['id']}, call {place.index}"
            for integration in INTEGRATIONS:
                if not integration.installed or not integration.asks(place):
                    continue
                with Meter(prices={}) as ours.meter:
                    place.aim()
                    callbacks = [MeterCallback(ours.meter, wire=True)]
                    ask(integration.make(place), place.streamed, {"callbacks": callbacks}, place.question)
                    found.append(("LangChain", integration.name, where, *_verdict(ours, place)))
            for sdk in SDKS:
                if not sdk.installed or not sdk.asks(place) or sdk.name in ("aiohttp", "requests"):
                    continue
                with Meter(prices={}) as ours.meter:
                    place.aim()
                    client = ours.meter.wrap(sdk.make(place))
                    try:
                        sdk.ask(place, client)
                    except Exception as error:
                        error.with_traceback(None)
                    found.append(("meter.wrap", sdk.name, where, *_verdict(ours, place)))
    return found


def _verdict(ours: Ours, place: Place) -> tuple[str, tuple[str, ...]]:
    said = ours.said()
    verdict, _ = judge(said, place.truth, ours.reads)
    return verdict, said.notes if said is not None else ()


def report(page: Page) -> list[Any]:
    found = measure()
    told = {
        f"{document['id']}, call {index}"
        for document in conversations()
        for index, truth in enumerate(document["truth"])
        if truth["input_total"] is not None or truth["requests"] == 0
    }
    page.title("Accuracy of the wire", 1)
    page.say(INTRODUCTION)
    for by in ("LangChain", "meter.wrap"):
        page.title(f"Through {by}" if by == "LangChain" else "Through wrapped clients")
        rows: list[list[object]] = []
        for who in dict.fromkeys(f[1] for f in found if f[0] == by):
            calls = [f for f in found if f[:2] == (by, who)]
            tally = Tally(f[3] for f in calls)
            with_usage = [f for f in calls if f[2] in told]
            exact = sum(f[3] == "exact" for f in with_usage)
            rows.append([who, len(calls), f"{exact} of {len(with_usage)}", *(tally[verdict] for verdict in VERDICTS)])
        page.table(["client", "calls", "exact, where the provider told usage", *VERDICTS], rows, 5)
    page.title("Not exact, though the provider told")
    for by, who, where, verdict, notes in found:
        if verdict != "exact" and where in told:
            page.say(f"- {by}, {who}, {where}: {verdict}. {notes[0] if notes else ''}")
    page.say()
    page.title("A number where the recording's truth has none")
    for by, who, where, verdict, _ in found:
        if verdict == "silent" and where not in told:
            page.say(f"- {by}, {who}, {where}")
    page.say()
    return [f for f in found if f[3] in ("silent", "lost") and f[2] in told]


def main() -> None:
    if not os.environ.get(VARIABLE):
        raise SystemExit(f"{VARIABLE} is not set; it names the folder of recorded traffic")
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    page = Page()
    wrong = report(page)
    if "--write" in sys.argv:
        page.write(PAGE)
    if wrong:
        raise SystemExit(f"{len(wrong)} of our own are silent or lost: {wrong}")


if __name__ == "__main__":
    main()

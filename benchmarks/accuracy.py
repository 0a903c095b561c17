"""What handlers count on recorded traffic of real providers, beside what the providers said.

Every recorded call that one of LangChain's integrations can ask for is asked once, with all handlers attached: ours,
LangChain's two, langfuse's and openinference's where they are installed. Prints the tables; `--write` also writes
docs/explanation/accuracy.md. The corpus is found through `AGENT_METER_CORPUS`.

A count is *exact* when every class of token that the provider reported is right, *flagged* when whatever differs is
said to be missing or estimated, *silent* when it differs and nothing says so, *lost* when there is none.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.adapters.langchain.integrations import INTEGRATIONS, Integration, Place
from tests.adapters.langchain.recorded import ask
from tests.corpus import VARIABLE, conversations, replay_server

from .handlers import BESIDE, Counter, Said, installed, left_out
from .writing import Page

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "accuracy.md"
VERDICTS = ("exact", "flagged", "silent", "lost")


class Finding(NamedTuple):
    handler: str
    integration: str
    place: str
    verdict: str
    differs: Mapping[str, tuple[int, int]]  # class: (counted, said by the provider)
    notes: tuple[str, ...]


def judge(said: Said | None, truth: Mapping[str, Any], reads: Sequence[str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """How right a handler is, in the classes that it has a counter for: no handler is blamed for what it leaves out.

    Of a refused call nothing may be counted; where the provider itself told nothing, nothing may be called exact.
    """
    if said is None:
        return ("exact" if truth["requests"] == 0 else "lost"), {}
    counts = said.counts
    nothing = not any(counts.values())
    if truth["requests"] == 0:
        return ("exact" if nothing else "silent"), {name: (count, 0) for name, count in counts.items() if count}
    if truth["input_total"] is None:
        flagged = {"input_total", "output_total"} <= said.unseen
        return ("flagged" if flagged else "lost" if nothing else "silent"), {}
    beside = sum(p["input_total"] + p["output_total"] for p in truth.get("billed_extra") or ())
    wrong = {
        name: (counts.get(name, 0), told)
        for name, told in {**truth, BESIDE: beside}.items()
        if name in reads and told is not None and counts.get(name, 0) != told
    }
    if wrong.keys() <= said.unseen:
        return ("flagged" if said.unseen else "exact"), wrong
    return ("lost" if nothing else "silent"), wrong


def measure(handlers: list[Counter]) -> tuple[list[Finding], int, int]:
    """The findings, the number of calls, and how many more contradict themselves, and cannot be judged."""
    findings: list[Finding] = []
    calls = ambiguous = 0
    with replay_server(match_stream=False) as server:
        for integration in INTEGRATIONS:
            if not integration.installed:
                continue
            for document in conversations():
                for index in range(len(document["interactions"])):
                    place = Place(document, index, server)
                    if not integration.asks(place):
                        continue
                    if place.truth.get("ambiguous"):
                        ambiguous += 1
                        continue
                    calls += 1
                    findings += _one(integration, place, handlers)
    return findings, calls, ambiguous


def _one(integration: Integration, place: Place, handlers: list[Counter]) -> list[Finding]:
    model = integration.make(place)
    place.aim()
    callbacks = [callback for handler in handlers for callback in handler.callbacks()]
    ask(model, place.streamed, {"callbacks": callbacks}, place.question)
    assert place.served, (integration.name, place.document["id"], place.index)
    found = []
    for handler in handlers:
        said = handler.said()
        verdict, differs = judge(said, place.truth, handler.reads)
        where = f"{place.document['id']}, call {place.index}"
        found.append(Finding(handler.name, integration.name, where, verdict, differs, said.notes if said else ()))
    return found


# ------------------------------------------------------------------------------------------------------- the page

INTRODUCTION = """\
Does a meter read what the provider said? Recorded answers of real providers are served to LangChain's own clients,
and every handler listens to the same call. What a provider said is compared with what each handler counted, class by
class: input, output, cache reads and writes, reasoning, audio, and the passes that are billed beside an answer.

- **exact**: every class that the provider reported, and that the handler has a counter for, is right.
- **flagged**: some class could not be seen, and the record says which. Nothing else differs.
- **silent**: a number is wrong and nothing says so.
- **lost**: there are no numbers at all.

This page is written by `python -m benchmarks.accuracy --write`.
"""


def report(page: Page) -> list[Finding]:
    """Writes the page; returns our own silent miscounts, of which there must be none."""
    from .scenarios import report as scenarios

    handlers = installed()
    findings, calls, ambiguous = measure(handlers)
    page.title("Accuracy", 1)
    page.say(INTRODUCTION)
    tables(page, handlers, findings, calls, ambiguous)
    for package in left_out():
        page.say(f"{package} was not installed and is left out.")
        page.say()
    scenarios(page, handlers)
    return wrong_of_ours(findings, handlers)


def tables(page: Page, handlers: Sequence[Counter], findings: list[Finding], calls: int, ambiguous: int) -> None:
    """The first of the handlers is ours."""
    page.title("Recorded traffic")
    page.say(
        f"{calls} calls through {len({f.integration for f in findings})} integrations. "
        f"{ambiguous} more have usage that contradicts itself, and are not judged."
    )
    page.say()
    rows = []
    for handler in handlers:
        tally = Tally(f.verdict for f in findings if f.handler == handler.name)
        rows.append([handler.title(), calls, *(tally[verdict] for verdict in VERDICTS)])
    page.table(["handler", "calls", *VERDICTS], rows, 5)
    page.title("By integration", 3)
    page.say("Exact, and in brackets flagged, silent and lost.")
    page.say()
    page.table(["integration", "calls", *(h.name for h in handlers)], _by_integration(findings, handlers), 0)
    _why_flagged(page, findings, handlers[0].name)
    _name_silent(page, findings, handlers)


def wrong_of_ours(findings: list[Finding], handlers: Sequence[Counter]) -> list[Finding]:
    return [f for f in findings if f.handler == handlers[0].name and f.verdict in ("silent", "lost")]


def _by_integration(findings: list[Finding], handlers: Sequence[Counter]) -> list[list[object]]:
    rows: list[list[object]] = []
    for integration in dict.fromkeys(f.integration for f in findings):
        cells: list[object] = []
        for handler in handlers:
            tally = Tally(f.verdict for f in findings if (f.integration, f.handler) == (integration, handler.name))
            rest = ", ".join(f"{tally[verdict]} {verdict}" for verdict in VERDICTS[1:] if tally[verdict])
            cells.append(f"{tally['exact']}{f' ({rest})' if rest else ''}")
        calls = sum((f.integration, f.handler) == (integration, handlers[0].name) for f in findings)
        rows.append([integration, calls, *cells])
    return rows


def _why_flagged(page: Page, findings: list[Finding], ours: str) -> None:
    page.title("What ours could not see, and said so", 3)
    tally = Tally(f.notes[0] for f in findings if f.handler == ours and f.verdict == "flagged")
    page.table(["note on the record", "calls"], [[note, count] for note, count in tally.most_common()], 1)


def _name_silent(page: Page, findings: list[Finding], handlers: Sequence[Counter]) -> None:
    page.title("Silent miscounts", 3)
    for handler in handlers:
        silent = [f for f in findings if f.handler == handler.name and f.verdict == "silent"]
        page.say(f"**{handler.name}**: {len(silent) or 'none'}.")
        page.say()
        for f in silent:
            differs = ", ".join(f"{name} {ours} for {theirs}" for name, (ours, theirs) in f.differs.items())
            page.say(f"- {f.integration}, {f.place}: {differs or 'a number where the provider told none'}")
        if silent:
            page.say()


def main() -> None:
    if not os.environ.get(VARIABLE):
        raise SystemExit(f"{VARIABLE} is not set; it names the folder of recorded traffic")
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    page = Page()
    wrong = report(page)
    if "--write" in sys.argv:  # with every peer installed; a run with fewer would make a poorer page
        page.write(PAGE)
    if wrong:
        raise SystemExit(f"{len(wrong)} of our own are silent or lost: {wrong}")


if __name__ == "__main__":
    main()

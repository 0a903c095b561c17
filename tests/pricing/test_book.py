"""The price book as a plugin: what it imports, what it remembers, what it does about the unknown."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal

import pluggy
import pytest

from agent_meter import hookspecs
from agent_meter.pricing import PriceBook, PriceError, RateCard, Rates
from agent_meter.records import Call, CostStatus, Denial, Kind, Model, TokenUsage

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
USAGE = TokenUsage(1000, 500)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_prices_imports_no_price_list_and_the_first_lookup_does() -> None:
    out = run(
        "import sys, agent_meter.pricing as p\n"
        "heavy = lambda: sorted(m for m in ('genai_prices', 'pydantic', 'logging', 'json', 're') if m in sys.modules)\n"
        "before = heavy(); b = p.PriceBook(discover=False); made = heavy(); b.find('gpt-4o')\n"
        "print(before, made, 'genai_prices' in sys.modules)"
    )

    assert out.split("]")[0] + "]" == "[]" or "genai_prices" not in out.split("]")[0]
    assert "genai_prices" not in out.rsplit("]", 1)[0]
    assert out.strip().endswith("True")


def test_a_book_of_own_rates_never_imports_the_price_list() -> None:
    out = run(
        "import sys; from datetime import datetime, UTC\n"
        "from agent_meter.pricing import PriceBook; from agent_meter.records import TokenUsage\n"
        "b = PriceBook({'m': 0.001}, discover=False); b.set('n', {'input': '1'})\n"
        "b.find('m').price(TokenUsage(10, 10), datetime.now(UTC)); b.find('n'); b.find('ollama/llama3')\n"
        "print('genai_prices' in sys.modules)"
    )

    assert out.strip() == "False"


def test_preload_brings_the_price_list_before_the_first_call() -> None:
    out = run(
        "import sys; from agent_meter.pricing import PriceBook\n"
        "PriceBook(discover=False).preload(); print('genai_prices.data' in sys.modules)"
    )

    assert out.strip() == "True"


def manager(*plugins: object) -> pluggy.PluginManager:
    found = pluggy.PluginManager("agent_meter")
    found.add_hookspecs(hookspecs)
    for plugin in plugins:
        found.register(plugin)
    return found


def test_the_book_answers_last_so_that_a_plugins_rates_go_before_it() -> None:
    class Acme:
        @hookspecs.hookimpl
        def meter_find_rates(self, model: Model) -> Rates | None:
            return Rates.per_million("0.20", "0.80") if model.provider == "acme" else None

    hook = manager(PriceBook(discover=False), Acme()).hook

    assert hook.meter_find_rates(model=Model("acme", "m")).output == Decimal("0.8")
    assert hook.meter_find_rates(model=Model("openai", "gpt-4o")).output == 10
    assert not hook.meter_find_rates(model=Model("", "nobodys-model")).known


# ------------------------------------------------------------------------------------ what has no price


def test_an_unknown_model_is_warned_about_once_and_not_per_call(caplog: pytest.LogCaptureFixture) -> None:
    book = PriceBook(discover=False)
    with caplog.at_level(logging.WARNING, logger="agent_meter"):
        for _ in range(3):
            book.find(Model("acme", "m")).price(USAGE, AT)
        book.set("other", "0.001")  # a new version, the same unknown model
        book.find(Model("acme", "m")).price(USAGE, AT)
        book.find(Model("acme", "n")).price(USAGE, AT)

    assert [record.args[0] for record in caplog.records if record.args] == [Model("acme", "m"), Model("acme", "n")]
    assert "acme/m" in caplog.text
    assert "unpriced" in caplog.text


def test_looking_a_model_up_without_calling_it_warns_nobody(caplog: pytest.LogCaptureFixture) -> None:
    PriceBook(discover=False).find(Model("acme", "m"))

    assert caplog.records == []


def call(kind: Kind, rates: Rates | None) -> Call:
    made = Call(kind, model=Model("acme", "m"))
    made.rates = rates
    return made


def test_blocking_denies_model_calls_without_a_price_and_nothing_else() -> None:
    book = PriceBook({"known": "0.001"}, on_unpriced="block", discover=False)
    admit = manager(book).hook.meter_admit_call
    unknown, known = book.find(Model("acme", "m")), book.find("known")

    denial = admit(call=call(Kind.LLM, unknown))

    assert isinstance(denial, Denial)
    assert denial.reason == "no price for acme/m: unknown provider 'acme'"
    assert admit(call=call(Kind.EMBEDDING, unknown))
    for free_to_go in (
        call(Kind.LLM, known),
        call(Kind.LLM, None),
        *(call(k, unknown) for k in (Kind.TOOL, Kind.RUN, Kind.STEP)),
    ):
        assert admit(call=free_to_go) is None


def test_a_book_that_does_not_block_has_no_guard_to_ask() -> None:
    assert manager(PriceBook(discover=False)).hook.meter_admit_call.get_hookimpls() == []


@pytest.mark.parametrize(("mode", "usd"), [("assume:0.002", "0.003"), ("assume:2/8", "0.006")])
def test_an_assumed_rate_prices_the_unknown_and_says_so(mode: str, usd: str) -> None:
    book = PriceBook(on_unpriced=mode, discover=False)

    cost = book.find(Model("acme", "m")).price(USAGE, AT)

    assert (cost.status, cost.amount) == (CostStatus.ESTIMATED, Decimal(usd))
    assert "assumed" in cost.assumptions[0]
    assert not book.find(Model("acme", "m")).known
    assert book.find("gpt-4o").price(USAGE, AT).status is CostStatus.PRICED


@pytest.mark.parametrize("mode", ["", "ignore", "assume", "assume:", "assume:x", "assume:1/", "assume:-1"])
def test_a_policy_that_is_none_is_refused(mode: str) -> None:
    with pytest.raises(PriceError):
        PriceBook(on_unpriced=mode, discover=False)


# --------------------------------------------------------------------------------------------- auditing


def test_any_cent_leads_back_to_the_card_that_made_it() -> None:
    book = PriceBook(discover=False)
    cost = book.find("gpt-4o").price(TokenUsage(1000, 500, 400), AT)

    card = book.card(cost.card_id or "")

    assert card is not None
    assert RateCard.from_json(card.canonical).card_id == cost.card_id
    assert book.card("no such card") is None


def test_the_card_of_a_request_variant_can_be_found_too() -> None:
    book = PriceBook(discover=False)
    cost = book.find(Model("openai", "gpt-4o")).price(USAGE, AT, {"service_tier": "priority"})

    card = book.card(cost.card_id or "")

    assert card is not None
    assert card.prices["input_tokens"].base == Decimal("4.25")


# ---------------------------------------------------------------------------------------------- threads


def test_thirty_two_threads_see_whole_books_only_while_prices_are_swapped() -> None:
    """Two models are always set to the same rate, one after the other; a reader never sees a rate nobody set."""
    book = PriceBook({"m": "1"}, discover=False)
    allowed = {Decimal(n) for n in range(1, 202)}
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            amount = book.find("m").price(TokenUsage(1000), AT).amount
            listed = book.find("gpt-4o").price(TokenUsage(1000, 500, 200), AT).amount
            if amount not in allowed or listed != Decimal("0.00725"):
                wrong.append((amount, listed))

    threads = [threading.Thread(target=read) for _ in range(32)]
    for thread in threads:
        thread.start()
    for n in range(1, 201):
        book.set("m", str(n))
    done.set()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert book.version == 201
    assert book.find("m").price(TokenUsage(1000), AT).amount == 200

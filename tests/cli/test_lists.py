"""`agent-meter prices diff`, `update` and `check`."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agent_meter.pricing import PriceBook

from .conftest import Invoke


def models(count: int, **rates: float) -> list[dict[str, Any]]:
    return [
        {"id": f"m-{n}", "match": {"equals": f"m-{n}"}, "prices": {"input_mtok": 1, "output_mtok": 2, **rates}}
        for n in range(count)
    ]  # fmt: skip


def price_list(path: Path, listed: list[dict[str, Any]]) -> Path:
    table = [{"id": "acme", "name": "Acme", "api_pattern": "https://acme\\.test", "models": listed}]
    path.write_text(json.dumps(table), encoding="utf-8")
    return path


def test_diff_as_json_has_every_change_with_exact_amounts(invoke: Invoke) -> None:
    result = invoke("prices", "diff", "may.json", "june.json", "--at", "2026-05-15", "--json")

    document = json.loads(result.stdout)
    rates = {(each["model"], each["rate"]): (each["before"], each["after"]) for each in document["rates"]}
    assert result.exit_code == 0
    assert (document["new"], document["gone"]) == (["acme/lark-3"], ["acme/lark-1"])
    assert rates == {
        ("lark-2", "cache_read_tokens"): ("0.5", "0.2"),
        ("lark-2", "output_tokens"): ("8", "10"),
        ("lark-2", "output_tokens (processing=batch)"): ("4", "5"),
        ("lark-2-long", "input_tokens above 200,000"): ("6", "60"),
        ("wren-embed", "input_tokens"): ("0.02", "0.01"),
        ("wren-mini", "cache_read_tokens"): (None, "0.025"),
        ("wren-mini", "output_tokens"): ("0.4", None),
        ("nests/wren-mini-with-a-name-that-is-longer-than-any-table:free", "input_tokens"): ("0", "0.05"),
    }
    assert [each["rate"] for each in document["rates"] if each["moved_far"]] == [
        "input_tokens above 200,000",
        "input_tokens",
    ]


def test_the_installed_list_goes_by_its_word_and_by_its_version(invoke: Invoke) -> None:
    version = PriceBook(discover=False).price_list.source.removeprefix("genai-prices ")

    result = invoke("prices", "diff", "installed", version)
    missing = invoke("prices", "diff", "installed", "0.0.99")

    assert result.output == f"genai-prices {version} → genai-prices {version}\nno difference\n"
    assert missing.exit_code == 2
    assert f"no file '0.0.99'; at hand without one is `installed`, which is genai-prices {version}" in missing.output


@pytest.mark.parametrize(("left", "taken"), [(10, True), (8, True), (7, False)])
def test_update_refuses_a_list_that_lost_more_than_a_fifth_of_the_models(
    left: int, taken: bool, invoke: Invoke, folder: Path
) -> None:
    there = price_list(folder / "there.json", models(10))
    newer = price_list(folder / "newer.json", models(left))
    before = there.read_bytes()

    result = invoke("prices", "update", "--file", "newer.json", "--to", "there.json")

    assert result.exit_code == (0 if taken else 1)
    assert there.read_bytes() == (newer.read_bytes() if taken else before)
    if not taken:
        assert "3 of 10 models are gone" in result.stderr
        assert [f"acme/m-{n} is gone" in result.stderr for n in range(10)] == [n >= 7 for n in range(10)]


@pytest.mark.parametrize(("rate", "taken"), [(5, True), (5.01, False), (0.2, True), (0.19, False), (0, False)])
def test_update_refuses_a_rate_that_moved_more_than_five_times(
    rate: float, taken: bool, invoke: Invoke, folder: Path
) -> None:
    price_list(folder / "there.json", models(3))
    changed = models(3)
    changed[1]["prices"]["input_mtok"] = rate
    price_list(folder / "newer.json", changed)

    result = invoke("prices", "update", "--file", "newer.json", "--to", "there.json")

    assert result.exit_code == (0 if taken else 1)
    assert taken or f"  acme/m-1 input_tokens: 1 to {rate} (more than 5x)\n" in result.stderr


def test_update_with_accept_records_the_digest_and_prices_by_the_new_list(
    invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = invoke("prices", "update", "--file", "june.json", "--accept", "--json")

    document = json.loads(result.stdout)
    digest = sha256((folder / "june.json").read_bytes()).hexdigest()
    written = folder / "agent_meter_prices.json"
    assert (result.exit_code, document["accepted"], document["sha256"]) == (0, True, digest)
    assert document["path"] == written.name
    assert written.read_bytes() == (folder / "june.json").read_bytes()
    assert (folder / f"{written.name}.sha256").read_text() == f"{digest}  {written.name}\n"
    monkeypatch.setenv("AGENT_METER_PRICE_LIST", written.name)
    shown = json.loads(invoke("prices", "show", "acme/lark-3", "--json").stdout)
    assert (shown["now"]["rates"]["input_tokens"]["usd"], shown["source"]) == (
        "1.5",
        f"{written.name} sha256:{digest[:12]}",
    )


def test_update_says_how_to_price_by_the_list_unless_it_is_in_use(
    invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hint = f"export AGENT_METER_PRICE_LIST={folder / 'copy.json'}"
    typed = ("prices", "update", "--file", "june.json", "--to", "copy.json", "--accept")

    first = invoke(*typed)
    monkeypatch.setenv("AGENT_METER_PRICE_LIST", str(folder / "copy.json"))
    second = invoke(*typed)

    assert (hint in first.stdout, hint in second.stdout) == (True, False)


def test_a_refusal_as_json_has_its_reasons_and_all_changes(invoke: Invoke, folder: Path) -> None:
    price_list(folder / "there.json", models(10))
    price_list(folder / "newer.json", models(7, input_mtok=9))

    result = invoke("prices", "update", "--file", "newer.json", "--to", "there.json", "--json")

    document = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, document["accepted"]) == (1, "", False)
    assert len(document["problems"]) == 8  # the models that are gone, and seven rates
    assert document["gone"] == ["acme/m-7", "acme/m-8", "acme/m-9"]
    assert {each["after"] for each in document["rates"]} == {"9"}


def test_a_long_refusal_is_cut_and_says_where_to_see_all_of_it(invoke: Invoke, folder: Path) -> None:
    price_list(folder / "there.json", models(100))
    price_list(folder / "newer list.json", models(60, input_mtok=9))

    result = invoke("prices", "update", "--file", "newer list.json", "--to", "there.json")

    lines = result.stderr.splitlines()
    assert lines[:2] == ["newer list.json is not taken over:", "  40 of 100 models are gone (more than 20%)"]
    assert lines[22:] == [
        "  … and 20 more",
        *(f"  acme/m-{n} input_tokens: 1 to 9 (more than 5x)" for n in sorted(range(60), key=str)[:20]),
        "  … and 40 more",
        "All changes: agent-meter prices diff there.json 'newer list.json'",
        "To take it over all the same: --accept",
    ]


def test_check_as_json_lists_what_the_file_speaks_of_or_what_is_wrong(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_METER_PRICE_LIST", "may.json")

    right, wrong = (invoke("prices", "check", name, "--json") for name in ("prices.toml", "misspelt.toml"))

    assert (right.exit_code, json.loads(right.stdout)) == (
        0,
        {
            "path": "prices.toml",
            "models": ["acme/lark-2", "house-model"],
            "patterns": ["acme/wren-*"],
            "fees": ["code_executions"],
            "problems": [],
        },
    )
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout)["problems"] == [
        "misspelt.toml, line 3: prices.\"house-model\".ouput: unknown key; did you mean 'output'?"
    ]


def test_check_leaves_other_settings_of_the_shared_file_alone(invoke: Invoke, folder: Path) -> None:
    text = '[budgets.daily]\nusd = 5\n\n[prices.mine]\ninput = "1"\n'
    (folder / "agent_meter.toml").write_text(text, encoding="utf-8")
    (folder / "other.toml").write_text(text, encoding="utf-8")

    shared, other = (invoke("prices", "check", name) for name in ("agent_meter.toml", "other.toml"))

    assert (shared.exit_code, shared.output) == (0, "agent_meter.toml is in order: 1 model.\n")
    assert other.exit_code == 1
    assert "file.budgets: unknown key" in other.output

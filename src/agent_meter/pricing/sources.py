"""Where the user's prices come from: arguments, price files, the environment. What is wrong in form is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import PriceError
from .cards import Price
from .entries import Amount, Entry, entries, refuse_unknown
from .layers import Layer
from .names import provider_key
from .rates import FormError, fee_prices

FILE = "agent_meter.toml"
FILES_VARIABLE = "AGENT_METER_PRICES"
RATES_VARIABLE = "AGENT_METER_COST_RATES"
LIST_VARIABLE = "AGENT_METER_PRICE_LIST"
_SECTIONS = ("prices", "pattern", "fees")


def layers(
    overrides: Mapping[str, Any] | str | PathLike[str] | None, cost_rates: Mapping[str, Amount], *, discover: bool
) -> tuple[Layer, ...]:
    """The user's layers, strongest first. Raises `PriceError`."""
    found = []
    if isinstance(overrides, Mapping):
        found.append(from_mapping(overrides, "prices"))
    elif overrides is not None:
        found.append(from_file(Path(overrides)))
    if cost_rates:
        found.append(_flat(cost_rates, "cost_rates"))
    if discover:
        named = os.environ.get(FILES_VARIABLE, "")
        if named:
            found += [from_file(Path(path)) for path in named.split(os.pathsep) if path]
        elif os.path.isfile(FILE):
            found.append(from_file(Path(FILE), shared=True))
        rates = os.environ.get(RATES_VARIABLE, "")
        if rates:
            found.append(_from_environment(rates))
    return tuple(found)


def price_list() -> str | None:
    """The file that the environment names in place of the installed price list."""
    return os.environ.get(LIST_VARIABLE) or None


def from_mapping(given: Mapping[str, Any], source: str) -> Layer:
    """Rates by model name, or what a price file holds: `prices`, `pattern` and `fees`."""
    if given and set(given) <= set(_SECTIONS) and all(isinstance(v, (Mapping, list)) for v in given.values()):
        return document(given, source)
    return _flat(given, source)


def from_file(path: Path, *, shared: bool = False) -> Layer:
    """A price file. Messages name its line; in a `shared` file, tables that are not about prices are left alone."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PriceError(f"no price file at {path}: {error}") from None
    return from_text(text, str(path), shared=shared)


def from_text(text: str, source: str, *, shared: bool = False) -> Layer:
    import tomllib

    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise PriceError(f"{source}: {error}") from None
    try:
        return document(tables, source, shared=shared)
    except FormError as error:
        line = _line(text, error.where)
        raise PriceError(f"{source}, line {line}: {error}" if line else f"{source}: {error}") from None


def _flat(given: Mapping[str, Any], source: str) -> Layer:
    exact: dict[str, tuple[Entry, ...]] = {}
    globs: dict[str, tuple[Entry, ...]] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not name.strip():
            raise PriceError(f"{source}: a model's name, not {name!r}")
        kind = globs if "*" in name or "?" in name else exact
        kind[name] = entries(value, f'{source}."{name}"', source)
    return Layer(exact, globs, source=source)


def _from_environment(text: str) -> Layer:
    import json

    try:
        given = json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise PriceError(f"{RATES_VARIABLE}: not JSON: {error}") from None
    if not isinstance(given, dict):
        raise PriceError(f'{RATES_VARIABLE}: an object such as {{"my-model": 0.001}}, not {text!r}')
    return _flat(given, RATES_VARIABLE)


def document(given: Mapping[str, Any], source: str, *, shared: bool = False) -> Layer:
    """A price file that has been read: `prices`, `[[pattern]]` and `fees`. Raises `PriceError`."""
    _check_sections(given, shared)
    prices = given.get("prices", {})
    if not isinstance(prices, Mapping):
        raise FormError("prices", "tables by model name")
    exact = {name: entries(value, f'prices."{name}"', source) for name, value in prices.items()}
    globs = {name: exact.pop(name) for name in list(exact) if "*" in name or "?" in name}
    regexes: dict[str, tuple[Entry, ...]] = {}
    patterns = given.get("pattern", [])
    if not isinstance(patterns, list):
        raise FormError("pattern", "written [[pattern]], once for each")
    for number, table in enumerate(patterns):
        if not isinstance(table, Mapping):
            raise FormError(f"pattern[{number}]", f"a table with glob or regex, not {table!r}")
        rest = {key: value for key, value in table.items() if key not in ("glob", "regex")}
        kinds = [key for key in ("glob", "regex") if key in table]
        if len(kinds) != 1 or not isinstance(table[kinds[0]], str):
            raise FormError(f"pattern[{number}]", f"either glob or regex, one text: {dict(table)!r}")
        text = table[kinds[0]]
        into = globs if kinds == ["glob"] else regexes
        into[text] = (*into.get(text, ()), *entries(rest, f'pattern."{text}"', source))
    return Layer(exact, globs, regexes, _fees(given.get("fees", {})), source)


def _check_sections(document: Mapping[str, Any], shared: bool) -> None:
    from difflib import get_close_matches

    for key in document:
        if key in _SECTIONS:
            continue
        # A file that holds other settings too may say what it likes, except nearly what we would read.
        if not shared or get_close_matches(key, _SECTIONS, 1, 0.75):
            refuse_unknown([key], _SECTIONS, "file")


def _fees(given: object) -> dict[str, Mapping[str, Price]]:
    """US$ a piece by unit, for everybody (key `""`) or in a table for one provider."""
    if not isinstance(given, Mapping):
        raise FormError("fees", f"a table of units and US$ a piece, not {given!r}")
    common = {name: fee for name, fee in given.items() if not isinstance(fee, Mapping)}
    found: dict[str, Mapping[str, Price]] = {"": fee_prices(common)} if common else {}
    for provider, table in given.items():
        if isinstance(table, Mapping):
            found[provider_key(provider)] = fee_prices(table, f"fees.{provider}")
    return found


def _line(text: str, where: str) -> int | None:
    """The line of `prices."name"[n].key`, `pattern."text".key` or `fees.key` in a file."""
    import re

    head, quote, tail = where.rpartition('"')
    name = head.partition('"')[2] if quote else ""
    number = re.match(r"\[(\d+)\]", tail)
    key = (tail if quote else where).rpartition(".")[2]
    lines = text.splitlines()
    listed = re.match(r"pattern\[(\d+)\]", where)
    starts = [n for n, line in enumerate(lines) if name in line and re.match(r"\s*(\[|glob|regex)", line)] or [0]
    if listed:
        starts = [n for n, line in enumerate(lines) if line.strip().startswith("[[pattern")]
        number, name = listed, "pattern"
    start = starts[min(int(number[1]) if number else 0, len(starts) - 1)]
    if where.startswith("pattern"):
        start = max((n for n in range(start + 1) if lines[n].lstrip().startswith("[[")), default=start)
    wanted = re.compile(rf"(^|[\s{{,.\[\"']){re.escape(key)}[\"']?\s*[]=]")
    for n in range(start, len(lines)):
        if n > start and name and lines[n].lstrip().startswith("["):
            break
        if key and wanted.search(lines[n]):
            return n + 1
    return start + 1 if name else None

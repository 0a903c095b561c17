"""Parameter values become short, typed texts: without running their code, keeping them, or keeping secrets."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_meter.patterns import (
    ALL_PARAMETERS,
    MASKED,
    OTHER,
    PARAMETERS,
    VALUES,
    Policy,
    ToolParameters,
    is_secret,
    printable,
    read_key,
    short_name,
    usage_key,
    value_key,
)

SECRETS = """
    api_key apiKey API-KEY apikey x-api-key token access_token accessToken accesstoken id_token auth secret
    client_secret password PASSWORD user_password passwd pwd Authorization proxy-authorization credential
    credentials private_key privateKey access_key AWS_SECRET_ACCESS_KEY cookie Set-Cookie session_key bearer
    bearer_token jwt passphrase refresh_tokens connection_string
"""
HARMLESS = """
    max_tokens tokens maxTokens num_tokens token_count max_token tokenizer total_tokens prompt_tokens query
    key keyboard author authors path passage compass primary_key user_id session_id
"""

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


class Colour(Enum):
    RED = "r"


class Word(StrEnum):
    ONE = "one"


class Hostile:
    """Does harm wherever code of its own is run."""

    def _refuse(self, *args: object) -> Any:
        raise AssertionError("a value's own code was run")

    __str__ = __repr__ = __hash__ = __eq__ = __len__ = __bool__ = __iter__ = __format__ = _refuse  # type: ignore[assignment]
    __class__ = property(_refuse)  # type: ignore[assignment]


class HostileText(str):
    __str__ = __repr__ = __hash__ = __eq__ = __len__ = __getitem__ = encode = Hostile._refuse  # type: ignore[assignment]


class HostileList(list):  # type: ignore[type-arg]
    __repr__ = __iter__ = __len__ = __getitem__ = Hostile._refuse  # type: ignore[assignment]


class HostileMeta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise AssertionError("a class's own code was run")


class HostileClass(metaclass=HostileMeta):
    pass


def shown(value: object) -> str:
    return read_key(value_key(value))[1]


def read(*calls: object, **options: Any) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """`parameter_usage` and the lines of the summary after these calls of a tool named t."""
    parameters = ToolParameters("t", Policy(**options))
    for params in calls:
        parameters.add(params)
    usage, patterns = parameters.read()
    return usage, {name: str(pattern) for name, pattern in patterns.items()}


class TestValueKey:
    def test_values_of_different_types_stay_apart(self):
        values = [1, "1", 1.0, True, "True", None, "None", b"1", [1], (1,), {1}, {1: 1}, "[1]", "•••", "", "\0", "\0v1"]

        assert len({value_key(value) for value in values}) == len(values)

    @settings(deadline=None)
    @given(st.text(max_size=100))
    def test_a_short_text_is_shown_as_it_is(self, text: str):
        assert read_key(value_key(text)) == (True, text)

    def test_a_long_text_is_cut_after_100_characters(self):
        assert read_key(value_key("x" * 250)) == (True, "x" * 100 + "...")

    def test_long_texts_that_differ_beyond_the_cut_stay_apart(self):
        texts = [
            "x" * 250,
            "x" * 251,
            "x" * 249 + "y",
            "x" * 120 + "y" + "x" * 129,
            "x" * 10**6,
            "x" * (10**6 - 1) + "y",
        ]

        assert len({value_key(text) for text in texts}) == len(texts)

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda: 42, "42"),
            (lambda: 1e300, "1e+300"),
            (lambda: float("nan"), "nan"),
            (lambda: 2j, "2j"),
            (lambda: 10**50, str(10**50)),
            (lambda: 10**5000, "<int of 16,610 bits>"),
            (lambda: b"\x00" * 10_000_000, "<10,000,000 bytes>"),
            (lambda: bytearray(5), "<5 bytes>"),
            (lambda: [1, "two", [3.0]], '[1, "two", [3.0]]'),
            (lambda: (), "()"),
            (lambda: {"b": 1, "a": None}, "{a: None, b: 1}"),
            (lambda: {2, 1}, "{1, 2}"),
            (lambda: set(range(100)), "<set of 100>"),
            (lambda: list(range(200_000)), "[0, 1, 2, 3, 4, 5, 6, 7, … 199,992 more]"),
            (lambda: [[[["deep"]]]], "[[[<list of 1>]]]"),
            (lambda: ["x" * 1000], '["' + "x" * 40 + '…"]'),
            (lambda: Colour.RED, "<Colour.RED>"),
            (lambda: Word.ONE, "one"),
            (lambda: date(2026, 11, 21), "<date 2026-11-21>"),
            (lambda: Decimal("1.50"), "<Decimal 1.50>"),
            (lambda: uuid.UUID(int=7), "<UUID 00000000-0000-0000-0000-000000000007>"),
            (lambda: PurePosixPath("/a/b"), "<PurePosixPath /a/b>"),
            (lambda: object(), "<object>"),
            (lambda: int, "<type>"),
        ],
        ids=lambda value: value if isinstance(value, str) else "-",
    )  # fmt: skip
    def test_every_value_has_a_short_readable_form(self, make: Callable[[], object], expected: str):
        assert shown(make()) == expected

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda: Hostile(), "<Hostile>"),
            (lambda: [Hostile()], "[<Hostile>]"),
            (lambda: {"a": Hostile()}, "{a: <Hostile>}"),
            (lambda: HostileText("text"), "text"),
            (lambda: HostileText("x" * 10_000), "x" * 100 + "..."),
            (lambda: HostileList([1, 2]), "[1, 2]"),
            (lambda: HostileClass(), "<HostileClass>"),
        ],
        ids=lambda value: value if isinstance(value, str) else "-",
    )
    def test_no_code_of_the_value_is_run(self, make: Callable[[], object], expected: str):
        assert shown(make()) == expected

    def test_a_value_that_contains_itself_ends(self):
        ring: list[Any] = [1]
        ring.append(ring)

        assert shown(ring) == "[1, [1, [1, <list of 2>]]]"

    @settings(deadline=None)
    @given(anything)
    def test_a_key_is_at_most_111_characters_and_the_same_every_time(self, value: object):
        key = value_key(value)

        assert len(key) <= 111
        assert value_key(value) == key

    @pytest.mark.parametrize(
        "make",
        [
            lambda: b"x" * 10**7,
            lambda: "x" * 10**7,
            lambda: list(range(10**6)),
            lambda: dict.fromkeys(range(10**5)),
            lambda: 1 << 10**7,
        ],
        ids=["bytes", "text", "list", "dict", "int"],
    )
    def test_a_huge_value_is_not_copied(self, make: Callable[[], object]):
        value = make()
        tracemalloc.start()
        value_key(value)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        assert peak < 100_000

    def test_work_on_nested_containers_is_bounded(self):
        wide: Any = "leaf"
        looked_at = []
        for _ in range(4):
            wide = {f"k{number}": wide for number in range(100)}

        value_key(wide, lambda name: bool(looked_at.append(name)))

        assert len(looked_at) <= 32


class TestSecrets:
    @pytest.mark.parametrize(
        "name",
        SECRETS.split(),
    )
    def test_names_of_secrets_are_recognised(self, name: str):
        assert is_secret(name)

    @pytest.mark.parametrize(
        "name",
        HARMLESS.split(),
    )
    def test_names_of_other_things_are_not(self, name: str):
        assert not is_secret(name)

    def test_a_secret_is_counted_but_never_kept_or_told_apart(self):
        usage, lines = read({"api_key": "sk-1"}, {"api_key": "sk-2"}, {"api_key": ["sk-3"]})

        assert usage == {"api_key": {"•••": 3}}
        assert lines == {"api_key": "api_key: •••"}

    def test_a_secret_inside_a_value_is_masked(self):
        usage, _ = read({"options": {"deep": [{"Authorization": "Bearer x", "page": 1}]}})

        assert usage == {"options": {"{deep: [{Authorization: •••, page: 1}]}": 1}}

    def test_a_denied_name_is_masked_inside_a_value_too(self):
        assert read({"o": {"email": "a@b.c"}}, deny=["email"])[0] == {"o": {"{email: •••}": 1}}


class TestPolicy:
    def test_only_allowed_parameters_are_followed(self):
        assert list(read({"a": 1, "b": 2, "c": 3}, allow=["a", "t.c", "u.b"])[0]) == ["a", "c"]

    def test_denied_parameters_are_not_followed(self):
        assert list(read({"a": 1, "b": 2, "c": 3}, deny=["a", "t.c", "u.b"])[0]) == ["b"]

    def test_deny_wins_over_allow(self):
        assert read({"a": 1}, allow=["a"], deny=["a"])[0] == {}

    def test_an_allowed_secret_is_still_masked(self):
        assert read({"token": "x"}, allow=["token"])[0] == {"token": {"•••": 1}}

    def test_one_name_may_be_given_as_a_plain_text(self):
        assert list(read({"query": 1, "q": 2}, allow="query")[0]) == ["query"]


class TestUsage:
    def test_texts_are_named_as_they_are_and_quoted_only_where_they_read_like_another_value(self):
        texts = [
            "Python",
            "2024-01-01",
            "3 pigs",
            "-",
            "1",
            "1.5",
            "-1e-05",
            "True",
            "None",
            "nan",
            "[1]",
            '"x"',
            "(other)",
        ]

        assert {text: usage_key(text) for text in texts if usage_key(text) != text} == {
            text: f'"{text}"' for text in ["1", "1.5", "-1e-05", "True", "None", "nan", "[1]", '"x"', "(other)"]
        }

    def test_1_and_its_look_alikes_are_counted_apart(self):
        usage, lines = read({"n": 1}, {"n": "1"}, {"n": 1.0}, {"n": True}, {"n": 1})

        assert usage == {"n": {"1": 2, '"1"': 1, "1.0": 1, "True": 1}}
        assert lines == {"n": "n: 1 (2x, 4 unique)"}

    def test_a_parameter_with_one_value_shows_just_the_value(self):
        assert read({"q": "Python", "n": 3}, {"q": "Python", "n": 3})[1] == {"q": 'q: "Python"', "n": "n: 3"}

    def test_counts_add_up_to_the_calls(self):
        usage, _ = read(*({"q": f"text {number % 100}"} for number in range(1_000)))

        assert len(usage["q"]) == VALUES + 1
        assert sum(usage["q"].values()) == 1_000
        assert usage["q"][OTHER] > 0

    def test_an_uncertain_count_says_so(self):
        calls = [{"q": f"text {number}"} for number in range(200)] + [{"q": "late"}] * 50

        assert read(*calls)[1]["q"].startswith('q: "late" (≥50x, ~')

    def test_long_texts_with_one_beginning_are_shown_together_and_counted_apart(self):
        usage, lines = read({"q": "x" * 100 + "a"}, {"q": "x" * 100 + "b"})

        assert usage == {"q": {"x" * 100 + "...": 2}}
        assert lines["q"].endswith("(1x, 2 unique)")

    def test_invisible_signs_and_quotes_are_spelt_out_in_the_summary(self):
        call = {"q\x1b[31m": 'a\n"b"\u202e'}

        assert list(read(call, call)[1].values()) == [r'q\x1b[31m: "a\n\"b\"\u202e"']

    def test_at_most_32_parameters_of_a_tool_are_followed_and_the_rest_is_counted(self):
        parameters = ToolParameters("t", Policy())
        parameters.add({f"p{number}": 1 for number in range(100)})

        assert len(parameters.read()[0]) == PARAMETERS
        assert parameters.other == 100 - PARAMETERS

    def test_at_most_1024_parameters_of_all_tools_are_followed(self):
        policy = Policy()
        tools = [ToolParameters(f"t{number}", policy) for number in range(40)]
        for tool in tools:
            tool.add({f"p{number}": 1 for number in range(PARAMETERS)})

        assert sum(len(tool.read()[0]) for tool in tools) == ALL_PARAMETERS
        assert sum(tool.other for tool in tools) == 40 * PARAMETERS - ALL_PARAMETERS

    @pytest.mark.parametrize(
        ("params", "expected"),
        [
            (None, {}),
            ({}, {}),
            ("Paris", {"(input)": {"Paris": 1}}),
            (["a", 1], {"(input)": {'["a", 1]': 1}}),
            ({1: "a", None: "b", ("x", 2): "c"}, {"1": {"a": 1}, "None": {"b": 1}, '("x", 2)': {"c": 1}}),
            ({"n" * 150: 1}, {"n" * 100 + "…": {"1": 1}}),
        ],
    )
    def test_arguments_may_be_anything(self, params: object, expected: dict[str, dict[str, int]]):
        assert read(params)[0] == expected

    def test_a_mapping_that_raises_is_counted_and_not_raised(self):
        class Broken(Mapping[str, int]):
            def __getitem__(self, key: str) -> int:
                raise KeyError(key)

            def __iter__(self) -> Iterator[str]:
                yield "a"

            def __len__(self) -> int:
                raise RuntimeError

        parameters = ToolParameters("t", Policy())
        parameters.add(Broken())

        assert parameters.other == 1

    def test_a_value_is_not_kept_alive(self):
        class Value:
            pass

        value = Value()
        gone = weakref.ref(value)
        parameters = ToolParameters("t", Policy())
        parameters.add({"a": value, "b": [value], "c": {"d": value}})
        del value

        assert gone() is None

    def test_memory_stops_growing_with_100000_different_values(self):
        parameters = ToolParameters("t", Policy())
        parameters.add({"warm": "up"})
        tracemalloc.start()
        for number in range(100_000):
            parameters.add({"q": f"a question that nobody asked before, number {number}"})
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()

        assert grown < 50_000
        assert parameters.read()[1]["q"].distinct == pytest.approx(100_000, rel=0.1)


def test_every_process_gives_the_same_keys_and_estimates():
    program = (
        "from agent_meter.patterns import *\n"
        "p = ToolParameters('t', Policy())\n"
        "for i in range(500):\n"
        "    some = frozenset(map(str, range(i)))\n"
        "    p.add({'q': f'text {i % 90}', 's': {'a', 'b', 'c', ('d', 'e')}, 'f': some})\n"
        "print(p.read())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(outputs) == 1
    assert "<frozenset of 449>" in outputs.pop()


def test_names_of_any_kind_are_short_texts():
    names = ["search", "x" * 500, None, 7, HostileText("search")]

    assert [short_name(name) for name in names] == ["search", "x" * 100 + "…", "None", "7", "search"]


def test_printable_text_stays_as_it_is():
    assert printable("größer 東京 🙂") == "größer 東京 🙂"


def test_the_mask_reads_as_three_dots():
    assert read_key(MASKED) == (False, "•••")

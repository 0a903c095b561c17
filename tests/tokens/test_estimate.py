"""The estimate from characters alone."""

from __future__ import annotations

import subprocess
import sys
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter.tokens import TokenCounter, estimate_tokens
from agent_meter.tokens.estimate import ERROR

# One text each, by its own words; counted with o200k_base below.
TEXTS = {
    "english": "The committee will meet again on Thursday to discuss the results of the survey and decide what to do.",
    "german": "Der Ausschuss trifft sich am Donnerstag wieder, um über die Ergebnisse der Umfrage zu entscheiden.",
    "french": "Le comité se réunira de nouveau jeudi pour discuter des résultats de l'enquête et décider de la suite.",
    "spanish": "El comité se reunirá de nuevo el jueves para discutir los resultados de la encuesta.",
    "russian": "Комитет снова соберётся в четверг, чтобы обсудить результаты опроса и решить, что делать дальше.",
    "greek": "Η επιτροπή θα συνεδριάσει ξανά την Πέμπτη για να συζητήσει τα αποτελέσματα της έρευνας.",
    "chinese": "委员会将于星期四再次开会，讨论调查结果，并决定下一步应该做什么。",
    "japanese": "委員会は木曜日に再び集まり、調査の結果について話し合い、次に何をすべきかを決める予定です。",
    "korean": "위원회는 목요일에 다시 모여 조사 결과를 논의하고 다음에 무엇을 해야 할지 결정할 것입니다.",
    "hindi": "समिति गुरुवार को फिर से बैठक करेगी ताकि सर्वेक्षण के परिणामों पर चर्चा की जा सके।",
    "arabic": "ستجتمع اللجنة مرة أخرى يوم الخميس لمناقشة نتائج الاستطلاع وتقرير ما ينبغي القيام به بعد ذلك.",
    "hebrew": "הוועדה תתכנס שוב ביום חמישי כדי לדון בתוצאות הסקר ולהחליט מה צריך לעשות בהמשך.",
    "python": "def mean(values: list[float]) -> float:\n    return sum(values) / len(values) if values else 0.0\n",
    "json": '{"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius", "days": 3}, "id": "call_17"}',
    "numbers": "12.5, 1048576, 3.14159, 2024-01-02T10:20:30Z, 99.95, 0.0001, 65535, 271828, 42",
}  # fmt: skip


@pytest.mark.parametrize("what", TEXTS)
def test_languages_code_and_numbers_are_within_the_stated_error(what: str) -> None:
    exact = TokenCounter("o200k_base").count(TEXTS[what])

    assert estimate_tokens(TEXTS[what]) == pytest.approx(exact, rel=ERROR)


@given(text=st.text(st.characters(), max_size=500), model=st.sampled_from(["", "gpt-4o", "claude-opus-4-8", "?"]))
def test_any_text_has_an_estimate_and_none_is_zero_but_the_empty(text: str, model: str) -> None:
    assert (estimate_tokens(text, model) > 0) == bool(text)


@pytest.mark.parametrize(("chars", "tokens"), [(0, 0), (-5, 0), (1, 1), (4_400, 1_000), (10**12, 227_272_727_273)])
def test_a_number_of_characters_is_taken_for_english(chars: int, tokens: int) -> None:
    assert estimate_tokens(chars) == tokens


def test_a_models_factor_is_applied() -> None:
    text = TEXTS["english"] * 50

    assert estimate_tokens(text, "claude-sonnet-4-5") == pytest.approx(1.15 * estimate_tokens(text), rel=0.01)


def test_nothing_is_nothing_and_bytes_are_refused() -> None:
    assert estimate_tokens(None) == 0
    with pytest.raises(TypeError, match="takes a str or a number of characters, not bytes"):
        estimate_tokens(b"abc")  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["english", "chinese", "russian", "json"])
def test_ten_kilobytes_take_less_than_50_microseconds(what: str) -> None:
    text = TEXTS[what] * 200
    while len(text.encode()) > 10_000:
        text = text[: len(text) * 99 // 100]
    data = text.encode()
    one_pass = min(timeit.repeat(lambda: data.translate(None, b"aeiou"), number=10, repeat=200)) / 10
    best = min(timeit.repeat(lambda: estimate_tokens(text, "gpt-4o"), number=10, repeat=200)) / 10

    # Or, where the machine is slow or busy, ten passes over the text: about 50 µs on an idle one.
    assert best < max(50e-6, 10 * one_pass)


def test_estimating_loads_no_tokenizer() -> None:
    code = (
        "import sys; from agent_meter.tokens import estimate_tokens\n"
        "estimate_tokens('日本 hi', 'gpt-4o'); print('tiktoken' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"

"""The sketches keep the bounds that they state."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_meter.sketches import Distinct, LogHistogram, TopValues

seconds = st.floats(1e-6, 1e6)
few_words = st.lists(st.integers(0, 20).map(str), max_size=300)


def histogram(values: list[float]) -> LogHistogram:
    made = LogHistogram()
    for value in values:
        made.record(value)
    return made


def top_values(words: list[str], capacity: int = 6) -> TopValues:
    made = TopValues(capacity)
    for word in words:
        made.add(word)
    return made


def assert_bounds(values: TopValues, words: list[str]) -> None:
    """What a `TopValues` promises about the words that it was given."""
    truth = Counter(words)
    kept = {word: (low, high) for word, low, high in values.top()}
    assert values.total == len(words)
    assert values.error <= len(words) / (values.capacity // 2)
    assert len(kept) <= values.capacity
    for word, count in truth.items():
        low, high = kept.get(word, (0, values.error))
        assert low <= count <= high


class TestLogHistogram:
    @settings(deadline=None)
    @given(st.lists(seconds, min_size=1, max_size=200), st.floats(0, 1))
    def test_a_quantile_is_within_1_1_percent_of_the_sorted_data(self, values: list[float], q: float):
        exact = sorted(values)[max(math.ceil(q * len(values) - 1e-9), 1) - 1]

        assert histogram(values).quantile(q) == pytest.approx(exact, rel=0.011)

    @settings(deadline=None)
    @given(st.lists(seconds, max_size=50), st.lists(seconds, max_size=50))
    def test_merging_is_recording_both(self, left: list[float], right: list[float]):
        merged = histogram(left)
        merged.merge(histogram(right))

        whole = histogram(left + right)
        assert merged.to_dict() | {"sum": 0} == whole.to_dict() | {"sum": 0}
        assert merged.sum == pytest.approx(whole.sum)

    @settings(deadline=None)
    @given(st.lists(st.floats(0, 1e15), max_size=50))
    def test_it_comes_back_from_json_as_it_was(self, values: list[float]):
        before = histogram(values)

        assert LogHistogram.from_dict(json.loads(json.dumps(before.to_dict()))) == before

    def test_count_min_max_and_both_ends_are_exact(self):
        made = histogram([3.0, 0.25, 7.0, 0.0])

        assert (made.count, made.min, made.max, made.sum) == (4, 0.0, 7.0, 10.25)
        assert (made.quantile(0), made.quantile(1)) == (0.0, 7.0)

    def test_an_empty_one_knows_nothing(self):
        empty = LogHistogram()

        assert (empty.count, empty.sum, empty.min, empty.max, empty.quantile(0.5)) == (0, 0.0, None, None, None)

    def test_below_a_microsecond_the_error_is_absolute_and_above_a_million_the_maximum_answers(self):
        assert histogram([2e-9, 5e-7, 9e-7]).quantile(0.5) == pytest.approx(5e-7, abs=1e-6)
        assert histogram([1.0, 2e7, 3e9]).quantile(0.5) == 3e9

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-9, 1e16])
    def test_what_is_no_amount_is_refused_and_changes_nothing(self, value: float):
        made = histogram([1.0])

        with pytest.raises(ValueError, match="not a number between 0 and 1e"):
            made.record(value)

        assert made == histogram([1.0])

    def test_it_never_has_more_than_1278_buckets(self):
        made = LogHistogram()
        value = 1e-9
        while value < 1e12:
            made.record(value)
            value *= 1.005

        assert len(made.to_dict()["buckets"]) + 1 == 1278

    def test_a_copy_does_not_change_with_the_original(self):
        made = histogram([1.0])
        copy = made.copy()

        made.record(2.0)

        assert copy == histogram([1.0])

    @pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
    def test_a_quantile_outside_0_to_1_is_an_error(self, q: float):
        with pytest.raises(ValueError, match="between 0 and 1"):
            histogram([1.0]).quantile(q)

    def test_a_histogram_of_another_scale_is_not_read(self):
        with pytest.raises(ValueError, match="scale 5 is needed, not 3"):
            LogHistogram.from_dict({**LogHistogram().to_dict(), "scale": 3})


class TestTopValues:
    @settings(deadline=None)
    @given(few_words)
    def test_counts_lie_between_their_bounds(self, words: list[str]):
        assert_bounds(top_values(words), words)

    @settings(deadline=None)
    @given(few_words, few_words, st.integers(2, 9), st.integers(2, 9))
    def test_merged_counts_lie_between_the_bounds_of_the_whole(
        self, left: list[str], right: list[str], one: int, other: int
    ):
        merged = top_values(left, one)
        merged.merge(top_values(right, other))

        truth = Counter(left + right)
        kept = {word: (low, high) for word, low, high in merged.top()}
        assert merged.total == len(left) + len(right)
        assert all(low <= truth[word] <= high for word, (low, high) in kept.items())
        assert all(count <= merged.error for word, count in truth.items() if word not in kept)

    @settings(deadline=None)
    @given(few_words, few_words)
    def test_merging_is_counting_both_as_long_as_there_is_room(self, left: list[str], right: list[str]):
        merged = top_values(left, 64)
        merged.merge(top_values(right, 64))

        assert merged.to_dict() == top_values(left + right, 64).to_dict()

    @pytest.mark.parametrize(("left", "right"), [(20, 2_000), (2_000, 20), (2_000, 2_000), (50, 50)])
    def test_different_ones_are_counted_across_a_merge(self, left: int, right: int):
        merged = top_values([f"left {number}" for number in range(left)], 64)
        merged.merge(top_values([f"right {number}" for number in range(right)], 64))

        assert merged.distinct == pytest.approx(left + right, rel=4 * 0.023)

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 5).map(str)))
    def test_up_to_its_capacity_it_is_exact(self, words: list[str]):
        values = top_values(words, 6)

        assert values.exact
        assert values.distinct == len(set(words))
        assert {word: low for word, low, _ in values.top()} == Counter(words)

    @settings(deadline=None)
    @given(few_words)
    def test_it_comes_back_from_json_as_it_was(self, words: list[str]):
        before = top_values(words)
        after = TopValues.from_dict(json.loads(json.dumps(before.to_dict())))

        for values in (before, after):
            values.add("one more")
        assert after.to_dict() == before.to_dict()

    def test_a_value_that_turns_hot_late_is_found(self):
        values = TopValues()
        for number in range(10_000):
            values.add(f"noise {number}")
        for number in range(2_000):
            values.add("hot")
            values.add(f"more noise {number}")

        word, low, high = values.top(1)[0]

        assert word == "hot"
        assert low <= 2_000 <= high

    def test_a_value_that_is_common_from_the_start_is_counted_exactly(self):
        values = TopValues()
        for number in range(20_000):
            values.add(f"noise {number}")
            if number % 10 == 0:
                values.add("hot")

        assert values.top(1) == [("hot", 2_000, 2_000)]

    def test_there_is_an_example_even_where_nothing_is_common(self):
        values = TopValues(4)
        for number in range(5):
            values.add(str(number))

        assert values.top() == [("4", 1, 1)]

    def test_ties_are_in_the_order_of_the_texts(self):
        assert [word for word, _, _ in top_values(["b", "c", "a", "c"]).top()] == ["c", "a", "b"]

    def test_a_capacity_below_two_is_an_error(self):
        with pytest.raises(ValueError, match="at least 2, not 1"):
            TopValues(1)


class TestDistinct:
    @pytest.mark.parametrize("pattern", ["{}", "user-{:08d}", "{:x}", "https://example.com/page?id={}"])
    @pytest.mark.parametrize("count", [1, 10, 100, 1_000, 5_000, 20_000])
    def test_the_estimate_is_within_four_standard_errors(self, pattern: str, count: int):
        sketch = Distinct()
        for number in range(count):
            sketch.add(pattern.format(number))
            sketch.add(pattern.format(number // 2))

        assert sketch.estimate() == pytest.approx(count, rel=4 * 0.023, abs=2)

    @settings(deadline=None)
    @given(st.sets(st.text(), max_size=100), st.sets(st.text(), max_size=100))
    def test_a_merge_is_what_one_sketch_would_have_seen_of_both(self, left: set[str], right: set[str]):
        one, other, whole = Distinct(), Distinct(), Distinct()
        for sketch, words in ((one, left), (other, right), (whole, left | right)):
            for word in words:
                sketch.add(word)

        one.merge(other)

        assert one.to_hex() == whole.to_hex()

    def test_nothing_is_zero(self):
        assert Distinct().estimate() == 0

    def test_a_lone_surrogate_is_a_text_like_any_other(self):
        sketch = Distinct()
        sketch.add("\udc80")

        assert sketch.estimate() == 1

    def test_registers_of_another_size_are_not_read(self):
        with pytest.raises(ValueError, match="2048 registers are needed, not 2"):
            Distinct.from_hex("0000")

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.bench.quantiles import percentile, ratio, spread

VALUES = st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=1)


def test_percentile_interpolates_between_neighbours():
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([10.0, 20.0], 99) == pytest.approx(19.9)


def test_percentile_of_nothing_is_none():
    assert percentile([], 50) is None


@given(VALUES, st.floats(min_value=0, max_value=100))
def test_percentile_lies_within_the_values(values: list[float], percent: float):
    found = percentile(values, percent)
    assert found is not None
    assert min(values) - 1e-6 <= found <= max(values) + 1e-6


@given(VALUES)
def test_percentile_meets_both_ends(values: list[float]):
    assert percentile(values, 0) == min(values)
    assert percentile(values, 100) == max(values)


def test_spread_leaves_out_runs_that_measured_nothing():
    found = spread([3.0, None, 1.0, 2.0])
    assert found is not None
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)
    assert spread([None, None]) is None


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [(3.0, 2.0, 1.5), (None, 2.0, None), (3.0, None, None), (3.0, 0.0, None)],
)
def test_ratio_is_known_only_where_both_sides_are(value, reference, expected):
    assert ratio(value, reference) == expected

"""What is left, as OpenAI tells it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.edge.quotas.counts import Window
from rayserve_platform.edge.quotas.headers import span, told


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        # OpenAI's documentation has these three.
        (1, "1s"),
        (360, "6m0s"),
        (0.017, "17ms"),
        (0, "0s"),
        (59.5, "59.5s"),
        (7.66, "7.66s"),
        (3600, "1h0m0s"),
        (86_399.999, "23h59m59.999s"),
        (0.9996, "1s"),
    ],
)
def test_a_span_is_written_as_go_writes_it(seconds, text):
    assert span(seconds) == text


UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@given(st.floats(0, 10_000_000))
def test_a_span_says_what_it_was(seconds):
    import re

    parts = re.findall(r"([\d.]+)(ms|h|m|s)", span(seconds))
    assert "".join(number + unit for number, unit in parts) == span(seconds)
    assert sum(float(n) * UNITS[u] for n, u in parts) == pytest.approx(seconds, abs=0.00051)


def test_of_several_limits_the_one_nearest_its_end_is_told():
    def window(used: int, window_s: int) -> Window:
        return Window(previous=0, current=used, left_s=window_s / 2, window_s=window_s)

    headers = told("requests", [(10, window(2, 60)), (1000, window(999, 86_400))])
    assert dict(headers) == {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "36h0m0s",
    }


def test_without_a_limit_nothing_is_told():
    assert told("tokens", []) == []

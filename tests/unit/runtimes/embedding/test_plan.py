"""Which texts go together: the cheapest cut, the oldest text first."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.runtimes.embedding.plan import together

LENGTHS = st.lists(st.integers(1, 256), min_size=1, max_size=40)


def test_texts_of_one_length_all_go_together() -> None:
    assert together([22] * 8, call_tokens=16, limit=512) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_long_text_does_not_pad_short_ones() -> None:
    assert together([8, 250, 8, 8], call_tokens=16, limit=512) == [0, 2, 3]
    assert together([250, 8, 8, 8], call_tokens=16, limit=512) == [0]


def test_a_dear_call_takes_what_there_is() -> None:
    assert together([8, 250, 8, 8], call_tokens=4096, limit=16384) == [0, 1, 2, 3]


def test_a_text_beyond_the_limit_goes_alone() -> None:
    assert together([300, 300, 2], call_tokens=16, limit=256) == [0]


@given(LENGTHS, st.integers(0, 500), st.integers(1, 1024))
def test_the_oldest_is_in_the_batch_and_the_limit_is_kept(lengths, call_tokens, limit) -> None:
    places = together(lengths, call_tokens=call_tokens, limit=limit)
    assert places[0] == 0
    assert places == sorted(set(places))
    width = max(lengths[place] for place in places)
    assert len(places) == 1 or width * len(places) <= limit


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(0, 80))
def test_the_batch_is_one_of_the_cheapest_cut(lengths, call_tokens) -> None:
    """Every way to cut the sorted lengths is tried; the limit is out of reach."""
    ordered = sorted(set(lengths))

    def cost(cuts: tuple[int, ...]) -> int:
        ends = [*cuts, len(ordered)]
        total = 0
        for begin, end in zip([0, *cuts], ends, strict=True):
            inside = [n for n in lengths if ordered[begin] <= n <= ordered[end - 1]]
            total += call_tokens + len(inside) * ordered[end - 1]
        return total

    ways = [
        cuts
        for count in range(len(ordered))
        for cuts in combinations(range(1, len(ordered)), count)
    ]
    best = min(map(cost, ways))
    batch = {lengths[i] for i in together(lengths, call_tokens=call_tokens, limit=10**6)}
    begin, end = ordered.index(min(batch)), ordered.index(max(batch)) + 1
    assert batch == set(ordered[begin:end])
    assert any(
        cost(cuts) == best
        and begin in (0, *cuts)
        and end in (*cuts, len(ordered))
        and not any(begin < cut < end for cut in cuts)
        for cuts in ways
    )

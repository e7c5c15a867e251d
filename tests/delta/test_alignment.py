"""The alignment of two lines of tokens, and its budget."""

import time
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from graphkit.delta import alignment

TOKENS = st.lists(st.integers(0, 4), max_size=30)


def longest(a, b):
    """Length of a longest common subsequence, by the table that every textbook has."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = row
        row = [0]
        for j, y in enumerate(b):
            row.append(before[j] + 1 if x == y else max(before[j + 1], row[-1]))
    return row[-1]


@settings(max_examples=200, deadline=None)
@given(a=TOKENS, b=TOKENS)
def test_it_finds_a_longest_common_subsequence(a, b):
    pairs, complete = alignment.myers(a, b, [10**6])
    assert complete
    assert all(a[x] == b[y] for x, y in pairs)
    assert all(x < u and y < v for (x, y), (u, v) in pairwise(pairs))
    assert len(pairs) == longest(a, b)


def test_what_has_nothing_in_common_ends_within_the_budget():
    started = time.process_time()
    pairs, complete = alignment.myers(list(range(50_000)), list(range(50_000, 100_000)), [300_000])
    assert (pairs, complete) == ([], False)
    assert time.process_time() - started < 3


def test_past_the_limit_of_edits_most_is_still_found(monkeypatch):
    monkeypatch.setattr(alignment, "MOST_EDITS", 20)
    a = list(range(1000))
    b = [token for token in a if token % 10]
    pairs, complete = alignment.myers(a, b, [10**6])
    assert not complete
    assert len(pairs) > 850
    assert all(a[x] == b[y] for x, y in pairs)

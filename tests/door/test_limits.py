"""Token buckets: never more than burst + rate · time, never less when the caller keeps to the rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.door.limits import KEYS, Buckets, neighbourhood


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.1, 50),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 2), max_size=60),
)
def test_no_more_than_burst_and_rate_allow(rate, burst, gaps) -> None:
    """Two independent bounds: over any stretch at most burst + rate · seconds, and after the wait it gave, one."""
    clock = Clock()
    buckets = Buckets(rate, burst, clock)
    granted = []
    for gap in gaps:
        clock.now += gap
        wait = buckets.take("a")
        assert (wait == 0) or 0 < wait <= 1 / rate + 1e-9
        if wait == 0:
            granted.append(clock.now)
    for first, begin in enumerate(granted):
        for last in range(first, len(granted)):
            assert last - first + 1 <= burst + rate * (granted[last] - begin) + 1e-6


@given(rate=st.floats(0.1, 50), burst=st.integers(1, 20))
def test_a_refused_caller_who_waits_as_told_gets_in(rate, burst) -> None:
    clock = Clock()
    buckets = Buckets(rate, burst, clock)
    for _ in range(burst):
        assert buckets.take("a") == 0
    for _ in range(5):
        wait = buckets.take("a")
        assert wait > 0
        assert buckets.take("b") == 0 or burst == 1  # nobody else pays for it
        clock.now += wait * (1 + 1e-9)
        assert buckets.take("a") == 0


def test_callers_are_forgotten_before_they_fill_the_memory() -> None:
    clock = Clock()
    buckets = Buckets(0.001, 1, clock)
    for number in range(KEYS + 500):
        buckets.take(str(number))
    assert len(buckets) == KEYS
    assert buckets.take(str(KEYS + 499)) > 0  # the latest are remembered
    assert buckets.take("0") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::1", True),
    ],
)
def test_addresses_that_one_host_may_choose_among_count_as_one(one, other, same) -> None:
    assert (neighbourhood(one) == neighbourhood(other)) == same

"""The times of a lease, from its holder's side."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclocker.lock.client.lease import Lease


def times(lease: Lease) -> tuple[float, ...]:
    return lease.renew_at, lease.stop_at, lease.kill_at, lease.expires_at


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (3.0, (101, 102, 102, 103)),
        (6.0, (102, 104, 105, 106)),
        (30.0, (110, 120, 127, 130)),
        (600, (300, 500, 640, 700)),
    ],
)
def test_its_times(seconds: float, expected: tuple[float, ...]) -> None:
    assert times(Lease(seconds, 100.0)) == pytest.approx(expected)


def test_it_counts_from_when_the_last_good_renewal_was_sent() -> None:
    lease = Lease(30.0, 100.0)
    lease.renewed(110.0)
    assert times(lease) == pytest.approx((120, 130, 137, 140))
    lease.renewed(105.0)  # an answer that was overtaken by another
    assert times(lease) == pytest.approx((120, 130, 137, 140))


@pytest.mark.parametrize(("now", "end_at", "kill_at"), [(111.0, 111, 121), (119.0, 119, 127), (128.0, 120, 127)])
def test_once_it_is_to_end_it_is_not_renewed(now: float, end_at: float, kill_at: float) -> None:
    lease = Lease(30.0, 100.0)
    lease.end(now)
    lease.renewed(125.0)
    assert times(lease) == pytest.approx((inf, end_at, kill_at, 130))


@given(st.floats(3, 1e6), st.floats(0, 1e6), st.lists(st.floats(0, 1e6), max_size=5))
def test_what_it_protects_is_over_before_it_is(seconds: float, sent: float, renewals: list[float]) -> None:
    lease = Lease(seconds, sent)
    for renewal in renewals:
        lease.renewed(renewal)
    assert lease.renew_at < lease.stop_at <= lease.kill_at + 1e-9 * lease.expires_at
    assert lease.kill_at <= lease.expires_at - 0.999
    assert lease.expires_at == max(sent, *renewals, sent) + seconds

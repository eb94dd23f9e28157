"""Faults of a lockerd on etcd that a crowd meets too seldom: each is found by a test that was written for it."""

from __future__ import annotations

import pytest

from ..support import PROJECT
from .planting import is_found_by

_REPLICA = "tests/lock/server/test_replica.py::"
_COMMIT = "tests/lock/server/test_group_commit.py::"
_STORE = "tests/lock/storage/test_etcd_store.py::"


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("term_not_compared", f"{_REPLICA}test_a_batch_of_a_term_that_is_over_is_not_written"),
        ("term_left_out", f"{_STORE}test_what_was_committed_is_there_in_the_next_term"),
        ("counter_not_compared", f"{_STORE}test_a_try_that_comes_late_changes_nothing_any_more"),
        (
            "round_in_flight_counts",
            f"{_COMMIT}test_who_is_told_that_he_holds_a_lock_waits_for_a_round_that_is_begun_after_he_asked[CHECK x 1]",
        ),
        ("no_round", f"{_REPLICA}test_after_the_lease_was_revoked_nobody_is_told_that_he_holds_a_lock[CHECK]"),
        ("time_not_restarted", f"{_COMMIT}test_a_restart_finds_the_same_holders_with_their_time_anew"),
        ("no_last_word", f"{_REPLICA}test_a_classic_waiter_is_told_before_its_connection_ends[revoked]"),
    ],
)
def test_it_is_found(fault: str, test: str) -> None:
    assert (PROJECT / test.split("::")[0]).exists()
    assert is_found_by(fault, test)

"""Whose turn it is to be asked after, on a fake clock."""

from __future__ import annotations

from collections import Counter
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from ipclocker.lock.model import HolderProcess
from ipclocker.lock.server.poll_schedule import BUDGET, REPEAT, PollSchedule


def process(number: int) -> HolderProcess:
    return HolderProcess(b"h", number, None, b"", None, "192.0.2.1")


def looks(rounds: PollSchedule, start: float, end: float) -> list[tuple[float, HolderProcess]]:
    """All looks between two times, each at the moment when the rounds ask to be called."""
    found = []
    while rounds.next_due <= end:
        now = max(start, rounds.next_due)
        due = rounds.due(now)
        assert due is not None
        found.append((now, due))
    return found


def test_nobody_is_looked_at_before_there_is_somebody() -> None:
    rounds = PollSchedule()
    assert rounds.next_due == inf
    assert rounds.due(1e9) is None


def test_each_is_looked_at_every_two_seconds() -> None:
    rounds = PollSchedule()
    for number in range(20):
        rounds.add(process(number), now=100.0)
    seen = looks(rounds, 100.0, 130.0)
    for number in range(20):
        times = [when for when, who in seen if who == process(number)]
        assert times[0] <= 100.0 + REPEAT + 20 / BUDGET
        assert all(after - before <= REPEAT + 20 / BUDGET for before, after in zip(times, times[1:]))


@given(count=st.integers(1, 1000), hurried=st.lists(st.integers(0, 999), max_size=300))
def test_the_budget_holds_and_all_have_their_turn(count: int, hurried: list[int]) -> None:
    rounds = PollSchedule()
    for number in range(count):
        rounds.add(process(number), now=0.0)
    for number in hurried:
        rounds.check_soon(process(number % count))
    end = REPEAT + (count + len(hurried)) / BUDGET + 1
    seen = looks(rounds, 0.0, end)
    times = [when for when, _ in seen]
    assert all(times[k + BUDGET] - times[k] >= 1 - 1e-6 for k in range(len(times) - BUDGET))
    assert {who for _, who in seen} == {process(number) for number in range(count)}


def test_one_in_a_hurry_goes_in_front_once() -> None:
    rounds = PollSchedule()
    for number in range(50):
        rounds.add(process(number), now=0.0)
    rounds.check_soon(process(30))
    assert rounds.due(0.1) == process(30)
    assert rounds.due(0.1) is None, "the others are not due yet"
    assert Counter(who for _, who in looks(rounds, 0.2, REPEAT + 0.6))[process(30)] == 1


def test_one_that_was_removed_is_not_looked_at() -> None:
    rounds = PollSchedule()
    rounds.add(process(1), now=0.0)
    rounds.check_soon(process(1))
    rounds.remove(process(1))
    rounds.check_soon(process(1))
    assert rounds.next_due == inf
    assert process(1) not in rounds
    assert len(rounds) == 0

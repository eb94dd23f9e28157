"""The pauses between restarts, on a clock that the test moves."""

from __future__ import annotations

import pytest

from ipclocker.errors import UsageError
from ipclocker.process.restart_policy import SPREAD, GiveUp, RestartPolicy, parse_give_up, shortest


def never() -> float:
    return 0.0


def quick_deaths(policy: RestartPolicy, count: int, now: float = 0.0) -> list[float]:
    """The pauses after that many deaths, each 0.01 s after its start."""
    pauses = []
    for _ in range(count):
        policy.started(now)
        now += 0.01
        pauses.append(policy.died(now))
        now += pauses[-1]
    return pauses


def test_pauses_double_up_to_the_cap() -> None:
    policy = RestartPolicy(never, first_pause=0.1, longest_pause=30.0)
    assert quick_deaths(policy, 11) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])


def test_a_good_run_is_answered_with_the_first_pause() -> None:
    policy = RestartPolicy(never, good_run=60.0)
    quick_deaths(policy, 8)
    policy.started(1000.0)
    assert policy.died(1060.0) == pytest.approx(0.1)
    policy.started(1061.0)
    assert policy.died(1061.1) == pytest.approx(0.2)


def test_a_run_just_short_of_good_is_not_forgiven() -> None:
    policy = RestartPolicy(never, good_run=60.0)
    quick_deaths(policy, 3)
    policy.started(1000.0)
    assert policy.died(1059.9) == pytest.approx(0.8)


def test_a_start_that_failed_counts_as_a_quick_death() -> None:
    policy = RestartPolicy(never, good_run=60.0)
    policy.started(0.0)
    assert policy.died(1.0) == pytest.approx(0.1)
    # However late it is tried and fails: the start before was another life.
    assert policy.died(1000.0) == pytest.approx(0.2)


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_chance_shortens_a_pause_a_little_and_never_goes_over_the_cap(chance: float) -> None:
    exact = quick_deaths(RestartPolicy(never), 12)
    spread = quick_deaths(RestartPolicy(lambda: chance), 12)
    for wanted, pause in zip(exact, spread):
        assert wanted * (1 - SPREAD) <= pause <= wanted


def test_it_is_given_up_after_so_many_deaths_in_so_many_seconds() -> None:
    policy = RestartPolicy(never, give_up=GiveUp(3, 10.0))
    assert not policy.given_up
    for now, given_up in ((0.0, False), (9.0, False), (10.5, False), (18.0, True)):
        policy.started(now - 0.1)
        policy.died(now)
        assert policy.given_up is given_up, now


def test_one_death_can_be_enough() -> None:
    policy = RestartPolicy(never, give_up=GiveUp(1, 1.0))
    policy.started(0.0)
    policy.died(1000.0)
    assert policy.given_up


def test_deaths_that_are_far_enough_apart_are_never_too_many() -> None:
    policy = RestartPolicy(never, give_up=GiveUp(2, 10.0))
    for now in range(0, 1100, 11):
        policy.started(now)
        policy.died(now)
        assert not policy.given_up


def test_it_is_never_given_up_unless_asked_for() -> None:
    policy = RestartPolicy(never)
    quick_deaths(policy, 1000)
    assert not policy.given_up


def test_what_is_forgotten_counts_no_more() -> None:
    policy = RestartPolicy(never, give_up=GiveUp(2, 10.0))
    quick_deaths(policy, 2)
    assert policy.given_up
    policy.reset()
    assert not policy.given_up
    assert quick_deaths(policy, 1) == pytest.approx([0.1])
    assert not policy.given_up


@pytest.mark.parametrize(("deaths", "seconds"), [(1, 0.0), (2, 0.08), (5, 1.2), (11, 0.8 * 81.1)])
def test_the_pauses_alone_take_a_time(deaths: int, seconds: float) -> None:
    """It is that of the quickest deaths with the shortest pauses: 0.1, 0.2, 0.4, ... up to 30 s, each a fifth less."""
    assert shortest(deaths) == pytest.approx(seconds)


def test_the_least_time_can_be_reached() -> None:
    seconds = shortest(4)
    policy = RestartPolicy(lambda: 1.0, give_up=GiveUp(4, seconds + 0.001))
    now = 0.0
    for _ in range(4):
        assert not policy.given_up
        policy.started(now)
        now += policy.died(now)
    assert policy.given_up


def test_when_to_give_up_is_written_with_a_slash() -> None:
    assert parse_give_up("5/10") == GiveUp(5, 10.0)
    assert parse_give_up("1000/0.5") == GiveUp(1000, 0.5)
    assert str(GiveUp(5, 10.0)) == "5/10"


@pytest.mark.parametrize(
    "text", ["", "5", "/", "5/", "/5", "0/5", "-1/5", "5/0", "5/-1", "5/inf", "5/nan", "1001/5", "x/5"]
)
def test_what_does_not_say_when_to_give_up(text: str) -> None:
    with pytest.raises(UsageError, match=f"'{text}' does not say when to give up"):
        parse_give_up(text)

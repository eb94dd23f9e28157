"""The pauses between restarts, on a clock that the test moves."""

from __future__ import annotations

import pytest

from ipclocker.supervise.policy import SPREAD, RestartPolicy


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

"""The life of one program, on a clock that the test moves: by examples, and whatever happens to it."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ipclocker.process.restart_policy import GiveUp, RestartPolicy
from ipclocker.supervise.state_machine import (
    ABANDON,
    BACKOFF,
    FATAL,
    KILL,
    KILL_PATIENCE,
    RUNNING,
    STANDBY,
    START,
    STARTING,
    STOPPED,
    STOPPING,
    TERMINATE,
    UP_AFTER,
    ProgramStateMachine,
)

STOP_TIMEOUT = 10.0


def new_life(give_up: GiveUp | None = None, allowed: bool = True) -> ProgramStateMachine:
    return ProgramStateMachine(RestartPolicy(lambda: 0.0, give_up=give_up), stop_timeout=STOP_TIMEOUT, allowed=allowed)


def running(life: ProgramStateMachine, now: float = 0.0) -> ProgramStateMachine:
    assert life.start(now) == [START]
    life.started(now)
    life.tick(now + UP_AFTER)
    assert life.state == RUNNING
    return life


def test_it_starts_and_is_up_after_a_second() -> None:
    life = new_life()
    assert (life.state, life.due) == (STOPPED, inf)
    assert life.start(5.0) == [START]
    life.started(5.0)
    assert (life.state, life.due) == (STARTING, 5.0 + UP_AFTER)
    assert life.tick(5.5) == [] and life.state == STARTING
    assert life.tick(life.due) == [] and life.state == RUNNING
    assert life.due == inf


def test_a_death_is_followed_by_a_pause_and_a_start() -> None:
    life = running(new_life())
    assert life.died(3.0, left=False) == []
    assert life.state == BACKOFF and life.due == pytest.approx(3.1)
    assert life.tick(3.05) == []
    assert life.tick(3.2) == [START]
    life.started(3.2)
    assert life.starts == 2


def test_a_start_that_fails_is_tried_again() -> None:
    life = new_life()
    assert life.start(0.0) == [START]
    assert life.failed(0.0) == []
    assert life.state == BACKOFF and life.due == pytest.approx(0.1)
    assert life.tick(0.1) == [START]
    assert life.failed(0.1) == []
    assert life.due == pytest.approx(0.3)


def test_what_a_dead_one_has_left_is_ended_before_it_is_started_again() -> None:
    life = running(new_life())
    assert life.died(3.0, left=True) == [TERMINATE]
    assert (life.state, life.due) == (BACKOFF, 3.0 + STOP_TIMEOUT)
    assert life.tick(3.2) == []
    assert life.tick(13.0) == [KILL]
    assert life.cleared(13.1) == [START]


def test_stopped_it_ends_and_stays_so() -> None:
    life = running(new_life())
    assert life.stop(5.0) == [TERMINATE]
    assert (life.state, life.due) == (STOPPING, 15.0)
    assert life.died(6.0, left=False) == []
    assert (life.state, life.due) == (STOPPED, inf)


def test_one_that_does_not_end_is_killed_again_and_again_and_then_left() -> None:
    life = running(new_life())
    life.stop(5.0)
    assert life.tick(14.9) == []
    now = life.due
    killed = 0
    while life.state == STOPPING:
        actions = life.tick(now)
        killed += actions.count(KILL)
        now = min(life.due, now + 10)
    assert actions == [ABANDON]
    assert killed > 5
    assert now - 15.0 >= KILL_PATIENCE
    assert life.state == STOPPED


def test_restarted_it_ends_and_starts_at_once() -> None:
    life = running(new_life())
    assert life.restart(5.0) == [TERMINATE]
    assert life.start(5.5) == [] and life.state == STOPPING
    assert life.died(6.0, left=True) == []
    assert life.state == STOPPING
    assert life.cleared(7.0) == [START]


def test_a_stop_goes_before_a_restart_that_is_under_way() -> None:
    life = running(new_life())
    life.restart(5.0)
    assert life.stop(5.5) == []
    assert life.died(6.0, left=False) == []
    assert life.state == STOPPED


def test_told_to_start_it_does_not_wait_for_its_pause() -> None:
    life = running(new_life())
    for _ in range(3):
        life.died(3.0, left=False)
        assert life.state == BACKOFF
        assert life.start(3.0) == [START]
        life.started(3.0)
    life.died(3.0, left=False)
    assert life.due == pytest.approx(3.1)  # earlier deaths were forgotten


def test_one_that_dies_too_often_is_fatal_until_somebody_starts_it() -> None:
    life = running(new_life(GiveUp(2, 10.0)))
    life.died(3.0, left=False)
    assert life.tick(4.0) == [START]
    life.started(4.0)
    assert life.died(4.1, left=True) == [TERMINATE]
    assert life.state == FATAL
    assert life.cleared(4.2) == []
    assert (life.state, life.due) == (FATAL, inf)
    assert life.start(100.0) == [START]
    life.started(100.0)
    life.died(101.0, left=False)
    assert life.state == BACKOFF


def test_a_fatal_one_can_be_stopped() -> None:
    life = running(new_life(GiveUp(1, 10.0)))
    life.died(3.0, left=False)
    assert life.state == FATAL
    assert life.stop(4.0) == []
    assert life.state == STOPPED


def test_stopped_in_its_pause_it_is_stopped() -> None:
    life = running(new_life())
    life.died(3.0, left=False)
    assert life.stop(3.05) == []
    assert (life.state, life.due) == (STOPPED, inf)


def test_it_stands_by_until_it_may_run() -> None:
    life = new_life(allowed=False)
    assert life.start(0.0) == []
    assert life.state == STANDBY
    assert life.allow(5.0) == [START]
    life.started(5.0)
    assert life.forbid(10.0, 12.0) == [TERMINATE]
    assert (life.state, life.due) == (STOPPING, 12.0)  # sooner than the stop timeout
    assert life.tick(12.0) == [KILL]
    assert life.died(12.1, left=False) == []
    assert life.state == STANDBY


def test_a_right_that_is_lost_hurries_an_end_that_is_under_way() -> None:
    life = running(new_life())
    life.stop(5.0)
    assert life.forbid(6.0, 8.0) == []
    assert life.due == 8.0
    life = running(new_life())
    life.died(5.0, left=True)
    assert life.forbid(6.0, 8.0) == []
    assert (life.state, life.due) == (STOPPING, 8.0)
    assert life.allow(7.0) == []
    assert life.cleared(7.5) == [START]


class AnyLife(RuleBasedStateMachine):
    """Whatever is wanted and whatever happens: there are never two of it, and in the end it is as it was wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.life = new_life(GiveUp(4, 30.0))
        self.alive = False
        self.left = False
        self.wanted = False
        self.allowed = True
        self.told_to_end = False
        self.fails = False

    def do(self, actions: list[str]) -> None:
        for action in actions:
            if action == START:
                assert not self.alive and not self.left, "there would be two of it"
                assert self.wanted and self.allowed
                if self.fails:
                    self.do(self.life.failed(self.now))
                else:
                    self.alive, self.told_to_end = True, False
                    self.life.started(self.now)
            elif action == TERMINATE:
                assert self.alive or self.left
                self.told_to_end = True
            elif action == KILL:
                assert self.told_to_end, "it had no chance to end by itself"
            elif action == ABANDON:
                self.alive = self.left = False

    @rule()
    def start(self) -> None:
        self.wanted = True
        self.do(self.life.start(self.now))

    @rule()
    def stop(self) -> None:
        self.wanted = False
        self.do(self.life.stop(self.now))

    @rule()
    def restart(self) -> None:
        self.wanted = True
        self.do(self.life.restart(self.now))

    @rule(within=st.floats(0.0, 20.0))
    def forbid(self, within: float) -> None:
        self.allowed = False
        self.do(self.life.forbid(self.now, self.now + within))

    @rule()
    def allow(self) -> None:
        self.allowed = True
        self.do(self.life.allow(self.now))

    @rule(fails=st.booleans())
    def starts_fail(self, fails: bool) -> None:
        self.fails = fails

    @precondition(lambda self: self.alive)
    @rule(left=st.booleans())
    def die(self, left: bool) -> None:
        self.alive, self.left = False, left
        self.do(self.life.died(self.now, left))

    @precondition(lambda self: self.left)
    @rule()
    def clear(self) -> None:
        self.left = False
        self.do(self.life.cleared(self.now))

    @rule(seconds=st.one_of(st.floats(0.0, 1.0), st.floats(0.0, 100.0)))
    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.life.due <= until:
            self.now = max(self.now, self.life.due)
            self.do(self.life.tick(self.now))
        self.now = until

    @invariant()
    def it_says_how_it_is(self) -> None:
        state = self.life.state
        assert (self.life.alive, self.life.has_orphans) == (self.alive, self.left)
        if state in (STARTING, RUNNING):
            assert self.alive and self.wanted and self.allowed
        elif state == STOPPING:
            assert self.alive or self.left
        else:
            assert not self.alive
        if state == STANDBY:
            assert self.wanted and not self.allowed
        if state == STOPPED:
            assert not self.wanted and not self.left
        if self.alive and state == STOPPING:
            assert self.life.due < inf, "nobody would ever kill it"
        if self.left or state == BACKOFF:
            assert self.life.due < inf, "nothing would ever come next"

    def teardown(self) -> None:
        """If it lives on and starts well, it soon is as it was wanted."""
        self.fails = False
        self.pass_time(100.0)
        if self.left or (self.alive and self.life.state == STOPPING):
            self.alive = self.left = False
        expected = {STOPPED, FATAL} if not self.wanted else {RUNNING, FATAL} if self.allowed else {STANDBY, FATAL}
        assert self.life.state in expected


AnyLife.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestAnyLife = AnyLife.TestCase

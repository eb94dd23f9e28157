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


def running(machine: ProgramStateMachine, now: float = 0.0) -> ProgramStateMachine:
    assert machine.start(now) == [START]
    machine.started(now)
    machine.tick(now + UP_AFTER)
    assert machine.state == RUNNING
    return machine


def test_it_starts_and_is_up_after_a_second() -> None:
    machine = new_life()
    assert (machine.state, machine.due) == (STOPPED, inf)
    assert machine.start(5.0) == [START]
    machine.started(5.0)
    assert (machine.state, machine.due) == (STARTING, 5.0 + UP_AFTER)
    assert machine.tick(5.5) == [] and machine.state == STARTING
    assert machine.tick(machine.due) == [] and machine.state == RUNNING
    assert machine.due == inf


def test_a_death_is_followed_by_a_pause_and_a_start() -> None:
    machine = running(new_life())
    assert machine.died(3.0, left=False) == []
    assert machine.state == BACKOFF and machine.due == pytest.approx(3.1)
    assert machine.tick(3.05) == []
    assert machine.tick(3.2) == [START]
    machine.started(3.2)
    assert machine.starts == 2


def test_a_start_that_fails_is_tried_again() -> None:
    machine = new_life()
    assert machine.start(0.0) == [START]
    assert machine.failed(0.0) == []
    assert machine.state == BACKOFF and machine.due == pytest.approx(0.1)
    assert machine.tick(0.1) == [START]
    assert machine.failed(0.1) == []
    assert machine.due == pytest.approx(0.3)


def test_what_a_dead_one_has_left_is_ended_before_it_is_started_again() -> None:
    machine = running(new_life())
    assert machine.died(3.0, left=True) == [TERMINATE]
    assert (machine.state, machine.due) == (BACKOFF, 3.0 + STOP_TIMEOUT)
    assert machine.tick(3.2) == []
    assert machine.tick(13.0) == [KILL]
    assert machine.cleared(13.1) == [START]


def test_stopped_it_ends_and_stays_so() -> None:
    machine = running(new_life())
    assert machine.stop(5.0) == [TERMINATE]
    assert (machine.state, machine.due) == (STOPPING, 15.0)
    assert machine.died(6.0, left=False) == []
    assert (machine.state, machine.due) == (STOPPED, inf)


def test_one_that_does_not_end_is_killed_again_and_again_and_then_left() -> None:
    machine = running(new_life())
    machine.stop(5.0)
    assert machine.tick(14.9) == []
    now = machine.due
    killed = 0
    while machine.state == STOPPING:
        actions = machine.tick(now)
        killed += actions.count(KILL)
        now = min(machine.due, now + 10)
    assert actions == [ABANDON]
    assert killed > 5
    assert now - 15.0 >= KILL_PATIENCE
    assert machine.state == STOPPED


def test_restarted_it_ends_and_starts_at_once() -> None:
    machine = running(new_life())
    assert machine.restart(5.0) == [TERMINATE]
    assert machine.start(5.5) == [] and machine.state == STOPPING
    assert machine.died(6.0, left=True) == []
    assert machine.state == STOPPING
    assert machine.cleared(7.0) == [START]


def test_a_stop_goes_before_a_restart_that_is_under_way() -> None:
    machine = running(new_life())
    machine.restart(5.0)
    assert machine.stop(5.5) == []
    assert machine.died(6.0, left=False) == []
    assert machine.state == STOPPED


def test_told_to_start_it_does_not_wait_for_its_pause() -> None:
    machine = running(new_life())
    for _ in range(3):
        machine.died(3.0, left=False)
        assert machine.state == BACKOFF
        assert machine.start(3.0) == [START]
        machine.started(3.0)
    machine.died(3.0, left=False)
    assert machine.due == pytest.approx(3.1)  # earlier deaths were forgotten


def test_one_that_dies_too_often_is_fatal_until_somebody_starts_it() -> None:
    machine = running(new_life(GiveUp(2, 10.0)))
    machine.died(3.0, left=False)
    assert machine.tick(4.0) == [START]
    machine.started(4.0)
    assert machine.died(4.1, left=True) == [TERMINATE]
    assert machine.state == FATAL
    assert machine.cleared(4.2) == []
    assert (machine.state, machine.due) == (FATAL, inf)
    assert machine.start(100.0) == [START]
    machine.started(100.0)
    machine.died(101.0, left=False)
    assert machine.state == BACKOFF


def test_a_fatal_one_can_be_stopped() -> None:
    machine = running(new_life(GiveUp(1, 10.0)))
    machine.died(3.0, left=False)
    assert machine.state == FATAL
    assert machine.stop(4.0) == []
    assert machine.state == STOPPED


def test_stopped_in_its_pause_it_is_stopped() -> None:
    machine = running(new_life())
    machine.died(3.0, left=False)
    assert machine.stop(3.05) == []
    assert (machine.state, machine.due) == (STOPPED, inf)


def test_it_stands_by_until_it_may_run() -> None:
    machine = new_life(allowed=False)
    assert machine.start(0.0) == []
    assert machine.state == STANDBY
    assert machine.allow(5.0) == [START]
    machine.started(5.0)
    assert machine.forbid(10.0, 12.0) == [TERMINATE]
    assert (machine.state, machine.due) == (STOPPING, 12.0)  # sooner than the stop timeout
    assert machine.tick(12.0) == [KILL]
    assert machine.died(12.1, left=False) == []
    assert machine.state == STANDBY


def test_a_right_that_is_lost_hurries_an_end_that_is_under_way() -> None:
    machine = running(new_life())
    machine.stop(5.0)
    assert machine.forbid(6.0, 8.0) == []
    assert machine.due == 8.0
    machine = running(new_life())
    machine.died(5.0, left=True)
    assert machine.forbid(6.0, 8.0) == []
    assert (machine.state, machine.due) == (STOPPING, 8.0)
    assert machine.allow(7.0) == []
    assert machine.cleared(7.5) == [START]


class AnyLife(RuleBasedStateMachine):
    """Whatever is wanted and whatever happens: there are never two of it, and in the end it is as it was wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.machine = new_life(GiveUp(4, 30.0))
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
                    self.do(self.machine.failed(self.now))
                else:
                    self.alive, self.told_to_end = True, False
                    self.machine.started(self.now)
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
        self.do(self.machine.start(self.now))

    @rule()
    def stop(self) -> None:
        self.wanted = False
        self.do(self.machine.stop(self.now))

    @rule()
    def restart(self) -> None:
        self.wanted = True
        self.do(self.machine.restart(self.now))

    @rule(within=st.floats(0.0, 20.0))
    def forbid(self, within: float) -> None:
        self.allowed = False
        self.do(self.machine.forbid(self.now, self.now + within))

    @rule()
    def allow(self) -> None:
        self.allowed = True
        self.do(self.machine.allow(self.now))

    @rule(fails=st.booleans())
    def starts_fail(self, fails: bool) -> None:
        self.fails = fails

    @precondition(lambda self: self.alive)
    @rule(left=st.booleans())
    def die(self, left: bool) -> None:
        self.alive, self.left = False, left
        self.do(self.machine.died(self.now, left))

    @precondition(lambda self: self.left)
    @rule()
    def clear(self) -> None:
        self.left = False
        self.do(self.machine.cleared(self.now))

    @rule(seconds=st.one_of(st.floats(0.0, 1.0), st.floats(0.0, 100.0)))
    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.machine.due <= until:
            self.now = max(self.now, self.machine.due)
            self.do(self.machine.tick(self.now))
        self.now = until

    @invariant()
    def it_says_how_it_is(self) -> None:
        state = self.machine.state
        assert (self.machine.alive, self.machine.has_orphans) == (self.alive, self.left)
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
            assert self.machine.due < inf, "nobody would ever kill it"
        if self.left or state == BACKOFF:
            assert self.machine.due < inf, "nothing would ever come next"

    def teardown(self) -> None:
        """If it lives on and starts well, it soon is as it was wanted."""
        self.fails = False
        self.pass_time(100.0)
        if self.left or (self.alive and self.machine.state == STOPPING):
            self.alive = self.left = False
        expected = {STOPPED, FATAL} if not self.wanted else {RUNNING, FATAL} if self.allowed else {STANDBY, FATAL}
        assert self.machine.state in expected


AnyLife.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestAnyLife = AnyLife.TestCase

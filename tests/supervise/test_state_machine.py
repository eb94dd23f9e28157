"""The states of one program, on a clock that the test moves: by examples, pair by pair, and in any order of events."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ipclocker.process.restart_policy import GiveUp, RestartPolicy
from ipclocker.supervise.state_machine import (
    ABANDON,
    ALLOW,
    BACKOFF,
    BACKOFF_ORPHANS,
    EXITED,
    EXITED_WITH_ORPHANS,
    FATAL,
    FATAL_ORPHANS,
    FORBID,
    KILL,
    KILL_PATIENCE,
    KILL_TIMEOUT,
    LAUNCH,
    LAUNCHING,
    NEXT,
    ORPHANS_GONE,
    PAUSE_OVER,
    RESTART,
    RUNNING,
    SAME,
    STANDBY,
    START,
    START_FAILED,
    STARTED,
    STARTING,
    STOP,
    STOP_TIMEOUT,
    STOPPED,
    STOPPING,
    STOPPING_ORPHANS,
    TERMINATE,
    TOO_MANY_EXITS,
    TRANSITIONS,
    UP,
    UP_AFTER,
    UP_LONG_ENOUGH,
    ProgramStateMachine,
    UnexpectedEvent,
)

TIMEOUT = 10.0  # from the stop signal to SIGKILL


def new_machine(give_up: GiveUp | None = None, allowed: bool = True) -> ProgramStateMachine:
    return ProgramStateMachine(RestartPolicy(lambda: 0.0, give_up=give_up), stop_timeout=TIMEOUT, allowed=allowed)


def running(machine: ProgramStateMachine, now: float = 0.0) -> ProgramStateMachine:
    assert machine.handle(START, now) == [LAUNCH]
    machine.handle(STARTED, now)
    machine.tick(now + UP_AFTER)
    assert machine.state == RUNNING
    return machine


def test_it_starts_and_is_up_after_a_second() -> None:
    machine = new_machine()
    assert (machine.state, machine.due) == (STOPPED, inf)
    assert machine.handle(START, 5.0) == [LAUNCH]
    machine.handle(STARTED, 5.0)
    assert (machine.state, machine.due) == (STARTING, 5.0 + UP_AFTER)
    assert machine.tick(5.5) == [] and machine.state == STARTING
    assert machine.tick(machine.due) == [] and machine.state == RUNNING
    assert machine.due == inf


def test_a_death_is_followed_by_a_pause_and_a_start() -> None:
    machine = running(new_machine())
    assert machine.handle(EXITED, 3.0) == []
    assert machine.state == BACKOFF and machine.due == pytest.approx(3.1)
    assert machine.tick(3.05) == []
    assert machine.tick(3.2) == [LAUNCH]
    machine.handle(STARTED, 3.2)
    assert machine.starts == 2


def test_a_start_that_fails_is_tried_again() -> None:
    machine = new_machine()
    assert machine.handle(START, 0.0) == [LAUNCH]
    assert machine.handle(START_FAILED, 0.0) == []
    assert machine.state == BACKOFF and machine.due == pytest.approx(0.1)
    assert machine.tick(0.1) == [LAUNCH]
    assert machine.handle(START_FAILED, 0.1) == []
    assert machine.due == pytest.approx(0.3)


def test_what_a_dead_one_has_left_is_ended_before_it_is_started_again() -> None:
    machine = running(new_machine())
    assert machine.handle(EXITED_WITH_ORPHANS, 3.0) == [TERMINATE]
    assert (machine.state, machine.due) == (BACKOFF, 3.0 + TIMEOUT)
    assert machine.tick(3.2) == []
    assert machine.tick(13.0) == [KILL]
    assert machine.handle(ORPHANS_GONE, 13.1) == [LAUNCH]


def test_stopped_it_ends_and_stays_so() -> None:
    machine = running(new_machine())
    assert machine.handle(STOP, 5.0) == [TERMINATE]
    assert (machine.state, machine.due) == (STOPPING, 15.0)
    assert machine.handle(EXITED, 6.0) == []
    assert (machine.state, machine.due) == (STOPPED, inf)


def test_one_that_does_not_end_is_killed_again_and_again_and_then_left() -> None:
    machine = running(new_machine())
    machine.handle(STOP, 5.0)
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
    machine = running(new_machine())
    assert machine.handle(RESTART, 5.0) == [TERMINATE]
    assert machine.handle(START, 5.5) == [] and machine.state == STOPPING
    assert machine.handle(EXITED_WITH_ORPHANS, 6.0) == []
    assert machine.state == STOPPING
    assert machine.handle(ORPHANS_GONE, 7.0) == [LAUNCH]


def test_a_stop_goes_before_a_restart_that_is_under_way() -> None:
    machine = running(new_machine())
    machine.handle(RESTART, 5.0)
    assert machine.handle(STOP, 5.5) == []
    assert machine.handle(EXITED, 6.0) == []
    assert machine.state == STOPPED


def test_told_to_start_it_does_not_wait_for_its_pause() -> None:
    machine = running(new_machine())
    for _ in range(3):
        machine.handle(EXITED, 3.0)
        assert machine.state == BACKOFF
        assert machine.handle(START, 3.0) == [LAUNCH]
        machine.handle(STARTED, 3.0)
    machine.handle(EXITED, 3.0)
    assert machine.due == pytest.approx(3.1)  # earlier deaths were forgotten


def test_one_that_dies_too_often_is_fatal_until_somebody_starts_it() -> None:
    machine = running(new_machine(GiveUp(2, 10.0)))
    machine.handle(EXITED, 3.0)
    assert machine.tick(4.0) == [LAUNCH]
    machine.handle(STARTED, 4.0)
    assert machine.handle(EXITED_WITH_ORPHANS, 4.1) == [TERMINATE]
    assert machine.state == FATAL
    assert machine.handle(ORPHANS_GONE, 4.2) == []
    assert (machine.state, machine.due) == (FATAL, inf)
    assert machine.handle(START, 100.0) == [LAUNCH]
    machine.handle(STARTED, 100.0)
    machine.handle(EXITED, 101.0)
    assert machine.state == BACKOFF


def test_a_fatal_one_can_be_stopped() -> None:
    machine = running(new_machine(GiveUp(1, 10.0)))
    machine.handle(EXITED, 3.0)
    assert machine.state == FATAL
    assert machine.handle(STOP, 4.0) == []
    assert machine.state == STOPPED


def test_stopped_in_its_pause_it_is_stopped() -> None:
    machine = running(new_machine())
    machine.handle(EXITED, 3.0)
    assert machine.handle(STOP, 3.05) == []
    assert (machine.state, machine.due) == (STOPPED, inf)


def test_it_stands_by_until_it_may_run() -> None:
    machine = new_machine(allowed=False)
    assert machine.handle(START, 0.0) == []
    assert machine.state == STANDBY
    assert machine.handle(ALLOW, 5.0) == [LAUNCH]
    machine.handle(STARTED, 5.0)
    assert machine.handle(FORBID, 10.0, 12.0) == [TERMINATE]
    assert (machine.state, machine.due) == (STOPPING, 12.0)  # sooner than the stop timeout
    assert machine.tick(12.0) == [KILL]
    assert machine.handle(EXITED, 12.1) == []
    assert machine.state == STANDBY


def test_a_right_that_is_lost_hurries_an_end_that_is_under_way() -> None:
    machine = running(new_machine())
    machine.handle(STOP, 5.0)
    assert machine.handle(FORBID, 6.0, 8.0) == []
    assert machine.due == 8.0
    machine = running(new_machine())
    machine.handle(EXITED_WITH_ORPHANS, 5.0)
    assert machine.handle(FORBID, 6.0, 8.0) == []
    assert (machine.state, machine.due) == (STOPPING, 8.0)
    assert machine.handle(ALLOW, 7.0) == []
    assert machine.handle(ORPHANS_GONE, 7.5) == [LAUNCH]


EVENTS = {
    "start": START,
    "stop": STOP,
    "restart": RESTART,
    "allow": ALLOW,
    "forbid": FORBID,
    "started": STARTED,
    "failed": START_FAILED,
    "exited": EXITED,
    "left": EXITED_WITH_ORPHANS,
    "gone": ORPHANS_GONE,
    "often": TOO_MANY_EXITS,
    "up": UP_LONG_ENOUGH,
    "pause": PAUSE_OVER,
    "term": STOP_TIMEOUT,
    "kill": KILL_TIMEOUT,
}
# What each event leads to in each state, a long time later; "-" has no place.
GRID = """
state            start stop  restart allow forbid  started failed  exited  left  gone  often up    pause term  kill
STOPPED          l     s     l       s     s       -       -       -       -     -     -     -     -     -     -
STANDBY          sb    s     sb      l     sb      -       -       -       -     -     -     -     -     -     -
LAUNCHING        -     -     -       -     -       up      b       -       -     -     -     -     -     -     -
STARTING         up    st    st      up    st      -       -       b       bo    -     -     r     -     -     -
RUNNING          r     st    st      r     st      -       -       b       bo    -     -     -     -     -     -
BACKOFF          l     s     l       l     sb      -       -       -       -     -     f     -     l     -     -
STOPPING         st    st    st      st    st      -       -       s       so    -     -     -     -     st    s
RESTARTING       st    st    st      st    st      -       -       l       so    -     -     -     -     st    l
STOPPING_ORPHANS so    so    so      so    so      -       -       -       -     s     -     -     -     so    s
BACKOFF_ORPHANS  bo    so    bo      bo    so      -       -       -       -     l     fo    -     -     bo    l
FATAL            l     s     l       f     f       -       -       -       -     -     -     -     -     -     -
FATAL_ORPHANS    bo    so    bo      fo    fo      -       -       -       -     f     -     -     -     fo    f
"""
# What leads to these states. RESTARTING is STOPPING, but with another wish.
PATHS = {
    "STOPPED": "",
    "STANDBY": "forbid start",
    "LAUNCHING": "start",
    "STARTING": "start started",
    "RUNNING": "start started up",
    "BACKOFF": "start failed",
    "STOPPING": "start started stop",
    "RESTARTING": "start started restart",
    "STOPPING_ORPHANS": "start started stop left",
    "BACKOFF_ORPHANS": "start started left",
    "FATAL": "start failed often",
    "FATAL_ORPHANS": "start started left often",
}
CODES = {
    "s": STOPPED,
    "sb": STANDBY,
    "l": LAUNCHING,
    "up": STARTING,
    "r": RUNNING,
    "b": BACKOFF,
    "bo": BACKOFF_ORPHANS,
    "st": STOPPING,
    "so": STOPPING_ORPHANS,
    "f": FATAL,
    "fo": FATAL_ORPHANS,
}
PAIRS = [
    (line.split()[0], event, target)
    for line in GRID.strip().splitlines()[1:]
    for event, target in zip(EVENTS, line.split()[1:])
]


@pytest.mark.parametrize(("state", "event", "target"), PAIRS)
def test_each_event_in_each_state(state: str, event: str, target: str) -> None:
    machine = new_machine()
    for before in PATHS[state].split():
        machine.handle(EVENTS[before], 0.0)
    began = machine._state
    assert began in (globals().get(state), STOPPING)
    if target == "-":
        with pytest.raises(UnexpectedEvent, match=f"'{EVENTS[event]}' has no place in the state '{began}'"):
            machine.handle(EVENTS[event], 100.0)
        assert machine._state == began
    else:
        actions = machine.handle(EVENTS[event], 100.0)
        assert machine._state == CODES[target]
        assert (LAUNCH in actions) == (target == "l")
        assert (TERMINATE in actions) == (began in UP and target in ("st", "bo"))
        assert (KILL in actions, ABANDON in actions) == (event == "term", event == "kill")
        assert (machine.due < inf) == (target in ("up", "b", "bo", "st", "so", "fo"))


def test_the_table_has_a_row_for_each_state_and_each_event_a_place() -> None:
    assert set(TRANSITIONS) == set(CODES.values())
    assert {event for row in TRANSITIONS.values() for event in row} == set(EVENTS.values())
    targets = {target for row in TRANSITIONS.values() for target, *_ in row.values()}
    assert targets <= {*TRANSITIONS, SAME, NEXT}


class AnyEvents(RuleBasedStateMachine):
    """Whatever is wanted and whatever happens: there are never two of it, and in the end it is as it was wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.machine = new_machine(GiveUp(4, 30.0))
        self.alive = False
        self.left = False
        self.wanted = False
        self.allowed = True
        self.told_to_end = False
        self.fails = False

    def do(self, actions: list[str]) -> None:
        for action in actions:
            if action == LAUNCH:
                assert not self.alive and not self.left, "there would be two of it"
                assert self.wanted and self.allowed
                if self.fails:
                    self.do(self.machine.handle(START_FAILED, self.now))
                else:
                    self.alive, self.told_to_end = True, False
                    self.machine.handle(STARTED, self.now)
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
        self.do(self.machine.handle(START, self.now))

    @rule()
    def stop(self) -> None:
        self.wanted = False
        self.do(self.machine.handle(STOP, self.now))

    @rule()
    def restart(self) -> None:
        self.wanted = True
        self.do(self.machine.handle(RESTART, self.now))

    @rule(within=st.floats(0.0, 20.0))
    def forbid(self, within: float) -> None:
        self.allowed = False
        self.do(self.machine.handle(FORBID, self.now, self.now + within))

    @rule()
    def allow(self) -> None:
        self.allowed = True
        self.do(self.machine.handle(ALLOW, self.now))

    @rule(fails=st.booleans())
    def starts_fail(self, fails: bool) -> None:
        self.fails = fails

    @precondition(lambda self: self.alive)
    @rule(left=st.booleans())
    def die(self, left: bool) -> None:
        self.alive, self.left = False, left
        self.do(self.machine.handle(EXITED_WITH_ORPHANS if left else EXITED, self.now))

    @precondition(lambda self: self.left)
    @rule()
    def clear(self) -> None:
        self.left = False
        self.do(self.machine.handle(ORPHANS_GONE, self.now))

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


AnyEvents.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestAnyEvents = AnyEvents.TestCase

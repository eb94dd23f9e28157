"""All programs of a supervisor in any order of commands, ends, timers and losses of the lock, with processes that are
played: whatever overlaps, no event comes to a program in a state where it has no place, and no program runs twice."""

from __future__ import annotations

import heapq
from functools import partial
from itertools import count
from math import inf
from random import Random
from signal import SIGKILL
from typing import Callable
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ipclocker.net.loop import Timer
from ipclocker.process.restart_policy import GiveUp, RestartPolicy
from ipclocker.supervise import program_set
from ipclocker.supervise.managed_program import StopPolicy
from ipclocker.supervise.process_groups import GroupLeader
from ipclocker.supervise.program_list import Program
from ipclocker.supervise.program_set import ProgramSet
from ipclocker.supervise.state_machine import (
    FATAL,
    KILL_PATIENCE,
    RESTART,
    RUNNING,
    STANDBY,
    START,
    STOP,
    STOPPED,
    TRANSITIONS,
    ProgramStateMachine,
)

NAMES = ("web", "mail", "news")


STATUSES = (0, 256, 15)  # of waitpid: well, with exit code 1, by SIGTERM
WHICH = st.integers(1, 7)


def some_of(pids: set[int], which: int) -> set[int]:
    """Those whose bits are set."""
    return {pid for place, pid in enumerate(sorted(pids)) if which >> place % 3 & 1}


class PlayedLoop:
    """A loop whose time the test moves. A fault in a callback is not passed over here."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            if timer.call is not None:
                self.now = max(self.now, when)
                timer.call()
        self.now = until


class PlayedProcesses:
    """The processes of all programs: what `SharedResources` and `ProcessGroups` do with them."""

    def __init__(self) -> None:
        self.loop = PlayedLoop()
        self.groups = self
        self.names: dict[int, str] = {}  # whose leader each was
        self.commands: dict[int, str] = {}
        self.living: set[int] = set()
        self.orphaned: set[int] = set()  # leaders that have left others
        self.exits: list[tuple[int, int]] = []  # that nobody has asked for yet
        self.killed: dict[int, float] = {}  # when first
        self.twice: set[str] = set()  # programs that were started while they ran
        self.starts_fail: Exception | None = None
        self.dies_at_once = False
        self._pids = count(100)

    def start(self, name: str, command: str, additions: dict[str, str]) -> GroupLeader:
        if self.starts_fail is not None:
            raise self.starts_fail
        for other in self.living | self.orphaned:
            given_up = self.killed.get(other, inf) <= self.loop.now - KILL_PATIENCE
            if self.names[other] == name and not given_up:
                self.twice.add(name)
        pid = next(self._pids)
        self.names[pid] = name
        self.commands[pid] = command
        self.living.add(pid)
        if self.dies_at_once:
            self.exit(pid, 1, False)
        return GroupLeader(pid, f"mark/{name}")

    def exit(self, pid: int, status: int, leaves_orphans: bool) -> None:
        self.living.discard(pid)
        self.exits.append((pid, status))
        if leaves_orphans:
            self.orphaned.add(pid)

    def take_exits(self) -> list[tuple[int, int]]:
        exits, self.exits = self.exits, []
        return exits

    def remove(self, pid: int) -> None:
        """A child has ended."""

    def has_orphans(self, leader: GroupLeader) -> bool:
        return leader.pid in self.orphaned

    def signal(self, leader: GroupLeader, number: int) -> list[int]:
        if number == SIGKILL:
            self.killed.setdefault(leader.pid, self.loop.now)
        return [leader.pid]


class AnyOverlap(RuleBasedStateMachine):
    """What the supervisor's service calls, whenever it may."""

    def __init__(self) -> None:
        super().__init__()
        self.processes = PlayedProcesses()
        self.allowed = True
        self.wanted: dict[str, bool] = {}
        self.others: list[int] = []
        self.patch = patch.object(program_set, "ended_children", self.processes.take_exits)
        self.patch.start()
        self.programs = ProgramSet(
            self.processes,  # type: ignore[arg-type]
            lambda: RestartPolicy(lambda: 0.0, give_up=GiveUp(2, 30.0)),
            StopPolicy(),
            lambda managed: None,
            lambda pid, status: self.others.append(pid),
        )

    @initialize(allowed=st.booleans())
    def begin(self, allowed: bool) -> None:
        if not allowed:
            self.lose_lock(0.0)
        self.replace(dict.fromkeys(NAMES[:2], "x"))

    @rule(name=st.sampled_from(NAMES), command=st.sampled_from([START, STOP, RESTART]))
    def command(self, name: str, command: str) -> None:
        if name in self.wanted:
            for managed in self.programs.find([name]):
                managed.handle(command)
            self.wanted[name] = command != STOP

    @rule(commands=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["x", "y"])))
    def reload(self, commands: dict[str, str]) -> None:
        self.replace(commands)

    def replace(self, commands: dict[str, str]) -> None:
        self.programs.replace({name: Program(name, command, "") for name, command in commands.items()})
        self.wanted = {name: self.wanted.get(name, True) for name in commands}

    @rule(within=st.floats(0.0, 20.0))
    def lose_lock(self, within: float) -> None:
        self.allowed = False
        self.programs.forbid(self.processes.loop.now + within)

    @rule()
    def get_lock(self) -> None:
        self.allowed = True
        self.programs.allow({"IPCLOCKER_LOCK": "a"})

    @rule(fail=st.sampled_from([None, OSError(11, "no more processes"), ValueError()]), die=st.booleans())
    def starts(self, fail: Exception | None, die: bool) -> None:
        self.processes.starts_fail, self.processes.dies_at_once = fail, die

    @rule(which=WHICH, status=st.sampled_from(STATUSES), orphans=st.booleans(), heard=st.booleans())
    def exit(self, which: int, status: int, orphans: bool, heard: bool) -> None:
        """Some leaders exit, of which the supervisor hears at once or later."""
        for pid in some_of(self.processes.living, which):
            self.processes.exit(pid, status, orphans)
        if heard:
            self.programs.reap()

    @rule(which=WHICH, heard=st.booleans())
    def orphans_go(self, which: int, heard: bool) -> None:
        self.processes.orphaned -= some_of(self.processes.orphaned, which)
        if heard:
            self.processes.exits.append((7, 0))  # one of them, or the exit hook
            self.programs.reap()

    @rule(seconds=st.one_of(st.floats(0.0, 0.3), st.floats(0.0, 2.0), st.floats(0.0, 60.0)), heard=st.booleans())
    def pass_time(self, seconds: float, heard: bool) -> None:
        self.processes.loop.pass_time(seconds)
        if heard:
            self.programs.reap()

    @rule()
    def stop_all(self) -> None:
        self.programs.stop()
        self.wanted = dict.fromkeys(self.wanted, False)

    @rule()
    def kill_all(self) -> None:
        self.programs.kill()

    @invariant()
    def none_runs_that_may_not(self) -> None:
        assert not self.processes.twice
        for managed in self.programs:
            if managed.state == RUNNING:
                assert self.allowed and self.wanted[managed.name]

    def teardown(self) -> None:
        try:
            self.end_well()
        finally:
            self.patch.stop()

    def end_well(self) -> None:
        """If processes end when they are told to, all soon is as it was wanted."""
        processes = self.processes
        processes.starts_fail, processes.dies_at_once = None, False
        for _ in range(100):
            ending = {managed.pid for managed in self.programs if managed.state not in ("STARTING", RUNNING)}
            for pid in ending & processes.living:
                processes.exit(pid, 15, False)  # type: ignore[arg-type]
            processes.orphaned.clear()
            self.programs.reap()
            processes.loop.pass_time(1.0)
        for managed in self.programs:
            expected = RUNNING if self.allowed else STANDBY
            assert managed.state in {expected if self.wanted[managed.name] else STOPPED, FATAL}, managed.describe()


AnyOverlap.TestCase.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
TestAnyOverlap = AnyOverlap.TestCase


# What comes second while the first is not done yet: a program is running, is told the first, and has not ended when it
# is told the second; then it ends. `kept`, `changed` and `removed` are HUP with the program in the list as it was, with
# another command, and not at all; `lost` and `granted` are the lock; `end` is the end of the supervisor.
OVERLAPS = """
first    start stop restart kept changed removed lost granted end
start    r1    s1   r2      r2   n2      g1      b1   r1      s1
stop     r2    s1   r2      s1   s1      g1      s1   s1      s1
restart  r2    s1   r2      r2   n2      g1      b1   r2      s1
kept     r2    s1   r2      r2   n2      g1      b1   r2      s1
changed  n2    s1   n2      r2   n2      g1      b1   n2      s1
removed  -     -    -       r2   n2      g1      g1   g1      g1
lost     b1    s1   b1      b1   b1      g1      b1   r2      s1
granted  r1    s1   r2      r2   n2      g1      b1   r1      s1
end      -     -    -       -    -       -       s1   s1      s1
"""
ENDS = {"r": RUNNING, "n": RUNNING, "s": STOPPED, "b": STANDBY}  # of which "n" has the other command; "g" is gone


@pytest.mark.parametrize(
    ("first", "second", "end"),
    [
        (line.split()[0], second, end)
        for line in OVERLAPS.strip().splitlines()[1:]
        for second, end in zip(OVERLAPS.split()[1:], line.split()[1:])
        if end != "-"  # can't be told
    ],
)
def test_what_comes_while_the_last_command_is_not_done(first: str, second: str, end: str) -> None:
    play = AnyOverlap()
    processes = play.processes
    commands: dict[str, Callable[[], None]] = {
        **{name: partial(play.command, "web", name) for name in (START, STOP, RESTART)},
        "kept": lambda: play.replace({"web": "x"}),
        "changed": lambda: play.replace({"web": "y"}),
        "removed": lambda: play.replace({}),
        "lost": lambda: play.lose_lock(20.0),
        "granted": play.get_lock,
        "end": play.stop_all,
    }
    try:
        play.replace({"web": "x"})
        processes.loop.pass_time(5.0)
        commands[first]()
        processes.loop.pass_time(1.0)  # it does not end by the stop signal
        commands[second]()
        play.end_well()
        assert [managed.state for managed in play.programs] == [ENDS[it] for it in end[:1] if it in ENDS]
        assert len(processes.names) == int(end[1:])
        if end[0] in "rn":
            assert processes.commands[max(processes.names)] == ("y" if end[0] == "n" else "x")
    finally:
        play.patch.stop()


def test_each_pair_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """So each event that the table has no place for, but that can come, would be found here."""
    reached: set[tuple[str, str]] = set()

    class Watched(ProgramStateMachine):
        def handle(self, event: str, now: float, kill_at: float = inf) -> list[str]:
            reached.add((self._state, event))
            return super().handle(event, now, kill_at)

    monkeypatch.setattr("ipclocker.supervise.state_machine.ProgramStateMachine", Watched)
    for seed in range(200):
        walk(AnyOverlap(), Random(seed))
    assert reached == {(state, event) for state, row in TRANSITIONS.items() for event in row}


def walk(play: AnyOverlap, dice: Random) -> None:
    """A hundred steps that happen in any order, often at short distances."""
    yes = partial(dice.choice, (True, False))
    steps: list[Callable[[], None]] = [
        lambda: play.command(dice.choice(NAMES), dice.choice((START, STOP, RESTART))),
        lambda: play.exit(dice.randint(1, 7), dice.choice(STATUSES), yes(), yes()),
        lambda: play.orphans_go(dice.randint(1, 7), yes()),
        lambda: play.pass_time(dice.choice((0.1, 0.3, 2.0, 15.0)), yes()),
        lambda: play.starts(dice.choice((None, None, None, OSError(11, "full"), ValueError())), dice.random() < 0.2),
        lambda: play.get_lock() if yes() else play.lose_lock(dice.uniform(0.0, 20.0)),
        lambda: play.reload({name: "x" for name in NAMES if dice.random() < 0.8}),
        lambda: play.stop_all() if dice.random() < 0.2 else play.kill_all(),
    ]
    try:
        play.begin(allowed=yes())
        for step in dice.choices(steps, (4, 4, 2, 6, 1, 1, 0.5, 0.5), k=100):
            step()
            play.none_runs_that_may_not()
        play.end_well()
    finally:
        play.patch.stop()

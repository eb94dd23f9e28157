"""One program that is kept alive: its state machine, joined to real processes and to the loop's timers."""

from __future__ import annotations

import logging
import os
import signal
from math import inf
from typing import Any, Callable, NamedTuple

from ..net.loop import Loop, Timer
from ..process.restart_policy import RestartPolicy
from ..process.signal_names import signal_name
from ..process.wait import how_it_ended
from . import state_machine as states
from .output.collector import OutputCollector
from .process_groups import GroupLeader, ProcessGroups
from .program_list import Program
from .spawn import CallerContext, start_process

log = logging.getLogger(__name__)
# Seconds between two looks at a program's orphans. Where this process adopts them SIGCHLD tells of their ends, too;
# elsewhere nothing does.
_LOOK_AGAIN = 0.25


class StopPolicy(NamedTuple):
    """The way to end programs: by the signal `stop_signal`, and after `stop_timeout` seconds by SIGKILL."""

    stop_signal: int = signal.SIGTERM
    stop_timeout: float = 10.0


class SharedResources(NamedTuple):
    """The parts of a supervisor that all its programs use. `mark` is the supervisor's own, unique on its host."""

    loop: Loop
    groups: ProcessGroups
    output: OutputCollector
    caller: CallerContext
    mark: str

    def start(self, name: str, command: str, additions: dict[str, str]) -> GroupLeader:
        """Start a command, with additions to its environment and its output collected under the name.

        Raises OSError if there can be no further process or descriptor.
        """
        mark = f"{self.mark}/{name}"
        output = self.output.open(name)
        try:
            leader = GroupLeader(start_process(command, self.caller, additions, mark, output), mark)
        finally:
            os.close(output)
        self.groups.add(leader)
        return leader


class LastExit(NamedTuple):
    """The last end of a program's process: the status of waitpid(2), and the time of the loop."""

    status: int
    at: float


class ManagedProgram:
    """Keeps one program alive. `changed` is called when its state has changed."""

    def __init__(
        self,
        program: Program,
        shared: SharedResources,
        policy: RestartPolicy,
        stop_policy: StopPolicy,
        changed: Callable[[ManagedProgram], None],
        allowed: bool = True,
    ) -> None:
        self.program = program
        self.additions: dict[str, str] = {}  # to its environment
        self.last_exit: LastExit | None = None
        self._shared = shared
        self._stop_signal = stop_policy.stop_signal
        self._changed = changed
        self._machine = states.ProgramStateMachine(policy, stop_timeout=stop_policy.stop_timeout, allowed=allowed)
        self._leader: GroupLeader | None = None  # the latest
        self._started_at = 0.0
        self._timer = Timer()
        self._shown = states.STOPPED

    @property
    def name(self) -> str:
        """The program's name, unique in its supervisor."""
        return self.program.name

    @property
    def state(self) -> str:
        """One of the states of state_machine.py, as "RUNNING"."""
        return self._machine.state

    @property
    def is_wanted(self) -> bool:
        """True if the latest START, STOP or RESTART was not a STOP, whether that is done already or not."""
        return self._machine.wanted

    @property
    def pid(self) -> int | None:
        """The process of its leader, while that lives."""
        return self._leader.pid if self._leader is not None and self._machine.alive else None

    @property
    def is_gone(self) -> bool:
        """True if there is no process of it."""
        return not (self._machine.alive or self._machine.has_orphans)

    def describe(self) -> dict[str, Any]:
        """Return its state, for people and programs: what `supervise status --json` shows. Times are in seconds."""
        now, last = self._shared.loop.now, self.last_exit
        next_start = self._machine.next_start
        code = None if last is None else os.waitstatus_to_exitcode(last.status)
        return {
            "name": self.name,
            "state": self.state,
            "pid": self.pid,
            "uptime": round(now - self._started_at, 3) if self._machine.alive else None,
            "restarts": max(0, self._machine.starts - 1),
            "next_start": None if next_start is None else round(max(0.0, next_start - now), 3),
            "last_exit": None
            if last is None or code is None
            else {
                "code": code if code >= 0 else None,
                "signal": f"SIG{signal_name(-code)}" if code < 0 else None,
                "age": round(now - last.at, 3),
            },
            "command": self.program.command,
        }

    def handle(self, event: str, kill_at: float = inf) -> None:
        """Do what an event means: START, STOP, RESTART, ALLOW or FORBID of state_machine.py.

        `kill_at`: with FORBID, when all that is left of the program gets SIGKILL (the loop's time).
        """
        self._do(self._machine.handle(event, self._shared.loop.now, kill_at))

    def kill(self) -> None:
        """Kill all processes of it at once; for the end of a supervisor that has no time."""
        if self._leader is not None and not self.is_gone:
            self._shared.groups.signal(self._leader, signal.SIGKILL)

    def reaped(self, status: int) -> None:
        """Take note that its leader has ended, with this status of waitpid(2)."""
        assert self._leader is not None
        now = self._shared.loop.now
        self.last_exit = LastExit(status, now)
        expected = self.state not in states.UP
        event = states.EXITED_WITH_ORPHANS if self._shared.groups.has_orphans(self._leader) else states.EXITED
        actions = self._machine.handle(event, now)
        self._log_exit(status, expected)
        self._do(actions)

    def check_orphans(self) -> None:
        """Go on if its last orphan is gone; to be called when any process has ended."""
        leader = self._leader
        if self._machine.has_orphans and leader is not None and not self._shared.groups.has_orphans(leader):
            self.handle(states.ORPHANS_GONE)

    def _do(self, actions: list[str]) -> None:
        for action in actions:
            if action == states.LAUNCH:
                self._launch()
            elif action == states.TERMINATE:
                self._terminate()
            elif action == states.KILL:
                self._kill()
            elif action == states.ABANDON:
                log.error("%s: it can't be killed, and is left as it is", self.name)
        self._set_timer()
        if self.state != self._shown:
            self._shown = self.state
            self._changed(self)

    def _launch(self) -> None:
        now = self._shared.loop.now
        additions = {**self.additions, "IPCLOCKER_PROGRAM": self.name}
        try:
            self._leader = self._shared.start(self.name, self.program.command, additions)
        except Exception as error:  # noqa: BLE001 - a fault of ours, too: the machine has to get its answer
            actions = self._machine.handle(states.START_FAILED, now)
            problem = error.strerror if isinstance(error, OSError) else repr(error)
            log.error("%s: it can't be started (%s)%s", self.name, problem, self._what_next())
            self._do(actions)
            return
        self._started_at = now
        self._machine.handle(states.STARTED, now)
        log.info("%s: started as process %d", self.name, self._leader.pid)

    def _terminate(self) -> None:
        assert self._leader is not None
        groups = self._shared.groups
        pids = groups.signal(self._leader, self._stop_signal)
        groups.signal(self._leader, signal.SIGCONT)  # a stopped process takes the signal only when it goes on
        log.debug("%s: SIG%s to %s", self.name, signal_name(self._stop_signal), _listed(pids))

    def _kill(self) -> None:
        assert self._leader is not None
        pids = self._shared.groups.signal(self._leader, signal.SIGKILL)
        if pids:
            log.warning("%s: it did not end in time: SIGKILL to %s", self.name, _listed(pids))

    def _log_exit(self, status: int, expected: bool) -> None:
        assert self._leader is not None
        pid, how = self._leader.pid, how_it_ended(status)
        if expected:
            log.info("%s: process %d ended (%s)", self.name, pid, how)
            return
        lived = self._shared.loop.now - self._started_at
        level = logging.ERROR if self.state == states.FATAL else logging.WARNING
        log.log(level, "%s: process %d died after %.1f s (%s)%s", self.name, pid, lived, how, self._what_next())

    def _what_next(self) -> str:
        if self.state == states.FATAL:
            return ": too often, it is not started again"
        if self._machine.next_start is None:
            return ""
        return f"; it is started again in {max(0.0, self._machine.next_start - self._shared.loop.now):.1f} s"

    def _set_timer(self) -> None:
        self._timer.cancel()
        due = self._machine.due
        if self._machine.has_orphans:
            due = min(due, self._shared.loop.now + _LOOK_AGAIN)
        if due != inf:
            self._timer = self._shared.loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self.check_orphans()
        self._do(self._machine.tick(self._shared.loop.now))


def _listed(pids: list[int]) -> str:
    return ", ".join(map(str, pids)) or "nobody"

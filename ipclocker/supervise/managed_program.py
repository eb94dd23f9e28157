"""One program that is kept alive: its life (life.py), joined to real processes and to the loop's timers."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any, Callable, NamedTuple

from ..daemon.monitor import how_it_ended
from ..net.loop import Loop, Timer
from ..process.restart_policy import RestartPolicy
from ..process.signal_names import signal_name
from .output.collector import Output
from .process_groups import Leader, ProcessGroups
from .program_list import Program
from .spawn import CallerContext, start_process
from .state_machine import ABANDON, FATAL, KILL, START, STOPPED, TERMINATE, UP, ProgramStateMachine

log = logging.getLogger(__name__)
_LOOK_AGAIN = 0.25  # seconds until it is looked again whether what a leader has left is gone


class StopPolicy(NamedTuple):
    """How programs are ended: by which signal, and after how many seconds SIGKILL follows."""

    stop_signal: int = signal.SIGTERM
    stop_timeout: float = 10.0


class Shared(NamedTuple):
    """What all programs of a supervisor share. `mark` is the supervisor's own, unique on its host."""

    loop: Loop
    groups: ProcessGroups
    output: Output
    caller: CallerContext
    mark: str


class LastExit(NamedTuple):
    """How a program's process ended: a status of waitpid(2), and when, as the loop's time."""

    status: int
    at: float


class ManagedProgram:
    """Keeps one program alive. `changed` is called when its state has changed."""

    def __init__(
        self,
        program: Program,
        shared: Shared,
        policy: RestartPolicy,
        rules: StopPolicy,
        changed: Callable[[ManagedProgram], None],
        allowed: bool = True,
    ) -> None:
        self.program = program
        self.additions: dict[str, str] = {}  # to its environment
        self.last_exit: LastExit | None = None
        self._shared = shared
        self._rules = rules
        self._changed = changed
        self._machine = ProgramStateMachine(policy, stop_timeout=rules.stop_timeout, allowed=allowed)
        self._leader: Leader | None = None  # the latest
        self._started_at = 0.0
        self._timer: Timer | None = None
        self._shown = STOPPED

    # What there is to see

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def state(self) -> str:
        return self._machine.state

    @property
    def pid(self) -> int | None:
        """The process of its leader, if that lives."""
        return self._leader.pid if self._leader is not None and self._machine.alive else None

    @property
    def is_gone(self) -> bool:
        """Whether there is no process of it."""
        return not (self._machine.alive or self._machine.has_orphans)

    def describe(self) -> dict[str, Any]:
        """Its state, for people and programs: what `supervise status --json` shows."""
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

    # What somebody wants

    def start(self) -> None:
        """Let it run, now."""
        self._do(self._machine.start(self._shared.loop.now))

    def stop(self) -> None:
        """End it, with all that it has started."""
        self._do(self._machine.stop(self._shared.loop.now))

    def restart(self) -> None:
        """End it if it runs, and start it."""
        self._do(self._machine.restart(self._shared.loop.now))

    def allow(self) -> None:
        """It may run."""
        self._do(self._machine.allow(self._shared.loop.now))

    def forbid(self, kill_at: float) -> None:
        """It may not run any more, and nothing of it may live longer than until `kill_at` (the loop's time)."""
        self._do(self._machine.forbid(self._shared.loop.now, kill_at))

    def kill(self) -> None:
        """Kill all that there is of it, at once; for the end of a supervisor that has no time."""
        if self._leader is not None and not self.is_gone:
            self._shared.groups.signal(self._leader, signal.SIGKILL)

    # What happens

    def reaped(self, status: int) -> None:
        """Its leader has ended."""
        assert self._leader is not None
        now = self._shared.loop.now
        self.last_exit = LastExit(status, now)
        expected = self.state not in UP
        actions = self._machine.died(now, self._shared.groups.has_left(self._leader))
        self._report_death(status, expected)
        self._do(actions)

    def look_for_rest(self) -> None:
        """Some process has ended: it may have been the last that was left of this one."""
        if self._machine.has_orphans and self._leader is not None and not self._shared.groups.has_left(self._leader):
            self._do(self._machine.cleared(self._shared.loop.now))

    # Inside

    def _do(self, actions: list[str]) -> None:
        for action in actions:
            if action == START:
                self._start()
            elif action == TERMINATE:
                self._terminate()
            elif action == KILL:
                self._kill()
            elif action == ABANDON:
                log.error("%s: it can't be killed, and is left as it is", self.name)
        self._set_timer()
        if self.state != self._shown:
            self._shown = self.state
            self._changed(self)

    def _start(self) -> None:
        shared, now = self._shared, self._shared.loop.now
        mark = f"{shared.mark}/{self.name}"
        output = -1
        try:
            output = shared.output.open(self.name)
            additions = {**self.additions, "IPCLOCKER_PROGRAM": self.name}
            pid = start_process(self.program.command, shared.caller, additions, mark, output)
        except OSError as error:
            actions = self._machine.failed(now)
            log.error("%s: it can't be started (%s)%s", self.name, error.strerror, self._what_next())
            self._do(actions)
            return
        finally:
            if output >= 0:
                os.close(output)
        self._leader = Leader(pid, mark)
        self._started_at = now
        shared.groups.began(self._leader)
        self._machine.started(now)
        log.info("%s: started as process %d", self.name, pid)

    def _terminate(self) -> None:
        assert self._leader is not None
        groups, number = self._shared.groups, self._rules.stop_signal
        pids = groups.signal(self._leader, number)
        groups.signal(self._leader, signal.SIGCONT)  # what was stopped has to go on to take it
        log.debug("%s: SIG%s to %s", self.name, signal_name(number), _source(pids))

    def _kill(self) -> None:
        assert self._leader is not None
        pids = self._shared.groups.signal(self._leader, signal.SIGKILL)
        if pids:
            log.warning("%s: it did not end in time: SIGKILL to %s", self.name, _source(pids))

    def _report_death(self, status: int, expected: bool) -> None:
        assert self._leader is not None
        how = how_it_ended(status)
        if expected:
            log.info("%s: process %d ended (%s)", self.name, self._leader.pid, how)
        else:
            lived = self._shared.loop.now - self._started_at
            level = logging.ERROR if self.state == FATAL else logging.WARNING
            log.log(
                level,
                "%s: process %d died after %.1f s (%s)%s",
                self.name,
                self._leader.pid,
                lived,
                how,
                self._what_next(),
            )

    def _what_next(self) -> str:
        if self.state == FATAL:
            return ": too often, it is not started again"
        if self._machine.next_start is None:
            return ""
        return f"; it is started again in {max(0.0, self._machine.next_start - self._shared.loop.now):.1f} s"

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._machine.due
        if self._machine.has_orphans:
            due = min(due, self._shared.loop.now + _LOOK_AGAIN)
        if due != float("inf"):
            self._timer = self._shared.loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.look_for_rest()
        if self._shared.loop.now >= self._machine.due:
            self._do(self._machine.tick(self._shared.loop.now))
        elif self._timer is None:
            self._set_timer()


def _source(pids: list[int]) -> str:
    return ", ".join(map(str, pids)) or "nobody"

"""The workers as processes: how many are short, what they say, how they end. What is to happen, the pool decides.

Everything that comes up, comes up in a turn: the end of a worker, a signal to this process, the time for something. It
is kept until it is asked for, so that whoever has a crew acts on it where that suits: to make a worker is to fork in
the middle of the caller's program.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from math import inf
from typing import Any, Callable, NamedTuple, cast

from ..net.loop import READ, Loop
from ..net.tcp_listener import raise_descriptor_limit
from ..process.signal_names import signal_name
from .pool import Pool
from .worker_channel import ASKED, READY, TIMED, ManagerEnd

_ROUND = 1.0  # seconds between two looks at workers that are to end, or that have a request with a deadline
_KILLED_WITHIN = 2.0  # seconds; what was killed is gone at once unless the kernel is stuck


class End(NamedTuple):
    """The end of a worker, in words for a log."""

    pid: int
    text: str


class WorkerProcesses:
    """`notify` is told what people want to know. With `groups` each worker leads a process group of its own."""

    def __init__(
        self, pool: Pool, notify: Callable[[str], object], stop_signal: int = signal.SIGTERM, *, groups: bool = False
    ) -> None:
        self.pool = pool
        self.patience = inf  # seconds after which a worker that was told to stop, and is still there, is mentioned
        self._notify = notify
        self._stop_signal = stop_signal
        self._groups = groups
        self._loop = Loop()
        self._on_signal(signal.SIGCHLD, self._reap)
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)  # that the workers may have, too
        raise_descriptor_limit()
        self._lines: dict[int, ManagerEnd] = {}
        self._told: dict[int, float] = {}  # when
        self._mentioned: set[int] = set()
        self._why: dict[int, str] = {}
        self._speaks: set[int] = set()  # those of our kind
        self._timed: set[int] = set()  # those that have requests with deadlines
        self._ends: deque[End] = deque()
        self._signals: deque[int] = deque()
        self._ending = False
        self._deadline = inf
        self._next_look = inf

    @property
    def loop(self) -> Loop:
        """In whose turns it all happens."""
        return self._loop

    def hear(self, numbers: Iterable[int]) -> None:
        """Keep these signals, too, for `next_signal`. Only in the main thread."""
        for number in numbers:
            self._on_signal(number, partial(self._signals.append, number))

    def next_signal(self) -> int | None:
        """A signal that came, each once."""
        return self._signals.popleft() if self._signals else None

    def next_end(self) -> End | None:
        """A worker that has ended, each once."""
        return self._ends.popleft() if self._ends else None

    @property
    def has_ends(self) -> bool:
        """Whether there is such a one."""
        return bool(self._ends)

    @property
    def pids(self) -> list[int]:
        """All workers that have not ended."""
        return list(self._lines)

    def wants(self) -> bool:
        """Whether a worker is to be started now. Then `started` or `start_failed` is to be called."""
        return not self._ending and self.pool.wants(time.monotonic())

    def started(self, pid: int, line: ManagerEnd) -> None:
        """A worker was started, with this line to us."""
        line.worker.close()
        self._lines[pid] = line
        self.pool.started(pid, time.monotonic())
        self._loop.watch(cast(Any, line.pipe), READ, lambda events: self._listen(pid, line))

    def start_failed(self) -> float:
        """A worker that was wanted could not be started; the seconds until it is tried again."""
        return self.pool.start_failed(time.monotonic())

    def turn(self) -> None:
        """Wait for something to happen or to be due, unless something has happened that nobody has asked for."""
        until = self._deadline if self._ending else self.pool.next_change()
        if not (self._ends or self._signals):
            self._loop.turn(min(until, self._next_look) - time.monotonic())
        if not self._ending:
            self.tell_to_stop(self.pool.take_over(time.monotonic()))
        if self._next_look <= time.monotonic():
            self._look()

    def tell_to_stop(self, pids: list[int]) -> None:
        """Send these workers the stop signal."""
        if not pids:
            return
        self._notify(f"sending {signal_name(self._stop_signal)} to PIDs, {' '.join(map(str, pids))}")
        for pid in pids:
            self._told[pid] = time.monotonic()
            self._send(pid, self._stop_signal)
        self._look_soon()

    def begin_to_end(self, within: float) -> None:
        """Start nobody any more, and tell all to stop within so many seconds."""
        self._ending = True
        self._deadline = time.monotonic() + within
        self.tell_to_stop(self.pool.stop())

    @property
    def is_overdue(self) -> bool:
        """Whether some are left that had to end by now."""
        return bool(self._lines) and time.monotonic() >= self._deadline

    def kill(self, why: str) -> None:
        """Kill all that are left, and see them go; the reason is for their log entries."""
        self._ending = True
        self._why.update(dict.fromkeys(self._lines, why))
        for pid in self._lines:
            self._kill(pid)
        deadline = time.monotonic() + _KILLED_WITHIN
        while self._lines and time.monotonic() < deadline:
            self._loop.turn(deadline - time.monotonic())

    def leave(self) -> None:
        """In a worker that was forked: the crew is the parent's. With signals blocked since the fork."""
        for line in self._lines.values():
            line.close()
        self._loop.detach_after_fork()
        resource.setrlimit(resource.RLIMIT_NOFILE, self._descriptors)

    def close(self) -> None:
        """Give back the descriptors and the signal handlers."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        self._loop.close()

    def _on_signal(self, number: int, call: Callable[[], None]) -> None:
        self._loop.on_signal(number, call)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])  # whatever the caller had in mind, it is needed here

    def _listen(self, pid: int, line: ManagerEnd) -> None:
        words = line.hear()
        if READY in words:
            self._speaks.add(pid)
            self.pool.said_ready(pid)
        if TIMED in words:
            self._timed.add(pid)
            self._look_soon()
        if not words:
            self._loop.unwatch(cast(Any, line.pipe))  # of its end we hear otherwise

    # Ends

    def _reap(self) -> None:
        for pid in list(self._lines):
            try:
                self._end_group(pid)
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # somebody else in this program has asked for its status
                self._has_ended(pid, None)
                continue
            if found:
                self._has_ended(pid, status)
        while os.getpid() == 1:  # of a container: whose parent has ended is ours
            try:
                found, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not found:
                return
            if found in self._lines:
                self._has_ended(found, status)

    def _end_group(self, pid: int) -> None:
        """If the worker has ended, tell those to stop that it has left in its group: they have the socket, too."""
        if not self._groups or not hasattr(os, "waitid"):
            return
        # Before it is reaped: until then its number, which is the group's, is nobody else's.
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, self._stop_signal)

    def _has_ended(self, pid: int, status: int | None) -> None:
        line = self._lines.pop(pid)
        asked = ASKED in line.hear() or status in (signal.SIGTERM, self._stop_signal)
        served = line.served > 0
        with contextlib.suppress(KeyError):  # it was closed before
            self._loop.unwatch(cast(Any, line.pipe))
        line.close()
        for some in (self._speaks, self._timed, self._mentioned):
            some.discard(pid)
        told = self._told.pop(pid, None)
        why = self._why.pop(pid, "it was told to stop" if told is not None else "")
        death = self.pool.ended(pid, time.monotonic(), well=status == 0, served=served, asked=asked)
        text = how_it_ended(status) + (f" ({why})" if why else "")
        if death is not None and death.pause is not None and not self._ending:
            text += f"; another is started in {death.pause:.1f} s"
        self._ends.append(End(pid, text))

    # Looking at them from time to time

    def _look_soon(self) -> None:
        self._next_look = min(self._next_look, time.monotonic() + _ROUND)

    def _look(self) -> None:
        """End whose request has taken too long; remind those who may have missed that they are to stop."""
        now = time.monotonic()
        for pid in self._timed:
            if self._lines[pid].deadline <= now and pid not in self._why:
                self._notify(f"server (pid {pid}) has not done its request in time, sending KILL")
                self._why[pid] = "its request had taken longer than request_timeout"
                self._kill(pid)
        for pid, since in self._told.items():
            if pid in self._speaks:
                # A signal that comes between the last look at signals and the wait for a connection is heard only
                # when that wait is over. To one of our kind, another makes no difference but that.
                self._send(pid, self._stop_signal)
            if now - since >= self.patience and pid not in self._mentioned and not self._ending:
                self._mentioned.add(pid)
                self._notify(f"server (pid {pid}) was told to stop {now - since:.0f} s ago and is still there")
        self._next_look = now + _ROUND if self._timed or self._told else inf

    def _kill(self, pid: int) -> None:
        if self._groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self._send(pid, signal.SIGKILL)

    def _send(self, pid: int, number: int) -> None:
        """Send it, to one that was not reaped."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def how_it_ended(status: int | None) -> str:
    """A status of waitpid in words, as it follows on who it was."""
    if status is None:
        return "has ended, how is not known"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    return f"was killed by SIG{signal_name(-code)}"

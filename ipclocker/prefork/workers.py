"""The workers as processes: which are wanted, what they report, how they end. The pool decides what is to happen.

All events come up in a turn of the loop: the end of a worker, a signal to this process, the time for something. They
are kept until the manager asks for them, at a place where it can act on them: to make a worker is to fork in the
middle of its caller's program.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Iterable, MutableMapping
from functools import partial
from math import inf
from typing import Callable, NamedTuple

from ..net.loop import READ, Loop
from ..net.tcp_listener import raise_descriptor_limit
from ..process.signal_names import signal_name
from ..process.wait import ended_children
from .orphans import Orphans
from .pool import Pool
from .worker_channel import ASKED, READY, TIMED, ManagerEnd

_ROUND = 1.0  # seconds between two checks of workers that are to end, or that have a deadline: cheap, and soon enough
_KILL_WITHIN = 2.0  # seconds; what was killed is gone at once unless the kernel is stuck


class WorkerExit(NamedTuple):
    """The end of a worker, with a text for a log."""

    pid: int
    text: str


class WorkerProcesses:
    """The worker processes of one manager."""

    def __init__(
        self,
        pool: Pool,
        notify: Callable[[str], object],
        die_timeout: float,
        stop_signal: int = signal.SIGTERM,
        *,
        groups: bool = False,
    ) -> None:
        """Begin without workers.

        `notify` is called with messages for people. `stop_signal` tells a worker to stop. If this process is killed,
        the workers and what they have started have `die_timeout` seconds to end. `groups`: True if each worker leads a
        process group of its own.
        """
        self._channels: dict[int, ManagerEnd] = {}
        self._orphans = Orphans(self._channels.__contains__, stop_signal, die_timeout, notify)
        self.pool = pool
        self.patience = inf  # seconds after which a worker that was told to stop, and is still there, is mentioned
        self._notify = notify
        self._stop_signal = stop_signal
        self._groups = groups
        self.loop = Loop()  # in which all happens
        self._on_signal(signal.SIGCHLD, self._reap)
        self._orphans.watch_watchdog(self.loop)
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)  # that the workers may have, too
        raise_descriptor_limit()
        self._told_at: dict[int, float] = {}  # to stop
        self._mentioned: set[int] = set()
        self._kill_reasons: dict[int, str] = {}
        self._reporting: set[int] = set()  # those with our code, which have said that they are up
        self._timed: set[int] = set()  # those that have requests with deadlines
        self._exits: deque[WorkerExit] = deque()
        self._signals: deque[int] = deque()
        self._ending = False
        self._deadline = inf
        self._next_check = inf

    def take_signals(self, numbers: Iterable[int]) -> None:
        """Keep these signals for `next_signal`. Only in the main thread."""
        for number in numbers:
            self._on_signal(number, partial(self._signals.append, number))

    def next_signal(self) -> int | None:
        """Return the number of a signal that came, each once; None if there is none."""
        return self._signals.popleft() if self._signals else None

    def next_exit(self) -> WorkerExit | None:
        """Return the exit of a worker, each once; None if there is none."""
        return self._exits.popleft() if self._exits else None

    @property
    def has_exits(self) -> bool:
        """True if `next_exit` has one."""
        return bool(self._exits)

    @property
    def are_gone(self) -> bool:
        """True if no worker is left, and nothing that one has left behind."""
        return not self._channels and not self._orphans.find()

    def wants(self) -> bool:
        """Tell if a worker is to be started now. Then `started` or `start_failed` is to be called."""
        return not self._ending and self.pool.wants(time.monotonic())

    def started(self, pid: int, channel: ManagerEnd) -> None:
        """Take note that a worker was started, with this channel to us."""
        channel.worker.close()
        self._channels[pid] = channel
        self.pool.started(pid, time.monotonic())
        self.loop.watch(channel.pipe, READ, lambda events: self._read(pid, channel))

    def start_failed(self) -> float:
        """Take note that a wanted worker could not be started; return the seconds until it is tried again."""
        return self.pool.start_failed(time.monotonic())

    def turn(self) -> None:
        """Wait for the next event, unless one is kept already that nobody has asked for."""
        until = self._deadline if self._ending else self.pool.next_change()
        if not (self._exits or self._signals):
            self.loop.turn(min(until, self._next_check) - time.monotonic())
        if self._ending:
            self._tell_orphans()
        else:
            self.tell_to_stop(self.pool.take_over(time.monotonic()))
        if self._next_check <= time.monotonic():
            self._check()

    def tell_to_stop(self, pids: list[int]) -> None:
        """Send these workers the stop signal."""
        if not pids:
            return
        self._notify(f"sending {signal_name(self._stop_signal)} to PIDs, {' '.join(map(str, pids))}")
        for pid in pids:
            self._told_at[pid] = time.monotonic()
            self._send(pid, self._stop_signal)
        self._check_soon()

    def renew(self) -> None:
        """Let others replace all workers that there are now."""
        if not self._ending:
            self.tell_to_stop(self.pool.renew())

    def begin_to_end(self, within: float) -> None:
        """Start no worker any more, and tell all to stop within so many seconds."""
        self._ending = True
        self._deadline = time.monotonic() + within
        self.tell_to_stop(self.pool.stop())
        self._tell_orphans()

    @property
    def is_overdue(self) -> bool:
        """True if some are left after that time."""
        return time.monotonic() >= self._deadline and not self.are_gone

    def kill(self, reason: str) -> None:
        """Kill all that are left, with what they have started, and wait for their ends, 4 seconds at most.

        `reason` is for their log entries.
        """
        self._ending = True
        self._kill_reasons.update(dict.fromkeys(self._channels, reason))
        orphans = self._orphans.find()
        if orphans:
            self._notify(f"sending KILL to what workers have left, PIDs {' '.join(map(str, orphans))}")
        for pid in self._channels:
            self._kill(pid)
        self._orphans.kill(self._channels)
        deadline = time.monotonic() + _KILL_WITHIN
        while self._channels and time.monotonic() < deadline:
            self.loop.turn(deadline - time.monotonic())

    def detach_after_fork(self) -> None:
        """Give up the workers, which are the parent's, in a process that was forked with signals blocked."""
        for channel in self._channels.values():
            channel.close()
        self.loop.detach_after_fork()
        self._orphans.detach_after_fork()
        resource.setrlimit(resource.RLIMIT_NOFILE, self._descriptors)

    def mark(self, environment: MutableMapping[str, str]) -> None:
        """Mark a worker's environment, so that what it starts is found if this process is killed."""
        self._orphans.mark(environment)

    def close(self) -> None:
        """Close the descriptors, and restore the signal handlers."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self._orphans.close()
        self.loop.close()

    def _on_signal(self, number: int, call: Callable[[], None]) -> None:
        self.loop.on_signal(number, call)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])  # the caller may have blocked it

    def _read(self, pid: int, channel: ManagerEnd) -> None:
        words = channel.read()
        if READY in words:
            self._reporting.add(pid)
            self.pool.said_ready(pid)
        if TIMED in words:
            self._timed.add(pid)
            self._check_soon()
        if not words:
            self.loop.unwatch(channel.pipe)  # SIGCHLD tells of its end

    # Exits

    def _reap(self) -> None:
        for pid in list(self._channels):
            try:
                self._end_group(pid)
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # somebody else in this program has asked for its status
                self._has_ended(pid, None)
                continue
            if found:
                self._has_ended(pid, status)
        if os.getpid() != 1:
            self._orphans.reap()
            return
        for pid, status in ended_children():  # of a container: all orphans are ours, even where nothing shows them
            if pid in self._channels:
                self._has_ended(pid, status)

    def _end_group(self, pid: int) -> None:
        """If the worker has ended, tell those that it has left in its group to stop: they have the socket, too."""
        if not self._groups or not hasattr(os, "waitid"):
            return
        # Before it is reaped: until then its number, which is the group's, is nobody else's.
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, self._stop_signal)

    def _has_ended(self, pid: int, status: int | None) -> None:
        channel = self._channels.pop(pid)
        asked = ASKED in channel.read() or status in (signal.SIGTERM, self._stop_signal)
        served = channel.served > 0
        with contextlib.suppress(KeyError):  # it was closed before
            self.loop.unwatch(channel.pipe)
        channel.close()
        for some in (self._reporting, self._timed, self._mentioned):
            some.discard(pid)
        told = self._told_at.pop(pid, None)
        reason = self._kill_reasons.pop(pid, "it was told to stop" if told is not None else "")
        pause = self.pool.ended(pid, time.monotonic(), well=status == 0, served=served, asked=asked)
        text = _exit_text(status) + (f" ({reason})" if reason else "")
        if pause is not None and not self._ending:
            text += f"; another is started in {pause:.1f} s"
        self._exits.append(WorkerExit(pid, text))

    # Checks from time to time

    def _check_soon(self) -> None:
        self._next_check = min(self._next_check, time.monotonic() + _ROUND)

    def _check(self) -> None:
        """Kill workers whose request takes too long; signal those again that may have missed the first signal."""
        now = time.monotonic()
        for pid in self._timed:
            if self._channels[pid].deadline <= now and pid not in self._kill_reasons:
                self._notify(f"server (pid {pid}) has not done its request in time, sending KILL")
                self._kill_reasons[pid] = "its request had taken longer than request_timeout"
                self._kill(pid)
        for pid, since in self._told_at.items():
            if pid in self._reporting:
                # A signal that comes between the last check of signals and the wait for a connection is noticed only
                # when that wait is over. Another one makes no other difference to a worker with our code.
                self._send(pid, self._stop_signal)
            if now - since >= self.patience and pid not in self._mentioned and not self._ending:
                self._mentioned.add(pid)
                self._notify(f"server (pid {pid}) was told to stop {now - since:.0f} s ago and is still there")
        self._next_check = now + _ROUND if self._timed or self._told_at else inf

    def _tell_orphans(self) -> None:
        """Let what ended workers have left end, too. A worker that still has a request may need what it has started."""
        told = self._orphans.tell_to_stop()
        if told:
            name = signal_name(self._stop_signal)
            self._notify(f"sending {name} to what workers have left, PIDs {' '.join(map(str, told))}")

    def _kill(self, pid: int) -> None:
        if self._groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self._send(pid, signal.SIGKILL)

    def _send(self, pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _exit_text(status: int | None) -> str:
    """Return a status of waitpid(2) in words, to be written after the name of the process."""
    if status is None:
        return "has ended, how is not known"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    return f"was killed by SIG{signal_name(-code)}"

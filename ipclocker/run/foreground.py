"""Runs a command transparently: as if the tool that runs it were not there.

The command is a child in the tool's own process group, so the terminal, job control and pipelines see one job.
The tool waits for four things at once: the command's end, a socket of its own, signals, and time. What happens:

    signal                                   before the command runs      while it runs
    sent to the tool alone                   Interrupted, if it ends      passed on
                                             processes by default
    sent by the terminal to the group        the same                     the command has it already
    sent by the command (kill 0)             -                            the command has it already
    the command stops (^Z)                   the tool stops too           the tool stops too
    SIGCONT to the tool                      -                            passed on, if the command still stands
    the command ends                         CommandEnded                 CommandEnded

As process 1 of a container it reaps all orphans.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import stat
import time
from collections.abc import Mapping
from math import inf
from typing import Callable, NoReturn, Protocol, TypeVar

from ..errors import SIGNALLED
from ..process import libc
from ..process.signal_reader import (
    Signal,
    SignalReader,
    ends_by_default,
    foreground_group,
    in_foreground,
    leads_session,
)
from ..process.spawn import CommandProcess
from ..process.tree import descends_from
from ..process.wait import ended_children

Result = TypeVar("Result")
_STOPPED_BY_TERMINAL = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class Pollable(Protocol):
    """An object that can be waited for: a socket, or a loop of many."""

    def fileno(self) -> int: ...


class Interrupted(BaseException):
    """Raised when a signal that ends the tool came before the command was started.

    It is not an Exception: nothing may swallow it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class CommandEnded(BaseException):
    """Raised when the command has ended. It is not an Exception: nothing may swallow it."""


class Foreground:
    """Waits for the command and for all else at once.

    `first`, if set, is called whenever this process wakes up, before anything else is done: it may have been stopped
    until a deadline had passed.
    """

    def __init__(self, child: CommandProcess, tick: Callable[[], None] | None = None) -> None:
        """Take all signals from now on. `tick` is called every second until the command is started."""
        self.first: Callable[[], None] | None = None
        self._child = child
        self._tick = tick
        self._signals = SignalReader()
        _let_go_of_pipes()  # now, since there is nothing to do when the command starts but to start it
        self._started = False
        self._stopped = False
        self._over = False  # from here on nothing is raised any more
        self._status: int | None = None
        os.kill(os.getpid(), signal.SIGCHLD)  # a child may have ended before signals were read

    def start(self, additions: Mapping[str, str | None]) -> None:
        """Let the command run; what is None among the additions to its environment is taken from it."""
        self._tick = None
        self._started = True
        self._child.start(additions)

    def wait(self, sock: Pollable | None, events: int, deadline: float) -> bool:
        """Wait until the socket is ready for the poll(2) events; return False at the deadline (monotonic seconds).

        Raises Interrupted and CommandEnded, each at most once.
        """
        poller = select.poll()
        poller.register(self._signals.descriptor, select.POLLIN)
        if sock is not None:
            poller.register(sock, events)
        while True:
            now = time.monotonic()
            until = min(deadline, now + 1.0) if self._tick is not None else deadline
            ready = poller.poll(None if until == inf else max(0.0, min(until - now, 3600.0)) * 1000)
            if self.first is not None:
                self.first()
            if any(descriptor == self._signals.descriptor for descriptor, _ in ready):
                self._handle_signals()
            if any(descriptor != self._signals.descriptor for descriptor, _ in ready):
                return True
            if time.monotonic() >= deadline:
                return False
            if not ready and self._tick is not None:
                self._tick()

    def interruptibly(self, call: Callable[[], Result]) -> Result:
        """Call a function that may take long; a signal that ends a process by default ends this one meanwhile."""
        with self._signals.by_default():
            return call()

    def run(self, wait: Callable[[], None]) -> None:
        """Call `wait`, again and again, until the command has ended."""
        with contextlib.suppress(CommandEnded):
            self._look_at_children()  # it may have ended before its end was a signal to be read
            while True:
                wait()

    def finish(self) -> None:
        """Let nothing interrupt this process any more: the command is not to be run, or has ended."""
        self._over = True
        if not self._started and self._status is None:
            self._child.dismiss()

    def was_ended_by(self, number: int) -> bool:
        """Tell if the command has ended by this signal."""
        return self._status is not None and os.WIFSIGNALED(self._status) and os.WTERMSIG(self._status) == number

    def end_like_command(self) -> NoReturn:
        """End this process as the command has ended: with its status, or by the same signal."""
        assert self._status is not None
        if os.WIFSIGNALED(self._status):
            end_by_signal(os.WTERMSIG(self._status))
        os._exit(os.WEXITSTATUS(self._status))

    def _handle_signals(self) -> None:
        # What the command did comes last: after a stop of our own a signal from before it would be stale.
        for arrived in sorted(self._signals.read(), key=lambda arrived: arrived.number == signal.SIGCHLD):
            number = arrived.number
            if number == signal.SIGCHLD:
                self._look_at_children()
            elif self._over:
                if not self._started and self._signals.is_deadly(number):
                    end_by_signal(number)  # a second signal, while the lock is given back
            elif number == signal.SIGCONT:
                self._look_at_children()
                if self._stopped:
                    self._pass_on(arrived)
                self._stopped = False
            elif self._started or not ends_by_default(number):
                self._pass_on(arrived)
            elif self._signals.is_deadly(number):
                self._over = True
                raise Interrupted(number)

    def _pass_on(self, arrived: Signal) -> None:
        child = self._child.pid
        if self._status is None and not arrived.to_group and not descends_from(arrived.sender, child):
            with contextlib.suppress(PermissionError):  # it has become another user's; nor could the caller
                os.kill(child, arrived.number)

    def _look_at_children(self) -> None:
        ended = False
        for pid, status in ended_children(os.WUNTRACED | os.WCONTINUED):
            if pid != self._child.pid:
                continue
            if os.WIFSTOPPED(status):
                self._stop_like_command(os.WSTOPSIG(status))
            elif os.WIFCONTINUED(status):
                self._stopped = False
            else:
                self._status = status
                ended = True
        if ended and not self._over:
            self._over = True
            raise CommandEnded

    def _stop_like_command(self, number: int) -> None:
        """Stop this process, too: the shell waits for it, and shall see that the job has stopped."""
        self._stopped = True
        if leads_session():
            return  # there is no shell that would continue this process
        ours, theirs, foreground = os.getpgrp(), os.getpgid(self._child.pid), foreground_group()
        if number in _STOPPED_BY_TERMINAL or foreground in (ours, theirs):
            os.kill(os.getpid(), signal.SIGSTOP)
            if self.first is not None:
                self.first()
            # An interactive shell as the command has a group of its own. Its `suspend` does not give the terminal
            # back, so it expects to have it when it goes on.
            if foreground == theirs != ours and in_foreground():
                foreground_group(give_to=theirs)


def end_by_signal(number: int) -> NoReturn:
    """End this process by a signal, as its parent expects; with 128 + number where that can't be."""
    libc.leave_no_core()  # the core to look at is the command's
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):  # SIGKILL needs neither, and takes neither
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    with contextlib.suppress(OSError):
        os.kill(os.getpid(), number)
    os._exit(SIGNALLED + number)


def _let_go_of_pipes() -> None:
    """Give up our share in the caller's pipes, so that the other end sees when the command closes its own.

    Stderr is kept for messages. Files stay open: closing one would end the caller's locks on it (fcntl(2)).
    """
    with contextlib.suppress(OSError):
        inherited = [number for number in map(int, os.listdir("/dev/fd")) if number != 2]
        null = os.open(os.devnull, os.O_RDWR)
        for number in inherited:
            with contextlib.suppress(OSError):
                mode = os.fstat(number).st_mode
                if os.get_inheritable(number) and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
                    os.dup2(null, number, inheritable=False)
        os.close(null)

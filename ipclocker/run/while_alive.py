"""Ends a command when a process elsewhere has ended: what pidwatch does once its command line was read.

The command runs in the foreground (foreground.py), or it is any process of this host, watched from the background.
Beside it a loop watches the other process (remote_monitor.py, process/exit_watcher.py); when that is gone, the command
is ended (process/termination.py).
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import NoReturn

from ..daemon.detach import detach
from ..errors import INTERNAL, OK, IpclockerError, UsageError
from ..net.loop import Loop
from ..process.exit_watcher import ExitWatcher
from ..process.identity import ProcessIdentity, identify
from ..process.send_signal import send_signal
from ..process.signal_names import signal_name
from ..process.spawn import CommandProcess
from ..process.stderr import print_stderr
from ..process.termination import KillPolicy, Termination
from ..process.tree import can_be_seen
from .foreground import Foreground
from .remote_monitor import MonitorListener, RemoteProcessMonitor, WatchTarget

_LONGEST_WAIT = 3600.0  # seconds; poll(2) takes no infinity as a number


class Reporter(MonitorListener):
    """Prints on stderr what matters, and with `debug` all."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug

    def report(self, text: str) -> None:
        print_stderr(f"pidwatch: {text}")

    def trace(self, text: str) -> None:
        if self._debug:
            self.report(text)


def is_ignored(number: int) -> bool:
    """Tell if the caller had a signal ignored; a command that does not ask for anything else ignores it, too."""
    return signal.getsignal(number) == signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ)


class PidGuard:
    """A loop that watches a process, and ends the command when that is gone."""

    def __init__(
        self,
        command: ProcessIdentity,
        target: WatchTarget,
        watched: ProcessIdentity,
        policy: KillPolicy,
        reporter: Reporter,
    ) -> None:
        """Begin to watch. `watched` is the process with the target's number at the start, if that is of this host."""
        self.loop = Loop()
        self.watcher = ExitWatcher(self.loop)
        self.termination = Termination(self.loop, self.watcher, policy, reporter.report)
        self._command = command
        self._target = target
        self._policy = policy
        self._reporter = reporter
        if policy.tree and not can_be_seen():
            reporter.report("this system does not tell who is below the command: only the command will be signalled")
        reporter.trace(f"process {target.pid} of {target.host} is watched for process {command.pid}")
        if target.port:
            RemoteProcessMonitor(self.loop, target, self._end, reporter)
        else:
            self.watcher.add(watched, self._end)

    def _end(self) -> None:
        name = signal_name(self._policy.signal)
        self._reporter.trace(f"process {self._target.pid} of {self._target.host} is gone")
        pids = self.termination.begin(self._command)
        self._reporter.trace(f"SIG{name} to {', '.join(map(str, pids))}")
        if self._policy.grace is None and is_ignored(self._policy.signal):
            self._reporter.report(
                f"SIG{name} was ignored when pidwatch was started, as nohup does it, and may be by the command: "
                "--signal TERM or --grace would end it"
            )


def run_watched(child: CommandProcess, target: WatchTarget, policy: KillPolicy, debug: bool = False) -> NoReturn:
    """Let the child run, and end this process as the command did."""
    reporter = Reporter(debug)
    watched = identify(target.pid)
    foreground = Foreground(child)
    guard = PidGuard(identify(child.pid), target, watched, policy, reporter)

    def wait() -> None:
        foreground.wait(guard.loop, select.POLLIN, guard.loop.next_timer)
        guard.loop.turn(0.0)

    foreground.start({})
    foreground.run(wait)
    while guard.termination.is_waiting:
        wait()
    foreground.end_like_command()


def watch_in_background(pid: int, target: WatchTarget, policy: KillPolicy, debug: bool = False) -> int:
    """Watch the target for any process of this host, in a new process of the background; return the exit code.

    Raises UsageError if that process could not be sent signals, IpclockerError if there can be no further process.
    """
    command, watched = identify(pid), identify(target.pid)
    try:
        if policy.killer is None:
            send_signal(command, 0)
    except PermissionError:
        raise UsageError(f"process {pid} is another user's, and may not be sent signals (--foreground)") from None
    try:
        if os.fork():
            return OK
    except OSError as error:
        raise IpclockerError(f"cannot go to the background: {error.strerror}") from None
    try:
        detach(keep_stderr=debug)
        _guard_in_background(PidGuard(command, target, watched, policy, Reporter(debug)), command)
        os._exit(OK)
    finally:
        os._exit(INTERNAL)


def _guard_in_background(guard: PidGuard, command: ProcessIdentity) -> None:
    """Watch until the command has ended, or all was done to end it."""
    ended: list[bool] = []
    guard.watcher.add(command, lambda: ended.append(True))
    poller = select.poll()
    poller.register(guard.loop, select.POLLIN)
    while not (ended or guard.termination.begun) or guard.termination.is_waiting:
        due = min(guard.loop.next_timer - time.monotonic(), _LONGEST_WAIT)
        poller.poll(max(due, 0.0) * 1000)
        guard.loop.turn(0.0)

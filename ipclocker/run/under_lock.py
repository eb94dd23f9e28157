"""Runs a command under a lock: what lockersh does once its command line was read."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Callable

from ..errors import LOST, IpclockerError, LockBusy, LockLost, ServerUnavailable
from ..lock.client.acquisition import LockAcquisition
from ..lock.client.connection import READ, ServerConnection
from ..lock.client.settings import LockSettings
from ..lock.grant_variables import grant_variables, space_names
from ..net.text import decode_text, encode_text
from ..process.identity import identify
from ..process.signal_reader import in_foreground
from ..process.spawn import CommandProcess
from ..process.stderr import print_stderr
from .foreground import CommandEnded, Foreground, Interrupted, end_by_signal
from .options import KILL, MARKS, RunOptions

if TYPE_CHECKING:
    from .lock_guard import LockGuard
    from .nested_run import NestedRun
    from .outer_runs import OuterGrant, OuterRuns


_TRIES = 5  # to get a lease that is fresh enough for the command to begin


class Reporter:
    """Prints on stderr how the acquisition goes on: all of it if `verbose`, nothing if `quiet`, else what matters.

    `on_terminal`: True if there is something to show every second. `on_busy` is called when the lock is busy and waited
    for; what it raises ends the acquisition.
    """

    def __init__(self, verbose: bool, quiet: bool = False) -> None:
        self._verbose = verbose
        self._quiet = quiet
        self.on_terminal = verbose and sys.stderr.isatty()
        self.on_busy: Callable[[], None] = lambda: None
        self._waiting_for = ""
        self._since = time.monotonic()

    def waiting(self, name: str, holder: str) -> None:
        """Print that the lock is busy and waited for."""
        if not self._waiting_for:
            self._since = time.monotonic()
        self._waiting_for = name
        self._trace(f"waiting for lock {name}: {holder} holds it")
        self.on_busy()

    def obtained(self) -> None:
        """Print that the lock was granted after a wait."""
        if self._waiting_for:
            self._trace(f"obtained lock after {time.monotonic() - self._since:.1f} s")

    def retry(self, reason: str, left: float) -> None:
        """Print that no server answers, at once; `left` in seconds."""
        if not self._quiet:  # what comes of it will be said
            self.report(f"{reason}; trying again for {left:.0f} s")

    def tick(self) -> None:
        """Print the time waited so far, over what was printed before; not from the background."""
        if self._waiting_for and in_foreground():
            print_stderr(f"\rwaiting for lock {self._waiting_for}: {time.monotonic() - self._since:.0f} s", end="")

    def report(self, text: str) -> None:
        """Print a message that the user should see."""
        start = "\r\033[K" if self.on_terminal else ""
        print_stderr(f"{start}lockersh: {text}")

    def _trace(self, text: str) -> None:
        if self._verbose:
            self.report(f"{time.strftime('%H:%M:%S')} {text}")


def trace_links(say: Callable[[str], None] | None = None) -> None:
    """Print on stderr, or `say`, all that is sent to lock servers and back, from now on."""

    def show(direction: str, data: bytes) -> None:
        for line in data.decode("utf-8", "backslashreplace").split("\n")[:-1]:
            (say or Reporter(False).report)(f"{direction} {line}")

    ServerConnection.trace = show


def list_locks(settings: LockSettings) -> None:
    """Print the locks that are held and their holders, sorted by name. Raises ServerUnavailable, ServerRefused."""
    from ..lock.client.query import query  # only here: a command under a lock does without it

    answer = query(settings, b"LOCK_LIST", retry=Reporter(False).retry).answer
    lines = [f"{decode_text(name):<20} {decode_text(owner)}\n" for name, owner in sorted(answer.locks)]
    sys.stdout.buffer.write(encode_text("".join(lines)))  # as bytes: a name comes out as it was given


def run_locked(child: CommandProcess, settings: LockSettings, options: RunOptions) -> int:
    """Get the lock, let the child run, give the lock back, and end as the command did.

    Returns an exit code only if the command was not run, or was ended because the lock was lost. Raises LockBusy,
    ServerUnavailable, ServerRefused.
    """
    reporter = Reporter(options.verbose, options.quiet)
    foreground = Foreground(child, reporter.tick if reporter.on_terminal else None)
    acquisition = LockAcquisition(settings, reporter, foreground.wait)
    acquisition.subscribes = True
    acquisition.connector.look_up = lambda server: foreground.interruptibly(lambda: settings.addresses(server))
    reporter.on_busy = lambda: _look_for_outer_runs(acquisition, foreground, options.nested)
    run: _Run | NestedRun
    try:
        try:
            acquire(acquisition, reporter, options.wait)
            run = _Run(child, foreground, acquisition, options, reporter)
        except _UnderOuterRun as found:
            from .nested_run import NestedRun  # only here, for an import that most runs do without

            run = NestedRun(child, foreground, found.outer, found.grants, options, reporter.report)
    except Interrupted as interrupted:
        foreground.finish()
        end_by_signal(interrupted.number)
    except CommandEnded:
        foreground.end_like_command()
    except BaseException:
        foreground.finish()
        acquisition.abandon()
        raise
    return run.to_the_end()


def acquire(acquisition: LockAcquisition, reporter: Reporter, longest: float | None) -> None:
    """Get the lock, so that there is time enough for the command to begin.

    Raises LockBusy if it takes longer than `longest` (seconds), and what `on_busy` of the reporter does;
    ServerUnavailable, also if its answers take too long for a lease; ServerRefused.
    """
    deadline = inf if longest is None else time.monotonic() + longest
    for _ in range(_TRIES):
        if not acquisition.acquire(longest != 0, deadline):
            if longest == 0:
                reporter.on_busy()  # who does not wait is not told of a wait
            raise LockBusy(_busy_message(acquisition, longest))
        if not _is_stale(acquisition):
            return
    server, lease = acquisition.connector.server, acquisition.settings.lease
    raise ServerUnavailable(
        f"the lock server {server} takes too long to answer for a lease of {lease:g} s: give a longer --lease"
    )


class _UnderOuterRun(Exception):
    """The lock is held by runs that this one is part of, and the command is to be run under these grants of theirs."""

    def __init__(self, outer: OuterRuns, grants: Sequence[OuterGrant]) -> None:
        super().__init__()
        self.outer = outer
        self.grants = grants


def _look_for_outer_runs(acquisition: LockAcquisition, foreground: Foreground, nested: bool) -> None:
    """Look whether the busy lock is held by a run that this one is part of.

    Raises LockBusy then, or _UnderOuterRun if the command is to be run `nested` in that run.
    """
    from .outer_runs import OuterRuns  # only here: most locks are free

    outer = OuterRuns(acquisition, foreground.wait)
    if not nested:
        outer.refuse()
        return
    grants = outer.to_run_under()
    if grants:
        raise _UnderOuterRun(outer, grants)


def _is_stale(acquisition: LockAcquisition) -> bool:
    """Tell if a lease has run for too long to start the command: this process was stopped, or the answer took long."""
    lease = acquisition.settings.lease
    return lease > 0 and time.monotonic() >= min(held.asked for held in acquisition.grants) + lease / 3


def _busy_message(acquisition: LockAcquisition, wait: float | None) -> str:
    if not acquisition.holder:
        count = len(acquisition.settings.groups)
        return f"it takes longer than {wait:g} s to get {count} locks, though none is busy: give a longer --timeout"
    names = (acquisition.busy,) if acquisition.settings.all else acquisition.settings.names
    waited = f" after {wait:g} s" if wait else ""
    return f"lock {', '.join(map(decode_text, names))} is busy{waited}: {acquisition.holder} holds it"


class _Run:
    """One run of a command under the locks that an acquisition holds."""

    def __init__(
        self,
        child: CommandProcess,
        foreground: Foreground,
        acquisition: LockAcquisition,
        options: RunOptions,
        reporter: Reporter,
    ) -> None:
        self._child = child
        self._foreground = foreground
        self._acquisition = acquisition
        self._options = options
        self._reporter = reporter
        self._names = ", ".join(decode_text(held.name) for held in acquisition.grants)
        self._mark = os.urandom(12).hex()
        self._guard: LockGuard | None = None
        if acquisition.settings.lease:
            self._guard = self._make_guard()  # before the command starts; from here on there is a watchdog
            if self._guard.is_late:
                raise LockLost(f"lock {self._names} was lost before the command began: lockersh was stopped meanwhile")

    def to_the_end(self) -> int:
        """Let the command run, and give the lock back; return the exit code, if it does not end as the command did."""
        self._foreground.start(self._additions())
        self._foreground.run(self._keep)
        guard = self._guard
        if guard is not None:
            guard.finish()
        self._release()
        if guard is not None:
            guard.wait_for_hook()
        if guard is None or not guard.is_ending:
            self._foreground.end_like_command()
        return LOST

    def _additions(self) -> dict[str, str | None]:
        """Return what is added to the command's environment; what is None is taken from it."""
        grants = self._acquisition.grants
        connector = self._acquisition.connector
        assert connector.address is not None
        space = space_names(connector.address, connector.space and connector.space.identity)[0]
        additions = grant_variables(((held.name, held.token) for held in grants), space)
        if self._acquisition.settings.lease or self._options.on_lost == KILL:
            # By this mark its processes are found again; those of a run within this run have both.
            outer = os.environ.get(MARKS)
            additions[MARKS] = f"{outer}:{self._mark}" if outer else self._mark
        return additions

    def _keep(self) -> None:
        """Wait while the command runs."""
        if self._guard is None:
            if any(held.token is None for held in self._acquisition.grants):
                self._foreground.wait(None, 0, inf)  # a classic server has nothing to say
                return
            connection = self._acquisition.connector.connection
            if connection is not None and not connection.has_unread:
                self._foreground.wait(connection.sock, READ, inf)
            self._guard = self._make_guard()  # only now: most commands end before there is anything to hear
        self._guard.step()

    def _make_guard(self) -> LockGuard:
        from .lock_guard import LockGuard

        additions = {name: value for name, value in self._additions().items() if value is not None and name != MARKS}
        command = identify(self._child.pid)
        return LockGuard(
            self._foreground, command, self._mark, self._acquisition, self._options, additions, self._reporter.report
        )

    def _release(self) -> None:
        acquisition, guard = self._acquisition, self._guard
        within = acquisition.connector.patient(self._options.release_within)
        loss = None if guard is None else guard.loss
        if guard is not None and loss is not None and not loss.recalled:
            guard.give_back(within)
            return
        until = min(held.until for held in acquisition.grants)
        try:
            # A server that sees the command's end by itself has freed the lock by now, which is no loss.
            if not acquisition.release(within) and loss is None and time.monotonic() >= until:
                self._reporter.report(f"lock {self._names} was lost before the command ended: its hold time was over")
        except IpclockerError as error:
            self._reporter.report(
                f"lock {self._names} could not be given back in {within:g} s ({error}): it stays held until the "
                "server finds that the command is gone"
            )

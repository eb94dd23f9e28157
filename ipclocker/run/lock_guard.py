"""Keeps the lock while a command runs under it, and acts if the lock is lost.

With a lease the command is ended before the server can grant the lock to anybody else (lock/client/lease.py has the
times). These times go before all else: they are checked whenever this process wakes up, nothing here waits beyond the
next of them, and a watchdog checks them, too, in case that this process is stopped. Without a lease the user decides.
"""

from __future__ import annotations

import signal
import time
from math import inf
from typing import Callable, Optional, Protocol

from ..errors import IpclockerError
from ..lock.client.acquisition import LockAcquisition
from ..lock.client.keepalive import KeepAlive, LockLoss
from ..lock.client.lease import Lease
from ..net.text import decode_text
from ..process.identity import ProcessIdentity
from ..process.signal_names import signal_name
from ..process.tree_killer import TreeKiller
from ..process.watchdog import STANDS_BY, Watchdog
from .foreground import Pollable
from .on_lost_hook import OnLostHook
from .options import GRACE, KILL, MARKS, WARN, RunOptions

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25  # seconds between two searches for what is left: each reads all of /proc


class Waiting(Protocol):
    """The one who waits for the command's end, as Foreground does, and for all else at once."""

    first: Optional[Callable[[], None]]

    def wait(self, sock: Pollable | None, events: int, deadline: float) -> bool:
        """Wait for the socket as well; False at the deadline. It may raise, as when the command has ended."""

    def was_ended_by(self, number: int) -> bool:
        """Tell if the command has ended by this signal."""


def new_watchdog(command: ProcessIdentity, mark: str, deadline: float = STANDS_BY) -> Watchdog:
    """Start a watchdog that ends a command and what carries its mark. Raises IpclockerError if there can be none."""
    return Watchdog(deadline, lambda: TreeKiller(command, MARKS, mark).kill_all())


class LockGuard:
    """Guards the lock of one command, which may run already. `loss` is set if the lock was lost."""

    def __init__(
        self,
        foreground: Waiting,
        command: ProcessIdentity,
        mark: str,
        acquisition: LockAcquisition,
        options: RunOptions,
        additions: dict[str, str],
        report: Callable[[str], None],
        watchdog: Watchdog | None = None,
    ) -> None:
        """Begin to renew the lock, if it has a lease.

        `mark` is in the command's environment; `additions` are for the environment of what is run because of a loss.
        `report` is called with messages for people. A `watchdog` for a lease may stand by already. Raises
        IpclockerError if there can be none.
        """
        self.loss: LockLoss | None = None
        self._foreground = foreground
        self._acquisition = acquisition
        self._options = options
        self._additions = additions
        self._report = report
        self._names = ", ".join(decode_text(held.name) for held in acquisition.grants)
        self._tree_killer = TreeKiller(command, MARKS, mark, report)
        self._kill_at = inf
        self._killed = False
        self._hook: OnLostHook | None = None
        self._lease: Lease | None = None
        self._watchdog: Watchdog | None = None
        if acquisition.settings.lease:
            lease = self._lease = Lease(acquisition.settings.lease, min(held.asked for held in acquisition.grants))
            self._watchdog = watchdog or new_watchdog(command, mark, lease.kill_at)
            self._watchdog.set_deadline(lease.kill_at)
            foreground.first = self._check_time
        self._keepalive = KeepAlive(acquisition.connector, acquisition.grants, self._lease)

    @property
    def is_ending(self) -> bool:
        """True if the command was told to end, or was killed."""
        return self._kill_at < inf

    @property
    def is_late(self) -> bool:
        """True if the lease was not renewed for so long that the command has to be ended."""
        return self._lease is not None and time.monotonic() >= self._lease.stop_at

    def step(self) -> None:
        """Do what is to be done next, or wait for it; to be called again and again until the command has ended."""
        self._check_time()
        if self.loss is not None or self._tree_killer.has_ended:
            # A server that sees the command's end by itself frees the lock, and says so: that is no loss.
            self._foreground.wait(None, 0, inf if self._killed else self._kill_at)
            return
        lease = self._lease
        self._keepalive.step(inf if lease is None else lease.stop_at)
        if self._keepalive.loss is not None:
            if not self._tree_killer.has_ended:
                self._lose(self._keepalive.loss)
        elif lease is not None:
            self._set_watchdog(lease.kill_at)

    def finish(self) -> None:
        """End what a command that was made to end has left behind, and the watchdog: the command has ended."""
        if self.loss is None and self._was_killed_by_watchdog():
            self._lose(self._overdue())
        if self.is_ending:
            self._tree_killer.signal_rest(self._options.lost_signal)
            pause = _FIRST_PAUSE
            while time.monotonic() < self._kill_at and self._tree_killer.find_remaining():
                self._foreground.wait(None, 0, min(self._kill_at, time.monotonic() + pause))
                pause = min(pause * 2, _LONGEST_PAUSE)
            self._tree_killer.kill_all()
        self._keepalive.close()
        self._foreground.first = None
        if self._watchdog is not None:
            self._watchdog.disarm()

    def give_back(self, within: float) -> None:
        """Give back what the server may still hold for it, within so many seconds, but not longer than the lease."""
        if self._lease is not None:
            within = min(within, self._lease.expires_at - time.monotonic())
        if within > 0 and (self._lease is not None or len(self._acquisition.grants) > 1):
            self._acquisition.abandon(within)

    def wait_for_hook(self) -> None:
        """Wait for the end of what was run because of the loss, 5 seconds at most."""
        if self._hook is not None:
            self._hook.wait(lambda until: (self._foreground.wait(None, 0, until), None)[1])

    def _check_time(self) -> None:
        if self.is_late and self.loss is None and not self._tree_killer.has_ended:
            self._lose(self._overdue())
        if time.monotonic() >= self._kill_at and not self._killed:
            self._kill()
            self._report("the command has not ended in time: it is killed, and all that it has started")

    def _overdue(self) -> LockLoss:
        assert self._lease is not None
        since = time.monotonic() - self._lease.sent
        problem = self._keepalive.problem or "lockersh itself was stopped"
        return LockLoss(self._names, f"it could not be renewed for {since:.0f} s ({problem})")

    def _was_killed_by_watchdog(self) -> bool:
        is_over = self._lease is not None and time.monotonic() >= self._lease.kill_at
        return is_over and self._foreground.was_ended_by(signal.SIGKILL)

    def _lose(self, loss: LockLoss) -> None:
        """Act on a loss: end the command first, then report it."""
        self.loss = loss
        now = time.monotonic()
        number = self._options.lost_signal
        if self._lease is not None:
            self._lease.end(now)
            self._kill_at = self._lease.kill_at
        elif self._options.on_lost == KILL:
            self._kill_at = now + GRACE
        outcome = ""
        if now >= self._kill_at:
            self._kill()
            outcome = "; it is killed"
        elif self.is_ending:
            self._tree_killer.signal_command(number)
            outcome = f"; it gets SIG{signal_name(number)}"
        self._set_watchdog(self._kill_at)
        self._report(f"lock {loss.name} was lost while the command runs: {loss.why}{outcome}")
        if self._options.on_lost not in (WARN, KILL):
            self._hook = OnLostHook(self._options.on_lost, self._additions, self._report)

    def _set_watchdog(self, deadline: float) -> None:
        """Tell the watchdog the deadline; the command is ended if it was killed and there can't be another one."""
        try:
            if self._watchdog is not None:
                self._watchdog.set_deadline(deadline)
        except IpclockerError as error:
            if self.loss is None:
                self._lose(LockLoss(self._names, str(error)))

    def _kill(self) -> None:
        self._killed = True
        self._tree_killer.kill_all()

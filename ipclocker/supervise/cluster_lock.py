"""The lock that lets programs run on one of many hosts at a time, held by a thread beside the loop.

The thread does what may take its time: it waits for the lock, and gives it back. The loop checks the lease by itself,
on its own clock: when that was not renewed for two thirds of its time, what runs under the lock is told to end,
whatever the thread may be waiting for. It is dead before the server can grant the lock to another host
(lock/client/lease.py).

The server is told which process this is, but not to free the lock at once when that is gone: programs of ours that
are not its children might still be dying then. So after a crash the lock is free when the lease has run out, and after
an end in good order at once. If this process is stopped while its programs run on, a watchdog (process/watchdog.py)
kills them in time.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, Protocol

from ..errors import IpclockerError
from ..lock.client.lease import Lease
from ..lock.client.locker import Locker
from ..net.loop import Loop, Timer
from ..process.restart_policy import RestartPolicy
from ..process.watchdog import Watchdog

log = logging.getLogger(__name__)
_CHECK = 1 / 6  # of the lease, between two checks: it is renewed each third, and may be late by half of that
_TRY_FOR = 30.0  # seconds in which servers that do not answer are tried without a word
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 5.0  # seconds before the lock is asked for again: a server may be starting


class ClusterLockListener(Protocol):
    """The receiver of what becomes of the lock. All is called in turns of the loop."""

    def granted(self, name: str, token: int | None) -> None:
        """Let programs run: the lock is held. `token`: its fencing token, if the server has them."""

    def lost(self, kill_at: float) -> None:
        """End what runs: the lock is lost. All has to be dead at `kill_at` (monotonic seconds)."""

    def given_back(self) -> None:
        """Take note that the lock was given back, as far as that was possible."""


class ClusterLock:
    """Asks for the lock again and again, until `give_back` is called."""

    def __init__(
        self,
        loop: Loop,
        parameters: dict[str, Any],
        listener: ClusterLockListener,
        chance: Callable[[], float],
        kill: Callable[[], None],
    ) -> None:
        """Start the thread that waits for the lock.

        `parameters` are those of a Locker, with a lease; they were checked. `chance` is that of a RestartPolicy.
        `kill` is called in the watchdog's process, if this one can't end the programs in time.
        """
        self.name = ""  # of the lock that is held, while programs may run
        self.token: int | None = None
        self._loop = loop
        self._lease = float(parameters["lease"])
        self._listener = listener
        self._until = 0.0  # when the lease is over, as far as the loop knows: it may have been renewed since
        self._locker = Locker(connect_tries=2, connect_delay=_TRY_FOR / 2, print_retry=_log_retry, **parameters)
        self._policy = RestartPolicy(chance, first_pause=_FIRST_PAUSE, longest_pause=_LONGEST_PAUSE)
        self._may_ask = threading.Event()  # what ran under the lock has ended
        self._is_lost = False  # and what ran under it has not ended yet
        self._ending = False
        self._timer = Timer()  # of the next check
        self._kill = kill
        self._watchdog: Watchdog | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def ask_again(self) -> None:
        """Ask for a lost lock again: what ran under it has ended. Does nothing if none was lost."""
        if self._is_lost:
            self._is_lost = False
            self._disarm()
            self._wake()

    def give_back(self) -> None:
        """Give the lock back: what ran under it has ended for good."""
        self._ending = True
        self._timer.cancel()
        self._disarm()
        if self.name or self._is_lost:
            self._wake()
        else:
            self._loop.call_at(self._loop.now, self._listener.given_back)

    def close(self) -> None:
        """End the use of the loop, which is closed next. A thread that gets the lock later gives it back."""
        self._ending = True
        self._timer.cancel()
        self._wake()

    # In the loop

    def _wake(self) -> None:
        """Let the thread go on, which waits for a loss and for the end of what ran under the lock."""
        self._locker.lost.set()
        self._may_ask.set()

    def _was_granted(self, name: str, token: int | None) -> None:
        if self._ending:
            return
        self.name, self.token = name, token
        log.info("the lock %s is ours%s", name, "" if token is None else f", token {token}")
        self._check()
        if self.name:
            self._listener.granted(name, token)

    def _was_lost(self) -> None:
        """The server has said so, or nothing for too long."""
        if self.name and not self._ending:
            self._lose()

    def _check(self) -> None:
        until = self._locker.until
        if until > 0.0:
            self._until = until
        lease = self._known_lease()
        if until == 0.0 or self._loop.now >= lease.stop_at or not self._set_watchdog(lease.kill_at):
            self._lose()
        else:
            next_check = min(lease.stop_at, self._loop.now + self._lease * _CHECK)
            self._timer = self._loop.call_at(next_check, self._check)

    def _lose(self) -> None:
        lease = self._known_lease()
        lease.end(self._loop.now)
        log.error("the lock %s is lost: the programs are ended", self.name)
        self._timer.cancel()
        if self._watchdog is not None:
            self._set_watchdog(lease.kill_at)
        self.name, self.token = "", None
        self._is_lost = True
        self._listener.lost(lease.kill_at)

    def _set_watchdog(self, kill_at: float) -> bool:
        """Let the watchdog kill programs at that time; return False if there can't be one."""
        try:
            if self._watchdog is None:
                self._watchdog = Watchdog(kill_at, self._kill)
            self._watchdog.set_deadline(kill_at)
        except IpclockerError as error:
            log.error("%s", error)
            return False
        return True

    def _disarm(self) -> None:
        if self._watchdog is not None:
            self._watchdog.disarm()
            self._watchdog = None

    def _known_lease(self) -> Lease:
        return Lease(self._lease, self._until - self._lease)

    # In the thread

    def _run(self) -> None:
        while True:
            self._acquire()
            if not self._ending:
                name, token = self._locker.lock_name(), self._locker.token
                self._loop.call_from_thread(lambda name=name, token=token: self._was_granted(name, token))  # type: ignore[misc]
                self._locker.lost.wait()
                self._loop.call_from_thread(self._was_lost)
                self._may_ask.wait()
                self._may_ask.clear()
            self._release()
            if self._ending:
                self._loop.call_from_thread(self._listener.given_back)
                return
            time.sleep(self._policy.died(time.monotonic()))  # whatever it was, it may be so again

    def _acquire(self) -> None:
        while True:
            try:
                if self._locker.lock() is not None:
                    self._policy.started(time.monotonic())
                    return
                log.warning("the lock server says that the lock is busy, instead of letting us wait for it")
                time.sleep(self._policy.died(time.monotonic()))
            except IpclockerError as error:
                pause = self._policy.died(time.monotonic())
                log.warning("%s; trying again in %.0f s", error, pause)
                time.sleep(pause)
            except Exception:
                log.exception("a fault of ours while the lock is waited for")
                time.sleep(self._policy.died(time.monotonic()))

    def _release(self) -> None:
        try:
            self._locker.unlock()
        except IpclockerError as error:
            log.warning("the lock could not be given back (%s): it is free when its lease is over", error)
        except Exception:
            log.exception("a fault of ours while the lock is given back")


def _log_retry(locker: Locker) -> None:
    log.warning("no lock server answers; trying again for %.0f s", _TRY_FOR)

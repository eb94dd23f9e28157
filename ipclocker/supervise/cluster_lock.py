"""The right to run, on one of many hosts at a time: a cluster lock, held by a thread beside the loop.

The thread does what may take its time: waits for the lock, gives it back. The loop looks at the lease by itself, on
its own clock: what runs under the lock is told to end when that was not renewed for two thirds of its time, whatever
the thread may be waiting for, and is dead before the server can grant it to somebody else (lock/client/lease.py).

The server is told which process this is, but not to free the lock at once when that is gone: programs of ours that
are not its children might still be dying then. So after a crash the lock is free when the lease has run out, and after
an end in good order at once. Should this process be stopped while its programs run on, a deputy (process/watchdog.py)
kills them in time.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from typing import Any, Callable, Protocol

from ..errors import IpclockerError
from ..lock.client.lease import Lease
from ..lock.client.locker import Locker
from ..net.loop import READ, Loop, Timer
from ..process.restart_policy import RestartPolicy
from ..process.watchdog import Watchdog

log = logging.getLogger(__name__)
_LOOK = 1 / 6  # of the lease, between two looks at whether it was renewed
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds before the lock is asked for again


class ClusterLockListener(Protocol):
    """Who hears of the right to run. All is called in the loop's own time."""

    def granted(self, names: str, token: int | None) -> None:
        """From now on."""

    def lost(self, kill_at: float) -> None:
        """No more: what runs is to end, and is to be dead at `kill_at` (monotonic seconds)."""

    def given_back(self) -> None:
        """The lock was given back, as far as that could be."""


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
        """`parameters` are those of a Locker, with a lease; they were checked. `kill` is what the deputy calls."""
        self.name = ""  # of the lock that is held
        self.token: int | None = None
        self._loop = loop
        self._lease = float(parameters["lease"])
        self._listener = listener
        self._until = 0.0  # when the lease is over, as far as the loop knows: it may have been renewed since
        self._locker = Locker(connect_tries=1, print_retry=_say_nothing, **parameters)
        self._policy = RestartPolicy(chance, first_pause=_FIRST_PAUSE, longest_pause=_LONGEST_PAUSE)
        self._again = threading.Event()  # what ran under the lock has ended: it may be asked for anew
        self._is_lost = False  # and what ran under it has not ended yet
        self._ending = False
        self._timer: Timer | None = None
        self._kill = kill
        self._watchdog: Watchdog | None = None
        self._news: deque[Callable[[], None]] = deque()
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        loop.watch(self._receiver, READ, self._take)
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def is_held(self) -> bool:
        """Whether programs may run."""
        return bool(self.name)

    def ask_again(self) -> None:
        """What ran under a lock that is lost has ended; nothing, if none was lost."""
        if self._is_lost:
            self._is_lost = False
            self._dismiss()
            self._wake()

    def give_back(self) -> None:
        """What runs under the lock has ended for good."""
        self._ending = True
        self._stop_watching()
        self._dismiss()
        if self.is_held or self._is_lost:
            self._wake()
        else:
            self._loop.call_at(self._loop.now, self._listener.given_back)

    def close(self) -> None:
        """Nobody is called any more. A thread that waits for the lock gives it back if it gets it."""
        self._ending = True
        self._stop_watching()
        self._wake()
        self._loop.unwatch(self._receiver)
        self._receiver.close()

    # In the loop

    def _wake(self) -> None:
        """Let the thread go on, which waits for a loss and for the end of what ran under the lock."""
        self._locker.lost.set()
        self._again.set()

    def _take(self, events: int) -> None:
        self._receiver.recv(4096)
        while self._news:
            self._news.popleft()()

    def _was_granted(self, name: str, token: int | None) -> None:
        if self._ending:
            return
        self.name, self.token = name, token
        log.info("the lock %s is ours%s", name, "" if token is None else f", token {token}")
        self._look()
        if self.is_held:
            self._listener.granted(name, token)

    def _was_lost(self) -> None:
        """The server has said so, or nothing for too long."""
        if self.is_held and not self._ending:
            self._lose()

    def _look(self) -> None:
        """Whether the lock is still held."""
        self._timer = None
        until = self._locker.until
        if until > 0.0:
            self._until = until
        lease = self._known_lease()
        if until == 0.0 or self._loop.now >= lease.stop_at or not self._instruct(lease.kill_at):
            self._lose()
        else:
            again = min(lease.stop_at, self._loop.now + self._lease * _LOOK)
            self._timer = self._loop.call_at(again, self._look)

    def _lose(self) -> None:
        lease = self._known_lease()
        lease.end(self._loop.now)
        log.error("the lock %s is lost: the programs are ended", self.name)
        self._stop_watching()
        if self._watchdog is not None:
            self._watchdog.set_deadline(lease.kill_at)
        self.name, self.token = "", None
        self._is_lost = True
        self._listener.lost(lease.kill_at)

    def _instruct(self, kill_at: float) -> bool:
        """Tell the deputy how long programs may run; False if there can be none."""
        if self._watchdog is not None:
            self._watchdog.set_deadline(kill_at)
            return True
        try:
            self._watchdog = Watchdog(kill_at, self._kill)
        except IpclockerError as error:
            log.error("%s", error)
            return False
        return True

    def _dismiss(self) -> None:
        if self._watchdog is not None:
            self._watchdog.disarm()
            self._watchdog = None

    def _known_lease(self) -> Lease:
        return Lease(self._lease, self._until - self._lease)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # In the thread

    def _run(self) -> None:
        while True:
            self._obtain()
            if not self._ending:
                name, token = self._locker.lock_name(), self._locker.token
                self._tell(lambda name=name, token=token: self._was_granted(name, token))  # type: ignore[misc]
                self._locker.lost.wait()
                self._tell(self._was_lost)
                self._again.wait()
                self._again.clear()
            self._unlock()
            if self._ending:
                self._tell(self._listener.given_back)
                return
            time.sleep(self._policy.died(time.monotonic()))  # whatever it was, it may be so again

    def _obtain(self) -> None:
        while True:
            try:
                self._locker.lock()
                self._policy.started(time.monotonic())
                return
            except IpclockerError as error:
                pause = self._policy.died(time.monotonic())
                log.warning("%s; trying again in %.0f s", error, pause)
                time.sleep(pause)
            except Exception:
                log.exception("a fault of ours while the lock is waited for")
                time.sleep(self._policy.died(time.monotonic()))

    def _unlock(self) -> None:
        try:
            self._locker.unlock()
        except IpclockerError as error:
            log.warning("the lock could not be given back (%s): it is free when its lease is over", error)
        except Exception:
            log.exception("a fault of ours while the lock is given back")

    def _tell(self, what: Callable[[], None]) -> None:
        self._news.append(what)
        try:
            self._sender.send(b".")
        except OSError:  # nobody listens any more
            log.debug("process %d has nobody to tell", os.getpid())


def _say_nothing(locker: Locker) -> None:
    """The log says it."""

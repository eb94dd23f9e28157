"""Locker, the class for programs: a lock across hosts, with the methods of IPC::Locker and of threading.Lock.

Each Locker has an acquisition of its own, so two Lockers of one process exclude each other like those of two hosts,
and one Locker in two threads behaves as a threading.Lock does. A fork does not hold its parent's lock: in the child
a Locker begins as a new one.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref
from math import inf
from threading import Event, get_ident
from threading import Lock as ThreadLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, TypedDict

from ...errors import IpclockerError, LockBusy, LockLost, NotHeld, ServerUnavailable, UsageError
from ..wire.replies import Answer
from .acquisition import LockAcquisition
from .connection import Wait, wait_ready
from .query import query
from .settings import LockerParameters, LockSettings

if TYPE_CHECKING:
    from typing import Unpack

    from .renewal_thread import RenewalThread

_lockers_made = 0


class PingStatus(TypedDict):
    """The result of a ping: `ok` is True if a lock server answers; `status` says how fast, or what is wrong."""

    ok: bool
    status: str


class _OnClassToo:
    """A method that, called on the class, is called on a Locker that tries once."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, locker: Locker | None, kind: type[Locker]) -> Callable[..., Any]:
        def call(*words: Any, **parameters: Unpack[LockerParameters]) -> Any:
            once: LockerParameters = {"connect_tries": 1, **parameters}
            return self._method(Locker(**once) if locker is None else locker, *words)

        return call


class Locker:
    """A lock, or the first that is free of several, which at most one Locker of the cluster holds at a time.

    It takes the parameters of IPC::Locker, and some more, which `LockerParameters` explains. `wait` replaces the way it
    waits for the network: a callable (socket, events, deadline) -> bool, as `connection.wait_ready` is.

    Methods that ask a server raise ServerUnavailable if none answers within the tries, ServerRefused if it answers
    with an error.

    `lost` is a threading.Event, set when the lock that is held, or was held last, is known to be lost. With a `lease`
    that is known as soon as the server says so, or the lease could not be renewed for two thirds of its time.
    """

    def __init__(self, *, wait: Wait = wait_ready, **parameters: Unpack[LockerParameters]) -> None:
        global _lockers_made
        _lockers_made += 1
        # A classic server knows no sessions, so there the name must tell the Lockers of a process apart.
        self._suffix = f"~{_lockers_made}" if _lockers_made > 1 else ""
        self._wait = wait
        self._settings = LockSettings(**parameters)
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._acquisition = LockAcquisition(self._settings, _Messages(self), self._wait, self._suffix)
        self._thread_lock = ThreadLock()  # taken by the thread that asks for the lock, until it releases it
        self._holding_thread = 0  # the identity of that thread
        self._renewal: RenewalThread | None = None
        self.lost = Event()

    # As IPC::Locker has it

    def lock(self, **parameters: Unpack[LockerParameters]) -> Locker | None:
        """Get the lock, and return the Locker itself; None if the lock is busy and `block` is false.

        With `block` it waits without a limit. A lock that is held already is renewed. Raises ServerUnavailable,
        ServerRefused, UsageError.
        """
        self._check_process()
        self._change(**parameters)
        if self._acquisition.held is not None and self._holding_thread == get_ident():
            return self if self._renew() else None
        return self if self._acquire(self._settings.block, inf) else None

    def locked(self) -> bool:
        """Return True if the lock was obtained, not released, and its hold time is not over; no server is asked."""
        self._check_process()
        return time.monotonic() < self.until

    @property
    def until(self) -> float:
        """The end of the hold time, if nobody breaks the lock before: seconds, monotonic; 0 if it is not held."""
        self._check_process()
        if not self._acquisition.grants:
            return 0.0
        if self._renewal is not None:
            loss = self._renewal.loss
            return self._renewal.lease.expires_at if loss is None or loss.recalled else 0.0
        return min(held.until for held in self._acquisition.grants)

    def lock_name(self) -> str:
        """The name of the lock that is held, or the first of those that are asked for; with `all`, all, by spaces."""
        self._check_process()
        if self._settings.all:
            return os.fsdecode(b" ".join(name for (name,) in self._settings.groups))
        held = self._acquisition.held
        return os.fsdecode(self._settings.names[0] if held is None else held.name)

    @property
    def token(self) -> int | None:
        """The fencing token of the grant: greater than that of all earlier ones; None from a classic server."""
        self._check_process()
        held = self._acquisition.held
        return None if held is None else held.token

    @property
    def tokens(self) -> dict[str, int | None]:
        """The fencing token of each lock that is held."""
        self._check_process()
        return {os.fsdecode(held.name): held.token for held in self._acquisition.grants}

    @_OnClassToo
    def check(self, name: str, token: int) -> bool:
        """Ask whether the grant of that name with that token still stands, so that its holder may go on.

        Raises ServerUnavailable, also if the server knows no tokens, ServerRefused, UsageError.
        """
        from .inspector import Inspector

        inspector = Inspector(self._settings)
        stands = inspector.is_current(name, token)
        if stands is None:
            raise ServerUnavailable(f"the lock server {inspector.server} knows no tokens: use one of this release")
        return stands

    def unlock(self) -> Locker:
        """Release the lock, if it is held. Raises ServerUnavailable if the server does not answer within 5 s."""
        self._check_process()
        if self._acquisition.held is not None:
            self._release()
        return self

    @_OnClassToo
    def ping(self) -> bool:
        """Return True if a lock server answers."""
        return bool(self.ping_status()["ok"])

    @_OnClassToo
    def ping_status(self) -> PingStatus:
        """Ask a lock server for its version, and say how fast it answers, or what is wrong; raises nothing."""
        start = time.monotonic()
        try:
            _, server = self._query(b"VERSION")
        except IpclockerError as error:
            return {"ok": False, "status": str(error)}
        return {"ok": True, "status": f"{time.monotonic() - start:.3f} second response on {server}"}

    def break_lock(self) -> None:
        """Free the lock even if another one holds it. Raises ServerUnavailable, ServerRefused."""
        self._query(b"BREAK_LOCK")

    def owner(self, **parameters: Unpack[LockerParameters]) -> str | None:
        """Ask for the holder of the lock, None if it is free; it may be another one by the time that you read it."""
        self._change(**parameters)
        return os.fsdecode(self._query(b"STATUS")[0].owner) or None

    def lock_list(self) -> list[tuple[str, str]]:
        """The name and the owner of each lock that is held on the server."""
        return [(os.fsdecode(name), os.fsdecode(owner)) for name, owner in self._query(b"LOCK_LIST")[0].locks]

    def dead_pid(self, host: str, pid: int) -> None:
        """Report to the server that a process of a host is gone; it frees the process's locks if it can believe it."""
        # The command has no answer of its own. One that has comes behind it, so that it is done on return.
        self._query(b"DEAD_PID %b %d\nVERSION" % (os.fsencode(host), pid))

    # As threading.Lock has it

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Get the lock, as threading.Lock.acquire does; False if it is busy, after `timeout` seconds if it is blocking.

        A timeout of -1 waits without a limit. Raises ValueError for any other negative timeout and for a timeout
        without blocking, ServerUnavailable, ServerRefused.
        """
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout < 0 and timeout != -1:
            raise ValueError("timeout value must be a non-negative number")
        self._check_process()
        return self._acquire(blocking and timeout != 0, inf if timeout == -1 else time.monotonic() + timeout)

    def release(self) -> None:
        """Release the lock. Raises NotHeld if it is not held, LockLost if it was lost meanwhile, ServerUnavailable."""
        self._check_process()
        if self._acquisition.held is None:
            raise NotHeld(f"cannot release the lock '{self.lock_name()}': it is not held")
        name = self.lock_name()
        if not self._release():
            raise LockLost(f"the lock '{name}' was lost while it was held: it was broken, or its time was up")

    def __enter__(self) -> Locker:
        """Get the lock, unless this thread has it already. Raises LockBusy if it is busy and `block` is false."""
        self._check_process()
        if self._acquisition.held is not None and self._holding_thread == get_ident():
            return self  # with Locker(...).lock(): it was obtained on the way here
        if not self._acquire(self._settings.block, inf):
            raise LockBusy(f"the lock '{self.lock_name()}' is busy: {self._acquisition.holder} holds it")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the lock. Raises LockLost if it was lost, unless the body raised an error of its own."""
        if kind is None:
            self.release()
        else:
            with contextlib.suppress(IpclockerError):
                self.unlock()

    def __del__(self) -> None:
        acquisition = getattr(self, "_acquisition", None)
        if acquisition is None:
            return
        with contextlib.suppress(Exception):
            if self._process == os.getpid():
                self._stop_renewing()
                if acquisition.held is not None and self._settings.destroy_unlock:
                    acquisition.release(within=1.0)
        with contextlib.suppress(Exception):
            acquisition.connector.close()

    # Inside

    def _check_process(self) -> None:
        if self._process != os.getpid():
            self._acquisition.connector.close()
            if self._renewal is not None:
                self._renewal.abandon()
            self._reset()

    def _change(self, **parameters: Unpack[LockerParameters]) -> None:
        if not parameters:
            return
        settings = self._settings.changed(**parameters)
        if self._acquisition.held is not None and settings.names != self._settings.names:
            raise UsageError(f"the lock '{self.lock_name()}' is held: unlock it before you ask for another")
        self._settings = self._acquisition.settings = settings

    def _acquire(self, wait: bool, deadline: float) -> bool:
        left = -1 if deadline == inf else max(0.0, deadline - time.monotonic())
        if not self._thread_lock.acquire(wait, left if wait else -1):
            return False
        try:
            got = self._acquisition.acquire(wait, deadline)
        except BaseException as error:
            self._thread_lock.release()
            if isinstance(error, ServerUnavailable) and self._settings.print_down is not None:
                self._settings.print_down(self)
            raise
        if got:
            self._holding_thread = get_ident()
            self._start_renewing()
        else:
            self._thread_lock.release()
        return got

    def _renew(self) -> bool:
        self._stop_renewing()
        try:
            return self._acquisition.acquire(self._settings.block, inf)
        finally:
            if self._acquisition.held is None:
                self.lost.set()
                self._thread_lock.release()
            else:
                self._start_renewing()

    def _release(self) -> bool:
        """Release the lock; False if it was lost before."""
        self._stop_renewing()
        try:
            if not self._acquisition.release():
                self.lost.set()
        except ServerUnavailable:
            if not self.lost.is_set():
                raise
        finally:
            self._thread_lock.release()
        return not self.lost.is_set()

    def _start_renewing(self) -> None:
        self.lost.clear()
        if self._settings.lease:
            from .renewal_thread import RenewalThread  # only here: most do without

            self._renewal = RenewalThread(self._acquisition, self.lost)

    def _stop_renewing(self) -> None:
        if self._renewal is not None:
            self._renewal.stop()
            self._renewal = None

    def _query(self, command: bytes) -> tuple[Answer, str]:
        messages = _Messages(self)
        return query(
            self._settings,
            command,
            wait=self._wait,
            retry=messages.retry,
            on_broken=messages.broke,
            suffix=self._suffix,
        )


class _Messages:
    """The AcquisitionListener of a Locker: calls its print_ functions.

    It refers to its Locker weakly, so that a Locker that nobody uses any more is deleted, and unlocks.
    """

    def __init__(self, locker: Locker) -> None:
        self._locker = weakref.ref(locker)

    def waiting(self, name: str, holder: str) -> None:
        """Say that the lock is busy and waited for."""
        self._print("print_waiting", f"waiting for lock {name}: {holder} holds it", name)

    def obtained(self) -> None:
        """Say that the lock was granted after a wait."""
        self._print("print_obtained", "obtained the lock")

    def broke(self, holder: bytes) -> None:
        """Say from whom a lock was taken."""
        self._print("print_broke", f"broke the lock of {os.fsdecode(holder)}")

    def retry(self, reason: str, pause: float) -> None:
        """Say that no server answers, and when they are tried again."""
        self._print("print_retry", f"{reason}; trying again in {pause:.0f} s", always=True)

    def _print(self, kind: str, text: str, *details: str, always: bool = False) -> None:
        locker = self._locker()
        if locker is None:
            return
        message = locker._settings.messages[kind]
        if message is not None:
            message(locker, *details)
        elif always or locker._settings.verbose:
            print(text, file=sys.stderr, flush=True)

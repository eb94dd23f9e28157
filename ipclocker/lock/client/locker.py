"""Locker: a lock that is held across hosts, after IPC::Locker and with what threading.Lock has.

Each Locker has a claim of its own, so two Lockers of one process exclude each other like those of two hosts, and
one Locker in two threads behaves as a threading.Lock does. A fork does not hold its parent's lock: in the child a
Locker starts afresh.
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
from .settings import LockSettings, Message, Parameters

if TYPE_CHECKING:
    from typing import Unpack

    from .renewal_thread import RenewalThread

_lockers_made = 0


class PingStatus(TypedDict):
    """`ok`: whether a lock server answers; `status`: a line that says how fast, or what is wrong."""

    ok: bool
    status: str


class _OnClassToo:
    """A method that, called on the class, is called on a Locker that tries once."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, locker: Locker | None, kind: type[Locker]) -> Callable[..., Any]:
        def call(*words: Any, **parameters: Unpack[Parameters]) -> Any:
            once: Parameters = {"connect_tries": 1, **parameters}
            return self._method(Locker(**once) if locker is None else locker, *words)

        return call


class Locker:
    """A lock, or the first that is free of several, which at most one Locker of the cluster holds at a time.

    It takes the parameters of IPC::Locker, and some more, which `Parameters` explains. `wait` replaces the way it
    waits for the network: a callable (socket, events, deadline) -> bool, as `link.block` is.

    `lost` is a threading.Event, set when the lock that is held, or was held last, is known to be lost. With a `lease`
    that is known as soon as the server says so, or the lease could not be renewed for two thirds of its time.
    """

    def __init__(self, *, wait: Wait = wait_ready, **parameters: Unpack[Parameters]) -> None:
        global _lockers_made
        _lockers_made += 1
        # A classic server knows no sessions, so there the name must tell the Lockers of a process apart.
        self._suffix = f"~{_lockers_made}" if _lockers_made > 1 else ""
        self._wait = wait
        self._settings = LockSettings(**parameters)
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._acquisition = self._new_claim()
        self._turn = ThreadLock()  # taken by the thread that asks for the lock, until it is given back
        self._thread = 0  # the one that has it
        self._renewing: RenewalThread | None = None
        self.lost = Event()

    # As IPC::Locker has it

    def lock(self, **parameters: Unpack[Parameters]) -> Locker | None:
        """Get the lock; the Locker itself, or None if it is busy and `block` is false.

        A lock that is held already is renewed. Raises ServerUnavailable, ServerRefused, UsageError.
        """
        self._check_process()
        self._change(**parameters)
        if self._acquisition.held is not None and self._thread == get_ident():
            return self if self._renew() else None
        return self if self._acquire(self._settings.block, inf) else None

    def locked(self) -> bool:
        """Whether the lock was obtained, not given back, and its hold time is not over."""
        self._check_process()
        return time.monotonic() < self.until

    @property
    def until(self) -> float:
        """Until when the lock is surely held, if nobody breaks it: seconds, monotonic; 0 if it is not."""
        self._check_process()
        if not self._acquisition.grants:
            return 0.0
        if self._renewing is not None:
            loss = self._renewing.loss
            return self._renewing.lease.expires_at if loss is None or loss.recalled else 0.0
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
        """Whether the grant of that name with that token still stands, so that its holder may go on.

        Raises ServerUnavailable, also if the server knows no tokens, ServerRefused, UsageError.
        """
        from .inspector import Inspector

        inspector = Inspector(self._settings)
        stands = inspector.is_current(name, token)
        if stands is None:
            raise ServerUnavailable(f"the lock server {inspector.server} knows no tokens: use one of this release")
        return stands

    def unlock(self) -> Locker:
        """Give the lock back, if it is held. Raises ServerUnavailable if the server can't be told in 5 s."""
        self._check_process()
        if self._acquisition.held is not None:
            self._release()
        return self

    @_OnClassToo
    def ping(self) -> bool:
        """Whether a lock server answers."""
        return bool(self.ping_status()["ok"])

    @_OnClassToo
    def ping_status(self) -> PingStatus:
        """Whether a lock server answers, and a line that says how fast, or what is wrong."""
        start = time.monotonic()
        try:
            _, server = self._ask(b"VERSION")
        except IpclockerError as error:
            return {"ok": False, "status": str(error)}
        return {"ok": True, "status": f"{time.monotonic() - start:.3f} second response on {server}"}

    def break_lock(self) -> None:
        """Free the lock, whoever holds it. Raises ServerUnavailable, ServerRefused."""
        self._query(b"BREAK_LOCK")

    def owner(self, **parameters: Unpack[Parameters]) -> str | None:
        """Who holds the lock, or None; it may be another one by the time that you read it."""
        self._change(**parameters)
        return os.fsdecode(self._query(b"STATUS").owner) or None

    def lock_list(self) -> list[tuple[str, str]]:
        """The name and the owner of each lock that is held on the server."""
        return [(os.fsdecode(name), os.fsdecode(owner)) for name, owner in self._query(b"LOCK_LIST").locks]

    def dead_pid(self, host: str, pid: int) -> None:
        """Tell the server that a process of a host is gone; it frees those of its locks that it can believe it of."""
        # The command has no answer of its own. One that has comes behind it, so that it is done on return.
        self._query(b"DEAD_PID %b %d\nVERSION" % (os.fsencode(host), pid))

    # As threading.Lock has it

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Get the lock; False if it is busy and not to be waited for any longer (`timeout` in seconds).

        Raises ValueError for a timeout that makes no sense, ServerUnavailable, ServerRefused.
        """
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout < 0 and timeout != -1:
            raise ValueError("timeout value must be a non-negative number")
        self._check_process()
        return self._acquire(blocking and timeout != 0, inf if timeout == -1 else time.monotonic() + timeout)

    def release(self) -> None:
        """Give the lock back. Raises NotHeld if it is not held, LockLost if it was lost meanwhile."""
        self._check_process()
        if self._acquisition.held is None:
            raise NotHeld(f"cannot release the lock '{self.lock_name()}': it is not held")
        name = self.lock_name()
        if not self._release():
            raise LockLost(f"the lock '{name}' was lost while it was held: it was broken, or its time was up")

    def __enter__(self) -> Locker:
        """Get the lock, unless this thread has it already. Raises LockBusy if it is busy and `block` is false."""
        self._check_process()
        if self._acquisition.held is not None and self._thread == get_ident():
            return self  # with Locker(...).lock(): it was obtained on the way here
        if not self._acquire(self._settings.block, inf):
            raise LockBusy(f"the lock '{self.lock_name()}' is busy: {self._acquisition.holder} holds it")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the lock back. Raises LockLost if it was lost, unless the body raised an error of its own."""
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
            acquisition.connector.drop()

    # Inside

    def _check_process(self) -> None:
        if self._process != os.getpid():
            self._acquisition.connector.drop()
            if self._renewing is not None:
                self._renewing.abandon()
            self._start_afresh()

    def _change(self, **parameters: Unpack[Parameters]) -> None:
        if not parameters:
            return
        settings = self._settings.changed(**parameters)
        if self._acquisition.held is not None and settings.names != self._settings.names:
            raise UsageError(f"the lock '{self.lock_name()}' is held: unlock it before you ask for another")
        self._settings = self._acquisition.settings = settings

    def _acquire(self, wait: bool, deadline: float) -> bool:
        left = -1 if deadline == inf else max(0.0, deadline - time.monotonic())
        if not self._turn.acquire(wait, left if wait else -1):
            return False
        try:
            got = self._acquisition.acquire(wait, deadline)
        except BaseException as error:
            self._turn.release()
            if isinstance(error, ServerUnavailable) and self._settings.print_down is not None:
                self._settings.print_down(self)
            raise
        if got:
            self._thread = get_ident()
            self._start_renewing()
        else:
            self._turn.release()
        return got

    def _renew(self) -> bool:
        self._stop_renewing()
        try:
            return self._acquisition.acquire(self._settings.block, inf)
        finally:
            if self._acquisition.held is None:
                self.lost.set()
                self._turn.release()
            else:
                self._start_renewing()

    def _release(self) -> bool:
        """Give the lock back; whether it stood until then."""
        self._stop_renewing()
        try:
            if not self._acquisition.release():
                self.lost.set()
        except ServerUnavailable:
            if not self.lost.is_set():
                raise
        finally:
            self._turn.release()
        return not self.lost.is_set()

    def _start_renewing(self) -> None:
        self.lost.clear()
        if self._settings.lease:
            from .renewal_thread import RenewalThread  # only here: most do without

            self._renewing = RenewalThread(self._acquisition, self.lost)

    def _stop_renewing(self) -> None:
        if self._renewing is not None:
            self._renewing.stop()
            self._renewing = None

    def _query(self, command: bytes) -> Answer:
        return self._ask(command)[0]

    def _ask(self, command: bytes) -> tuple[Answer, str]:
        messages = _Messages(self)
        return query(
            self._settings,
            command,
            wait=self._wait,
            retry=messages.retry,
            on_broken=messages.broke,
            suffix=self._suffix,
        )

    def _new_claim(self) -> LockAcquisition:
        return LockAcquisition(self._settings, _Messages(self), self._wait, self._suffix)

    def _print(self, kind: str, text: str, *details: str, always: bool) -> None:
        message: Message | None = getattr(self._settings, kind)
        if message is not None:
            message(self, *details)
        elif always or self._settings.verbose:
            print(text, file=sys.stderr, flush=True)


class _Messages:
    """Passes on what a claim tells. It does not keep its Locker alive: one that nobody has any more unlocks."""

    def __init__(self, locker: Locker) -> None:
        self._locker = weakref.ref(locker)

    def waiting(self, name: str, holder: str) -> None:
        """The lock is busy; the claim waits."""
        self._print("print_waiting", f"waiting for lock {name}: {holder} holds it", name)

    def obtained(self) -> None:
        """The lock was granted after a wait."""
        self._print("print_obtained", "obtained the lock")

    def broke(self, holder: bytes) -> None:
        """Say from whom a lock was taken."""
        self._print("print_broke", f"broke the lock of {os.fsdecode(holder)}")

    def retry(self, reason: str, pause: float) -> None:
        """No server answers; it is tried again."""
        self._print("print_retry", f"{reason}; trying again in {pause:.0f} s", always=True)

    def _print(self, kind: str, text: str, *details: str, always: bool = False) -> None:
        locker = self._locker()
        if locker is not None:
            locker._print(kind, text, *details, always=always)

"""Locker, the class for programs: a lock across hosts, with the methods of IPC::Locker and of threading.RLock.

Each Locker has an acquisition of its own, so two Lockers of one process exclude each other like those of two hosts,
unless they were given the same `user`. One Locker in several threads or asyncio tasks behaves as a threading.RLock
does. A fork does not hold its parent's lock: in the child a Locker begins as a new one. But an unlock() there gives
back what the parent holds, as with IPC::Locker.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from functools import partial, wraps
from math import inf
from types import TracebackType
from typing import Any, Callable, NoReturn, Optional, TypeVar, Union, cast

from ...errors import IpclockerError, LockBusy, LockLost, NotHeld, ServerUnavailable, UsageError
from ...parameters import UNCHANGED, given
from .connection import Wait, wait_ready
from .locker_async import AsyncLocker
from .locker_times import times_of, wait_limit
from .questions import Names
from .questions import PingStatus as PingStatus
from .settings import LockSettings, Message

Function = TypeVar("Function", bound=Callable[..., Any])
_lockers_made = 0


class Locker(AsyncLocker):
    """A lock, or the first that is free of several, which at most one Locker of the cluster holds at a time.

        with Locker("nightly", host="lockhost", lease=30) as lock:
            for step in steps:
                if lock.lost.is_set():
                    break
                step()

    Times are seconds. The parameters, of which those of IPC::Locker have their names and meanings from there:

    lock: the name of the lock, or several, of which the first that is free is taken; default: lock
    host: the lock server's host, or several, as a list or separated by colons, of which the first that answers
        is taken, and if that one goes, another one that serves the same locks; IPv6 addresses stand in brackets, and
        [NAME]:PORT is that port of the host; default: the environment's IPCLOCKER_HOST, else localhost
    port: number, service name, or name of a UNIX socket; default: IPCLOCKER_PORT, the service `lockerd`, 1751
    family: "INET" or "UNIX"
    path: the name of a UNIX socket; goes before host and port
    all: whether all of the names are taken, together, instead of one of them; default: False
    hold, timeout: how long the lock may be held before the server takes it away; 0: for ever; default: 1800. They are
        two names for one time; the second is IPC::Locker's
    lease: hold the lock for so long at a time (3 at least), and renew that in the background; in place of `hold`;
        default: 0, no
    slots: how many may hold the lock while this Locker is one of them, as for N licences; all who take it should give
        the same number; default: 1, it is held alone
    shared: share the lock with all others that do so, as readers do; who gives neither, as a writer, has it alone;
        default: False
    min_hold: the lock stays taken for so many seconds from when it was obtained, also if it is released or its process
        ends before; default: 0
    wait: how long `with` and lock() wait for the lock; then they raise LockBusy; default: None, without a limit
    block: whether `with` and lock() wait at all; default: True
    command: what runs under the lock, for people to read; default: None
    user: the name that the lock is held under; all who give the same name are one holder, in whatever processes they
        are, so that one can take a lock and another one release it, and what arrives late of an earlier request counts
        as well; default: HOST_PID_USER, and each Locker is a holder of its own, each time that it gets the lock
    pid, hostname: the process that the lock belongs to; default: this one
    autounlock: whether the server frees the lock when that process is gone; default: None, which means yes if the
        process is this one, and the system tells it from all others (as Linux does), and it is no lease, and the lock
        is not given to others by `user`, `pid`, `hostname` or `destroy_unlock`. For a lock that outlives its process
        give False
    destroy_unlock: whether a Locker that goes away unlocks, which it does only in the process `pid`; default: True
    connect_tries, connect_delay: for how long to try the hosts if none answers: both multiplied. They are tried in
        turn from 0.2 s to 5 s apart, and print_retry is called tries - 1 times; one try is one, without a pause;
        default: 3 and 30. A request that does not wait tries each host once, for 5 s together
    verbose: whether those of the following that are not given print a message on stderr; default: False
    print_waiting(locker, name, holder), print_obtained(locker), print_broke(locker): called when that happens
    print_retry(locker): no server answers, and they are about to be tried again; by default that is logged
    print_down(locker): no server answers, and no more tries are left; by default ServerUnavailable is raised. If it is
        given, it is called for each request that fails so, and methods of IPC::Locker raise nothing then: they return
        None (or an empty list, or the Locker, where they always do)
    wait_ready: how it waits for the network: a callable (socket or None, poll events, monotonic deadline) -> bool

    Raises UsageError, a ValueError, for a value that means nothing. Methods that ask a server raise ServerUnavailable,
    a ConnectionError, if none answers, and ServerRefused if it answers with an error. Trouble is logged as "ipclocker".

    Threads and asyncio tasks may share a Locker: one at a time has it, and may enter it as often as it likes. The lock
    is released when it has left as often.

    `lost` is a threading.Event, set when the lock that is held, or was held last, is known to be lost. With a `lease`
    that is known as soon as the server says so, or the lease could not be renewed for two thirds of its time; without
    one at the end of the hold time, or when the server is next asked.
    """

    def __init__(
        self,
        lock: Names = "lock",
        *,
        host: Optional[Names] = None,
        port: Union[str, int, None] = None,
        family: str = "INET",
        path: Optional[str] = None,
        all: bool = False,
        hold: Optional[float] = None,
        timeout: Optional[float] = None,
        lease: float = 0,
        slots: int = 1,
        shared: bool = False,
        min_hold: float = 0,
        wait: Optional[float] = None,
        block: bool = True,
        command: Optional[str] = None,
        user: Optional[str] = None,
        pid: Union[int, str, None] = None,
        hostname: Optional[str] = None,
        autounlock: Optional[bool] = None,
        destroy_unlock: bool = True,
        connect_tries: int = 3,
        connect_delay: float = 30,
        verbose: bool = False,
        print_broke: Optional[Message] = None,
        print_down: Optional[Message] = None,
        print_obtained: Optional[Message] = None,
        print_retry: Optional[Message] = None,
        print_waiting: Optional[Message] = None,
        wait_ready: Wait = wait_ready,
    ) -> None:
        global _lockers_made
        if not callable(wait_ready):
            raise UsageError(f"wait_ready is {wait_ready!r}: it takes a function")
        parameters = given(locals())
        del parameters["wait_ready"]
        settings = LockSettings(**parameters)
        _lockers_made += 1
        # A classic server knows no sessions, so there the name must tell the Lockers of a process apart.
        super().__init__(settings, wait_ready, f"~{_lockers_made}" if _lockers_made > 1 else "")

    # As IPC::Locker has it

    def lock(
        self,
        lock: Names = UNCHANGED,
        *,
        host: Optional[Names] = UNCHANGED,
        port: Union[str, int, None] = UNCHANGED,
        family: str = UNCHANGED,
        path: Optional[str] = UNCHANGED,
        all: bool = UNCHANGED,
        hold: Optional[float] = UNCHANGED,
        timeout: Optional[float] = UNCHANGED,
        lease: float = UNCHANGED,
        slots: int = UNCHANGED,
        shared: bool = UNCHANGED,
        min_hold: float = UNCHANGED,
        wait: Optional[float] = UNCHANGED,
        block: bool = UNCHANGED,
        command: Optional[str] = UNCHANGED,
        user: Optional[str] = UNCHANGED,
        pid: Union[int, str, None] = UNCHANGED,
        hostname: Optional[str] = UNCHANGED,
        autounlock: Optional[bool] = UNCHANGED,
        destroy_unlock: bool = UNCHANGED,
        connect_tries: int = UNCHANGED,
        connect_delay: float = UNCHANGED,
        verbose: bool = UNCHANGED,
        print_broke: Optional[Message] = UNCHANGED,
        print_down: Optional[Message] = UNCHANGED,
        print_obtained: Optional[Message] = UNCHANGED,
        print_retry: Optional[Message] = UNCHANGED,
        print_waiting: Optional[Message] = UNCHANGED,
    ) -> Optional[Locker]:
        """Get the lock, and return the Locker itself; None if the lock is busy and `block` is false.

        The parameters are those of the constructor; they change the Locker. A lock that is held already is renewed.
        Raises ServerUnavailable, ServerRefused, UsageError; LockBusy, a TimeoutError, if it is busy for `wait` seconds.
        """
        changes = given(locals())
        self._check_process()
        self._change(**changes)
        waits, limit = self.settings.block, self.settings.wait
        times = times_of(waits, limit)
        ask = (
            partial(self._holding.renew, *times)
            if self._holding.is_mine
            else partial(self._enter, *times, by_lock=True)
        )
        got = self._unless_down(ask, None)
        if got is False and waits and limit < inf:
            raise LockBusy(self._busy())
        return self if got else None

    def unlock(self) -> Locker:
        """Release the lock, if it is held, however often it was entered, and by whichever thread or task.

        What an earlier release could not give back, as it was interrupted, is given back, too. Raises ServerUnavailable
        if the server does not answer within 5 s (where another may take over, within the time for that). In a fork it
        releases what the Locker held when the process was forked, if it holds nothing since.
        """
        self._check_process()
        inherited, self._inherited = self._inherited, None
        if inherited is not None and not self._holding.acquisition.may_hold:
            self._unless_down(inherited.acquisition.release, False)
        else:
            self._unless_down(self._holding.give_back, None)
        return self

    # As threading.RLock has it

    def acquire(self, blocking: bool = True, timeout: Optional[float] = -1) -> bool:
        """Get the lock, as threading.RLock.acquire does; False if it is busy, or at the end of the timeout.

        A timeout of -1, None or infinity waits without a limit. It is over half a second after the timeout at the
        latest, and after 5 s if it is not blocking, whatever the server does. Raises ValueError for any other negative
        timeout and for a timeout without blocking, ServerUnavailable, ServerRefused. RuntimeError or OSError say that
        there can be no thread to renew the lease; nothing is held then.
        """
        blocking, limit = wait_limit(blocking, timeout)
        self._check_process()
        if self._holding.enter_once_more():
            return True
        try:
            return self._enter(*times_of(blocking, limit))
        except ServerUnavailable:
            self._tell_down()
            raise

    def release(self) -> None:
        """Leave the lock, which is released if it was entered once.

        Raises NotHeld if this thread or task does not hold it, LockLost if it was lost meanwhile, ServerUnavailable.
        """
        self._check_process()
        name = self.lock_name()
        try:
            stood = self._holding.leave()
        except NotHeld:
            raise NotHeld(self._not_held(name)) from None
        except ServerUnavailable:
            self._tell_down()
            raise
        if not stood:
            raise LockLost(self._was_lost(name))

    def __enter__(self) -> Locker:
        """Get the lock. Raises LockBusy, a TimeoutError, if it is busy for `wait` seconds, or `block` is false."""
        self._check_process()
        if not self._holding.enter_once_more(after_lock=True):  # with Locker(...).lock(): it was obtained on the way
            try:
                got = self._enter(*times_of(self.settings.block, self.settings.wait))
            except ServerUnavailable:
                self._tell_down()
                raise
            if not got:
                raise LockBusy(self._busy())
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        """Leave the lock. Raises LockLost if it was lost, unless the body raised an error of its own."""
        if kind is None:
            self.release()
        else:
            self._check_process()  # a fork that leaves the body does not give back what its parent holds
            try:
                self._holding.leave()
            except ServerUnavailable:
                self._tell_down()
            except IpclockerError:
                pass

    def __call__(self, function: Function) -> Function:
        """Make of a function, or of a coroutine function, one that runs under the lock: `@Locker("nightly")`."""
        import inspect

        if not callable(function):
            raise UsageError(f"a Locker was called with {function!r}: it takes a function, which it lets run locked")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__name__} is a generator, which runs after its call: take the lock within it")
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def run_async(*words: Any, **parameters: Any) -> Any:
                async with self:
                    return await function(*words, **parameters)

            return cast(Function, run_async)

        @wraps(function)
        def run(*words: Any, **parameters: Any) -> Any:
            with self:
                return function(*words, **parameters)

        return cast(Function, run)

    # As an object

    def __copy__(self) -> NoReturn:
        raise TypeError("a Locker can't be copied, since one lock has one holder: make another Locker")

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the parameters: what comes of it is a Locker of its own, which holds nothing."""
        return _make, (type(self), {**self.settings.given, "wait_ready": self._wait_ready})

    def __del__(self) -> None:
        holding = getattr(self, "_holding", None)
        if holding is None:
            return
        with contextlib.suppress(Exception):
            if self._process != os.getpid():
                holding.leave_to_parent()
                return
            if holding.locked:
                warnings.warn(f"{self!r} was not released", ResourceWarning, source=self, stacklevel=2)
        with contextlib.suppress(Exception):
            holding.close(self.settings.destroy_unlock and self.settings.pid in (None, self._process))

    # Inside

    def _change(self, **parameters: Any) -> None:
        if not parameters:
            return
        settings = self.settings.changed(**parameters)
        if self._holding.acquisition.held is not None and settings.names != self.settings.names:
            raise UsageError(f"the lock '{self.lock_name()}' is held: unlock it before you ask for another")
        self._holding.acquisition.settings = settings
        self.settings = settings

    def _enter(self, wait: bool, deadline: float, latest: float, by_lock: bool = False) -> bool:
        got = self._holding.enter(wait, deadline, latest, by_lock)
        if got:
            self._inherited = None
        return got


def _make(kind: type[Locker], parameters: dict[str, Any]) -> Locker:
    return kind(**parameters)

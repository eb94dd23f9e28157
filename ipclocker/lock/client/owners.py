"""Who of this process has a Locker: a thread or an asyncio task, which may enter it as often as it likes.

An owner is an object, never a number: the kernel gives the number of a thread that has ended to the next one.

Nothing here is guarded by a mutex, since an exception (Ctrl-C) between any two steps must leave nothing locked. Whose
turn it is, is decided by `dict.setdefault`, which is one step: each claim that is freed has room for one successor.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import weakref
from collections import deque
from typing import Any, Callable

# Seconds after which one that waits looks again by itself: an exception may have kept the other from waking it.
_LOOK_AGAIN = 1.0


class _ThisThread:
    """Stands for the thread that has made it, and ends with it."""

    __slots__ = ("__weakref__",)


_local = threading.local()


def current_owner() -> Any:
    """Return the asyncio task that runs, or what stands for this thread."""
    asyncio = sys.modules.get("asyncio")  # a program that has no tasks need not import it
    if asyncio is not None and asyncio._get_running_loop() is not None:
        task = asyncio.current_task()
        if task is not None:
            return task
    try:
        return _local.owner
    except AttributeError:
        _local.owner = _ThisThread()
        return _local.owner


class Claim:
    """The time for which one owner has a Locker, from the moment that it asks for the lock.

    entries: how often it has entered the grant that it holds; 0 while it asks
    by_lock: it has called `lock()`, and the `with` that follows is the same entry
    """

    __slots__ = ("_at_work", "_owner", "_successor", "by_lock", "entries", "freed")

    def __init__(self, owner: object) -> None:
        self._owner = weakref.ref(owner)
        self._at_work: dict[None, weakref.ref[Any]] = {}  # who asks the server for what it stands for
        self._successor: dict[None, Claim] = {}
        self.entries = 0
        self.by_lock = self.freed = False

    def is_of(self, owner: object) -> bool:
        """Tell if this is that owner's."""
        return self._owner() is owner

    def begin(self, worker: object) -> bool:
        """Say that this owner is to ask the server about it; False while another one does, as by `unlock()`."""
        mine = weakref.ref(worker)  # there is one for each object
        return self._at_work.setdefault(None, mine) is mine and not self.freed

    def end(self, worker: object) -> None:
        """Say that this owner has asked, if it has."""
        if self.worker is worker:
            self._at_work.clear()

    @property
    def worker(self) -> object:
        """The owner that asks the server about it; None if there is none, or it has ended."""
        worker = self._at_work.get(None)
        return None if worker is None else worker()

    @property
    def is_orphaned(self) -> bool:
        """True if its owner, a thread or task, has ended."""
        owner = self._owner()
        return owner is None or (hasattr(owner, "done") and bool(owner.done()))


class Owners:
    """The claims to one Locker, of which one at a time is not freed."""

    def __init__(self) -> None:
        self._last = Claim(self)
        self._last.freed = True
        # Each wakes one that waits, in their order, and stays until that has had its turn: those who come meanwhile,
        # as the one who has just left, stand behind it.
        self._waiting: deque[Callable[[], object]] = deque()
        # How often each owner has entered grants that were lost before it left them. That keeps nobody else out.
        self._lost_entries: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def _latest(self) -> Claim:
        last = self._last  # or one before it, if another thread was slower to note its own
        while last._successor:
            last = last._successor[None]
        self._last = last
        return last

    @property
    def claim(self) -> Claim | None:
        """The claim that is not freed, if there is one."""
        last = self._latest()
        return None if last.freed else last

    def of(self, owner: object) -> Claim | None:
        """Return the claim of that owner, None if it has none."""
        claim = self.claim
        return claim if claim is not None and claim.is_of(owner) else None

    def try_take(self, owner: object, is_over: Callable[[], bool]) -> Claim | None:
        """Make a claim for an owner that has none; None if another one's is not freed.

        The claim of an owner that has ended is freed here, if `is_over` says that it holds nothing any more.
        """
        last = self._latest()
        if not last.freed:
            if last.worker is not None or not (last.is_orphaned and is_over()):
                return None
            last.freed = True
        mine = Claim(owner)
        return mine if last._successor.setdefault(None, mine) is mine else None

    def take(self, owner: object, is_over: Callable[[], bool], deadline: float) -> Claim | None:
        """Wait until it can be made; None at the deadline (monotonic seconds)."""
        is_last = deadline <= time.monotonic()
        claim = self.try_take(owner, is_over) if is_last or not self._waiting else None
        if claim is not None or is_last:
            return claim
        gate = threading.Lock()
        gate.acquire()
        try:
            try:
                self._waiting.append(gate.release)
                is_turn = False
                while True:
                    left = deadline - time.monotonic()
                    if is_turn or left <= 0 or self._is_first(gate.release):
                        claim = self.try_take(owner, is_over)
                    if claim is not None or left <= 0:
                        return claim
                    gate.acquire(timeout=min(left, _LOOK_AGAIN))
                    self._stay(gate.release)
                    is_turn = True
            finally:
                self._stop_waiting(gate.release, claim)
        finally:
            self._stop_waiting(gate.release, claim)

    async def take_async(self, owner: object, is_over: Callable[[], bool], deadline: float) -> Claim | None:
        """Wait as `take` does, in an event loop that goes on meanwhile."""
        is_last = deadline <= time.monotonic()
        claim = self.try_take(owner, is_over) if is_last or not self._waiting else None
        if claim is not None or is_last:
            return claim
        import asyncio

        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            if woken.is_set():
                raise RuntimeError
            loop.call_soon_threadsafe(woken.set)

        try:
            self._waiting.append(wake)
            is_turn = False
            while True:
                left = deadline - time.monotonic()
                if is_turn or left <= 0 or self._is_first(wake):
                    claim = self.try_take(owner, is_over)
                if claim is not None or left <= 0:
                    return claim
                # Not asyncio.wait_for, which up to Python 3.11 forgets a cancellation that comes with the waking.
                timer = loop.call_later(min(left, _LOOK_AGAIN), woken.set)
                try:
                    await woken.wait()
                finally:
                    timer.cancel()
                woken.clear()
                self._stay(wake)
                is_turn = True
        finally:
            self._stop_waiting(wake, claim)

    def _is_first(self, wake: Callable[[], object]) -> bool:
        with contextlib.suppress(IndexError):
            return self._waiting[0] == wake
        return True

    def _stay(self, wake: Callable[[], object]) -> None:
        """Stand in front, if one was woken twice before it came, and was taken for one that does not come."""
        if wake not in self._waiting:
            self._waiting.appendleft(wake)

    def _stop_waiting(self, wake: Callable[[], object], claim: Claim | None) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove(wake)
        if claim is None:
            self._wake()

    def _wake(self) -> None:
        """Wake the first one; not one that was woken before and has not come, or whose event loop is closed."""
        with contextlib.suppress(IndexError):
            while True:
                wake = self._waiting[0]
                try:
                    wake()
                except RuntimeError:
                    with contextlib.suppress(ValueError):
                        self._waiting.remove(wake)
                else:
                    return

    def lose(self, claim: Claim, owner: object) -> None:
        """Note that the grant is lost; its owner has still to leave what it has entered."""
        self._lost_entries[owner] = self._lost_entries.get(owner, 0) + claim.entries
        claim.entries = 0
        claim.by_lock = False

    def leave_lost(self, owner: object) -> bool:
        """Leave what was lost; False if there is nothing of the kind."""
        count = self._lost_entries.get(owner, 0)
        if count > 1:
            self._lost_entries[owner] = count - 1
        elif count:
            del self._lost_entries[owner]
        return count > 0

    def forget_lost(self, owner: object) -> None:
        """Leave all that was lost."""
        self._lost_entries.pop(owner, None)

    def free(self, claim: Claim) -> None:
        """End a claim, whatever it has entered, and let the next one in."""
        claim.entries = 0
        claim.freed = True
        claim._at_work.clear()  # in this order: from here on nobody begins
        self._wake()

    def leave(self, claim: Claim) -> None:
        """End a claim that has nothing entered any more."""
        if not claim.entries and not claim.freed:
            self.free(claim)

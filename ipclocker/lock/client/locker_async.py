"""A Locker under asyncio, with the methods of asyncio.Lock: while it waits for a server, the event loop goes on."""

from __future__ import annotations

from types import TracebackType
from typing import Optional, TypeVar

from ...errors import IpclockerError, LockBusy, LockLost, NotHeld, ServerUnavailable
from .locker_state import LockerState
from .locker_times import times_of, wait_limit

Entered = TypeVar("Entered", bound="AsyncLocker")


class AsyncLocker(LockerState):
    """Gets and leaves its lock in an asyncio task."""

    async def acquire_async(self, blocking: bool = True, timeout: Optional[float] = -1) -> bool:
        """Get the lock as `acquire` does, while the event loop goes on.

        A wait that is cancelled leaves the queue; a lock that is granted in that moment is given back.
        """
        blocking, limit = wait_limit(blocking, timeout)
        self._check_process()
        if self._holding.enter_once_more():
            return True
        return await self._enter_async(*times_of(blocking, limit))

    async def release_async(self) -> None:
        """Leave the lock as `release` does, while the event loop goes on."""
        self._check_process()
        name = self.lock_name()
        try:
            stood = await self._holding.leave_async()
        except NotHeld:
            raise NotHeld(self._not_held(name)) from None
        except ServerUnavailable:
            self._tell_down()
            raise
        if not stood:
            raise LockLost(self._was_lost(name))

    async def __aenter__(self: Entered) -> Entered:
        """Get the lock as `with` does, while the event loop goes on."""
        self._check_process()
        if self._holding.enter_once_more(after_lock=True):
            return self
        if not await self._enter_async(*times_of(self.settings.block, self.settings.wait)):
            raise LockBusy(self._busy())
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        """Leave the lock as `with` does, while the event loop goes on."""
        if kind is None:
            await self.release_async()
        else:
            self._check_process()  # a fork that leaves the body does not give back what its parent holds
            try:
                await self._holding.leave_async()
            except ServerUnavailable:
                self._tell_down()
            except IpclockerError:
                pass

    async def _enter_async(self, wait: bool, deadline: float, latest: float) -> bool:
        try:
            got = await self._holding.enter_async(wait, deadline, latest)
        except ServerUnavailable:
            self._tell_down()
            raise
        if got:
            self._inherited = None
        return got

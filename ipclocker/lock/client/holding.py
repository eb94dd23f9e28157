"""What one Locker holds in this process: who has entered it, the grant under which, and the renewal of its lease.

An exception (Ctrl-C) may come between any two steps. So a claim is tidied up in two nested `finally`: one of them is
reached whole. What a server may hold for it, the acquisition knows until that server has answered to the UNLOCK.
"""

from __future__ import annotations

import contextlib
import sys
import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from ...errors import IpclockerError, NotHeld, ServerRefused, ServerUnavailable
from . import ending
from .acquisition import LockAcquisition
from .connection import DeadlineExceeded, Wait
from .listener import AcquisitionListener
from .loss_event import LossEvent
from .owners import Claim, Owners, current_owner
from .settings import LockSettings

if TYPE_CHECKING:
    from .renewal import Renewal


class Holding:
    """One lock, or several together, for the threads and tasks of this process, of which one at a time has it.

    `lost` is set when the grant that is held, or was held last, is known to be lost.
    """

    def __init__(self, settings: LockSettings, listener: AcquisitionListener, wait: Wait, suffix: str) -> None:
        self.acquisition = LockAcquisition(settings, listener, wait, suffix)
        self.lost = LossEvent()
        self.wait = wait
        self._owners = Owners()
        self._renewal: Renewal | None = None

    @property
    def until(self) -> float:
        """The end of the hold time, if nobody breaks the lock before: seconds, monotonic; 0 if it is not held."""
        grants, renewal = self.acquisition.grants, self._renewal
        if not grants:
            return 0.0
        if renewal is not None:
            loss = renewal.loss
            return renewal.lease.expires_at if loss is None or loss.recalled else 0.0
        lease = self.acquisition.settings.lease
        if lease:  # an exception has kept it from being renewed
            return min(held.asked for held in grants) + lease
        return min(held.until for held in grants)

    @property
    def locked(self) -> bool:
        """True while it is held, as far as is known here."""
        return time.monotonic() < self.until

    @property
    def is_mine(self) -> bool:
        """True if the thread or task that asks has entered it."""
        claim = self._owners.of(current_owner())
        return claim is not None and claim.entries > 0

    # Entering

    def enter_once_more(self, after_lock: bool = False) -> bool:
        """Enter what the caller holds once more; False if it holds nothing. With `after_lock` its `lock()` counts."""
        claim = self._owners.of(current_owner())
        if claim is None or not claim.entries or not self.locked:
            return False
        if after_lock and claim.by_lock:
            claim.by_lock = False
        else:
            claim.entries += 1
        return True

    def enter(self, wait: bool, deadline: float, latest: float, by_lock: bool = False) -> bool:
        """Get the lock; False if it is busy, at the deadline if it is to be waited for.

        All is over at `latest`. Raises what LockAcquisition.acquire raises, and what keeps a renewal from being started
        (RuntimeError, OSError): nothing is held then.
        """
        owner = current_owner()
        try:
            try:
                claim = self._take_up(owner) or self._owners.take(owner, self._is_over, deadline if wait else -inf)
                return claim is not None and self._obtain(claim, owner, wait, deadline, latest, by_lock)
            finally:
                self._tidy(owner)
        finally:
            self._tidy(owner)

    async def enter_async(self, wait: bool, deadline: float, latest: float) -> bool:
        """Get the lock as `enter` does, while the event loop goes on.

        A wait that is cancelled leaves the queue, and a grant that comes in that moment is given back.
        """
        from .async_calls import call_in_thread

        owner = current_owner()
        try:
            claim = self._take_up(owner)
            if claim is None:
                claim = await self._owners.take_async(owner, self._is_over, deadline if wait else -inf)
            if claim is None:
                return False
            obtain = partial(self._obtain, claim, owner, wait, deadline, latest, by_lock=False)
            try:
                return await call_in_thread(obtain, self.acquisition.connector, partial(self._undo, claim, owner))
            except BaseException as problem:
                if claim.entries:  # the grant came in the moment of the cancellation
                    try:
                        with contextlib.suppress(IpclockerError):
                            if isinstance(problem, GeneratorExit):  # in a loop that was closed nothing can be awaited
                                self._release(within=1.0)
                            else:
                                await call_in_thread(self._release)
                    finally:
                        claim.entries = 0
                raise
        finally:
            self._tidy(owner)

    def _undo(self, claim: Claim, owner: Any) -> None:
        """Release what was obtained for a task whose event loop was closed meanwhile."""
        try:
            with contextlib.suppress(IpclockerError):
                self._release()
        finally:
            self._end(claim, owner)

    def _take_up(self, owner: Any) -> Claim | None:
        """Return what the owner has entered, unless another one is just releasing it."""
        claim = self._owners.of(owner)
        return claim if claim is not None and claim.begin(owner) else None

    def _obtain(self, claim: Claim, owner: Any, wait: bool, deadline: float, latest: float, by_lock: bool) -> bool:
        """Ask the server for the lock, for a claim that holds nothing any more."""
        claim.begin(owner)
        if claim.entries:
            self.lost.set()
            self._owners.lose(claim, owner)
        try:
            self._stop_renewing()
            self.acquisition.connector.unpark()
            self.acquisition.give_up()  # what was lost, or left so by an exception
            got = self.acquisition.acquire(wait, deadline, latest)
            if got:
                self._start(claim, by_lock)
            return got
        except BaseException:
            claim.entries = 0
            if self._has_to_release:
                with contextlib.suppress(IpclockerError, DeadlineExceeded):
                    self._release(min(1.0, latest - time.monotonic()))
            raise

    def _start(self, claim: Claim, by_lock: bool) -> None:
        self.lost.until = inf
        if self.lost.is_set():
            self.lost.clear()
        if self.acquisition.settings.lease:
            from .renewal import Renewal  # only here: most do without

            self.lost.until = inf
            self._renewal = Renewal(self.acquisition, self.lost)
        else:
            self.lost.until = min(held.until for held in self.acquisition.grants)
        claim.by_lock = by_lock
        claim.entries = 1

    def renew(self, wait: bool, deadline: float, latest: float) -> bool:
        """Renew what the caller holds, or get it once more if it was lost; False if another one has it since."""
        owner = current_owner()
        claim = self._take_up(owner)
        if claim is None:
            return self.enter(wait, deadline, latest, by_lock=True)
        tokens = [held.token for held in self.acquisition.grants]
        try:
            try:
                if self._renewal is not None:
                    self.lost.until = self._renewal.lease.stop_at  # no thread looks at that meanwhile
                self._stop_renewing()
                got = self.acquisition.acquire(wait, deadline, latest)
                if not got or tokens != [held.token for held in self.acquisition.grants]:
                    self.lost.set()
                    again = got and claim.by_lock  # what lock() entered, lock() has entered once more
                    self._owners.lose(claim, owner)
                    if again:
                        self._owners.leave_lost(owner)
                if got:
                    self._restart(claim)
                return got
            except BaseException:
                if not self.acquisition.grants:
                    self.lost.set()
                    self._owners.lose(claim, owner)
                raise
            finally:
                self._finish(claim, owner)
        finally:
            self._finish(claim, owner)

    def _restart(self, claim: Claim) -> None:
        entries, by_lock = claim.entries, claim.by_lock
        self._start(claim, by_lock or not entries)
        claim.entries = max(entries, 1)

    # Leaving

    def leave(self) -> bool:
        """Leave what the caller has entered last, and release the lock with the outermost; False if it was lost.

        Raises NotHeld if the caller has entered nothing, ServerUnavailable, ServerRefused.
        """
        owner = current_owner()
        claim = self._owners.of(owner)
        if claim is None or not claim.entries:
            if self._owners.leave_lost(owner):
                return False
            raise NotHeld
        if claim.entries > 1:
            claim.entries -= 1
            return self.locked
        # What lock() has entered anew is left together with what was lost before: lock() renews, without a count.
        lost_before = claim.by_lock and self._owners.leave_lost(owner)
        try:
            try:
                if not claim.begin(owner):
                    raise NotHeld  # another one is just releasing it
                return self._leave_grant() and not lost_before
            finally:
                self._end(claim, owner)
        finally:
            self._end(claim, owner)

    async def leave_async(self) -> bool:
        """Leave as `leave` does, while the event loop goes on."""
        from .async_calls import call_in_thread

        owner = current_owner()
        claim = self._owners.of(owner)
        if claim is None or claim.entries != 1 or not claim.begin(owner):
            return self.leave()
        lost_before = claim.by_lock and self._owners.leave_lost(owner)
        try:
            return await call_in_thread(self._leave_grant) and not lost_before
        finally:
            self._end(claim, owner)

    def _leave_grant(self) -> bool:
        try:
            if not self._release():
                self.lost.set()
        except ServerUnavailable:
            if not self.lost.is_set():
                raise
        return not self.lost.is_set()

    def give_back(self) -> None:
        """Release all that is held, or still to be released, whatever has been entered and by whom.

        Raises ServerUnavailable, ServerRefused.
        """
        owner = current_owner()
        self._owners.forget_lost(owner)
        claim = self._owners.claim
        if claim is not None and not (claim.entries or claim.is_of(owner)):
            return  # another one is just asking for it
        try:
            try:
                if claim is None and self._has_to_release:
                    claim = self._owners.try_take(owner, self._is_over)
                if claim is not None and claim.begin(owner) and self._has_to_release:
                    self._release()
                    self._release_elsewhere()
            finally:
                self._end(claim, owner)
        finally:
            self._end(claim, owner)

    def _release_elsewhere(self) -> None:
        """Release what another server may hold since earlier; if it does not answer that is left for the next time."""
        if self.acquisition.may_hold:
            with contextlib.suppress(IpclockerError):
                self.acquisition.release(within=1.0)

    @property
    def _has_to_release(self) -> bool:
        return self._renewal is not None or self.acquisition.may_hold

    def _end(self, claim: Claim | None, owner: Any) -> None:
        """Free a claim, unless another one is just asking the server about it."""
        if claim is not None and claim.begin(owner):
            self._owners.free(claim)
        self._tidy(owner)

    def _release(self, within: float | None = None) -> bool:
        self._stop_renewing()
        if self.lost.is_set():
            self.lost.set()  # also if it is only its time that is over
        self.lost.until = inf
        try:
            return self.acquisition.release(within)
        finally:
            self.acquisition.connector.park()

    def close(self, unlock: bool) -> None:
        """End it, and give back the lock if it is to be: at once, or by a thread if the server does not answer.

        There is less time for that while another Locker is being acquired, which has to end in time.

        What an earlier request left to be released, as its server did not answer, is left to a thread at once. So is
        all in the thread that renews leases, in which the garbage collector may call this, and which nothing may hold
        up.
        """
        self._stop_renewing()
        if not (unlock and self.acquisition.may_hold):
            self.acquisition.connector.close()
            return
        background = sys.modules.get(f"{__package__}.background")
        is_renewing = background is not None and background.is_current()
        ending.end(self._give_back_at_end, bool(self.acquisition.grants) and not is_renewing, _IN_TIME)

    def _give_back_at_end(self, within: float) -> bool:
        """Give back all within so many seconds; False if the server of what was last asked for did not answer."""
        deadline = time.monotonic() + within
        try:
            with contextlib.suppress(ServerRefused):
                self.acquisition.release(within)
            if self.acquisition.may_hold:  # at another server, since earlier
                with contextlib.suppress(IpclockerError):
                    self.acquisition.release(deadline - time.monotonic())
        except IpclockerError:
            return False
        finally:
            self.acquisition.connector.close()
        return True

    def leave_to_parent(self) -> None:
        """Close what a fork has copied; in the parent all goes on."""
        self.acquisition.connector.close()
        if self._renewal is not None:
            self._renewal.abandon()
            self._renewal = None

    # Inside

    def _is_over(self) -> bool:
        """Tell that an owner that has ended holds nothing any more that it might have left to others."""
        return not self.locked

    def _tidy(self, owner: Any) -> None:
        claim = self._owners.of(owner)
        if claim is not None:
            self._finish(claim, owner)

    def _finish(self, claim: Claim, owner: Any) -> None:
        claim.end(owner)
        self._owners.leave(claim)

    def _stop_renewing(self) -> None:
        if self._renewal is not None:
            self._renewal.stop()
            self._renewal = None


# What has to end in time, whichever Lockers the garbage collector ends meanwhile; the second is for acquire_async.
_IN_TIME = frozenset(call.__code__ for call in (Holding.enter, Holding._obtain))

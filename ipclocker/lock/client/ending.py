"""Giving back what a Locker holds when nobody refers to it any more, so that this holds up nobody for long.

That is done in whatever thread drops the Locker, or in which the garbage collector runs: in the middle of another
Locker's `acquire`, which has to end in time, or in an event loop. And there may be many at once, each with a server of
its own that is gone. So that thread waits for the servers only as long as there is patience for all of them together,
and what is not done by then is left to a few threads.

Nothing here is guarded by a mutex, since the garbage collector may come in between: what is left is noted first, and
each thread, before it ends, looks for it once more.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Container
from math import inf
from types import CodeType, FrameType
from typing import Callable

WITHIN = 1.0  # seconds for one Locker, if nothing holds that up
_IN_A_HURRY = 1 / 20  # of the patience: 0.05 s, where a Locker's time, which may be over half a second late, goes on
_AFTER_SILENCE = 1 / 4  # of the patience is left when a server has not answered: with all that follows it is 1.33 s
_RESTORED_AFTER = 10.0  # seconds; from then on there is all of it
_MOST_THREADS = 16

GiveBack = Callable[[float], bool]  # takes the seconds that there are; False if the server did not answer


class _Patience:
    """The seconds for which a thread may wait for the server of the next Locker."""

    def __init__(self) -> None:
        self._seconds = WITHIN
        self._restored_at = -inf

    @property
    def seconds(self) -> float:
        """What there is of it now."""
        if time.monotonic() >= self._restored_at:
            self._seconds = WITHIN
        return self._seconds

    def wear(self) -> None:
        """Note that a server did not answer."""
        self._seconds = self.seconds * _AFTER_SILENCE
        self._restored_at = time.monotonic() + _RESTORED_AFTER


_patience = _Patience()
_left: deque[GiveBack] = deque()  # what is left to the threads
_threads: set[object] = set()


def end(give_back: GiveBack, wait: bool, hurry: Container[CodeType]) -> None:
    """Give back what a Locker holds; without `wait` in another thread, if there can be one.

    It is in a hurry in an event loop, and within a call of one of those functions, which have to end in time.
    """
    seconds = _patience.seconds
    if _is_in_event_loop() or _is_within(hurry):
        seconds *= _IN_A_HURRY
    # Up to Python 3.11 a thread that is started while Python ends never runs, and who starts it waits for ever.
    is_last = sys.is_finalizing()
    if wait or is_last:
        if give_back(seconds):
            return
        _patience.wear()
        if is_last or seconds == WITHIN:
            return
    if not _leave_to_threads(give_back) and not wait:
        give_back(_patience.seconds * _IN_A_HURRY)


def _leave_to_threads(give_back: GiveBack) -> bool:
    """Return False if there can be no thread."""
    _left.append(give_back)
    if len(_threads) >= _MOST_THREADS:
        return True
    mark = object()
    _threads.add(mark)
    try:
        threading.Thread(target=_work_off, args=(mark,), name="ipclocker unlock", daemon=True).start()
    except RuntimeError:  # there are too many, or Python is ending
        _threads.discard(mark)
        with contextlib.suppress(ValueError):
            _left.remove(give_back)
            return False
    return True


def _work_off(mark: object) -> None:
    while _left:
        _threads.add(mark)
        with contextlib.suppress(IndexError):
            while True:
                give_back = _left.popleft()
                with contextlib.suppress(Exception):  # nobody could be told
                    give_back(WITHIN)
                del give_back
        _threads.discard(mark)
    _threads.discard(mark)


def _is_in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")  # a program that has no event loop need not import it
    return asyncio is not None and asyncio._get_running_loop() is not None


def _is_within(calls: Container[CodeType]) -> bool:
    # Read off the stack, since a note of it could be left behind by an exception (Ctrl-C).
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in calls:
            return True
        frame = frame.f_back
    return False


def _after_fork_in_child() -> None:
    _left.clear()  # that is done in the parent
    _threads.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)

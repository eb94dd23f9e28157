"""The processes that a server was asked about, kept by their pidfds, so that asking again costs no system call.

A pidfd belongs to its process, even if the number is given to another one, and becomes readable when the process has
ended, also as a zombie. One epoll over all of them says which have ended. A number that no process has can be given
to one a moment later, so it is looked up each time.
"""

from __future__ import annotations

import os
import resource
import select

from ..process.identity import exists, open_pidfd

_MOST = 16_384  # processes kept; more than most hosts run
_SPARE = 4  # one in so many of the descriptors that this process may have is kept for other things
_ENDS_AT_ONCE = 16  # ended processes read in one call; usually none has ended, and a large buffer costs time


class PidfdCache:
    """Knows which processes exist. `drop_ended` has to be called after a question came and before it is answered.

    `alive` has the numbers, as they stand in datagrams, of the processes that are kept; others have to be looked up.
    """

    def __init__(self, most: int = _MOST) -> None:
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = min(most, allowed - allowed // _SPARE)
        self._epoll = select.epoll() if hasattr(os, "pidfd_open") and self._most > 0 else None
        self.alive: dict[bytes, int] = {}  # the descriptor of each
        self._numbers: dict[int, bytes] = {}  # the number behind each descriptor
        self._starts: dict[bytes, int] = {}  # when it was started, where that was asked

    def drop_ended(self) -> None:
        """Drop the processes that have ended by now. It takes one system call, if any are kept."""
        while self.alive and self._epoll is not None:
            ended = self._epoll.poll(0, _ENDS_AT_ONCE)
            for descriptor, _ in ended:
                self._drop(self._numbers[descriptor])
            if len(ended) < _ENDS_AT_ONCE:
                return

    def look_up(self, number: bytes) -> bool | None:
        """Look up a process that is not kept, and keep it if it exists; None if that can't be known."""
        if self._epoll is None:
            return exists(int(number))
        try:
            descriptor = open_pidfd(int(number))
        except ProcessLookupError:
            return False
        if descriptor is None:
            return exists(int(number))
        self._epoll.register(descriptor, select.EPOLLIN)
        if len(self.alive) >= self._most:
            self._drop(next(iter(self.alive)))
        self.alive[number] = descriptor
        self._numbers[descriptor] = number
        self.drop_ended()  # it may be a zombie
        return number in self.alive

    def is_same(self, number: bytes, start: int) -> bool | None:
        """Return True if the process exists and was started at `start` (ticks since boot); None if that is hidden."""
        known = self._starts.get(number)
        if known is not None:
            return known == start
        if number not in self.alive and not self.look_up(number):
            return False
        same = exists(int(number), start)
        if same and number in self.alive:
            self._starts[number] = start
        return same

    def close(self) -> None:
        """Close all descriptors."""
        for number in list(self.alive):
            self._drop(number)
        if self._epoll is not None:
            self._epoll.close()

    def _drop(self, number: bytes) -> None:
        descriptor = self.alive.pop(number)
        del self._numbers[descriptor]
        self._starts.pop(number, None)
        os.close(descriptor)  # which takes it out of the epoll, too

"""LOCK_LIST and LOCK_INFO: an answer that may be as long as the table, made piece by piece while that changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ..model import Grant
from ..wire import info, replies
from .table import LockTable

_PIECE = 500  # lines made at a time: a millisecond of the loop


class Listing:
    """One such answer, and the lines that its client is to be told behind it."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.is_done = False
        self._lines = lines
        self._notices: list[bytes] = []

    def hold_back(self, notice: bytes) -> None:
        """Put a line behind the answer: the client has not asked for it, and would take it for a part of that."""
        self._notices.append(notice)

    def next_piece(self) -> bytes:
        """Make the next piece; the last one has the end of the answer."""
        lines = list(islice(self._lines, _PIECE))
        self.is_done = len(lines) < _PIECE
        if self.is_done:
            lines += [replies.END, *self._notices]
        return b"".join(lines)


def lock_list(table: LockTable) -> Iterator[bytes]:
    """Write a line for each lock that is held."""
    return map(replies.listed, table.walk())


def lock_info(table: LockTable, names: Iterable[bytes], now: float) -> Iterator[bytes]:
    """Write the lines about each lock of these names that is held, in full, or in short about all if there are none."""
    names = list(names)
    grants: Iterable[Grant] = (grant for name in names for grant in table.holders(name)) if names else table.walk()
    for grant in grants:
        yield info.held_line(grant, now, in_full=bool(names))
        if table.held.get(grant.name) is grant:  # of several holders one is enough
            for request in table.waiters(grant.name):
                yield info.waiter_line(grant.name, request, now)

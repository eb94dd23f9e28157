"""List of the held locks, in the order in which they came to be held; it can be gone through while it changes.

Each grant knows its neighbours. Whoever goes through the list has a mark in it, which stays where it is while grants
come and go around it. So no step takes long, and a lock that is held all the while is met once, also if it goes from
one holder to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Union

from ..model import Grant


class _Mark:
    """A place in the list that is no grant: an end of it, or how far somebody has come."""

    __slots__ = ("after", "before")

    after: _Link
    before: _Link


_Link = Union[Grant, _Mark]


class HeldList:
    """The held grants, between two marks."""

    def __init__(self) -> None:
        self._first, self._last = _Mark(), _Mark()
        self._first.after, self._last.before = self._last, self._first

    def append(self, link: _Link) -> None:
        """Put a grant at the end."""
        last = self._last
        link.before = before = last.before
        link.after = last
        before.after = last.before = link

    def remove(self, link: _Link) -> None:
        """Take a grant out."""
        before, after = link.before, link.after
        before.after = after
        after.before = before
        del link.before, link.after  # else those that go after each other would keep each other

    def replace(self, old: Grant, new: Grant) -> None:
        """Put a grant in the place of another one."""
        new.before, new.after = before, after = old.before, old.after
        before.after = after.before = new
        del old.before, old.after

    def walk(self) -> Iterator[Grant]:
        """Go through the grants that are there now; those that come to be while this goes on may be met or not."""
        here, end = _Mark(), _Mark()
        self.append(end)
        self._insert(here, self._first)
        try:
            while (link := here.after) is not end:
                self.remove(here)
                self._insert(here, link)
                if isinstance(link, Grant):
                    yield link
        finally:
            self.remove(here)
            self.remove(end)

    def _insert(self, mark: _Mark, before: _Link) -> None:
        mark.before, mark.after = before, before.after
        before.after.before = mark
        before.after = mark

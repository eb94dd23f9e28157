"""Things to be remembered for a while, in bounded memory; each call costs O(1)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Values by key, each for `seconds` from when it was put; of more than `most` the oldest are forgotten first.

    `now` is in seconds on any clock that does not run backwards.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self.items: OrderedDict[Key, tuple[float, Value]] = OrderedDict()  # until when; the oldest first

    def __len__(self) -> int:
        return len(self.items)

    def put(self, key: Key, value: Value, now: float) -> None:
        """Remember a value, in the place of one that the key has."""
        items = self.items
        items[key] = (now + self._seconds, value)
        items.move_to_end(key)
        for _ in range(2):  # more go than come, so it shrinks in time; and no call is long
            until, _value = next(iter(items.values()))
            if until > now and len(items) <= self._most:
                return
            items.popitem(last=False)

    def get(self, key: Key, now: float) -> Value | None:
        """Return the key's value, if it is remembered."""
        item = self.items.get(key)
        return item[1] if item is not None and item[0] > now else None

    def pop(self, key: Key, now: float) -> Value | None:
        """Forget the key, and return its value if that was remembered."""
        value = self.get(key, now)
        self.items.pop(key, None)
        return value

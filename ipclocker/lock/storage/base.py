"""Stores, which keep held locks beyond the end of the server, as the rest of the lock service knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..model import Record


class StoredState(NamedTuple):
    """Contents of a store when it was opened."""

    grants: list[Record]
    last_token: int


class Store(Protocol):
    """Store of held locks. `commit` may be called in another thread, but one call at a time.

    All raise StateError, with a message for the administrator.
    """

    @property
    def location(self) -> str:
        """Name of its place, for people to read."""

    def load(self) -> StoredState:
        """All that was committed."""

    def commit(self, changed: Sequence[Record], freed: Sequence[int], last_token: int) -> None:
        """Write these grants in the place of what has their tokens, delete those tokens; on return it is on disk.

        An empty batch is written as well: so it shows whether the store can be written.
        """

    def close(self) -> None:
        """Let go of it."""

"""Where held locks outlive the server: all that the rest of the lock service knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..model import Record


class StoredState(NamedTuple):
    """What a store held when it was opened."""

    grants: list[Record]
    last_token: int


class Store(Protocol):
    """Where held locks outlive the server. `commit` may be called in another thread, but one call at a time.

    All raise StateError, with a message for the administrator.
    """

    @property
    def location(self) -> str:
        """Where that is, for people to read."""

    def load(self) -> StoredState:
        """All that was committed."""

    def commit(self, changed: Sequence[Record], freed: Sequence[int], last_token: int) -> None:
        """Write these grants in the place of what has their tokens, delete those tokens; on return it is on disk.

        An empty batch is written as well: so it shows whether the store can be written.
        """

    def close(self) -> None:
        """Let go of it."""

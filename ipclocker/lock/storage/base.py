"""Stores, which keep held locks beyond the end of the server, as the rest of the lock service knows them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ...errors import OUTPUT, IpclockerError
from ..model import Record


class StoredState(NamedTuple):
    """Contents of a store when it was opened."""

    grants: list[Record]
    last_token: int
    served: float  # when a server last had it open, in seconds since 1970
    space: str  # the identity of the lock space that these grants are of: 32 hexadecimal digits


def new_space() -> str:
    """Return the identity of a new lock space."""
    return os.urandom(16).hex()


Freed = tuple[bytes, int]  # name and token of a grant that has ended


class TermLost(IpclockerError):
    """A shared store is another server's by now, or nobody here can know any more what is in it.

    Who has it may neither write nor take back anything: what stands there has to be loaded again, in another term.
    """

    exit_code = OUTPUT


class Store(Protocol):
    """Store of held locks. `commit` may be called in another thread, but one call at a time.

    `is_shared`: other servers may take this one's place in it. All raise StateError, with a message for the
    administrator; then nothing was written. A shared one raises TermLost when it can't know that, or is not this
    server's any more.
    """

    is_shared: bool

    @property
    def location(self) -> str:
        """Name of its place, for people to read."""

    def load(self) -> StoredState:
        """All that was committed."""

    def commit(self, changed: Sequence[Record], freed: Sequence[Freed], last_token: int) -> None:
        """Write these grants in the place of what has their tokens, delete those names and tokens; then it is kept.

        An empty batch is written as well: so it shows whether the store can be written.
        """

    def confirm_term(self) -> None:
        """See that no other server had taken this one's place when it was called. Raises TermLost."""

    def touch(self) -> None:
        """Note that a server has it open at this moment, and see whether it is still in its place.

        Called in the thread of `commit`, every few seconds while something is held.
        """

    def copy_to(self, path: str) -> None:
        """Copy all that was committed to a store of its kind in another place. Called in the thread of `commit`."""

    def close(self) -> None:
        """Let go of it."""

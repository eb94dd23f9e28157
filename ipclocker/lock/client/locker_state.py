"""What a Locker holds in this process, as far as is known without asking a server."""

from __future__ import annotations

import os
from typing import Optional

from ...net.text import decode_text
from .connection import Wait
from .holding import Holding
from .listener import LockerListener
from .loss_event import LossEvent
from .questions import LockerQuestions
from .settings import LockSettings


class LockerState(LockerQuestions):
    """Tells of what is held. After a fork it begins as one that holds nothing."""

    def __init__(self, settings: LockSettings, wait_ready: Wait, suffix: str) -> None:
        super().__init__(settings, wait_ready, suffix)
        self._inherited: Holding | None = None  # what the process held that this one is a fork of
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._holding = Holding(self.settings, LockerListener(self), self._wait_ready, self._suffix)

    def _check_process(self) -> None:
        if self._process != os.getpid():
            self._holding.leave_to_parent()
            if self._holding.acquisition.held is not None:
                self._inherited = self._holding
            self._reset()

    def __repr__(self) -> str:
        held = self._holding.acquisition.grants
        state = " ".join(["held", *(f"token={grant.token}" for grant in held)]) if self._holding.locked else "not held"
        return f"<{type(self).__name__} {' '.join(map(decode_text, self.settings.names))!r} {state}>"

    def locked(self) -> bool:
        """Return True if the lock was obtained, not released, and its hold time is not over; no server is asked."""
        self._check_process()
        return self._holding.locked

    @property
    def lost(self) -> LossEvent:
        """Set when the lock that is held, or was held last, is known to be lost: a threading.Event."""
        self._check_process()
        return self._holding.lost

    @property
    def until(self) -> float:
        """The end of the hold time, if nobody breaks the lock before: seconds, monotonic; 0 if it is not held."""
        self._check_process()
        return self._holding.until

    def lock_name(self) -> str:
        """The name of the lock that is held, or the first of those that are asked for; with `all`, all, by spaces."""
        self._check_process()
        if self.settings.all:
            return decode_text(b" ".join(name for (name,) in self.settings.groups))
        held = self._holding.acquisition.held
        return decode_text(self.settings.names[0] if held is None else held.name)

    @property
    def token(self) -> Optional[int]:
        """The fencing token of the grant: greater than that of all earlier ones; None from a classic server."""
        self._check_process()
        held = self._holding.acquisition.held
        return None if held is None else held.token

    @property
    def tokens(self) -> dict[str, Optional[int]]:
        """The fencing token of each lock that is held."""
        self._check_process()
        return {decode_text(held.name): held.token for held in self._holding.acquisition.grants}

    # As the messages of errors have it

    def _busy(self) -> str:
        holder = self._holding.acquisition.holder or "another thread or task of this process"
        return f"the lock '{self.lock_name()}' is busy: {holder} holds it"

    def _not_held(self, name: str) -> str:
        why = "another thread or task holds it" if self._holding.locked else "it is not held"
        return f"cannot release the lock '{name}': {why}"

    def _was_lost(self, name: str) -> str:
        return f"the lock '{name}' was lost while it was held: it was broken, or its time was up"

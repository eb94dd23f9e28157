"""What a Locker tells of its locks: by functions that it was given, else on stderr if it is verbose, else in a log."""

from __future__ import annotations

import sys
import weakref
from typing import Protocol

from ...net.text import decode_text
from .settings import LockSettings


class HasSettings(Protocol):
    """A Locker, as far as it is needed here: the functions are among its settings, and are given it."""

    settings: LockSettings


class AcquisitionListener(Protocol):
    """The one who wants to know how an acquisition goes on."""

    def waiting(self, name: str, holder: str) -> None:
        """Hear that the lock is busy and that the request is in the queue."""

    def obtained(self) -> None:
        """Hear that the lock was granted after a wait."""

    def retry(self, reason: str, left: float) -> None:
        """Hear that no server answers, and that they are tried again for up to `left` seconds."""


class LockerListener:
    """That of a Locker: calls its print_ functions.

    It refers to its Locker weakly, so that a Locker that nobody uses any more is deleted, and unlocks.
    """

    def __init__(self, locker: HasSettings) -> None:
        self._locker = weakref.ref(locker)

    def waiting(self, name: str, holder: str) -> None:
        """Say that the lock is busy and waited for."""
        self._tell("print_waiting", f"waiting for lock {name}: {holder} holds it", name, holder)

    def obtained(self) -> None:
        """Say that the lock was granted after a wait."""
        self._tell("print_obtained", "obtained the lock")

    def broke(self, holder: bytes) -> None:
        """Say from whom a lock was taken."""
        self._tell("print_broke", f"broke the lock of {decode_text(holder)}")

    def retry(self, reason: str, left: float) -> None:
        """Say that no server answers, and for how long they are tried again."""
        self._tell("print_retry", f"{reason}; trying again for {left:.0f} s", is_trouble=True)

    def _tell(self, kind: str, text: str, *details: str, is_trouble: bool = False) -> None:
        locker = self._locker()
        if locker is None:
            return
        message = locker.settings.messages[kind]
        if message is not None:
            message(locker, *details)
        elif locker.settings.verbose:
            print(text, file=sys.stderr, flush=True)
        else:
            from logging import DEBUG, WARNING, getLogger  # only here, for an import that most runs do without

            getLogger("ipclocker").log(WARNING if is_trouble else DEBUG, "%s", text)

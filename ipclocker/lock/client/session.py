"""Under which user and session an acquisition asks: by these the server knows whose requests they are."""

from __future__ import annotations

import os

from ...net.text import encode_text
from .connection import ServerConnection, Value
from .settings import LockSettings

Owner = dict[str, Value]  # the variables by which the server knows whose requests these are


class Session:
    """A user, and a session that nobody else has; none with a user name that the program has chosen."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._default_user = b""
        self._user = b""
        self._name = b""

    def begin(self, settings: LockSettings) -> None:
        """Take a user name and a session for all requests from now until the next UNLOCK."""
        if settings.user is not None:
            self._user, self._name = encode_text(settings.user), b""
        else:
            self._default_user = self._default_user or settings.user_name(self._suffix)
            # It can't be guessed: a server takes all requests of one session for one owner's.
            self._user, self._name = self._default_user, os.urandom(12).hex().encode()

    def owner(self, connection: ServerConnection | None) -> Owner:
        """Return the variables that say whose a request is, one that may go over this connection."""
        if self._name:
            # The second word says that the server need not grant anything to it behind its UNLOCK.
            return {"user": self._user, "session": (self._name, b"once")}
        if connection is not None and connection.has_sent("session"):
            return {"user": self._user, "session": b""}
        return {"user": self._user}

"""The questions that lockstat asks a lock server for people and scripts: what is held, by whom; and breaking a lock.

A server that does not know LOCK_INFO or RECALL (a classic one) skips them and answers only the VERSION behind them
in the same packet. Then LOCK_LIST says what it can, and BREAK_LOCK frees. All questions of an Inspector go to the lock
space that answered its first one: to that server, or to each of the list that tells that it serves the same space.
"""

from __future__ import annotations

import time
from typing import Callable

from ..snapshot import BROKEN, FREE, RECALLED, Snapshot, Taking
from ..wire.info import HeldInfo
from ..wire.replies import Answer, Space
from .query import query
from .settings import LockSettings, lock_names
from .space_hosts import patience

FAIL_OVER = 20.0  # seconds; some more than it takes when a host is lost together with etcd's leading member


class Inspector:
    """Asks one lock server.

    Every method raises ServerUnavailable, ServerRefused, and UsageError for a name that can't be a lock's.
    """

    def __init__(self, settings: LockSettings) -> None:
        self.server = ""  # the one that has answered
        self._settings = settings
        self._space: Space | None = None  # that it serves, if others may serve it, too

    @property
    def patience(self) -> float:
        """For how many seconds nobody may answer, since another server takes over meanwhile: 0 if none would.

        As long as nobody has answered, several hosts are taken for servers of one lock space.
        """
        if self.server:
            return 0.0 if self._space is None else patience(self._space, FAIL_OVER)
        return FAIL_OVER if len(self._settings.servers()) > 1 else 0.0

    def look(self, name: str | None = None) -> Snapshot:
        """List all held locks, or the one of that name if it is held."""
        names = () if name is None else lock_names(name)
        answer = self._query(b" ".join((b"LOCK_INFO", *names)) + b"\nVERSION")
        locks, detailed = answer.held, answer.version is None
        if not detailed:
            listed = self._query(b"LOCK_LIST").locks
            locks = tuple(HeldInfo(*lock) for lock in listed if not names or lock[0] in names)
        return Snapshot(self.server, time.time(), tuple(sorted(locks, key=lambda lock: lock.name)), detailed)

    def is_current(self, name: str, token: int) -> bool | None:
        """Ask whether the grant with that token still stands; None if the server knows no tokens."""
        answer = self._query(b"CHECK %b %d\nVERSION" % (lock_names(name)[0], token))
        return None if answer.version is not None else bool(answer.current)

    def recall(self, name: str) -> Taking:
        """Ask the holder of a lease to give it back; take any other lock from its holder at once."""
        taking = self._take(b"RECALL\nVERSION", name)
        return taking or self.break_lock(name)

    def break_lock(self, name: str) -> Taking:
        """Take a lock from its holder at once, even a lease."""
        return self._take(b"BREAK_LOCK", name) or Taking(FREE, b"")

    def _take(self, command: bytes, name: str) -> Taking | None:
        """Run the command on a lock; None if the server does not know it."""
        broken: list[bytes] = []
        answer = self._query(command, name, broken.append)
        if answer.version is not None:
            return None
        if broken:
            return Taking(BROKEN, broken[-1])
        return Taking(RECALLED, answer.owner) if answer.owner else Taking(FREE, b"")

    def _query(
        self, command: bytes, name: str | None = None, on_broken: Callable[[bytes], None] = lambda holder: None
    ) -> Answer:
        settings = self._settings if name is None else self._settings.changed(lock=name)
        takes = name is not None
        asked = query(settings, command, on_broken=on_broken, once=takes, asks_space=True, space=self._space)
        is_first, self.server = not self.server, asked.server
        if is_first and asked.space is not None and asked.space.ttl is not None:
            self._space = asked.space
        elif is_first and settings.endpoint.path is None:
            host, _, port = asked.server.rpartition(":")
            self._settings = self._settings.changed(host=host, port=port)
        return asked.answer

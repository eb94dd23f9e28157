"""The lock table, the conversations about it, and who of them is to be told of what changes in it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Callable

from ..model import Ask, Grant, HolderProcess
from ..wire import replies
from .request_handler import RequestHandler
from .table import LockTable


class LockService:
    """The lock table and the conversations about it.

    `speak` is called with each conversation that got output while another one was served. `is_connected` says of a
    waiting conversation whether its client is still connected. `on_suspect` is called with a process that there is reason
    to look at: its client hung up, or somebody says that it is gone. `last_token` as for LockTable.
    """

    def __init__(
        self,
        speak: Callable[[RequestHandler], None],
        present: Callable[[RequestHandler], bool] = lambda handler: True,
        doubt: Callable[[HolderProcess], None] = lambda process: None,
        last_token: int = 0,
    ) -> None:
        def is_present(ask: Ask) -> bool:
            assert isinstance(ask, RequestHandler)
            return present(ask)

        self.table = LockTable(last_token, is_present)
        self.is_connected = present
        self.started = time.time()
        self.now = 0.0  # the time of what is being done just now
        self.on_suspect = doubt
        self.is_durable: Callable[[bytes], bool] = lambda name: True  # whether a lock outlives the server as it is now
        self.listens: dict[int, RequestHandler] = {}  # by token, whom to tell that the grant has ended
        self._speak = speak
        self._settling = False

    def expire(self, now: float) -> list[Grant]:
        """End the holds whose time is up; the grants that ended. What is `overdue` then is to be looked at."""
        self.now = now
        ended = self.table.expire(now)
        self.notify_lost(ended)
        self.deliver()
        return ended

    def fail_waiters(self, asks: Iterable[Ask]) -> None:
        """What these waited for was taken back, and they wait no more."""
        for ask in asks:
            assert isinstance(ask, RequestHandler)
            ask.abort(b"unwritable")
            self._speak(ask)

    def lapse(self, grant: Grant, now: float) -> bool:
        """A lease has run out and nobody knows its process to live; whether the grant ended by that."""
        self.now = now
        ended = self.table.expire_overdue(grant, now)
        if ended:
            self.notify_lost([grant])
            self.deliver()
        return ended

    def process_gone(self, process: HolderProcess, now: float) -> list[Grant]:
        """Free the locks of a process that is known to be gone; the grants that ended."""
        self.now = now
        ended = self.table.release_of(process, now)
        self.notify_lost(ended)
        self.deliver()
        return ended

    def recall(self, names: Iterable[bytes]) -> list[Grant]:
        """Ask the holders of leases among these locks to give them back; the grants that are recalled."""
        recalled = []
        for grant in map(self.table.held.get, names):
            if grant is not None and grant.lease:
                grant.recalled = True
                recalled.append(grant)
                self._tell(grant, replies.recall(grant))
        return recalled

    # Who wants to hear of a grant's end. The one who asked last about a grant is the one who is told.

    def subscribe(self, handler: RequestHandler, grant: Grant) -> None:
        """Tell this client of the grant's end, if it takes such lines."""
        if handler.tells:
            self.listens[grant.token] = handler
            handler.listens_to |= {grant.token}

    def forget_listener(self, handler: RequestHandler) -> None:
        """The client is gone."""
        for token in handler.listens_to:
            if self.listens.get(token) is handler:
                del self.listens[token]

    def forget_listeners_of(self, ask: Ask) -> None:
        """The owner of these locks ends his grants himself."""
        for grant in map(self.table.held.get, ask.names):
            if grant is not None and grant.belongs_to(ask):
                self._forget(grant)

    def notify_lost(self, ended: Iterable[Grant]) -> None:
        """Tell those that listen that these grants have ended, and not by their owners' doing."""
        if self.listens:
            for grant in ended:
                self._tell(grant, replies.lost(grant))
                self._forget(grant)

    def _forget(self, grant: Grant) -> None:
        listener = self.listens.pop(grant.token, None)
        if listener is not None:
            listener.listens_to -= {grant.token}

    def _tell(self, grant: Grant, news: bytes) -> None:
        listener = self.listens.get(grant.token)
        if listener is not None:
            listener.notify(news)
            self._speak(listener)

    def deliver(self) -> None:
        """Tell those whom the last change of the table concerns besides the one who asked for it."""
        table = self.table
        if self._settling or not (table.granted or table.dropped):
            return
        self._settling = True  # whoever is told here may change the table again: the loop below sees to it
        try:
            while table.granted or table.dropped:
                granted, table.granted = table.granted, []
                dropped, table.dropped = table.dropped, []
                for ask in dropped:
                    assert isinstance(ask, RequestHandler)
                    ask.superseded()
                    self._speak(ask)
                for ask, grant in granted:
                    assert isinstance(ask, RequestHandler)
                    ask.on_granted(grant)
                    self._speak(ask)
        finally:
            self._settling = False

"""The protocol joined to the table: bytes of many connections in, bytes for each of them out, no socket anywhere.

A connection is a Conversation. What it is told is put on its `output` in order; whoever owns the socket takes
the output and sends it when everything that it shows is kept. A conversation runs one command after another and
stops in three cases: its LOCK waits, its LOCK_LIST is still being written, or enough output has gathered that
the client should first read some. The lines behind are kept, up to a bound, until it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Callable

from ..daemon.lines import LineTooLong, split_lines
from ..version import VERSION
from . import protocol
from .protocol import Variables
from .table import Ask, Grant, LockTable

MAX_BACKLOG = 65_536  # bytes of requests kept behind one that waits
MAX_ANSWERS = 64  # answers that gather before the client is to read some
_LIST_PIECE = 1_000  # lines of a LOCK_LIST made at a time


class Conversation(Variables):
    """One client's connection, as the lock service sees it. It is the ask that waits in the table's queues."""

    def __init__(self, service: LockService, address: str = "") -> None:
        self.service = service
        self.address = address
        self.output: list[bytes] = []
        self.waiting = False  # a LOCK of this connection is queued
        self.closing = False  # nothing more is read; close once the output is sent
        self._rest = b""
        self._backlog: list[bytes] = []
        self._listing: Iterator[Grant] | None = None
        self._undelivered: Grant | None = None  # a waited grant that the client can't know of yet

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that arrived, and run the commands that they complete."""
        if self.closing:
            return
        try:
            lines, self._rest = split_lines(self._rest, data)
        except LineTooLong:
            self._refuse(b"line_too_long", now)
            return
        if self.waiting or self._backlog or self._listing is not None:
            self._backlog += lines
            if sum(map(len, self._backlog)) + len(self._backlog) > MAX_BACKLOG:
                self._refuse(b"too_much_input", now)
        else:
            self._run(lines, now)

    def resume(self, now: float) -> bool:
        """Go on where it stopped because of its output; False if there is nothing more to do for now."""
        if self._listing is not None:
            self._list_more()
            return True
        if self.waiting or not self._backlog:
            return False
        lines, self._backlog = self._backlog, []
        self._run(lines, now)
        return True

    def hang_up(self, now: float) -> None:
        """The client is gone: it waits for nothing any more. What it knows to hold, it keeps."""
        self.closing = True
        self.waiting = False
        self._backlog = []
        table = self.service.table
        table.leave(self)
        if self._undelivered is not None and table.current(self._undelivered.name, self._undelivered.token):
            table.break_locks([self._undelivered.name], now)
            self.service.settle(now)

    def obtained(self, grant: Grant, now: float) -> None:
        """The LOCK that waited was granted."""
        self._undelivered = grant
        self.output.append(protocol.OBTAINED)
        self._answer_granted(grant)
        self._waited(now)

    def delivered(self) -> None:
        """All output so far was sent."""
        self._undelivered = None

    def superseded(self, now: float) -> None:
        """The LOCK that waited was taken off the queue by another connection of its owner."""
        self.output.append(protocol.status(self.service.table.standing(self), self))
        self._waited(now)

    # Inside

    def _waited(self, now: float) -> None:
        self.waiting = False
        lines, self._backlog = self._backlog, []
        self._run(lines, now)

    def _run(self, lines: list[bytes], now: float) -> None:
        remaining = iter(lines)
        for words in protocol.commands(remaining, self):
            if self.faults and words[0] != b"EOF":
                self.output.append(protocol.error(b"bad_" + min(self.faults)))
            else:
                _COMMANDS[words[0]](self, words, now)
            if self.waiting or self.closing or self._listing is not None or len(self.output) >= MAX_ANSWERS:
                break
        if not self.closing:
            self._backlog = list(remaining)

    def _refuse(self, word: bytes, now: float) -> None:
        """Answer with an error after which nothing that this client says can be made sense of."""
        self.hang_up(now)
        self.output.append(protocol.error(word))

    def _lacks(self, needs_user: bool) -> bool:
        """Whether the request lacks what it needs; then that is the answer."""
        if needs_user and not self.user:
            self.output.append(protocol.error(b"no_user"))
        elif not self.names:
            self.output.append(protocol.error(b"no_locks"))
        else:
            return False
        return True

    def _answer_granted(self, grant: Grant) -> None:
        self.names = (grant.name,)
        self.output.append(protocol.granted(grant, self.confirms))

    def _lock(self, words: list[bytes], now: float) -> None:
        if self._lacks(needs_user=True):
            return
        if self.autounlock:
            self.identify(self.address)
        elif self.process is not None:
            self.process = None
        grant = self.service.table.lock(self, now)
        if grant is not None:
            self._answer_granted(grant)
        else:
            self._answer_busy(now)

    def _answer_busy(self, now: float) -> None:
        table = self.service.table
        holders = [table.held[name] for name in self.names]
        if self.process is not None:
            for grant in holders:
                if grant.process is not None and grant.process.host:
                    self.output.append(protocol.look_for(grant.name, grant.process))
        if self.waits:
            self.output.append(protocol.waiting(holders[0]))
            self.waiting = True
            table.wait(self)
            self.service.settle(now)
        else:
            self.output.append(protocol.status(holders[0], self))

    def _unlock(self, words: list[bytes], now: float) -> None:
        if self._lacks(needs_user=True):
            return
        table = self.service.table
        table.unlock(self, now)
        self.output.append(protocol.status(table.standing(self), self))
        self.service.settle(now)

    def _status(self, words: list[bytes], now: float) -> None:
        if not self._lacks(needs_user=False):
            self.output.append(protocol.status(self.service.table.standing(self), self))

    def _break_lock(self, words: list[bytes], now: float) -> None:
        if self._lacks(needs_user=False):
            return
        table = self.service.table
        self.output += map(protocol.broke, table.break_locks(self.names, now))
        self.output.append(protocol.status(table.standing(self), self))
        self.service.settle(now)

    def _dead_pid(self, words: list[bytes], now: float) -> None:
        try:
            host, pid = protocol.process_named(words)
        except ValueError:
            return  # the command has no answer, so there is none to give
        self.service.table.dead_process(host, pid, self.address, now)
        self.service.settle(now)

    def _lock_list(self, words: list[bytes], now: float) -> None:
        self._listing = iter(list(self.service.table.held.values()))
        self._list_more()

    def _list_more(self) -> None:
        """Write the next piece of a list, so that a great table holds up nobody else."""
        assert self._listing is not None
        piece = list(islice(self._listing, _LIST_PIECE))
        self.output += map(protocol.listed, piece)
        if len(piece) < _LIST_PIECE:
            self.output.append(protocol.END)
            self._listing = None

    def _version(self, words: list[bytes], now: float) -> None:
        self.output.append(protocol.version(VERSION, self.service.started))

    def _restart(self, words: list[bytes], now: float) -> None:
        self.output.append(protocol.error(b"restart_refused"))

    def _eof(self, words: list[bytes], now: float) -> None:
        self.closing = True

    def _got(self, words: list[bytes], now: float) -> None:
        try:
            self.service.table.confirm(*protocol.grant_named(words))
        except ValueError:
            self.output.append(protocol.error(b"bad_token"))

    def _renew(self, words: list[bytes], now: float) -> None:
        try:
            name, token = protocol.grant_named(words)
        except ValueError:
            self.output.append(protocol.error(b"bad_token"))
            return
        stands = self.service.table.renew(name, token, now)
        self.output.append(protocol.renewed(name, token) if stands else protocol.error(b"lost"))

    def _check(self, words: list[bytes], now: float) -> None:
        try:
            name, token = protocol.grant_named(words)
        except ValueError:
            self.output.append(protocol.error(b"bad_token"))
            return
        self.output.append(protocol.current(self.service.table.current(name, token) is not None))


_COMMANDS: dict[bytes, Callable[[Conversation, list[bytes], float], None]] = {
    b"LOCK": Conversation._lock,
    b"UNLOCK": Conversation._unlock,
    b"STATUS": Conversation._status,
    b"BREAK_LOCK": Conversation._break_lock,
    b"DEAD_PID": Conversation._dead_pid,
    b"LOCK_LIST": Conversation._lock_list,
    b"VERSION": Conversation._version,
    b"RESTART": Conversation._restart,
    b"EOF": Conversation._eof,
    b"GOT": Conversation._got,
    b"RENEW": Conversation._renew,
    b"CHECK": Conversation._check,
}


class LockService:
    """The lock table and the conversations about it.

    `speak` is called with each conversation that got output while another one was served. `present` says of a
    waiting conversation whether its client is still connected. `last_token` as for LockTable.
    """

    def __init__(
        self,
        speak: Callable[[Conversation], None],
        present: Callable[[Conversation], bool] = lambda conversation: True,
        last_token: int = 0,
    ) -> None:
        def is_present(ask: Ask) -> bool:
            assert isinstance(ask, Conversation)
            return present(ask)

        self.table = LockTable(last_token, is_present)
        self.started = time.time()
        self._speak = speak
        self._settling = False

    def expire(self, now: float) -> list[Grant]:
        """End the holds whose time is up; the grants that ended."""
        ended = self.table.expire(now)
        self.settle(now)
        return ended

    def settle(self, now: float) -> None:
        """Tell those whom the last change of the table concerns besides the one who asked for it."""
        table = self.table
        if self._settling or not (table.granted or table.dropped):
            return
        self._settling = True  # whoever is told here may change the table again: the loop below sees to it
        while table.granted or table.dropped:
            granted, table.granted = table.granted, []
            dropped, table.dropped = table.dropped, []
            for ask in dropped:
                assert isinstance(ask, Conversation)
                ask.superseded(now)
                self._speak(ask)
            for ask, grant in granted:
                assert isinstance(ask, Conversation)
                ask.obtained(grant, now)
                self._speak(ask)
        self._settling = False

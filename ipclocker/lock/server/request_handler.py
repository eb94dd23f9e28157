"""The protocol joined to the table: bytes of many connections in, bytes for each of them out, no socket anywhere.

A connection is a Conversation. What it is told is put on its `output` in order; whoever owns the socket takes
the output and sends it when everything that it shows is kept. A conversation runs one command after another and
stops in three cases: its LOCK waits, its LOCK_LIST is still being written, or enough output has gathered that
the client should first read some. The lines behind are kept, up to a bound, until it goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Callable, Optional

from ...net.line_buffer import LineTooLong, split_lines
from ...version import VERSION
from ..model import Grant
from ..wire import info, replies, requests
from ..wire.requests import RequestVariables

if TYPE_CHECKING:
    from .service import LockService

MAX_BACKLOG = 65_536  # bytes of requests kept behind one that waits
MAX_ANSWERS = 64  # answers that gather before the client is to read some
_LIST_PIECE = 1_000  # lines of a LOCK_LIST made at a time


class RequestHandler(RequestVariables):
    """One client's connection, as the lock service sees it. It is the ask that waits in the table's queues."""

    reveals_uncommitted = False  # whether the output may show what has changed since the last answer
    waits_since = 0.0
    listens_to: frozenset[int] = frozenset()  # tokens of grants whose end the client is to hear of
    _news: tuple[bytes, ...] = ()  # came while a list was being written

    def __init__(self, service: LockService, address: str = "") -> None:
        self.service = service
        self.address = address
        self.output: list[bytes] = []
        self.waiting = False  # a LOCK of this connection is queued
        self.paused = False  # lines that arrive are kept: it waits, or goes on when it is told to resume
        self.closing = False  # nothing more is read; close once the output is sent
        self._rest = b""
        self._backlog: list[bytes] = []
        self._listing: Iterator[bytes] | None = None
        self.undelivered: Grant | None = None  # a grant that the client can't have been told of yet

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that arrived, and run the commands that they complete."""
        if self.closing:
            return
        self.service.now = now
        try:
            lines, self._rest = split_lines(self._rest, data)
        except LineTooLong:
            self._refuse(b"line_too_long", now)
            return
        if not self.paused:
            self._run(lines)
            return
        self._backlog += lines
        if sum(map(len, self._backlog)) + len(self._backlog) > MAX_BACKLOG:
            self._refuse(b"too_much_input", now)

    def resume(self, now: float) -> None:
        """Go on where it stopped because of its output, now that the client has been sent that."""
        self.service.now = now
        if self._listing is not None:
            self._list_more()
        elif not self.waiting:
            lines, self._backlog = self._backlog, []
            self._run(lines)

    def on_disconnect(self, now: float) -> None:
        """The client is gone: it waits for nothing any more. What it knows to hold, it keeps."""
        self.closing = True
        self.waiting = self.paused = False
        self._backlog = []
        self.service.now = now
        if self.process is not None:
            self.service.on_suspect(self.process)
        table = self.service.table
        table.dequeue(self)
        self.service.forget_listener(self)
        if self.undelivered is not None and table.current(self.undelivered.name, self.undelivered.token):
            table.break_locks([self.undelivered.name], now)
            self.service.deliver()

    def abort(self, word: bytes) -> None:
        """End the conversation with an error in the place of all that the client was not told yet."""
        self.closing = True
        self.waiting = self.paused = False
        self._backlog = []
        self._listing = self.undelivered = None
        self.service.table.dequeue(self)
        self.service.forget_listener(self)
        self.output[:] = [replies.error(word)]

    def notify(self, news: bytes) -> None:
        """A line that the client has not asked for comes between two answers."""
        self.reveals_uncommitted = True
        if self._listing is None:
            self.output.append(news)
        else:
            self._news += (news,)

    def on_granted(self, grant: Grant) -> None:
        """The LOCK that waited was granted."""
        self.undelivered = grant
        self.reveals_uncommitted = True
        self.output.append(replies.OBTAINED)
        self._answer_granted(grant)
        self._waited()

    def superseded(self) -> None:
        """The LOCK that waited was taken off the queue by another connection of its owner."""
        self.reveals_uncommitted = True
        self.output.append(replies.status(self.service.table.standing(self), self))
        self._waited()

    # Inside

    def _waited(self) -> None:
        self.waiting = False
        lines, self._backlog = self._backlog, []
        self._run(lines)

    def _run(self, lines: list[bytes]) -> None:
        """Go through lines: set variables and run commands, up to one that can't be finished now."""
        self.paused = False
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words:
                continue
            handler = (_REFUSALS if self.faults else _HANDLERS).get(words[0])
            if handler is None:
                continue
            try:
                stops = handler(self, words)
            except (ValueError, IndexError):
                if words[0] not in requests.VARIABLES:
                    raise
                self.faults |= {words[0]}
                continue
            if stops is None:
                if self.faults:
                    self.faults -= {words[0]}
                continue
            if words[0] not in _OF_ONE_GRANT:
                self.reveals_uncommitted = True
            if stops or len(self.output) >= MAX_ANSWERS:
                self.paused = True
                self._backlog = lines[number:]
                return

    def _refuse(self, word: bytes, now: float) -> None:
        """Answer with an error after which nothing that this client says can be made sense of."""
        self.on_disconnect(now)
        self.output.append(replies.error(word))

    # Commands. Each returns whether the lines behind it have to wait.

    def _lock(self, words: list[bytes]) -> bool:
        if not self.user or not self.names:
            return self._answer_error(b"no_locks" if self.user else b"no_user")
        if self.session and not self.service.is_connected(self):
            # It has given up waiting for this answer. (A classic client may hang up half, so it gets its answer.)
            self.closing = True
            return True
        if self.autounlock:
            self.identify(self.address)
        elif self.process is not None:
            self.process = None
        grant = self.service.table.acquire(self, self.service.now)
        if grant is None:
            return self._answer_busy()
        if grant.recalled:
            return self._answer_error(b"recalled")
        self._answer_granted(grant)
        return False

    def _unlock(self, words: list[bytes]) -> bool:
        if not self.user or not self.names:
            return self._answer_error(b"no_locks" if self.user else b"no_user")
        table = self.service.table
        if self.service.listens:
            self.service.forget_listeners_of(self)  # what the owner gives back itself is not lost
        table.release(self, self.service.now)
        self.output.append(replies.status(table.standing(self), self))
        if table.granted or table.dropped:
            self.service.deliver()
        return False

    def _status(self, words: list[bytes]) -> bool:
        if not self.names:
            return self._answer_error(b"no_locks")
        self.output.append(replies.status(self.service.table.standing(self), self))
        return False

    def _break_lock(self, words: list[bytes]) -> bool:
        if not self.names:
            return self._answer_error(b"no_locks")
        return self._break(self.names, b"")

    def _recall(self, words: list[bytes]) -> bool:
        if not self.names:
            return self._answer_error(b"no_locks")
        recalled = self.service.recall(self.names)
        others = [name for name in self.names if name not in {grant.name for grant in recalled}]
        return self._break(others, b"".join(map(replies.recalled, recalled)))

    def _break(self, names: Iterable[bytes], answer: bytes) -> bool:
        table = self.service.table
        broken = table.break_locks(names, self.service.now)
        self.service.notify_lost(broken)
        answer += b"".join(map(replies.broke, broken))
        self.output.append(answer + replies.status(table.standing(self), self))
        self.service.deliver()
        return False

    def _dead_pid(self, words: list[bytes]) -> bool:
        with contextlib.suppress(ValueError):  # the command has no answer, so there is none to give
            host, pid = requests.process_named(words)
            ended, doubtful = self.service.table.report_dead(host, pid, self.address, self.service.now)
            for process in doubtful:
                self.service.on_suspect(process)
            self.service.notify_lost(ended)
            self.service.deliver()
        return False

    def _lock_list(self, words: list[bytes]) -> bool:
        return self._list(map(replies.listed, list(self.service.table.held.values())))

    def _lock_info(self, words: list[bytes]) -> bool:
        held = self.service.table.held
        grants = list(held.values()) if len(words) == 1 else [held[name] for name in words[1:] if name in held]
        return self._list(self._info(grants, self.service.now))

    def _info(self, grants: list[Grant], now: float) -> Iterator[bytes]:
        for grant in grants:
            if self.service.table.held.get(grant.name) is not grant:
                continue  # it has ended since the list was begun
            yield info.held_line(grant, now)
            for ask in self.service.table.waiters(grant.name):
                assert isinstance(ask, RequestHandler)
                yield info.waiter_line(grant.name, ask, ask.address, now - ask.waits_since)

    def _list(self, lines: Iterator[bytes]) -> bool:
        self._listing = lines
        self._list_more()
        return self._listing is not None

    def _version(self, words: list[bytes]) -> bool:
        self.output.append(replies.version(VERSION, self.service.started))
        return False

    def _eof(self, words: list[bytes]) -> bool:
        self.closing = True
        return True

    def _got(self, words: list[bytes]) -> bool:
        with contextlib.suppress(ValueError):  # the command has no answer, so there is none to give
            self.service.table.confirm(*requests.grant_named(words))
        return False

    def _renew(self, words: list[bytes]) -> bool:
        try:
            name, token = requests.grant_named(words)
        except ValueError:
            self.output.append(replies.error(b"bad_token"))
        else:
            grant = self.service.table.renew(name, token, self.service.now)
            self.reveals_uncommitted |= not self.service.is_durable(name)
            if grant is None:
                return self._answer_error(b"lost")
            self.service.subscribe(self, grant)
            self.output.append(replies.error(b"recalled") if grant.recalled else replies.renewed(name, token))
        return False

    def _check(self, words: list[bytes]) -> bool:
        try:
            name, token = requests.grant_named(words)
            grant = self.service.table.current(name, token)
            self.reveals_uncommitted |= not self.service.is_durable(name)
        except ValueError:
            self.output.append(replies.error(b"bad_token"))
        else:
            if grant is not None:
                self.service.subscribe(self, grant)
            self.output.append(replies.current(grant is not None))
        return False

    def _restart(self, words: list[bytes]) -> bool:
        return self._answer_error(b"restart_refused")

    # Answers that are no plain success

    def _answer_fault(self, words: list[bytes]) -> bool:
        return self._answer_error(b"bad_" + min(self.faults))

    def _answer_error(self, word: bytes) -> bool:
        self.output.append(replies.error(word))
        return False

    def _answer_granted(self, grant: Grant) -> None:
        self.names = (grant.name,)
        if self.tells:
            self.service.subscribe(self, grant)
        self.output.append(replies.granted(grant, self.confirms))

    def _answer_busy(self) -> bool:
        table = self.service.table
        holders = [table.held[name] for name in self.names]
        if self.process is not None:
            for grant in holders:
                if grant.process is not None and grant.process.host:
                    self.output.append(replies.look_for(grant.name, grant.process))
        if not self.waits:
            self.output.append(replies.status(holders[0], self))
            return False
        self.output.append(replies.waiting(holders[0]))
        self.waiting = True
        self.waits_since = self.service.now
        table.enqueue(self)
        self.service.deliver()
        return True

    def _list_more(self) -> None:
        """Write the next piece of a list, so that a great table holds up nobody else."""
        assert self._listing is not None
        piece = list(islice(self._listing, _LIST_PIECE))
        self.output.append(b"".join(piece))
        if len(piece) < _LIST_PIECE:
            self.output += [replies.END, *self._news]
            self._news = ()
            self._listing = None


_Handler = Callable[[RequestHandler, list[bytes]], Optional[bool]]

_COMMANDS: dict[bytes, _Handler] = {
    b"LOCK": RequestHandler._lock,
    b"UNLOCK": RequestHandler._unlock,
    b"STATUS": RequestHandler._status,
    b"BREAK_LOCK": RequestHandler._break_lock,
    b"DEAD_PID": RequestHandler._dead_pid,
    b"LOCK_LIST": RequestHandler._lock_list,
    b"VERSION": RequestHandler._version,
    b"RESTART": RequestHandler._restart,
    b"EOF": RequestHandler._eof,
    b"GOT": RequestHandler._got,
    b"RENEW": RequestHandler._renew,
    b"CHECK": RequestHandler._check,
    b"RECALL": RequestHandler._recall,
    b"LOCK_INFO": RequestHandler._lock_info,
}
# What these answer has nothing to do with any lock but one, and they see for themselves whether that is kept.
_OF_ONE_GRANT = frozenset({b"RENEW", b"CHECK", b"GOT", b"VERSION"})
_HANDLERS: dict[bytes, _Handler] = {**requests.VARIABLES, **_COMMANDS}
# While a variable is at fault no command is run but those that have nothing to do with variables.
_REFUSALS: dict[bytes, _Handler] = {
    **_HANDLERS,
    **dict.fromkeys(_COMMANDS, RequestHandler._answer_fault),
    b"EOF": RequestHandler._eof,
    # These two have no answer.
    b"GOT": RequestHandler._got,
    b"DEAD_PID": RequestHandler._dead_pid,
}

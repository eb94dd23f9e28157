"""The requests of one client: bytes in, calls of the table, answers out, no socket anywhere.

The bytes become lines, a line sets a variable or is a command, a command becomes a call of the lock table, and the
Effects of that go to the service. What the client is to be told is put on `output`, in order; its connection sends it
when all that it shows is on disk. One command is run after another, but in three cases the lines behind have to wait,
up to a bound: the LOCK before them waits, the LOCK_LIST before them is still being written, or enough answers have
gathered that the client should first read some.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Callable, Optional, Protocol

from ...net.line_buffer import LineTooLong, split_lines
from ...version import VERSION
from ..model import Grant, HolderProcess, LockRequest, Owner
from ..wire import info, replies, requests
from ..wire.requests import RequestVariables
from .service import LockService

MAX_BACKLOG = 65_536  # bytes of requests kept behind one that waits: as much as one line may have
MAX_ANSWERS = 64  # answers that gather before the client is to read some: what fits into a socket's buffer
_LIST_PIECE = 1_000  # lines of a list made at a time: a millisecond of the loop


class Connection(Protocol):
    """Connection that the answers go to."""

    def flush(self) -> None:
        """Send what is on the handler's `output`, as far as it may be sent."""

    def is_connected(self) -> bool:
        """Tell whether the client is still there."""


class RequestHandler(RequestVariables):
    """One client's requests, with the variables that they have set so far.

    `paused`: lines that arrive are kept, since it waits for its lock, or for its client to read. `closing`: nothing
    more is read, and the connection is closed once the output is sent. `reveals_uncommitted`: the output may show
    what has changed since the last answer.
    """

    reveals_uncommitted = False
    subscriptions: frozenset[int] = frozenset()
    waiting: LockRequest | None = None  # the LOCK that is queued
    process: HolderProcess | None = None  # that the last LOCK named
    undelivered: Grant | None = None  # a grant that the client can't have been told of yet
    paused = False
    closing = False
    _rest = b""  # the beginning of a line
    _backlog: Sequence[bytes] = ()  # lines that have to wait
    _listing: Iterator[bytes] | None = None  # the lines of a list that are still to be written
    _notices: tuple[bytes, ...] = ()  # came while a list was being written

    def __init__(self, service: LockService, connection: Connection, address: str = "") -> None:
        self.service = service
        self.connection = connection
        self.address = address
        self.output: list[bytes] = []

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that arrived at `now` (seconds, monotonic), and run the commands that they complete."""
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
        self._backlog = [*self._backlog, *lines]
        if sum(map(len, self._backlog)) + len(self._backlog) > MAX_BACKLOG:
            self._refuse(b"too_much_input", now)

    def resume(self, now: float) -> None:
        """Go on where it paused because of its output, now that the client has been sent that."""
        self.service.now = now
        if self._listing is not None:
            self._list_more()
        elif self.waiting is None:
            self._run_backlog()

    def on_disconnect(self, now: float) -> None:
        """Wait for nothing any more, since the client is gone. What it knows to hold, it keeps."""
        in_good_order = self.closing and self.undelivered is None and not self.output
        if not in_good_order or self.waiting is not None or self.subscriptions:
            self._leave()
        if in_good_order:
            return
        service = self.service
        service.now = now
        if self.process is not None:
            service.on_suspect(self.process)
        if self.undelivered is not None:
            service.apply(service.table.end([self.undelivered], now))

    def abort(self, word: bytes) -> None:
        """End with an error in the place of all that the client was not told yet."""
        self._leave()
        self._listing = self.undelivered = None
        self.output[:] = [replies.error(word)]

    # As a client of the service

    def notify(self, line: bytes) -> None:
        """Put a line that the client has not asked for between two answers."""
        self.reveals_uncommitted = True
        if self._listing is None:
            self.output.append(line)
        else:
            self._notices += (line,)

    def on_granted(self, grant: Grant) -> None:
        """Answer the LOCK that waited: it was granted."""
        self.undelivered = grant
        self.reveals_uncommitted = True
        self.output.append(replies.OBTAINED)
        self._answer_granted(grant)
        self._end_wait()

    def on_superseded(self) -> None:
        """Answer the LOCK that waited: another connection of its owner took it off the queue."""
        self.reveals_uncommitted = True
        self._answer_status(self.owner)
        self._end_wait()

    def flush(self) -> None:
        """Send what there is, as far as it may be sent."""
        self.connection.flush()

    def is_connected(self) -> bool:
        """Tell whether the client is still there."""
        return self.connection.is_connected()

    # Inside

    @property
    def owner(self) -> Owner:
        return (self.user, self.session)

    def _leave(self) -> None:
        self.closing = True
        self.paused = False
        self._backlog = ()
        if self.waiting is not None:
            self.service.leave(self.waiting)
            self.waiting = None
        if self.subscriptions:
            self.service.unsubscribe(self)

    def _end_wait(self) -> None:
        self.waiting = None
        self._run_backlog()

    def _run_backlog(self) -> None:
        lines, self._backlog = self._backlog, ()
        self._run(lines)

    def _run(self, lines: Sequence[bytes]) -> None:
        """Go through lines: set variables and run commands, up to one that can't be finished now."""
        self.paused = False
        rest = iter(lines)
        for line in rest:
            words = line.split()
            if not words:
                continue
            handle = (_REFUSALS if self.faults else _HANDLERS).get(words[0])
            if handle is None:
                continue
            try:
                has_to_wait = handle(self, words)
            except (ValueError, IndexError):
                if words[0] not in requests.VARIABLES:
                    raise
                self.faults |= {words[0]}
                continue
            if has_to_wait is None:
                if self.faults:
                    self.faults -= {words[0]}
                continue
            if words[0] not in _OF_ONE_GRANT:
                self.reveals_uncommitted = True
            if has_to_wait or len(self.output) >= MAX_ANSWERS:
                self.paused = True
                self._backlog = list(rest)
                return

    def _refuse(self, word: bytes, now: float) -> None:
        """Answer with an error after which nothing that this client says can be made sense of."""
        self.on_disconnect(now)
        self.output.append(replies.error(word))

    # Commands. Each returns whether the lines behind it have to wait.

    def _lock(self, words: list[bytes]) -> bool:
        if not self.user or not self.names:
            return self._answer_error(b"no_locks" if self.user else b"no_user")
        if self.session and not self.connection.is_connected():
            # It has given up waiting for this answer. (A classic client may hang up half, so it gets its answer.)
            self.closing = True
            return True
        request = self.lock_request(self.address)
        self.process = request.process
        service = self.service
        grant, effects = service.table.acquire(request, service.now)
        service.apply(effects)
        if grant is None:
            return self._answer_busy(request)
        if grant.recalled:
            return self._answer_error(b"recalled")
        self._answer_granted(grant)
        return False

    def _unlock(self, words: list[bytes]) -> bool:
        if not self.user or not self.names:
            return self._answer_error(b"no_locks" if self.user else b"no_user")
        service = self.service
        table = service.table
        owner = (self.user, self.session)
        effects = table.release(owner, self.names, service.now)
        if service.subscribers:
            service.unsubscribe_from(filter(None, effects.before_images.values()))
        self.output.append(replies.status(table.standing(owner, self.names), owner))
        service.apply(effects)
        return False

    def _status(self, words: list[bytes]) -> bool:
        if not self.names:
            return self._answer_error(b"no_locks")
        self._answer_status(self.owner)
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
        service = self.service
        effects = service.table.break_locks(names, service.now)
        answer += b"".join(map(replies.broke, effects.ended))
        self.output.append(answer + replies.status(service.table.standing(self.owner, self.names), self.owner))
        service.apply(effects)
        return False

    def _dead_pid(self, words: list[bytes]) -> bool:
        with contextlib.suppress(ValueError):  # the command has no answer, so there is none to give
            host, pid = requests.process_named(words)
            service = self.service
            effects, suspects = service.table.report_dead(host, pid, self.address, service.now)
            for process in suspects:
                service.on_suspect(process)
            service.apply(effects)
        return False

    def _lock_list(self, words: list[bytes]) -> bool:
        return self._list(map(replies.listed, list(self.service.table.grants.values())))

    def _lock_info(self, words: list[bytes]) -> bool:
        table = self.service.table
        held = table.held
        grants = list(table.grants.values()) if len(words) == 1 else [held[name] for name in words[1:] if name in held]
        return self._list(self._info(grants, self.service.now))

    def _info(self, grants: list[Grant], now: float) -> Iterator[bytes]:
        table = self.service.table
        for grant in grants:
            if grant.token not in table.grants:
                continue  # it has ended since the list was begun
            yield info.held_line(grant, now)
            for request in table.waiters(grant.name):
                yield info.waiter_line(grant.name, request, now)

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
            self.service.apply(self.service.table.confirm(*requests.grant_named(words)))
        return False

    def _renew(self, words: list[bytes]) -> bool:
        try:
            name, token = requests.grant_named(words)
        except ValueError:
            return self._answer_error(b"bad_token")
        service = self.service
        grant, effects = service.table.renew(name, token, service.now)
        service.apply(effects)
        self._subscribe_and_show(grant, token)
        if grant is None:
            return self._answer_error(b"lost")
        self.output.append(replies.error(b"recalled") if grant.recalled else replies.renewed(name, token))
        return False

    def _check(self, words: list[bytes]) -> bool:
        try:
            name, token = requests.grant_named(words)
        except ValueError:
            return self._answer_error(b"bad_token")
        grant = self.service.table.current(name, token)
        self._subscribe_and_show(grant, token)
        self.output.append(replies.current(grant is not None))
        return False

    def _restart(self, words: list[bytes]) -> bool:
        return self._answer_error(b"restart_refused")

    # Answers

    def _subscribe_and_show(self, grant: Grant | None, token: int) -> None:
        """Note that the answer is about this grant alone: it waits for the disk only if what is said of that does."""
        self.reveals_uncommitted |= not self.service.is_durable(token)
        if grant is not None and self.tells:
            self.service.subscribe(self, grant)

    def _answer_fault(self, words: list[bytes]) -> bool:
        return self._answer_error(b"bad_" + min(self.faults))

    def _answer_error(self, word: bytes) -> bool:
        self.output.append(replies.error(word))
        return False

    def _answer_status(self, owner: Owner) -> None:
        self.output.append(replies.status(self.service.table.standing(owner, self.names), owner))

    def _answer_granted(self, grant: Grant) -> None:
        self.names = (grant.name,)
        if self.tells:
            self.service.subscribe(self, grant)
        self.output.append(replies.granted(grant, self.confirms))

    def _answer_busy(self, request: LockRequest) -> bool:
        holders = [self.service.table.held[name] for name in self.names]
        if request.process is not None:
            for grant in holders:
                if grant.process is not None and grant.process.host:
                    self.output.append(replies.look_for(grant.name, grant.process))
        if not self.waits:
            self.output.append(replies.status(holders[0], self.owner))
            return False
        self.output.append(replies.waiting(holders[0]))
        self.waiting = request
        self.service.wait(self, request, self.address)
        return True

    def _list_more(self) -> None:
        """Write the next piece of a list, so that a great table holds up nobody else."""
        assert self._listing is not None
        piece = list(islice(self._listing, _LIST_PIECE))
        self.output.append(b"".join(piece))
        if len(piece) < _LIST_PIECE:
            self.output += [replies.END, *self._notices]
            self._notices = ()
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

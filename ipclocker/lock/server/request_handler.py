"""The commands of one client: calls of the table, answers out, no socket anywhere.

The pipeline (request_pipeline.py) reads the lines and runs a command after the other. Each becomes a call of the lock
table, whose Effects go to the service. What the client is to be told is put on `output`, in order; its connection sends
it when all that it shows is on disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Protocol

from ...version import VERSION
from ..model import Grant, HolderProcess, LockRequest, Owner
from ..wire import replies, requests
from .listing import Listing, lock_info, lock_list
from .request_pipeline import Handler, RequestPipeline
from .service import LockService

_MOST_LOOKED_FOR = (
    requests.MAX_NAMES
)  # holders whose processes a client is asked to look for; a lock may have any number


class Connection(Protocol):
    """Connection that the answers go to."""

    def flush(self) -> None:
        """Send what is on the handler's `output`, as far as it may be sent."""

    def is_connected(self) -> bool:
        """Tell whether the client is still there."""


class RequestHandler(RequestPipeline):
    """One client's requests, with the variables that they have set so far.

    When it is `closing`, its connection is closed once the output is sent.
    """

    subscriptions: AbstractSet[int] = frozenset()
    waiting: LockRequest | None = None  # the LOCK that is queued, or that was granted and can't have been told yet
    process: HolderProcess | None = None  # that the last LOCK named
    holder: HolderProcess | None = None  # of a grant that this client holds
    undelivered: Grant | None = None  # the grant to `waiting`
    _knows_space = False
    _output_before = 0  # answers on the output that were there before its own
    _listing: Listing | None = None  # the answer that is still being made

    def __init__(self, service: LockService, connection: Connection, address: str = "") -> None:
        super().__init__(service)
        self.connection = connection
        self.address = address

    def resume(self, now: float) -> None:
        """Go on where it paused because of its output, now that the client has been sent that."""
        self.service.now = now
        if self._listing is not None:
            self._list_more()
        elif self.waiting is None:
            self.run_backlog()

    def is_idle(self) -> bool:
        """Tell whether the client holds nothing that it was granted last, waits for nothing and has all its answers."""
        if self.paused or self.output or self.subscriptions or self.waiting is not None:
            return False
        owner = self.owner
        grant = self.service.table.standing(owner, self.names)
        return grant is None or grant.owner != owner

    def on_disconnect(self, now: float) -> None:
        """Wait for nothing any more, since the client is gone. What it knows to hold, it keeps."""
        service = self.service
        service.now = now
        in_good_order = self.closing and self.undelivered is None and not self.output
        if not in_good_order or self.waiting is not None or self.subscriptions:
            self._leave()
        if in_good_order:
            return
        if self.process is not None:
            service.on_suspect(self.process)
        if self.undelivered is not None:
            service.apply(service.table.end_untold(self.undelivered, now))

    def abort(self, word: bytes) -> None:
        """End with an error in the place of all that the client was not told yet; its place in the queue is kept."""
        service = self.service
        if self.waiting is not None:
            service.table.keep_place(self.waiting, service.now)
        if self.undelivered is not None:
            service.table.mark_told(self.undelivered, service.now)
        self._leave()
        self._listing = self.undelivered = None
        self.claims_hold = False
        self.output[:] = [replies.error(word)]

    # As a client of the service

    def notify(self, line: bytes) -> None:
        """Put a line that the client has not asked for between two answers."""
        self.reveals_uncommitted = True
        if self._listing is None:
            self.output.append(line)
        else:
            self._listing.hold_back(line)

    def on_granted(self, grant: Grant) -> None:
        """Answer the LOCK that waited: it was granted. What stands behind it is run when the client was told."""
        self.undelivered = grant
        self.reveals_uncommitted = True
        self._output_before = len(self.output)
        self.output.append(replies.OBTAINED)
        self._answer_granted(grant)

    def on_delivered(self, now: float) -> None:
        """Go on behind the LOCK that waited, since the client was told of its grant."""
        assert self.waiting is not None and self.undelivered is not None
        self.service.mark_told(self.waiting, self.undelivered, now)
        self.waiting = self.undelivered = None

    def on_returned(self) -> bool:
        """Wait on, since the grant was taken back; False if there was more to be told, which may be void as well."""
        if self._output_before or self.waiting is None:
            return False
        if self.subscriptions and self.undelivered is not None:
            self.service.unsubscribe_from([self.undelivered])
        self.output.clear()
        self.reveals_uncommitted = self.claims_hold = False
        self.undelivered = self.holder = None
        self.names = self.waiting.names
        return True

    def on_woken(self, grant: Grant) -> None:
        """Answer the LOCK that waited with a grant that does not stand: who lives sees that, and asks again."""
        self.names = (grant.name,)
        self.claims_hold = True
        self.output += [replies.OBTAINED, replies.granted(grant, self.confirms)]
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
        self.drop_backlog()
        if self.waiting is not None:
            self.service.leave(self.waiting)
            self.waiting = None
        if self.subscriptions:
            self.service.unsubscribe(self)

    def _end_wait(self) -> None:
        self.waiting = None
        self.run_backlog()

    def refuse(self, word: bytes) -> None:
        """Answer with an error after which nothing that this client says can be made sense of."""
        self.on_disconnect(self.service.now)
        self.output.append(replies.error(word))

    # A variable that is answered

    def _space(self, words: list[bytes]) -> None:
        if words[1:2] == [b"1"] and not self._knows_space:
            self._knows_space = True
            self.output.append(self.service.space_lines())

    # Commands. Each returns whether the lines behind it have to wait.

    def _lock(self, words: list[bytes]) -> bool:
        if not self.user or not self.names:
            return self._answer_error(b"no_locks" if self.user else b"no_user")
        if self.has_long_name:  # such a lock that is held since before can be released
            return self._answer_error(b"bad_locks")
        if self.session and not self.connection.is_connected():
            # It has given up waiting for this answer. (A classic client may hang up half, so it gets its answer.)
            self.closing = True
            return True
        if self.once and self.service.table.is_over(self.owner, self.service.now):
            return self._answer_error(b"session_over")
        request = self.lock_request(self.address)
        self.process = request.process
        service = self.service
        grant, effects = service.table.acquire(request, service.now)
        service.apply(effects)
        if grant is None:
            return self._answer_busy(request)
        if grant.recalled:
            return self._answer_error(b"recalled")
        if grant.slots != request.slots:  # a reader does not become a writer while it reads
            return self._answer_error(b"bad_slots")
        if grant.since != service.now:  # it was granted before, and asks again
            self._note_heard(grant)
        self._answer_granted(grant)
        return False

    def _unlock(self, words: list[bytes]) -> bool:
        if not self.user or not self.names:
            return self._answer_error(b"no_locks" if self.user else b"no_user")
        service = self.service
        table = service.table
        owner = (self.user, self.session)
        if self.once:
            table.end_session(owner, service.now)
        if len(words) < 3:
            effects = table.release(owner, self.names, service.now)
        else:
            try:
                effects = table.release_grant(owner, *requests.grant_named(words), service.now)
            except ValueError:
                return self._answer_error(b"bad_token")
        if service.subscribers:
            service.unsubscribe_from(filter(None, effects.before_images.values()))
        self.output.append(self._show(table.standing(owner, self.names), owner))
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
        try:
            grants = self._grants_meant(words)
        except ValueError:
            return self._answer_error(b"bad_token")
        return self._break(grants, b"")

    def _recall(self, words: list[bytes]) -> bool:
        if not self.names:
            return self._answer_error(b"no_locks")
        try:
            grants = self._grants_meant(words)
        except ValueError:
            return self._answer_error(b"bad_token")
        recalled = self.service.recall(grants)
        others = [grant for grant in grants if not grant.lease]
        return self._break(others, b"".join(map(replies.recalled, recalled)))

    def _grants_meant(self, words: list[bytes]) -> list[Grant]:
        """Return the grants of all the names, or that of `BREAK_LOCK NAME N` and the like. Raises ValueError."""
        table = self.service.table
        if len(words) < 3:
            return [grant for name in self.names for grant in table.holders(name)]
        name, token = requests.grant_named(words)
        return [grant for grant in table.holders(name) if grant.token == token]

    def _break(self, grants: Iterable[Grant], answer: bytes) -> bool:
        service = self.service
        effects = service.table.break_grants(grants, service.now)
        answer += b"".join(map(replies.broke, effects.ended))
        self.output.append(answer + self._show(service.table.standing(self.owner, self.names), self.owner))
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
        return self._list(lock_list(self.service.table))

    def _lock_info(self, words: list[bytes]) -> bool:
        return self._list(lock_info(self.service.table, words[1:], self.service.now))

    def _list(self, lines: Iterator[bytes]) -> bool:
        self._listing = Listing(lines)
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
            self.service.apply(self.service.table.confirm(*requests.grant_named(words), self.service.now))
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
        self.claims_hold = True
        self.output.append(replies.error(b"recalled") if grant.recalled else replies.renewed(name, token))
        return False

    def _check(self, words: list[bytes]) -> bool:
        try:
            name, token = requests.grant_named(words)
        except ValueError:
            return self._answer_error(b"bad_token")
        grant = self.service.table.current(name, token)
        self._subscribe_and_show(grant, token)
        self.claims_hold |= grant is not None
        self.output.append(replies.current(grant is not None))
        return False

    def _restart(self, words: list[bytes]) -> bool:
        return self._answer_error(b"restart_refused")

    # Answers

    def _subscribe_and_show(self, grant: Grant | None, token: int) -> None:
        """Note that the answer is about this grant alone: it waits for the disk only if what is said of that does."""
        if grant is not None:
            self._note_heard(grant)
            if self.tells:
                self.service.subscribe(self, grant)
        self.reveals_uncommitted |= not self.service.is_durable(token)

    def _note_heard(self, grant: Grant) -> None:
        """Note that a holder is heard of: anybody may ask about a token, but who asks from its address may be it."""
        if grant.process is not None and grant.process.address == self.address:
            self.holder = grant.process
            self.service.note_heard(grant)

    def _answer_fault(self, words: list[bytes]) -> bool:
        return self._answer_error(b"bad_" + min(self.faults))

    def _answer_error(self, word: bytes) -> bool:
        self.output.append(replies.error(word))
        return False

    def _answer_status(self, owner: Owner) -> None:
        self.output.append(self._show(self.service.table.standing(owner, self.names), owner))

    def _show(self, grant: Grant | None, owner: Owner) -> bytes:
        if grant is not None and grant.owner == owner:
            self.claims_hold = True
        return replies.status(grant, owner)

    def _answer_granted(self, grant: Grant) -> None:
        self.names = (grant.name,)
        self.holder = grant.process
        if self.tells:
            self.service.subscribe(self, grant)
        self.claims_hold = True
        self.output.append(replies.granted(grant, self.confirms))

    def _answer_busy(self, request: LockRequest) -> bool:
        table = self.service.table
        first = table.held[self.names[0]]
        if request.process is not None:
            holders = (grant for name in self.names for grant in table.holders(name))
            for grant in islice(holders, _MOST_LOOKED_FOR):
                if grant.process is not None and grant.process.host:
                    self.output.append(replies.look_for(grant.name, grant.process))
        if not self.waits:
            self.output.append(self._show(first, self.owner))
            return False
        self.output.append(replies.waiting(first))
        self.waiting = request
        self.service.wait(self, request, self.address)
        return True

    def _list_more(self) -> None:
        """Write the next piece of a list, so that a great table holds up nobody else."""
        assert self._listing is not None
        self.output.append(self._listing.next_piece())
        if self._listing.is_done:
            self._listing = None


_COMMANDS: dict[bytes, Handler] = {
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
RequestHandler.of_one_grant = frozenset({b"RENEW", b"CHECK", b"GOT", b"VERSION"})
RequestHandler.handlers = {**requests.VARIABLES, b"space": RequestHandler._space, **_COMMANDS}
# While a variable is at fault no command is run but those that have nothing to do with variables.
RequestHandler.refusals = {
    **RequestHandler.handlers,
    **dict.fromkeys(_COMMANDS, RequestHandler._answer_fault),
    b"EOF": RequestHandler._eof,
    # These two have no answer.
    b"GOT": RequestHandler._got,
    b"DEAD_PID": RequestHandler._dead_pid,
}

"""The lock table and its clients: what a call of the table has changed is kept, and told to those whom it concerns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Callable, Protocol

from ..model import Grant, HolderProcess, LockRequest
from ..wire import replies
from .effects import BeforeImages, Effects
from .table import LockTable


class Client(Protocol):
    """One connected client, as far as others' requests concern it."""

    subscriptions: AbstractSet[int]  # tokens of grants whose end it is to hear of

    def on_granted(self, grant: Grant) -> None:
        """Take note that the LOCK that waited was granted."""

    def on_woken(self, grant: Grant) -> None:
        """Take note that the LOCK that waited is to be sent again; the grant does not stand."""

    def on_returned(self) -> bool:
        """Take note that the grant was taken back, and that it waits on; False if it can't."""

    def on_superseded(self) -> None:
        """Take note that the LOCK that waited was taken off the queue by another connection of its owner."""

    def notify(self, line: bytes) -> None:
        """Tell the client a line that it has not asked for."""

    def abort(self, word: bytes) -> None:
        """End with this error in the place of all that the client was not told yet."""

    def flush(self) -> None:
        """Send what there is for the client, as far as it may be sent."""

    def is_connected(self) -> bool:
        """Tell whether the client is still there."""


class LockService:
    """The lock table, whom it has to tell what, and whom each waiting request belongs to.

    `on_suspect` is called with a process that there is reason to look at: its client hung up, or somebody says that
    it is gone; `on_overdue` with a lease that has run out; `on_heard` with a process whose host is heard of, and when
    (seconds, monotonic); `on_processes` with the before-images of changes that concern processes. `record`, if there
    is one, is called with all before-images, before anybody is told of a change. `is_durable` tells of a grant's token
    whether what the table says of it is on disk.
    `last_token` as for LockTable.
    """

    def __init__(
        self,
        on_processes: Callable[[BeforeImages], None] = lambda images: None,
        on_suspect: Callable[[HolderProcess], None] = lambda process: None,
        on_overdue: Callable[[Grant], None] = lambda grant: None,
        on_heard: Callable[[HolderProcess, float], None] = lambda process, when: None,
        last_token: int = 0,
    ) -> None:
        self.table = LockTable(last_token, self._is_present)
        self.started = 0.0  # when the server was started (seconds since 1970)
        self.space_lines: Callable[[], bytes] = lambda: b""  # for those who ask which lock space this is
        self.now = 0.0  # the time of what is being done just now (seconds, monotonic)
        self.record: Callable[[BeforeImages], None] | None = None
        self.is_durable: Callable[[int], bool] = lambda token: True
        self.on_suspect = on_suspect
        self._on_processes = on_processes
        self._on_overdue = on_overdue
        self._on_heard = on_heard
        self._waiting: dict[LockRequest, Client] = {}
        self.subscribers: dict[int, Client] = {}  # by token; the client that asked last about a grant is the one told
        self._untold: deque[Callable[[], None]] = deque()  # who is to be told of something, in the order of the changes
        self._telling = False

    # What is done to the table, and by whom

    def apply(self, effects: Effects) -> None:
        """Have kept what a call of the table has changed, and tell those whom it concerns besides the one who asked."""
        if self.record is not None and effects.before_images:
            self.record(effects.before_images)
        if effects.concerns_processes:
            self._on_processes(effects.before_images)
        if effects.concerns_others:
            self._queue(effects)
        if self._untold and not self._telling:  # a client that is told may change the table: the loop below goes on
            self._tell_all()

    def wait(self, client: Client, request: LockRequest, address: str) -> None:
        """Queue a client's request, whose names are all busy; `address` is where the client is connected from."""
        self._waiting[request] = client
        self.apply(self.table.enqueue(request, self.now, address))

    def leave(self, request: LockRequest) -> None:
        """Take a request off the queues, since its client is gone; a grant that is on its way to it is taken back."""
        self._waiting.pop(request, None)
        self.apply(self.table.leave(request, self.now))

    def mark_told(self, request: LockRequest, grant: Grant, now: float) -> None:
        """Note that the client of a request that waited was told of its grant."""
        self._waiting.pop(request, None)
        self.table.mark_told(grant, now)

    def return_to_queue(self, requests: Iterable[LockRequest]) -> None:
        """Let clients wait on, which were not told yet of the grant that was taken back."""
        for request in requests:
            client = self._waiting.get(request)
            if client is None:  # it has gone since
                self.apply(self.table.leave(request, self.now))
            elif not client.on_returned():
                self.fail_waiters([request])

    def fail_waiters(self, requests: Iterable[LockRequest]) -> None:
        """Tell clients that what they waited for was taken back, and that they wait no more."""
        for request in requests:
            client = self._waiting.pop(request, None)
            if client is not None:
                client.abort(b"unwritable")
                client.flush()

    def expire(self, now: float) -> Effects:
        """End the holds whose time is up."""
        return self._apply_at(now, self.table.expire(now))

    def expire_overdue(self, grant: Grant, now: float) -> Effects:
        """End a lease that has run out, and whose process nobody knows to live."""
        return self._apply_at(now, self.table.expire_overdue(grant, now))

    def release_of(self, process: HolderProcess, now: float) -> Effects:
        """Free the locks of a process that is known to be gone."""
        return self._apply_at(now, self.table.release_of(process, now))

    def note_heard(self, grant: Grant) -> None:
        """Note that the client that holds this grant, and has a process, is heard of just now."""
        assert grant.process is not None
        self._on_heard(grant.process, self.now)
        if grant.heard is not None:
            self.apply(self.table.mark_heard(grant))

    def recall(self, grants: Iterable[Grant]) -> list[Grant]:
        """Ask the holders of leases among these grants to give them back; the grants that are recalled."""
        recalled, effects = self.table.recall(grants)
        self.apply(effects)
        for grant in recalled:
            self._notify(grant, replies.recall(grant))
        return recalled

    # Who is told of a grant's end

    def subscribe(self, client: Client, grant: Grant) -> None:
        """Tell this client of the grant's end from now on."""
        self.subscribers[grant.token] = client
        if isinstance(client.subscriptions, set):
            client.subscriptions.add(grant.token)  # in place: one client may have many
        else:
            client.subscriptions = {grant.token}

    def unsubscribe(self, client: Client) -> None:
        """Tell this client nothing more."""
        for token in client.subscriptions:
            if self.subscribers.get(token) is client:
                del self.subscribers[token]
        client.subscriptions = frozenset()

    def unsubscribe_from(self, grants: Iterable[Grant]) -> None:
        """Tell nobody of the end of these grants: their owner ends them itself."""
        for grant in grants:
            client = self.subscribers.pop(grant.token, None)
            if client is not None and isinstance(client.subscriptions, set):
                client.subscriptions.discard(grant.token)

    # Inside

    def _apply_at(self, now: float, effects: Effects) -> Effects:
        self.now = now
        self.apply(effects)
        return effects

    def _is_present(self, request: LockRequest) -> bool:
        client = self._waiting.get(request)
        return client is not None and client.is_connected()

    def _queue(self, effects: Effects) -> None:
        for grant in effects.ended:
            if grant.token in self.subscribers:
                self._untold.append(partial(self._tell_lost, grant))
        self._untold.extend(partial(self._tell_superseded, request) for request in effects.superseded)
        self._untold.extend(partial(self._tell_granted, request, grant) for request, grant in effects.granted)
        self._untold.extend(partial(self._tell_woken, request, grant) for request, grant in effects.woken)
        self._untold.extend(partial(self._on_overdue, grant) for grant in effects.overdue)

    def _tell_all(self) -> None:
        self._telling = True
        try:
            while self._untold:
                self._untold.popleft()()  # should one raise, the others are told with the next change
        finally:
            self._telling = False

    def _tell_lost(self, grant: Grant) -> None:
        self._notify(grant, replies.lost(grant))
        self.unsubscribe_from([grant])

    def _tell_superseded(self, request: LockRequest) -> None:
        client = self._waiting.pop(request, None)
        if client is not None:
            client.on_superseded()
            client.flush()

    def _tell_granted(self, request: LockRequest, grant: Grant) -> None:
        client = self._waiting.get(request)
        if client is None:  # it has gone since
            self.apply(self.table.end([grant], self.now))
            return
        if self.table.current(grant.name, grant.token) is grant:
            client.on_granted(grant)
        else:  # another connection of its owner has given it back since
            del self._waiting[request]
            client.on_superseded()
        client.flush()

    def _tell_woken(self, request: LockRequest, grant: Grant) -> None:
        client = self._waiting.pop(request, None)
        if client is not None:
            client.on_woken(grant)
            client.flush()

    def _notify(self, grant: Grant, line: bytes) -> None:
        client = self.subscribers.get(grant.token)
        if client is not None:
            client.notify(line)
            client.flush()

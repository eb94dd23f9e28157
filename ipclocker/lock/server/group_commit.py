"""Group commit: changes of the lock table go to disk in batches, and nobody is told of a change before it is there.

All that changes while one batch is being flushed is the next batch (group commit); a thread does the flushing, so
the loop never waits for a disk. A client whose answers might show a change that is not on disk yet has to wait until
the batch with that change is.

If a batch can't be written, the table goes back to what is on disk, and each client that waits for it is told that it
was not done; who was granted by it what it had waited for, and was not told, waits on at its place. From then on, each
change that a client asks for is refused in the same way and nothing else changes, until the disk takes a write again,
which is tried every RETRY seconds. So what the table shows is at all times what a restart would find.

Behind a store that several servers share, this server may have been replaced without knowing it yet. There an answer
that says to a client that it holds a lock waits for a round: a batch, or with nothing to write a question to the store,
that was begun after the request was read, and that shows that this server still serves. If it does not, nothing more is
done and nobody is told anything: the server steps down.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from math import inf
from queue import SimpleQueue
from threading import Event, Thread
from typing import Callable, NamedTuple, Protocol

from ...errors import StateError
from ...net.loop import Loop
from ..model import LockRequest, Record
from ..storage.base import Freed, Store, TermLost
from .effects import BeforeImages
from .table import LockTable

RETRY = 1.0  # seconds: a full disk that was cleaned is noticed soon, and a try a second costs nothing
# Seconds; so well is known, after a crash, when a server was last there to hear of anybody; and so soon is seen that
# somebody has deleted the file.
TOUCH = 2.0
# Seconds; the longest that a batch waits, after the one before it, for those to come back who were answered by that: a
# fraction of what a flush takes. A batch costs as much as some ten changes, so fewer are not waited for.
_GATHER, _FEW = 0.001, 8
_COMPLAIN_EVERY = 60.0  # seconds
_MOST_DRAINED = 10  # batches

log = logging.getLogger(__name__)


class Client(Protocol):
    """Client whose answers may have to wait for the disk."""

    def flush_durable(self) -> None:
        """Send what was held back: it is on disk."""

    def abort_uncommitted(self) -> None:
        """Say that what was done for the client was taken back."""


class _Batch(NamedTuple):
    before_images: BeforeImages  # what the changes were made to
    clients: dict[Client, None]  # who waits for what is written
    claimants: dict[Client, None]  # who waits for the round alone


class GroupCommit:
    """Writes what changes in `table` to `store`, and closes that in the end.

    `rolled_back` is called with the changes that were taken back, and with what LockTable.rollback returns;
    `recovered` when the disk takes a write again; `term_lost`, once, when this server serves no more.
    """

    def __init__(
        self,
        store: Store,
        table: LockTable,
        loop: Loop,
        rolled_back: Callable[[BeforeImages, list[LockRequest], list[LockRequest]], None],
        recovered: Callable[[], None],
        term_lost: Callable[[Exception], None] = lambda problem: None,
    ) -> None:
        self.needs_rounds = store.is_shared
        self.failing = False  # nothing can be written just now
        self._store = store
        self._table = table
        self._loop = loop
        self._rolled_back = rolled_back
        self._recovered = recovered
        self._term_lost = term_lost
        self._is_abandoned = False
        self._clock = time.time() - time.monotonic()
        self._pending: BeforeImages = {}  # what has changed since the last batch was begun
        # Those that wait for the batch that is not being flushed yet, or for the round that it is.
        self._clients: dict[Client, None] = {}
        self._claimants: dict[Client, None] = {}
        self._flushing: _Batch | None = None
        # Who was answered just now mostly has more to ask: so many changes are worth to be waited for, until then.
        self._expected = 0
        self._gather_until = -inf
        self._next_complaint = -inf
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._next_touch = -inf
        self._next_complaint_of_place = -inf
        self._thread = Thread(target=self._work_off, name="group commit", daemon=True)
        self._thread.start()

    def record(self, images: BeforeImages) -> None:
        """Have these changes written; of a grant that has changed before, the older image counts."""
        for token, image in images.items():
            self._pending.setdefault(token, image)

    def must_wait(self, client: Client, reveals: bool, claims: bool) -> bool:
        """Tell whether a client's answers have to wait; if so, it is called later.

        `reveals`: they may show what has changed; `claims`: they say that it holds a lock.
        """
        waits = self._is_abandoned
        if reveals:
            if self._pending:
                self._clients[client] = None  # while nothing can be written, `flush` takes the changes back
                waits = True
            elif self._flushing is not None:
                if client not in self._clients:
                    self._flushing.clients[client] = None
                waits = True
        if claims and self.needs_rounds:
            self._claimants[client] = None  # not the one in flight, which may have been begun before the request
            waits = True
        return waits

    def is_durable(self, token: int) -> bool:
        """Tell whether what the table says of this grant is on disk."""
        return token not in self._pending and (self._flushing is None or token not in self._flushing.before_images)

    def flush(self, now: float) -> float:
        """Begin to write what has changed, unless another batch is on its way. It is called once a turn.

        Return when to call it again: those that come in at once are waited for.
        """
        if self._flushing is not None:
            return inf
        if self._pending and self.failing:
            self._roll_back()
        changes = self._count()
        if not changes:
            return inf
        if changes + _FEW <= self._expected and now < self._gather_until:
            return self._gather_until
        batch = self._flushing = _Batch(self._pending, self._clients, self._claimants)
        self._pending, self._clients, self._claimants = {}, {}, {}
        self._work.put(self._encode(batch) if batch.before_images else partial(self._confirm, batch))
        return inf

    def touch(self, now: float) -> float:
        """Have the store note that a server has it open, if that is due; return when it is the next time."""
        if now >= self._next_touch:
            self._next_touch = now + TOUCH
            self._work.put(self._touch)
        return self._next_touch

    def copy(self, path: str, done: Callable[[str | None], None]) -> None:
        """Copy what is on disk to another file; `done` is called in the loop: with None, or with what went wrong."""

        def copy() -> None:
            problem = None
            try:
                self._store.copy_to(path)
            except Exception as error:  # noqa: BLE001 - whatever it is, the loop has to hear of it
                problem = f"no copy of the state can be made to try it with: {error}"
            self._loop.call_from_thread(partial(done, problem))

        self._work.put(copy)

    def drain(self) -> None:
        """Write what there is and tell those who wait for it, in this call: the loop makes no more turns."""
        for _ in range(_MOST_DRAINED):  # some have more to say once they were answered
            self.flush(inf)
            if self._flushing is None:
                return
            done = Event()
            self._work.put(done.set)
            done.wait()
            self._loop.run_calls()

    def close(self) -> None:
        """Write what has changed so far, and close the store."""
        if not self.failing:
            self._work.put(self._encode(_Batch(self._pending, {}, {})))
        self._work.put(None)
        self._thread.join()
        self._touch()
        self._store.close()

    def abandon(self) -> None:
        """Write nothing more, and tell nobody anything: this server serves no more. The thread closes the store."""
        self._is_abandoned = True
        self._work.put(self._store.close)
        self._work.put(None)

    def _encode(self, batch: _Batch) -> Callable[[], None]:
        changed: list[Record] = []
        freed: list[Freed] = []
        grants = self._table.grants
        for token, before in batch.before_images.items():
            grant = grants.get(token)
            if grant is not None:
                changed.append(grant.record(self._clock))
            elif before is not None:
                freed.append((before.name, token))
        return partial(self._commit, changed, freed, self._table.last_token, batch)

    def _work_off(self) -> None:
        """Write batch after batch, in the thread, until there is no more."""
        while (work := self._work.get()) is not None:
            work()

    def _touch(self) -> None:
        try:
            self._store.touch()
        except TermLost as problem:
            self._loop.call_from_thread(partial(self._on_done, problem, lambda problem: None))
        except Exception as problem:
            if time.monotonic() >= self._next_complaint_of_place:
                self._next_complaint_of_place = time.monotonic() + _COMPLAIN_EVERY
                log.error("%s", problem, exc_info=None if isinstance(problem, StateError) else problem)

    def _commit(self, changed: list[Record], freed: list[Freed], last_token: int, batch: _Batch) -> None:
        self._do(lambda: self._store.commit(changed, freed, last_token), partial(self._committed, batch))

    def _confirm(self, batch: _Batch) -> None:
        self._do(self._store.confirm_term, partial(self._confirmed, batch))

    def _do(self, call: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        if self._is_abandoned:
            return
        problem = None
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is, the loop has to hear of it, or all would wait
            problem = error
        self._loop.call_from_thread(partial(self._on_done, problem, done))

    def _on_done(self, problem: Exception | None, done: Callable[[Exception | None], None]) -> None:
        if self._is_abandoned:
            return
        if isinstance(problem, TermLost):
            self._give_up(problem)
        else:
            done(problem)

    def _committed(self, batch: _Batch, problem: Exception | None) -> None:
        if batch is self._flushing:
            self._flushing = None
        if problem is not None:
            self._fail(problem, batch)
            return
        if self.failing:
            self.failing = False
            log.warning("the state can be written again: locks are granted and freed as usual")
            self._recovered()
        self._send_held_back(batch)

    def _confirmed(self, batch: _Batch, problem: Exception | None) -> None:
        self._flushing = None
        if problem is not None:  # whatever it is: without a round nothing may be said
            self._give_up(problem)
            return
        self._send_held_back(batch)

    def _give_up(self, problem: Exception) -> None:
        self._is_abandoned = True
        self._term_lost(problem)

    def _count(self) -> int:
        return len(self._pending) + len(self._claimants)

    def _send_held_back(self, batch: _Batch) -> None:
        self._expected = len(batch.before_images) + len(batch.claimants) + self._count()
        self._gather_until = self._loop.now + _GATHER
        for client in {**batch.clients, **batch.claimants}:
            if client not in self._clients and client not in self._claimants:
                client.flush_durable()

    def _fail(self, problem: Exception, batch: _Batch) -> None:
        if self._loop.now >= self._next_complaint:
            self._next_complaint = self._loop.now + _COMPLAIN_EVERY
            known = isinstance(problem, StateError)
            log.error(
                "%s; until it can be written nothing is granted or freed", problem, exc_info=None if known else problem
            )
        self.failing = True
        self._loop.call_at(self._loop.now + RETRY, self._try_again)
        self._roll_back(batch)

    def _try_again(self) -> None:
        self._work.put(self._encode(_Batch({}, {}, {})))

    def _roll_back(self, batch: _Batch | None = None) -> None:
        """Undo what has changed since the last batch that was written, and tell the clients that wait for it.

        Never while a client is being served: its own answer would come after that, and be taken for durable.
        """
        while self._pending or self._clients or batch is not None:
            images, clients = self._pending, self._clients
            if batch is not None:
                images = {**images, **batch.before_images}  # of two images the older one counts
                clients = {**clients, **batch.clients}
                self._claimants.update(batch.claimants)
            self._pending, self._clients, batch = {}, {}, None
            self._rolled_back(images, *self._table.rollback(images, self._loop.now))
            for client in clients:
                self._claimants.pop(client, None)
                client.abort_uncommitted()

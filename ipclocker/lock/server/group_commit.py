"""Group commit: changes of the lock table go to disk in batches, and nobody is told of a change before it is there.

All that changes while one batch is being flushed is the next batch (group commit); a thread does the flushing, so
the loop never waits for a disk. A client whose answers might show a change that is not on disk yet has to wait until
the batch with that change is.

If a batch can't be written, the table goes back to what is on disk, and each client that waits is told that it was not
done. From then on, each change that a client asks for is refused in the same way and nothing else changes, until the
disk takes a write again, which is tried every RETRY seconds. So what the table shows is at all times what a
restart would find.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from math import inf
from queue import SimpleQueue
from threading import Thread
from typing import Callable, NamedTuple, Protocol

from ...errors import StateError
from ...net.loop import Loop
from ..model import LockRequest, Record
from ..storage.base import Store
from .effects import BeforeImages
from .table import LockTable

RETRY = 1.0  # seconds: a full disk that was cleaned is noticed soon, and a try a second costs nothing
_GATHER = 0.001  # seconds; the longest that a batch waits for more to come, a fraction of what a flush takes
_COMPLAIN_EVERY = 60.0  # seconds

log = logging.getLogger(__name__)


class Client(Protocol):
    """Client whose answers may have to wait for the disk."""

    def flush_durable(self) -> None:
        """Send what was held back: it is on disk."""

    def abort_uncommitted(self) -> None:
        """Say that what was done for the client was taken back."""


class _Batch(NamedTuple):
    before_images: BeforeImages  # what the changes were made to
    clients: dict[Client, None]  # who waits for it


_Work = tuple[list[Record], list[int], int]


class GroupCommit:
    """Writes what changes in `table` to `store`, and closes that in the end.

    `rolled_back` is called with the changes that were taken back, and the requests that wait no more since what they
    waited for was taken back; `recovered` when the disk takes a write again.
    """

    def __init__(
        self,
        store: Store,
        table: LockTable,
        loop: Loop,
        rolled_back: Callable[[BeforeImages, list[LockRequest]], None],
        recovered: Callable[[], None],
    ) -> None:
        self.failing = False  # nothing can be written just now
        self._store = store
        self._table = table
        self._loop = loop
        self._rolled_back = rolled_back
        self._recovered = recovered
        self._clock = time.time() - time.monotonic()
        self._pending: BeforeImages = {}  # what has changed since the last batch was begun
        self._clients: dict[Client, None] = {}  # those that wait for the batch that is not being flushed yet
        self._flushing: _Batch | None = None
        self._gathered = 0  # changes that there were when the turn before was over
        self._gather_until = 0.0
        self._next_complaint = -inf
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread = Thread(target=self._commit_batches, name="group commit", daemon=True)
        self._thread.start()

    def record(self, images: BeforeImages) -> None:
        """Have these changes written; of a grant that has changed before, the older image counts."""
        for token, image in images.items():
            self._pending.setdefault(token, image)

    def must_wait(self, client: Client) -> bool:
        """Tell whether a client's answers have to wait; if so, it is called later."""
        if self._pending:
            self._clients[client] = None  # while nothing can be written, `flush` takes the changes back
            return True
        if self._flushing is not None:
            if client not in self._clients:
                self._flushing.clients[client] = None
            return True
        return False

    def is_durable(self, token: int) -> bool:
        """Tell whether what the table says of this grant is on disk."""
        return token not in self._pending and (self._flushing is None or token not in self._flushing.before_images)

    def flush(self, now: float) -> bool:
        """Begin to write what has changed, unless another batch is on its way. It is called once a turn.

        True if more may come in at once, and is worth a turn before: one batch costs as much as some ten changes.
        """
        changes = len(self._pending)
        if not changes or self._flushing is not None:
            return False
        if self.failing:
            self._roll_back()
            return False
        if not self._gathered:
            self._gather_until = now + _GATHER
        if changes != self._gathered and now < self._gather_until:
            self._gathered = changes
            return True
        self._gathered = 0
        batch = self._flushing = _Batch(self._pending, self._clients)
        self._pending, self._clients = {}, {}
        self._work.put(self._encode(batch.before_images))
        return False

    def close(self) -> None:
        """Write what has changed so far, and close the store."""
        if not self.failing:
            self._work.put(self._encode(self._pending))
        self._work.put(None)
        self._thread.join()
        self._store.close()

    def _encode(self, images: BeforeImages) -> _Work:
        changed, freed = [], []
        grants = self._table.grants
        for token, before in images.items():
            grant = grants.get(token)
            if grant is not None:
                changed.append(grant.record(self._clock))
            elif before is not None:
                freed.append(token)
        return changed, freed, self._table.last_token

    def _commit_batches(self) -> None:
        """Write batch after batch, in the thread, until there is no more."""
        while True:
            work = self._work.get()
            if work is None:
                return
            problem = None
            try:
                self._store.commit(*work)
            except Exception as error:  # noqa: BLE001 - whatever it is, the loop has to hear of it, or all would wait
                problem = error
            self._loop.call_from_thread(partial(self._committed, problem))

    def _committed(self, problem: Exception | None) -> None:
        batch, self._flushing = self._flushing, None
        if problem is not None:
            self._fail(problem, batch)
            return
        if self.failing:
            self.failing = False
            log.warning("the state can be written again: locks are granted and freed as usual")
            self._recovered()
        if batch is not None:
            for client in batch.clients:
                if client not in self._clients:
                    client.flush_durable()

    def _fail(self, problem: Exception, batch: _Batch | None) -> None:
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
        self._work.put(([], [], self._table.last_token))

    def _roll_back(self, batch: _Batch | None = None) -> None:
        """Undo what has changed since the last batch that was written, and tell the clients that wait for it.

        Never while a client is being served: its own answer would come after that, and be taken for durable.
        """
        while self._pending or self._clients or batch is not None:
            undone = [self._pending] if batch is None else [self._pending, batch.before_images]
            clients = {**self._clients, **({} if batch is None else batch.clients)}
            self._pending, self._clients, batch = {}, {}, None
            for images in undone:
                self._rolled_back(images, self._table.rollback(images, self._loop.now))
            for client in clients:
                client.abort_uncommitted()

"""Changes of the lock table go to disk, and nobody is told of one before it is there.

All that changes while one batch is being flushed is the next batch (group commit); a thread does the flushing, so
the loop never waits for a disk. A client whose answers might show a change that is not kept yet is held back
until the batch with that change is.

If a batch can't be kept, the table goes back to what was kept, and whoever was held back is told that it was not
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
from typing import Callable, NamedTuple, Optional, Protocol

from ...errors import StateError
from ...net.loop import Loop
from ..model import Ask, Grant, Record
from ..storage.base import Store
from .table import LockTable

RETRY = 1.0  # seconds
_GATHER = 0.001  # seconds; the longest that a batch waits for more to come
_COMPLAIN_EVERY = 60.0  # seconds

log = logging.getLogger(__name__)


class Client(Protocol):
    """Somebody who may have to wait for the disk."""

    def flush_durable(self) -> None:
        """What was to be told may be told."""

    def abort_uncommitted(self) -> None:
        """What was done for the client was taken back."""


class _Batch(NamedTuple):
    before: dict[bytes, Optional[Grant]]  # what the changes were made to
    clients: dict[Client, None]  # who waits for it


_Work = tuple[list[Record], list[bytes], int]


class GroupCommit:
    """Keeps what changes in `table` in `store`, and closes that in the end.

    `stranded` is called with the asks that wait no more, because what they waited for was taken back; `recovered`
    when the disk takes a write again.
    """

    def __init__(
        self,
        store: Store,
        table: LockTable,
        loop: Loop,
        stranded: Callable[[list[Ask]], None],
        recovered: Callable[[], None],
    ) -> None:
        self.failing = False  # nothing can be kept just now
        self.changed: dict[bytes, None] = {}  # names of locks that changed in one way or another, for who follows that
        self._store = store
        self._table = table
        self._loop = loop
        self._stranded = stranded
        self._recovered = recovered
        self._clock = time.time() - time.monotonic()
        self._flushing: _Batch | None = None
        self._clients: dict[Client, None] = {}  # those who wait for the batch that is not being flushed yet
        self._gathered = 0  # changes that there were when the turn before was over
        self._gather_until = 0.0
        self._next_complaint = -inf
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread = Thread(target=self._commit_batches, name="committer", daemon=True)
        self._thread.start()

    def must_wait(self, client: Client) -> bool:
        """Whether a client's answers have to wait; if so it is called later."""
        if self._table.before_images:
            self._clients[client] = None  # while nothing can be kept, `flush` takes the changes back
            return True
        if self._flushing is not None:
            if client not in self._clients:
                self._flushing.clients[client] = None
            return True
        return False

    @property
    def is_behind(self) -> bool:
        """Whether there is a change that is not kept."""
        return bool(self._table.before_images) or self._flushing is not None

    def is_durable(self, name: bytes) -> bool:
        """Whether the lock of this name is on disk as it is in the table."""
        return name not in self._table.before_images and (self._flushing is None or name not in self._flushing.before)

    def flush(self, now: float) -> bool:
        """Begin to keep what has changed, unless another batch is on its way. It is called once a turn.

        True if more may come in at once, and is worth a turn before: one batch costs as much as some ten changes.
        """
        changes = len(self._table.before_images)
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
        before, self._table.before_images = self._table.before_images, {}
        self._flushing = _Batch(before, self._clients)
        self._clients = {}
        self.changed.update(dict.fromkeys(before))
        self._work.put(self._encoded(before))
        return False

    def close(self) -> None:
        """Keep what has changed so far, and close the store."""
        if not self.failing:
            self._work.put(self._encoded(self._table.before_images))
        self._work.put(None)
        self._thread.join()
        self._store.close()

    def _encoded(self, before: dict[bytes, Grant | None]) -> _Work:
        changed, freed = [], []
        held = self._table.held
        for name, grant_before in before.items():
            grant = held.get(name)
            if grant is not None:
                changed.append(grant.record(self._clock))
            elif grant_before is not None:
                freed.append(name)
        return changed, freed, self._table.last_token

    def _commit_batches(self) -> None:
        """What the thread does."""
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
        """Undo what has changed since the last batch that was kept, and tell those who wait for it.

        Never while a client is being served: its own answer would come after that, and be taken for kept.
        """
        while self._table.before_images or self._clients or batch is not None:
            undone = [self._table.before_images] if batch is None else [self._table.before_images, batch.before]
            clients = {**self._clients, **({} if batch is None else batch.clients)}
            self._table.before_images, self._clients, batch = {}, {}, None
            for changes in undone:
                self.changed.update(dict.fromkeys(changes))
                self._stranded(self._table.rollback(changes, self._loop.now))
            for client in clients:
                client.abort_uncommitted()

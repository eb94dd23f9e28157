"""One of several lockerd that share a lock space in etcd: it stands by, loads and serves when it leads, and steps down.

First of all it looks whether etcd can be used, and is not behind what is noted of it (etcd_watch.py).
The election (election.py) decides in a thread who leads. A new leader loads what is held in another thread, so that the
loop turns meanwhile; then the server begins a term with it. A term ends in the very turn in which anything shows that
it is over: etcd says so, a batch can't be written for certain, or its lease was not renewed in time. Nothing is written
then, and the clients are cut off; what stands in etcd is loaded again by the next leader, which may be this one.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable
from functools import partial
from math import inf
from threading import Thread
from typing import Callable, Optional, Protocol

from ...errors import IpclockerError, StateError
from ...net.address import own_host_name
from ...net.loop import Loop
from ...version import VERSION
from ..storage.base import StoredState
from ..storage.etcd import EtcdStore
from ..storage.etcd_client import EtcdClient, EtcdUnavailable
from ..storage.etcd_note import EtcdGoneBack, EtcdNote
from ..storage.etcd_settings import EtcdSettings
from ..wire import replies
from .candidate import Events, Identity
from .election import Election, now
from .etcd_watch import EtcdWatch, WatchEvents, look
from .leader import Leader

_LOOK_WITHIN = 3.0  # seconds
_RESIGN_WITHIN = 1.0  # seconds; what is left in etcd then goes by itself after the ttl

log = logging.getLogger(__name__)


class Terms(Protocol):
    """The server, which serves in terms."""

    def begin_term(self, store: EtcdStore, kept: StoredState, space: Callable[[], bytes]) -> None:
        """Serve, with what is kept in a store. Raises StateError, OSError."""

    def abandon_term(self) -> None:
        """Serve no more: others may do that already."""

    def stop(self) -> None:
        """End: it can't serve any more."""


class Replica:
    """What a server of a shared lock space does besides serving. All in turns of the loop.

    `addresses`: what the server is bound to. `note`: of how far etcd had come; None: nothing is kept of that. `ttl` as
    for Election. `compacts` as for EtcdStore. `changed` is called
    with one line for people when it leads, stands by or waits from now on. Raises UsageError, and StateError for files
    of the settings that can't be used.
    """

    def __init__(
        self,
        settings: EtcdSettings,
        ttl: int,
        compacts: bool,
        addresses: Iterable[str],
        note: Optional[EtcdNote],
        loop: Loop,
        terms: Terms,
        changed: Callable[[str], None],
    ) -> None:
        self.status = "waits for etcd"
        self.leads = False
        self._settings = settings = settings.checked()
        self._ttl = ttl
        self._compacts = compacts
        self._loop = loop
        self._terms = terms
        self._changed = changed
        self._is_decided = False  # it leads or stands by
        self.failure: StateError | None = None  # why it never serves again
        self._term: int | None = None  # that it was elected for, while that lasts
        self._client = EtcdClient(settings)  # of the election
        events = Events(self._on_elected, self._on_lost, self._on_standing_by, self._on_waiting, self._on_failed)
        host = own_host_name()
        identity = Identity(host, advertised(addresses, host), VERSION)
        self._election = Election(self._client, settings.prefix, identity, ttl, loop.call_from_thread, events)
        self._note = note
        watched = WatchEvents(self._on_usable, self._on_waiting, self._on_failed)
        self._watch = EtcdWatch(settings, note, loop.call_from_thread, watched)
        self._is_started = False
        self._is_candidate = False

    def check(self) -> None:
        """Ask etcd once, for some seconds. Raises StateError if it can't be used for a reason that stays."""
        with contextlib.closing(EtcdClient(self._settings)) as client, contextlib.suppress(EtcdUnavailable):
            look(client, self._note, _LOOK_WITHIN)

    def start(self) -> None:
        """Take part in the election as soon as etcd can be used."""
        if not self._is_started:
            self._is_started = True
            self._watch.start()

    def is_decided(self) -> bool:
        """Tell whether it has begun to lead or to stand by. Raises StateError if it never will."""
        if self.failure is not None:
            raise self.failure
        return self._is_decided

    def tick(self, when: float) -> float:
        """End the term if its time is up; return when to look again (monotonic, seconds)."""
        self._election.note_turn(when)
        if not self.leads or self._term is None:
            return inf
        left = self._election.valid_until(self._term) - now()
        if left <= 0:
            self._end_term("its time is up")
            return inf
        return when + left

    def note_turn(self) -> None:
        """Say that the loop lives, from within a turn that takes long."""
        self._election.note_turn(time.monotonic())

    def on_term_lost(self, problem: Exception) -> None:
        """Step down, since the store says that the term is over, or can't say that it is not."""
        term = self._term
        self._end_term(str(problem))
        if term is not None:
            self._election.step_down(term, str(problem))

    def resign(self) -> None:
        """Give up the leadership and the candidacy, and leave nothing in etcd."""
        self.leads = False
        self._term = None
        self._watch.close()
        if self._is_candidate:
            self._election.resign(_RESIGN_WITHIN)

    # What the watch and the election tell

    def _on_usable(self) -> None:
        self._is_candidate = True
        self._election.start()

    def _on_elected(self, term: int) -> None:
        self._term = term
        store_client = EtcdClient(self._settings)
        valid_until = partial(self._election.valid_until, term)
        store = EtcdStore(store_client, self._settings.prefix, term, valid_until, now, compacts=self._compacts)
        Thread(target=self._load, args=(term, store, store_client), name="load", daemon=True).start()

    def _load(self, term: int, store: EtcdStore, client: EtcdClient) -> None:
        """Load what is held; in a thread of its own."""
        kept: StoredState | None = None
        problem: Exception | None = None
        try:
            look(client, self._note, _LOOK_WITHIN)  # it may have been restored since the last look
            kept = store.load()
        except Exception as error:  # noqa: BLE001 - the loop has to hear of it, or nobody would serve
            problem = error
        self._loop.call_from_thread(partial(self._loaded, term, store, kept, problem))

    def _loaded(self, term: int, store: EtcdStore, kept: Optional[StoredState], problem: Optional[Exception]) -> None:
        if term != self._term:
            store.close()
            return
        if kept is not None:
            try:
                self._terms.begin_term(store, kept, lambda: space_lines(store, self._ttl))
            except Exception as error:  # noqa: BLE001 - it must not lead without serving, whatever keeps it from that
                problem = error
        if problem is None:
            self.leads = True
            self._tell(f"serves the lock space in {store.location}")
            return
        store.close()
        self._term = None
        if isinstance(problem, EtcdGoneBack) or (isinstance(problem, StateError) and not self._is_decided):
            self._on_failed(problem)
            return
        self._election.step_down(term, str(problem))
        known = isinstance(problem, (IpclockerError, OSError))
        self._tell(f"can't serve: {problem if known else repr(problem)}", logging.ERROR, decided=False)

    def _on_lost(self, reason: str) -> None:
        self._end_term(reason)

    def _on_standing_by(self, leader: Leader) -> None:
        where = f" ({', '.join(leader.addresses)})" if leader.addresses else ""
        self._tell(f"stands by: {leader.host}{where} serves")

    def _on_waiting(self, reason: str) -> None:
        self._tell(f"waits for etcd: {reason}", logging.WARNING, decided=False)

    def _on_failed(self, problem: StateError) -> None:
        self.failure = problem
        self._end_term(str(problem))
        self._terms.stop()

    # Inside

    def _end_term(self, reason: str) -> None:
        self._term = None
        if self.leads:
            self.leads = False
            self._terms.abandon_term()
            self._tell(f"serves no more: {reason}", logging.WARNING)

    def _tell(self, status: str, level: int = logging.INFO, decided: bool = True) -> None:
        self._is_decided |= decided
        if status == self.status:
            return
        self.status = status
        log.log(level, "%s", status)
        self._changed(status)


def space_lines(store: EtcdStore, ttl: int) -> bytes:
    """Return the lines that tell a client which lock space it is, and where else that may be served."""
    return replies.space(store.space, ttl) + b"".join(replies.member(*member) for member in store.members)


def advertised(addresses: Iterable[str], host: str) -> tuple[str, ...]:
    """Return the addresses by which others reach a server, HOST:PORT; for all addresses of a host its name stands."""
    found = []
    for address in addresses:
        where, _, port = address.rpartition(":")
        found.append(f"{host}:{port}" if where in ("0.0.0.0", "[::]") else address)
    return tuple(dict.fromkeys(found))

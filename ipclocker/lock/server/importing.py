"""The import of a state file into etcd: a short term of its own, in which nobody is served."""

from __future__ import annotations

from functools import partial
from threading import Event
from typing import Callable

from ...errors import StateError
from ...net.address import own_host_name
from ...version import VERSION
from ..storage.base import StoredState, TermLost
from ..storage.etcd_client import EtcdClient
from ..storage.etcd_import import EtcdImport
from ..storage.etcd_settings import EtcdSettings
from ..storage.sqlite_reader import reading
from .candidate import Events, Identity
from .client_place import PlaceNamer
from .election import Election, now
from .leader import Leader

WITHIN = 30.0  # seconds; a person waits


def import_file(settings: EtcdSettings, path: str, ttl: int, within: float = WITHIN) -> str:
    """Take the locks of a state file into etcd, and say in a line what was done. The file stays as it is.

    `within`: how many seconds etcd has to answer. Raises StateError, UsageError.
    """
    with reading(path) as kept:
        settings = settings.checked()
        term = _Term(settings, ttl)
        try:
            location = _fill(settings, term, kept, f"{path} of {own_host_name()}", within)
        except TermLost as problem:
            raise StateError(f"the import of {path} was not finished: {problem}; do it again") from problem
        finally:
            term.end()
    count = len(kept.grants)
    locks = "1 lock" if count == 1 else f"{count} locks"
    return f"{locks} of {path} and its last token are in {location} now; start no lockerd with that file any more"


def _fill(settings: EtcdSettings, term: _Term, kept: StoredState, source: str, within: float) -> str:
    number = term.begin(within)
    store = EtcdImport(
        EtcdClient(settings), settings.prefix, number, partial(term.election.valid_until, number), now, compacts=False
    )
    try:
        # What meant this host is to mean it on other hosts, too.
        place_of = PlaceNamer().place_of
        grants = [one._replace(address=place_of(one.address)) if one.pid else one for one in kept.grants]
        store.fill(kept._replace(grants=grants), source)
    finally:
        store.close()
    return store.location


class _Term:
    """The leadership for as long as the import lasts, so that no lockerd serves meanwhile."""

    def __init__(self, settings: EtcdSettings, ttl: int) -> None:
        self._ttl = ttl
        self._has_looked = Event()  # whoever leads is known, or nobody ever will be
        self._is_over = Event()  # this one leads, or never will
        self._term: int | None = None
        self._leader: Leader | None = None
        self._problem: Exception | None = None
        self._reason = "it does not answer"
        self._location = f"etcd at {','.join(settings.urls)}, under {settings.prefix}"
        # All is told in the election's own thread, which so is never kept from renewing.
        events = Events(self._on_elected, lambda reason: None, self._on_leader, self._on_waiting, self._on_failed)
        identity = Identity(f"{own_host_name()}, an import", (), VERSION)
        client = EtcdClient(settings)
        self.election = Election(client, settings.prefix, identity, ttl, _call, events)

    def begin(self, within: float) -> int:
        """Lead, and return the term. Raises StateError."""
        self.election.start()
        if self._has_looked.wait(within) and self._leader is not None:
            self._is_over.wait(self._ttl + 1)  # a leader that was killed is forgotten by then
        if self._term is not None:
            return self._term
        if self._problem is not None:
            raise self._problem
        if self._leader is not None:
            where = f" ({', '.join(self._leader.addresses)})" if self._leader.addresses else ""
            raise StateError(
                f"{self._leader.host}{where} serves the locks in {self._location}: end every lockerd there, or import "
                "under another prefix"
            )
        raise StateError(f"{self._location} can't be used: {self._reason}")

    def end(self) -> None:
        """Leave nothing of it in etcd."""
        self.election.resign()

    def _on_elected(self, term: int) -> None:
        self._term = term
        self._is_over.set()
        self._has_looked.set()

    def _on_leader(self, leader: Leader) -> None:
        self._leader = leader
        self._has_looked.set()

    def _on_waiting(self, reason: str) -> None:
        self._reason = reason

    def _on_failed(self, problem: StateError) -> None:
        self._problem = problem
        self._is_over.set()
        self._has_looked.set()


def _call(call: Callable[[], None]) -> None:
    call()

"""Finds out whether a busy lock is held by a run that this one is part of: it would wait for itself, for ever.

Two things say so, and neither is believed before the server has confirmed it:

- The environment has the lock's name, a token and the lock space. A daemon keeps its environment for longer than the
  lock is held: the server is asked whether that very grant stands.
- The lock is recorded under this process or one above it, which holds where the environment was dropped on the way, as
  sudo does it. The server has told the number and the host name of that process; it is asked for all that it knows of
  it, since numbers are used again and hosts and containers may share a name.

A lock that is free costs nothing of this, and one that is busy costs a question only where the answer may be yes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

from ..errors import LockBusy
from ..lock.client.acquisition import LockAcquisition
from ..lock.client.connection import ConnectionLost, DeadlineExceeded, Wait
from ..lock.grant_variables import space_names, tokens_in
from ..lock.wire.info import HeldInfo
from ..lock.wire.replies import Answer, LookFor
from ..net.address import own_host_name
from ..net.text import decode_text, encode_text
from ..process.identity import ProcessIdentity, proc_status
from ..process.relation import HERE, comparable_start, relation
from ..process.tree import descends_from
from ..process.viewpoint import own_view

# Seconds for a question: a server that is silent for longer leaves open what was asked, and the caller goes on.
_ANSWER_WITHIN = 2.0


class OuterGrant(NamedTuple):
    """A grant of a run that this one is part of; `process` is the one above this that it is recorded under, if any.

    `token` is None from a classic server.
    """

    name: bytes
    token: Optional[int]
    process: Optional[ProcessIdentity] = None


class OuterRuns:
    """Looks for the holders of what an acquisition has found busy, and asks its server about them.

    Of several locks that are wanted together it is one that is waited for, else all of them are. The runs are those
    that the process `member` is part of; None: this process.
    """

    def __init__(self, acquisition: LockAcquisition, wait: Wait, member: int | None = None) -> None:
        self._member = os.getpid() if member is None else member
        assert acquisition.asked_at is not None
        space = acquisition.asked_space
        names = space_names(acquisition.asked_at, space and space.identity)
        self.space = names[0]
        self._names = acquisition.settings.names
        self._together = acquisition.settings.all
        self._waited_for = (acquisition.busy,) if self._together else self._names
        self._connector = acquisition.connector.beside(wait)
        self._connector.stay(acquisition.asked_at, space)
        self._told = acquisition.holder_processes
        self._tokens = tokens_in(os.environ, names)

    def refuse(
        self,
        holder: str = "the run that this one is part of",
        remedy: str = "--nested runs the command under that lock",
    ) -> None:
        """Raise LockBusy if all that is waited for is held by outer runs; who that is and what to do goes into it."""
        if len(self._held_by_them(self._waited_for)) == len(self._waited_for):
            raise LockBusy(
                f"lock {_listed(self._waited_for)} is held by {holder}, which would wait for itself: {remedy}"
            )

    def to_run_under(self) -> list[OuterGrant]:
        """Return grants of outer runs that are as good as those that are wanted; none if there are none.

        Raises LockBusy if only some are of those that are wanted together.
        """
        found = self._held_by_them(self._waited_for)
        if not found or not self._together:
            return found[:1]
        found = self._held_by_them(self._names, busy=False)
        others = set(self._names) - {grant.name for grant in found}
        if others:
            raise LockBusy(
                f"lock {_listed(self._waited_for)} is held by the run that this one is part of, and lock "
                f"{_listed(others)} is not: ask for the latter alone"
            )
        return found

    def still_hold(self, grants: Sequence[OuterGrant]) -> bool:
        """Return False if one of the grants does not stand any more; True also if the server does not answer."""
        known = [(grant.name, grant.token) for grant in grants if grant.token is not None]
        return all(self._is_current(name, token) is not False for name, token in known)

    def _held_by_them(self, names: Sequence[bytes], busy: bool = True) -> list[OuterGrant]:
        """Return the grants of outer runs among the locks of these names, which the server has said to be `busy`."""
        return [grant for name in names for grant in [self._find(name, busy)] if grant is not None]

    def _find(self, name: bytes, busy: bool) -> OuterGrant | None:
        told = self._told.get(name)
        if not busy or (told is not None and self._is_above(told.host, told.pid)):
            for held in self._look_up(name, told):
                if self._is_above(held.host, held.pid) and _is_that_very(process := _identity(held)):
                    return OuterGrant(name, held.token or None, process)
        token = self._tokens.get(name)
        return OuterGrant(name, token) if token is not None and self._is_current(name, token) else None

    def _is_above(self, host: bytes | None, pid: int | None) -> bool:
        """Tell if a process of that host's name and that number may be the member or above it."""
        return host == encode_text(own_host_name()) and pid is not None and descends_from(self._member, pid)

    def _look_up(self, name: bytes, told: LookFor | None) -> Sequence[HeldInfo]:
        """Return what the server knows of a lock: if it is a classic one, what it has told with its answer."""
        answer = self._ask(b"LOCK_INFO " + name)
        if answer is not None and answer.version is not None and told is not None:
            return [HeldInfo(name, host=told.host, pid=told.pid)]
        return () if answer is None else answer.held

    def _is_current(self, name: bytes, token: int) -> bool | None:
        answer = self._ask(b"CHECK %b %d" % (name, token))
        return None if answer is None else answer.current

    def _ask(self, question: bytes) -> Answer | None:
        """Ask over a connection of its own, since the other one may be in a queue; None if there is no answer."""
        deadline = time.monotonic() + _ANSWER_WITHIN
        connector = self._connector
        try:
            connection = connector.connect(deadline)
        except OSError as problem:
            connector.on_lost(problem)  # the next question goes to the next server of the lock space
            return None
        try:
            # A server that does not know the question answers what comes behind it.
            connection.send_request(question + b"\nVERSION", b"", deadline)
            return connection.answer(deadline)
        except (ConnectionLost, DeadlineExceeded):
            return None
        finally:
            connector.close()


def _listed(names: Iterable[bytes]) -> str:
    return ", ".join(map(decode_text, sorted(names)))


def _identity(held: HeldInfo) -> ProcessIdentity:
    assert held.pid is not None
    return ProcessIdentity(held.pid, held.start, decode_text(held.boot or b""), held.pidns, held.timens)


def _is_that_very(process: ProcessIdentity) -> bool:
    """Tell if a process that this host has under that number is the very one that the server was told of."""
    view = own_view()
    if not process.boot:
        return view.sees_whole_host  # of a classic client nothing but its host's name is known
    status = proc_status(process.pid)
    if status is None or relation(process, view) != HERE:
        return False
    return comparable_start(process, view) in (None, status.start)

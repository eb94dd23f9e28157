"""What a lockerd does to lead: its decisions, step by step, over an etcd and a clock that it is given.

The leader is who made the key `leader` of the prefix; the revision at which it was made is the *term*. The key is
bound to an etcd lease, so it goes when its owner stops renewing that. Each attempt has a lease and a value of its own:
etcd may do later what it has not answered, so an attempt counts only if the key is seen with this very value, and
the lease of each other one is revoked, which deletes what it may have made and lets nothing more be made with it.

A term counts here from when the renewal was *sent*, so it ends here before it ends in etcd. That is for closing in
time. It proves nothing: an etcd may end a lease early, so an answer that matters is one that etcd gave for this term.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from math import inf
from typing import Any, Callable, NamedTuple
from urllib.parse import quote

from ...errors import StateError
from ..storage.etcd_client import EtcdRefused, EtcdUnavailable
from ..storage.etcd_requests import (
    Entry,
    created_at,
    delete,
    entries,
    entry,
    get,
    get_request,
    put,
    ranges,
    transaction,
)
from .etcd_lease import Body, Call, grant, new_number, renew, revoke
from .leader import Leader
from .member_key import MemberKey

LOOK_EVERY = 0.2  # seconds between two looks of a standby, and between two tries of what has failed
HOLD_OFF = 1.0  # seconds; who has stepped down because of a fault of its own lets the others look first
_AFTER_REFUSAL = 1.0  # seconds; a full or forbidding etcd needs a person
_NO_TERM = (None, -inf)


class Events(NamedTuple):
    """Whom to tell what, each once when it changes."""

    elected: Callable[[int], None]  # with the term
    lost: Callable[[str], None]  # with the reason: the term is over
    standing_by: Callable[[Leader], None]  # with who leads
    waiting: Callable[[str], None]  # with the reason: nobody can be seen to lead, as when etcd does not answer
    failed: Callable[[StateError], None]  # nothing is tried any more


class Identity(NamedTuple):
    """What others may know of this lockerd."""

    host: str
    addresses: tuple[str, ...]
    version: str


def member_key(prefix: str, identity: Identity) -> str:
    """Return the key of a lockerd alone: with its addresses, since others may have the same host name."""
    return f"{prefix}member/{quote(','.join((identity.host, *identity.addresses)), safe=',:[]')}"


class Candidate:
    """One that leads or stands by; `step` does what is due.

    `clock` gives seconds that go on while the host is suspended. `ttl` (seconds) is how long a term outlives its last
    renewal. `prefix` ends in a slash.
    """

    def __init__(
        self, call: Call, clock: Callable[[], float], events: Events, prefix: str, identity: Identity, ttl: int
    ) -> None:
        # The term, while it leads, and until when it surely counts, on `clock`; in one, since other threads read it.
        self.validity: tuple[int | None, float] = _NO_TERM
        self._etcd = call
        self._clock = clock
        self._events = events
        self._key = f"{prefix}leader".encode()
        self._identity = identity
        self._ttl = ttl
        self._patience = ttl / 3  # seconds that one call may take
        self._member = MemberKey(self._call, clock, member_key(prefix, identity), identity._asdict(), ttl)
        self._lease = ""  # of the term
        self._renew_at = inf
        self._trouble = ""  # why it was not renewed
        self._unsettled: list[str] = []  # leases of attempts and terms that are over, as far as this one knows
        self._campaign_after = -inf
        self._reached = False  # etcd has answered once
        self._told: object = None  # what was told last to those who do not lead

    @property
    def term(self) -> int | None:
        """The term, while it leads."""
        return self.validity[0]

    @property
    def valid_until(self) -> float:
        """When the term is over unless it is renewed, on `clock`; minus infinity without one."""
        return self.validity[1]

    def step(self, idle: float) -> float:
        """Do what is due at this moment; return how many seconds later there is something to do again, inf for never.

        `idle` says for how many seconds the loop that serves clients has not turned.
        """
        try:
            pause = self._stand_by(idle) if self.term is None else self._lead(idle)
        except EtcdUnavailable as problem:
            self._wait(EtcdUnavailable, str(problem))
            return LOOK_EVERY
        except EtcdRefused as problem:
            self._wait(problem.code, str(problem))
            return _AFTER_REFUSAL
        except StateError as problem:
            if self._reached:  # what is set up wrong while it runs can be set right while it runs
                self._wait(StateError, str(problem))
                return _AFTER_REFUSAL
            self._events.failed(problem)
            return inf
        if pause <= 0:
            return 0.0
        return min(pause, self._member.keep(min(self._patience, self._time_to_renew())))

    def step_down(self, reason: str) -> None:
        """Give the term up, so that another one leads; stand by from then on."""
        term = self.term
        if term is not None:
            self._campaign_after = self._clock() + HOLD_OFF
            self._lose(reason)
            with contextlib.suppress(EtcdUnavailable, EtcdRefused, StateError):
                self._delete(term, self._patience)  # the lease is revoked before the next look, which does the same

    def resign(self, within: float) -> None:
        """Give up what there is of this one in etcd, in that many seconds at most; nobody is told."""
        end = self._clock() + within
        term, self.validity = self.term, _NO_TERM
        if term is not None:
            self._unsettled.append(self._lease)
        with contextlib.suppress(EtcdUnavailable, EtcdRefused, StateError):
            if term is not None:
                self._delete(term, end - self._clock())
            for lease in [*self._unsettled, *self._member.leave()]:
                revoke(self._call, lease, end - self._clock())

    def lose(self, reason: str) -> None:
        """Take the term for lost, if there is one."""
        if self.term is not None:
            self._lose(reason)

    def _stand_by(self, idle: float) -> float:
        for lease in self._unsettled[:]:
            revoke(self._call, lease, self._patience)
            self._unsettled.remove(lease)
        found = self._read_leader()
        value = None if found is None else found.value
        # A lockerd whose loop hangs could not serve.
        if value is None and idle < self._ttl and self._clock() >= self._campaign_after:
            value = self._campaign()
        if self.term is not None:
            return max(self._time_to_renew(), 0.0)
        if value is not None:
            try:
                self._tell(self._events.standing_by, Leader.decode(value))
            except ValueError:
                self._wait(ValueError, "the key `leader` in etcd was not written by a lockerd: delete it")
        return LOOK_EVERY

    def _campaign(self) -> bytes | None:
        """Try to become the leader; return the value of the key `leader` if it is known."""
        lease = new_number()
        value = self._new_value()
        self._unsettled.append(lease)
        sent = self._clock()
        ttl = grant(self._call, lease, self._ttl, self._patience)
        found = self._claim(lease, value)
        if found.value != value:
            return found.value
        if self._clock() >= sent + ttl:  # too late; the lease is revoked before the next look
            return None
        self._unsettled.remove(lease)
        self._lease = lease
        self._told = None
        self._trouble = ""
        self._renew_at = sent + self._ttl / 3
        self.validity = found.create_revision, sent + ttl
        self._events.elected(found.create_revision)
        return value

    def _claim(self, lease: str, value: bytes) -> Entry:
        """Make the key if there is none; return it as it stands then."""
        read = get(self._key)
        body = transaction([created_at(self._key, 0)], [put(self._key, value, lease), read], [read])
        problem: Exception
        try:
            answer = self._call("kv/txn", body, self._patience)
            return entries(ranges(answer)[0])[0]
        except EtcdUnavailable as error:
            problem = error
        except EtcdRefused as error:  # which is also said of one that took the last room, or was asked twice
            problem = error
        found = self._read_leader()
        if found is None:
            raise problem
        return found

    def _lead(self, idle: float) -> float:
        now = self._clock()
        if now >= self._renew_at and now < self.valid_until:
            if idle < self._ttl:
                self._renew(now)
            else:
                self._trouble = f"the server has not turned for {idle:.1f} s"
        if self.term is None:
            return 0.0
        now = self._clock()
        if now >= self.valid_until:
            self._lose(f"its lease was not renewed within {self._ttl} s: {self._trouble or 'this host stood still'}")
            return 0.0
        due = self._renew_at if now < self._renew_at else now + LOOK_EVERY
        return min(due, self.valid_until) - now

    def _renew(self, now: float) -> None:
        try:
            ttl = renew(self._call, self._lease, self._ttl, min(self._patience, self.valid_until - now))
        except (EtcdUnavailable, EtcdRefused, StateError) as problem:
            self._trouble = str(problem)
            return
        if ttl <= 0:
            self._lose("etcd has ended its lease")
        elif self._clock() < self.valid_until:  # else it is over: the server may have closed by now
            self._trouble = ""
            self._renew_at = now + self._ttl / 3
            self.validity = self.term, now + ttl

    def _lose(self, reason: str) -> None:
        self.validity, self._renew_at = _NO_TERM, inf
        self._unsettled.append(self._lease)
        self._events.lost(reason)

    def _read_leader(self) -> Entry | None:
        return entry(self._call("kv/range", get_request(self._key).encode(), self._patience))

    def _delete(self, term: int, within: float) -> None:
        self._call("kv/txn", transaction([created_at(self._key, term)], [delete(self._key)]), within)

    def _call(self, path: str, body: Body, within: float) -> dict[str, Any]:
        answer = self._etcd(path, body, within)
        self._reached = True
        return answer

    def _new_value(self) -> bytes:
        host, addresses, version = self._identity
        return Leader(host, addresses, os.getpid(), time.time(), version, secrets.token_hex(16)).encode()

    def _time_to_renew(self) -> float:
        return self._renew_at - self._clock()

    def _wait(self, kind: object, reason: str) -> None:
        """Tell that nobody can be seen to lead; another text of the same kind is nothing new."""
        if self._told != kind:
            self._told = kind
            self._events.waiting(reason)

    def _tell(self, event: Callable[[Leader], None], leader: Leader) -> None:
        if self._told != leader:
            self._told = leader
            event(leader)

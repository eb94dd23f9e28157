"""The key `member/HOST,ADDRESS...`: what a lockerd tells of itself while it lives, whether it leads or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import inf
from typing import Callable

from ...errors import StateError
from ..storage.etcd_client import EtcdRefused, EtcdUnavailable
from ..storage.etcd_requests import put, transaction
from .etcd_lease import Call, grant, new_number, renew

_AFTER_TROUBLE = 1.0  # seconds


class MemberKey:
    """Keeps the key there, bound to a lease of its own. It is information: nothing depends on it.

    `call` and `clock` as for a Candidate; `ttl` (seconds) is how long the key may outlive its lockerd.
    """

    def __init__(
        self,
        call: Call,
        clock: Callable[[], float],
        key: str,
        value: Mapping[str, object],
        ttl: int,
    ) -> None:
        self._call = call
        self._clock = clock
        self._key = key.encode()
        self._value = json.dumps(value).encode()
        self._ttl = ttl
        self._lease: str | None = None
        self._is_bound = False  # the key is there, and bound to that lease
        self._due = -inf

    def keep(self, within: float) -> float:
        """Make one call if it is due, in that many seconds; return how many seconds later something is due again."""
        now = self._clock()
        if now >= self._due:
            if within <= 0:
                return _AFTER_TROUBLE
            try:
                self._due = now + self._do_next(within)
            except (EtcdUnavailable, EtcdRefused, StateError):  # what the leader's key meets as well, and tells
                if not self._is_bound:
                    self._lease = None  # it ends by itself
                self._due = self._clock() + _AFTER_TROUBLE
        return max(self._due - self._clock(), 0.0)

    def leave(self) -> list[str]:
        """Return the leases to be revoked, so that the key goes."""
        return [] if self._lease is None else [self._lease]

    def _do_next(self, within: float) -> float:
        """Make the next call; return for how many seconds from its sending on that will do."""
        if self._lease is None:
            lease = new_number()
            grant(self._call, lease, self._ttl, within)
            self._lease = lease
            return 0.0
        if not self._is_bound:
            self._call("kv/txn", transaction([], [put(self._key, self._value, self._lease)]), within)
            self._is_bound = True
        elif not renew(self._call, self._lease, self._ttl, within):
            self._lease, self._is_bound = None, False  # the key went with it
            return 0.0
        return self._ttl / 3

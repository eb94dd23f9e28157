"""What is asked for when a lock is taken for a process: which locks, from which servers, on which terms.

A second request for the same process and lock gets what the first one got, if it agrees with that on the terms.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from typing import Any, NamedTuple

from ...lock.client.settings import LockSettings
from ...net.text import decode_text


def absolute(path: str) -> str:
    """Return the name of a UNIX socket as it is from any folder; one that begins with @ is in none."""
    return path if path.startswith("@") else os.path.abspath(path)


class Terms(NamedTuple):
    """How the lock is held. Each option that makes a difference to that has its field here, and is compared."""

    lease: float
    hold_timeout: float
    slots: float  # 0: any number, as with --shared
    min_hold: float

    @classmethod
    def of(cls, settings: LockSettings) -> Terms:
        """Return the terms of these settings."""
        return cls(settings.lease, 0.0 if settings.lease else settings.hold, float(settings.slots), settings.min_hold)

    def differences(self, held: Terms) -> str:
        """Say in which options a request differs from what is `held`; empty if it agrees."""
        return ", ".join(
            f"--{name.replace('_', '-')} is {_shown(name, theirs)} there, not {_shown(name, ours)}"
            for name, ours, theirs in zip(self._fields, self, held)
            if ours != theirs
        )


def _shown(name: str, value: float) -> str:
    return "any number (--shared)" if name == "slots" and not value else f"{value:g}"


class Wanted(NamedTuple):
    """One request: names of locks, whether all `together` are wanted or the first free one, from which servers."""

    names: tuple[str, ...]
    together: bool
    servers: str
    terms: Terms

    @classmethod
    def of(cls, settings: LockSettings) -> Wanted:
        """Return the request that these settings make."""
        endpoint = settings.endpoint
        if endpoint.path is not None:
            servers = absolute(endpoint.path)
        else:
            servers = f"{':'.join(map(str, settings.hosts))} {endpoint.port}"
        return cls(tuple(map(decode_text, settings.names)), settings.all, servers, Terms.of(settings))

    @classmethod
    def from_json(cls, fields: list[Any]) -> Wanted:
        """Make it of what JSON makes of it. Raises ValueError or TypeError for all else."""
        names, together, servers, terms = fields
        return cls(tuple(map(str, names)), bool(together), str(servers), Terms(*map(float, terms)))

    @property
    def key(self) -> str:
        """A word that is the same for requests of the same locks, whatever the terms."""
        return hashlib.blake2b(json.dumps(self[:3]).encode(), digest_size=8).hexdigest()

    def is_met_by(self, other: Wanted, held: Collection[str]) -> bool:
        """Tell if the locks that another request has got meet this one, or will if none is `held` yet."""
        if self.servers != other.servers:
            return False
        if not held:
            return self[:2] == other[:2]
        return set(self.names) <= set(held) if self.together else not set(self.names).isdisjoint(held)

"""Where a lock space may be served, whose server is gone: at the address where it was last, and at all hosts of a list.

They are asked in rounds. A host that has to be looked up is looked up in a thread when it has its turn, since whoever
asks may have other things to do meanwhile.

A server is believed to serve the space only if it tells its identity. One that is alone with its space, and is at the
address where it was, need not: when it was started again without what it had held, it answers that that is lost.
"""

from __future__ import annotations

import errno
import time
from functools import partial

from ...errors import ServerUnavailable
from ...net.address import Address, Host, needs_look_up
from ..wire.replies import Space
from .connection import ConnectionLost
from .settings import LockSettings
from .steps import Steps

LONGEST_PAUSE = 5.0  # seconds from one round to the next
_LONGEST_SHARED_PAUSE = 2.0  # where another server takes over within seconds
_TERMS = 3  # for how many times the ttl a shared lock space is looked for at least
_LOOK_AGAIN = 0.05  # seconds between two looks whether a look-up is done


class SpaceHosts:
    """One round. `address` comes first, which was found as `host`; `others`: the hosts of the list come as well."""

    def __init__(self, settings: LockSettings, address: Address, host: object, others: bool) -> None:
        self._settings = settings
        self._left: list[Address | Host] = [address]  # the next one last
        self._asked: set[Address] = set()
        if others and settings.endpoint.path is None:
            found: list[Address | Host] = []
            for server in settings.servers():
                if not needs_look_up(server.name):
                    found += [there for there in settings.addresses(server) if there not in (address, *found)]
                elif server != host:
                    found.append(server)
            self._left = [*reversed(found), address]
        self.are_several = len(self._left) > 1

    @property
    def are_asked(self) -> bool:
        """True if none is left in this round."""
        return not self._left

    def next(self, deadline: float) -> Steps[Address]:
        """Return who is to be asked next, in steps. Raises ConnectionLost if there is nobody else."""
        why = "no other host is known"
        while self._left:
            candidate = self._left.pop()
            if isinstance(candidate, Host):
                try:
                    self._left += reversed((yield from self._looking_up(candidate, deadline)))
                except ServerUnavailable as problem:
                    why = str(problem)
            elif candidate not in self._asked:
                self._asked.add(candidate)
                return candidate
        raise ConnectionLost(errno.EHOSTUNREACH, why)

    def _looking_up(self, server: Host, deadline: float) -> Steps[list[Address]]:
        from ...net.look_up import look_up  # only here, for threads that most runs do without

        key = (server, self._settings.endpoint)
        under_way = look_up(server.name, key, partial(self._settings.addresses, server))
        while not under_way.done.is_set():
            now = time.monotonic()
            if now >= deadline:
                raise ServerUnavailable(f"the host '{server.name}' is not known yet")
            yield None, 0, min(deadline, now + _LOOK_AGAIN)
        return under_way.result()


def has_to_tell(known: Space, last: Address, address: Address) -> bool:
    """Say whether a server at this address has to tell that it serves the known space, which `last` served before."""
    return address != last or known.ttl is not None


def longest_pause(space: Space | None) -> float:
    """Return the longest pause from one round to the next, in seconds."""
    return LONGEST_PAUSE if space is None or space.ttl is None else _LONGEST_SHARED_PAUSE


def patience(space: Space | None, within: float) -> float:
    """Return for how many seconds a lock space is looked for: `within`, but not less than until another one serves."""
    return within if space is None or space.ttl is None else max(within, _TERMS * space.ttl)

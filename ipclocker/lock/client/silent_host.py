"""A host of a list that says nothing, as one that is switched off: whether to wait for it, or to take the next.

Nobody knows whether it is slow or gone, and with a lock space of its own it has to be waited for: what it holds, the
next one would grant again. But where several servers share a space the next one may well serve it. That is known when
it names the silent one among its members. So the others are asked beside it, and all that they are asked is which
space they serve; none of them is used before it has said so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Callable

from ...net.address import Address, Host
from ...net.ready import Wait
from ..wire.replies import Space
from .connection import ServerConnection
from .steps import Attempt, Steps

_PAUSE = 0.5  # seconds between two rounds of the others
_ANSWER_WITHIN = 1.0  # seconds for one of the others; then the one behind it has its turn
_LOOK_AGAIN = 0.05  # seconds between two looks at the silent one

Server = tuple[Host, Address]
Connecting = Callable[[Address, float], Steps[ServerConnection]]


def connect_beside(
    first: Attempt[ServerConnection],
    silent: Server,
    others: Callable[[], Iterable[Server]],
    connecting: Connecting,
    wait: Wait,
) -> tuple[Host, ServerConnection] | None:
    """Find a server that shares its lock space with the silent one; None when the attempt to reach that is over."""
    alone: set[Address] = set()  # these have told that they do not
    while True:
        for host, address in others():
            if address in alone:
                continue
            attempt = Attempt(_asking(connecting, address, time.monotonic() + _ANSWER_WITHIN))
            try:
                while not attempt.go_on(wait, time.monotonic() + _LOOK_AGAIN):
                    if first.go_on(wait, time.monotonic()):
                        return None
                connection = attempt.result()
            except OSError:
                continue
            finally:
                attempt.close()
            if names(connection.space, *silent):
                return host, connection
            connection.close()
            alone.add(address)
        if first.go_on(wait, time.monotonic() + _PAUSE):
            return None


def _asking(connecting: Connecting, address: Address, deadline: float) -> Steps[ServerConnection]:
    connection = yield from connecting(address, deadline)
    try:
        yield from connection.asking_space(deadline)
    except BaseException:
        connection.close()
        raise
    return connection


def names(space: Space | None, host: Host, address: Address) -> bool:
    """Say whether a server that shares the space is the one at this address, which the list has as this host."""
    if space is None or space.ttl is None or isinstance(address.sockaddr, (str, bytes)):
        return False
    port = b":%d" % address.sockaddr[1]
    called = (str(address).encode(), host.name.encode() + port)
    for member in space.members:
        if any(known in called for known in member.addresses):
            return True
        # Its own name for itself, and that of the list: one may have the domain behind it, and the other not.
        if _is_one_host(member.host, host.name.encode()) and any(known.endswith(port) for known in member.addresses):
            return True
    return False


def _is_one_host(one: bytes, other: bytes) -> bool:
    if b"." in one and b"." in other:
        return one.lower() == other.lower()
    return one.partition(b".")[0].lower() == other.partition(b".")[0].lower()

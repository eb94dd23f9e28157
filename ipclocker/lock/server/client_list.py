"""The connections of clients that stay, and the end of those that are idle: silent, holding and waiting for nothing.

Else a few clients that say nothing could have all of the server's descriptors. Each connection is looked at when half
of the time is over, and again, so that a request costs nothing; so one that is idle ends after one to one and a half
times the time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from math import inf

from .connection import ClientConnection

_AT_ONCE = 1_000  # connections looked at in one turn of the loop


class ClientList:
    """The connections, in the order in which they are to be looked at. Times are seconds, monotonic.

    `idle_timeout`: the seconds after which one that is idle is closed; 0: it never is.
    """

    def __init__(self, idle_timeout: float) -> None:
        self._idle_timeout = idle_timeout
        self._clients: OrderedDict[ClientConnection, float] = OrderedDict()  # when each was looked at last

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[ClientConnection]:
        return iter(list(self._clients))

    def add(self, client: ClientConnection, now: float) -> None:
        """Add a connection that was just heard of."""
        client.heard_at = now
        self._clients[client] = now

    def discard(self, client: ClientConnection) -> None:
        """Remove a connection, which may not be there any more."""
        self._clients.pop(client, None)

    def tick(self, now: float) -> float:
        """Close those that are idle, as far as it is their turn; return when the next look is due."""
        if not self._idle_timeout or not self._clients:
            return inf
        for _ in range(_AT_ONCE):
            client, looked_at = next(iter(self._clients.items()))
            if looked_at + self._idle_timeout / 2 > now:
                break
            self._clients[client] = now
            self._clients.move_to_end(client)
            if client.heard_at + self._idle_timeout <= now and client.is_idle():
                client.end_idle()
                if not self._clients:
                    return inf
        return next(iter(self._clients.values())) + self._idle_timeout / 2

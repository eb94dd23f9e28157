"""Where a client is connected from, as it is kept for servers on other hosts.

Some addresses mean another host to each host that reads them: loopback, a UNIX socket, an address that many hosts have,
as that of a bridge for containers. What is kept of a lock outlives the server that granted it, and the next one may be
elsewhere: it would look for the holder's process on itself, and free the lock of one that lives. So for a client on the
server's own host the name of that host is kept, with a piece of its machine's identity, since names are not unique.
"""

from __future__ import annotations

import socket

from ...net.address import own_host_name
from ...process.viewpoint import own_machine

_MACHINE_DIGITS = 8
_MOST_KNOWN = 10_000  # addresses


def own_place() -> str:
    """Return the place of this host: NAME@MACHINE."""
    return f"{own_host_name()}@{own_machine()[:_MACHINE_DIGITS]}"


def host_of(place: str) -> str | None:
    """Return the host's name in a place; None for an address."""
    name, at, _ = place.rpartition("@")
    return name if at else None


def is_loopback(address: str) -> bool:
    """Tell whether an address is this host to everybody who has it; a UNIX socket has none."""
    return address.startswith("127.") or address in ("::1", "")


def is_own_address(address: str) -> bool:
    """Tell whether an address is one of this host: then a socket can be bound to it. A UNIX socket has none."""
    if not address:
        return True
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


class PlaceNamer:
    """Names the places of clients. What an address means is looked up once, and again when many have come since."""

    def __init__(self) -> None:
        self._own = own_place()
        self._known: dict[str, str] = {}

    def place_of(self, address: str) -> str:
        """Return where a client with this address is: the address, or the place of this host."""
        place = self._known.get(address)
        if place is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            is_here = is_loopback(address) or is_own_address(address)
            place = self._known[address] = self._own if is_here else address
        return place

"""A lock server and a network in memory, on a clock that the test moves: nothing waits, so all can be tried."""

from __future__ import annotations

from math import inf
from typing import Callable, TypeVar

from ipclocker.lock.client.connection import ServerConnection
from ipclocker.lock.client.steps import Steps
from ipclocker.lock.server.request_handler import RequestHandler
from ipclocker.lock.server.service import LockService
from ipclocker.net.address import Address

S = TypeVar("S")


class MemoryServer:
    """The lock service without sockets: what the server does with bytes, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.service = LockService()

    def connect(self, address: str = "127.0.0.1") -> MemoryPeer:
        return MemoryPeer(self, address)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and what has an end in it end on time."""
        until = self.now + seconds
        while self.service.table.next_expiry <= until:
            self.now = max(self.now, self.service.table.next_expiry)
            self.service.expire(self.now)
        self.now = until

    def held(self) -> dict[bytes, bytes]:
        """Each held name and its user."""
        return {name: grant.user for name, grant in self.service.table.held.items()}


class MemoryPeer:
    """One connection to a MemoryServer, seen from the client: `heard` is what it was sent and has not taken."""

    def __init__(self, server: MemoryServer, address: str) -> None:
        self.server = server
        self.heard = b""
        self.closed = False  # by the server
        self.gone = False  # the client has hung up
        self.reads = True
        self.handler = RequestHandler(server.service, self, address)

    def send(self, data: bytes) -> None:
        if not self.closed:
            self.handler.receive(data, self.server.now)
            self.flush()

    def say(self, text: str) -> None:
        """Send lines, which are written with `; ` between them."""
        self.send(as_lines(text))

    def take(self) -> bytes:
        heard, self.heard = self.heard, b""
        return heard

    def ask(self, text: str) -> list[str]:
        """Send lines, take the lines of what is answered."""
        self.say(text)
        return self.take().decode().split("\n")[:-1]

    def hang_up(self) -> None:
        self.gone = True
        self.handler.on_disconnect(self.server.now)

    def is_connected(self) -> bool:
        return not self.gone

    def flush(self) -> None:
        """Do for the handler what a server with a client that reads does."""
        handler = self.handler
        while self.reads and not self.gone:
            self.heard += b"".join(handler.output)
            handler.output.clear()
            if handler.undelivered is not None:
                handler.on_delivered(self.server.now)
            if not handler.paused or handler.waiting or handler.closing:
                break
            handler.resume(self.server.now)
        if handler.closing and not self.closed:
            self.closed = True
            handler.on_disconnect(self.server.now)


def as_lines(text: str) -> bytes:
    """Lines written with `;` between them, as they go over the wire; a line may be empty."""
    return b"".join(line.strip().encode() + b"\n" for line in text.split(";"))


class ConnectionBroken(ConnectionResetError):
    """The fault that MemoryNetwork plants."""

    def __init__(self) -> None:
        super().__init__(104, "planted")


class MemoryNetwork:
    """Connections to a MemoryServer, and a wait that never waits: it lets time pass on the server instead.

    `break_at` counts sends and receives of all connections: that one breaks its connection. With `after` the bytes of a
    send arrive before it breaks.
    """

    def __init__(self, server: MemoryServer, break_at: int = -1, after: bool = False) -> None:
        self.server = server
        self.break_at = break_at
        self.after = after
        self.steps = 0
        self.links: list[MemorySocket] = []
        self.while_waiting: Callable[[], None] = lambda: None
        self.up = True

    def connect(self, address: Address, deadline: float = inf, wait: object = None) -> ServerConnection:
        if not self.up:
            raise ConnectionRefusedError(111, "planted")
        sock = MemorySocket(self)
        self.links.append(sock)
        return ServerConnection(sock, address, self.wait)  # type: ignore[arg-type]

    def connecting(self, address: Address, deadline: float = inf, wait: object = None) -> Steps[ServerConnection]:
        """What stands in the place of ServerConnection.connecting: it lets the time pass itself."""
        yield from ()
        return self.connect(address, deadline, wait)

    def wait(self, sock: object, events: int, deadline: float) -> bool:
        if isinstance(sock, MemorySocket) and not sock.is_readable():
            self.while_waiting()
            return sock.is_readable()
        return True

    def step(self) -> bool:
        """Count one; whether it is the one that breaks."""
        self.steps += 1
        return self.steps - 1 == self.break_at


class MemorySocket:
    """The part of a socket that a ServerConnection uses."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.peer = network.server.connect()
        self.open = True

    def is_readable(self) -> bool:
        return bool(self.peer.heard) or self.peer.closed or self.peer.gone

    def send(self, data: bytes) -> int:
        breaks = self.network.step()
        if breaks and self.network.after:
            self.peer.send(data)
        if breaks or self.peer.closed or self.peer.gone:
            self.break_off()
            raise ConnectionBroken
        self.peer.send(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        if self.network.step() or self.peer.gone:
            self.break_off()
            raise ConnectionBroken
        if not self.peer.heard and not self.peer.closed:
            raise BlockingIOError
        piece, self.peer.heard = self.peer.heard[:size], self.peer.heard[size:]
        return piece

    def setsockopt(self, *words: object) -> None:
        """There is no network here whose patience could be set."""

    def break_off(self) -> None:
        if not self.peer.gone:
            self.peer.hang_up()

    def close(self) -> None:
        self.open = False
        self.break_off()

"""What stands in for the world: a clock that the test moves, a lock server in memory, and servers of other kinds."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from math import inf
from typing import Callable, TypeVar

from ipclocker.lock.client.connection import ServerConnection
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
            handler.undelivered = None
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
    """Links to a MemoryServer, and a wait that never waits: it lets time pass on the server instead.

    `break_at` counts sends and receives of all links: that one breaks its connection. With `after` the bytes of a
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
    """As much of a socket as a Link needs."""

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

    def break_off(self) -> None:
        if not self.peer.gone:
            self.peer.hang_up()

    def close(self) -> None:
        self.open = False
        self.break_off()


class ThreadedServer:
    """A TCP server with a thread for each connection; `serve` says what is done with one."""

    def __init__(self, serve: Callable[[socket.socket], None], host: str = "127.0.0.1", port: int = 0) -> None:
        self._serve = serve
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._run, args=[sock])
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._serve(sock)
        self._open.discard(sock)
        sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def say_nothing(sock: socket.socket) -> None:
    """A server that takes everything and never answers."""
    while sock.recv(65_536):
        pass


def close_at_once(sock: socket.socket) -> None:
    """A server that hangs up on everybody."""


class ClassicServer(ThreadedServer):
    """A lock server of the old kind: no sessions, no tokens, and its defect of queueing whom it has told no.

    Every event is written to `events`: ("LOCK", user, granted), ("UNLOCK", user), ("granted late", user),
    ("closed", user) when a client's connection ends.
    """

    def __init__(self, port: int = 0) -> None:
        self.events: list[tuple[object, ...]] = []
        self.holders: dict[str, str] = {}
        self.queue: list[tuple[str, str, socket.socket]] = []
        self._guard = threading.Lock()
        super().__init__(self._talk, port=port)

    def seen(self, *event: object) -> int:
        """How many of these events there were."""
        with self._guard:
            return self.events.count(event)

    def _talk(self, sock: socket.socket) -> None:
        variables = {"user": "", "locks": "", "block": "0"}
        try:
            for line in _lines(sock):
                words = line.split()
                if not words:
                    continue
                if words[0] == "EOF":
                    return
                with self._guard:
                    if words[0] in variables:
                        variables[words[0]] = words[1] if len(words) > 1 else ""
                    elif words[0] in ("LOCK", "UNLOCK", "STATUS", "BREAK_LOCK", "LOCK_LIST", "VERSION"):
                        getattr(self, f"_{words[0].lower()}")(sock, variables)
        finally:
            with self._guard:
                self.queue = [entry for entry in self.queue if entry[2] is not sock]
                self.events.append(("closed", variables["user"]))

    def _lock(self, sock: socket.socket, variables: dict[str, str]) -> None:
        user, name = variables["user"], variables["locks"]
        holder = self.holders.get(name)
        granted = holder in (None, user)
        self.events.append(("LOCK", user, granted))
        if granted:
            self.holders[name] = user
            self._say_granted(sock, user, name)
            return
        self.queue.append((user, name, sock))  # the defect: whether it asked to wait or not
        if variables["block"] == "1":
            sock.sendall(f"print_waiting {holder}\n".encode())
        else:
            sock.sendall(f"owner {holder}\nlocked 0\n\n\n".encode())

    def _unlock(self, sock: socket.socket, variables: dict[str, str]) -> None:
        user, name = variables["user"], variables["locks"]
        self.events.append(("UNLOCK", user))
        self.queue = [entry for entry in self.queue if entry[0] != user]
        if self.holders.get(name) == user:
            self._free(name)
        self._status(sock, variables)

    def _free(self, name: str) -> None:
        del self.holders[name]
        for entry in self.queue:
            if entry[1] == name:
                self.queue.remove(entry)
                self.holders[name] = entry[0]
                self.events.append(("granted late", entry[0]))
                with contextlib.suppress(OSError):
                    entry[2].sendall(b"print_obtained\n")
                    self._say_granted(entry[2], entry[0], name)
                return

    def _status(self, sock: socket.socket, variables: dict[str, str]) -> None:
        holder = self.holders.get(variables["locks"], "")
        if holder and holder == variables["user"]:
            self._say_granted(sock, holder, variables["locks"])
        else:
            sock.sendall(f"owner {holder}\nlocked 0\n\n\n".encode())

    def _break_lock(self, sock: socket.socket, variables: dict[str, str]) -> None:
        name = variables["locks"]
        if name in self.holders:
            sock.sendall(f"print_broke {self.holders[name]}\n".encode())
            self._free(name)
        self._status(sock, variables)

    def _lock_list(self, sock: socket.socket, variables: dict[str, str]) -> None:
        listed = "".join(f"lock {name} {holder}\n" for name, holder in self.holders.items())
        sock.sendall(f"{listed}\n\n".encode())

    def _version(self, sock: socket.socket, variables: dict[str, str]) -> None:
        sock.sendall(b"version 1.502 1700000000\n\n")

    @staticmethod
    def _say_granted(sock: socket.socket, user: str, name: str) -> None:
        sock.sendall(f"owner {user}\nlocked 1\nlockname {name}\n\n\n".encode())


def _lines(sock: socket.socket) -> Iterator[str]:
    rest = ""
    while data := sock.recv(65_536):
        *lines, rest = (rest + data.decode()).split("\n")
        yield from lines

"""A load on a lock server, in the classic line protocol, from one process that waits for nothing but the server."""

from __future__ import annotations

import select
import socket
import time

_EDGE = select.EPOLLIN


class OneShot:
    """Clients that connect, send one request, read the answer to its end, and come again."""

    def __init__(self, port: int, clients: int) -> None:
        self.done = 0
        self._port = port
        self._poll = select.epoll()
        self._sockets: dict[int, tuple[int, socket.socket]] = {}
        self._rounds = [0] * clients
        for client in range(clients):
            self._ask(client)

    def run(self, seconds: float) -> int:
        """Go on for so long, and until one is answered; the number of requests answered in that time."""
        before, end = self.done, time.monotonic() + seconds
        while time.monotonic() < end or self.done == before:
            for descriptor, _ in self._poll.poll(1.0):
                client, sock = self._sockets[descriptor]
                if sock.recv(4096):
                    continue
                self._poll.unregister(descriptor)
                del self._sockets[descriptor]
                sock.close()
                self.done += 1
                self._rounds[client] += 1
                self._ask(client)
        return self.done - before

    def _ask(self, client: int) -> None:
        number, unlocks = divmod(self._rounds[client], 2)
        who = b"user h_%d_u\nlocks L%d_%d\n" % (client, client, number)
        what = b"UNLOCK\n\nEOF\n\n" if unlocks else b"block 1\ntimeout 600\nLOCK\n\nEOF\n\n"
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.sendall(who + what)
        self._sockets[sock.fileno()] = (client, sock)
        self._poll.register(sock, _EDGE)


class Kept:
    """Clients that lock and unlock over a connection that stays open."""

    def __init__(self, port: int, clients: int) -> None:
        self.done = 0
        self._poll = select.epoll()
        self._sockets: dict[int, tuple[int, socket.socket]] = {}
        self._rounds = [0] * clients
        for client in range(clients):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(b"user h_%d_u\nblock 1\ntimeout 600\nlocks K%d\nLOCK\n" % (client, client))
            self._sockets[sock.fileno()] = (client, sock)
            self._poll.register(sock, _EDGE)

    def run(self, seconds: float) -> int:
        """Go on for so long, and until one is answered; the number of requests answered in that time."""
        before, end = self.done, time.monotonic() + seconds
        while time.monotonic() < end or self.done == before:
            for descriptor, _ in self._poll.poll(1.0):
                client, sock = self._sockets[descriptor]
                if not sock.recv(4096).endswith(b"\n\n\n"):
                    continue
                self.done += 1
                self._rounds[client] += 1
                sock.sendall(self._request(client))
        return self.done - before

    def _request(self, client: int) -> bytes:
        return b"locks K%d\n%s\n" % (client, b"UNLOCK" if self._rounds[client] % 2 else b"LOCK")


class Renewing(Kept):
    """Clients that renew a lease over a connection that stays open."""

    def __init__(self, port: int, clients: int) -> None:
        super().__init__(port, clients)
        self._requests: list[bytes] = []
        for client, sock in self._sockets.values():
            while not sock.recv(4096).endswith(b"\n\n\n"):
                pass  # of the lock that it has from its begin
            what = b"session s%d\nlocks R%d\nlease 1\ntoken 1\nLOCK\n" % (client, client)
            sock.sendall(what)
            answer = b""
            while not answer.endswith(b"\n\n\n"):
                answer += sock.recv(4096)
            token = answer.partition(b"\ntoken ")[2].split()[0]
            self._requests.append(b"RENEW R%d %b\n" % (client, token))
            sock.sendall(self._requests[client])

    def _request(self, client: int) -> bytes:
        return self._requests[client]


def hold(port: int, count: int) -> None:
    """Take so many locks, each for a user of its own, and leave them held."""
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as answers:
        for start in range(0, count, 50):
            sock.sendall(b"".join(b"user hold_%d_u\nlocks H%d\nLOCK\n" % (n, n) for n in range(start, start + 50)))
            for _ in range(50 * 5):
                answers.readline()


def queue(port: int, count: int, name: bytes) -> list[socket.socket]:
    """Connect so many clients that wait for one lock, in this order; each has been told that it waits."""
    waiting = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(b"user w_%d_u\nlocks %b\nblock 1\nLOCK\n" % (sock.getsockname()[1], name))
        waiting.append(sock)
    for sock in waiting:
        sock.recv(4096)
    return waiting

"""Servers of other kinds than ours: silent ones, an old lock server, and ones that answer what a test wrote down."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from typing import Callable, TypeVar

from .waiting import DEADLINE

S = TypeVar("S")
VERSION_REPLY = b"version 9.5 1700000000\n\n"
NOTHING = b"\n\n"


class FakeTcpServer:
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


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1") -> Iterator[int]:
    """A port whose backlog is full: to a SYN nothing is answered, as by a host that is switched off."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class Proxy(FakeTcpServer):
    """A long way to a server of this host: what a client sends arrives `delay` seconds later.

    After `swallow` nothing comes through over the connections that there are, and nobody is told.
    """

    def __init__(self, server_port: int, delay: float = 0.0) -> None:
        self._server_port = server_port
        self._delay = delay
        self._dead: set[socket.socket] = set()
        super().__init__(self._pass_on)

    def swallow(self) -> None:
        self._dead |= self._open

    def _pass_on(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._server_port)) as server:
            answers = threading.Thread(target=self._pump, args=[server, client, client])
            answers.start()
            late: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            requests = threading.Thread(target=self._send_late, args=[late, server, client])
            requests.start()
            with contextlib.suppress(OSError):
                while data := client.recv(65_536):
                    late.put((time.monotonic() + self._delay, data))
            late.put((time.monotonic() + self._delay, b""))
            requests.join()
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _send_late(
        self, late: queue.SimpleQueue[tuple[float, bytes]], server: socket.socket, client: socket.socket
    ) -> None:
        while True:
            due, data = late.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                return
            with contextlib.suppress(OSError):
                if client not in self._dead:
                    server.sendall(data)

    def _pump(self, source: socket.socket, target: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if client not in self._dead:
                    target.sendall(data)
            if client not in self._dead:
                target.shutdown(socket.SHUT_RDWR)


def say_nothing(sock: socket.socket) -> None:
    """A server that takes everything and never answers."""
    while sock.recv(65_536):
        pass


def say_half_a_line(sock: socket.socket) -> None:
    """A server that falls silent in the midst of its first answer."""
    sock.recv(65_536)
    sock.sendall(b"own")
    say_nothing(sock)


def trickle(sock: socket.socket) -> None:
    """A server that sends a byte now and then, and never a line."""
    while True:
        sock.sendall(b"x")
        time.sleep(0.05)


def close_at_once(sock: socket.socket) -> None:
    """A server that hangs up on everybody."""


class ClassicServer(FakeTcpServer):
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
        """The number of these events so far."""
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


class ScriptedServer(FakeTcpServer):
    """`answers` has the bytes for each command line, or for its first word; `asked` the lines that came."""

    def __init__(self, answers: dict[bytes, bytes], port: int = 0) -> None:
        self.answers = {b"VERSION": VERSION_REPLY, b"LOCK_LIST": NOTHING, **answers}
        self.asked: list[bytes] = []
        super().__init__(self._talk, port=port)

    def _talk(self, sock: socket.socket) -> None:
        rest = b""
        while data := sock.recv(65_536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.asked.append(line)
                answer = self.answers.get(line, self.answers.get(line.partition(b" ")[0]))
                if answer is not None:
                    sock.sendall(answer)


@contextlib.contextmanager
def false_server(answers: Callable[[bytes], list[bytes]], elsewhere: bool = False) -> Iterator[int]:
    """A server that answers a datagram as it is told to, if so from another port; its port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("127.0.0.2", 0))

    def serve() -> None:
        while True:
            datagram, sender = sock.recvfrom(2048)
            if datagram == b"end":
                return
            for answer in answers(datagram):
                (other if elsewhere else sock).sendto(answer, sender)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield sock.getsockname()[1]
    finally:
        other.sendto(b"end", sock.getsockname())
        thread.join(DEADLINE)
        sock.close()
        other.close()

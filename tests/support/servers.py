"""Real lock servers and pid servers, and bare connections to them: started, spoken to, and surely ended."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from ipclocker.lock.server.server import LockServer
from ipclocker.pid.server import PidServer

from . import PROJECT
from .memory import as_lines
from .processes import cpu_time, state
from .waiting import DEADLINE, wait_for

T = TypeVar("T")


class Peer:
    """A bare connection to a server, for those who speak the protocol by hand."""

    def __init__(self, address: str, source: str | None = None) -> None:
        if ":" not in address:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(address)
        else:
            host, _, port = address.rpartition(":")
            self.sock = socket.create_connection(
                (host.strip("[]"), int(port)), DEADLINE, None if source is None else (source, 0)
            )
        self.sock.settimeout(DEADLINE)
        self._heard = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def say(self, text: str) -> None:
        """Send lines, which are written with `;` between them, in one packet."""
        self.send(as_lines(text))

    def ask(self, text: str) -> list[str]:
        """Send lines, and hear one answer."""
        self.say(text)
        return self.hear()

    def hear(self, end: bytes = b"\n\n\n") -> list[str]:
        """The lines up to the end of an answer, without the empty ones."""
        while True:
            if self._heard.startswith(end[1:]):  # an answer that is nothing but its end
                self._heard = self._heard[len(end) - 1 :]
                return []
            if end in self._heard:
                answer, self._heard = self._heard.split(end, 1)
                return answer.decode().split("\n")
            self._read()

    def hear_line(self) -> str:
        while b"\n" not in self._heard:
            self._read()
        line, self._heard = self._heard.split(b"\n", 1)
        return line.decode()

    def hear_bytes(self, count: int) -> bytes:
        while len(self._heard) < count:
            self._read()
        answer, self._heard = self._heard[:count], self._heard[count:]
        return answer

    def hear_until_closed(self) -> bytes:
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                self._read()
        heard, self._heard = self._heard, b""
        return heard

    def hears_nothing(self) -> bool:
        """True if nothing has arrived that was not heard; a request before has to bring what is still on its way."""
        if select.select([self.sock], [], [], 0)[0]:
            self._read()
        return not self._heard

    def _read(self) -> None:
        data = self.sock.recv(65_536)
        if not data:
            raise EOFError
        self._heard += data

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Go without a good-bye, as a host that crashed and came back does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Served:
    """A running lock server as tests use it; it is ended, with all peers, at the end of a `with`."""

    addresses: list[str]

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    @property
    def address(self) -> str:
        return self.addresses[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def connect(self, source: str | None = None) -> Peer:
        self.peers.append(Peer(self.address, source))
        return self.peers[-1]

    def ask(self, text: str) -> list[str]:
        """One answer over a connection of its own."""
        peer = Peer(self.address)
        try:
            return peer.ask(text)
        finally:
            peer.close()

    def turn(self) -> None:
        """On return the server has dealt with all that was sent to it before."""
        for _ in range(2):
            self.version()

    def version(self) -> str:
        peer = Peer(self.address)
        try:
            peer.say("VERSION")
            return peer.hear_line()
        finally:
            peer.close()

    def holders(self) -> dict[str, str]:
        """Each held name and its holder."""
        return {line.split()[1]: line.split()[2] for line in self.ask("LOCK_LIST")}

    def end(self) -> None:
        raise NotImplementedError

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self.peers:
            peer.close()
        self.end()


class ThreadServer(Served):
    """A LockServer in a thread of this process."""

    def __init__(self, host: str | list[str] = "127.0.0.1", port: str | int | None = 0, **parameters: Any) -> None:
        super().__init__()
        self.server = LockServer(host, port, **parameters)
        self.addresses = self.server.addresses
        self._problem: list[BaseException] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.server.run()
        except BaseException as problem:  # noqa: BLE001 - shown in the thread of the test
            self._problem.append(problem)
        finally:
            self.server.close()

    def waiters(self, name: str = "lock") -> int:
        """How many wait for the lock."""
        return len(self.server.term.service.table.waiters(name.encode()))

    def end(self) -> None:
        self.server.stop()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the server did not stop"
        for problem in self._problem:
            raise AssertionError("the server fell over") from problem


class Lockerd(Served):
    """A lockerd of its own process."""

    def __init__(self, *options: str, port: int = 0, before: str = "", host: str = "127.0.0.1") -> None:
        super().__init__()
        self.stderr = b""
        start = f"import sys; {before or 'pass'}; from ipclocker.__main__ import main; sys.argv[0] = 'lockerd'; main()"
        where = [] if "--path" in options else ["--port", str(port), "--host", host]
        if "--state" not in options and "--state-dir" not in options:
            where += ["--state", "none"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", start, "--nofork", *where, *options],
            cwd=PROJECT,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("IPCLOCKER")},
        )
        self.addresses = self._await_addresses()

    def _await_addresses(self) -> list[str]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr += line
            found = re.search(r"listening on ([^;]*)", line.decode())
            if found:
                return found[1].split(", ")
        raise AssertionError(f"lockerd ended with {self.kill()}: {self.stderr.decode()}")

    def cpu_time(self) -> float:
        """The seconds of processor time that it has used."""
        return cpu_time(self.process.pid)

    def memory(self) -> int:
        """The bytes of memory that it has, now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End it; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(DEADLINE)
        if self.process.stderr is not None and not self.process.stderr.closed:
            self.stderr += self.process.stderr.read()
            self.process.stderr.close()
        return status

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it stand still, so that all that is sent meanwhile arrives in one instant."""
        os.kill(self.process.pid, signal.SIGSTOP)
        wait_for(lambda: state(self.process.pid) == "T", "the server to stand still")
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        self.kill()


@contextlib.contextmanager
def pid_server(port: str | int = 0, host: str | list[str] | None = "127.0.0.1") -> Iterator[PidServer]:
    """A PidServer in a thread of this process."""
    server = PidServer(port, host)
    problems: list[BaseException] = []

    def serve() -> None:
        try:
            server.run()
        except BaseException as problem:  # noqa: BLE001 - shown in the thread of the test
            problems.append(problem)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        with pid_client(server.addresses[0]) as sock:
            sock.send(b"wake up")
        thread.join(DEADLINE)
        server.close()
        assert not thread.is_alive() and not problems, problems


def port_of(server: PidServer) -> int:
    return int(server.addresses[0].rpartition(":")[2])


@contextlib.contextmanager
def pid_client(address: str) -> Iterator[socket.socket]:
    """A bare socket that is connected to a server, as its `addresses` has it."""
    host, _, port = address.rpartition(":")
    host = "::1" if host == "[::]" else host.strip("[]")
    family = socket.AF_UNIX if "/" in address else socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE)
        if family == socket.AF_UNIX:
            sock.bind("")
            sock.connect(address)
        else:
            sock.connect((host, int(port)))
        yield sock


@contextlib.contextmanager
def pidstatd(*options: str, before: str = "") -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A pidstatd in the foreground: the process, where it is asked, and the line that says so."""
    program = f"{before}\nimport sys; sys.argv[0] = 'pidstatd'; from ipclocker.__main__ import main; main()"
    command = [sys.executable, "-c", program, "--nofork", *options]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"listening on ([^;,\n]*)", line)
            assert found is not None, line + process.stderr.read()
            yield process, found[1], line
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)

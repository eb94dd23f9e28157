"""Real pid servers, and false ones."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Callable

from ipclocker.pid.server import PidServer

from .servers import DEADLINE, PROJECT


@contextlib.contextmanager
def thread_server(port: str | int = 0, host: str | list[str] | None = "127.0.0.1") -> Iterator[PidServer]:
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

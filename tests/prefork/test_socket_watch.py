"""What one copy does to the socket that all share: it does not last, whatever it was."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..support import PROJECT
from ..support.processes import is_alive, living_children
from ..support.waiting import wait_for
from .test_fastcgi_program import PREFORK, prefork

# Says at its start how it finds the socket. Then it does with that what the first word of each request says.
PROGRAM = """
import os, socket, struct, sys
s = socket.socket(fileno=0)
timeout = s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
os.write(2, b"up %d blocks=%d timeout=%d\\n" % (os.getpid(), os.get_blocking(0), any(timeout)))
if "always" in sys.argv:
    s.shutdown(socket.SHUT_RDWR)
while True:
    connection, _ = s.accept()
    connection.setblocking(True)
    with connection:
        word = connection.recv(100).strip()
        if word == b"nonblock":
            os.set_blocking(0, False)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 1, 0))
        if word == b"shutdown":
            s.shutdown(socket.SHUT_RD)
        connection.sendall(b"%d\\n" % os.getpid())
"""


@pytest.fixture
def rude(tmp_path: Path) -> list[str]:
    path = tmp_path / "rude.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path)]


def ask(address: str | tuple[str, int], word: str) -> int:
    """Who answers; 0 if nobody can be asked."""
    try:
        with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
            client.settimeout(60)
            client.connect(address)
            client.sendall(f"{word}\n".encode())
            return int(client.recv(100) or 0)
    except (ConnectionError, FileNotFoundError):
        return 0


def test_each_copy_finds_the_socket_blocking(rude: list[str]) -> None:
    with prefork("--processes", "1", program=rude) as found:
        first = wait_for(lambda: ask(found.path, "nonblock"), "an answer")
        found.send(signal.SIGKILL, first)
        assert wait_for(lambda: ask(found.path, "x"), "an answer") != first
        assert len(found.workers()) == 1
        assert re.findall(r"up \d+ (.*)\n", found.err) == ["blocks=1 timeout=0"] * 2


def test_a_unix_socket_that_was_shut_down_is_made_again(rude: list[str]) -> None:
    with prefork("--processes", "3", program=rude) as found:
        before = [wait_for(lambda: ask(found.path, "shutdown"), "an answer"), *found.workers()]
        found.says(r"a program has shut down the socket unix:\S+, which all share: nobody can connect any more; it is ")
        found.says(r"listening on unix:\S+ again: the programs are renewed")
        answers = {wait_for(lambda: ask(found.path, "x"), "an answer") for _ in range(10)}
        assert 0 not in answers
        wait_for(lambda: not any(map(is_alive, before)), "the end of those with the old one")
        assert Path(found.path).stat().st_mode & 0o777 == 0o660
        found.send(signal.SIGTERM)
        assert found.end() == 0
        assert list(Path(found.path).parent.iterdir()) == [Path(found.path).with_name("err")]


@contextmanager
def with_stderr(command: list[str], **more: object) -> Iterator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """A process, and what it says, line by line."""
    with subprocess.Popen(command, cwd=PROJECT, stderr=-1, text=True, **more) as process:  # type: ignore[call-overload]
        try:
            yield process, iter(process.stderr)
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_port_that_was_shut_down_is_listened_on_again(rude: list[str]) -> None:
    command = [*PREFORK, "--listen", "127.0.0.1:0", "--processes", "2", "--", *rude]
    with with_stderr(command) as (process, lines):
        found = next(filter(None, (re.search(r"listening on 127\.0\.0\.1:(\d+)", line) for line in lines)))
        address = ("127.0.0.1", int(found[1]))
        first = wait_for(lambda: ask(address, "shutdown"), "an answer")
        assert any(f"listening on 127.0.0.1:{found[1]} again" in line for line in lines)
        wait_for(lambda: ask(address, "x") not in (0, first), "another answer")
        wait_for(lambda: first not in living_children(process.pid), "the end of the first")


def test_one_that_was_inherited_is_for_others_to_make_again(rude: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        command = [*PREFORK, "--listen", f"fd:{number}", "--processes", "1", "--", *rude]
        with with_stderr(command, pass_fds=[number]) as (_, lines):
            assert ask(listener.getsockname(), "shutdown")
            said = next(line for line in lines if "has shut down the socket" in line)
            assert said.endswith("it was handed over by another program, which has to make it again\n")


@pytest.mark.parametrize("rolling", ["--rolling", "--no-rolling"])
def test_a_program_that_always_does_it_makes_no_storm(rolling: str, rude: list[str]) -> None:
    with prefork("--processes", "2", rolling, "--start-delay", "0", program=[*rude, "always"]) as found:
        found.says("again: the programs are renewed", 4)
        pauses = [float(text) for text in re.findall(r"it is made again in ([\d.]+) s", found.err)]
        assert max(pauses) > 0.4
        found.send(signal.SIGTERM)
        assert found.end() == 0

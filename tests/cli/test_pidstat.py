"""pidstat as a process: lines, exit codes, options."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from ..support.fake_servers import false_server
from ..support.processes import NO_PID, alive, run_ipclocker
from ..support.servers import pid_server, port_of


def pidstat(*words: str) -> tuple[int, list[str], str]:
    """The exit code, the lines of stdout, and stderr."""
    done = run_ipclocker("pidstat", *words)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    with pid_server(host=None) as server:
        yield str(port_of(server))


def test_all_exist(port: str) -> None:
    with alive() as process:
        code, lines, _ = pidstat(
            "--host", "127.0.0.1", "--port", port, "exists", "1", f"127.0.0.2:{process.pid}", "[::1]:1"
        )
    assert (code, lines) == (0, ["127.0.0.1:1 up", f"127.0.0.2:{process.pid} up", "[::1]:1 up"])


def test_one_does_not(port: str) -> None:
    code, lines, _ = pidstat("--port", port, "--host", "127.0.0.1", "exists", str(NO_PID), "1", str(NO_PID))
    assert (code, lines) == (1, [f"127.0.0.1:{NO_PID} down", "127.0.0.1:1 up", f"127.0.0.1:{NO_PID} down"])


def test_this_host_without_a_server() -> None:
    assert pidstat("--port", "1", "exists", str(os.getpid())) == (0, [f"localhost:{os.getpid()} up"], "")


def test_a_host_that_does_not_answer(port: str) -> None:
    hosts = [f"127.0.1.{number}:1" for number in range(1, 6)]
    with false_server(lambda datagram: []) as silent:
        begin = time.monotonic()
        code, lines, _ = pidstat("--port", str(silent), "exists", *hosts, f"localhost:{NO_PID}", "host.invalid:5")
        taken = time.monotonic() - begin
    assert code == 2
    assert lines == [*(f"{host} host_down" for host in hosts), f"localhost:{NO_PID} down", "host.invalid:5 host_down"]
    assert 5 <= taken < 20  # five tries of a second, for all together


def test_what_is_unknown() -> None:
    def unknown(datagram: bytes) -> list[bytes]:
        _, pid, secret = datagram.split()[:3]
        return [b"UNKN %b na %b" % (pid, secret)]

    with false_server(unknown) as port:
        assert pidstat("--port", str(port), "exists", "127.0.0.1:7")[:2] == (2, ["127.0.0.1:7 unknown"])


def test_silent_and_debug(port: str) -> None:
    assert pidstat("--silent", "--port", port, "exists", "127.0.0.1:1", f"127.0.0.1:{NO_PID}") == (1, [], "")
    assert pidstat("exists", "127.0.0.1:1", f"127.0.0.1:{NO_PID}", "--port", port, "--silent") == (1, [], "")
    code, lines, trace = pidstat("--debug", "--port", port, "exists", "127.0.0.1:1")
    assert (code, lines) == (0, ["127.0.0.1:1 up"])
    assert "PIDR 1 " in trace and "EXIS 1 1 " in trace


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["exist", "1"],
        ["exists"],
        ["exists", "x"],
        ["exists", "0"],
        ["exists", "-1"],
        ["exists", "host:"],
        ["exists", ":1"],
        ["exists", "1" * 21],
        ["--port", "nosuch", "exists", "1"],
        ["--nonsense"],
    ],
)
def test_wrong_command_lines(words: list[str]) -> None:
    code, lines, error = pidstat(*words)
    assert (code, lines) == (64, [])
    assert error.startswith("pidstat: ") and error.count("\n") == 1

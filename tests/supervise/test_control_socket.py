"""The control socket: what is asked is answered, and nobody who connects can do harm."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipclocker.errors import ServerUnavailable, UsageError
from ipclocker.net.loop import Loop
from ipclocker.supervise import control_socket as control
from ipclocker.supervise.control_socket import ControlServer, ask, control_path

from ..support.waiting import DEADLINE


class Programs:
    """Stands in for a supervisor with one program, `web`, that takes its time."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[str]]] = []
        self.settled = True

    def describe_to(self, names: list[str]) -> dict[str, Any]:
        if names not in ([], ["web"]):
            raise UsageError(f"there is no program '{names[0]}'")
        return {"programs": [{"name": "web", "settled": self.settled}]}

    def tell(self, command: str, names: list[str]) -> list[str]:
        self.describe_to(names)
        self.told.append((command, names))
        return ["web"]

    def are_settled(self, names: list[str]) -> bool:
        assert names == ["web"]
        return self.settled


class Running:
    """A control socket that is served by a thread."""

    def __init__(self, folder: Path) -> None:
        self.programs = Programs()
        self.path = str(folder / "sock")
        self.loop = Loop()
        self.control = ControlServer(self.loop, self.path, self.programs)
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def in_loop(self, what: Any) -> None:
        """Call something in the loop's thread, soon."""
        self.loop.call_at(0.0, what)
        self.connect().close()  # which wakes it up

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(self.path)
        return sock

    def end(self) -> None:
        self.loop.stop()
        self._thread.join(DEADLINE)
        self.control.close()
        self.loop.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.end()
    assert not Path(running.path).exists()


def test_status(running: Running) -> None:
    assert ask(running.path, "status", []) == {"programs": [{"name": "web", "settled": True}]}
    assert ask(running.path, "status", ["web"])["programs"][0]["name"] == "web"
    with pytest.raises(UsageError, match="there is no program 'x'"):
        ask(running.path, "status", ["x"])


def test_only_its_user_may_connect(running: Running) -> None:
    assert os.stat(running.path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("command", ["start", "stop", "restart"])
def test_told_something_it_answers_when_that_is_done(running: Running, command: str) -> None:
    running.programs.settled = False
    with running.connect() as sock:
        sock.sendall(json.dumps({"command": command, "programs": ["web"]}).encode() + b"\n")
        file = sock.makefile("rb")
        assert file.readline() == b"\n"  # a sign of life
        assert running.programs.told == [(command, ["web"])]

        def settle() -> None:
            running.programs.settled = True
            running.control.changed()

        running.in_loop(settle)
        answer = next(line for line in file if line.strip())
        assert json.loads(answer) == {"programs": [{"name": "web", "settled": True}]}
    assert ask(running.path, command, [])["programs"]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b"{}",
        b"null",
        b'"status"',
        b'{"command": "status", "programs": 5}',
        b'{"command": ["status"]}',
        b'{"command": "explode"}',
        b"\xff\xfe",
        b"[" * 60_000,
        b"",
    ],
)
def test_what_is_no_request_is_refused(running: Running, line: bytes) -> None:
    with running.connect() as sock:
        sock.sendall(line + b"\n")
        answer = json.loads(sock.makefile("rb").readline())
    assert answer["code"] == 64 and answer["error"]
    assert running.programs.told == []
    assert ask(running.path, "status", [])["programs"]


def test_a_line_without_end_is_cut_off(running: Running) -> None:
    with running.connect() as sock, pytest.raises((ConnectionError, EOFError)):
        while True:
            sock.sendall(b"x" * 10_000)
    assert ask(running.path, "status", [])["programs"]


def test_clients_that_say_nothing_are_many_and_then_gone(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_IDLE", 0.5)
    idle = [running.connect() for _ in range(150)]
    try:
        assert ask(running.path, "status", [])["programs"]  # waits until some of them are cut off
    finally:
        for sock in idle:
            sock.close()


def test_a_client_that_goes_while_it_waits(running: Running) -> None:
    running.programs.settled = False
    with running.connect() as sock:
        sock.sendall(b'{"command": "stop"}\n')
        assert sock.recv(1) == b"\n"
    running.programs.settled = True
    running.in_loop(running.control.changed)
    assert ask(running.path, "status", [])["programs"]


class TestWithoutASupervisor:
    def test_nobody_has_the_socket(self, tmp_path: Path) -> None:
        path = str(tmp_path / "sock")
        with pytest.raises(ServerUnavailable, match=r"no supervisor answers at .*sock \(No such file or directory\)"):
            ask(path, "status", [])
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        with pytest.raises(ServerUnavailable, match="Connection refused"):
            ask(path, "status", [])

    def test_a_name_that_is_too_long_for_a_socket(self) -> None:
        with pytest.raises(ServerUnavailable, match="AF_UNIX path too long"):
            ask("/x" * 100, "status", [])

    @pytest.mark.parametrize(
        ("answer", "what"),
        [(b"", "has hung up"), (b"hello\n", "is no supervisor"), (None, "does not answer within 0.2 s")],
    )
    def test_somebody_else_has_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, what: str
    ) -> None:
        monkeypatch.setattr(control, "_PATIENCE", 0.2)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "sock"))
            listener.listen()

            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    if answer is None:
                        connection.recv(1000)  # until the other one has gone
                    else:
                        connection.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            with pytest.raises(ServerUnavailable, match=what):
                ask(str(tmp_path / "sock"), "status", [])
            thread.join(DEADLINE)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert control_path("/run/x.pid") == "/run/x.sock"
    assert control_path("/run/x") == "/run/x.sock"
    assert control_path("x.pid") == f"{os.getcwd()}/x.sock"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert control_path(None) == "/run/ipclocker-supervise.sock"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert control_path(None) == "/run/user/1000/ipclocker-supervise.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert control_path(None) is None

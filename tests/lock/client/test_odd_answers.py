"""Whatever a server answers that is no grant, and however it goes away: nobody believes that a lock is held."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipclocker import IpclockerError, Locker

from ...support import PROJECT
from ...support.fake_servers import FakeTcpServer
from ...support.processes import run_ipclocker
from ...support.waiting import DEADLINE, wait_for

WAITING = b"print_waiting other\n"
# What comes on a LOCK of the user `me` for the lock `x`.
ODD = {
    "nothing": b"",
    "a wait": WAITING,
    "an obtained lock without an answer": WAITING + b"print_obtained\n",
    "half an answer": WAITING + b"print_obtained\nowner me\nlocked 1\nlockname x\n",
    "an answer that is cut": b"owner me\nlocked 1\nlockname x\n\n",
    "a refusal at once": b"owner other\nlocked 0\n\n\n",
    "a refusal after the wait": WAITING + b"owner other\nlocked 0\n\n\n",
    "an error": b"error whatever\n\n\n",
    "an error after the wait": WAITING + b"error whatever\n\n\n",
    "an error in a grant": b"owner me\nlocked 1\nlockname x\nerror whatever\n\n\n",
    "an empty answer": b"\n\n\n",
    "an empty answer after the wait": WAITING + b"print_obtained\n\n\n\n",
    "no name": b"owner me\nlocked 1\n\n\n",
    "another name": b"owner me\nlocked 1\nlockname y\n\n\n",
    "another name after the wait": WAITING + b"print_obtained\nowner me\nlocked 1\nlockname y\ntoken 5\n\n\n",
    "something like yes": b"owner me\nlocked yes\nlockname x\n\n\n",
    "a version": b"version 1.502 1700000000\n\n",
    "a grant in the wrong letters": b"OWNER me\nLOCKED 1\nLOCKNAME x\n\n\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "a long line": b"x" * 70_000,
    "a grant that is not confirmed": WAITING + b"print_obtained\nowner me\nlocked 1\nlockname x\ntoken 5\n\n\n",
    "a lease that a server does not know": b"lost x 5\nrecall x 5\nrenewed x 5\n\n\n",
}


class OddServer(FakeTcpServer):
    """Answers each LOCK with the same, and then hangs up, or does nothing more for it."""

    def __init__(self, answer: bytes, hangs_up: bool) -> None:
        self._answer = answer
        self._hangs_up = hangs_up
        self.asked = 0
        super().__init__(self._talk)

    def _talk(self, sock: socket.socket) -> None:
        heard = b""
        while data := sock.recv(65_536):
            heard += data
            if b"\nLOCK\n" in heard:
                self.asked += 1
                heard = b""
                sock.sendall(self._answer)
                if self._hangs_up:
                    return
            if heard.endswith(b"UNLOCK\n"):
                sock.sendall(b"owner \nlocked 0\n\n\n")


@pytest.fixture(params=ODD, ids=lambda name: name.replace(" ", "-"))
def answer(request: pytest.FixtureRequest) -> bytes:
    return ODD[request.param]


@pytest.fixture(params=["hangs up", "stays"])
def server(answer: bytes, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[OddServer]:
    monkeypatch.setattr("ipclocker.lock.client.connector.ANSWER_WITHIN", 0.1)
    monkeypatch.setattr("ipclocker.lock.client.acquisition.RELEASE_WITHIN", 0.1)
    monkeypatch.setattr("ipclocker.lock.client.acquisition.LockAcquisition.abandon.__defaults__", (0.1,))
    with OddServer(answer, request.param == "hangs up") as server:
        yield server


def test_a_locker_does_not_hold_it(server: OddServer) -> None:
    for more in ({"lock": "x"}, {"lock": ["x", "z"], "all": True}):
        where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "user": "me", **more}
        lock = Locker(connect_tries=1, connect_delay=0.05, **where)
        got: list[Any] = []
        with contextlib.suppress(IpclockerError):
            got.append(lock.acquire(timeout=1))
        assert True not in got and not lock.locked() and lock.token is None and lock.tokens == {}
    assert server.asked >= 2


RUNNING = [
    "a wait",
    "half an answer",
    "a refusal at once",
    "a refusal after the wait",
    "an empty answer",
    "no name",
    "another name",
    "a grant that is not confirmed",
]


@pytest.mark.parametrize("name", RUNNING)
def test_lockersh_does_not_run_its_command(name: str, tmp_path: Path) -> None:
    with OddServer(ODD[name], hangs_up=True) as server:
        done = run_ipclocker(
            "lockersh", "--dhost", "127.0.0.1", "--port", str(server.port), "--lock", "x", "--timeout", "0.3",
            "--connect-tries", "1", "--connect-delay", "0.1", f"touch {tmp_path}/ran",
        )  # fmt: skip
        assert server.asked >= 1
    assert not (tmp_path / "ran").exists()
    assert done.returncode in (69, 70, 75) and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["a refusal at once", "another name", "a wait"])
def test_supervise_does_not_run_its_programs(name: str, tmp_path: Path) -> None:
    with OddServer(ODD[name], hangs_up=True) as server:
        words = ["--nofork", "--program", f"touch {tmp_path}/ran", "--lock", "x", "--dhost", "127.0.0.1"]
        command = [sys.executable, "-m", "ipclocker", "supervise", *words, "--port", str(server.port)]
        with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: server.asked >= 2, "it to be asked again")
            process.terminate()
            _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0 and not (tmp_path / "ran").exists()
    assert "is ours" not in said and "is lost" not in said

"""While lockersh waits: whatever ends the wait, nothing stays asked for, and nothing runs without the lock."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ..support.processes import is_alive, state
from ..support.site import Site, Tool
from ..support.waiting import wait_for


def waiter(site: Site, *words: str) -> Tool:
    """A lockersh that waits for the lock x."""
    tool = site.start_lockersh(*(words or ("touch", str(site.folder / "ran"))))
    tool.says("waiting for lock x")
    return tool


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM]
)
def test_a_signal_ends_the_wait(site: Site, number: signal.Signals) -> None:
    holder = site.hold()
    tool = waiter(site)
    tool.process.send_signal(number)
    assert tool.end() == -number
    holder.process.terminate()
    wait_for(lambda: not site.locks(), "the lock to be free")
    assert not (site.folder / "ran").exists()


def test_what_the_caller_ignores_does_not(site: Site) -> None:
    holder = site.hold()
    tool = site.start_lockersh("exit 3", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    tool.says("waiting for lock x")
    for number in (signal.SIGHUP, signal.SIGWINCH, signal.SIGURG, signal.SIGCONT):
        tool.process.send_signal(number)
    holder.process.terminate()
    assert tool.end() == 3


def test_the_child_that_waits_is_killed(site: Site) -> None:
    holder = site.hold()
    tool = waiter(site)
    os.kill(tool.child(), signal.SIGKILL)
    assert tool.end() == -signal.SIGKILL
    holder.process.terminate()
    wait_for(lambda: not site.locks(), "the lock to be free")


def test_the_wait_is_over(site: Site) -> None:
    site.hold()
    begin = time.monotonic()
    done = site.lockersh("--timeout", "0.5", "true")
    assert time.monotonic() - begin >= 0.5
    assert done.returncode == 75
    assert done.stderr.startswith("lockersh: lock x is busy after 0.5 s: ")
    done = site.lockersh("--timeout", "0", "--conflict-exit-code", "42", "true")
    assert done.returncode == 42
    assert done.stderr.startswith("lockersh: lock x is busy: ")


def test_a_grant_that_crosses_the_end_of_the_wait(site: Site) -> None:
    """Stopped while the grant and then the end of the wait come: it may run with the lock, or give it back."""
    holder = site.hold()
    tool = waiter(site, "--timeout", "1", "echo ran")
    os.kill(tool.pid, signal.SIGSTOP)
    holder.process.terminate()
    wait_for(lambda: str(tool.child()) in site.locks().get("x", ""), "the grant")
    time.sleep(1.0)  # the end of the wait, which nobody can see from outside
    os.kill(tool.pid, signal.SIGCONT)
    assert tool.end() in (0, 75)
    assert site.locks() == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_grant_that_crosses_a_signal(site: Site, number: signal.Signals) -> None:
    holder = site.hold()
    tool = waiter(site)
    os.kill(tool.pid, signal.SIGSTOP)
    holder.process.terminate()
    wait_for(lambda: str(tool.child()) in site.locks().get("x", ""), "the grant")
    tool.process.send_signal(number)
    os.kill(tool.pid, signal.SIGCONT)
    assert tool.end() == -number
    wait_for(lambda: not site.locks(), "the lock to be free")
    assert not (site.folder / "ran").exists()


def test_stopped_for_longer_than_the_server_waits_for_a_confirmation(site: Site) -> None:
    """The lock was taken back and given to another meanwhile, so it has to wait again."""
    holder = site.hold()
    tool = waiter(site, "test", "-e", str(site.folder / "other-has-ended"))
    os.kill(tool.child(), signal.SIGSTOP)
    os.kill(tool.pid, signal.SIGSTOP)
    wait_for(lambda: state(tool.pid) == "T", "lockersh to be stopped")
    other = site.start_lockersh(f"sleep 1; touch '{site.folder}/other-has-ended'")
    other.says("waiting for lock x")
    holder.process.terminate()
    other.says("obtained")
    os.kill(tool.child(), signal.SIGCONT)
    os.kill(tool.pid, signal.SIGCONT)
    assert other.end() == 0
    assert tool.end() == 0, "it ran when the other one had ended"
    assert tool.err.count("waiting for lock x") == 2


def test_a_crowd_that_is_stopped_holds_up_the_one_that_is_not_for_15_seconds_and_has_its_order_afterwards(
    site: Site,
) -> None:
    holder = site.hold()
    order, may_end = site.folder / "order", site.folder / "may-end"
    crowd = []
    for number in range(8):
        crowd.append(waiter(site, f"echo {number} >>'{order}'"))
        for pid in (crowd[-1].child(), crowd[-1].pid):
            os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: state(crowd[-1].pid) == "T", "lockersh to be stopped")
    other = waiter(site, f"until test -e '{may_end}'; do sleep 0.05; done; echo other >>'{order}'")
    holder.process.terminate()
    other.says("obtained")
    for tool in crowd:
        for pid in (tool.child(), tool.pid):
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: all(tool.err.count("waiting for lock x") == 2 for tool in crowd), "all to be in the queue again")
    may_end.touch()
    assert [tool.end() for tool in (other, *crowd)] == [0] * 9
    assert order.read_text().split() == ["other", *map(str, range(8))]


def test_second_signal_to_one_that_gives_back(site: Site) -> None:
    """A server that has stopped does not answer; the first signal lets it be told, the second does not wait."""
    site.hold()
    tool = waiter(site)
    assert site.server is not None
    os.kill(site.server.pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        tool.process.terminate()
        wait_for(lambda: state(tool.pid) == "S" or None, "lockersh to wait")
        while is_alive(tool.pid) and time.monotonic() < begin + 4:
            tool.process.send_signal(signal.SIGINT)
            time.sleep(0.05)
            tool.process.poll()
        assert tool.end() in (-signal.SIGINT, -signal.SIGTERM)
        assert time.monotonic() < begin + 4, "which is less than the time for giving back"
    finally:
        os.kill(site.server.pid, signal.SIGCONT)


def test_thousands_of_signals_while_it_waits(site: Site) -> None:
    holder = site.hold()
    tool = waiter(site, "exit 4")
    for _ in range(3000):
        tool.process.send_signal(signal.SIGWINCH)
        tool.process.send_signal(signal.SIGCHLD)
    holder.process.terminate()
    assert tool.end() == 4


class FakeServer:
    """A server that does with a LOCK what a test wants; it keeps what it was told, a list for each connection."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.heard: list[bytes] = []
        self.connections: list[socket.socket] = []
        self.on_lock = b"print_waiting somebody\n"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(sock)
            self.heard.append(b"")
            threading.Thread(target=self._serve, args=(sock, len(self.heard) - 1), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            while data := sock.recv(65_536):
                self.heard[number] += data
                if b"LOCK" in data.split(b"\n"):
                    sock.sendall(self.on_lock)
                if b"UNLOCK" in data.split(b"\n"):
                    sock.sendall(b"owner \nlocked 0\n\n\n")
        except OSError:
            pass

    def close(self) -> None:
        self.listener.close()
        for sock in self.connections:
            sock.close()


@pytest.fixture
def fake(bare_site: Site) -> Iterator[FakeServer]:
    server = FakeServer(bare_site.environment["IPCLOCKER_PORT"])
    yield server
    server.close()


def variable(heard: bytes, name: bytes) -> bytes:
    [value] = [line.split(b" ", 1)[1] for line in heard.split(b"\n") if line.startswith(name + b" ")]
    return value


@pytest.mark.parametrize("how", ["time", "signal"])
def test_giving_back_names_the_same_user_and_session(bare_site: Site, fake: FakeServer, how: str) -> None:
    """Over a connection of its own, since the first one is queued behind the LOCK that waits."""
    tool = waiter(bare_site, "--timeout", "0.5" if how == "time" else "1000", "true")
    if how == "signal":
        tool.process.terminate()
    assert tool.end() == (75 if how == "time" else -signal.SIGTERM)
    asked, gave_back = fake.heard
    assert b"\nUNLOCK\n" in gave_back
    for name in (b"user", b"session", b"locks"):
        assert variable(asked, name) == variable(gave_back, name)


def test_a_grant_that_does_not_stand_is_asked_for_again(bare_site: Site, fake: FakeServer) -> None:
    """The server says, after the confirmation, that it has taken the grant back."""
    grant = b"print_obtained\nowner me\nlocked 1\nlockname x\ntoken 5\n\n\n"
    fake.on_lock = b"print_waiting somebody\n" + grant
    tool = bare_site.start_lockersh("touch", bare_site.folder / "ran")
    wait_for(lambda: fake.heard and b"CHECK x 5" in fake.heard[0], "the confirmation")
    assert fake.heard[0].endswith(b"GOT x 5\nCHECK x 5\n")
    fake.on_lock = b"print_waiting another\n"
    fake.connections[0].sendall(b"current 0\n\n\n")
    tool.says("another holds it")
    assert not (bare_site.folder / "ran").exists()


@pytest.mark.parametrize(
    "answer",
    [b"\0" * 100_000, b"nonsense\n" * 10, b"owner\nlocked\n\n\n", b"locked 1\n\n\n", b"token x\n\n\n"],
    ids=["no line", "unknown words", "no owner", "no name", "no number"],
)
def test_a_server_that_talks_nonsense(bare_site: Site, fake: FakeServer, answer: bytes) -> None:
    """Never a traceback, never the command."""
    fake.on_lock = answer
    tool = bare_site.start_lockersh("--timeout", "1", "touch", bare_site.folder / "ran")
    wait_for(lambda: fake.heard, "the question")
    fake.on_lock = b"owner somebody\nlocked 0\n\n\n"
    tool.process.terminate()
    tool.end()
    assert "Traceback" not in tool.err and "fault" not in tool.err
    assert not (bare_site.folder / "ran").exists()


def test_a_server_that_refuses(bare_site: Site, fake: FakeServer) -> None:
    fake.on_lock = b"error no_luck\n\n\n"
    tool = bare_site.start_lockersh("true")
    assert tool.end() == 70
    assert "refused the request: no_luck" in tool.err

"""A monitor of a process of another host: what counts as its end, and what does not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ipclocker.net.address import own_host_name
from ipclocker.net.loop import READ, Loop
from ipclocker.pid.protocol import MAX_DATAGRAM, PidAnswer, PidQuestion, read_question, write_answer
from ipclocker.run import remote_monitor as vigil
from ipclocker.run.remote_monitor import MonitorListener, RemoteProcessMonitor, WatchTarget, is_this_host

from ..support.waiting import turn_until

HERE = "127.0.0.1"
INTERVAL = 0.02


class Server:
    """A pid server in the test's own loop. What `exists` is, it answers; "silent" is nothing."""

    def __init__(self, loop: Loop) -> None:
        self.exists: bool | str | None = True
        self.questions: list[tuple[PidQuestion, Any]] = []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((HERE, 0))
        self.port = self.sock.getsockname()[1]
        loop.watch(self.sock, READ, lambda events: self._receive())

    def _receive(self) -> None:
        datagram, sender = self.sock.recvfrom(MAX_DATAGRAM)
        question = read_question(datagram)
        assert question is not None
        self.questions.append((question, sender))
        if not isinstance(self.exists, str):
            self.answer(len(self.questions) - 1, self.exists)

    def answer(self, number: int, exists: bool | None, **changes: Any) -> None:
        """Answer the question of that number, with changes to what would be right."""
        question, sender = self.questions[number]
        answer = PidAnswer(question.pid, exists, question.host)._replace(**changes)
        self.sock.sendto(write_answer(answer), sender)


class Scene(MonitorListener):
    """A loop, a server in it, and what is heard of the monitor."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.server = Server(self.loop)
        self.told: list[str] = []
        self.gone = 0
        self.vigil: RemoteProcessMonitor | None = None

    def report(self, text: str) -> None:
        self.told.append(text)

    def watch(self, host: str = HERE, **more: Any) -> None:
        target = WatchTarget(4711, host, self.server.port, INTERVAL)._replace(**more)
        self.vigil = RemoteProcessMonitor(self.loop, target, self._end, self)

    def _end(self) -> None:
        self.gone += 1

    def until(self, what: Any) -> None:
        turn_until(self.loop, what, f"told: {self.told}")

    def ask_more(self, count: int = 5) -> None:
        """Until so many questions more were asked."""
        wanted = len(self.server.questions) + count
        self.until(lambda: len(self.server.questions) >= wanted)

    def pass_time(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > until)

    def close(self) -> None:
        if self.vigil is not None and not self.gone:
            self.vigil.close()
        self.server.sock.close()
        self.loop.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


def test_it_is_there_until_it_is_gone(scene: Scene) -> None:
    scene.watch()
    scene.ask_more()
    assert not scene.gone
    scene.server.exists = False
    scene.until(lambda: scene.gone)
    asked = len(scene.server.questions)
    scene.pass_time(5 * INTERVAL)
    assert (scene.gone, len(scene.server.questions), scene.told) == (1, asked, [])


def test_each_question_is_its_own(scene: Scene) -> None:
    scene.watch()
    scene.ask_more(10)
    secrets = {question.host for question, _ in scene.server.questions}
    assert len(secrets) == len(scene.server.questions)
    assert all(len(secret) >= 16 for secret in secrets)


@pytest.mark.parametrize(
    "changes",
    [{"host": b"0123456789abcdef"}, {"host": own_host_name().encode()}, {"pid": 4712}],
    ids=["of a guess", "without a question", "about another process"],
)
def test_a_forged_answer(scene: Scene, changes: dict[str, Any]) -> None:
    scene.server.exists = "silent"
    scene.watch()
    scene.ask_more()
    for number in range(len(scene.server.questions)):
        scene.server.answer(number, False, **changes)
    scene.ask_more()
    assert not scene.gone


def test_an_answer_counts_once(scene: Scene) -> None:
    scene.watch()
    scene.ask_more()
    scene.server.answer(0, False)  # it was answered by yes
    scene.ask_more()
    assert not scene.gone


def test_a_late_answer_counts(scene: Scene) -> None:
    scene.server.exists = "silent"
    scene.watch()
    scene.ask_more(10)
    scene.server.answer(0, False)
    scene.until(lambda: scene.gone)


def test_unknown_is_told_once(scene: Scene) -> None:
    scene.server.exists = None
    scene.watch()
    scene.ask_more(10)
    assert not scene.gone
    assert scene.told == [f"{HERE} does not know whether process 4711 is there"]


def test_silence_is_told_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vigil, "_PATIENCE", 5 * INTERVAL)
    scene.watch()
    scene.ask_more()
    assert not scene.told
    scene.server.exists = "silent"
    for _ in range(2):
        scene.ask_more(10)
        assert not scene.gone
        assert scene.told == [
            f"no pid server answers at {HERE}, port {scene.server.port}: whether process 4711 is there can't be seen"
        ]
    scene.server.exists = False
    scene.until(lambda: scene.gone)


def test_down_after(scene: Scene) -> None:
    scene.watch(down_after=10 * INTERVAL)
    scene.ask_more(20)
    assert not scene.gone
    scene.server.exists = "silent"
    silent_at = time.monotonic()
    scene.until(lambda: scene.gone)
    assert time.monotonic() - silent_at > 8 * INTERVAL
    assert scene.told == [
        f"no pid server answers at {HERE}, port {scene.server.port}, for 0.2 s: process 4711 counts as gone"
    ]


def test_a_lost_datagram_is_not_the_end(scene: Scene) -> None:
    scene.watch(interval=1000.0, down_after=1.0)
    scene.until(lambda: scene.server.questions)
    scene.server.exists = "silent"
    scene.ask_more(2)
    scene.server.exists = True
    scene.ask_more(5)
    assert not scene.gone


def test_one_who_does_not_know_is_not_down(scene: Scene) -> None:
    scene.server.exists = None
    scene.watch(down_after=5 * INTERVAL)
    scene.ask_more(20)
    assert not scene.gone


def test_a_time_without_questions_is_no_silence(scene: Scene) -> None:
    scene.watch(down_after=5 * INTERVAL)
    scene.ask_more()
    for _ in range(3):
        time.sleep(20 * INTERVAL)  # as if this process had been stopped
        scene.ask_more()
    assert not scene.gone


def test_a_host_that_is_not_known(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vigil, "_PATIENCE", 1.0)
    monkeypatch.setattr(socket, "getaddrinfo", _no_such_host)
    scene.watch("nosuch.invalid", down_after=1.2)
    scene.until(lambda: scene.gone)
    assert scene.told == [
        "the host 'nosuch.invalid' is not known here: whether process 4711 is there can't be seen",
        "the host 'nosuch.invalid' is not known here, for 1.2 s: process 4711 counts as gone",
    ]


def _no_such_host(*_: Any, **__: Any) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class Names:
    """In place of a Resolver: what a name leads to."""

    found: tuple[list[str], ...] = ()

    def __init__(self, loop: Loop) -> None:
        self.asked = 0

    def addresses(self, name: str) -> list[str]:
        self.asked += 1
        return self.found[min(self.asked, len(self.found)) - 1]

    def close(self) -> None:
        pass


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> type[Names]:
    class TheseNames(Names):
        pass

    monkeypatch.setattr(vigil, "Resolver", TheseNames)
    monkeypatch.setattr(vigil, "own_host_name", lambda: "own.example.com")
    return TheseNames


def test_a_name_is_looked_up_beside(scene: Scene, names: type[Names]) -> None:
    names.found = ([], [], [], [HERE])
    scene.server.exists = False
    scene.watch("own")
    started = time.monotonic()
    scene.until(lambda: scene.gone)
    assert time.monotonic() - started < 1.0


def test_all_addresses_are_asked_until_one_answers(scene: Scene, names: type[Names]) -> None:
    names.found = (["127.0.0.2", "::1", HERE],)
    scene.watch("own")
    scene.ask_more()
    scene.server.exists = False
    scene.until(lambda: scene.gone)


def test_an_address_that_was_found_is_not_forgotten(scene: Scene, names: type[Names]) -> None:
    names.found = ([HERE], [])
    scene.server.exists = "silent"
    scene.watch("own")
    scene.ask_more(10)
    scene.server.exists = False
    scene.until(lambda: scene.gone)


def test_another_host_under_the_loopback_is_not_asked(scene: Scene, names: type[Names]) -> None:
    names.found = ([HERE],)
    scene.server.exists = False
    scene.watch("other")
    scene.pass_time(10 * INTERVAL)
    assert not scene.gone
    assert not scene.server.questions


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.1.2.3", "::1", own_host_name()])
def test_this_host(name: str) -> None:
    assert is_this_host(name)


@pytest.mark.parametrize(
    "name", ["", "192.0.2.1", "127.example.com", "::ffff:127.0.0.1", f"{own_host_name()}.example.com"]
)
def test_another_host(name: str) -> None:
    assert not is_this_host(name)

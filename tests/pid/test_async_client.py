"""Questions from an event loop, and which answers to them are believed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclocker.net.loop import Loop
from ipclocker.pid.async_client import AsyncPidClient
from ipclocker.pid.pending import PendingQueries
from ipclocker.pid.protocol import PidAnswer
from ipclocker.process.identity import ProcessIdentity, identify

from ..support.fake_servers import false_server
from ..support.processes import NO_PID, alive, in_no_namespace
from ..support.servers import pid_server, port_of


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def ask(
    loop: Loop, port: int, process: ProcessIdentity, address: str = "127.0.0.1", within: float = 10.0
) -> bool | None | str:
    """Ask and wait: whether it exists, or that there was no answer."""
    asker = AsyncPidClient(loop, port)
    answers: list[PidAnswer | None] = []

    def answered(answer: PidAnswer | None) -> None:
        answers.append(answer)
        loop.stop()

    loop.turn(0)
    asker.ask(address, process, answered, within)
    loop.run()
    asker.close()
    answer = answers.pop()
    assert not answers
    return "silent" if answer is None else answer.exists


def test_answers(loop: Loop) -> None:
    with pid_server() as server, alive() as process:
        me = identify(process.pid)
        assert me.start is not None and me.pidns is not None
        assert ask(loop, port_of(server), me) is True
        assert ask(loop, port_of(server), ProcessIdentity(process.pid)) is True
        assert ask(loop, port_of(server), ProcessIdentity(NO_PID)) is False
        assert ask(loop, port_of(server), me._replace(start=me.start + 1)) is False
        assert ask(loop, port_of(server), me._replace(boot="another")) is None
        assert ask(loop, port_of(server), me._replace(pidns=me.pidns + 1)) is in_no_namespace()


def test_over_ipv6(loop: Loop) -> None:
    with pid_server(host="::1") as server:
        assert ask(loop, port_of(server), ProcessIdentity(1), "::1") is True


def test_silence(loop: Loop) -> None:
    with false_server(lambda datagram: []) as port:
        assert ask(loop, port, ProcessIdentity(1), within=0.05) == "silent"


@pytest.mark.parametrize("address", ["localhost", "", "host.invalid"])
def test_a_name_is_refused(loop: Loop, address: str) -> None:
    asker = AsyncPidClient(loop, 1)
    with pytest.raises(ValueError, match="no address"):
        asker.ask(address, ProcessIdentity(1), lambda answer: None)
    asker.close()


def forged(datagram: bytes) -> list[bytes]:
    """Answers to another question, about another process, or to none; then garbage."""
    pid, secret = datagram.split()[1:3]
    return [
        b"EXIS %b 0 somehost" % pid,
        b"EXIS %b 0 %b" % (pid, secret[::-1] + b"0"),
        b"EXIS %d 0 %b" % (int(pid) + 1, secret),
        b"EXIS %b 2 %b" % (pid, secret),
        b"EXIS %b 0" % pid,
        b"\0",
        b"",
    ]


def test_forged_answers_are_not_believed(loop: Loop) -> None:
    with false_server(forged) as port:
        assert ask(loop, port, ProcessIdentity(1), within=0.05) == "silent"


def test_only_the_first_answer_counts(loop: Loop) -> None:
    def both(datagram: bytes) -> list[bytes]:
        pid, secret = datagram.split()[1:3]
        return [*forged(datagram), b"EXIS %b 1 %b" % (pid, secret), b"EXIS %b 0 %b" % (pid, secret)]

    with false_server(both) as port:
        assert ask(loop, port, ProcessIdentity(1)) is True


def test_an_answer_may_come_from_another_address_of_the_host(loop: Loop) -> None:
    def answer(datagram: bytes) -> list[bytes]:
        pid, secret = datagram.split()[1:3]
        return [b"EXIS %b 0 %b" % (pid, secret)]

    with false_server(answer, elsewhere=True) as port:
        assert ask(loop, port, ProcessIdentity(1)) is False


def test_late_answers_are_not_believed(loop: Loop) -> None:
    asked: list[bytes] = []

    def late(datagram: bytes) -> list[bytes]:
        """Answer the question before."""
        asked.append(datagram)
        return [b"EXIS %b 0 %b" % tuple(one.split()[1:3]) for one in asked[:-1]]

    with false_server(late) as port:
        asker = AsyncPidClient(loop, port)
        answers: list[PidAnswer | None] = []
        for count in range(1, 4):
            loop.turn(0)
            asker.ask("127.0.0.1", ProcessIdentity(count), answers.append, 0.02)
            deadline = time.monotonic() + 10
            while len(answers) < count and time.monotonic() < deadline:
                loop.turn(0.1)
        asker.close()
    assert answers == [None, None, None]


def test_nobody_is_called_after_the_close(loop: Loop) -> None:
    called: list[PidAnswer | None] = []
    asker = AsyncPidClient(loop, 1)
    loop.turn(0)
    asker.ask("127.0.0.1", ProcessIdentity(1), called.append, 0.0)
    asker.close()
    loop.turn(0)
    assert called == []


@given(st.binary(max_size=60))
def test_no_datagram_of_chance_is_believed(datagram: bytes) -> None:
    questions: PendingQueries[str] = PendingQueries()
    questions.ask(ProcessIdentity(1), "x")
    assert questions.receive(datagram) is None
    assert len(questions) == 1


def test_the_eldest_questions_are_given_up() -> None:
    questions: PendingQueries[int] = PendingQueries(most=3)
    secrets = [questions.ask(ProcessIdentity(1), number)[0] for number in range(5)]
    believed = [questions.receive(b"EXIS 1 0 %b" % secret) is not None for secret in secrets]
    assert believed == [False, False, True, True, True]

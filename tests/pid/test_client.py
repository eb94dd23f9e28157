"""PidStat, against real servers and false ones."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from ipclocker import PidStat, ServerUnavailable, UsageError
from ipclocker.net.address import own_host_name
from ipclocker.pid import client
from ipclocker.pid.survey import survey
from ipclocker.process.identity import identify

from ..support.fake_servers import false_server
from ..support.processes import NO_PID, alive, gone, in_no_namespace, zombie
from ..support.servers import pid_server, port_of
from ..support.waiting import in_thread, wait_for


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are repeated sooner."""
    monkeypatch.setattr(client, "PAUSE", 0.05)


def test_a_request_and_its_answer() -> None:
    with pid_server() as server, PidStat(port=port_of(server)) as stat:
        stat.pid_request(host="127.0.0.1", pid=1)
        assert stat.recv_stat() == (1, True, "127.0.0.1")
        assert stat.pid_request_recv(host="127.0.0.1", pid=NO_PID) == (NO_PID, False, "127.0.0.1")
        assert stat.recv_stat(timeout=0) is None


def test_many_requests_at_once() -> None:
    with pid_server() as server, PidStat("127.0.0.1", port_of(server)) as stat:
        pids = [1, NO_PID, os.getpid(), NO_PID + 1]
        for pid in pids:
            stat.pid_request(pid=pid)
        answers = {stat.recv_stat() for _ in pids}
    assert answers == {(pid, pid < NO_PID, "127.0.0.1") for pid in pids}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_over_each_address(host: str) -> None:
    with pid_server(host=None) as server, PidStat(host, port_of(server)) as stat:
        assert stat.pid_request_recv(pid=1) == (1, True, host)


def test_by_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "pidstatd")
    with pid_server(path), PidStat("anywhere", path) as stat:
        assert stat.pid_request_recv(pid=1) == (1, True, "anywhere")
        assert stat.ping_status()["ok"]


def test_in_a_select_loop() -> None:
    with pid_server() as server, PidStat("127.0.0.1", port_of(server)) as stat:
        stat.pid_request(pid=1)
        assert select.select([stat.fh()], [], [], 10)[0]
        assert stat.recv_stat() == (1, True, "127.0.0.1")
        assert not select.select([stat], [], [], 0)[0]
        for pid in (os.getpid(), NO_PID):
            stat.pid_request(host="localhost", pid=pid)
        for exists in (True, False):
            assert select.select([stat], [], [], 10)[0]
            answer = stat.recv_stat()
            assert answer is not None and answer[1] is exists
        assert not select.select([stat], [], [], 0)[0]


def test_answers_that_are_not_wanted() -> None:
    with pid_server() as server, PidStat("127.0.0.1", port_of(server)) as stat:
        me = identify(os.getpid())
        assert me.pidns is not None
        stat.pid_request(pid=1, return_exist=False)
        stat.pid_request(pid=NO_PID, return_doesnt=False)
        stat.pid_request(pid=me._replace(boot="another"), return_unknown=False)
        stat.pid_request(host="localhost", pid=1, return_exist=False)
        stat.pid_request(pid=me._replace(boot="another"))
        assert stat.recv_stat() == (me.pid, None, "127.0.0.1")
        assert stat.recv_stat(0) is None


def test_a_loop_that_only_receives_waits_for_each_answer() -> None:
    """As the manual of IPC::PidStat has it: `while True: recv_stat()`, and it is no busy loop, whatever is open."""
    received: list[object] = []

    with pid_server() as server, PidStat("127.0.0.1", port_of(server)) as stat:
        stat.fh()  # made now, so that the thread and the test have the same socket

        def loop() -> None:
            while len(received) < 3:
                received.append(stat.recv_stat())

        with in_thread(loop):
            for pid in (1, NO_PID, os.getpid()):
                stat.pid_request(pid=pid)
                wait_for(lambda pid=pid: any(answer and answer[0] == pid for answer in received))  # type: ignore[misc,index]
    assert received == [(1, True, "127.0.0.1"), (NO_PID, False, "127.0.0.1"), (os.getpid(), True, "127.0.0.1")]


def test_what_answers_no_question_is_none() -> None:
    """A loop that polls is to go on then, and a question that goes to two addresses has two answers."""

    def twice(datagram: bytes) -> list[bytes]:
        pid, secret = datagram.split()[1:3]
        return [b"EXIS %b 1 %b" % (pid, secret)] * 2

    with false_server(twice) as port, PidStat("127.0.0.1", port) as stat:
        stat.pid_request(pid=1)
        assert [stat.recv_stat(), stat.recv_stat()] == [(1, True, "127.0.0.1"), None]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_request_with_its_answer_takes_the_kinds_that_are_wanted(host: str) -> None:
    with pid_server(host=None) as server, PidStat(port=port_of(server)) as stat:
        assert stat.pid_request_recv(host, 1, return_exist=False) is None
        assert stat.pid_request_recv(host, NO_PID, return_doesnt=False) is None
        assert stat.pid_request_recv(host, NO_PID, return_exist=False) == (NO_PID, False, host)
        assert stat.pid_request_recv(host, 1, return_doesnt=False, return_unknown=False) == (1, True, host)
        assert stat.recv_stat(0) is None


def test_identity_of_a_process() -> None:
    with pid_server() as server, PidStat("127.0.0.1", port_of(server)) as stat, alive() as process:
        me = identify(process.pid)
        assert me.start is not None and me.pidns is not None
        for host in ("127.0.0.1", "localhost"):
            for process_asked, exists in [
                (me, True),
                (me._replace(start=me.start + 1), False),
                (me._replace(boot="another"), None),
                (me._replace(pidns=me.pidns + 1), in_no_namespace()),
            ]:
                if host == "localhost" and (exists is None or process_asked.pidns != me.pidns):
                    continue  # then the server is asked
                assert stat.pid_request_recv(host=host, pid=process_asked) == (me.pid, exists, host)


@pytest.mark.parametrize("host", ["localhost", own_host_name()])
def test_this_host_needs_no_server(host: str) -> None:
    with PidStat(port=1) as stat:
        assert stat.pid_request_recv(host=host) == (os.getpid(), True, host)
        assert stat.pid_request_recv(host=host, pid=NO_PID) == (NO_PID, False, host)
        with zombie() as pid:
            assert stat.pid_request_recv(host=host, pid=pid) == (pid, False, host)


def test_what_is_unknown_here_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pid_server(host=None) as server, PidStat("localhost", port_of(server)) as stat:
        monkeypatch.setattr(client, "exists", lambda pid, start=None: None)
        assert stat.pid_request_recv(pid=1) == (1, True, "localhost")


@pytest.mark.usefixtures("impatient")
def test_a_question_is_repeated() -> None:
    heard: list[bytes] = []

    def slow(datagram: bytes) -> list[bytes]:
        heard.append(datagram)
        pid, secret = datagram.split()[1:3]
        return [b"EXIS %b 0 %b" % (pid, secret)] if len(heard) == 3 else []

    with false_server(slow) as port, PidStat("127.0.0.1", port) as stat:
        assert stat.pid_request_recv(pid=1) == (1, False, "127.0.0.1")
    assert len(heard) == 3


@pytest.mark.usefixtures("impatient")
def test_silence() -> None:
    heard: list[bytes] = []

    def silent(datagram: bytes) -> list[bytes]:
        heard.append(datagram)
        return [b"EXIS 1 0 127.0.0.1", b"EXIS 1 0 localhost", b"\0"]

    with false_server(silent) as port, PidStat("127.0.0.1", port, tries=3) as stat:
        assert stat.pid_request_recv(pid=1) is None
        assert stat.ping_status() == {"ok": False, "status": f"No response from pidstatd on 127.0.0.1:{port}"}
    assert len(heard) == 6


@pytest.mark.usefixtures("impatient")
def test_an_answer_to_an_earlier_request_is_kept() -> None:
    with pid_server() as server, PidStat("127.0.0.1", port_of(server)) as stat:
        stat.pid_request(pid=NO_PID)
        assert stat.pid_request_recv(pid=1) == (1, True, "127.0.0.1")
        assert stat.recv_stat() == (NO_PID, False, "127.0.0.1")


def test_a_classic_server() -> None:
    """It knows four words, hands the host word back, and may not heed the flags."""

    def classic(datagram: bytes) -> list[bytes]:
        verb, pid, host = datagram.split()[:3]
        return [b"%b %b %d %b" % (b"EXIS", pid, pid == b"1", host)] if verb == b"PIDR" else []

    with false_server(classic, elsewhere=True) as port, PidStat("127.0.0.1", port) as stat:
        assert stat.pid_request_recv(pid=identify(1)) == (1, True, "127.0.0.1")
        stat.pid_request(pid=2, return_doesnt=False)
        assert stat.recv_stat() == (2, False, "127.0.0.1")


def test_ping_status() -> None:
    with pid_server() as server, PidStat("127.0.0.1", port_of(server)) as stat:
        good = stat.ping_status()
        assert good["ok"] and "second response on 127.0.0.1" in good["status"]
        assert stat.ping_status(pid=NO_PID)["ok"] is False
        assert stat.ping_status(host="host.invalid")["ok"] is False


def test_local_pids() -> None:
    assert PidStat.local_pid_exists(os.getpid()) is True
    assert PidStat.local_pid_doesnt_exist(os.getpid()) is False
    pid = gone()
    assert PidStat.local_pid_exists(pid) is False
    assert PidStat.local_pid_doesnt_exist(pid) is True
    assert PidStat.local_pid_exists(str(os.getpid())) is True
    assert PidStat.local_pid_doesnt_exist(str(pid)) is True
    assert PidStat().pid_request_recv(pid=str(os.getpid())) == (os.getpid(), True, "localhost")
    assert PidStat.local_pid_exists(0) is None
    assert PidStat.local_pid_doesnt_exist(-5) is None


def test_what_can_not_be_asked() -> None:
    with PidStat(port=1) as stat:
        for pid in (0, -1, "0", "-1", "x", "", "1 2", "9" * 5000):
            with pytest.raises(UsageError, match="not a positive number"):
                stat.pid_request(pid=pid)
        with pytest.raises(ServerUnavailable, match="not known"):
            stat.pid_request(host="host.invalid", pid=1)
    with pytest.raises(UsageError):
        PidStat(port="no such service")


def test_descriptors_are_given_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pid_server() as server, PidStat("127.0.0.1", port_of(server)) as stat:
        stat.pid_request_recv(pid=1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_survey_of_many_takes_as_long_as_one_silent_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE", 0.2)
    monkeypatch.setattr("ipclocker.pid.survey.PAUSE", 0.2)
    with pid_server("0", "127.0.0.1") as server, PidStat(port=port_of(server), tries=3) as stat:
        live = [("127.0.0.1", pid) for pid in [1, os.getpid(), *range(NO_PID, NO_PID + 800)]]
        dead = [(f"127.0.1.{number}", 1) for number in range(1, 60)]
        begin = time.monotonic()
        states = survey(stat, [*dead, *live, ("host.invalid", 1)])
        taken = time.monotonic() - begin
    assert [states[place] for place in live] == ["up", "up", *["down"] * 800]
    assert {states[place] for place in [*dead, ("host.invalid", 1)]} == {"host_down"}
    assert taken < 0.2 * 3 * len(dead) / 2  # far less than one after the other

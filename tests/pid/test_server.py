"""The pid server on real sockets: what it answers, what it does not, and that nothing ends it."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ipclocker.net import udp_batch as batches
from ipclocker.net.address import own_host_name
from ipclocker.pid import pidfd_cache as processes_module
from ipclocker.pid.pidfd_cache import PidfdCache
from ipclocker.pid.protocol import MAX_DATAGRAM, PidQuestion, write_question
from ipclocker.pid.server import AnswerServer, PidServer
from ipclocker.process.identity import identify

from ..support import PROJECT
from ..support.processes import NO_PID, alive, gone, half_zombie, zombie
from ..support.servers import pid_client, pid_server, port_of
from ..support.waiting import in_thread, wait_for

NAME = own_host_name().encode()


def heard(sock: socket.socket, *datagrams: bytes) -> list[bytes]:
    """What is answered to these, in their order, as far as it is."""
    for each in datagrams:
        sock.send(each)
    sock.send(b"PIDR 1 the-end 7")
    answers: list[bytes] = []
    while not answers or answers[-1] != b"EXIS 1 1 the-end":
        answers.append(sock.recv(2048))
    return answers[:-1]


@pytest.fixture(params=["many at once", "one by one", "without pidfds"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's way with datagrams and processes."""
    way: str = request.param
    if way == "one by one":

        def missing(*_: object) -> None:
            raise AttributeError

        monkeypatch.setattr(batches, "_ManyAtOnce", missing)
    if way == "without pidfds":
        monkeypatch.delattr(os, "pidfd_open")
    return way


def test_classic_answers(way: str) -> None:
    with pid_server() as server, pid_client(server.addresses[0]) as sock:
        nobody = b"%d" % NO_PID
        assert heard(sock, b"PIDR 1 some.host 7\n") == [b"EXIS 1 1 some.host"]
        assert heard(sock, b"PIDR 1 some.host 7\n") == [b"EXIS 1 1 some.host"]
        assert heard(sock, b"PIDR %b some.host 7\n" % nobody) == [b"EXIS %b 0 some.host" % nobody]
        assert heard(sock, b"PIDR 1 h 2", b"PIDR %b h 1" % nobody, b"PIDR 1 h 0", b"PIDR 1 h 4") == []
        assert heard(sock, b"PIDR 1 h 1", b"PIDR %b h 2" % nobody) == [b"EXIS 1 1 h", b"EXIS %b 0 h" % nobody]
        assert heard(sock, b"PIDR 1", b"PIDR 1 h") == [b"EXIS 1 1 " + NAME, b"EXIS 1 1 h"]
        assert heard(sock, b"PIDR 1 \xff\0 7 and more\nPIDR 2 h 7") == [b"EXIS 1 1 \xff\0"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"PIDR",
        b"PIDR abc h 7",
        b"PIDR 0 h 7",
        b"PIDR -1 h 7",
        b"PIDR +1 h 7",
        b"NOSUCH 1 h 7",
        b"PIDR 1 h x",
        b"\0",
    ]
    + [b"PIDR 1 ".ljust(size, b"h") for size in (MAX_DATAGRAM + 1, 2000, 60_000)]
    + [b"PIDR %b h 7" % (b"1" * 400), b"PIDR \xc2\xb2 h 7", b"PIDR 1 h 7 start=x", b"EXIS 1 1 h", b"UNKN 1 na h"],
)
def test_no_answer_to_garbage(way: str, garbage: bytes) -> None:
    with pid_server() as server, pid_client(server.addresses[0]) as sock:
        assert heard(sock, garbage) == []
        assert heard(sock, b"PIDR 1 a 7", garbage, b"PIDR 1 b 7") == [b"EXIS 1 1 a", b"EXIS 1 1 b"]


def test_numbers_in_another_form(way: str) -> None:
    with pid_server() as server, pid_client(server.addresses[0]) as sock:
        large = [b"PIDR %d h 7" % number for number in (2**31, 2**32 + 1, 10**20 - 1)]
        assert heard(sock, *large) == [b"EXIS 2147483648 0 h", b"EXIS 4294967297 0 h", b"EXIS 99999999999999999999 0 h"]
        assert heard(sock, b"PIDR 0001 h 7") == [b"EXIS 1 1 h"]


def test_the_end_of_a_process_is_seen_at_once(way: str) -> None:
    with pid_server() as server, pid_client(server.addresses[0]) as sock:
        for _ in range(20):
            with alive() as process:
                question = b"PIDR %d h 7" % process.pid
                for _ in range(3):
                    assert heard(sock, question) == [b"EXIS %d 1 h" % process.pid]
                process.kill()
                process.wait()
                assert heard(sock, question) == [b"EXIS %d 0 h" % process.pid]


def test_zombies(way: str) -> None:
    with pid_server() as server, pid_client(server.addresses[0]) as sock:
        with zombie() as pid:
            assert heard(sock, b"PIDR %d h 7" % pid) == [b"EXIS %d 0 h" % pid]
        with half_zombie() as pid:
            assert heard(sock, b"PIDR %d h 7" % pid) == [b"EXIS %d 1 h" % pid]
        assert heard(sock, b"PIDR %d h 7" % (pid := gone())) == [b"EXIS %d 0 h" % pid]


def test_identity(way: str) -> None:
    with pid_server() as server, pid_client(server.addresses[0]) as sock, alive() as process:
        me = identify(process.pid)
        assert me.start is not None and me.pidns is not None
        pid, start, boot, pidns = me.pid, me.start, me.boot, me.pidns

        def ask(start: int | None = start, boot: str = boot, pidns: int | None = pidns) -> list[bytes]:
            return heard(sock, write_question(PidQuestion(pid, b"h", 7, start, boot, pidns)))

        there, away, unknown = [b"EXIS %d 1 h" % pid], [b"EXIS %d 0 h" % pid], [b"UNKN %d na h" % pid]
        for _ in range(2):
            assert ask() == there
            assert ask(start + 1) == away
            assert ask(boot="another") == unknown
            assert ask(boot="another", pidns=pidns + 1) == unknown
            assert ask(pidns=pidns + 1) in (unknown, away)  # test_namespaces.py has which
            assert ask(None, "", None) == there
        process.kill()
        process.wait()
        assert ask() == away


def test_a_number_on_a_host_of_another_name_is_unknown() -> None:
    own = own_host_name()
    with pid_server() as server, pid_client(server.addresses[0]) as sock:
        for name in ("", own, f"{own}.example.org", own.upper()):
            question = write_question(PidQuestion(NO_PID, b"h", 7, name=name))
            assert heard(sock, question) == [b"EXIS %d 0 h" % NO_PID], name
        assert heard(sock, write_question(PidQuestion(NO_PID, b"h", 7, name="x" + own))) == [b"UNKN %d na h" % NO_PID]


def test_nobody_is_told_of_what_is_unknown_unasked() -> None:
    with pid_server() as server, pid_client(server.addresses[0]) as sock:
        assert heard(sock, b"PIDR 1 h 3 pidns=1") == []
        assert heard(sock, b"PIDR 1 h 4 pidns=1") == [b"UNKN 1 na h"]


def test_no_answer_of_any_length_to_datagrams_of_chance(way: str) -> None:
    chance = random.Random(4)
    words = [
        b"PIDR",
        b"1",
        b"7",
        b"3",
        b"h",
        b"0",
        b"-1",
        b"4194305",
        b"start=1",
        b"pidns=2",
        b"boot=x",
        b"\0",
        b"\xff",
    ]
    with pid_server() as server, pid_client(server.addresses[0]) as sock:
        for _ in range(5000 // 20):
            batch = [
                b" ".join(chance.choices(words, k=chance.randrange(8))) if chance.random() < 0.6 else os.urandom(30)
                for _ in range(20)
            ]
            longest = max(map(len, batch)) + len(NAME) + 3
            assert all(len(answer) <= longest for answer in heard(sock, *batch))


def test_each_asker_gets_its_own_answer() -> None:
    with pid_server() as server:
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
        for number, sock in enumerate(socks):
            sock.settimeout(10)
            sock.sendto(b"NO" if number % 7 == 3 else b"PIDR 1 h%d 7" % number, ("127.0.0.1", port_of(server)))
        for number, sock in enumerate(socks):
            if number % 7 != 3:
                assert sock.recv(100) == b"EXIS 1 1 h%d" % number
            sock.close()


def test_an_asker_that_is_gone_costs_the_others_nothing() -> None:
    with pid_server() as server, pid_client(server.addresses[0]) as sock:
        for _ in range(20):
            with pid_client(server.addresses[0]) as gone_soon:
                gone_soon.send(b"PIDR 1 h 7")
            assert heard(sock, b"PIDR 1 h 7") == [b"EXIS 1 1 h"]


@pytest.mark.parametrize("everywhere", [None, "0.0.0.0"])
def test_all_addresses(way: str, everywhere: str | None) -> None:
    """A connected socket hears the address only that it asked."""
    with pid_server(host=everywhere) as server:
        for host in ("127.0.0.1", "127.0.0.2", *(["[::1]"] if everywhere is None else [])):
            with pid_client(f"{host}:{port_of(server)}") as sock:
                assert heard(sock, b"PIDR 1 h 7") == [b"EXIS 1 1 h"]
                assert heard(sock, b"PIDR 1 h 7", b"x", b"PIDR 1 i 7") == [b"EXIS 1 1 h", b"EXIS 1 1 i"]


def test_several_addresses() -> None:
    with pid_server(host=["127.0.0.1", "::1", "127.0.0.3"]) as server:
        assert len({address.rpartition(":")[2] for address in server.addresses}) == 1
        for address in server.addresses:
            with pid_client(address) as sock:
                assert heard(sock, b"PIDR 1 h 7") == [b"EXIS 1 1 h"]


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "pidstatd")
    with pid_server(path) as server, pid_client(path) as sock:
        assert server.addresses == [path]
        assert heard(sock, b"PIDR 1 h 7") == [b"EXIS 1 1 h"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:  # there is no way back to it
            nameless.sendto(b"PIDR 1 h 7", path)
        assert heard(sock, b"PIDR 1 h 7", b"PIDR 1 i 7") == [b"EXIS 1 1 h", b"EXIS 1 1 i"]
    assert not Path(path).exists()


def test_a_table_that_is_full_goes_on() -> None:
    table = PidfdCache(most=2)
    answers = AnswerServer(table)
    with alive() as one, alive() as two, alive() as three:
        questions = [b"PIDR %d h 7" % each.pid for each in (one, two, three)]
        for _ in range(3):
            assert [answer.split()[2] for answer in answers.answer(questions)] == [b"1"] * 3
        assert len(table.alive) <= 2
        two.kill()
        two.wait()
        assert [answer.split()[2] for answer in answers.answer(questions)] == [b"1", b"0", b"1"]
    table.close()


def test_a_start_that_is_hidden_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes_module, "exists", lambda pid, start=None: True if start is None else None)
    table = PidfdCache()
    pid = os.getpid()
    answers = AnswerServer(table).answer([b"PIDR %d h 7" % pid, b"PIDR %d h 7 start=5" % pid])
    assert answers == [b"EXIS %d 1 h" % pid, b"UNKN %d na h" % pid]
    table.close()


def test_no_descriptor_left() -> None:
    """Looking goes on without pidfds."""
    program = (
        "import os, resource, subprocess\n"
        "from ipclocker.pid.pidfd_cache import PidfdCache\n"
        "from ipclocker.pid.server import AnswerServer\n"
        "table = PidfdCache()\n"
        "children = [subprocess.Popen(['sleep', '1000']) for _ in range(4)]\n"
        "used = len(os.listdir('/proc/self/fd'))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, used + 1))\n"
        "questions = [b'PIDR %d h 7' % child.pid for child in children] + [b'PIDR 4194305 h 7']\n"
        "print([answer.split()[2] for answer in AnswerServer(table).answer(questions)])\n"
        "for child in children: child.kill()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "[b'1', b'1', b'1', b'1', b'0']\n"


def test_a_port_that_is_taken() -> None:
    from ipclocker import UsageError

    with pid_server() as server, pytest.raises(UsageError, match="another server has it"):
        PidServer(port_of(server), "127.0.0.1")
    with pid_server(host=None) as server, pytest.raises(UsageError, match="another server has it"):
        PidServer(port_of(server))


def test_start_server_takes_parameters(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = PidServer(port=0, host="127.0.0.1")
    with in_thread(lambda: server.start_server(port=path)):
        wait_for(Path(path).exists, "the other place")
        with pid_client(path) as sock:
            assert heard(sock, b"PIDR 1 h 7") == [b"EXIS 1 1 h"]
        server.stop()
    assert not Path(path).exists()

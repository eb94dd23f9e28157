"""The lock server on real sockets: who is there and who is gone, what is bounded, where it listens."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipclocker import Locker, LockServer, ServerUnavailable, UsageError
from ipclocker.lock.model import LockRequest
from ipclocker.lock.server import connection
from ipclocker.net.transport import Transport
from ipclocker.version import VERSION

from ...support import PROJECT
from ...support.servers import Lockerd, Peer, Served, ThreadServer
from ...support.waiting import DEADLINE, in_thread, wait_for

LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"


def held_by(server: Served, user: str = "ann", name: str = "x", more: str = "") -> Peer:
    peer = server.connect()
    assert peer.ask(f"user {user}; locks {name}; {more}; LOCK")[1] == "locked 1"
    return peer


def waiting(server: Served, user: str, name: str = "x", more: str = "") -> Peer:
    peer = server.connect()
    peer.say(f"user {user}; session {user}; locks {name}; block 1; {more}; LOCK")
    assert peer.hear_line().startswith("print_waiting ")
    return peer


# Who is gone


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_a_waiter_whose_connection_is_gone_is_never_granted(how: str) -> None:
    """However often it is tried: the hang-up and the UNLOCK arrive at the same instant."""
    with ThreadServer() as server:
        for _ in range(40):
            holder = held_by(server)
            gone, there = waiting(server, "bob"), waiting(server, "eve")
            if how == "close":
                gone.close()
            elif how == "reset":
                gone.reset()
            else:
                gone.sock.shutdown(socket.SHUT_WR)
            assert holder.ask("UNLOCK") == ["owner eve", "locked 0"]
            assert there.hear()[-2:] == ["locked 1", "lockname x"]
            assert there.ask("UNLOCK") == ["owner ", "locked 0"]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_unlock_and_then_a_hang_up_that_arrive_in_one_instant(how: str) -> None:
    """The server comes to read the UNLOCK first, and has to know all the same."""
    with Lockerd() as server:
        holder = held_by(server)
        gone, there = waiting(server, "bob"), waiting(server, "eve")
        with server.stopped():
            holder.say("UNLOCK")
            gone.close() if how == "close" else gone.reset()
        assert holder.hear() == ["owner eve", "locked 0"]
        assert there.hear()[-2:] == ["locked 1", "lockname x"]


def test_of_a_crowd_that_leaves_in_one_instant_the_only_one_left_gets_it() -> None:
    with ThreadServer() as server:
        holder = held_by(server)
        crowd = [waiting(server, f"u{number}") for number in range(200)]
        for number, peer in enumerate(crowd):
            if number != 150:
                peer.close() if number % 2 else peer.reset()
        assert holder.ask("UNLOCK") == ["owner u150", "locked 0"]
        assert crowd[150].hear()[0] == "print_obtained"


def test_a_holder_that_hangs_up_keeps_its_lock() -> None:
    with ThreadServer() as server:
        held_by(server).close()
        server.turn()
        assert server.holders() == {"x": "ann"}


def test_a_one_shot_request_is_served_though_its_client_has_gone() -> None:
    with ThreadServer() as server:
        peer = server.connect()
        peer.say("user a; locks x; LOCK; ; EOF;")
        peer.close()
        wait_for(lambda: server.holders() == {"x": "a"})


def test_a_hang_up_counts_though_commands_stand_behind_the_wait() -> None:
    with ThreadServer() as server:
        holder = held_by(server)
        gone = waiting(server, "bob")
        gone.say("STATUS; UNLOCK; LOCK")
        server.turn()
        gone.close()
        assert holder.ask("UNLOCK") == ["owner ", "locked 0"]


def test_another_connection_of_the_user_takes_a_waiting_lock_off_the_queue() -> None:
    with ThreadServer() as server:
        holder = held_by(server)
        peer = waiting(server, "bob")
        peer.say("VERSION")
        assert server.ask("user bob; session bob; locks x; UNLOCK") == ["owner ann", "locked 0"]
        assert peer.hear() == ["owner ann", "locked 0"]
        assert peer.hear_line().startswith("version ")
        assert holder.ask("UNLOCK") == ["owner ", "locked 0"]


def test_hold_times_end_on_time_in_any_order() -> None:
    with ThreadServer() as server:
        begin = time.monotonic()
        holds = {f"n{number}": 0.1 + random.random() * 0.9 for number in range(60)}
        peers = {}
        for name, hold in holds.items():
            held_by(server, name=name, more=f"timeout {hold:.3f}")
            peers[name] = waiting(server, f"w{name}", name)
        for name in sorted(holds, key=lambda name: holds[name]):
            assert peers[name].hear()[0] == "print_obtained"
            assert time.monotonic() - begin >= holds[name] - 0.01
        assert time.monotonic() - begin < 2.5


def test_a_waiter_may_be_served_by_what_stood_behind_the_one_that_it_replaces() -> None:
    """In its very first packet, so that the server has not yet come to know its connection."""
    with ThreadServer() as server:
        held_by(server)
        first = server.connect()
        first.say("user bob; locks x; block 1; LOCK; BREAK_LOCK")
        assert first.hear_line() == "print_waiting ann"
        second = server.connect()
        second.say("user bob; locks x; block 1; LOCK")
        assert second.hear() == ["print_waiting ann", "print_obtained", "owner bob", "locked 1", "lockname x"]


def test_a_client_that_is_gone_may_be_told_something_in_the_middle_of_its_own_request(tmp_path: Path) -> None:
    with Lockerd("--path", str(tmp_path / "s")) as server:
        held_by(server)
        for behind in ("UNLOCK", "BREAK_LOCK"):
            first = server.connect()
            first.say(f"user bob; locks x; block 1; LOCK; {behind}")
            assert first.hear_line() == "print_waiting ann"
            second = server.connect()
            second.ask("locks x; STATUS")
            with server.stopped():
                second.say("user bob; locks x; block 1; LOCK; STATUS; LOCK")
                second.close()
            assert server.version()
        assert server.process.poll() is None


# Bounds


def test_a_line_without_end_is_refused() -> None:
    with ThreadServer() as server:
        peer = server.connect()
        with contextlib.suppress(ConnectionError):
            for _ in range(2000):
                peer.send(b"x" * 10_000)
        assert peer.hear_until_closed() == b"error line_too_long\n\n\n"
        assert server.version()


def test_a_backlog_behind_a_lock_that_waits_is_refused() -> None:
    with ThreadServer() as server:
        holder = held_by(server)
        peer = waiting(server, "bob")
        with contextlib.suppress(ConnectionError):
            for _ in range(2000):
                peer.send(b"STATUS\n" * 1000)
        assert peer.hear_until_closed() == b"error too_much_input\n\n\n"
        assert holder.ask("UNLOCK") == ["owner ", "locked 0"]


def test_too_many_names_are_refused() -> None:
    with ThreadServer() as server:
        names = " ".join(f"n{number}" for number in range(257))
        assert server.ask(f"user a; locks {names}; LOCK") == ["error bad_locks"]
        assert server.ask(f"user a; locks {names[:-5]}; LOCK")[1] == "locked 1"


def test_a_client_that_reads_nothing_costs_no_memory_and_stops_nobody() -> None:
    with Lockerd() as server:
        peers = [server.connect() for _ in range(4)]
        before = server.memory()
        flood = b"STATUS\n" * 1000
        for peer in peers:
            peer.say(f"user {'u' * 1000}; locks {'n' * 1000}; LOCK")
            peer.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    peer.send(flood)
            server.turn()
        assert server.memory() - before < 20_000_000
        begin = server.cpu_time()
        for _ in range(20):
            server.turn()
        assert server.cpu_time() - begin < 2
        for peer in peers:  # whoever reads on is served on
            peer.sock.settimeout(DEADLINE)
            for _ in range(2000):
                assert peer.hear()[0] == f"owner {'u' * 1000}"


def test_a_client_that_reads_nothing_for_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transport, "patience", 0.2)
    with ThreadServer() as server:
        peer = server.connect()
        peer.say(f"user {'u' * 1000}; locks x; LOCK")
        peer.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                peer.send(b"STATUS\n" * 1000)
        peer.sock.settimeout(DEADLINE)
        wait_for(lambda: not server.server.term.clients, "the end of its connection")
        assert peer.hear_until_closed().startswith(b"owner uuu")


def test_answers_longer_than_the_kernel_takes_at_once_come_whole(tmp_path: Path) -> None:
    """Also if the client ends with EOF, which is the short way through."""
    with Lockerd("--path", str(tmp_path / "s")) as server:
        user = b"u" * 1000
        holder = server.connect()
        names = [b"%0999d" % number for number in range(400)]
        for name in names:
            holder.send(b"user %b\nlocks %b\nLOCK\n" % (user, name))
            holder.hear()
        with server.stopped():
            peer = server.connect()
            peer.send(b"LOCK_LIST\nEOF\n")
        server.turn()
        assert peer.hear_until_closed() == b"".join(b"lock %b %b\n" % (name, user) for name in names) + b"\n\n"


def test_a_long_list_goes_to_a_slow_reader_while_others_are_served() -> None:
    with ThreadServer() as server:
        holder = server.connect()
        user = "a" * 120  # so long that the kernel does not take the whole list at once
        for start in range(0, 50_000, 1000):
            names = range(start, start + 1000)
            holder.send(b"user %b\n" % user.encode() + b"".join(b"locks n%d\nLOCK\n" % name for name in names))
            holder.hear_bytes(sum(len(f"owner {user}\nlocked 1\nlockname n{name}\n\n\n") for name in names))
        slow = server.connect()
        slow.say("LOCK_LIST; VERSION")
        for _ in range(30):
            slow._read()
            assert server.version()
        assert slow.hear() == [f"lock n{number} {user}" for number in range(50_000)]
        assert slow.hear_line().startswith("version ")


@pytest.mark.parametrize("asks", ["LOCK_LIST", "LOCK_INFO", "STATUS", "GOT", "variables"])
def test_others_are_served_while_one_client_has_much_done(asks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of many locks, or many requests at once; whoever reads as fast as it comes got all before the next."""
    monkeypatch.setattr(connection, "_SHARE", 0.0)
    server = LockServer("127.0.0.1", 0)
    greedy, other = Peer(server.addresses[0]), Peer(server.addresses[0])
    try:
        for number in range(5000):
            request = LockRequest((b"user", b""), (b"n%d" % number,))
            server.term.service.table.acquire(request, 0.0)
        flood = {"GOT": "locks x;" + "GOT n1 1;" * 5000, "variables": "block 1;" * 5000, "STATUS": "STATUS;" * 5000}
        greedy.say("locks x;" + flood.get(asks, asks) + "; BREAK_LOCK; VERSION; EOF")
        server.loop.turn(DEADLINE)
        with in_thread(greedy.hear_until_closed) as heard:
            other.say("VERSION; EOF")
            while other.hears_nothing():
                server.loop.turn(0.01)
            assert server.term.clients, "all was done for the one before the other had its turn"
            while server.term.clients:
                server.loop.turn(0.01)
        assert heard[0].endswith(
            b"owner \nlocked 0\n\n\nversion %b %d\n\n" % (VERSION.encode(), server.term.service.started)
        )
    finally:
        greedy.close()
        other.close()
        server.close()


@pytest.fixture
def few_descriptors() -> object:
    with Lockerd(before=LIMIT) as server:
        yield server


def test_without_descriptors_it_serves_on_does_not_spin_and_recovers(few_descriptors: Lockerd) -> None:
    server = few_descriptors
    holder = held_by(server)
    peer = waiting(server, "bob")
    crowd = [server.connect() for _ in range(60)]
    for other in crowd:  # more than there are descriptors; they say something so that the kernel hands them over
        other.say("locks x; STATUS")
    served = wait_for(lambda: [other for other in crowd if not other.hears_nothing()])
    assert served
    begin, cpu = time.monotonic(), server.cpu_time()
    while time.monotonic() - begin < 1.5:
        assert holder.ask("STATUS")[1] == "locked 1"
        time.sleep(0.05)
    assert server.cpu_time() - cpu < 0.5
    assert holder.ask("UNLOCK")[0] == "owner bob"
    assert peer.hear()[0] == "print_obtained"
    for other in crowd:  # each that goes lets another one in
        assert other.hear()[0] in ("owner ann", "owner bob")
        other.close()
    assert server.version()
    server.kill(signal.SIGTERM)
    assert server.stderr.count(b"new clients wait") == 1


def test_a_connection_that_does_nothing_is_closed_and_who_comes_after_it_is_served() -> None:
    with Lockerd("--idle-timeout", "0.3", before=LIMIT) as server:
        silent = [server.connect() for _ in range(60)]  # more than there are descriptors
        silent[0].send(b"user ann\nlocks x\nSTATUS\nlocks")
        assert silent[0].hear() == ["owner ", "locked 0"]
        for peer in silent:
            assert peer.hear_until_closed() == b""
        assert server.version()


def test_who_holds_waits_or_is_to_be_told_keeps_its_connection_however_silent_it_is() -> None:
    with ThreadServer(idle_timeout=0.1) as server:
        holder, waiter, last = held_by(server), waiting(server, "bob"), server.connect()
        subscriber = held_by(server, "eve", "y", "token 1; tell 1")
        subscriber.ask("locks other; STATUS")
        last.ask("user tim; locks z; LOCK; locks z; UNLOCK")
        assert last.hear_until_closed().startswith(b"owner \nlocked 0")
        for _ in range(20):
            server.turn()
            time.sleep(0.02)
        holder.ask("UNLOCK")
        assert waiter.hear()[0] == "print_obtained"
        server.ask("locks y; BREAK_LOCK")
        assert subscriber.hear_line().startswith("lost y ")
        assert holder.hear_until_closed() == b""


def test_who_speaks_now_and_then_keeps_its_connection_and_without_a_timeout_all_do() -> None:
    with ThreadServer(idle_timeout=0.5) as server, ThreadServer(idle_timeout=0) as patient:
        peer, silent = server.connect(), patient.connect()
        for _ in range(20):
            assert peer.ask("locks x; STATUS")[1] == "locked 0"
            time.sleep(0.05)
        assert silent.ask("locks x; STATUS")[1] == "locked 0"


def test_a_locker_whose_connection_was_closed_meanwhile_gets_its_next_lock() -> None:
    with ThreadServer(idle_timeout=0.1) as server:
        locker = Locker(host="127.0.0.1", port=server.port, lock="x", connect_tries=1, connect_delay=1)
        for _ in range(3):
            with locker:
                assert locker.locked()
            wait_for(lambda: not server.server.term.clients, "the end of its connection")


def test_many_clients_that_say_nothing_and_go() -> None:
    with ThreadServer() as server:
        for _ in range(300):
            server.connect().close()
        server.turn()
        wait_for(lambda: not server.server.term.clients)


def test_garbage_of_all_kinds() -> None:
    chance = random.Random(7)
    words = (
        b"user u;locks x y;block 1;LOCK;UNLOCK;STATUS;EOF;\xff\xfe;timeout 1e9;timeout 0.01;token 1;RENEW x 1;"
        b"DEAD_PID h 7;autounlock 1;pid 7;hostname h;BREAK_LOCK;LOCK_LIST;VERSION;GET / HTTP/1.1;;\0\0;RESTART;CHECK;"
        b"GOT x y;start 1"
    ).split(b";")
    with ThreadServer() as server:
        peers: list[Peer] = []
        for number in range(2000):
            peer = Peer(server.address)
            with contextlib.suppress(ConnectionError):
                if number % 4 == 0:
                    peer.send(chance.randbytes(chance.randrange(200)))
                for _ in range(chance.randrange(4)):
                    peer.send(b"\n".join(chance.choices(words, k=chance.randrange(12))) + chance.choice([b"\n", b""]))
            if chance.random() < 0.2:
                peers.append(peer)
            elif chance.random() < 0.5:
                peer.reset()
            else:
                peer.close()
        for peer in peers:
            peer.close()
        server.ask("locks x y; BREAK_LOCK")
        server.turn()
        wait_for(lambda: not server.server.term.clients)
        server.ask("locks x y; BREAK_LOCK")
        assert server.holders() == {}
        assert held_by(server).ask("UNLOCK") == ["owner ", "locked 0"]


# Trust


def test_a_death_is_believed_from_the_address_that_took_the_lock() -> None:
    with ThreadServer("0.0.0.0") as server:
        server.addresses = [f"127.0.0.1:{server.port}"]
        pid = os.getpid()  # it lives, whatever is said of it
        owner = server.connect("127.0.0.2")
        assert owner.ask(f"user a; locks x; autounlock 1; hostname elsewhere; pid {pid}; LOCK")[1] == "locked 1"
        liar, friend = server.connect("127.0.0.3"), server.connect("127.0.0.2")
        assert liar.ask(f"locks x; DEAD_PID elsewhere {pid}; STATUS")[0] == "owner a"
        assert friend.ask(f"locks x; DEAD_PID elsewhere {pid}; STATUS")[0] == "owner "


# Where it listens


def test_ipv6() -> None:
    with ThreadServer("::1") as server:
        assert server.address == f"[::1]:{server.port}"
        assert held_by(server).ask("UNLOCK") == ["owner ", "locked 0"]


def test_several_hosts_on_one_port() -> None:
    with ThreadServer(["127.0.0.1", "127.0.0.5", "::1"]) as server:
        port = server.port
        assert server.addresses == [f"127.0.0.1:{port}", f"127.0.0.5:{port}", f"[::1]:{port}"]
        for number, address in enumerate(server.addresses):
            peer = Peer(address)
            assert peer.ask(f"user a; locks n{number}; LOCK")[1] == "locked 1"
            peer.close()
        assert set(server.holders()) == {"n0", "n1", "n2"}


def test_localhost_is_both_loopbacks_without_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadServer("localhost") as server:
        assert server.addresses == [f"127.0.0.1:{server.port}", f"[::1]:{server.port}"]


def test_a_port_that_is_taken_is_said_and_nothing_is_left_open() -> None:
    with ThreadServer() as server, pytest.raises(UsageError, match=rf"127\.0\.0\.1:{server.port}: .*another server"):
        LockServer(["127.0.0.6", "127.0.0.1"], server.port)


def test_a_host_that_is_not_ours_or_not_known_is_said() -> None:
    with pytest.raises(UsageError, match="no address of this host"):
        LockServer("192.0.2.1", 0)
    with pytest.raises(ServerUnavailable, match="not known"):
        LockServer("no.such.host.invalid", 0)


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with ThreadServer(path=path) as server:
        assert server.addresses == [path]
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o666
        holder = held_by(server)
        peer = waiting(server, "bob")
        assert holder.ask("UNLOCK")[0] == "owner bob"
        assert peer.hear()[0] == "print_obtained"
    assert not Path(path).exists()


def test_the_port_may_be_the_name_of_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadServer(port=str(tmp_path / "one")) as server:
        assert server.addresses == [str(tmp_path / "one")]
    monkeypatch.chdir(tmp_path)
    with ThreadServer(port="two", family="UNIX") as server:
        assert server.addresses == ["two"] and Path("two").exists()
    monkeypatch.setenv("IPCLOCKER_PORT", str(tmp_path / "three"))
    with ThreadServer(port=None) as server:
        assert server.addresses == [str(tmp_path / "three")]


def test_a_socket_that_nobody_serves_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with Lockerd("--path", path) as dead:
        dead.kill()
        assert Path(path).exists()
        with ThreadServer(path=path) as server:
            assert server.version()


def test_a_socket_that_a_server_serves_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with ThreadServer(path=path) as server:
        with pytest.raises(UsageError, match="another server answers"):
            LockServer(path=path)
        assert server.version()


def test_a_file_of_another_kind_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    for name in (path, link, tmp_path):
        with pytest.raises(UsageError, match="no socket"):
            LockServer(path=str(name))
    assert path.read_text() == "precious" and link.is_symlink()


@pytest.mark.parametrize("path", ["", "no/such/folder/lock", "x" * 104, "a\0b"])
def test_a_name_that_can_not_be_a_socket_is_said(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="choose another"):
        LockServer(path=path)


def test_a_name_that_somebody_else_has_taken_over_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    server = LockServer(path=str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        server.close()
        assert path.exists()


def test_of_servers_that_race_for_one_name_one_wins(tmp_path: Path) -> None:
    for attempt in range(3):
        race_for(tmp_path / str(attempt))


def race_for(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    command = [sys.executable, "-m", "ipclocker", "lockerd", "--nofork", "--path", str(path), "--state", "none"]
    racers = [
        subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for _ in range(4)
    ]
    try:
        wait_for(lambda: sum(racer.poll() is not None for racer in racers) == 3, "three that give up")
        (winner,) = [racer for racer in racers if racer.poll() is None]
        peer = wait_for(lambda: try_connect(str(path)))
        assert peer is not None and peer.ask("user a; locks x; LOCK")[1] == "locked 1"
        peer.close()
        winner.terminate()
        assert winner.wait(DEADLINE) == 0 and not path.exists()
    finally:
        for racer in racers:
            racer.kill()
        said = [(racer.communicate()[1], racer.returncode) for racer in racers]
    assert sorted(code for _, code in said) == [0, 64, 64, 64]
    assert all("another server answers" in text for text, code in said if code)


def try_connect(path: str) -> Peer | None:
    try:
        return Peer(path)
    except OSError as problem:
        assert problem.errno in (errno.ENOENT, errno.ECONNREFUSED)
        return None


# Beginning and end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: int, tmp_path: Path) -> None:
    with Lockerd("--path", str(tmp_path / "lock"), "--pid-file", str(tmp_path / "pid")) as server:
        held_by(server)
        assert (tmp_path / "pid").exists()
        assert server.kill(number) == 0
        assert list(tmp_path.iterdir()) == []


def test_the_log_says_where_and_that_a_restart_forgets() -> None:
    with Lockerd() as server:
        server.kill(signal.SIGTERM)
        assert b"listening on 127.0.0.1:%d" % server.port in server.stderr
        assert b"a restart forgets them" in server.stderr


def test_the_log_says_whose_time_was_up() -> None:
    with Lockerd() as server:
        held_by(server, "ann", "nightly", "timeout 0.05")
        wait_for(lambda: not server.holders())
        server.kill(signal.SIGTERM)
        (line,) = [line for line in server.stderr.decode().split("\n") if "nightly" in line]
        assert "ann" in line and "b'" not in line


def test_start_server_serves_in_any_thread_until_it_is_stopped() -> None:
    server = LockServer("127.0.0.1", 0)
    with in_thread(server.start_server) as ended:
        peer = Peer(server.addresses[0])
        assert peer.ask("user a; locks x; LOCK")[1] == "locked 1"
        server.stop()  # from here, while it waits for something to happen
        wait_for(lambda: ended, "the end of start_server")
        assert peer.hear_until_closed() == b""
        peer.close()


def _serves(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def test_start_server_takes_parameters_which_go_before_those_of_the_constructor(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = LockServer(host="127.0.0.1", port=0, state=str(tmp_path / "locks.db"))
    port = int(server.addresses[0].rpartition(":")[2])
    with in_thread(lambda: server.start_server(path=path)) as ended:
        wait_for(lambda: _serves(path), "the other place")
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        peer = Peer(path)
        assert peer.ask("user a; locks x; LOCK")[1] == "locked 1"
        server.stop()
        wait_for(lambda: ended, "the end of start_server")
        peer.close()
    with LockServer("127.0.0.1", 0) as other, pytest.raises(TypeError, match="prot"):
        other.start_server(prot=1)  # type: ignore[call-arg]

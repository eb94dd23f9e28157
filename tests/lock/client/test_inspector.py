"""What an Inspector hears from servers of both kinds."""

from __future__ import annotations

import socket
import time

import pytest

from ipclocker import Locker, ServerUnavailable, UsageError
from ipclocker.lock.client.inspector import Inspector
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.snapshot import BROKEN, FREE, RECALLED

from ...support.fake_servers import NOTHING, ClassicServer, FakeTcpServer, ScriptedServer
from ...support.servers import ThreadServer

HELD_X = b"held x user u_x token 7 age 1.5 host h pid 12 hold 60 left 58.5\nwaiter x user u_w age 0.25\n"
HELD_A = b"held a user u_a token 8 age 2 new 1 lease 30 left nonsense recalled 1\n"


def inspector(server: FakeTcpServer | ThreadServer, host: str = "127.0.0.1") -> Inspector:
    return Inspector(LockSettings(host=host, port=server.port, connect_tries=1))


def test_look() -> None:
    with ScriptedServer({b"LOCK_INFO": HELD_X + HELD_A + NOTHING}) as server:
        snapshot = inspector(server).look()
    assert snapshot.detailed and snapshot.server == f"127.0.0.1:{server.port}"
    assert abs(snapshot.time - time.time()) < 1000
    a, x = snapshot.locks
    assert (x.name, x.user, x.token, x.age, x.host, x.pid, x.hold, x.left) == (b"x", b"u_x", 7, 1.5, b"h", 12, 60, 58.5)
    assert [(waiter.user, waiter.age) for waiter in x.waiters] == [(b"u_w", 0.25)]
    assert (a.name, a.lease, a.left, a.recalled, a.confirmed, a.waiters) == (b"a", 30, None, True, True, ())


def test_look_at_one_that_is_free() -> None:
    with ScriptedServer({b"LOCK_INFO x": NOTHING}) as server:
        snapshot = inspector(server).look("x")
    assert (snapshot.locks, snapshot.detailed) == ((), True)


def test_look_at_a_classic_server() -> None:
    with ClassicServer() as server:
        server.holders = {"x": "u_x", "a": "u_a"}
        snapshot = inspector(server).look()
        assert [(lock.name, lock.user) for lock in snapshot.locks] == [(b"a", b"u_a"), (b"x", b"u_x")]
        assert not snapshot.detailed
        assert [lock.user for lock in inspector(server).look("x").locks] == [b"u_x"]
        assert inspector(server).look("b").locks == ()


def test_many_locks() -> None:
    lines = b"".join(b"held n%d user %b token %d age 1\n" % (n, b"u" * 100, n) for n in range(10_000))
    with ScriptedServer({b"LOCK_INFO": lines + NOTHING}) as server:
        assert len(inspector(server).look().locks) == 10_000


def test_is_current() -> None:
    with ScriptedServer({b"CHECK x 7": b"current 1\n\n\n", b"CHECK": b"current 0\n\n\n"}) as server:
        assert inspector(server).is_current("x", 7) is True
        assert inspector(server).is_current("x", 8) is False
    with ClassicServer() as classic:
        assert inspector(classic).is_current("x", 7) is None


def test_recall() -> None:
    with ScriptedServer({b"RECALL": b"print_recalled u_x\nowner u_x\nlocked 0\n\n\n"}) as server:
        assert inspector(server).recall("x") == (RECALLED, b"u_x")
        assert b"locks x" in server.asked
        server.answers[b"RECALL"] = b"print_broke u\xff\nowner u_next\nlocked 0\n\n\n"
        assert inspector(server).recall("x") == (BROKEN, b"u\xff")
        server.answers[b"RECALL"] = b"owner \nlocked 0\n\n\n"
        assert inspector(server).recall("x") == (FREE, b"")


def test_recall_from_a_classic_server() -> None:
    with ClassicServer() as server:
        server.holders = {"x": "u_x", "a": "u_a"}
        asking = inspector(server)
        assert asking.recall("x") == (BROKEN, b"u_x")
        assert asking.recall("x") == (FREE, b"")
        assert server.holders == {"a": "u_a"}


def test_break_lock() -> None:
    with ScriptedServer({b"BREAK_LOCK": b"print_broke u_x\nowner \nlocked 0\n\n\n"}) as server:
        assert inspector(server).break_lock("x") == (BROKEN, b"u_x")
        server.answers[b"BREAK_LOCK"] = b"owner \nlocked 0\n\n\n"
        assert inspector(server).break_lock("x") == (FREE, b"")
        assert b"RECALL" not in server.asked


@pytest.mark.parametrize("name", ["", "a b", "a\n"])
def test_names_that_are_none(name: str) -> None:
    with ScriptedServer({}) as server:
        for ask in (inspector(server).look, inspector(server).recall, inspector(server).break_lock):
            with pytest.raises(UsageError):
                ask(name)
        assert server.asked == []


def test_it_stays_with_the_server_that_answered() -> None:
    """Another one would say that the lock is free, of its own lock space."""
    with ScriptedServer({b"LOCK_INFO": HELD_X + NOTHING}) as first:
        other = ThreadServer("127.0.0.2", first.port)
        with other:
            asking = inspector(first, "127.0.0.1:127.0.0.2")
            assert len(asking.look("x").locks) == 1
            first.close()
            with pytest.raises(ServerUnavailable):
                asking.look("x")
            assert asking.server == f"127.0.0.1:{first.port}"


REPLICATED = b"space 5a replicated 5\nmember h 127.0.0.1:1\n"


def test_it_stays_with_the_lock_space_whoever_serves_it() -> None:
    other = ScriptedServer({b"space": b"space 07 replicated 5\n", b"LOCK_INFO": HELD_A + NOTHING})
    alike = ScriptedServer({b"space": REPLICATED, b"LOCK_INFO": HELD_X + NOTHING})
    with ScriptedServer({b"space": REPLICATED, b"LOCK_INFO": NOTHING}) as first, other, alike:
        ports = (first.port, other.port, alike.port)
        asking = Inspector(LockSettings(host=[f"[127.0.0.1]:{port}" for port in ports], connect_tries=1))
        assert asking.patience > 15, "as long as nobody has answered, all may be of one space"
        assert asking.look("x").locks == ()
        first.close()
        assert [lock.user for lock in asking.look("x").locks] == [b"u_x"]
        assert (asking.server, asking.patience > 15) == (f"127.0.0.1:{alike.port}", True)
        alike.close()
        with pytest.raises(ServerUnavailable, match="it serves another lock space"):
            asking.break_lock("x")
        assert {line for line in other.asked if line} == {b"space 1", b"VERSION"}


def test_a_server_of_its_own_is_not_waited_for() -> None:
    for space in (b"", b"space 5a\n"):
        with ScriptedServer({b"space": space, b"LOCK_INFO": NOTHING}) as server:
            asking = inspector(server, "127.0.0.1:127.0.0.2")
            asking.look()
            assert asking.patience == 0
    assert inspector(server).patience == 0


def test_no_other_server_is_asked_to_do_what_the_first_may_have_done() -> None:
    """It took the lock and then ended, perhaps; at the next one another one has it."""

    def end_when_asked(sock: socket.socket) -> None:
        while b"BREAK_LOCK" not in sock.recv(65_536):
            pass

    with FakeTcpServer(end_when_asked) as first, ScriptedServer({b"BREAK_LOCK": b"owner \nlocked 0\n\n\n"}) as second:
        hosts = [f"[127.0.0.1]:{server.port}" for server in (first, second)]
        with pytest.raises(ServerUnavailable, match=r"has not answered .*: look whether it was done"):
            Inspector(LockSettings(host=hosts)).break_lock("x")
        with pytest.raises(ServerUnavailable, match=r"has not answered .*: look whether it was done"):
            Locker("x", host=hosts).break_lock()
        assert second.asked == []


def test_a_real_server() -> None:
    with ThreadServer() as server:
        peer, waiter = server.connect(), server.connect()
        peer.ask("user u_a; session s; token 1; locks x; timeout 60; LOCK")
        waiter.say("user u_b; session t; locks x; block 1; LOCK")
        waiter.hear_line()
        asking = inspector(server)
        (lock,) = asking.look().locks
        assert (lock.name, lock.user, lock.hold, lock.lease) == (b"x", b"u_a", 60, None)
        assert [one.user for one in lock.waiters] == [b"u_b"]
        assert asking.look("x").locks[0].token == lock.token
        assert asking.is_current("x", lock.token) is True
        assert asking.is_current("x", lock.token + 1) is False
        assert asking.recall("x") == (BROKEN, b"u_a")
        assert asking.break_lock("x") == (BROKEN, b"u_b")
        assert asking.recall("x") == (FREE, b"")
        assert asking.look().locks == ()


def test_a_lease_of_a_real_server() -> None:
    with ThreadServer() as server:
        peer = server.connect()
        peer.ask("user u_a; session s; token 1; locks x; timeout 60; lease 1; LOCK")
        asking = inspector(server)
        assert asking.recall("x") == (RECALLED, b"u_a")
        (lock,) = asking.look("x").locks
        assert lock.recalled and lock.lease == 60
        assert asking.recall("x") == (RECALLED, b"u_a"), "asked for once more"
        assert asking.break_lock("x") == (BROKEN, b"u_a")
        assert asking.look("x").locks == ()

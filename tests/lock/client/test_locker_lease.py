"""A Locker with a lease: renewed second whatever its holder does, and its loss is known in time."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ipclocker import Locker, LockLost, ServerUnavailable, UsageError

from ...support.fake_servers import ClassicServer, ScriptedServer
from ...support.keepalive import background_threads, is_settled, renewed_leases
from ...support.processes import in_child
from ...support.servers import Lockerd, ThreadServer
from ...support.waiting import wait_for


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as running:
        yield running


def locker(server: Any, **parameters: Any) -> Locker:
    given = {"host": "127.0.0.1", "port": server.port, "connect_tries": 1, "connect_delay": 0.1, **parameters}
    return Locker(**given)


def test_no_lease_no_renewal(server: ThreadServer) -> None:
    with locker(server) as lock:
        assert renewed_leases() == 0 and lock.until > time.monotonic() + 1000 and not lock.lost.is_set()
    with locker(server, timeout=0) as lock:
        assert lock.until == float("inf")


def test_it_is_held_for_longer_than_the_lease(server: ThreadServer) -> None:
    begin = time.monotonic()
    with locker(server, lease=3, user="me") as lock:
        grant = server.server.term.service.table.held[b"lock"]
        assert grant.hold == 3 and grant.lease and wait_for(lambda: renewed_leases() == 1)
        first = lock.until
        assert begin + 3 <= first <= time.monotonic() + 3
        token = lock.token
        wait_for(lambda: time.monotonic() > begin + 4, "time")
        assert server.holders() == {"lock": "me"} and lock.locked() and not lock.lost.is_set()
        assert lock.until > first and lock.token == token
    assert server.holders() == {} and renewed_leases() == 0 and not lock.locked() and lock.until == 0
    with lock:
        assert lock.locked() and not lock.lost.is_set()


def test_a_lock_that_is_broken_is_known_to_be_lost(server: ThreadServer) -> None:
    lock = locker(server, lease=60)
    with pytest.raises(LockLost, match="'lock'"), lock:
        wait_for(
            lambda: lock._holding._renewal and is_settled(lock._holding._renewal._keepalive),
            "the connection of the thread",
        )
        locker(server).break_lock()
        assert lock.lost.wait(15)
        assert not lock.locked() and lock.until == 0
    assert lock.lost.is_set() and renewed_leases() == 0
    with lock:
        assert not lock.lost.is_set()
    with pytest.raises(ZeroDivisionError), lock:
        locker(server).break_lock()
        raise ZeroDivisionError


def test_a_recall_is_a_loss_in_time(server: ThreadServer) -> None:
    lock = locker(server, lease=60, user="me")
    with pytest.raises(LockLost), lock:
        wait_for(lambda: server.ask("locks lock; RECALL"), "the recall")
        assert lock.lost.wait(15)
        assert server.holders() == {"lock": "me"} and lock.locked()
    assert server.holders() == {}


def test_a_recalled_lease_is_not_got_again_by_lock(server: ThreadServer) -> None:
    """It ends for the server as it was, so nobody may take it for longer."""
    lock = locker(server, lease=30)
    lock.lock()
    server.ask("locks lock; RECALL")
    with pytest.raises(LockLost, match="asked for back"):
        lock.lock()
    assert not lock.locked() and lock.lost.is_set()
    assert server.holders() == {}


def test_a_server_that_is_gone_is_known_before_the_lease_is_over() -> None:
    with Lockerd() as server:
        lock = locker(server, lease=3)
        with pytest.raises(LockLost), lock:
            server.kill()
            assert lock.lost.wait(15)
            assert time.monotonic() < lock.until
        assert renewed_leases() == 0


def test_a_server_that_comes_back_with_what_it_knew(tmp_path: Any) -> None:
    state = ("--state", str(tmp_path / "state"))
    with Lockerd(*state) as server:
        lock = locker(server, lease=30, user="me")
        lock.lock()
        wait_for(
            lambda: lock._holding._renewal and is_settled(lock._holding._renewal._keepalive),
            "the connection of the thread",
        )
        server.kill()
        first = lock.until
        with Lockerd(*state, port=server.port) as again:
            wait_for(lambda: lock.until > first, "a renewal by the new server")
            assert again.holders() == {"lock": "me"} and not lock.lost.is_set()
            lock.release()
            wait_for(lambda: again.holders() == {}, "the end of what it reserves for those who waited before")


def test_lock_renews_it_as_well(server: ThreadServer) -> None:
    lock = locker(server, lease=60)
    lock.lock()
    first, token = lock.until, lock.token
    time.sleep(0.01)
    assert lock.lock() is lock and lock.until > first and lock.token == token
    assert wait_for(lambda: renewed_leases() == 1)
    lock.unlock()


def test_one_that_nobody_has_any_more_unlocks(server: ThreadServer) -> None:
    lock = locker(server, lease=60)
    lock.lock()
    del lock
    gc.collect()
    server.turn()
    assert server.holders() == {} and renewed_leases() == 0


def test_in_a_fork_it_starts_afresh() -> None:
    with Lockerd() as server, locker(server, lease=60) as lock:
        holders = server.holders()
        assert in_child(lambda: not lock.locked() and lock.until == 0 and lock.acquire(False) is False)
        assert in_child(lambda: (lock.__del__(), True)[1])  # type: ignore[func-returns-value]
        before = lock.until
        lock.lock()
        assert lock.until > before and server.holders() == holders and not lock.lost.is_set()


def test_threads_take_turns(server: ThreadServer) -> None:
    lock, inside = locker(server, lease=60), [0]
    problems: list[str] = []

    def work() -> None:
        for _ in range(8):
            with lock:
                inside[0] += 1
                if inside[0] != 1 or renewed_leases() > 1:
                    problems.append(f"{inside[0]} {renewed_leases()}")
                inside[0] -= 1

    together = [threading.Thread(target=work) for _ in range(4)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join(60)
    assert problems == [] and renewed_leases() == 0 and server.holders() == {}
    assert wait_for(lambda: background_threads() <= 1)


def test_a_server_that_knows_no_leases_is_refused() -> None:
    with ClassicServer() as server:
        lock = locker(server, lease=60, user="me")
        with pytest.raises(ServerUnavailable, match="knows no leases"):
            lock.lock()
        assert server.holders == {} and not lock.locked()


def test_it_may_be_another_way_each_time(server: ThreadServer) -> None:
    """What was asked for over a connection is not left behind there."""
    lock = locker(server)
    held = server.server.term.service.table.held
    told: list[tuple[bool, float, bytes]] = []
    for parameters in ({"lease": 60, "command": "a b"}, {"lease": 0, "timeout": 7, "command": None}, {"timeout": 0}):
        lock.lock(**parameters)
        grant = held[b"lock"]
        told.append((grant.lease, grant.hold, grant.command))
        assert wait_for(lambda: renewed_leases() == grant.lease)  # noqa: B023 - called at once
        lock.unlock()
    assert told == [(True, 60, b"a%20b"), (False, 7, b""), (False, 0, b"")]


@pytest.mark.parametrize("parameters", [{"lease": 2.9}, {"lease": -1}, {"lease": "x"}, {"lease": 30, "timeout": 5}])
def test_a_lease_that_means_nothing(parameters: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="lease"):
        Locker(**parameters)
    Locker(lease=30, timeout=0)


# Fencing


def test_check(server: ThreadServer) -> None:
    where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port}
    with locker(server, lock="a") as lock:
        token = lock.token or 0
        assert lock.check("a", token) is True and Locker.check("a", token, **where) is True
        assert lock.check("a", token - 1) is False and Locker.check("b", token, **where) is False
    assert lock.check("a", token) is False
    with lock:
        assert (lock.token or 0) > token and not lock.check("a", token)
    with pytest.raises(UsageError):
        lock.check("a b", 5)


def test_check_at_a_server_that_knows_no_tokens_or_is_not_there() -> None:
    with ScriptedServer({}) as server, pytest.raises(ServerUnavailable, match="knows no tokens"):
        locker(server).check("a", 5)
    with pytest.raises(ServerUnavailable):
        locker(server).check("a", 5)


def test_a_server_that_can_not_write_is_one_that_does_not_answer() -> None:
    """Its own words are told, and the next host is taken."""
    answers = {b"LOCK": b"error unwritable\n\n\n", b"UNLOCK": b"owner \nlocked 0\n\n\n"}
    with ScriptedServer(answers) as server:
        lock = locker(server, connect_tries=2, user="me")
        with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:\d+: it can't write its state"):
            lock.acquire(timeout=60)
        assert server.asked.count(b"LOCK") >= 2 and not lock.locked()
        server.answers[b"LOCK"] = b"owner me\nlocked 1\nlockname lock\ntoken 5\n\n\n"
        assert lock.acquire(timeout=15)
        server.answers[b"UNLOCK"] = b"error unwritable\n\n\n"
        server.answers[b"CHECK"] = b"current 1\n\n\n"
        asked = server.asked.count(b"UNLOCK lock 5")
        with pytest.raises(ServerUnavailable, match="can't write its state"):
            lock._holding.acquisition.release(within=1.0)
        assert server.asked.count(b"UNLOCK lock 5") >= asked + 2

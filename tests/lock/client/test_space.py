"""Lock spaces as a client sees them: which server is asked for what when the one that it knows is gone."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ipclocker import Locker, ServerUnavailable
from ipclocker.lock.client import connection as connection_module
from ipclocker.lock.client.acquisition import LockAcquisition
from ipclocker.lock.client.connection import ServerConnection
from ipclocker.lock.client.keepalive import KeepAlive
from ipclocker.lock.client.query import query
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.client.silent_host import names
from ipclocker.lock.wire.replies import Member, Space
from ipclocker.net.address import Address, Host

from ...support import PROJECT
from ...support.fake_servers import ClassicServer, FakeTcpServer, ScriptedServer, black_hole
from ...support.replicas import free_port
from ...support.servers import Lockerd
from ...support.waiting import DEADLINE, in_thread, wait_for
from .test_acquisition import Ear

SHARED, OTHER = b"space 5a replicated 2\nmember h1 %b\n", b"space 07\n"
HARMLESS = {b"space 1", b"VERSION"}


def hosts(*ports: int) -> list[str]:
    return [f"[127.0.0.1]:{port}" for port in ports]


def scripted(space: bytes, port: int = 0, **answers: bytes) -> ScriptedServer:
    """A server of a space, which grants each lock with the token 5 and knows of all that it is asked about."""
    granted = b"owner me\nlocked 1\nlockname x\ntoken 5\n\n\n"
    return ScriptedServer(
        {
            b"space": space,
            b"LOCK": granted,
            b"UNLOCK": b"owner \nlocked 0\n\n\n",
            b"CHECK": b"current 1\n\n\n",
            b"RENEW": b"renewed x 5\n\n\n",
            **{word.encode(): answer for word, answer in answers.items()},
        },
        port,
    )


def commands(server: ScriptedServer) -> list[bytes]:
    return [line for line in server.asked if line[:1].isupper()]


def new_acquisition(*ports: int, **parameters: Any) -> LockAcquisition:
    given: dict[str, Any] = {"host": hosts(*ports), "lock": "x", "timeout": 0, **parameters}
    return LockAcquisition(LockSettings(**given), Ear())


# A holder


def give_back_where_the_space_is_not() -> tuple[ServerUnavailable | None, list[bytes]]:
    """Hold a lock, lose the server; what is raised, and what the only other host of the list was asked."""
    with scripted(OTHER) as other:
        with scripted(b"space 5a\n") as home:
            acquisition = new_acquisition(home.port, other.port)
            assert acquisition.acquire(True, time.monotonic() + DEADLINE)
        try:
            acquisition.release(within=0.5)
        except ServerUnavailable as problem:
            return problem, other.asked
        finally:
            acquisition.connector.close()
        return None, other.asked


def check_that_another_space_is_passed_over() -> None:
    problem, asked = give_back_where_the_space_is_not()
    assert asked and set(asked) <= HARMLESS
    assert problem is not None
    assert re.search(
        r"no server .* \(127\.0\.0\.1:\d+: .*; 127\.0\.0\.1:\d+: it serves another lock space\)", str(problem)
    )


def test_a_lock_is_not_given_back_in_another_space() -> None:
    check_that_another_space_is_passed_over()


def test_a_client_that_takes_another_space_for_its_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is planted."""
    monkeypatch.setattr(connection_module, "why_another", lambda known, told: "")
    with pytest.raises(AssertionError):
        check_that_another_space_is_passed_over()


@pytest.mark.parametrize("tells", [b"space 07 replicated 2\n", b"", b"space 5b\n"])
def test_a_lease_is_not_renewed_in_another_space(tells: bytes) -> None:
    lost: list[object] = []
    with scripted(tells) as other:
        with scripted(SHARED % b"h1:1") as home:
            acquisition = new_acquisition(home.port, other.port, lease=3, timeout=None)
            assert acquisition.acquire(True, time.monotonic() + DEADLINE)
            keepalive = KeepAlive(acquisition.connector, acquisition.grants)
            port = home.port

        def stepped() -> bool:
            keepalive.step(time.monotonic() + 0.05)
            return True

        wait_for(lambda: stepped() and other.asked.count(b"VERSION") > 2, "it to be asked again and again")
        lost.append(keepalive.loss)
        assert set(other.asked) == HARMLESS
        assert re.search(f"127.0.0.1:{other.port}: it (serves|does not tell)", keepalive.problem)
        with scripted(SHARED % b"h1:1", port=port) as home:
            wait_for(lambda: stepped() and b"CHECK x 5" in home.asked, "its server")
            wait_for(lambda: stepped() and not keepalive.problem, "the answer")
        keepalive.close()
        acquisition.connector.close()
        assert set(other.asked) == HARMLESS
    assert lost == [None]


def test_a_lock_is_renewed_by_another_server_of_its_space_once_that_has_said_so() -> None:
    with scripted(SHARED % b"h1:1") as second, scripted(OTHER) as other:
        with scripted(SHARED % b"h1:1") as first:
            lock = Locker("x", host=hosts(first.port, other.port, second.port), hold=60)
            lock.lock()
        assert second.asked == []
        assert lock.lock() is lock and not lock.lost.is_set()
        lock.unlock()
        assert commands(second)[:2] == [b"VERSION", b"LOCK"] and b"UNLOCK x 5" in second.asked
        assert set(other.asked) == HARMLESS


def test_who_serves_another_space_where_one_of_a_shared_space_was_is_passed_over() -> None:
    with scripted(SHARED % b"h1:1") as second:
        with scripted(SHARED % b"h1:1") as first:
            lock = Locker("x", host=hosts(first.port, second.port), hold=60)
            lock.lock()
        with scripted(OTHER, port=first.port) as stranger:
            lock.unlock()
            assert set(stranger.asked) == HARMLESS and b"UNLOCK x 5" in second.asked


def test_what_was_held_by_a_server_of_an_older_release_is_asked_for_there_alone() -> None:
    with scripted(SHARED % b"h1:1") as other:
        with scripted(b"") as home:
            acquisition = new_acquisition(home.port, other.port)
            assert acquisition.acquire(True, time.monotonic() + DEADLINE)
        with pytest.raises(ServerUnavailable, match=f"the lock server 127.0.0.1:{home.port} does not answer"):
            acquisition.release(within=0.5)
        assert other.asked == []
        with scripted(b"", port=home.port) as again:
            acquisition.release(within=5)
            assert b"UNLOCK x 5" in again.asked
            acquisition.connector.close()


def test_what_was_held_in_memory_is_lost_with_the_server() -> None:
    """At the same address it is asked whether it stands."""
    with Lockerd() as server:
        lock = Locker("x", host=hosts(server.port), lease=30)
        lock.lock()
        token = lock.token
        server.kill()
        with Lockerd(port=server.port) as again:
            assert lock.lost.wait(DEADLINE)
            lock.unlock()
            assert again.ask(f"CHECK x {token}") == ["current 0"] and again.holders() == {}


def test_a_file_that_has_moved_to_another_host_is_found_there(tmp_path: Path) -> None:
    state = str(tmp_path / "state.db")
    elsewhere = free_port()
    with Lockerd("--state", state) as server:
        lock = Locker("x", host=hosts(server.port, elsewhere), lease=30)
        lock.lock()
        server.kill()
        with Lockerd("--state", state, port=elsewhere) as again:
            assert again.ask(f"CHECK x {lock.token}") == ["current 1"]
            lock.unlock()
            assert again.ask(f"CHECK x {lock.token}") != ["current 1"] and not lock.lost.is_set()


def test_a_command_whose_space_nobody_serves_goes_on(tmp_path: Path) -> None:
    """Its lock is given back as soon as somebody does."""
    go, port = tmp_path / "go", free_port()
    with scripted(OTHER) as other:
        with scripted(SHARED % b"h1:1", port=port) as home:
            script = f"echo; while [ ! -e {go} ]; do sleep 0.02; done; exit 3"
            words = ["--dhost", ":".join(hosts(port, other.port)), "--lock", "x", "--", "sh", "-c", script]
            command = [sys.executable, "-m", "ipclocker", "lockersh", *words]
            process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert process.stdout is not None
            assert process.stdout.readline() == "\n"
        wait_for(lambda: b"space 1" in other.asked, "it to look for its space")
        go.touch()
        with scripted(SHARED % b"h1:1", port=port) as home:
            _, err = process.communicate(timeout=DEADLINE)
            assert (process.returncode, err) == (3, "")
            assert b"UNLOCK x 5" in home.asked
        assert set(other.asked) == HARMLESS


# One that waits


def waited(server: ScriptedServer) -> list[float]:
    return [float(line.split()[1]) for line in server.asked if line.startswith(b"waited")]


def test_who_waits_says_for_how_long_when_it_comes_back() -> None:
    """Also to another server; and the next LOCK over the same connection is a new one."""
    port = free_port()
    busy, granted = b"print_waiting other\n", b"print_obtained\nowner me\nlocked 1\nlockname x\ntoken 5\n\n\n"
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(scripted(SHARED % b"h1:1", LOCK=busy))
        lock = Locker("x", host=hosts(home.port, port), hold=0)
        with in_thread(lock.lock) as waiter:
            wait_for(lambda: b"LOCK" in home.asked, "its request")
            begin = time.monotonic()
            home.close()
            second = stack.enter_context(scripted(SHARED % b"h1:1", port=port, LOCK=busy + granted))
            wait_for(lambda: waiter, "the grant")
            longest = time.monotonic() - begin + 1
        assert waited(home) == []
        (first,) = waited(second)
        assert 0 < first <= longest
        lock.unlock()
        second.answers[b"LOCK"] = granted
        assert lock.lock()
        assert waited(second) == [first, 0]
        lock.unlock()


def test_after_a_restart_many_have_the_lock_in_the_order_in_which_they_had_queued(tmp_path: Path) -> None:
    """What a request takes to the server blurs that, so they come in three groups."""
    state = str(tmp_path / "state.db")
    order: list[int] = []

    def wait(number: int, port: int) -> None:
        with Locker("x", host=hosts(port), hold=0):
            order.append(number)

    with Lockerd("--state", state) as server:
        holder = server.connect()
        assert holder.ask("user h; session s; locks x; LOCK")[1] == "locked 1"
        threads = [threading.Thread(target=wait, args=[number, server.port]) for number in range(30)]
        for count, thread in enumerate(threads):
            thread.start()
            wait_for(lambda count=count: queued(server) == count + 1, "it to wait")  # type: ignore[misc]
            if count in (9, 19):
                time.sleep(2)
        server.kill()
        with Lockerd("--state", state, port=server.port) as again:
            wait_for(lambda: queued(again) == len(threads), "all to wait again")
            again.ask("user h; session s; locks x; UNLOCK")
            for thread in threads:
                thread.join(DEADLINE)
    assert [number // 10 for number in order] == [0] * 10 + [1] * 10 + [2] * 10


def queued(server: Lockerd) -> int:
    return sum(line.startswith("waiter ") for line in server.ask("LOCK_INFO x"))


def test_who_waits_for_a_server_in_memory_queues_again_when_it_is_started_again() -> None:
    with Lockerd() as server:
        assert server.connect().ask("user h; session s; locks x; LOCK")[1] == "locked 1"
        lock = Locker("x", host=hosts(server.port), hold=0)
        with in_thread(lock.lock) as waiter:
            wait_for(lambda: queued(server) == 1, "it to wait")
            server.kill()
            with Lockerd(port=server.port) as again:
                wait_for(lambda: waiter, "the grant")
                assert list(again.holders()) == ["x"]
                lock.unlock()


@pytest.mark.parametrize(("space", "soon"), [(b"space 5a\n", True), (SHARED % b"h1:1", True), (b"", False)])
def test_who_waits_notices_soon_that_the_host_is_gone_where_it_has_a_place(space: bytes, soon: bool) -> None:
    """It is the kernel of the host that answers, so no server is left because it is slow."""
    with scripted(space, LOCK=b"print_waiting other\n") as server:
        acquisition = new_acquisition(server.port)
        waits = threading.Event()
        acquisition._listener.waiting = lambda name, holder: waits.set()  # type: ignore[method-assign]
        with in_thread(lambda: acquisition.acquire(True, time.monotonic() + DEADLINE)):
            assert waits.wait(DEADLINE)
            connection = acquisition.connector.connection
            assert connection is not None
            idle, timeout = (
                connection.sock.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_USER_TIMEOUT)
            )
            assert (idle, timeout) == ((2, 5_000) if soon else (15, 30_000))
            server.answers[b"LOCK"] = b"owner me\nlocked 1\nlockname x\ntoken 5\n\n\n"
            connection.sock.shutdown(socket.SHUT_RDWR)  # it asks again
        acquisition.release()
        acquisition.connector.close()


# What may have been granted while nobody knew the space


def test_what_the_first_server_may_have_granted_is_given_back_at_the_next_of_its_space() -> None:
    """Its answer never came; the next one has the grant, for a session that nobody uses any more."""
    sessions: list[bytes] = []

    def hang_up(sock: socket.socket) -> None:
        data = sock.recv(65_536)
        sessions.extend(line for line in data.split(b"\n") if line.startswith(b"session"))

    with FakeTcpServer(hang_up) as first, scripted(SHARED % b"h1:1") as second:
        lock = Locker("x", host=hosts(first.port, second.port), hold=0)
        lock.lock()
        asked = list(second.asked)
        lock.unlock()
    given_back, mine = [line for line in asked if line.startswith(b"session")]
    assert given_back == sessions[0] != mine
    assert [line for line in asked if line[:1].isupper()] == [b"VERSION", b"UNLOCK", b"LOCK"]


# Errors that are ends


@pytest.mark.parametrize("word", [b"not_leader", b"server_ended"])
def test_a_server_that_ends_is_one_that_is_gone(word: bytes) -> None:
    error = b"error " + word + b"\n\n\n"
    listed, shared = b"lock y ann\n\n\n", SHARED % b"h1:1"
    with scripted(shared, LOCK=error, LOCK_LIST=error) as first, scripted(shared, LOCK_LIST=listed) as second:
        asked = query(LockSettings(host=hosts(first.port, second.port), lock="x"), b"LOCK_LIST")
        assert asked.answer.locks == ((b"y", b"ann"),) and asked.server == f"127.0.0.1:{second.port}"
        with Locker("x", host=hosts(first.port, second.port), hold=0):
            assert b"LOCK" in second.asked


# A first host that is silent


@contextlib.contextmanager
def patient_network(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[int]:
    """A host that is switched off; whoever waits for it waits for so long."""
    monkeypatch.setattr(connection_module, "CONNECT_WITHIN", seconds)
    with black_hole() as port:
        yield port


@pytest.mark.parametrize("call", [b"127.0.0.1:%d", b"localhost:%d h1:%d"])
def test_the_next_is_used_if_it_names_the_silent_one(monkeypatch: pytest.MonkeyPatch, call: bytes) -> None:
    with patient_network(monkeypatch, 10 * DEADLINE) as hole, contextlib.ExitStack() as stack:
        name = "127.0.0.1" if call.startswith(b"1") else "localhost"
        refuses = free_port()
        named = call.replace(b"%d", b"%d" % hole)
        last = stack.enter_context(scripted(SHARED % named))
        with Locker("x", host=[f"[{name}]:{hole}", *hosts(refuses, last.port)], hold=0):
            assert commands(last)[:2] == [b"VERSION", b"LOCK"]


@pytest.mark.parametrize("space", [OTHER, SHARED % b"h9:1", b"", b"space 07\nmember h1 127.0.0.1:%d\n"])
def test_the_next_is_not_used_if_it_has_a_space_of_its_own(monkeypatch: pytest.MonkeyPatch, space: bytes) -> None:
    """Before the silent one has failed; until then it is asked nothing but what harms nobody."""
    with patient_network(monkeypatch, 2.0) as hole:
        tells = space.replace(b"%d", b"%d" % hole)
        with scripted(tells) as other:
            begin = time.monotonic()
            with Locker("x", host=hosts(hole, other.port), hold=0):
                assert time.monotonic() - begin >= 2.0, "the first has been waited for"
            asked = commands(other)
            assert asked.index(b"LOCK") >= 1 and set(asked[: asked.index(b"LOCK")]) == {b"VERSION"}


def test_a_silent_first_host_that_answers_after_all_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(SHARED % b"h1:1") as first, scripted(OTHER) as other:
        connecting = ServerConnection.connecting
        slow: list[bool] = []

        def connect(address: Address, deadline: float, wait: Callable[..., bool]) -> Any:
            if address.sockaddr[1] == first.port:
                slow.append(True)
                yield None, 0, time.monotonic() + 1.5
            return (yield from connecting(address, deadline, wait))

        monkeypatch.setattr(ServerConnection, "connecting", connect)
        with Locker("x", host=hosts(first.port, other.port), hold=0):
            assert slow and commands(first)[:1] == [b"LOCK"]
        assert set(other.asked) == HARMLESS


def test_a_classic_server_behind_a_silent_host_takes_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    with patient_network(monkeypatch, 1.5) as hole, ClassicServer() as classic:
        with Locker("x", host=hosts(hole, classic.port), user="me", hold=0):
            assert classic.holders == {"x": "me"}
        assert classic.seen("LOCK", "me", True) == 1


def test_a_holder_is_not_held_up_by_a_host_that_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with patient_network(monkeypatch, 10 * DEADLINE) as hole, scripted(SHARED % b"h1:1") as second:
        with scripted(SHARED % b"h1:1") as first:
            lock = Locker("x", host=hosts(first.port, hole, second.port), hold=0)
            lock.lock()
        lock.unlock()
        assert b"UNLOCK x 5" in second.asked


def test_how_a_member_is_named() -> None:
    address = Address(socket.AF_INET, ("10.0.0.1", 1751))

    def is_named(host: str, called: bytes, *addresses: bytes, ttl: int | None = 5, there: Address = address) -> bool:
        return names(
            Space(b"5a", ttl, (Member(b"other", (b"10.0.0.9:1751",)), Member(called, addresses))), Host(host), there
        )

    assert is_named("lock1", b"whatever", b"10.0.0.1:1751")
    assert is_named("lock1", b"whatever", b"[::1]:1751", b"lock1:1751")
    assert is_named("lock1", b"lock1.example.com", b"10.1.0.1:1751")
    assert is_named("LOCK1.example.com", b"lock1", b"10.1.0.1:1751")
    assert not is_named("lock1.example.com", b"lock1.example.org", b"10.1.0.1:1751")
    assert not is_named("lock1", b"lock1", b"10.1.0.1:1752"), "another server of that host"
    assert not is_named("lock1", b"lock1", b"10.0.0.1:1751", ttl=None)
    assert not is_named("10.0.0.1", b"10.0.0.2", b"10.0.0.2:1751")
    assert not is_named("lock1", b"lock1", b"lock1:1751", there=Address(socket.AF_UNIX, "/run/lockerd"))
    assert not names(None, Host("lock1"), address)

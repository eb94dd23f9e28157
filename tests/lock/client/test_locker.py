"""Locker, as IPC::Locker has it and as threading.Lock has it, with real servers."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ipclocker import (
    IpclockerError,
    LockBusy,
    Locker,
    LockLost,
    NotHeld,
    ServerRefused,
    ServerUnavailable,
    UsageError,
)
from ipclocker.lock.client import acquisition as acquisition_module
from ipclocker.lock.client import connector as contact_module
from ipclocker.lock.client.connection import wait_ready

from ...support.fake_servers import ClassicServer, FakeTcpServer, close_at_once, say_nothing
from ...support.servers import Lockerd, ThreadServer
from ...support.waiting import DEADLINE, in_thread, wait_for


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as running:
        yield running


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPCLOCKER_HOST", "IPCLOCKER_PORT"):
        monkeypatch.delenv(name, raising=False)


def locker(server: ThreadServer | ClassicServer | Lockerd, **parameters: Any) -> Locker:
    given = {"host": "127.0.0.1", "port": server.port, "connect_tries": 1, "connect_delay": 0.1, **parameters}
    return Locker(**given)


def free_port() -> int:
    """A port that nobody listens on; bound for a moment, so that it is given to nobody else at once."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def is_queued(server: ThreadServer, name: str = "lock", count: int = 1) -> bool:
    return len(server.server._service.table._queues.get(name.encode(), ())) == count


# IPC::Locker


def test_the_parameters_have_their_defaults(server: ThreadServer) -> None:
    lock = Locker(port=server.port)
    assert lock.lock() is lock
    (grant,) = server.server._service.table.held.values()
    assert (grant.name, grant.hold, grant.process) == (b"lock", 1800, None)
    assert re.fullmatch(rf"{re.escape(socket.gethostname())}_{os.getpid()}_\w+(~\d+)?", grant.user.decode())
    lock.unlock()


def test_lock_locked_lock_name_and_unlock(server: ThreadServer) -> None:
    lock = locker(server, lock="one")
    assert not lock.locked() and lock.lock_name() == "one" and lock.token is None
    assert lock.unlock() is lock
    assert lock.lock() is lock
    assert lock.locked() and lock.lock_name() == "one" and isinstance(lock.token, int)
    assert lock.unlock() is lock
    assert not lock.locked() and server.holders() == {}


def test_lock_takes_parameters_too(server: ThreadServer) -> None:
    lock = locker(server, lock="one")
    assert lock.lock(lock=["two"], user="me")
    assert server.holders() == {"two": "me"} and lock.lock_name() == "two"
    with pytest.raises(UsageError, match="unlock it before"):
        lock.lock(lock="three")
    assert lock.unlock().lock(lock="three")
    assert server.holders() == {"three": "me"}
    lock.unlock()


def test_the_first_free_of_several(server: ThreadServer) -> None:
    names = ["a", "b", "c"]
    locks = [locker(server, lock=names, block=False) for _ in range(4)]
    assert [lock.lock() and lock.lock_name() for lock in locks] == ["a", "b", "c", None]
    locks[1].unlock()
    assert locks[3].lock() and locks[3].lock_name() == "b"
    assert locks[1].lock_name() == "a"
    for lock in locks:
        lock.unlock()


@pytest.mark.parametrize("kind", [iter, tuple, set])
def test_names_and_hosts_may_be_any_iterable(server: ThreadServer, kind: Callable[[list[str]], Any]) -> None:
    lock = locker(server, lock=kind(["a", "b"]), host=kind(["127.0.0.1"]))
    assert lock.lock(block=False)
    assert lock.lock_name() in ("a", "b")
    lock.unlock()


def test_block_false_returns_none_and_waits_for_nobody(server: ThreadServer) -> None:
    first, second = locker(server), locker(server, block=False)
    assert first.lock()
    assert second.lock() is None and not second.locked()
    first.unlock()
    assert server.holders() == {}
    assert second.lock() is second
    second.unlock()


def test_a_lock_that_is_held_is_renewed(server: ThreadServer) -> None:
    lock = locker(server, timeout=0.4)
    assert lock.lock()
    token = lock.token
    begin = time.monotonic()
    while time.monotonic() - begin < 1:
        assert lock.lock() is lock
        time.sleep(0.02)
    assert lock.token == token and server.holders()
    wait_for(lambda: not server.holders())
    wait_for(lambda: not lock.locked())
    with pytest.raises(LockLost):
        lock.release()


def test_a_locker_never_thinks_that_it_holds_longer_than_the_server_does(server: ThreadServer) -> None:
    """It comes to know of its grant late, as a process does that was stopped meanwhile."""
    first = locker(server)
    first.lock()

    def sluggish(sock: Any, events: int, deadline: float) -> bool:
        ready = wait_ready(sock, events, deadline)
        if first.locked() is False:
            time.sleep(0.15)
        return ready

    second = locker(server, timeout=0.5, wait=sluggish)
    with in_thread(second.lock):
        wait_for(lambda: is_queued(server))
        first.unlock()
    wait_for(lambda: not server.holders())
    assert not second.locked()


def test_user_pid_hostname_and_autounlock(server: ThreadServer) -> None:
    lock = locker(server, lock="a", user="somebody", autounlock=True, timeout=0)
    other = locker(server, lock="b", hostname="far.away", pid=77, autounlock=True)
    assert lock.lock() and other.lock()
    held = server.server._service.table.held
    process = held[b"a"].process
    assert process is not None and held[b"a"].user == b"somebody" and held[b"a"].hold == 0
    assert (process.pid, process.host) == (os.getpid(), socket.gethostname().encode())
    assert process.start is not None and process.pidns is not None and len(process.boot) == 36
    process = held[b"b"].process
    assert process is not None and held[b"b"].user.startswith(b"far.away_77_")
    assert (process.pid, process.host, process.start, process.boot) == (77, b"far.away", None, b"")
    lock.unlock()
    other.dead_pid("far.away", 77)
    assert server.holders() == {}


@pytest.mark.parametrize("destroy_unlock", [True, False])
def test_a_locker_that_goes_away_unlocks_unless_told_otherwise(server: ThreadServer, destroy_unlock: bool) -> None:
    lock = locker(server, user="me", destroy_unlock=destroy_unlock)
    assert lock.lock()
    del lock
    gc.collect()
    server.turn()
    assert server.holders() == ({} if destroy_unlock else {"lock": "me"})


def test_ping_and_ping_status(server: ThreadServer) -> None:
    lock = locker(server)
    assert lock.ping() is True
    assert Locker.ping(host="127.0.0.1", port=server.port) is True
    status = Locker.ping_status(host="127.0.0.1", port=server.port)
    assert status["ok"] is True
    assert re.fullmatch(rf"\d+\.\d\d\d second response on 127\.0\.0\.1:{server.port}", status["status"])
    assert lock.ping_status()["ok"] is True


def test_ping_on_the_class_tries_once() -> None:
    port = free_port()
    begin = time.monotonic()
    assert Locker.ping(host="127.0.0.1", port=port) is False
    status = Locker.ping_status(host="127.0.0.1", port=port)
    assert status["ok"] is False and f"127.0.0.1:{port}" in status["status"]
    assert time.monotonic() - begin < 10  # the pause between tries would be 30 s


def test_owner_lock_list_and_break_lock(server: ThreadServer) -> None:
    lock, other = locker(server, lock="a", user="ann"), locker(server, lock="b", user="bob")
    assert lock.owner() is None and lock.lock_list() == []
    assert lock.lock() and other.lock()
    assert other.owner(lock="b") == "bob" and locker(server, lock=["c", "a"]).owner() == "ann"
    assert sorted(lock.lock_list()) == [("a", "ann"), ("b", "bob")]
    locker(server, lock="a").break_lock()
    assert dict(other.lock_list()) == {"b": "bob"}
    with pytest.raises(LockLost, match="'a'"):
        lock.release()
    other.unlock()


def test_print_functions_are_called(server: ThreadServer) -> None:
    heard: list[tuple[Any, ...]] = []

    def hear(what: str) -> Callable[..., None]:
        return lambda *words: heard.append((what, *words))

    names = ("waiting", "obtained", "broke", "retry", "down")
    functions: dict[str, Any] = {f"print_{name}": hear(name) for name in names}
    first = locker(server, lock="a")
    lock = locker(server, lock="a", **functions)
    first.lock()
    with in_thread(lock.lock):
        wait_for(lambda: is_queued(server, "a"))
        first.unlock()
    assert heard == [("waiting", lock, "a"), ("obtained", lock)]
    heard.clear()
    locker(server, lock="a", **functions).break_lock()
    assert [words[0] for words in heard] == ["broke"]
    heard.clear()
    lock.unlock()
    more: dict[str, Any] = {"connect_tries": 3, "connect_delay": 0.01, **functions}
    lost = Locker(host="127.0.0.1", port=free_port(), **more)
    with pytest.raises(ServerUnavailable):
        lost.lock()
    assert heard == [("retry", lost), ("retry", lost), ("down", lost)]


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_prints_on_stderr(server: ThreadServer, verbose: bool, capsys: pytest.CaptureFixture[str]) -> None:
    first, lock = locker(server, user="ann"), locker(server, verbose=verbose)
    first.lock()
    with in_thread(lock.lock):
        wait_for(lambda: is_queued(server))
        first.unlock()
    lock.unlock()
    told = capsys.readouterr()
    assert told.out == ""
    assert ("waiting for lock lock: ann" in told.err and "obtained" in told.err) == verbose
    assert verbose or told.err == ""


def test_tries_and_delays(capsys: pytest.CaptureFixture[str]) -> None:
    pauses = []

    def wait(sock: Any, events: int, deadline: float) -> bool:
        if sock is None:
            pauses.append(deadline - time.monotonic())
            return False
        return wait_ready(sock, events, deadline)

    lock = Locker(host="127.0.0.1", port=free_port(), connect_tries=6, connect_delay=30, wait=wait)
    with pytest.raises(ServerUnavailable, match="start lockerd"):
        lock.lock()
    assert len(pauses) == 5 and all(29 < pause <= 60 for pause in pauses) and len({*map(int, pauses)}) > 1
    assert capsys.readouterr().err.count("trying again") == 5
    assert not lock.locked()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"lock": ""}, "lock name"),
        ({"lock": "a b"}, "white space"),
        ({"lock": "a\n"}, "white space"),
        ({"lock": []}, "0 lock names"),
        ({"lock": [f"n{number}" for number in range(257)]}, "257 lock names"),
        ({"host": ""}, "host"),
        ({"host": "a::b"}, "host list"),
        ({"port": "no-such-service"}, "no-such-service"),
        ({"port": 65536}, "65536"),
        ({"family": "INET7"}, "INET7"),
        ({"family": "UNIX"}, "needs the name"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"connect_delay": -1}, "connect_delay"),
        ({"user": "a b"}, "user"),
        ({"hostname": ""}, "hostname"),
    ],
)
def test_a_parameter_that_means_nothing_is_said(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Locker(**parameters)


def test_a_parameter_that_there_is_not_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="tiemout"):
        Locker(tiemout=5)  # type: ignore[call-arg]


def test_all_errors_have_one_root() -> None:
    for kind in (LockBusy, LockLost, NotHeld, ServerRefused, ServerUnavailable, UsageError):
        assert issubclass(kind, IpclockerError)


def test_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "lock")
    with ThreadServer(path=path):
        for parameters in ({"path": path}, {"port": path}, {"port": path, "family": "UNIX"}, {"path": path, "port": 1}):
            with Locker(connect_tries=1, **parameters) as lock:
                assert lock.locked()
        monkeypatch.setenv("IPCLOCKER_PORT", path)
        assert Locker.ping()


# threading.Lock


@pytest.fixture(params=["Locker", "threading.Lock"])
def a_lock(request: pytest.FixtureRequest, server: ThreadServer) -> Any:
    return threading.Lock() if request.param == "threading.Lock" else locker(server)


def test_acquire_and_release(a_lock: Any) -> None:
    assert a_lock.acquire() is True and a_lock.locked()
    assert a_lock.acquire(False) is False
    assert a_lock.acquire(blocking=False) is False
    assert a_lock.acquire(True, 0.01) is False
    assert a_lock.acquire(timeout=0) is False
    assert a_lock.release() is None and not a_lock.locked()
    assert a_lock.acquire(timeout=5) is True
    a_lock.release()


def test_releasing_what_is_not_held_raises(a_lock: Any) -> None:
    with pytest.raises(RuntimeError):
        a_lock.release()
    a_lock.acquire()
    a_lock.release()
    with pytest.raises(RuntimeError):
        a_lock.release()


@pytest.mark.parametrize("arguments", [(False, 1), (False, 0), (True, -2), (True, -0.5)])
def test_arguments_that_make_no_sense(a_lock: Any, arguments: tuple[bool, float]) -> None:
    with pytest.raises(ValueError):
        a_lock.acquire(*arguments)
    assert a_lock.acquire(False)
    a_lock.release()


def test_with_releases_also_after_an_error(a_lock: Any) -> None:
    with a_lock:
        assert a_lock.locked()
    assert not a_lock.locked()
    with pytest.raises(ZeroDivisionError), a_lock:
        raise ZeroDivisionError
    assert not a_lock.locked()


def test_another_thread_waits_and_may_release(a_lock: Any) -> None:
    a_lock.acquire()
    with in_thread(a_lock.acquire) as got:
        assert got == []
        with in_thread(a_lock.release):
            pass
    assert got == [True] and a_lock.locked()
    a_lock.release()


def test_a_thread_that_waits_gives_up_in_time(a_lock: Any) -> None:
    a_lock.acquire()
    begin = time.monotonic()
    assert a_lock.acquire(timeout=0.2) is False
    assert 0.2 <= time.monotonic() - begin < 2
    a_lock.release()


def test_threads_exclude_each_other(a_lock: Any) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(20):
            with a_lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert most == [1] and not a_lock.locked()


def test_lockers_of_one_process_exclude_each_other(server: ThreadServer) -> None:
    inside, most = [0], [0]

    def work() -> None:
        lock = locker(server, user="all_the_same")
        for _ in range(15):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert most == [1] and server.holders() == {}


def test_one_locker_in_two_threads_is_held_by_one_of_them(server: ThreadServer) -> None:
    """Whichever way it is asked for."""
    lock = locker(server)
    assert lock.lock()
    with in_thread(lambda: lock.lock(block=False)) as got:
        wait_for(lambda: got)
    assert got == [None]
    lock.unlock()


def test_with_a_lock_that_was_obtained_on_the_way(server: ThreadServer) -> None:
    lock = locker(server, user="me").lock()
    assert lock is not None
    with lock as same:
        assert same is lock and server.holders() == {"lock": "me"}
    assert server.holders() == {}


def test_with_raises_if_it_is_busy_and_not_to_be_waited_for(server: ThreadServer) -> None:
    with locker(server, user="ann"), pytest.raises(LockBusy, match="ann"), locker(server, block=False):
        raise AssertionError


def test_a_lock_that_is_lost_in_the_body_is_said_unless_there_is_worse(server: ThreadServer) -> None:
    lock = locker(server)
    with pytest.raises(LockLost), lock:
        locker(server).break_lock()
    with pytest.raises(ZeroDivisionError), lock:
        locker(server).break_lock()
        raise ZeroDivisionError
    with lock:
        assert lock.locked()


def test_a_lock_that_was_lost_and_is_held_by_another_is_not_held(server: ThreadServer) -> None:
    lock, other = locker(server, block=False), locker(server)
    assert lock.lock()
    other.break_lock()
    assert other.lock()
    assert lock.lock() is None
    assert not lock.locked()
    other.unlock()
    assert lock.acquire(timeout=1)
    lock.release()


def test_an_interrupted_renewal_does_not_leave_it_stuck(server: ThreadServer) -> None:
    interrupts = [False]

    def wait(sock: Any, events: int, deadline: float) -> bool:
        if interrupts[0] and not wait_ready(sock, events, time.monotonic() + 0.1):
            interrupts[0] = False
            raise KeyboardInterrupt
        return wait_ready(sock, events, deadline)

    lock, other = locker(server, wait=wait), locker(server)
    assert lock.lock()
    other.break_lock()
    assert other.lock()
    interrupts[0] = True
    with pytest.raises(KeyboardInterrupt):
        lock.lock()
    other.unlock()
    assert not lock.locked() and server.holders() == {}
    assert lock.acquire(timeout=2)
    lock.release()


def test_an_interrupt_while_waiting_gives_the_request_back(server: ThreadServer) -> None:
    def wait(sock: Any, events: int, deadline: float) -> bool:
        if not wait_ready(sock, events, time.monotonic() + 0.2):
            raise KeyboardInterrupt
        return True

    first, lock = locker(server), locker(server, wait=wait)
    first.lock()
    with pytest.raises(KeyboardInterrupt):
        lock.lock()
    assert not lock.locked()
    first.unlock()
    assert server.holders() == {}
    assert lock.acquire(timeout=2)
    lock.release()


# Forks


def in_child(call: Callable[[], object]) -> bool:
    """Whether a call in a forked child came to its end and returned something true."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if call() else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


def test_a_fork_neither_holds_nor_releases_its_parents_lock() -> None:
    with Lockerd() as server:
        lock = locker(server)
        assert lock.lock()
        holders = server.holders()
        assert in_child(lambda: not lock.locked() and lock.unlock() is lock and lock.acquire(False) is False)
        assert in_child(lambda: (lock.__del__(), True)[1])  # type: ignore[func-returns-value]
        assert server.holders() == holders and lock.locked()
        lock.release()
        assert in_child(lambda: lock.acquire(timeout=DEADLINE))
        assert server.holders() != holders


def test_in_a_fork_there_is_no_token_and_no_hold_of_the_parent() -> None:
    with Lockerd() as server:
        lock = locker(server, lock=["a", "b"])
        with locker(server, lock="a"), lock:
            assert lock.lock_name() == "b"
            assert in_child(lambda: lock.token is None and lock.lock_name() == "a")


def test_parent_and_children_exclude_each_other(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    with Lockerd() as server:
        lock = locker(server)

        def work() -> bool:
            for _ in range(10):
                with lock:
                    counter.write_text(str(int(counter.read_text()) + 1))
            return True

        children = []
        for _ in range(3):
            pid = os.fork()
            if not pid:
                try:
                    os._exit(0 if work() else 1)
                finally:
                    os._exit(2)
            children.append(pid)
        work()
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert counter.read_text() == "40"


# Servers that come and go


def test_hosts_are_tried_in_their_order(server: ThreadServer) -> None:
    with ThreadServer("127.0.0.2", server.port) as second:
        both: list[Any] = ["127.0.0.1:127.0.0.2", ["127.0.0.1", "127.0.0.2"], ["127.0.0.1:127.0.0.2"]]
        for hosts in both:
            with locker(server, host=hosts, user="me"):
                assert (server.holders(), second.holders()) == ({"lock": "me"}, {})
        with locker(server, host="127.0.0.9:127.0.0.2:127.0.0.1", user="me"):
            assert (server.holders(), second.holders()) == ({}, {"lock": "me"})


def test_the_hosts_of_the_environment(server: ThreadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPCLOCKER_HOST", "127.0.0.9:127.0.0.1")
    monkeypatch.setenv("IPCLOCKER_PORT", str(server.port))
    assert Locker.ping()


def test_who_waits_stays_with_the_server_and_queues_again_after_its_restart() -> None:
    with Lockerd() as first, Lockerd(host="127.0.0.2", port=first.port) as other:
        holder, lock = locker(first), locker(first, host="127.0.0.1:127.0.0.2", user="me", connect_tries=100)
        holder.lock()
        waiting: list[bool] = []
        lock.lock(print_waiting=lambda *_: waiting.append(True), block=False)
        with in_thread(lambda: lock.lock(block=True)) as got:
            wait_for(lambda: waiting)
            first.kill()
            time.sleep(0.3)
            assert got == [] and other.holders() == {}
            with Lockerd(port=first.port) as again:
                wait_for(lambda: got)
                assert again.holders() == {"lock": "me"} and other.holders() == {}
                lock.unlock()
                assert again.holders() == {}


def test_a_server_that_does_not_come_back_gives_way_to_the_next() -> None:
    with Lockerd() as first, Lockerd(host="127.0.0.2", port=first.port) as other:
        holder = locker(first)
        holder.lock()
        waiting: list[bool] = []
        lock = locker(
            first, host="127.0.0.1:127.0.0.2", user="me", print_waiting=lambda *_: waiting.append(True), connect_tries=2
        )
        with in_thread(lock.lock) as got:
            wait_for(lambda: waiting)
            first.kill()
            wait_for(lambda: got)
            assert other.holders() == {"lock": "me"}
            lock.unlock()


def test_a_lock_is_given_back_over_a_new_connection(server: ThreadServer) -> None:
    lock = locker(server)
    for _ in range(3):
        assert lock.lock()
        assert lock._acquisition.connector.connection is not None
        lock._acquisition.connector.connection.sock.shutdown(socket.SHUT_RDWR)
        lock.release()
        assert server.holders() == {}


def test_a_locker_that_is_used_again_stays_with_its_server_as_well(server: ThreadServer) -> None:
    lock = locker(server)
    for _ in range(3):
        lock.lock()
        lock.release()
    lock.lock()
    assert lock._acquisition.connector.connection is not None
    lock._acquisition.connector.connection.sock.shutdown(socket.SHUT_RDWR)
    lock.release()
    assert server.holders() == {}


def test_a_lock_whose_server_is_gone_can_not_be_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with Lockerd() as server:
        lock = locker(server)
        lock.lock()
        server.kill()
        monkeypatch.setattr(acquisition_module.LockAcquisition.release, "__defaults__", (0.3,))
        with pytest.raises(ServerUnavailable):
            lock.unlock()
        assert not lock.locked()
        with Lockerd(port=server.port):
            assert lock.acquire(timeout=5)
            lock.release()


def test_a_restarted_server_has_forgotten_the_lock() -> None:
    with Lockerd() as server:
        lock = locker(server)
        lock.lock()
        server.kill(signal.SIGTERM)
        with Lockerd(port=server.port), pytest.raises(LockLost):
            lock.release()


def test_a_server_that_hangs_up_on_everybody_is_given_up() -> None:
    with FakeTcpServer(close_at_once) as server:
        lock = Locker(host="127.0.0.1", port=server.port, connect_tries=2, connect_delay=0.1)
        with in_thread(lambda: pytest.raises(ServerUnavailable, lock.acquire, timeout=8)):
            pass
        assert server.connections < 100


@pytest.mark.parametrize("serve", [say_nothing, close_at_once])
def test_a_server_that_never_answers_gives_way_to_the_next(
    serve: Callable[[socket.socket], None], server: ThreadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_module, "ANSWER_WITHIN", 0.2)
    with FakeTcpServer(serve, "127.0.0.2", server.port) as bad:
        lock = locker(server, host="127.0.0.2:127.0.0.1", connect_tries=2, connect_delay=0.1)
        with in_thread(lambda: lock.acquire(timeout=8)) as got:
            wait_for(lambda: got or bad.connections > 300)
            assert got == [True]
        lock.release()


def test_a_time_out_holds_also_with_a_server_that_never_answers() -> None:
    with FakeTcpServer(say_nothing) as server:
        lock = Locker(host="127.0.0.1", port=server.port, connect_tries=1, connect_delay=0.1)
        begin = time.monotonic()
        with contextlib.suppress(ServerUnavailable):  # one or the other
            assert lock.acquire(timeout=0.3) is False
        assert time.monotonic() - begin < 8


# A classic server


@pytest.fixture
def classic() -> Iterator[ClassicServer]:
    with ClassicServer() as server:
        yield server


def test_a_classic_server_is_good_enough(classic: ClassicServer) -> None:
    lock = locker(classic, user="me")
    for _ in range(3):
        with lock:
            assert lock.locked() and lock.token is None
            assert lock.owner() == "me" and lock.lock_list() == [("lock", "me")]
    assert lock.ping() and lock.owner() is None
    locker(classic, user="ann").lock()
    lock.break_lock()
    assert lock.lock_list() == []


def test_lockers_of_one_process_exclude_each_other_there_too(classic: ClassicServer) -> None:
    first, second = locker(classic), locker(classic, block=False)
    assert first.lock() and second.lock() is None
    first.unlock()
    assert second.lock() is second
    second.unlock()


def test_a_connection_that_was_told_no_is_closed_before_a_classic_server_grants_it_the_lock(
    classic: ClassicServer,
) -> None:
    first, second = locker(classic, user="ann"), locker(classic, user="bob", block=False)
    first.lock()
    assert second.lock() is None
    wait_for(lambda: classic.seen("closed", "bob"), "the end of the connection")
    first.unlock()
    assert not classic.seen("granted late", "bob") and classic.holders == {}


def test_a_connection_to_a_classic_server_does_not_stay_open_while_the_lock_is_held(classic: ClassicServer) -> None:
    lock = locker(classic, user="ann")
    lock.lock()
    wait_for(lambda: classic.seen("closed", "ann"), "the end of the connection")
    assert lock.locked() and classic.holders == {"lock": "ann"}
    lock.unlock()
    assert classic.holders == {}


def test_waiting_at_a_classic_server(classic: ClassicServer) -> None:
    first, second = locker(classic, user="ann"), locker(classic, user="bob")
    first.lock()
    with in_thread(second.lock) as got:
        wait_for(lambda: classic.queue)
        first.unlock()
    assert got == [second] and classic.holders == {"lock": "bob"}
    second.unlock()


def test_a_wait_at_a_classic_server_that_is_over_is_given_back(classic: ClassicServer) -> None:
    first, second = locker(classic, user="ann"), locker(classic, user="bob")
    first.lock()
    assert second.acquire(timeout=0.1) is False
    assert classic.seen("UNLOCK", "bob")
    first.unlock()
    assert classic.holders == {}


def test_a_lock_whose_grant_was_never_heard_of_is_not_left_behind() -> None:
    """The server is stopped while it is asked, and reads the request when nobody waits for the answer any more."""
    with Lockerd() as server:
        lock = locker(server, lock="x", connect_tries=1)
        with server.stopped(), pytest.raises(ServerUnavailable):
            lock.acquire(timeout=0.2)
        other = locker(server, lock="x")
        assert other.acquire(timeout=DEADLINE)
        other.release()

"""Locker, as IPC::Locker has it and as threading.RLock has it, with real servers."""

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
from ...support.processes import in_child
from ...support.servers import Lockerd, ThreadServer
from ...support.waiting import DEADLINE, in_thread, wait_for

pytestmark = pytest.mark.usefixtures("no_settings_of_the_user")


def locker(server: ThreadServer | ClassicServer | Lockerd, **parameters: Any) -> Locker:
    given = {"host": "127.0.0.1", "port": server.port, "connect_tries": 1, "connect_delay": 0.1, **parameters}
    return Locker(**given)


def free_port() -> int:
    """A port that nobody listens on; bound for a moment, so that it is given to nobody else at once."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# IPC::Locker


def test_the_parameters_have_their_defaults(server: ThreadServer) -> None:
    lock = Locker(port=server.port)
    assert lock.lock() is lock
    (grant,) = server.server.term.service.table.held.values()
    assert (grant.name, grant.hold) == (b"lock", 1800)
    assert grant.process is not None and grant.process.pid == os.getpid()
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

    second = locker(server, timeout=0.5, wait_ready=sluggish)
    with in_thread(second.lock):
        wait_for(lambda: server.waiters())
        first.unlock()
    wait_for(lambda: not server.holders())
    assert not second.locked()


def test_user_pid_hostname_and_autounlock(server: ThreadServer) -> None:
    lock = locker(server, lock="a", user="somebody", autounlock=True, timeout=0)
    other = locker(server, lock="b", hostname="far.away", pid="77", autounlock=True)  # a word, as Perl has it
    assert lock.lock() and other.lock()
    held = server.server.term.service.table.held
    process = held[b"a"].process
    assert process is not None and held[b"a"].user == b"somebody" and held[b"a"].hold == 0
    assert (process.pid, process.host) == (os.getpid(), socket.gethostname().encode())
    assert process.start is not None and process.pidns is not None and len(process.boot) == 36
    process = held[b"b"].process
    assert process is not None and held[b"b"].user.startswith(b"far.away_77_")
    assert (process.pid, process.host, process.start, process.boot) == (77, b"far.away", None, b"")
    lock.unlock()
    other.dead_pid("far.away", "77")
    assert server.holders() == {}


@pytest.mark.parametrize("destroy_unlock", [True, False])
def test_a_locker_that_goes_away_unlocks_unless_told_otherwise(server: ThreadServer, destroy_unlock: bool) -> None:
    lock = locker(server, user="me", destroy_unlock=destroy_unlock)
    assert lock.lock()
    del lock
    gc.collect()
    server.turn()
    assert server.holders() == ({} if destroy_unlock else {"lock": "me"})


def test_a_locker_that_goes_away_unlocks_only_in_the_process_that_the_lock_belongs_to(server: ThreadServer) -> None:
    for pid, holders in ((os.getpid(), {}), (str(os.getpid()), {}), (os.getppid(), {"lock": "me"})):
        lock = locker(server, user="me", pid=pid)
        assert lock.lock()
        del lock
        gc.collect()
        server.turn()
        assert server.holders() == holders


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
    breaking = locker(server, lock="a")
    assert breaking.break_lock() is breaking
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
    first = locker(server, lock="a", user="ann")
    lock = locker(server, lock="a", **functions)
    first.lock()
    with in_thread(lock.lock):
        wait_for(lambda: server.waiters("a"))
        first.unlock()
    assert heard == [("waiting", lock, "a", "ann"), ("obtained", lock)]
    heard.clear()
    locker(server, lock="a", **functions).break_lock()
    assert [words[0] for words in heard] == ["broke"]
    heard.clear()
    lock.unlock()
    more: dict[str, Any] = {"connect_tries": 3, "connect_delay": 0.01, **functions}
    lost = Locker(host="127.0.0.1", port=free_port(), **more)
    assert lost.lock() is None
    assert heard == [("retry", lost), ("retry", lost), ("down", lost)]


def test_print_down_is_called_for_each_request_that_fails() -> None:
    """Those of IPC::Locker return then as if there were nothing to say; the others raise."""
    heard: list[Locker] = []
    lock = Locker(host="127.0.0.1", port=free_port(), connect_tries=1, print_down=heard.append)
    assert lock.lock() is None and lock.lock(block=False) is None
    assert lock.owner() is None and lock.lock_list() == [] and lock.break_lock() is lock
    lock.dead_pid("here", 1)
    assert lock.ping() is False and lock.ping_status()["ok"] is False
    assert heard == [lock] * 8
    for request in (lock.acquire, lock.__enter__):
        with pytest.raises(ServerUnavailable):
            request()
    assert heard == [lock] * 10


def test_print_down_is_called_when_the_server_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Locker] = []
    monkeypatch.setattr(acquisition_module.LockAcquisition.release, "__defaults__", (0.3,))
    with Lockerd() as server:
        lock = locker(server, print_down=heard.append)
        other = locker(server, lock="other", print_down=heard.append)
        assert lock.lock() and other.lock()
        server.kill()
        assert lock.unlock() is lock and not lock.locked()
        assert other.lock() is None and not other.locked()
    assert heard == [lock, other]


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_prints_on_stderr(server: ThreadServer, verbose: bool, capsys: pytest.CaptureFixture[str]) -> None:
    first, lock = locker(server, user="ann"), locker(server, verbose=verbose)
    first.lock()
    with in_thread(lock.lock):
        wait_for(lambda: server.waiters())
        first.unlock()
    lock.unlock()
    told = capsys.readouterr()
    assert told.out == ""
    assert ("waiting for lock lock: ann" in told.err and "obtained" in told.err) == verbose
    assert verbose or told.err == ""


@pytest.mark.parametrize("verbose", [True, False])
def test_what_is_said_while_no_server_answers(
    verbose: bool, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A program's log is its own affair; what it wants on stderr it says."""
    lock = Locker(host="127.0.0.1", port=free_port(), connect_tries=4, connect_delay=0.01, verbose=verbose)
    with pytest.raises(ServerUnavailable, match="start lockerd"):
        lock.lock()
    said = "start lockerd there, or name its host; trying again for 0 s"
    logged = [record for record in caplog.records if said in record.getMessage()]
    assert all((record.name, record.levelname) == ("ipclocker", "WARNING") for record in logged)
    assert (capsys.readouterr().err.count(f"{said}\n"), len(logged)) == ((3, 0) if verbose else (0, 3))
    assert not lock.locked()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"lock": ""}, "lock name"),
        ({"lock": "a b"}, "white space"),
        ({"lock": "a\n"}, "white space"),
        ({"lock": []}, "0 lock names"),
        ({"lock": [f"n{number}" for number in range(257)]}, "257 lock names"),
        ({"lock": "n" * 1025}, "'n{40}...' has 1025 bytes: choose one of 1024 at most"),
        ({"lock": ["\u00e9" * 512 + "n"]}, "has 1025 bytes"),
        ({"lock": [f"{number:03}" + "n" * 1000 for number in range(99)]}, "99396 bytes together"),
        ({"timeout": 999999999999.9999}, "timeout is '999999999999.9999'"),
        ({"host": ""}, "host"),
        ({"host": "a::b"}, "host list"),
        ({"host": "lockhost:1751"}, "'1751' in the host list 'lockhost:1751' is a number"),
        ({"host": ["a", "1751"]}, "'1751' .* is a number"),
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


def test_a_name_that_is_too_long_is_said_later_too(server: ThreadServer) -> None:
    lock = locker(server, lock="a")
    with pytest.raises(UsageError, match="has 1025 bytes"):
        lock.lock(lock="n" * 1025)
    assert lock.lock_name() == "a"
    assert lock.lock(lock="n" * 1024) is lock and lock.lock_name() == "n" * 1024
    lock.unlock()


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


# threading.RLock


@pytest.fixture(params=["Locker", "threading.RLock"])
def a_lock(request: pytest.FixtureRequest, server: ThreadServer) -> Any:
    return threading.RLock() if request.param == "threading.RLock" else locker(server)


def is_free(a_lock: Any) -> bool:
    """Whether another thread could have it, at this moment."""

    def get_and_release() -> bool:
        got = a_lock.acquire(False)
        if got:
            a_lock.release()
        return bool(got)

    with in_thread(get_and_release) as got:
        wait_for(lambda: got)
    return got == [True]


def test_acquire_and_release(a_lock: Any) -> None:
    assert a_lock.acquire() is True and not is_free(a_lock)
    assert a_lock.acquire(False) is True
    assert a_lock.acquire(blocking=False) is True
    assert a_lock.acquire(True, 0.01) is True
    assert a_lock.acquire(timeout=5) is True
    for _ in range(4):
        assert a_lock.release() is None and not is_free(a_lock)
    assert a_lock.release() is None and is_free(a_lock)
    assert a_lock.acquire(timeout=0) is True
    a_lock.release()


def test_another_thread_waits_for_it(a_lock: Any) -> None:
    a_lock.acquire()
    with in_thread(lambda: (a_lock.acquire(False), a_lock.acquire(timeout=0), a_lock.acquire(timeout=0.01))) as got:
        wait_for(lambda: got)
    assert got == [(False, False, False)]
    a_lock.release()


def test_a_with_within_a_with_keeps_it(a_lock: Any) -> None:
    with a_lock:
        with a_lock:
            with a_lock:
                pass
            assert not is_free(a_lock)
        assert not is_free(a_lock)
    assert is_free(a_lock)
    a_lock.acquire()
    with a_lock:
        pass
    assert not is_free(a_lock)
    a_lock.release()
    assert is_free(a_lock)


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
        assert not is_free(a_lock)
    assert is_free(a_lock)
    with pytest.raises(ZeroDivisionError), a_lock:
        raise ZeroDivisionError
    assert is_free(a_lock)


def test_another_thread_waits_and_may_not_release(a_lock: Any) -> None:
    a_lock.acquire()
    with in_thread(lambda: (a_lock.acquire(), a_lock.release())) as got:
        with in_thread(lambda: pytest.raises(RuntimeError, a_lock.release)) as refused:
            wait_for(lambda: refused)
        assert got == [] and not is_free(a_lock)
        a_lock.release()
        wait_for(lambda: got)
    assert got == [(True, None)] and is_free(a_lock)


def test_a_thread_that_waits_gives_up_in_time(a_lock: Any) -> None:
    a_lock.acquire()
    begin = time.monotonic()
    with in_thread(lambda: a_lock.acquire(timeout=0.2)) as got:
        wait_for(lambda: got)
    assert got == [False]
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
    assert most == [1] and is_free(a_lock)


def test_lockers_of_one_process_exclude_each_other(server: ThreadServer) -> None:
    inside, most = [0], [0]

    def work() -> None:
        lock = locker(server)
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


def test_lockers_with_the_same_user_are_one_holder() -> None:
    """In one process and in several: one takes the lock, another one releases it."""
    with Lockerd() as server:
        first, second = (locker(server, user="agreed", destroy_unlock=False) for _ in range(2))
        assert first.lock() and second.lock(block=False)
        assert first.token == second.token
        assert locker(server).lock(block=False) is None
        second.unlock()
        assert server.holders() == {}
        assert in_child(lambda: locker(server, user="agreed", destroy_unlock=False).lock())
        assert server.holders() == {"lock": "agreed"}
        assert first.unlock().lock() and first.unlock()
        assert server.holders() == {}


def test_waiting_lockers_with_the_same_user_all_get_the_lock(server: ThreadServer) -> None:
    """They take each other's place in the queue, since it is one holder's place; the other one asks again."""
    holder = locker(server)
    holder.lock()
    lockers = [locker(server, user="agreed") for _ in range(2)]
    with in_thread(lockers[0].lock) as one, in_thread(lockers[1].lock) as two:
        wait_for(lambda: server.waiters())
        holder.unlock()
    assert (one, two) == ([lockers[0]], [lockers[1]]) and server.holders() == {"lock": "agreed"}
    for lock in lockers:
        lock.unlock()
    assert server.holders() == {}


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

    lock, other = locker(server, wait_ready=wait), locker(server)
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

    first, lock = locker(server), locker(server, wait_ready=wait)
    first.lock()
    with pytest.raises(KeyboardInterrupt):
        lock.lock()
    assert not lock.locked()
    first.unlock()
    assert server.holders() == {}
    assert lock.acquire(timeout=2)
    lock.release()


# Forks


def test_a_fork_does_not_hold_its_parents_lock() -> None:
    with Lockerd() as server:
        lock = locker(server)
        assert lock.lock()
        holders = server.holders()
        assert in_child(lambda: not lock.locked() and lock.acquire(False) is False)
        assert in_child(lambda: pytest.raises(NotHeld, lock.release))
        assert in_child(lambda: (lock.__del__(), True)[1])  # type: ignore[func-returns-value]
        assert server.holders() == holders and lock.locked()
        lock.release()
        assert in_child(lambda: lock.acquire(timeout=DEADLINE))
        assert server.holders() != holders


def test_a_fork_that_leaves_the_body_of_a_with_does_not_give_back_its_parents_lock() -> None:
    with Lockerd() as server:
        lock = locker(server)

        def leave() -> bool:
            with contextlib.suppress(ZeroDivisionError):
                lock.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
            return True

        with lock:
            holders = server.holders()
            assert in_child(leave)
            assert server.holders() == holders


@pytest.mark.parametrize("parameters", [{}, {"lease": 60}, {"user": "me"}], ids=str)
def test_an_unlock_in_a_fork_gives_back_its_parents_lock(parameters: dict[str, Any]) -> None:
    with Lockerd() as server:
        lock = locker(server, **parameters)
        assert lock.lock()
        assert in_child(lambda: lock.unlock() is lock)
        assert server.holders() == {}
        with pytest.raises(LockLost):
            lock.release()
        assert lock.lock(), "and it can be had again"
        assert in_child(lambda: not lock.locked() and in_child(lambda: lock.unlock() is lock))
        assert server.holders() == {}


def test_an_unlock_in_a_fork_gives_back_what_the_fork_has_got_first() -> None:
    with Lockerd() as server:
        lock = locker(server, lock="a")
        assert lock.lock()
        assert in_child(lambda: lock.lock(lock="b") and lock.unlock().unlock() is lock)
        assert list(server.holders()) == ["a"]
        lock.release()


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


def test_a_host_of_the_list_may_have_a_port_of_its_own(server: ThreadServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadServer("127.0.0.2") as second:
        hosts = f"127.0.0.9:[127.0.0.2]:{second.port}:127.0.0.1"
        for given in (hosts, [hosts], hosts.split(":", 1)):
            with locker(server, host=given, user="me"):
                assert (server.holders(), second.holders()) == ({}, {"lock": "me"})
        monkeypatch.setenv("IPCLOCKER_HOST", f"[127.0.0.2]:{second.port}")
        with locker(server, host=None, user="me"):
            assert second.holders() == {"lock": "me"}


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


def test_a_lock_that_could_not_be_given_back_is_not_in_its_own_lockers_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that comes back remembers it, and the next time is another one."""
    state = ("--state", str(tmp_path / "state"))
    with Lockerd(*state) as server:
        lock = locker(server)
        lock.lock()
        token = lock.token
        server.kill()
        monkeypatch.setattr(acquisition_module.LockAcquisition.release, "__defaults__", (0.3,))
        with pytest.raises(ServerUnavailable):
            lock.unlock()
        with Lockerd(*state, port=server.port) as again:
            assert len(again.holders()) == 1
            assert lock.acquire(timeout=DEADLINE) and (lock.token or 0) > (token or 0)
            lock.release()
            assert again.holders() == {}


def test_a_lock_is_given_back_over_a_new_connection(server: ThreadServer) -> None:
    lock = locker(server)
    for _ in range(3):
        assert lock.lock()
        assert lock._holding.acquisition.connector.connection is not None
        lock._holding.acquisition.connector.connection.sock.shutdown(socket.SHUT_RDWR)
        lock.release()
        assert server.holders() == {}


def test_a_locker_that_is_used_again_stays_with_its_server_as_well(server: ThreadServer) -> None:
    lock = locker(server)
    for _ in range(3):
        lock.lock()
        lock.release()
    lock.lock()
    assert lock._holding.acquisition.connector.connection is not None
    lock._holding.acquisition.connector.connection.sock.shutdown(socket.SHUT_RDWR)
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

        def get_and_release() -> bool:
            got = lock.acquire(timeout=8)
            lock.release()
            return got

        with in_thread(get_and_release) as got:
            wait_for(lambda: got or bad.connections > 300)
            assert got == [True]


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
    assert second.acquire(timeout=1) is False
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

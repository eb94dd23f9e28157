"""How long the calls of a Locker take when the server is not what it should be; and the times that one may give."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from functools import partial
from math import inf, nan
from pathlib import Path
from typing import Any, Callable

import pytest

from ipclocker import IpclockerError, LockBusy, Locker, ServerUnavailable, UsageError
from ipclocker.lock.client.connection import wait_ready

from ...support.fake_servers import (
    FakeTcpServer,
    Proxy,
    black_hole,
    close_at_once,
    say_half_a_line,
    say_nothing,
    trickle,
)
from ...support.servers import Lockerd, ThreadServer
from ...support.waiting import DEADLINE, in_thread, wait_for

pytestmark = pytest.mark.usefixtures("no_settings_of_the_user")
SOON = 9.0  # seconds; 5 are promised
T = 1.0  # seconds; the timeout of the tests
T_SOON = T + 3  # seconds; half a second more is promised

Place = dict[str, Any]  # parameters of a Locker


def release(lock: Locker) -> bool:
    lock.release()
    return True


# Servers that are not there


@contextlib.contextmanager
def refused(host: str = "127.0.0.1") -> Iterator[Place]:
    with socket.socket() as sock:
        sock.bind((host, 0))  # and does not listen
        yield {"host": host, "port": sock.getsockname()[1]}


@contextlib.contextmanager
def cut_off(host: str = "127.0.0.1") -> Iterator[Place]:
    with black_hole(host) as port:
        yield {"host": host, "port": port}


@contextlib.contextmanager
def stopped(host: str = "127.0.0.1") -> Iterator[Place]:
    with Lockerd(host=host) as server, server.stopped():
        yield {"host": host, "port": server.port}


@contextlib.contextmanager
def answering(serve: Callable[[socket.socket], None], host: str = "127.0.0.1") -> Iterator[Place]:
    with FakeTcpServer(serve, host) as server:
        yield {"host": host, "port": server.port}


silent = partial(answering, say_nothing)
DEAD: dict[str, Callable[..., contextlib.AbstractContextManager[Place]]] = {
    "refused": refused,
    "cut_off": cut_off,
    "stopped": stopped,
    "silent": silent,
    "half_a_line": partial(answering, say_half_a_line),
    "hanging_up": partial(answering, close_at_once),
    "trickling": partial(answering, trickle),
}


@contextlib.contextmanager
def mixed(host: str = "127.0.0.1") -> Iterator[Place]:
    """Several hosts, each dead in its own way."""
    with contextlib.ExitStack() as stack:
        places = [
            stack.enter_context(DEAD[kind](f"127.0.0.{number}"))
            for number, kind in enumerate(("refused", "cut_off", "silent", "stopped", "half_a_line"), 11)
        ]
        yield {"host": [f"[{place['host']}]:{place['port']}" for place in places]}


in_each_state = pytest.mark.parametrize("dead", [*DEAD.values(), mixed], ids=[*DEAD, "mixed"])


class SlowNames:
    """Look-ups of "slow.example" that take until `answer` is called, and are answered by 127.0.0.1 then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._answered = threading.Event()
        self._look_up = socket.getaddrinfo
        self.asked = 0
        self.answer = self._answered.set
        monkeypatch.setattr(socket, "getaddrinfo", self._find)

    def _find(self, host: Any, *words: Any, **named: Any) -> Any:
        if host != "slow.example":
            return self._look_up(host, *words, **named)
        self.asked += 1
        self._answered.wait(30)
        return self._look_up("127.0.0.1", *words, **named)


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowNames]:
    names = SlowNames(monkeypatch)
    yield names
    names.answer()
    wait_for(lambda: not any(thread.name == "ipclocker look-up" for thread in threading.enumerate()))


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert took < seconds, f"it took {took:.1f} s"


# Calls that do not wait for a lock

CALLS: dict[str, Callable[[Locker], object]] = {
    "acquire": lambda lock: lock.acquire(blocking=False),
    "lock": lambda lock: lock.lock(block=False),
    "owner": lambda lock: lock.owner(),
    "lock_list": lambda lock: lock.lock_list(),
    "check": lambda lock: lock.check("x", 1),
    "break_lock": lambda lock: lock.break_lock(),
    "dead_pid": lambda lock: lock.dead_pid("far", 1),
}


@in_each_state
def test_with_a_dead_server_no_call_that_does_not_wait_takes_longer_than_5_s(
    dead: Callable[[], contextlib.AbstractContextManager[Place]],
) -> None:
    """With the tries that there are by default, which are minutes."""

    def ask(call: Callable[[Locker], object]) -> None:
        with within(SOON), pytest.raises(ServerUnavailable) as caught:
            call(Locker(**place))
        assert "\n" not in str(caught.value)

    def ping() -> None:
        with within(SOON):
            assert Locker(**place).ping() is False
        with within(SOON):
            status = Locker.ping_status(**place)
        assert status["ok"] is False and status["status"] and "\n" not in status["status"]

    with dead() as place, contextlib.ExitStack() as stack:
        for call in CALLS.values():
            stack.enter_context(in_thread(lambda call=call: ask(call)))  # type: ignore[misc]
        stack.enter_context(in_thread(ping))


def test_a_slow_look_up_holds_up_none_of_them(slow_names: SlowNames) -> None:
    def ask(call: Callable[[Locker], object]) -> None:
        with within(SOON), pytest.raises(ServerUnavailable, match=r"slow\.example"):
            call(Locker(host="slow.example"))

    with within(SOON):
        assert Locker(host="slow.example").ping() is False
    with contextlib.ExitStack() as stack:
        for call in CALLS.values():
            stack.enter_context(in_thread(lambda call=call: ask(call)))  # type: ignore[misc]
    assert slow_names.asked == 1  # one thread waits for the answer, for all


@pytest.mark.parametrize("kind", ["refused", "cut_off", "stopped", "silent", "half_a_line", "hanging_up"])
def test_behind_a_dead_host_the_one_that_answers_is_asked(kind: str, server: ThreadServer) -> None:
    """All hosts get their share of the time."""
    with DEAD[kind]("127.0.0.12") as place:
        hosts: Place = {"host": [f"[{place['host']}]:{place['port']}", f"[127.0.0.1]:{server.port}"]}
        with within(SOON):
            assert Locker(**hosts).ping() is True
        with within(SOON):
            assert Locker(**hosts).owner() is None and Locker(**hosts).lock_list() == []
        lock = Locker(**hosts)
        with within(SOON):
            assert lock.acquire(blocking=False) is True
        assert server.holders()
        lock.release()
        with within(SOON):
            assert lock.lock(block=False) is lock
        lock.unlock()
        with within(SOON):
            assert lock.acquire(timeout=5)
        lock.release()
        assert server.holders() == {}


@pytest.mark.parametrize("parameters", [{}, {"lease": 60}])
def test_a_renewal_that_does_not_wait_takes_no_longer(parameters: dict[str, Any]) -> None:
    with Lockerd() as server:
        lock = Locker(host="127.0.0.1", port=server.port, **parameters)
        assert lock.lock()
        with server.stopped():
            with within(SOON), pytest.raises(ServerUnavailable):
                lock.lock(block=False)
            assert not lock.locked() and lock.lost.is_set()
            with within(SOON), contextlib.suppress(IpclockerError):
                lock.unlock()
        lock.unlock()
        wait_for(lambda: server.holders() == {})


# acquire(timeout=T)


@in_each_state
@pytest.mark.parametrize("parameters", [{}, {"all": True, "lock": ["a", "b"]}], ids=["one", "all"])
def test_with_a_dead_server_acquire_ends_with_its_timeout(
    dead: Callable[[], contextlib.AbstractContextManager[Place]], parameters: dict[str, Any]
) -> None:
    with dead() as place:
        lock = Locker(**place, **parameters)
        for timeout in (T, 0, 0.05):
            with within(timeout + 3), pytest.raises(ServerUnavailable):
                lock.acquire(timeout=timeout)
            assert not lock.locked()


def test_the_end_of_one_that_got_no_answer_takes_no_time() -> None:
    """What it asked for is given back by what it has sent already."""
    with Lockerd() as server:
        with server.stopped():
            lockers = [Locker("x", host="127.0.0.1", port=server.port) for _ in range(8)]
            for lock in lockers:
                with pytest.raises(ServerUnavailable):
                    lock.acquire(timeout=0.05)
            with within(6):
                del lock
                lockers.clear()
                gc.collect()
        with Locker("x", host="127.0.0.1", port=server.port, wait=DEADLINE):
            pass
        wait_for(lambda: server.holders() == {})


def test_the_end_of_many_whose_server_is_gone_takes_no_time_for_each() -> None:
    with Lockerd() as server:
        held = [Locker(f"x{number}", host="127.0.0.1", port=server.port) for number in range(12)]
        assert all(lock.acquire(blocking=False) for lock in held)
        with server.stopped(), within(8), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            held.clear()
            gc.collect()


def test_a_slow_look_up_does_not_hold_up_a_timeout(slow_names: SlowNames, server: ThreadServer) -> None:
    lock = Locker(host="slow.example", port=server.port)
    for _ in range(2):
        with within(T_SOON), pytest.raises(ServerUnavailable, match=r"slow\.example"):
            lock.acquire(timeout=T)
    assert slow_names.asked == 1
    with in_thread(lambda: [lock.acquire(timeout=DEADLINE), release(lock)]):
        slow_names.answer()
    assert server.holders() == {}


def test_a_slow_name_among_others_leaves_them_their_time(slow_names: SlowNames, server: ThreadServer) -> None:
    lock = Locker(host=["slow.example", f"[127.0.0.1]:{server.port}"])
    gets: list[Callable[[], Any]] = [lambda: lock.acquire(timeout=4), lambda: lock.acquire(blocking=False)]
    for get in gets:
        with within(SOON):
            assert get() is True
        lock.release()


@pytest.mark.parametrize(
    "get",
    [lambda lock: lock.acquire(blocking=False), lambda lock: lock.acquire(timeout=6), lambda lock: lock.ping()],
    ids=["acquire(blocking=False)", "acquire(timeout=6)", "ping"],
)
def test_behind_several_silent_hosts_the_one_that_answers_has_its_time(
    get: Callable[[Locker], bool], server: ThreadServer
) -> None:
    with silent("127.0.0.12") as first, silent("127.0.0.13") as second:
        places = [f"[{place['host']}]:{place['port']}" for place in (first, second)]
        lock = Locker(host=[*places, f"[127.0.0.1]:{server.port}"])
        with within(SOON):
            assert get(lock) is True
        with contextlib.suppress(ServerUnavailable):
            lock.unlock()
        assert server.holders() == {}


@pytest.mark.parametrize("lease", [0, 60])
def test_a_server_that_stops_before_it_is_asked(lease: float) -> None:
    with Lockerd() as server:
        lock = Locker(host="127.0.0.1", port=server.port, lease=lease)
        with lock:
            pass  # so that a connection is open
        with server.stopped():
            with within(T_SOON), pytest.raises(ServerUnavailable):
                lock.acquire(timeout=T)
            assert not lock.locked()
        wait_for(lambda: server.holders() == {})
        with lock:
            assert len(server.holders()) == 1
        assert server.holders() == {}


@pytest.mark.parametrize("lease", [0, 60])
@pytest.mark.parametrize("names", [["lock"], ["a", "lock"]])
def test_a_server_that_stops_while_one_waits_in_its_queue(lease: float, names: list[str]) -> None:
    with Lockerd() as server:
        holder = Locker(host="127.0.0.1", port=server.port)
        waits = threading.Event()
        lock = Locker(
            names,
            all=True,
            host="127.0.0.1",
            port=server.port,
            lease=lease,
            print_waiting=lambda *words: waits.set(),
        )
        holder.lock()
        stop = server.stopped()

        def acquire() -> bool:
            with within(T_SOON):
                return lock.acquire(timeout=T)

        with in_thread(acquire) as got:
            assert waits.wait(DEADLINE)
            stop.__enter__()
        assert got == [False]
        stop.__exit__(None, None, None)
        holder.unlock()
        wait_for(lambda: server.holders() == {})
        with lock:
            assert len(server.holders()) == len(names)
        assert server.holders() == {}


def test_a_grant_that_comes_after_the_timeout_is_not_left_on_the_server(server: ThreadServer) -> None:
    """All that is sent to the server arrives late, and so do the requests that take it back."""
    with Proxy(server.port, delay=T) as far:
        lock = Locker(host="127.0.0.1", port=far.port)
        for _ in range(3):
            with within(T_SOON), contextlib.suppress(ServerUnavailable):
                assert lock.acquire(timeout=0.1) is False
        wait_for(lambda: server.waiters() == 0 and server.holders() == {})
        assert lock.acquire(timeout=DEADLINE)
        lock.unlock()
        time.sleep(T)
        assert server.holders() == {} and server.waiters() == 0


def test_a_way_to_the_server_that_breaks_off_unseen(server: ThreadServer) -> None:
    """Nothing comes through any more, and nobody is told; a new connection would do."""
    with Proxy(server.port) as way:
        lock = Locker(host="127.0.0.1", port=way.port)
        with lock:
            pass
        way.swallow()
        with within(T_SOON), contextlib.suppress(ServerUnavailable):
            if lock.acquire(timeout=T):
                lock.release()
        with lock:
            assert lock.locked()
        assert server.holders() == {}


def test_another_thread_of_this_process_that_waits_for_a_dead_server_holds_up_no_timeout() -> None:
    asked = threading.Event()

    def wait(*words: Any) -> bool:
        asked.set()
        return wait_ready(*words)

    with Lockerd() as server, contextlib.ExitStack() as dead:
        lock = Locker(host="127.0.0.1", port=server.port, wait_ready=wait)
        dead.enter_context(server.stopped())
        with in_thread(lambda: [lock.acquire(timeout=DEADLINE), release(lock)]) as got:
            assert asked.wait(DEADLINE)
            with within(T_SOON):
                assert lock.acquire(timeout=T) is False
            with within(SOON):
                assert lock.acquire(blocking=False) is False
            dead.close()
        assert got == [[True, True]] and server.holders() == {}


# What is a time


@pytest.mark.parametrize("timeout", [nan, -2, -0.5, -inf, "1", "inf", b"1", True, [1]])
def test_what_is_no_timeout_is_said(server: ThreadServer, timeout: Any) -> None:
    lock = Locker(host="127.0.0.1", port=server.port)
    with pytest.raises(ValueError, match="timeout"):
        lock.acquire(timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        lock.acquire(True, timeout)
    with lock, pytest.raises(ValueError, match="timeout"):  # also if it is held already
        lock.acquire(timeout=timeout)
    assert server.holders() == {}


@pytest.mark.parametrize("name", ["hold", "timeout", "lease", "wait", "connect_delay"])
@pytest.mark.parametrize("value", [nan, -1, -inf, "1", b"1", True, [1], 1e99])
def test_what_is_no_time_is_said(server: ThreadServer, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        Locker(**Place({name: value}))
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)
    lock = Locker(host="127.0.0.1", port=server.port)
    with pytest.raises(UsageError, match=name):
        lock.lock(**Place({name: value}))
    with lock:  # it is as it was
        assert lock.settings.hold == 1800
    assert server.holders() == {}


@pytest.mark.parametrize("name", ["hold", "timeout", "lease", "connect_delay"])
def test_these_times_have_an_end(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        Locker(**Place({name: inf}))


@pytest.mark.parametrize("timeout", [inf, None, -1, -1.0])
def test_these_timeouts_are_for_ever(server: ThreadServer, timeout: Any) -> None:
    holder, lock = (Locker(host="127.0.0.1", port=server.port) for _ in range(2))
    with holder, in_thread(lambda: [lock.acquire(timeout=timeout), release(lock)]) as got:
        wait_for(lambda: server.waiters() == 1)
        time.sleep(0.5)
        assert got == [] and server.waiters() == 1
        holder.release()
        wait_for(lambda: got)
        holder.acquire()
    assert got == [[True, True]]


@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9])
def test_a_timeout_of_nothing_asks_once(server: ThreadServer, timeout: float) -> None:
    holder, lock = (Locker(host="127.0.0.1", port=server.port) for _ in range(2))
    with holder:
        assert lock.acquire(timeout=timeout) is False
        assert server.waiters() == 0
    if timeout == 0:
        assert lock.acquire(timeout=timeout) is True
        lock.release()


@pytest.mark.parametrize("timeout", [0, 1, None, inf, nan])
def test_a_timeout_without_blocking_is_a_contradiction(server: ThreadServer, timeout: Any) -> None:
    with pytest.raises(UsageError, match="non-blocking"):
        Locker(host="127.0.0.1", port=server.port).acquire(blocking=False, timeout=timeout)


@pytest.mark.parametrize("blocking", [None, "no", 2, nan])
def test_blocking_is_true_or_false(server: ThreadServer, blocking: Any) -> None:
    with pytest.raises(UsageError, match=r"blocking is .*: it takes True or False"):
        Locker(host="127.0.0.1", port=server.port).acquire(blocking)


# wait


def test_wait_bounds_with_and_lock(server: ThreadServer) -> None:
    place: Place = {"host": "127.0.0.1", "port": server.port}
    with Locker(user="ann", **place):
        lock = Locker(wait=0.3, **place)
        gets: list[Callable[[], Any]] = [lock.__enter__, lock.lock, lambda: lock.lock(wait=0.2)]
        for get in gets:
            begin = time.monotonic()
            with within(T_SOON), pytest.raises(LockBusy, match="ann") as caught:
                get()
            assert time.monotonic() - begin >= 0.2 and isinstance(caught.value, TimeoutError)
            assert not lock.locked() and server.waiters() == 0
        gets = [
            lambda: Locker(wait=0, **place).__enter__(),
            lambda: Locker(wait=0, **place).lock(),
        ]
        for get in gets:
            with within(T_SOON), pytest.raises(LockBusy):
                get()
        assert lock.lock(block=False) is None  # block goes before wait
    with lock:
        assert lock.locked()
    assert server.holders() == {}


@pytest.mark.parametrize("wait", [None, inf, {}])
def test_without_a_bound_they_wait(server: ThreadServer, wait: Any) -> None:
    parameters = {} if wait == {} else {"wait": wait}
    for name in ("__enter__", "lock"):
        holder, lock = (Locker(host="127.0.0.1", port=server.port, **parameters) for _ in range(2))
        with holder, in_thread(lambda: (getattr(lock, name)(), lock.unlock())) as got:  # noqa: B023
            wait_for(lambda: server.waiters() == 1)
            time.sleep(0.3)
            assert got == []
            holder.unlock()
            wait_for(lambda: got)
            holder.lock()


def test_wait_does_not_bound_acquire(server: ThreadServer) -> None:
    holder, lock = (Locker(host="127.0.0.1", port=server.port, wait=0.1) for _ in range(2))
    with holder, in_thread(lambda: [lock.acquire(), release(lock)]) as got:
        wait_for(lambda: server.waiters() == 1)
        time.sleep(0.5)
        assert got == []
        holder.release()
        wait_for(lambda: got)
        holder.acquire()


@in_each_state
def test_wait_ends_also_with_a_dead_server(dead: Callable[[], contextlib.AbstractContextManager[Place]]) -> None:
    with dead() as place:
        lock = Locker(wait=T, **place)
        gets: list[Callable[[], Any]] = [lock.__enter__, lock.lock]
        for get in gets:
            with within(T_SOON), pytest.raises(ServerUnavailable):
                get()
            assert not lock.locked()


def test_wait_bounds_the_renewal_of_what_is_held() -> None:
    with Lockerd() as server:
        lock = Locker(host="127.0.0.1", port=server.port, wait=T)
        lock.lock()
        with server.stopped():
            with within(T_SOON), pytest.raises(ServerUnavailable):
                lock.lock()
            assert not lock.locked()
        lock.unlock()
        assert server.holders() == {}
        with lock:
            assert lock.locked()


def test_wait_is_for_another_thread_of_this_process_too(server: ThreadServer) -> None:
    lock = Locker(host="127.0.0.1", port=server.port, wait=0.2)
    with lock, in_thread(lambda: pytest.raises(LockBusy, lock.__enter__)) as got:
        wait_for(lambda: got)
    assert server.holders() == {}


# hold, timeout, lease


def test_hold_and_timeout_are_one(server: ThreadServer) -> None:
    place: Place = {"host": "127.0.0.1", "port": server.port}
    given: list[tuple[Place, float]] = [({"hold": 7}, 7), ({"timeout": 7}, 7), ({"hold": 0}, 0)]
    for parameters, hold in (*given, ({}, 1800), ({"hold": None}, 1800)):
        with Locker(**place, **parameters):
            (grant,) = server.server.term.service.table.held.values()
            assert grant.hold == hold
    with pytest.raises(UsageError, match="two names for one time"):
        Locker(hold=1, timeout=1)


def test_lock_may_change_the_one_that_the_other_has_set(server: ThreadServer) -> None:
    lock = Locker(host="127.0.0.1", port=server.port, timeout=7)
    assert lock.lock(hold=8)
    assert lock.settings.hold == 8
    lock.unlock()
    assert lock.lock(timeout=9)
    assert lock.settings.hold == 9
    lock.unlock()
    with pytest.raises(UsageError, match="two names for one time"):
        lock.lock(hold=1, timeout=2)


def test_a_lease_goes_with_no_hold() -> None:
    for name in ("hold", "timeout"):
        with pytest.raises(UsageError, match="lease"):
            Locker(**Place({name: 5, "lease": 5}))
        assert Locker(**Place({name: 0, "lease": 5})).settings.hold == 5
    with pytest.raises(UsageError, match="lease"):
        Locker(lease=2.9)


def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    with within(SOON), pytest.raises(ServerUnavailable):
        Locker(path=str(tmp_path / "socket")).acquire(blocking=False)

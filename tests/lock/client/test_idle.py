"""Connections of Lockers that hold nothing: kept for the next time, but not for more than a minute."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclocker import Locker
from ipclocker.lock.client import idle
from ipclocker.lock.client.connection import ServerConnection
from ipclocker.net.address import Address

from ...support.fake_servers import Proxy
from ...support.keepalive import background_threads, end_background
from ...support.open_files import open_files
from ...support.processes import in_child
from ...support.servers import Lockerd
from ...support.waiting import DEADLINE, wait_for

MINUTE = 60.0


@pytest.fixture(autouse=True)
def no_thread() -> Iterator[None]:
    end_background()
    yield
    end_background()
    assert not idle._parked


@pytest.fixture(scope="module")
def server() -> Iterator[Lockerd]:
    with Lockerd() as running:
        yield running


def locker(port: int, **parameters: Any) -> Locker:
    return Locker(host="127.0.0.1", port=port, connect_tries=1, **parameters)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(idle, "SHORTEST_PAUSE", 0.01)


class Connection:
    """What is parked, without a socket."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.parked_at = now()
        self.closed_at: float | None = None

    def close(self) -> None:
        self.closed_at = self.now()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 40)), max_size=30))
def test_each_is_closed_within_a_minute_and_none_that_is_in_use(story: list[tuple[int, bool, float]]) -> None:
    """Of some owners that park and take back, with a thread that wakes up when it has said that it will."""
    now = 1000.0
    parked: dict[int, Connection] = {}
    closed: list[Connection] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idle, "time", SimpleNamespace(monotonic=lambda: now))
        sweeps: list[Any] = []
        wakes: list[float] = []

        def start_sweep() -> None:
            idle._sweep = idle._Sweep()
            sweeps[:] = [idle._sweep.steps()]
            wakes[:] = [next(sweeps[0])[2]]

        def pass_until(when: float) -> None:
            nonlocal now
            while sweeps and wakes[0] <= when:
                now = max(now, wakes[0])
                try:
                    wakes[:] = [sweeps[0].send(False)[2]]
                except StopIteration:
                    sweeps.clear()
            now = max(now, when)

        patch.setattr(idle, "_start_sweep", start_sweep)
        for owner, parks, pause in story:
            known = parked.pop(owner, None)
            taken: object = idle.take(owner)
            assert taken is known if known is None or known.closed_at is None else taken is None
            if parks:
                connection = parked[owner] = Connection(lambda: now)
                closed.append(connection)
                idle.park(owner, connection)  # type: ignore[arg-type]
            pass_until(now + pause)
        pass_until(now + 10 * MINUTE)
        assert not sweeps and idle._sweep.is_over and not idle._parked
        left = [connection for connection in closed if connection in parked.values()]
        assert all(connection.closed_at is not None for connection in left)
    for connection in closed:
        if connection.closed_at is not None:
            assert 50 <= connection.closed_at - connection.parked_at <= MINUTE


@pytest.mark.usefixtures("soon")
def test_a_released_locker_keeps_no_descriptor_and_no_thread(server: Lockerd) -> None:
    before = open_files()
    locks = [locker(server.port, lock=f"a{number}") for number in range(5)]
    for _ in range(3):
        for lock in locks:
            assert lock.acquire()
        assert len(open_files() - before) >= len(locks)
        for lock in locks:
            lock.release()
        wait_for(lambda: open_files() == before and background_threads() == 0, "all to be closed")


@pytest.mark.usefixtures("soon")
def test_one_that_holds_its_lock_keeps_its_connection(server: Lockerd) -> None:
    with Proxy(server.port) as proxy:
        other = locker(server.port, lock="b1")
        with locker(proxy.port, lock="b2") as lock:
            before = open_files()
            with other:
                pass
            wait_for(lambda: open_files() == before and background_threads() == 0, "the other one to be closed")
            assert lock._holding.acquisition.connector.connection is not None
        assert proxy.connections == 1


def test_one_connection_is_used_again_and_again(server: Lockerd) -> None:
    with Proxy(server.port) as proxy:
        lock = locker(proxy.port, lock="c")
        for _ in range(50):
            with lock:
                assert background_threads() <= 1
        assert proxy.connections == 1 and background_threads() == 1
        del lock
        assert not idle._parked, "who deletes it closes it"


@pytest.mark.parametrize("seconds", [0.0, 0.0005])
def test_the_owner_and_the_thread_never_use_it_both(
    server: Lockerd, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(idle, "IDLE_SECONDS", seconds)
    monkeypatch.setattr(idle, "SHORTEST_PAUSE", seconds)
    problems: list[str] = []
    before = open_files()

    def work(name: str) -> None:
        lock = locker(server.port, lock=name, print_retry=lambda *_: problems.append("retry"))
        on_lost = lock._holding.acquisition.connector.on_lost

        def note(problem: OSError) -> None:
            problems.append(str(problem))
            on_lost(problem)

        lock._holding.acquisition.connector.on_lost = note  # type: ignore[method-assign]
        for _ in range(300):
            with lock:
                pass

    threads = [threading.Thread(target=work, args=[f"d{number}"]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert problems == []
    wait_for(lambda: open_files() == before, "all to be closed")


def test_without_a_thread_it_is_closed_at_once(server: Lockerd, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = open_files()
    lock = locker(server.port, lock="e")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with lock:
                pass
            assert open_files() == before
    with lock:
        pass
    assert len(idle._parked) == 1


def test_a_process_has_no_thread_for_idle_connections_while_it_is_forked(server: Lockerd) -> None:
    before = open_files()
    lock = locker(server.port, lock="f")
    for _ in range(3):
        with lock:
            pass
        assert background_threads() == 1

        def child() -> bool:
            assert open_files() == before and background_threads() == 0
            with lock:
                pass
            return background_threads() == 1

        assert in_child(child)
        assert background_threads() == 0 and open_files() == before


def test_beside_a_lease_too_a_child_gets_no_copies(server: Lockerd) -> None:
    before = open_files()
    with locker(server.port, lock="g1", lease=60):
        for _ in range(3):
            with locker(server.port, lock="g2") as other:
                pass
            assert len(idle._parked) == 1
            pid = os.fork()
            if not pid:
                os._exit(len([entry for entry in open_files() - before if "socket" in entry]))
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1, "that of the lock that is held"
            assert not idle._parked and background_threads() == 1
            del other


def test_what_is_parked_while_a_sweep_comes_to_its_end_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Just after the sweep has found nothing, or just before it says so."""
    ours, theirs = socket.socketpair()
    connection = ServerConnection(ours, Address(socket.AF_UNIX, ""))
    sweep = idle._Sweep()
    monkeypatch.setattr(idle, "_sweep", sweep)
    monkeypatch.setattr(idle, "IDLE_SECONDS", 0.0)
    steps = sweep.steps()

    class Late(dict[object, Any]):
        """Empty at the first look, and no more at the second."""

        looks = 0

        def __bool__(self) -> bool:
            self.looks += 1
            if self.looks == 2:
                self["owner"] = (connection, 0.0)
            return len(self) > 0

    monkeypatch.setattr(idle, "_parked", Late())
    next(steps)
    assert not sweep.is_over
    with pytest.raises(StopIteration):
        steps.send(False)
    assert sweep.is_over and ours.fileno() == -1
    theirs.close()

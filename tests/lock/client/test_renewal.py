"""The leases of many Lockers, which one thread renews, whatever their servers do."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ipclocker import Locker
from ipclocker.lock.client import background, renewal
from ipclocker.lock.client.acquisition import LockAcquisition
from ipclocker.lock.client.connector import ServerConnector
from ipclocker.lock.client.keepalive import KeepAlive
from ipclocker.lock.client.renewal import Renewal
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.model import HeldGrant
from ipclocker.net.address import Address

from ...support.fake_servers import black_hole
from ...support.interrupt import Interrupt
from ...support.keepalive import background_threads, is_settled, renewed_leases
from ...support.open_files import open_files
from ...support.processes import in_child
from ...support.servers import Lockerd, ThreadServer
from ...support.waiting import wait_for
from .test_acquisition import Ear

pytestmark = pytest.mark.usefixtures("no_thread")
LEASE = 6.0  # seconds: the shortest that leaves some time on a machine under load
FOR_EVER = 600.0


@pytest.fixture
def server() -> Iterator[Lockerd]:
    with Lockerd() as running:
        yield running


def lockers(server: Any, count: int, lease: float, prefix: str = "x") -> list[Locker]:
    made = [
        Locker(host="127.0.0.1", port=server.port, lock=f"{prefix}{number}", lease=lease, connect_tries=1)
        for number in range(count)
    ]
    for lock in made:
        assert lock.acquire(timeout=0)
    return made


def keepalive_of(lock: Locker) -> Any:
    return lock._holding._renewal and lock._holding._renewal._keepalive


def lose(locks: list[Locker]) -> None:
    """Forget locks whose server is gone, without a wait for it."""
    for lock in locks:
        if lock._holding._renewal is not None:
            lock._holding._renewal.stop()
        lock._holding.acquisition.grants = ()


def held_at(address: Address, names: int, lease: float, lost: threading.Event, length: int = 1) -> Renewal:
    """A lease as if it had been granted just now by a server at that address."""
    connector = ServerConnector(LockSettings(lease=lease))
    connector.address, connector.server = address, str(address)
    grants = [HeldGrant(b"%d" % number + b"x" * length, 1, time.monotonic(), FOR_EVER) for number in range(names)]
    acquisition = SimpleNamespace(settings=connector.settings, connector=connector, grants=grants)
    return Renewal(cast(LockAcquisition, acquisition), lost)


def test_many_leases_one_thread(server: Lockerd) -> None:
    locks = lockers(server, 300, FOR_EVER)
    wait_for(lambda: all(is_settled(keepalive_of(lock)) for lock in locks), "a renewal of each")
    assert background_threads() == 1 and threading.active_count() < 20 and renewed_leases() == 300
    server.ask("locks x7; BREAK_LOCK")
    assert locks[7].lost.wait(60) and sum(lock.lost.is_set() for lock in locks) == 1
    for lock in locks[:7] + locks[8:]:
        lock.release()
    assert renewed_leases() == 0 and server.holders() == {}


def test_servers_that_are_gone_hold_up_no_renewal_at_another(server: Lockerd) -> None:
    """One stands still with what it has granted, one takes no connection, one reads nothing."""
    lost = threading.Event()
    with Lockerd() as still, black_hole() as hole, socket.create_server(("127.0.0.1", 0)) as deaf:
        gone = lockers(still, 20, LEASE)
        good = lockers(server, 20, LEASE)
        nowhere = [
            held_at(Address(socket.AF_INET, ("127.0.0.1", hole)), 1, LEASE, threading.Event()) for _ in range(20)
        ]
        # Megabytes of requests, which the buffers don't take.
        unread = held_at(Address(socket.AF_INET, deaf.getsockname()), 60_000, LEASE, lost, 200)
        with still.stopped():
            first = [lock.until for lock in good]
            assert lost.wait(60) and all(lock.lost.wait(60) for lock in gone)
            assert time.monotonic() >= unread.lease.stop_at
            until = time.monotonic() + LEASE
            wait_for(lambda: time.monotonic() > until, "one lease more")
            assert not any(lock.lost.is_set() for lock in good)
            assert all(lock.until > before + LEASE for lock, before in zip(good, first))
            assert len(server.holders()) == 20
            lose(gone)
        for one in [*nowhere, unread]:
            one.stop()
        for lock in good:
            lock.release()


def test_a_lease_at_a_server_that_can_not_be_reached_is_lost_in_time() -> None:
    lost = threading.Event()
    with black_hole() as port:
        begin = time.monotonic()
        one = held_at(Address(socket.AF_INET, ("127.0.0.1", port)), 1, 3.0, lost)
        assert lost.wait(60)
        assert time.monotonic() - begin >= 1.9 and one.loss is None
        wait_for(lambda: background_threads() == 0, "the end of the thread")


def test_a_restart_of_the_server_is_survived_by_all(tmp_path: Any) -> None:
    state = ("--state", str(tmp_path / "state"))
    with Lockerd(*state) as server:
        locks = lockers(server, 30, 30.0)
        wait_for(lambda: all(is_settled(keepalive_of(lock)) for lock in locks), "a renewal of each")
        server.kill()
        before = {lock: lock.until for lock in locks}
        with Lockerd(*state, port=server.port) as again:
            wait_for(lambda: all(lock.until > before[lock] for lock in locks), "renewals by the new one")
            assert len(again.holders()) == 30 and not any(lock.lost.is_set() for lock in locks)
            for lock in locks:
                lock.release()


def test_after_stop_nothing_is_left_of_it(server: Lockerd) -> None:
    (lock,) = lockers(server, 1, FOR_EVER)
    wait_for(lambda: is_settled(keepalive_of(lock)), "a connection")
    before = open_files()
    one = Renewal(lock._holding.acquisition, threading.Event())
    wait_for(lambda: is_settled(one._keepalive), "another one")
    assert len(open_files()) == len(before) + 1
    for _ in range(3):
        one.stop()
    wait_for(lambda: open_files() == before, "the end of the other")
    assert not one._task.steps.gi_frame  # type: ignore[attr-defined]
    lock.release()


def test_one_that_nobody_has_any_more_is_not_renewed(server: Lockerd) -> None:
    locks = lockers(server, 1, FOR_EVER)
    one = Renewal(locks[0]._holding.acquisition, threading.Event())
    wait_for(lambda: renewed_leases() == 2, "two")
    del one
    assert renewed_leases() == 1
    locks.clear()
    assert renewed_leases() == 0
    wait_for(lambda: not server.holders(), "the release")


@pytest.mark.usefixtures("no_automatic_collection")
# In a circle the collector may come to the socket before it comes to the Locker.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_locker_that_is_collected_in_the_thread_itself(server: Lockerd, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the midst of a step of its own lease, and of another's."""
    keep = KeepAlive.steps
    collected = threading.Event()

    def collecting(keepalive: Any, until: float) -> Any:
        yield from keep(keepalive, until)
        if circles and background.is_current():
            circles.clear()
            gc.collect()
            collected.set()

    circles: list[Any] = []
    (kept,) = lockers(server, 1, FOR_EVER, "kept")
    monkeypatch.setattr(KeepAlive, "steps", collecting)
    circle: list[Any] = [*lockers(server, 3, FOR_EVER)]
    circle.append(circle)
    circles.append(circle)
    del circle
    (more,) = lockers(server, 1, FOR_EVER, "more")  # its steps, if not theirs, come now
    assert collected.wait(60)
    wait_for(lambda: sorted(server.holders()) == ["kept0", "more0"], "their release")
    assert renewed_leases() == 2 and background_threads() == 1
    for lock in (kept, more):
        lock.release()


def test_a_thread_that_can_not_start_is_an_error_and_the_next_lease_tries_again(
    server: Lockerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquisition = LockAcquisition(LockSettings(host="127.0.0.1", port=server.port, lock="x", lease=60), Ear())
    assert acquisition.acquire(False, time.monotonic() + 60)
    before = open_files()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            Renewal(acquisition, threading.Event())
    gc.collect()
    assert open_files() == before and renewed_leases() == 0
    one = Renewal(acquisition, threading.Event())
    wait_for(lambda: is_settled(one._keepalive), "a renewal")
    one.stop()
    acquisition.release()
    acquisition.connector.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one may come in a __del__
def test_a_keyboard_interrupt_at_any_step_leaves_no_lease_renewed() -> None:
    """In the constructor, or in stop(), after which it is stopped again or deleted."""
    address = Address(socket.AF_UNIX, "/nowhere")
    files = background.__file__, renewal.__file__
    for phase in ("begin", "stop"):
        interrupted = 0
        for at in range(1, 2000):
            one: Any = held_at(address, 1, FOR_EVER, threading.Event()) if phase == "stop" else None
            with Interrupt(at, *files) as interrupt:
                if phase == "stop":
                    one.stop()
                else:
                    one = held_at(address, 1, FOR_EVER, threading.Event())
            interrupted += interrupt.came
            if at % 2 and one is not None:
                one.stop()
            del one
            gc.collect(0)
            assert renewed_leases() == 0, at
            if interrupt.steps < at:
                break
        assert interrupted > 20, phase


def test_a_fork_while_leases_are_renewed(server: Lockerd) -> None:
    before = open_files()
    locks = lockers(server, 20, LEASE)
    holders = server.holders()
    for _ in range(10):

        def child() -> bool:
            assert renewed_leases() == 0 and background_threads() == 0
            assert all(not lock.locked() for lock in locks), "which closes what was copied"
            assert open_files() == before
            (mine,) = lockers(server, 1, FOR_EVER, f"mine{os.getpid()}-")
            wait_for(lambda: is_settled(keepalive_of(mine)), "a renewal in the child")
            assert renewed_leases() == 1 and background_threads() == 1
            mine.release()
            return True

        assert in_child(child)
    first = [lock.until for lock in locks]
    wait_for(lambda: all(lock.until > one for lock, one in zip(locks, first)), "renewals after that")
    assert server.holders() == holders and not any(lock.lost.is_set() for lock in locks)
    for lock in locks:
        lock.release()


def test_a_fork_from_another_thread(server: Lockerd) -> None:
    locks = lockers(server, 3, FOR_EVER)
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(in_child(lambda: renewed_leases() == 0)))
    thread.start()
    thread.join()
    assert results == [True] and renewed_leases() == 3
    for lock in locks:
        lock.release()


def test_what_ends_the_thread_is_a_loss_of_all(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadServer() as server:
        locks = lockers(server, 3, FOR_EVER)
        wait_for(lambda: all(is_settled(keepalive_of(lock)) for lock in locks), "a renewal of each")
        with monkeypatch.context() as patch:
            patch.setattr(background._Runner, "_advance", lambda *_: 1 / 0)
            server.ask("locks x1; BREAK_LOCK")
            assert all(lock.lost.wait(60) for lock in locks)
        assert "the background thread ends with an error" in caplog.text
        wait_for(lambda: background_threads() == 0, "its end")
        for lock in locks:
            lock.unlock()
        (lock,) = lockers(server, 1, FOR_EVER, "y")
        wait_for(lambda: is_settled(keepalive_of(lock)), "another thread")
        assert not lock.lost.is_set()
        lock.release()

"""A hold that is over, or was broken: a Locker notices, says so once to each who leaves it, and can be used again."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ipclocker import Locker, LockLost, NotHeld

from ...support.servers import ThreadServer
from ...support.waiting import DEADLINE, in_thread, wait_for

SEVERAL = {"lock": ["a", "b"]}
ALL = {"lock": ["a", "b"], "all": True}


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as running:
        yield running


def locker(server: ThreadServer, **parameters: Any) -> Locker:
    given: dict[str, Any] = {"lock": "x", "host": "127.0.0.1", "port": server.port, "connect_tries": 1, **parameters}
    return Locker(**given)


def break_locks(server: ThreadServer, lock: Locker) -> None:
    """Free all that it holds; the waits of others are over then, too."""
    for name in lock.tokens:
        locker(server, lock=name).break_lock()


@pytest.mark.parametrize("names", [{}, SEVERAL, ALL], ids=["one", "several", "all"])
def test_the_end_of_the_hold_time(server: ThreadServer, names: dict[str, Any]) -> None:
    lock = locker(server, hold=0.3, **names)
    assert lock.acquire() and not lock.lost.is_set() and not lock.lost.wait(0)
    assert lock.lost.wait(DEADLINE), "nobody polls it"
    assert lock.lost.is_set() and not lock.locked() and "not held" in repr(lock)
    with pytest.raises(LockLost, match="was lost while it was held"):
        lock.release()
    with pytest.raises(NotHeld):
        lock.release()
    with lock:
        assert lock.locked() and not lock.lost.is_set() and server.holders()
    assert server.holders() == {}


@pytest.mark.parametrize("names", [{}, SEVERAL, ALL], ids=["one", "several", "all"])
def test_a_break_is_found_out_at_the_end(server: ThreadServer, names: dict[str, Any]) -> None:
    lock = locker(server, **names)
    with pytest.raises(LockLost), lock:
        break_locks(server, lock)
    assert lock.lost.is_set() and not lock.locked() and server.holders() == {}
    with lock:
        assert not lock.lost.is_set()


@pytest.mark.parametrize("names", [{}, SEVERAL, ALL], ids=["one", "several", "all"])
def test_a_leased_one_hears_of_a_break(server: ThreadServer, names: dict[str, Any]) -> None:
    lock = locker(server, lease=600, **names)
    with pytest.raises(LockLost), lock:
        break_locks(server, lock)
        assert lock.lost.wait(DEADLINE) and not lock.locked()
        with lock:
            assert lock.locked() and not lock.lost.is_set() and server.holders()
        assert server.holders() == {}
    assert lock.acquire() and lock.locked()
    lock.release()


def test_one_of_all_that_is_broken_is_a_loss(server: ThreadServer) -> None:
    lock = locker(server, **ALL)
    with pytest.raises(LockLost), lock:
        locker(server, lock="b").break_lock()
    assert server.holders() == {}, "the other one is given back"


def test_a_body_that_fails_keeps_its_error(server: ThreadServer) -> None:
    lock = locker(server)
    with pytest.raises(KeyError), lock:
        break_locks(server, lock)
        raise KeyError
    assert lock.lost.is_set() and not lock.locked()


def test_each_end_of_nested_withs_says_so(server: ThreadServer) -> None:
    lock = locker(server, hold=0.2)
    lock.acquire()
    with pytest.raises(LockLost), lock:
        assert lock.lost.wait(DEADLINE)
    with pytest.raises(LockLost):
        lock.release()
    with pytest.raises(NotHeld):
        lock.release()


@pytest.mark.parametrize("names", [{}, ALL], ids=["one", "all"])
def test_one_that_lock_gets_again_in_a_with_was_lost(server: ThreadServer, names: dict[str, Any]) -> None:
    """The end of the `with` gives the newer grant back, since lock() counts no entry; and it tells of the loss."""
    lock = locker(server, **names)
    with pytest.raises(LockLost), lock:
        break_locks(server, lock)
        assert lock.lock() is lock and lock.locked()
    assert server.holders() == {}
    with pytest.raises(NotHeld):
        lock.release()


def test_what_lock_gets_again_of_its_own_is_no_loss(server: ThreadServer) -> None:
    """A program of the seed's kind asks each time that it needs the lock, and then it has it."""
    lock = locker(server)
    for _ in range(3):
        assert lock.lock() is lock
        break_locks(server, lock)
    assert lock.lock() is lock
    lock.release()
    assert server.holders() == {}
    with pytest.raises(NotHeld):
        lock.release()


def test_a_renewal_that_comes_too_late_is_a_loss(server: ThreadServer) -> None:
    lock, other = locker(server), locker(server)
    with pytest.raises(LockLost), lock:
        break_locks(server, lock)
        assert other.acquire()
        assert lock.lock(block=False) is None
        assert lock.lost.is_set() and not lock.locked() and not lock.acquire(False)
    assert other.locked() and server.holders(), "the other one's is not touched"
    other.release()


def test_unlock_forgets_what_was_lost(server: ThreadServer) -> None:
    lock = locker(server)
    lock.acquire()
    break_locks(server, lock)
    lock.lock()
    lock.unlock()
    with pytest.raises(NotHeld):
        lock.release()
    lock.lock()
    lock.release()


def test_a_late_release_leaves_the_next_holder_alone(server: ThreadServer) -> None:
    lock, other = locker(server, hold=0.2), locker(server)
    lock.acquire()
    assert other.acquire(timeout=DEADLINE)
    with pytest.raises(LockLost):
        lock.release()
    lock.unlock()
    assert other.locked() and server.holders()
    other.release()


def test_a_thread_that_waits_for_the_loss_hears_of_it(server: ThreadServer) -> None:
    lock = locker(server, hold=0.3)
    with in_thread(lambda: lock.lost.wait(DEADLINE)) as heard:  # from before it is held
        lock.acquire()
    assert heard == [True]
    with pytest.raises(LockLost):
        lock.release()


@pytest.mark.parametrize("parameters", [{"hold": 0.2}, {"lease": 600}], ids=["hold", "lease"])
def test_a_thread_that_has_ended_without_a_release_keeps_nobody_out(
    server: ThreadServer, parameters: dict[str, Any]
) -> None:
    lock = locker(server, **parameters)
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join(DEADLINE)
    assert lock.locked() or "hold" in parameters
    break_locks(server, lock)
    assert lock.lost.wait(DEADLINE)
    gc.collect()

    def get() -> bool:
        obtained = lock.acquire(False)
        lock.release()
        return obtained

    for _ in range(2):
        with in_thread(get) as got:
            wait_for(lambda: got)
        assert got == [True] and server.holders() == {}

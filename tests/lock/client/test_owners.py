"""Who of a process has a Locker: owners are objects, and each leaves as often as it has entered."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ipclocker import Locker, LockLost, NotHeld
from ipclocker.lock.client import owners as owners_module
from ipclocker.lock.client.owners import Owners, current_owner

from ...support.servers import ThreadServer
from ...support.waiting import DEADLINE, in_thread, wait_for


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as running:
        yield running


def locker(server: ThreadServer, **parameters: Any) -> Locker:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "connect_tries": 1, **parameters}
    return Locker("x", **given)


def get_in_thread(lock: Locker) -> bool:
    """Whether another thread could have it at once."""

    def get() -> bool:
        got = lock.acquire(False)
        if got:
            lock.release()
        return got

    with in_thread(get) as found:
        wait_for(lambda: found)
    return found[0]


def test_an_inner_end_frees_nothing(server: ThreadServer) -> None:
    lock, other = locker(server), locker(server)
    with lock:
        with lock:
            pass
        assert lock.acquire()
        lock.release()
        assert lock.locked() and server.holders() and not other.acquire(False)
    assert server.holders() == {}


def test_the_number_of_a_thread_that_has_ended_is_no_owner(server: ThreadServer) -> None:
    """The kernel gives it to the next thread."""
    lock = locker(server)
    numbers = []

    def get() -> bool:
        numbers.append(threading.get_ident())
        return lock.acquire(False)

    for _ in range(20):
        thread = threading.Thread(target=get)
        thread.start()
        thread.join()
    assert len(set(numbers)) < len(numbers), "a number came twice"
    assert server.holders() and not get_in_thread(lock)
    lock.unlock()
    assert server.holders() == {} and get_in_thread(lock)


def test_what_an_ended_thread_held_is_anybodys_when_its_time_is_over(server: ThreadServer) -> None:
    lock = locker(server, hold=0.3)
    with in_thread(lock.acquire):
        pass
    gc.collect()
    with in_thread(lambda: lock.acquire(timeout=DEADLINE)) as got:
        wait_for(lambda: got)
    assert got == [True]
    lock.unlock()


def test_lock_and_with_are_one_entry(server: ThreadServer) -> None:
    lock = locker(server)
    obtained = lock.lock()
    assert obtained is not None
    with obtained:
        with obtained.lock() or lock:
            pass
        assert server.holders(), "the inner one was entered once more"
    assert server.holders() == {}
    lock.lock()
    lock.release()
    assert server.holders() == {}


def test_unlock_frees_whatever_the_count_and_whoever_it_is(server: ThreadServer) -> None:
    lock = locker(server)
    for _ in range(3):
        lock.acquire()
    with in_thread(lock.unlock):
        pass
    assert server.holders() == {} and not lock.locked()
    with pytest.raises(NotHeld):
        lock.release()
    assert get_in_thread(lock)


def test_an_unlock_does_not_disturb_one_that_is_waiting(server: ThreadServer) -> None:
    first, lock = locker(server), locker(server)
    first.acquire()
    with in_thread(lambda: lock.acquire() and lock.unlock() is lock) as got:
        wait_for(lambda: len(server.server.term.service.table.waiters(b"x")) == 1)
        lock.unlock()
        time.sleep(0.05)
        assert not got
        first.release()
    assert got == [True] and server.holders() == {}


@pytest.mark.parametrize("parameters", [{"hold": 0.2}, {}, {"lease": 60}], ids=str)
def test_a_hold_that_is_lost_is_noticed_and_no_end(server: ThreadServer, parameters: dict[str, Any]) -> None:
    lock = locker(server, **parameters)
    with pytest.raises(LockLost), lock:
        if "hold" not in parameters:
            locker(server).break_lock()
        if parameters:
            assert lock.lost.wait(DEADLINE) and lock.lost.is_set() and not lock.locked()
            assert lock.acquire(timeout=DEADLINE) and not lock.lost.is_set() and server.holders()
            lock.release()
            assert server.holders() == {}
            assert get_in_thread(lock), "what was lost keeps nobody out"
    assert lock.acquire(timeout=DEADLINE) and server.holders()
    lock.release()
    with pytest.raises(NotHeld):
        lock.release()
    assert server.holders() == {}


def test_the_end_of_an_outer_with_does_not_free_a_newer_grant(server: ThreadServer) -> None:
    lock = locker(server, hold=0.2)
    lock.acquire()
    lock.lost.wait(DEADLINE)
    with lock:
        assert server.holders()
    with pytest.raises(LockLost):
        lock.release()
    with pytest.raises(NotHeld):
        lock.release()


def test_lock_renews_without_an_entry(server: ThreadServer) -> None:
    lock = locker(server)
    lock.acquire()
    for _ in range(3):
        assert lock.lock() is lock
    lock.release()
    assert server.holders() == {}


def test_many_threads_share_one(server: ThreadServer) -> None:
    lock = locker(server)
    inside: list[int] = []
    seen: list[int] = []

    def work() -> None:
        for _ in range(15):
            with lock, lock:
                inside.append(1)
                seen.append(len(inside))
                time.sleep(0)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert set(seen) == {1} and len(seen) == 150 and server.holders() == {}


def test_one_that_nobody_has_woken_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners_module, "_LOOK_AGAIN", 0.05)
    owners = Owners()
    first = owners.take(object, lambda: False, inf)
    assert first is not None
    with in_thread(lambda: owners.take(current_owner(), lambda: False, time.monotonic() + DEADLINE)) as got:
        wait_for(lambda: owners._waiting)
        first.freed = True  # as one who was interrupted before it could wake another
    assert got[0] is not None and not owners._waiting


class Person:
    """An owner."""


class Claims(RuleBasedStateMachine):
    """Owners beside the plainest model of it: who has it, and how often it has entered."""

    def __init__(self) -> None:
        super().__init__()
        self.owners = Owners()
        self.people: list[Any] = [Person() for _ in range(4)]
        self.holder: Any = None
        self.over = False

    @rule(number=st.integers(0, 3))
    def take(self, number: int) -> None:
        person = self.people[number]
        if self.owners.of(person) is not None:
            return
        claim = self.owners.try_take(person, lambda: self.over)
        orphaned = self.holder is not None and all(self.holder is not other for other in self.people)
        if self.holder is None or (orphaned and self.over):
            assert claim is not None
            claim.entries = 1
            self.holder = person
        else:
            assert claim is None

    @precondition(lambda self: self.holder is not None)
    @rule()
    def leave(self) -> None:
        claim = self.owners.claim
        assert claim is not None
        self.owners.leave(claim)
        assert self.owners.claim is claim, "it has entered something"
        self.owners.free(claim)
        self.holder = None

    @rule(over=st.booleans())
    def time_passes(self, over: bool) -> None:
        self.over = over

    @rule(number=st.integers(0, 3))
    def end(self, number: int) -> None:
        person, self.people[number] = self.people[number], Person()
        if person is self.holder:
            self.holder = "one who has ended"
        del person
        gc.collect(0)

    @invariant()
    def one_has_it(self) -> None:
        having = [person for person in self.people if self.owners.of(person) is not None]
        assert having == [person for person in self.people if person is self.holder]
        assert (self.owners.claim is None) == (self.holder is None)


TestClaims = Claims.TestCase
TestClaims.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

"""Leases recalled and waited for, on a clock that the test moves."""

from __future__ import annotations

from typing import Callable

import pytest

from ipclocker import ServerUnavailable
from ipclocker.lock.client.breaker import LOOK_WITHIN, LockBreaker
from ipclocker.lock.client.inspector import Inspector
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.snapshot import BROKEN, FREE, HELD, RECALLED, Outcome, Snapshot, Taking
from ipclocker.lock.wire.info import HeldInfo


class Bench(Inspector):
    """A server's locks as a test sets them, and what happens to them while time passes."""

    def __init__(self, *locks: HeldInfo, timeout: float | None = None) -> None:
        super().__init__(LockSettings())
        self.locks = {lock.name.decode(): lock for lock in locks}
        self.now = 1000.0
        self.up = True
        self.said: list[str] = []
        self.plan: list[tuple[float, Callable[[], object]]] = []
        self.breaking = LockBreaker(self, self.said.append, timeout, lambda: self.now, self._sleep)

    def at(self, seconds: float, call: Callable[[], object]) -> None:
        """Do that when so many seconds have passed."""
        self.plan.append((1000 + seconds, call))

    def look(self, name: str | None = None) -> Snapshot:
        if not self.up:
            raise ServerUnavailable("no lock server answers")
        return Snapshot("h:1", 0.0, tuple(lock for key, lock in self.locks.items() if name in (None, key)), True)

    def recall(self, name: str) -> Taking:
        lock = self.locks.get(name)
        if lock is not None and lock.lease is not None:
            self.locks[name] = lock._replace(recalled=True)
            return Taking(RECALLED, lock.user)
        return self.break_lock(name)

    def break_lock(self, name: str) -> Taking:
        lock = self.locks.pop(name, None)
        return Taking(FREE, b"") if lock is None else Taking(BROKEN, lock.user)

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        for when, call in list(self.plan):
            if when <= self.now:
                self.plan.remove((when, call))
                call()


def lease(name: bytes = b"x", token: int = 7, left: float = 20.0) -> HeldInfo:
    return HeldInfo(name, b"u_" + name, token, lease=30.0, left=left)


def test_what_is_no_lease_is_free_at_once() -> None:
    bench = Bench(HeldInfo(b"x", b"u_x", 7, hold=60.0))
    assert list(bench.breaking.recall(["x", "y"])) == [Outcome("x", BROKEN, b"u_x"), Outcome("y", FREE)]
    assert bench.now == 1000 and bench.said == []


def test_force() -> None:
    bench = Bench(lease())
    assert list(bench.breaking.force(["x", "y"])) == [Outcome("x", BROKEN, b"u_x"), Outcome("y", FREE)]
    assert bench.now == 1000


def test_a_lease_that_is_given_back() -> None:
    bench = Bench(lease())
    bench.at(5, lambda: bench.locks.pop("x"))
    (outcome,) = bench.breaking.recall(["x"])
    assert outcome[:3] == ("x", RECALLED, b"u_x") and 5 <= outcome.waited <= 7
    assert len(bench.said) == 1 and "u_x was told" in bench.said[0]


def test_a_lease_that_is_given_back_at_once() -> None:
    bench = Bench(lease())
    recall = bench.recall

    def recall_and_give_back(name: str) -> Taking:
        taking = recall(name)
        bench.locks.clear()
        return taking

    bench.recall = recall_and_give_back  # type: ignore[method-assign]
    assert list(bench.breaking.recall(["x"])) == [Outcome("x", RECALLED, b"u_x")]
    assert bench.now == 1000


def test_the_next_holder_is_another_one() -> None:
    """Even one that is recalled by somebody else meanwhile."""
    for successor in (lease(token=8), lease(token=8)._replace(recalled=True)):
        bench = Bench(lease())
        bench.at(3, lambda bench=bench, successor=successor: bench.locks.update(x=successor))  # type: ignore[misc]
        (outcome,) = bench.breaking.recall(["x"])
        assert outcome[:3] == ("x", RECALLED, b"u_x") and outcome.waited < 5


def test_a_lease_of_one_who_lives_and_does_not_give_it_back() -> None:
    bench = Bench(lease(left=20))
    bench.at(20, lambda: bench.locks.update(x=bench.locks["x"]._replace(outlived=True, left=0.0)))
    (outcome,) = bench.breaking.recall(["x"])
    assert (outcome.what, outcome.lives) == (HELD, True)
    assert outcome.waited == 20 + LOOK_WITHIN
    assert len(bench.said) == 2 and "known to live" in bench.said[1]


@pytest.mark.parametrize("timeout", [0.0, 0.05, 3.0, 100.0])
def test_the_longest_wait(timeout: float) -> None:
    bench = Bench(lease(), timeout=timeout)
    (outcome,) = bench.breaking.recall(["x"])
    assert (outcome.what, outcome.lives) == (HELD, False)
    assert outcome.waited == pytest.approx(timeout)


def test_several_are_told_at_once() -> None:
    bench = Bench(lease(b"a"), lease(b"b"), HeldInfo(b"c", b"u_c"))
    bench.at(4, lambda: bench.locks.pop("a"))
    bench.at(2, lambda: bench.locks.pop("b"))
    outcomes = list(bench.breaking.recall(["a", "b", "c"]))
    assert [(outcome.name, outcome.what) for outcome in outcomes] == [("c", BROKEN), ("a", RECALLED), ("b", RECALLED)]
    assert bench.now < 1006


def test_a_server_that_is_away_for_a_while() -> None:
    bench = Bench(lease())
    bench.at(2, lambda: setattr(bench, "up", False))
    bench.at(8, lambda: setattr(bench, "up", True))
    bench.at(9, lambda: bench.locks.pop("x"))
    (outcome,) = bench.breaking.recall(["x"])
    assert outcome.what == RECALLED and outcome.waited >= 9
    assert len(bench.said) == 2 and "asking again" in bench.said[1]


def test_a_server_that_stays_away() -> None:
    bench = Bench(lease(left=20))
    bench.at(2, lambda: setattr(bench, "up", False))
    with pytest.raises(ServerUnavailable):
        list(bench.breaking.recall(["x"]))
    assert bench.now == 1000 + 20 + LOOK_WITHIN


def test_a_server_that_forgets_that_it_has_recalled() -> None:
    """It was started anew: the grant stands, so it is not over."""
    bench = Bench(lease())
    bench.at(2, lambda: bench.locks.update(x=bench.locks["x"]._replace(recalled=False)))
    bench.at(9, lambda: bench.locks.pop("x"))
    (outcome,) = bench.breaking.recall(["x"])
    assert outcome.what == RECALLED and outcome.waited >= 9

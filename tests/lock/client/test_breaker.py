"""Leases recalled and waited for, on a clock that the test moves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

from ipclocker import ServerUnavailable
from ipclocker.lock.client.breaker import LOOK_WITHIN, LockBreaker
from ipclocker.lock.client.inspector import Inspector
from ipclocker.lock.client.settings import LockSettings
from ipclocker.lock.snapshot import BROKEN, FREE, HELD, RECALLED, Outcome, Snapshot, Taking
from ipclocker.lock.wire.info import HeldInfo

from ...support import PROJECT
from ...support.etcd import running_etcd
from ...support.replicas import Replicas
from ...support.servers import Peer


class Bench(Inspector):
    """A server's locks as a test sets them, and what happens to them while time passes."""

    def __init__(self, *locks: HeldInfo, timeout: float | None = None) -> None:
        super().__init__(LockSettings())
        self.locks = {lock.name.decode(): lock for lock in locks}
        self.now = 1000.0
        self.up = True
        self.fail_over = 0.0  # seconds for which nobody may answer
        self.said: list[str] = []
        self.plan: list[tuple[float, Callable[[], object]]] = []
        self.breaking = LockBreaker(self, self.said.append, timeout, lambda: self.now, self._sleep)

    @property
    def patience(self) -> float:
        return self.fail_over

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


# While another server takes over


@pytest.mark.parametrize("force", [False, True])
def test_a_server_that_another_one_takes_over_from(force: bool) -> None:
    bench = Bench(HeldInfo(b"x", b"u_x", 7))
    bench.fail_over, bench.up = 20.0, False
    bench.at(8, lambda: setattr(bench, "up", True))
    outcomes = bench.breaking.force(["x"]) if force else bench.breaking.recall(["x"])
    assert list(outcomes) == [Outcome("x", BROKEN, b"u_x")]
    assert len(bench.said) == 1 and bench.said[0].endswith("; asking again")


@pytest.mark.parametrize(("timeout", "most"), [(None, 20.0), (3.0, 3.0), (0.0, 0.0), (100.0, 20.0)])
def test_a_server_that_nobody_takes_over_from(timeout: float | None, most: float) -> None:
    for ask in (LockBreaker.force, LockBreaker.recall):
        bench = Bench(lease(), timeout=timeout)
        bench.fail_over, bench.up = 20.0, False
        with pytest.raises(ServerUnavailable):
            list(ask(bench.breaking, ["x"]))
        assert bench.now == 1000 + most


def lost_answer(bench: Bench, take: str, successor: HeldInfo | None) -> None:
    """The first that is asked carries it out, and is gone before it has said so; then another one has the lock."""
    carry_out = getattr(bench, take)
    asked: list[str] = []

    def take_and_end(name: str) -> Taking:
        asked.append(name)
        taking: Taking = carry_out(name)
        if len(asked) > 1:
            return taking
        if successor is not None:
            bench.locks[name] = successor
        raise ServerUnavailable("the server is gone")

    setattr(bench, take, take_and_end)


@pytest.mark.parametrize("successor", [None, HeldInfo(b"x", b"u_next", 8), lease(token=8)])
def test_nobody_loses_what_he_got_while_the_answer_was_on_its_way(successor: HeldInfo | None) -> None:
    for ask, take in ((LockBreaker.force, "break_lock"), (LockBreaker.recall, "recall")):
        bench = Bench(HeldInfo(b"x", b"u_x", 7))
        bench.fail_over = 20.0
        lost_answer(bench, take, successor)
        assert list(ask(bench.breaking, ["x"])) == [Outcome("x", BROKEN, b"u_x")]
        assert bench.locks.get("x") == successor


def test_who_got_a_free_lock_while_the_answer_was_on_its_way_keeps_it() -> None:
    bench = Bench()
    bench.fail_over = 20.0
    lost_answer(bench, "break_lock", HeldInfo(b"x", b"u_next", 8))
    assert list(bench.breaking.force(["x"])) == [Outcome("x", FREE)] and "x" in bench.locks


def test_what_was_not_done_is_asked_for_again() -> None:
    """A lease is recalled by the next server, and waited for as ever."""
    bench = Bench(lease())
    bench.fail_over = 20.0
    lost_answer(bench, "recall", lease())  # the same grant as before, not recalled
    bench.at(4, lambda: bench.locks.pop("x"))
    (outcome,) = bench.breaking.recall(["x"])
    assert outcome[:3] == ("x", RECALLED, b"u_x") and outcome.waited > 0


def test_real_servers(tmp_path: Path) -> None:
    """lockstat break, begun when the one that served was killed a moment ago."""
    with running_etcd(tmp_path / "etcd") as etcd, Replicas(etcd, tmp_path / "replicas") as site:
        leader = site.leader()
        peer = Peer(leader.address)
        peer.ask("user u_a; session s; token 1; locks x; LOCK")
        peer.close()
        leader.kill()
        hosts = ":".join(f"[{host.rpartition(':')[0]}]:{host.rpartition(':')[2]}" for host in site.hosts)
        done = subprocess.run(
            [sys.executable, "-m", "ipclocker", "lockstat", "break", "x", "--dhost", hosts],
            cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "lock x was taken from u_a\n"), done
        assert done.stderr.endswith("; asking again\n") and done.stderr.count("\n") == 1

"""A great many locks: what is done for each of them is done in slices, between which the server is seen to live."""

from __future__ import annotations

import time
from collections import Counter
from math import inf
from typing import Any

from ipclocker.lock.model import HolderProcess, Record
from ipclocker.lock.server.followed_processes import FollowedProcesses
from ipclocker.lock.server.replica import Replica
from ipclocker.lock.server.server import LockServer
from ipclocker.lock.server.serving_term import ServingTerm
from ipclocker.lock.server.table import LockTable
from ipclocker.lock.storage.base import StoredState
from ipclocker.lock.storage.etcd_settings import EtcdSettings
from ipclocker.net.loop import Loop

from .test_group_commit import FakeDisk

MANY = 25_000


def record(number: int) -> Record:
    """What is kept of a lock whose holder is a process of another host."""
    return Record(
        *(number, b"n%d" % number, b"ann", b"a", 0.0, 0.0, False, False, True, False, None, b"", b"far", number),
        *(7, b"boot", 1, "192.0.2.1", b"", None),
    )


class Monitor:
    """Counts who is watched."""

    def __init__(self) -> None:
        self.watched: Counter[int] = Counter()

    def watch(self, process: HolderProcess, heard: float) -> None:
        self.watched[process.pid] += 1

    def unwatch(self, process: HolderProcess) -> None:
        self.watched[process.pid] -= 1


def test_a_term_that_begins_with_many_locks_shows_again_and_again_that_it_lives() -> None:
    loop, lived = Loop(), []
    kept = StoredState([record(number) for number in range(1, MANY + 1)], MANY, 0.0, "ab" * 16)
    disk = FakeDisk()
    term = ServingTerm(
        *(loop, (), 60.0, 0, bytes, disk, kept),  # type: ignore[arg-type]
        lives=lambda: lived.append(time.monotonic()),
    )
    assert len(lived) == 3 and len(term.service.table.grants) == MANY
    term.close()
    loop.close()


def test_the_service_manager_hears_meanwhile_that_it_lives() -> None:
    """That takes some ten seconds with a million of them, and as much more on a busy host."""
    signs: list[float] = []
    kept = StoredState([record(number) for number in range(1, MANY + 1)], MANY, 0.0, "ab" * 16)
    with LockServer("127.0.0.1", 0, etcd=EtcdSettings(("http://127.0.0.1:1",))) as server:
        server.on_alive = lambda: signs.append(time.monotonic())
        server.begin_term(FakeDisk(), kept, bytes)  # type: ignore[arg-type]
        assert len(signs) == 3


def test_one_that_stands_by_has_nothing_to_do_in_the_turns_of_its_loop() -> None:
    loop = Loop()
    settings = EtcdSettings(("http://127.0.0.1:1",))
    none: Any = None  # of what it does not need for that
    replica = Replica(settings, 5, True, ["127.0.0.1:1"], None, loop, none, lambda status: None)
    assert replica.tick(loop.now) == inf
    loop.close()


def test_the_processes_of_many_locks_are_followed_in_several_turns() -> None:
    table, monitor = LockTable(), Monitor()
    table.restore([record(number) for number in range(1, MANY + 1)], 0.0, 0.0)
    loop = Loop()
    followed = FollowedProcesses(loop, monitor)  # type: ignore[arg-type]
    followed.note(table.grants)
    now, turns = followed.tick(0.0, table.grants), 0
    while now != inf:
        before = len(monitor.watched)
        now = followed.tick(now, table.grants)
        turns += 1
        assert 0 < len(monitor.watched) - before <= 2_000
    assert turns == 13 and len(monitor.watched) == MANY and set(monitor.watched.values()) == {1}
    loop.close()

"""Being told of the end of processes, by their pidfds and by looking."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Callable

import pytest

from ipclocker.net.loop import Loop
from ipclocker.process.exit_watcher import ExitWatcher
from ipclocker.process.identity import ProcessIdentity, identify

from ..support.processes import alive, gone, zombie
from ..support.waiting import DEADLINE


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(params=[None, 0], ids=["pidfds", "looking"])
def watch(loop: Loop, request: pytest.FixtureRequest) -> Iterator[ExitWatcher]:
    watch = ExitWatcher(loop, request.param)
    yield watch
    watch.close()


def run_until(loop: Loop, what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline
        loop.turn(0.01)


def test_the_end_of_a_process_is_told_once(loop: Loop, watch: ExitWatcher) -> None:
    told: list[str] = []
    with alive() as one, alive() as other:
        watch.add(identify(one.pid), lambda: told.append("one"))
        watch.add(identify(one.pid), lambda: told.append("one again"))
        watch.add(identify(other.pid), lambda: told.append("other"))
        loop.turn(0)
        assert told == []
        one.kill()
        run_until(loop, lambda: len(told) >= 2)
        other.kill()
        run_until(loop, lambda: len(told) >= 3)
    assert told == ["one", "one again", "other"]


def test_what_is_gone_already_is_told_in_a_turn_of_the_loop(loop: Loop, watch: ExitWatcher) -> None:
    told: list[str] = []
    me = identify(os.getpid())
    assert me.start is not None
    with zombie() as pid:
        watch.add(ProcessIdentity(gone()), lambda: told.append("gone"))
        watch.add(ProcessIdentity(pid), lambda: told.append("zombie"))
        watch.add(me._replace(start=me.start + 1), lambda: told.append("another"))
        assert told == []
        run_until(loop, lambda: len(told) == 3)
    assert sorted(told) == ["another", "gone", "zombie"]


def test_who_is_removed_is_not_told(loop: Loop, watch: ExitWatcher) -> None:
    told: list[str] = []
    with alive() as process:
        first = watch.add(identify(process.pid), lambda: told.append("first"))
        second = watch.add(identify(process.pid), lambda: told.append("second"))
        watch.remove(first)
        watch.remove(first)
        process.kill()
        run_until(loop, lambda: bool(told))
        watch.remove(second)
    assert told == ["second"]


def test_who_is_removed_after_the_end_is_not_told(loop: Loop, watch: ExitWatcher) -> None:
    told: list[str] = []
    removed = watch.add(ProcessIdentity(gone()), lambda: told.append("removed"))
    watch.add(ProcessIdentity(gone()), lambda: told.append("kept"))
    watch.remove(removed)
    run_until(loop, lambda: bool(told))
    assert told == ["kept"]


def test_descriptors_are_given_back_and_used_again(loop: Loop) -> None:
    before = len(os.listdir("/proc/self/fd"))
    watch = ExitWatcher(loop, 1)
    me = identify(os.getpid())
    with alive() as other:
        for _ in range(3):
            first = watch.add(me, lambda: None)
            second = watch.add(identify(other.pid), lambda: None)
            assert len(os.listdir("/proc/self/fd")) == before + hasattr(os, "pidfd_open")
            watch.remove(first)
            watch.remove(second)
            assert len(os.listdir("/proc/self/fd")) == before
        watch.add(me, lambda: None)
        watch.close()
        assert len(os.listdir("/proc/self/fd")) == before

"""The monitor of the processes that hold locks, in a loop of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from ipclocker.lock.model import HolderProcess
from ipclocker.lock.server.holder_monitor import HolderMonitor
from ipclocker.net.loop import Loop
from ipclocker.process.identity import identify

from ...support.waiting import turn_until


class Monitored:
    """A monitor, and what it has reported."""

    def __init__(self) -> None:
        self.gone: list[HolderProcess] = []
        self.loop = Loop(lambda now: self.monitor.tick(now))
        self.monitor = HolderMonitor(self.loop, 1752, self.gone.append)

    def watch(self, process: HolderProcess) -> None:
        self.monitor.watch(process, self.loop.now)

    def wait_until_gone(self, count: int) -> None:
        turn_until(self.loop, lambda: len(self.gone) >= count, "the end of the process")


@pytest.fixture
def monitored() -> Iterator[Monitored]:
    monitored = Monitored()
    yield monitored
    monitored.monitor.close()
    monitored.loop.close()


def holder(pid: int) -> HolderProcess:
    """A process of this host, as its client tells it."""
    found = identify(pid)
    machine, host = os.fsencode(found.machine), os.fsencode(found.host)
    return HolderProcess(
        host, pid, found.start, os.fsencode(found.boot), found.pidns, "127.0.0.1", machine, found.timens
    )


def test_a_lock_that_is_taken_for_a_process_that_has_ended_is_reported_though_an_older_one_stands(
    monitored: Monitored,
) -> None:
    """As a lease does until it runs out: what comes behind it was never looked at."""
    with subprocess.Popen(["sleep", "100"]) as child:
        process = holder(child.pid)
        monitored.watch(process)
        child.kill()
    monitored.wait_until_gone(1)
    monitored.watch(process)
    monitored.wait_until_gone(2)
    monitored.monitor.unwatch(process)
    monitored.watch(process)
    monitored.wait_until_gone(3)
    assert set(monitored.gone) == {process}

"""The process that a lock is held for, as its keeper watches it."""

from __future__ import annotations

import subprocess

import pytest

from ipclocker.net.loop import Loop
from ipclocker.run.for_process import keeper
from ipclocker.run.for_process.keeper import Watched

from ..support.processes import NO_PID
from ..support.waiting import turn_until


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_its_end(has_pidfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_pidfd:
        monkeypatch.setattr(keeper, "open_pidfd", lambda pid: None)
    with subprocess.Popen(["sleep", "1000"]) as process:
        watched, loop = Watched(process.pid), Loop()
        watched.watch(loop)
        loop.turn(0.0)
        assert not watched.has_ended and watched.process.pid == process.pid
        process.kill()
        turn_until(loop, lambda: watched.has_ended, "its end")
        loop.close()


def test_one_that_ends_before_it_is_watched() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        watched, loop = Watched(process.pid), Loop()
        process.kill()
        process.wait()  # its number may be another one's from now on
        watched.watch(loop)
        turn_until(loop, lambda: watched.has_ended, "its end")
        loop.close()


def test_none() -> None:
    with pytest.raises(ProcessLookupError):
        Watched(NO_PID)

"""The process that ends a command when the one beside it can't."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclocker.process.identity import exists
from ipclocker.process.watchdog import STANDS_BY

from ..support import PROJECT
from ..support.processes import all_gone, command_line, processes_with
from ..support.waiting import wait_for

SCRIPT = """
import os, sys, time
from ipclocker.process.watchdog import Watchdog
def kill():
    open("killed.new", "w").write(f"{{time.monotonic()}} {{os.getpid()}} {{os.getsid(0)}} {{os.listdir('/dev/fd')}}")
    os.rename("killed.new", "killed")
watchdog = Watchdog(time.monotonic() + float("{seconds}"), kill)
{then}
"""


class Scene:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        (folder / "ipclocker").symlink_to(PROJECT / "ipclocker")

    def start(self, seconds: float, then: str) -> subprocess.Popen[str]:
        text = SCRIPT.format(seconds=seconds, then=textwrap.dedent(then))
        process = subprocess.Popen(
            [sys.executable, "-c", text], cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def killed_at(self) -> float:
        """When it did it; waits for that."""
        wait_for((self.folder / "killed").exists, "its deed")
        return float((self.folder / "killed").read_text().split()[0])

    @property
    def has_killed(self) -> bool:
        return (self.folder / "killed").exists()

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.end()


READY = "print('ready', flush=True);"


def test_when_its_time_is_over_although_the_other_is_stopped(scene: Scene) -> None:
    begin = time.monotonic()
    process = scene.start(0.7, f"{READY} sys.stdin.read()")
    os.kill(process.pid, signal.SIGSTOP)
    assert scene.killed_at() - begin >= 0.7, "not before its time"
    os.kill(process.pid, signal.SIGCONT)
    _, pid, session, *descriptors = (scene.folder / "killed").read_text().split()
    assert pid == session and int(pid) != process.pid, "it is in a session of its own, with no way to a terminal"
    assert len(descriptors) <= 6, "the three that all have, its pipe, and the two with which this was written down"


def test_when_the_other_is_killed(scene: Scene) -> None:
    process = scene.start(1000, f"{READY} sys.stdin.read()")
    process.kill()
    process.wait()
    scene.killed_at()


def test_a_later_time_and_an_earlier_one(scene: Scene) -> None:
    begin = time.monotonic()
    scene.start(
        0.6,
        f"""
        for turn in range(10):
            time.sleep(0.2)
            watchdog.set_deadline(time.monotonic() + 0.6)
        watchdog.set_deadline(time.monotonic() + 1000)
        watchdog.set_deadline(time.monotonic() + 0.3)
        {READY} sys.stdin.read()
        """,
    )
    assert scene.killed_at() - begin >= 2.3


def watchdogs(process: subprocess.Popen[str]) -> set[int]:
    """The watchdogs of a process."""
    return set(processes_with(" ".join(command_line(process.pid)))) - {process.pid}


def test_one_that_was_killed_is_replaced_at_the_next_deadline(scene: Scene) -> None:
    then = f"{READY} sys.stdin.readline(); watchdog.set_deadline(time.monotonic() + 0.5); {READY} input()"
    process = scene.start(1000, then)
    (watchdog,) = watchdogs(process)
    os.kill(watchdog, signal.SIGKILL)
    all_gone([watchdog])
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGSTOP)
    scene.killed_at()


def test_one_that_was_killed_and_can_not_be_replaced_is_told(scene: Scene) -> None:
    then = f"""
    from ipclocker.errors import IpclockerError
    def no_fork():
        raise OSError(11, "planted")
    {READY}
    sys.stdin.readline()
    fork, os.fork = os.fork, no_fork
    descriptors = len(os.listdir("/dev/fd"))
    for _ in range(2):
        try:
            watchdog.set_deadline(time.monotonic() + 1000)
        except IpclockerError as error:
            print(error, len(os.listdir("/dev/fd")) - descriptors, flush=True)
    os.fork = fork
    watchdog.set_deadline(time.monotonic() + 1001)
    watchdog.disarm()
    {READY}
    """
    process = scene.start(1000, then)
    (watchdog,) = watchdogs(process)
    os.kill(watchdog, signal.SIGKILL)
    all_gone([watchdog])
    told = "cannot make a process that ends the command in time: planted 0\n"
    assert process.communicate("\n")[0] == f"{told}{told}ready\n" and not scene.has_killed


def test_a_loop_sees_that_it_was_killed(scene: Scene) -> None:
    then = f"""
    import select
    poller = select.poll()
    poller.register(watchdog, select.POLLIN)
    {READY}
    sys.stdin.readline()
    assert not poller.poll(0)
    {READY}
    assert poller.poll(60_000)
    watchdog.restart(time.monotonic() + 0.2)
    {READY}
    sys.stdin.read()
    """
    process = scene.start(1000, then)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    (watchdog,) = watchdogs(process)
    os.kill(watchdog, signal.SIGKILL)
    assert process.stdout.readline() == "ready\n"
    scene.killed_at()


def test_it_is_dismissed(scene: Scene) -> None:
    process = scene.start(0.5, f"watchdog.disarm(); {READY} sys.stdin.read()")
    time.sleep(1)
    process.communicate("")
    assert process.returncode == 0 and not scene.has_killed


def test_it_is_no_child_of_the_other(scene: Scene) -> None:
    """Who waits for children finds none that it did not start."""
    then = f"""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        {READY}
    sys.stdin.read()
    """
    scene.start(1000, then)


def test_one_that_was_stopped_itself_hears_first_what_it_was_told(scene: Scene) -> None:
    process = scene.start(
        1.0, f"{READY} sys.stdin.readline(); watchdog.set_deadline(time.monotonic() + 1000); {READY} input()"
    )
    (watchdog,) = watchdogs(process)
    os.kill(watchdog, signal.SIGSTOP)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    time.sleep(1.3)
    os.kill(watchdog, signal.SIGCONT)
    time.sleep(0.3)
    assert not scene.has_killed and exists(watchdog)


def test_one_that_stands_by_ends_nothing(scene: Scene) -> None:
    process = scene.start(STANDS_BY, f"{READY} sys.stdin.read()")
    (watchdog,) = watchdogs(process)
    process.kill()
    process.wait()
    all_gone([watchdog])
    assert not scene.has_killed


def test_one_without_a_deadline_ends_what_it_guards_when_its_owner_is_killed(scene: Scene) -> None:
    process = scene.start(float("inf"), f"{READY} sys.stdin.read()")
    process.kill()
    process.wait()
    scene.killed_at()


def test_one_that_stood_by(scene: Scene) -> None:
    begin = time.monotonic()
    scene.start(STANDS_BY, f"watchdog.set_deadline(time.monotonic() + 0.3); {READY} sys.stdin.read()")
    assert scene.killed_at() - begin >= 0.3

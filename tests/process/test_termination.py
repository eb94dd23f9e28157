"""Ending a command, and all below it: real processes, each of which a test may see end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from ipclocker.net.loop import Loop
from ipclocker.process import send_signal as sending
from ipclocker.process.exit_watcher import ExitWatcher
from ipclocker.process.identity import ProcessIdentity, exists, identify
from ipclocker.process.send_signal import send_signal
from ipclocker.process.termination import KillPolicy, Termination
from ipclocker.process.tree import with_descendants

from ..support.waiting import DEADLINE, turn_until

_PROGRAM = "import signal as s, time; s.signal(1, s.SIG_IGN); print(1, flush=True); time.sleep(1000)"
STUBBORN = f"{shlex.quote(sys.executable)} -c '{_PROGRAM}'"  # writes a line when it is deaf for SIGHUP


class Scene:
    """A loop with a killing, and commands."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.watch = ExitWatcher(self.loop)
        self.told: list[str] = []
        self.commands: list[subprocess.Popen[bytes]] = []
        self.others: set[int] = set()

    def command(self, script: str, lines: int = 0) -> ProcessIdentity:
        """Start a shell script, and wait until it and what it starts have written so many lines."""
        command = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
        self.commands.append(command)
        assert command.stdout is not None
        for _ in range(lines):
            command.stdout.readline()
        self.others |= {process.pid for process in with_descendants([identify(command.pid)])[1:]}
        return identify(command.pid)

    def kill(self, command: ProcessIdentity, **way: object) -> Termination:
        self.loop.turn(0.0)
        killing = Termination(self.loop, self.watch, KillPolicy()._replace(**way), self.told.append)  # type: ignore[arg-type]
        killing.begin(command)
        return killing

    def until(self, what: Callable[[], object], description: str) -> None:
        turn_until(self.loop, what, description)

    def end(self) -> None:
        self.others |= {process.pid for process in with_descendants(identify(c.pid) for c in self.commands)}
        self.others -= {command.pid for command in self.commands}
        for command in self.commands:
            command.kill()
            command.wait()
            assert command.stdout is not None
            command.stdout.close()
        for pid in self.others:
            if exists(pid):
                os.kill(pid, signal.SIGKILL)
        self.watch.close()
        self.loop.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.end()


def is_gone(process: ProcessIdentity) -> bool:
    return exists(process.pid, process.start) is False


# Who is below


def test_descendants(scene: Scene) -> None:
    command = scene.command("sh -c 'sleep 1000 & sh -c \"sleep 1001; :\" & echo; wait' & echo; wait", 2)

    def names() -> list[str]:
        return [Path(f"/proc/{process.pid}/comm").read_text().strip() for process in with_descendants([command])]

    scene.until(lambda: sorted(names()) == ["sh", "sh", "sh", "sleep", "sleep"], "five processes")
    found = with_descendants([command])
    assert found[0] == command
    assert all(exists(process.pid, process.start) for process in found)
    assert names()[:2] == ["sh", "sh"]
    assert names()[-1] == "sleep"  # the one below all shells


def test_one_without_children(scene: Scene) -> None:
    command = scene.command("exec sleep 1000")
    assert with_descendants([command]) == [command]


def test_this_process_is_left_out() -> None:
    assert os.getpid() not in {process.pid for process in with_descendants([identify(os.getppid())])}


def test_two_with_one_below_both(scene: Scene) -> None:
    command = scene.command("sleep 1000 & echo; wait", 1)
    scene.until(lambda: len(with_descendants([command])) == 2, "two processes")
    both = with_descendants([command])
    assert [process.pid for process in with_descendants(both)] == [process.pid for process in both]


# Signals


def test_a_signal_to_a_process(scene: Scene) -> None:
    command = scene.command("exec sleep 1000")
    send_signal(command, signal.SIGTERM)
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGTERM
    send_signal(command, signal.SIGTERM)


def test_another_process_under_the_number_gets_none(scene: Scene) -> None:
    command = scene.command("exec sleep 1000")
    assert command.start is not None
    send_signal(command._replace(start=command.start - 1), signal.SIGKILL)
    assert exists(command.pid)


def test_without_pidfds(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "open_pidfd", lambda pid: None)
    command = scene.command("exec sleep 1000")
    assert command.start is not None
    send_signal(command._replace(start=command.start - 1), signal.SIGKILL)
    assert exists(command.pid)
    send_signal(command, signal.SIGTERM)
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGTERM


# The ways


def test_only_the_command_is_signalled(scene: Scene) -> None:
    command = scene.command(f"{STUBBORN} & sleep 1000 & wait", 1)
    scene.until(lambda: len(with_descendants([command])) == 3, "three processes")
    below = with_descendants([command])[1:]
    assert not scene.kill(command).is_waiting
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGHUP
    assert not any(map(is_gone, below))


def test_the_tree_is_signalled(scene: Scene) -> None:
    command = scene.command("sh -c 'sleep 1000; :' & sleep 1000 & echo; wait", 1)
    scene.until(lambda: len(with_descendants([command])) == 4, "four processes")
    below = with_descendants([command])[1:]
    scene.kill(command, tree=True, signal=signal.SIGTERM)
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGTERM
    scene.until(lambda: all(map(is_gone, below)), "the end of all")


def test_grace_for_the_command(scene: Scene) -> None:
    command = scene.command(f"exec {STUBBORN}", 1)
    begun = time.monotonic()
    one = scene.kill(command, grace=0.3)
    scene.until(lambda: not one.is_waiting, "the end")
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGKILL
    assert time.monotonic() - begun >= 0.3


def test_nobody_waits_for_the_grace_of_those_that_ended(scene: Scene) -> None:
    command = scene.command("sleep 1000 & echo; wait", 1)
    one = scene.kill(command, grace=1000.0, tree=True)
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGHUP
    scene.until(lambda: not one.is_waiting, "the end of all")


def test_grace_for_what_is_left_of_the_tree(scene: Scene) -> None:
    command = scene.command(f"{STUBBORN} & sleep 1000 & wait", 1)
    scene.until(lambda: len(with_descendants([command])) == 3, "three processes")
    below = with_descendants([command])[1:]
    one = scene.kill(command, tree=True, grace=0.3)
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGHUP
    assert one.is_waiting
    scene.until(lambda: not one.is_waiting, "the end of the grace")
    scene.until(lambda: all(map(is_gone, below)), "the end of all")


def test_what_was_started_meanwhile_is_killed_as_well(scene: Scene, tmp_path: Path) -> None:
    started = tmp_path / "started"
    handler = f"sleep 1000 & echo $! >{started}.new; mv {started}.new {started}"
    command = scene.command(f"trap '{handler}' HUP; echo; while :; do sleep 0.01; done", 1)
    one = scene.kill(command, tree=True, grace=0.5)
    scene.until(started.exists, "a process that the handler of the signal starts")
    late = identify(int(started.read_text()))
    scene.others.add(late.pid)
    assert not is_gone(late)
    scene.until(lambda: not one.is_waiting, "the end of the grace")
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGKILL
    scene.until(lambda: is_gone(late), "the end of that one")


# The killer


@pytest.fixture
def killer(tmp_path: Path) -> Path:
    """A killer that writes down how it was called, and does not kill."""
    program = tmp_path / "killer"
    program.write_text(f"#!/bin/sh\necho $* >>{tmp_path}/calls\n")
    program.chmod(0o755)
    return program


def calls(killer: Path) -> list[str]:
    file = killer.parent / "calls"
    return file.read_text().splitlines() if file.exists() else []


def test_the_killer_is_called_as_kill(scene: Scene, killer: Path) -> None:
    command = scene.command("exec sleep 1000")
    scene.kill(command, killer=str(killer), signal=signal.SIGTERM)
    scene.until(lambda: calls(killer), "the killer")
    assert calls(killer) == [f"-TERM {command.pid}"]
    assert not is_gone(command)


def test_it_really_can_be_kill(scene: Scene) -> None:
    command = scene.command("exec sleep 1000")
    scene.kill(command, killer="kill")
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGHUP


def test_the_killer_is_called_for_the_tree_and_after_the_grace(scene: Scene, killer: Path) -> None:
    command = scene.command("sleep 1000 & echo; wait", 1)
    scene.until(lambda: len(with_descendants([command])) == 2, "two processes")
    pids = [process.pid for process in with_descendants([command])]
    one = scene.kill(command, killer=str(killer), tree=True, grace=0.2)
    scene.until(lambda: not one.is_waiting, "the end of the grace")
    scene.until(lambda: len(calls(killer)) == 4, "four calls")
    assert sorted(calls(killer)) == sorted(f"{name} {pid}" for name in ("-HUP", "-KILL") for pid in pids)


def test_a_killer_that_is_none(scene: Scene, tmp_path: Path) -> None:
    command = scene.command("exec sleep 1000")
    scene.kill(command, killer=str(tmp_path / "none"))
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGHUP
    assert scene.told == [
        f"cannot execute the killer '{tmp_path}/none': No such file or directory; the signal is sent without it"
    ]


def test_the_killer_finds_signals_and_files_as_they_should_be(scene: Scene, tmp_path: Path) -> None:
    program = tmp_path / "killer"
    look = "grep -E 'Sig(Blk|Ign)' /proc/self/status; readlink /proc/self/fd/0"
    program.write_text(f"#!/bin/sh\n({look}) >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/seen\n")
    program.chmod(0o755)
    command = scene.command("exec sleep 1000")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        scene.kill(command, killer=str(program))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    seen = tmp_path / "seen"
    scene.until(seen.exists, "the killer")
    blocked, ignored, stdin = seen.read_text().splitlines()
    assert int(blocked.split()[1], 16) == 0
    assert not int(ignored.split()[1], 16) & (1 << (signal.SIGPIPE - 1))
    assert stdin == "/dev/null"

"""Ending a command and all that belongs to it, wherever it has gone: real processes, each of which is seen to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclocker.process.identity import ProcessIdentity, exists, identify
from ipclocker.process.send_signal import send_signal
from ipclocker.process.tree import ancestors, marked, with_descendants
from ipclocker.process.tree_killer import TreeKiller
from ipclocker.run.options import MARKS

from ..support import PROJECT
from ..support.waiting import DEADLINE, wait_for

MARK = f"test{os.getpid()}"


class Scene:
    """A command with a mark, and what it starts; each process writes its number into a file when it is ready."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[subprocess.Popen[bytes]] = []
        self.told: list[str] = []

    def command(self, script: str, *ready: str, marks: str = MARK) -> TreeKiller:
        process = subprocess.Popen(
            ["sh", "-c", script], cwd=self.folder, env={**os.environ, MARKS: marks}, stdout=subprocess.DEVNULL
        )
        self.commands.append(process)
        for name in ready:
            wait_for(lambda name=name: (self.folder / name).exists(), name)  # type: ignore[misc]
        return TreeKiller(identify(process.pid), MARKS, MARK, self.told.append)

    def process(self, name: str) -> ProcessIdentity:
        return identify(int((self.folder / name).read_text()))

    def end(self) -> None:
        for path in filter(Path.is_file, self.folder.iterdir()):
            text = path.read_text()
            if text.strip().isdigit() and exists(int(text)) and MARK.encode() in _environ(int(text)):
                os.kill(int(text), signal.SIGKILL)
        for process in self.commands:
            process.kill()
            process.wait()


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.end()


def is_gone(process: ProcessIdentity) -> bool:
    return exists(process.pid, process.start) is False


def says(name: str, then: str = "exec sleep 1000") -> str:
    """A shell script that writes its number down and goes on."""
    return f"sh -c 'echo $$ >{name}.new; mv {name}.new {name}; {then}'"


DAEMON = f"{sys.executable} -c 'import os, sys; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); "
DAEMON += 'os.execvp("sh", ["sh", "-c", sys.argv[1]])\' "echo \\$\\$ >{0}.new; mv {0}.new {0}; {1}exec sleep 1000"'


def test_the_command_gets_the_signal_alone(scene: Scene) -> None:
    ending = scene.command(f"{says('below')} & wait", "below")
    ending.signal_command(signal.SIGTERM)
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGTERM
    assert ending.has_ended and not is_gone(scene.process("below"))
    assert [process.pid for process in ending.find_remaining()] == [scene.process("below").pid]
    ending.signal_rest(signal.SIGTERM)
    wait_for(lambda: is_gone(scene.process("below")), "its end")
    assert ending.find_remaining() == []


def test_those_that_drop_the_mark_are_known_if_they_were_seen_below(scene: Scene) -> None:
    ending = scene.command(f"env -i {says('bare')} & {says('below')} & wait", "bare", "below")
    bare = scene.process("bare")
    assert bare.pid not in {process.pid for process in marked(MARKS, MARK)}
    ending.signal_command(signal.SIGTERM)
    scene.commands[0].wait(DEADLINE)
    ending.kill_all()
    assert is_gone(bare) and is_gone(scene.process("below")) and scene.told == []


@pytest.mark.parametrize("deaf", ["", "trap : TERM HUP INT; "])
def test_daemons_are_found_by_their_mark(scene: Scene, deaf: str) -> None:
    daemons = ["one", "two", "three"]
    start = "; ".join(DAEMON.format(name, deaf) for name in daemons)
    ending = scene.command(f"{start}; {says('below')}", *daemons, "below")
    found = {scene.process(name) for name in daemons}
    assert not {process.pid for process in found} & {p.pid for p in with_descendants([ending.command])}
    ending.kill_all()
    assert all(map(is_gone, found)) and is_gone(scene.process("below"))
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGKILL


def test_those_that_are_started_meanwhile_are_found(scene: Scene) -> None:
    """Each starts the next, in a session of its own, and ends."""
    (scene.folder / "chain").write_text("echo $$ >link.new; mv link.new link; setsid sh ./chain & sleep 0.0005; exit\n")
    ending = scene.command("sh ./chain; sleep 1000", "link")
    ending.kill_all()
    assert list(marked(MARKS, MARK)) == [] and scene.told == []


def test_a_run_within_a_run_belongs_to_both(scene: Scene) -> None:
    ending = scene.command(DAEMON.format("inner", ""), "inner", marks=f"outer:{MARK}:later")
    other = scene.command(f"{says('other')}", "other", marks=f"{MARK}x:x{MARK}")
    assert [process.pid for process in ending.find_remaining()] == [scene.process("inner").pid]
    ending.kill_all()
    assert is_gone(scene.process("inner")) and not is_gone(scene.process("other"))
    del other


def test_this_process_and_those_above_it_are_spared(scene: Scene) -> None:
    """Here the mark is that of a run which this process belongs to, too."""
    script = (
        "import os, sys; from ipclocker.process.identity import ProcessIdentity\n"
        "from ipclocker.process.tree_killer import TreeKiller; "
        f"TreeKiller(ProcessIdentity(2**22 + 1), '{MARKS}', sys.argv[1]).kill_all(); open('done', 'w').close()"
    )
    outer = f'{says("beside")} & {sys.executable} -c "{script}" {MARK}; echo $$ >above; exec sleep 1000'
    scene.folder.joinpath("ipclocker").symlink_to(PROJECT / "ipclocker")
    scene.command(outer, "above", "done")
    wait_for(lambda: is_gone(scene.process("beside")), "the end of the one beside it")
    assert scene.commands[0].poll() is None


def test_ancestors() -> None:
    found = ancestors(os.getpid())
    assert os.getppid() in found and os.getpid() not in found and found <= {*found, 1}


def test_one_that_can_not_be_signalled_is_told_once_and_left(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = scene.command(f"{says('below')} & wait", "below")
    below = scene.process("below").pid

    def refuse(process: ProcessIdentity, number: int) -> None:
        if process.pid == below:
            raise PermissionError
        send_signal(process, number)

    monkeypatch.setattr("ipclocker.process.tree_killer.send_signal", refuse)
    ending.kill_all()
    ending.kill_all()
    assert scene.told == [f"process {below} can't be ended: it is another user's"]
    assert scene.commands[0].wait(DEADLINE) == -signal.SIGKILL


def test_a_stopped_one_is_killed(scene: Scene) -> None:
    ending = scene.command(says("below"), "below")
    os.kill(ending.command.pid, signal.SIGSTOP)
    os.kill(scene.process("below").pid, signal.SIGSTOP)
    ending.kill_all()
    assert is_gone(scene.process("below")) and scene.commands[0].wait(DEADLINE) == -signal.SIGKILL

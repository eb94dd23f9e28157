"""What workers have started and left behind, with the listening socket, ends with their manager."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.processes import all_gone, is_alive, living_children, processes_with
from ..support.waiting import wait_for
from .servers import Server, started
from .test_fastcgi_program import OURS, PREFORK, prefork

LEAVING = [sys.executable, "-m", "tests.prefork.leaving_worker"]
# Executes a program whose descriptor 0 is a socket that listens.
LISTEN = (
    "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
    "os.dup2(s.fileno(), 0); os.execv(sys.argv[2], sys.argv[2:])"
)


class Left:
    """The processes that a worker has left."""

    def __init__(self, found: Server, notes: Path) -> None:
        self._notes = notes
        self.worker = wait_for(found.ask, "an answer")
        self.kin = [int(line) for line in notes.read_text().split()]
        assert len(self.kin) == 3
        self.stranger = wait_for(lambda: processes_with(f"tail -f {notes}"), "the stranger")[0]
        self.marked = wait_for(lambda: processes_with(f"tail -n 1 -f {notes}"), "the program")[0]

    @property
    def alive(self) -> list[int]:
        return [pid for pid in (*self.kin, self.stranger, self.marked) if is_alive(pid)]


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "notes"
    path.touch()
    yield path
    programs = [pid for tail in ("tail -f", "tail -n 1 -f") for pid in processes_with(f"{tail} {path}")]
    for pid in (*map(int, path.read_text().split()), *programs):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def manager(kind: str, *words: str | Path, die_timeout: int = 1000) -> Iterator[Server]:
    """The tool, or the library in a program."""
    if kind == "tool":
        program = [*LEAVING, *map(str, words)]
        with prefork("--processes", "1", "--die-timeout", str(die_timeout), program=program) as found:
            yield found
    else:
        parameters = ["n_processes=1", f"die_timeout={die_timeout}"]
        command = [sys.executable, "-c", LISTEN, "SOCKET", *LEAVING, *map(str, words), *parameters]
        with started(command) as found:
            yield found


both = pytest.mark.parametrize("kind", ["tool", "library"])


@both
def test_they_are_told_to_stop_when_their_worker_has_ended(kind: str, notes: Path) -> None:
    with manager(kind, notes) as found:
        left = Left(found, notes)
        found.send(signal.SIGTERM)
        assert found.end() == 0
        assert left.alive == []
        found.says("sending TERM to what workers have left, PIDs")


@both
def test_the_deaf_are_killed_at_the_die_timeout(kind: str, notes: Path) -> None:
    with manager(kind, notes, "deaf", die_timeout=1) as found:
        left = Left(found, notes)
        found.send(signal.SIGTERM)
        assert found.end() == 1
        assert left.alive == []
        with socket.socket(socket.AF_UNIX) as client, pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            client.connect(found.path)


@both
def test_those_of_a_worker_that_is_gone_since_long_end_too(kind: str, notes: Path) -> None:
    with manager(kind, notes, die_timeout=1) as found:
        left = Left(found, notes)
        found.send(signal.SIGKILL, left.worker)
        wait_for(lambda: found.workers() not in ([], [left.worker]), "another worker")
        assert left.stranger in left.alive
        found.send(signal.SIGTERM)
        assert found.end() == 0
        assert left.alive == []


@both
def test_a_request_may_use_what_its_worker_has_started(kind: str, notes: Path) -> None:
    with manager(kind, notes) as found:
        left = Left(found, notes)
        asked = found.hold_request()
        found.send(signal.SIGTERM)
        found.says("sending TERM to PIDs")
        below = [pid for pid in left.kin if pid in living_children(left.worker)]
        assert len(below) == 2
        assert asked.pid() == left.worker
        assert found.end() == 0
        assert left.alive == []


@both
@pytest.mark.parametrize("how", ["", "deaf"])
def test_they_end_when_the_manager_is_killed(kind: str, how: str, notes: Path) -> None:
    """As far as their environment tells whose they are; what is forked in the library has that of its manager."""
    with manager(kind, notes, how, die_timeout=1 if how else 1000) as found:
        left = Left(found, notes)
        found.process.kill()
        all_gone([left.worker, left.marked, *(left.kin if kind == "tool" else [])])


def watchdogs_of(manager: int) -> list[int]:
    """The processes with the same command line, but for the manager itself."""
    line = " ".join(Path(f"/proc/{manager}/cmdline").read_text().split("\0")).strip()
    return [pid for pid in processes_with(line) if pid != manager]


def test_a_watchdog_that_is_killed_is_replaced(notes: Path) -> None:
    with manager("tool", notes, "deaf", die_timeout=1) as found:
        left = Left(found, notes)
        for number in range(1, 3):
            (watchdog,) = watchdogs_of(found.pid)
            os.kill(watchdog, signal.SIGKILL)
            found.says("the watchdog process was killed: another one is there", number)
        found.process.kill()
        all_gone([left.worker, left.marked, *left.kin])


def test_children_of_the_program_itself_are_left_alone(tmp_path: Path) -> None:
    code = (
        "import os, socket, sys, time\n"
        "from tests.prefork.example_server import ProcManager, serve\n"
        "if not (pid := os.fork()):\n"
        "    os.setsid()\n"
        "    time.sleep(1000)\n"
        "open(sys.argv[1], 'w').write(str(pid))\n"
        "serve(ProcManager(n_processes=1, die_timeout=1), socket.socket(fileno=0))\n"
    )
    note = tmp_path / "own"
    command = [sys.executable, "-c", LISTEN, "SOCKET", sys.executable, "-c", code, str(note)]
    with started(command) as found:
        assert found.ask()
        own = int(note.read_text())
        found.send(signal.SIGTERM)
        assert found.end() == 0
        assert is_alive(own)
        os.kill(own, signal.SIGKILL)


def test_the_name_of_a_socket_that_only_they_have_is_taken_over(notes: Path) -> None:
    with manager("tool", notes, "deaf") as found:
        left = Left(found, notes)
        watchdogs = watchdogs_of(found.pid)
        found.send(signal.SIGSTOP)  # it shall make no others
        for pid in watchdogs:
            os.kill(pid, signal.SIGKILL)
        found.process.kill()
        wait_for(lambda: not is_alive(left.worker), "the end of the worker")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(found.path)  # nobody will ever accept that
        command = [*PREFORK, "--listen", "unix:SOCKET", "--processes", "1", "--", *LEAVING, str(notes)]
        with started(command, path=found.path) as second:
            second.says("listening on")
            assert wait_for(second.ask, "an answer") in second.workers()
            assert left.alive


def sees(*command: str) -> list[str]:
    """A command in a pid namespace, where /proc is still that of the one outside."""
    return ["unshare", "--pid", "--fork", "--kill-child", *command]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a pid namespace")
def test_without_a_proc_of_its_own_it_says_what_it_can_not_do() -> None:
    if subprocess.run(sees("true"), capture_output=True).returncode:
        pytest.skip("there are no namespaces here")
    command = [*PREFORK, "--listen", "unix:SOCKET", "--processes", "1", "--", *OURS]
    with started(sees("sh", "-c", '"$@"; exit $?', "sh", *command)) as found:
        found.says("/proc is missing or shows another pid namespace: what workers have started may live on")
        assert wait_for(found.ask, "an answer")
        (shell,) = living_children(found.pid)
        (manager,) = filter(living_children, living_children(shell))  # the other one is its watchdog
        os.kill(manager, signal.SIGTERM)
        assert found.end() == 0

"""`prefork` as a process, with programs of several kinds."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support import PROJECT
from ..support.processes import birth, children, ignored_signals, is_alive, living_children
from ..support.waiting import wait_for
from .servers import Server, started

PREFORK = [sys.executable, "-m", "ipclocker", "prefork"]
OURS = [sys.executable, "-m", "tests.prefork.example_server", "-", "n_processes=0"]
# A program of another kind: it says nothing to its manager, ends by USR1 after its request, by TERM at once.
FOREIGN = """
import os, signal, socket, time
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
listener = socket.socket(fileno=0)
listener.settimeout(0.02)
os.write(2, b"up %d\\n" % os.getpid())  # in one piece: others write there, too
while not told:
    try:
        connection, _ = listener.accept()
    except socket.timeout:
        continue
    with connection:
        seconds = float(connection.recv(100))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
        connection.sendall(b"%d\\n" % os.getpid())
os.write(2, b"down %d %f\\n" % (os.getpid(), time.clock_gettime(time.CLOCK_BOOTTIME)))
"""


@contextlib.contextmanager
def prefork(*options: str, program: list[str] | None = None) -> Iterator[Server]:
    """prefork on a UNIX socket, with a program of ours if no other is given."""
    with started([*PREFORK, "--listen", "unix:SOCKET", *options, "--", *(OURS if program is None else program)]) as it:
        yield it


@pytest.fixture
def foreign(tmp_path: Path) -> list[str]:
    path = tmp_path / "foreign.py"
    path.write_text(FOREIGN)
    return [sys.executable, str(path)]


def wait_for_workers(found: Server, number: int) -> list[int]:
    """So many workers, which are of the foreign kind and are up."""

    def are_up() -> bool:
        workers = living_children(found.pid)
        return len(workers) == number and all(f"up {pid}\n" in found.err for pid in workers)

    wait_for(are_up, f"{number} workers: {found.err}")
    return found.workers()


def listener_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/fd/0")


def test_copies_share_the_socket_as_their_descriptor_0(foreign: list[str]) -> None:
    with prefork("--processes", "3", program=foreign) as found:
        workers = wait_for_workers(found, 3)
        assert len({listener_of(pid) for pid in workers}) == 1 and listener_of(workers[0]).startswith("socket:")
        assert {found.ask(0.05) for _ in range(20)} <= set(workers)
        assert len({os.getpgid(pid) for pid in (*workers, found.pid)}) == 4
        found.says(f"listening on unix:{found.path}")
        found.send(signal.SIGTERM)
        assert found.end() == 0
        assert not any(map(is_alive, workers))
        assert not Path(found.path).exists()
        found.says(r"was killed by SIGTERM \(it was told to stop\)")


def test_the_stop_signal_lets_a_request_be_finished(foreign: list[str]) -> None:
    with prefork("--processes", "2", "--stop-signal", "USR1", program=foreign) as found:
        workers = wait_for_workers(found, 2)
        asked = found.hold_request()
        found.send(signal.SIGINT)
        wait_for(lambda: sum(map(is_alive, workers)) == 1, "the end of the idle one")
        assert asked.pid() in workers
        assert found.end() == 0
        found.says("sending USR1 to PIDs")


def test_one_that_does_not_end_is_killed(foreign: list[str]) -> None:
    with prefork("--processes", "1", "--stop-signal", "CONT", "--die-timeout", "1", program=foreign) as found:
        wait_for_workers(found, 1)
        found.send(signal.SIGTERM)
        assert found.end() == 1
        found.says(r"was killed by SIGKILL \(wait timeout\)")


def test_hup_waits_until_a_copy_has_lived_for_a_while(foreign: list[str]) -> None:
    options = ("--processes", "1", "--start-delay", "1.5", "--stop-signal", "USR1")
    with prefork(*options, program=foreign) as found:
        (first,) = wait_for_workers(found, 1)
        found.send(signal.SIGHUP)
        found.says(f"down {first} ")
        (second,) = wait_for_workers(found, 1)
        told_at = re.search(rf"down {first} ([\d.]+)", found.err)
        assert told_at is not None
        assert float(told_at[1]) - birth(second) > 1.4


def test_hup_waits_for_the_word_of_a_worker_of_ours(tmp_path: Path) -> None:
    wait = tmp_path / "wait"
    code = (
        "import os, sys, time\n"
        f"while os.path.exists({str(wait)!r}): time.sleep(0.01)\n"
        "from tests.prefork import example_server\n"
        "sys.argv = ['', '-', 'n_processes=0']\n"
        "example_server.main()\n"
    )
    with prefork("--processes", "2", "--start-delay", "0", program=[sys.executable, "-c", code]) as found:
        workers = found.workers(2)
        wait.touch()
        found.send(signal.SIGHUP)
        wait_for(lambda: len(living_children(found.pid)) == 3, "a third")
        for _ in range(5):
            assert found.ask(0.1) in workers
        assert "sending" not in found.err
        wait.unlink()
        found.says("safe exit after SIGTERM", 2)
        assert not set(workers) & set(found.workers(2))


def test_hup_all_at_once(foreign: list[str]) -> None:
    with prefork("--processes", "3", "--no-rolling", program=foreign) as found:
        workers = wait_for_workers(found, 3)
        found.send(signal.SIGHUP)
        found.says("sending TERM to PIDs, " + " ".join(map(str, workers)))
        wait_for(lambda: not set(workers) & set(living_children(found.pid)), "others")
        wait_for_workers(found, 3)


def test_a_program_that_has_become_broken_takes_nobodys_place(tmp_path: Path, foreign: list[str]) -> None:
    script = tmp_path / "program"
    script.write_text(f"#!/bin/sh\nexec {' '.join(foreign)}\n")
    script.chmod(0o755)
    with prefork("--processes", "2", "--start-delay", "0.5", program=[str(script)]) as found:
        workers = wait_for_workers(found, 2)
        new = tmp_path / "new"
        new.write_text("#!/bin/sh\nexit 7\n")
        new.chmod(0o755)
        new.rename(script)
        found.send(signal.SIGHUP)
        found.says(r"exited with status 7; another is started in", 3)
        assert all(map(is_alive, workers))
        assert found.ask() in workers
        assert "sending" not in found.err


def test_a_program_that_fails_at_once_makes_no_storm() -> None:
    with prefork("--processes", "3", program=["false"]) as found:
        found.says("exited with status 1; another is started in", 12)
        pauses = [float(text) for text in re.findall(r"another is started in ([\d.]+) s", found.err)]
        assert max(pauses) > 0.4
        found.send(signal.SIGTERM)
        assert found.end() == 0


def test_copies_end_when_prefork_is_killed(foreign: list[str]) -> None:
    with prefork("--processes", "3", program=foreign) as found:
        workers = wait_for_workers(found, 3)
        found.process.kill()
        wait_for(lambda: not any(map(is_alive, workers)), "the end of the copies")
        with started([*PREFORK, "--listen", "unix:SOCKET", "--", *foreign], path=found.path) as second:
            wait_for_workers(second, 10)


def test_what_a_wrapper_has_started_is_told_too(foreign: list[str]) -> None:
    shell = ["sh", "-c", f"{' '.join(foreign)}; exit 3"]
    with prefork("--processes", "1", "--stop-signal", "USR1", program=shell) as found:
        found.says("started")
        wrapper = wait_for(lambda: living_children(found.pid), "the wrapper")[0]
        inner = wait_for(lambda: living_children(wrapper), "the program")[0]
        found.says(f"up {inner}")
        assert wait_for(found.ask, "an answer") == inner
        found.send(signal.SIGTERM)
        assert found.end() == 0
        wait_for(lambda: not is_alive(inner), "the end of the program")


def test_signals_are_as_the_caller_had_them(foreign: list[str]) -> None:
    with prefork("--processes", "1", program=["sleep", "1000"]) as found:
        found.says("started")
        worker = wait_for(lambda: living_children(found.pid), "the worker")[0]
        wait_for(lambda: Path(f"/proc/{worker}/cmdline").read_bytes().startswith(b"sleep"), "the program")
        status = Path(f"/proc/{worker}/status").read_text()
        assert ignored_signals(status) == 0, status
        for name in ("SigBlk", "SigCgt"):
            assert re.search(rf"{name}:\s+0+\n", status), status


def test_more_and_fewer(foreign: list[str]) -> None:
    with prefork("--processes", "1", program=foreign) as found:
        wait_for_workers(found, 1)
        found.send(signal.SIGTTIN)
        wait_for_workers(found, 2)
        found.send(signal.SIGTTOU)
        wait_for_workers(found, 1)


def test_request_timeout_of_a_program_of_ours() -> None:
    with prefork("--processes", "1", program=[*OURS, "request_timeout=0.5"]) as found:
        (worker,) = found.workers(1)
        assert found.ask() == worker
        assert found.ask(1000.0) == 0
        found.says(
            rf"server \(pid {worker}\) was killed by SIGKILL \(its request had taken longer than request_timeout"
        )
        assert found.ask() in found.workers(1)


def test_max_requests_of_a_program_of_ours() -> None:
    with prefork("--processes", "1", program=[*OURS, "max_requests=1"]) as found:
        answers = [found.ask() for _ in range(4)]
        assert 0 not in answers and len(set(answers)) == 4


def test_title_pid_file_and_log_file(tmp_path: Path, foreign: list[str]) -> None:
    pid, log = tmp_path / "pid", tmp_path / "log"
    options = ["--processes", "1", "--title", "my programs", "--pid-file", str(pid), "--log-file", str(log)]
    with prefork(*options, program=foreign) as found:
        (worker,) = wait_for_workers(found, 1)
        assert pid.read_text() == f"{found.pid}\n"
        assert Path(f"/proc/{found.pid}/cmdline").read_bytes().rstrip(b"\0") == b"my programs"
        wait_for(lambda: f"server (pid {worker}) started" in log.read_text(), "the log")
        assert re.search(rf"^\S+ \S+ prefork\[{found.pid}\] INFO: initialized$", log.read_text(), re.MULTILINE)
        assert found.err == f"up {worker}\n"
        second = subprocess.run(
            [*PREFORK, "--listen", "127.0.0.1:0", "--pid-file", str(pid), "--", *foreign],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 64
        assert second.stderr == f"prefork: already running as process {found.pid}: it holds the pid file {pid}\n"
        log.rename(tmp_path / "old")
        found.send(signal.SIGTERM)
        assert found.end() == 0
        assert "dying" in log.read_text()
    assert not pid.exists()


@pytest.mark.parametrize("number", [0, 7])
def test_a_socket_that_was_inherited(number: int, foreign: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = f"import os, sys; os.dup2({listener.fileno()}, {number}); os.execv(sys.argv[1], sys.argv[1:])"
        command = [*PREFORK, "--listen", f"fd:{number}", "--processes", "2", "--", *foreign]
        with subprocess.Popen(
            [sys.executable, "-c", code, *command], cwd=PROJECT, pass_fds=[listener.fileno()], stderr=-1
        ) as process:
            try:
                wait_for(lambda: len(living_children(process.pid)) == 2, "the workers")
                with socket.create_connection(listener.getsockname()) as client:
                    client.sendall(b"0\n")
                    assert int(client.recv(100)) in living_children(process.pid)
                process.terminate()
                assert process.wait(30) == 0
            finally:
                process.kill()


def test_a_port(foreign: list[str]) -> None:
    command = [*PREFORK, "--listen", "127.0.0.1:0", "--processes", "1", "--", *foreign]
    with subprocess.Popen(command, cwd=PROJECT, stderr=-1, text=True) as process:
        try:
            assert process.stderr is not None
            found = next(filter(None, (re.search(r"listening on (.*):(\d+)", line) for line in process.stderr)))
            with socket.create_connection((found[1], int(found[2]))) as client:
                client.sendall(b"0\n")
                assert int(client.recv(100))
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a pid namespace")
def test_as_process_1_it_reaps_what_is_left_to_it(foreign: list[str]) -> None:
    shell = ["sh", "-c", "(sleep 0.1 &) ; exec sleep 1000"]
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with started([*command, *PREFORK, "--listen", "unix:SOCKET", "--processes", "2", "--", *shell]) as found:
        (manager,) = wait_for(lambda: living_children(found.pid), "prefork")
        wait_for(lambda: len(living_children(manager)) == 2, "the workers")
        found.says("started", 2)
        wait_for(lambda: len(children(manager)) == 2, "no zombies")

"""FastCGI programs behind a real web server, renewed and stopped under load: not one answer is missing or wrong.

`python -m tests.bench.prefork` does the same with ten times as many requests.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support import PROJECT
from ..support.processes import children
from ..support.waiting import wait_for
from .web import HERE, Load, missing, nginx, wait_for_socket

WORKERS = 4
PROGRAMS = {
    "php": (["php-cgi"], signal.SIGTERM),
    "perl": (["perl", str(HERE / "fastcgi_app.pl")], signal.SIGUSR1),  # libfcgi's finish their requests on USR1
    "python": ([sys.executable, "-m", "tests.end_to_end.fastcgi_app"], signal.SIGTERM),
}


def lacks(program: str) -> list[str]:
    """What this host has not that the tests of a program need."""
    lacking = missing("nginx", PROGRAMS[program][0][0])
    if program == "perl" and not lacking:
        modules = ["-MCGI::Fast", "-MFCGI::ProcManager"]
        lacking += [] if subprocess.run(["perl", *modules, "-e1"], capture_output=True).returncode == 0 else modules
    return lacking


@contextlib.contextmanager
def fastcgi_folder() -> Iterator[Path]:
    """Where web server and programs meet; its name has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="ipcl"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def running(
    command: list[str], folder: Path, ends_well: bool = True, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a manager that listens on `fcgi` in the folder; what it says is in `log` there.

    In the end it has to end well on SIGTERM, unless that is not asked of it, as of managers that are not ours.
    """
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=PROJECT, stdin=subprocess.DEVNULL, stderr=log, env={**os.environ, **environment}
        )
    try:
        wait_for_socket(folder / "fcgi")
        yield process
        if ends_well:
            process.terminate()
            assert process.wait(60) == 0, (folder / "log").read_text()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)  # it shall make no others
            for pid in children(process.pid):  # not all managers take their workers with them
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()


def disturb(load: Load, manager: int, total: int, renewals: int, stops: int, stop_signal: int) -> None:
    """Ask so often; meanwhile renew the workers so many times, and stop so many of them besides."""
    chance = random.Random(1)
    renewed = stopped = 0
    for done in load.run(total):
        if renewed < renewals and done >= (renewed + 1) * total / (renewals + 1):
            renewed += 1
            os.kill(manager, signal.SIGHUP)
        if stopped < stops and done >= (stopped + 1) * total / (stops + 1):
            workers = children(manager)
            if workers:
                stopped += 1
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(chance.choice(workers), stop_signal)
    assert (renewed, stopped) == (renewals, stops)


def prefork(file: Path, folder: Path, program: str, *options: str, workers: int = WORKERS) -> list[str]:
    """The command line of prefork for one of the programs."""
    words, stop_signal = PROGRAMS[program]
    own = ["--listen", f"unix:{folder / 'fcgi'}", "--processes", str(workers), "--stop-signal", str(int(stop_signal))]
    return [str(file), "prefork", *own, *options, "--", *words]


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_request_fails(program: str, built_file: Path) -> None:
    if lacks(program):
        pytest.skip(f"this host lacks {', '.join(lacks(program))}")
    with fastcgi_folder() as folder, nginx(folder) as web:
        with running(prefork(built_file, folder, program, "--start-delay", "0.2"), folder) as manager:
            wait_for(lambda: len(children(manager.pid)) == WORKERS, "the workers")
            before = children(manager.pid)
            load = Load(web, slow_every=20)
            disturb(load, manager.pid, 2000, 3, 20, PROGRAMS[program][1])
            wait_for(lambda: not set(before) & set(children(manager.pid)), "other workers")
        assert (load.done, load.failures) == (2000, [])


def test_no_request_fails_with_a_manager_in_python() -> None:
    if lacks("python"):
        pytest.skip(f"this host lacks {', '.join(lacks('python'))}")
    listen = "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1000); "
    become = "os.dup2(s.fileno(), 0); os.execv(sys.argv[2], sys.argv[2:])"
    with fastcgi_folder() as folder, nginx(folder) as web:
        command = [sys.executable, "-c", listen + become, str(folder / "fcgi"), *PROGRAMS["python"][0]]
        with running(command, folder, N_PROCESSES=str(WORKERS)) as manager:
            load = Load(web, slow_every=20)
            disturb(load, manager.pid, 2000, 5, 20, signal.SIGTERM)
        assert (load.done, load.failures) == (2000, [])

"""pidstatd as a process: in the foreground, in the background, started again, without root."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipclocker.process.identity import exists

from ..support import PROJECT
from ..support.processes import run_ipclocker
from ..support.servers import pid_client, pidstatd
from ..support.waiting import wait_for


def answers(address: str) -> bool:
    """Whether a server is there, and right."""
    try:
        with pid_client(address) as sock:
            sock.settimeout(0.5)
            sock.send(b"PIDR 1 h 7\n")
            return sock.recv(100) == b"EXIS 1 1 h"
    except OSError:
        return False


def test_in_the_foreground() -> None:
    with pidstatd("--port", "0", "--host", "127.0.0.1") as (process, address, _):
        assert answers(address)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_on_all_addresses() -> None:
    with pidstatd("--port", "0") as (_, address, _):
        assert answers(address)
        assert answers(f"127.0.0.1:{address.rpartition(':')[2]}")


def test_on_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "pidstatd")
    with pidstatd("--port", path) as (process, address, _):
        assert address == path and answers(path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pidstatd("--port", path) as (process, _, _):  # in place of the dead one
        assert answers(path)
        with subprocess.Popen(
            [sys.executable, "-m", "ipclocker", "pidstatd", "--nofork", "--port", path], cwd=PROJECT, stderr=-1
        ) as second:
            assert b"another server answers there" in second.communicate(timeout=20)[1]
            assert second.returncode == 64
        assert answers(path)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert not Path(path).exists()


def test_started_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "pidstatd")
    with pidstatd("--port", path) as (process, _, _):
        assert process.stderr is not None
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
            assert any("listening" in line for line in iter(process.stderr.readline, ""))
            assert answers(path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_in_the_background(tmp_path: Path) -> None:
    path, pid_file, log = (str(tmp_path / name) for name in ("socket", "pid", "log"))
    command = [sys.executable, "-m", "ipclocker", "pidstatd", "--port", path, "--pid-file", pid_file, "--log-file", log]
    subprocess.run(command, cwd=PROJECT, check=True, timeout=60)
    monitor = int(Path(pid_file).read_text())
    try:
        assert answers(path)
        second = subprocess.run(command, cwd=PROJECT, capture_output=True, timeout=60)
        assert second.returncode == 64 and b"already running" in second.stderr
        server = int(re.findall(r"pidstatd\[(\d+)\] INFO: .*listening", Path(log).read_text())[-1])
        assert server != monitor
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: answers(path), "the server to be started again")
    finally:
        os.kill(monitor, signal.SIGTERM)
        wait_for(lambda: not exists(monitor), "the monitor's end")
    assert not Path(pid_file).exists() and not Path(path).exists()


def test_in_the_background_without_standard_descriptors(tmp_path: Path) -> None:
    """None of the pid file, the log and the sockets may get one of these numbers: they would be lost."""
    path, pid_file, log = (str(tmp_path / name) for name in ("socket", "pid", "log"))
    command = [sys.executable, "-m", "ipclocker", "pidstatd", "--port", path, "--pid-file", pid_file, "--log-file", log]
    subprocess.run(f"{shlex.join(command)} <&- >&- 2>&-", shell=True, cwd=PROJECT, check=True, timeout=60)
    monitor = int(Path(pid_file).read_text())
    try:
        assert answers(path)
        assert "listening" in Path(log).read_text()
    finally:
        os.kill(monitor, signal.SIGTERM)
        wait_for(lambda: not exists(monitor), "the monitor's end")
    assert not Path(pid_file).exists() and not Path(path).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_root() -> None:
    try:
        subprocess.run([sys.executable, "-c", "import typer"], cwd=PROJECT, user=65534, stderr=-3, check=True)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("this Python is for root alone")
    become = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    with pidstatd("--port", "0", "--host", "127.0.0.1", before=become) as (_, address, line):
        assert "without root" in line
        assert answers(address)
        with pid_client(address) as sock:
            sock.send(b"PIDR 4194305 h 7")
            assert sock.recv(100) == b"EXIS 4194305 0 h"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--port", "nosuch"], "neither a number"),
        (["--nonsense"], "--nonsense"),
        (["--port", "/nonexistent/x"], "cannot"),
    ],
)
def test_wrong_command_lines(words: list[str], text: str) -> None:
    done = run_ipclocker("pidstatd", *words)
    assert done.returncode == 64 and text in done.stderr and done.stderr.count("\n") == 1

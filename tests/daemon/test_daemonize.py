"""Servers in the foreground, into the background and out of it, as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.fake_daemon import Fake
from ..support.processes import is_alive
from ..support.waiting import DEADLINE, wait_for

# In the foreground


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_foreground_serves_until_told_to_end(fake: Fake, number: signal.Signals) -> None:
    process = fake.launch("--foreground", log_file=None)
    assert fake.server() == process.pid == fake.pid_file()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "listening on a socket" in stderr
    assert not (fake.folder / "pid").exists()
    assert not (fake.folder / "socket").exists()


def test_foreground_starts_anew_in_the_same_process(fake: Fake) -> None:
    process = fake.launch("--foreground")
    fake.server()
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: fake.log().count("listening on") == 2, "a second start")
    assert fake.server() == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0


def test_foreground_error_of_the_start_is_one_line_and_its_exit_code(fake: Fake) -> None:
    fake.tell("refuse", "no\nway")
    assert fake.run("--foreground") == (69, "fake: no\\nway\n")
    assert "ERROR: no\\nway\n" in fake.log()
    assert not (fake.folder / "pid").exists()


def test_foreground_error_without_a_log_file_is_said_once(fake: Fake) -> None:
    fake.tell("refuse", "no way")
    process = fake.launch("--foreground", log_file=None)
    assert process.communicate(timeout=DEADLINE)[1] == "fake: no way\n"


def test_foreground_error_for_the_journal_is_marked_as_one(fake: Fake, tmp_path: Path) -> None:
    fake.tell("refuse", "no way")
    command = [sys.executable, "-m", "tests.support.fake_service", str(fake.folder), "--foreground"]
    with (tmp_path / "stderr").open("w") as stderr:
        place = os.fstat(stderr.fileno())
        journal = {**os.environ, "JOURNAL_STREAM": f"{place.st_dev}:{place.st_ino}"}
        subprocess.run(command, stderr=stderr, env=journal, timeout=DEADLINE)
    assert (tmp_path / "stderr").read_text() == "<3>fake: no way\n"


def test_foreground_stopped_while_starting_ends_at_once(fake: Fake) -> None:
    fake.tell("hang")
    process = fake.launch("--foreground")
    wait_for((fake.folder / "pids").exists, "the start")
    process.send_signal(signal.SIGHUP)  # means nothing yet
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0
    assert not (fake.folder / "pid").exists()


# Into the background and out of it


def test_background_serves_when_the_launcher_returns(fake: Fake) -> None:
    assert fake.run() == (0, "")
    server, monitor = fake.ask(), fake.pid_file()
    assert is_alive(server)
    assert is_alive(monitor)
    assert server != monitor
    assert os.getsid(server) == monitor


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_background_ends_by_a_signal_to_the_guardian(fake: Fake, number: signal.Signals) -> None:
    fake.run()
    os.kill(fake.pid_file(), number)
    fake.wait_until_gone()
    assert not (fake.folder / "pid").exists()
    assert not (fake.folder / "socket").exists()
    assert "died" not in fake.log()


def test_background_ends_when_the_server_is_told_to_end(fake: Fake) -> None:
    fake.run()
    os.kill(fake.ask(), signal.SIGTERM)
    fake.wait_until_gone()
    assert not (fake.folder / "pid").exists()
    assert "died" not in fake.log()


def test_background_holds_nothing_of_the_caller(fake: Fake) -> None:
    receiver, sender = os.pipe()
    os.set_inheritable(sender, True)
    command = [sys.executable, "-m", "tests.support.fake_service", str(fake.folder), "--log-file", "log"]
    # All of these are pipes that would stay open as long as somebody holds them.
    subprocess.run(command, pass_fds=[sender], capture_output=True, timeout=DEADLINE, check=True)
    os.close(sender)
    os.set_blocking(receiver, False)
    assert os.read(receiver, 1) == b""
    os.close(receiver)
    assert fake.ask() != 0


def test_background_started_with_signals_blocked_and_ignored(fake: Fake) -> None:
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD]
    start = (
        "import os, signal, sys\n"
        f"for n in {list(map(int, numbers))}: signal.signal(n, signal.SIG_IGN)\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, {list(map(int, numbers))})\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'tests.support.fake_service', *sys.argv[1:]])\n"
    )
    command = [sys.executable, "-c", start, str(fake.folder), "--log-file", "log"]
    subprocess.run(command, timeout=DEADLINE, check=True)
    first = fake.server()
    os.kill(first, signal.SIGKILL)
    fake.server(other_than=first)
    os.kill(fake.pid_file(), signal.SIGTERM)
    fake.wait_until_gone()


# What goes wrong before it serves


def test_background_error_of_the_start_reaches_the_terminal(fake: Fake) -> None:
    fake.tell("refuse", "no\nway")
    assert fake.run() == (69, "fake: no\\nway\n")
    assert not (fake.folder / "pid").exists()
    fake.wait_until_gone()


def test_background_unexpected_error_of_the_start(fake: Fake) -> None:
    fake.tell("crash")
    code, stderr = fake.run()
    assert code == 70
    assert stderr == "fake: an error of its own: RuntimeError('crash\\nof the start')\n"
    assert "Traceback" in fake.log()
    assert "\n" not in fake.log()[:-1].partition("Traceback")[2]
    fake.wait_until_gone()


def test_background_server_that_is_killed_before_it_is_ready(fake: Fake) -> None:
    fake.tell("kill")
    code, stderr = fake.run()
    assert (code, stderr) == (70, "fake: the server process died before it was ready (killed by SIGKILL)\n")
    fake.wait_until_gone()


def test_background_guardian_that_is_killed_before_it_is_ready(fake: Fake) -> None:
    fake.tell("hang")
    process = fake.launch()
    wait_for((fake.folder / "pids").exists, "the start")
    os.kill(fake.pid_file(), signal.SIGKILL)
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 70
    assert stderr == "fake: the monitor process died before the server was ready (killed by SIGKILL)\n"


def test_background_stopped_before_it_is_ready(fake: Fake) -> None:
    fake.tell("hang")
    process = fake.launch()
    wait_for((fake.folder / "pids").exists, "the start")
    os.kill(fake.pid_file(), signal.SIGTERM)
    _, stderr = process.communicate(timeout=DEADLINE)
    assert (process.returncode, stderr) == (70, "fake: ended before it was ready\n")
    fake.wait_until_gone()


def test_background_ends_if_nobody_waits_for_it_any_more(fake: Fake) -> None:
    fake.tell("hang")
    process = fake.launch()
    wait_for(lambda: bool(fake.pids()), "the start")
    process.kill()
    process.wait(DEADLINE)
    fake.untell("hang")
    fake.wait_until_gone()
    assert not (fake.folder / "pid").exists()


def test_background_ends_at_once_if_nobody_waits_for_it_any_more(fake: Fake) -> None:
    """Nobody knows of one that waits, and has no pid file."""
    fake.tell("hang")
    process = fake.launch()
    wait_for(lambda: bool(fake.pids()), "the start")
    process.kill()
    process.wait(DEADLINE)
    fake.wait_until_gone()
    assert "is gone before it was ready; the server is ended" in fake.log()
    assert not (fake.folder / "pid").exists()


@pytest.mark.parametrize("mode", [[], ["--foreground"]])
def test_unwritable_log_file(fake: Fake, mode: list[str]) -> None:
    process = fake.launch(*mode, log_file="missing/log")
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 64
    assert stderr.startswith("fake: the log file missing/log cannot be written (No such file")
    assert stderr.count("\n") == 1

"""lockersh: the short options, and what goes together."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ipclocker import Locker
from ipclocker.cli.lockersh import Lockersh

from ..support.processes import run_ipclocker
from ..support.servers import ThreadServer


def test_short_options_are_those_of_flock() -> None:
    line = Lockersh.read(["-l", "x", "-w", "5", "-E", "9", "-s", "-q", "--", "true"])
    assert (line.lock, line.timeout, line.conflict_exit_code, line.shared, line.quiet) == (["x"], 5.0, 9, True, True)
    line = Lockersh.read(["-nvl", "x", "true"])
    assert (line.lock, line.nonblock, line.verbose, line.command) == (["x"], True, True, ["true"])


@pytest.mark.parametrize("word", ["-h", "--help", "-V", "--version"])
def test_help_and_version(word: str) -> None:
    done = run_ipclocker("lockersh", word)
    assert done.returncode == 0 and "ersion" in done.stdout and not done.stderr


@pytest.mark.parametrize(
    "words", [["-n", "-w", "3"], ["-q", "-v"], ["-E", "256"], ["-E", "x"], ["-w", "-1"], ["-s", "--slots", "2"]]
)
def test_what_does_not_go_together(words: list[str]) -> None:
    done = run_ipclocker("lockersh", *words, "-l", "x", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (64, "") and done.stderr


@pytest.mark.parametrize("word", ["-lock", "-lock=y", "-tim", "-verbose"])
def test_an_option_of_several_letters_has_two_dashes(word: str) -> None:
    """As the Perl program takes it: -lock would be -l and a lock named ock."""
    done = run_ipclocker("lockersh", "-l", "x", word, "y", "echo", "ran")
    assert (done.returncode, done.stdout) == (64, "") and f"has two, -{word.partition('=')[0]}" in done.stderr


@pytest.fixture
def busy() -> Iterator[list[str]]:
    """Options for a server on which the lock is held."""
    with ThreadServer() as server, Locker("x", host="127.0.0.1", port=server.port):
        yield ["--dhost", "127.0.0.1", "--port", str(server.port), "-l", "x"]


@pytest.mark.parametrize("wait", [["-n"], ["-w", "0.1"]])
def test_busy_is_said_unless_it_is_to_be_quiet(busy: list[str], wait: list[str]) -> None:
    done = run_ipclocker("lockersh", *busy, *wait, "-E", "7", "--", "echo", "ran")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (7, "", 1)
    done = run_ipclocker("lockersh", *busy, *wait, "-q", "-E", "7", "--", "echo", "ran")
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    assert run_ipclocker("lockersh", *busy, *wait, "-q", "--", "true").returncode == 75


def test_errors_are_said_though_it_is_quiet() -> None:
    done = run_ipclocker(
        "lockersh", "-q", "--dhost", "127.0.0.1", "--port", "1", "--connect-tries", "1", "-l", "x", "--", "true"
    )
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)


def test_a_command_ends_as_it_does_though_it_is_quiet() -> None:
    with ThreadServer() as server:
        where = ["--dhost", "127.0.0.1", "--port", str(server.port), "-q", "-l", "x"]
        assert run_ipclocker("lockersh", *where, "--", "sh", "-c", "echo e >&2; exit 9").stderr == "e\n"
        assert run_ipclocker("lockersh", *where, "--", "sh", "-c", "kill $$").returncode == -signal.SIGTERM

"""supervise's command line: what is wrong with it is said in one line, before anything is started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ..support.processes import run_ipclocker


def run(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    return run_ipclocker("supervise", *words, **more)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no program to keep alive: give --program or --file"),
        (["--program", ""], "--program '': the command is missing"),
        (["--program", "web:"], "--program 'web:': the command is missing"),
        (["--program", "(cd x)"], "'(cd' is no name for a program: write NAME: COMMAND"),
        (["--program", "sleep 1", "--program", "sleep 2"], "there is a program called 'sleep' already (--program 'sl"),
        (["--file", "/nonexistent/list"], "the file of programs /nonexistent/list can't be read: No such file"),
        (["--file", "/dev/null"], "no program to keep alive: there is none in /dev/null"),
        (["--program", "sleep 1", "--give-up", "5"], "'5' does not say when to give up: write deaths/seconds"),
        (["--program", "sleep 1", "--give-up", "20/10"], "'20/10' never happens: the pauses between 20 deaths"),
        (["--program", "sleep 1", "--fatal-exit"], "nothing is ever fatal: say when to give up"),
        (["--program", "sleep 1", "--stop-signal", "X"], "the signal 'X' is not known"),
        (["--program", "sleep 1", "--stop-timeout", "soon"], "'soon' is no number of seconds"),
        (["--program", "sleep 1", "--output", "/nonexistent/x"], "the output file /nonexistent/x can't be written"),
        (["--program", "sleep 1", "--output-dir", "/nonexistent"], "no files can be made in the output folder"),
        (["--program", "sleep 1", "--lock", "a b"], "the lock name 'a b'"),
        (["--program", "sleep 1", "--lock", "a", "--lease", "1"], "lease is '1.0': it takes 3 seconds or more"),
        (["--program", "sleep 1", "--lock", "a", "--port", "nosuch"], "the port 'nosuch' is neither"),
        (["--program", "sleep 1", "--pid-file", "/nonexistent/x"], "the pid file /nonexistent/x cannot be written"),
        (["--program", "sleep 1", "status"], "'status' has to be the first word"),
        (["sleep", "1"], "'sleep' is no option: programs are given by --program"),
        (["--nonsense"], "--nonsense"),
        (["status", "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_command_lines(words: list[str], text: str, tmp_path: Path) -> None:
    done = run(*words, *(["--nofork"] if words[:1] != ["status"] else []))
    assert done.returncode == 64, done
    assert text in done.stderr and done.stderr.count("\n") == 1
    assert done.stderr.startswith("supervise")


def test_a_wrong_line_is_told_to_who_starts_it_in_the_background(tmp_path: Path) -> None:
    done = run("--program", "sleep 1", "--output", "/nonexistent/x", "--pid-file", str(tmp_path / "pid"))
    assert done.returncode == 64
    assert (
        done.stderr
        == "supervise: the output file /nonexistent/x can't be written (No such file or directory): name another\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_socket_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x.sock").write_text("")
    done = run("--program", "sleep 1", "--nofork", "--pid-file", str(tmp_path / "x.pid"))
    assert done.returncode == 64
    assert "it is a file, and no socket (choose another with --pid-file)" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.sock"]


@pytest.mark.parametrize("words", [["--help"], ["status", "--help"], ["start", "--help"], ["--version"]])
def test_help(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 0 and done.stderr == ""
    assert "Version: " in done.stdout


def test_nobody_to_ask() -> None:
    done = run("status", "web", "--json", "--pid-file", "/nonexistent/x.pid")
    assert done.returncode == 69
    assert done.stderr.startswith("supervise: no supervisor answers at /nonexistent/x.sock (No such file or directory)")
    assert done.stdout == ""


def test_a_program_file_from_a_pipe() -> None:
    done = run("--file", "/dev/stdin", "--nofork", "--give-up", "1/1", "--fatal-exit", input="x: exit 3\n")
    assert done.returncode == 79
    assert "the program 'x' died too often (1/1)" in done.stderr

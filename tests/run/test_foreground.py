"""A command beside the process that waits for it, with signals read on Linux's way and on that of other systems."""

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

HEAD = """
import os, select, signal, socket, sys, time
from math import inf
from ipclocker.process import libc
from ipclocker.process.spawn import CommandProcess, ExecSpec
from ipclocker.run.foreground import CommandEnded, Foreground, Interrupted, end_by_signal
{way}
def command(text):
    return CommandProcess("tool", ExecSpec(["/bin/sh", "-c", text], exact=True))
def run(text):
    foreground = Foreground(command(text))
    foreground.start({{"A": "a"}})
    foreground.run(lambda: foreground.wait(None, 0, inf))
    foreground.end_like_command()
"""


@pytest.fixture(params=["signalfd", "handlers"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    yield "" if request.param == "signalfd" else "libc._libc = None"


def start(way: str, script: str, **more: object) -> subprocess.Popen[str]:
    text = HEAD.format(way=way) + textwrap.dedent(script)
    process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )
    return process


def finished(way: str, script: str, **more: object) -> tuple[int, str, str]:
    process = start(way, script, **more)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("text", "code"), [("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", -15), ("kill -KILL $$", -9)]
)
def test_ends_like_the_command(way: str, text: str, code: int) -> None:
    assert finished(way, f"run({text!r})") == (code, "", "")


def test_passes_signals_on(way: str) -> None:
    process = start(way, 'run(\'trap "echo usr1" USR1; trap "exit 9" TERM; echo ready; while :; do sleep 0.02; done\')')
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "usr1\n"
    process.terminate()
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == 9


def test_a_signal_before_the_command_runs(way: str) -> None:
    script = """
    foreground = Foreground(command("echo ran"))
    os.write(2, b"ready\\n")
    try:
        foreground.wait(None, 0, inf)
    except Interrupted as interrupted:
        foreground.finish()
        end_by_signal(interrupted.number)
    """
    process = start(way, script)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == -signal.SIGHUP


def test_the_command_is_killed_before_it_runs(way: str) -> None:
    script = """
    child = command("echo ran")
    foreground = Foreground(child)
    os.kill(child.pid, signal.SIGKILL)
    try:
        foreground.wait(None, 0, inf)
    except CommandEnded:
        foreground.end_like_command()
    """
    assert finished(way, script) == (-signal.SIGKILL, "", "")


def test_the_command_ended_before_anybody_looked(way: str) -> None:
    """Its SIGCHLD came when it was not read yet, so there is none to be read."""
    script = """
    child = command("echo ran")
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    foreground = Foreground(child)
    foreground.start({"A": "a"})
    foreground.run(lambda: foreground.wait(None, 0, inf))
    foreground.end_like_command()
    """
    assert finished(way, script) == (-signal.SIGKILL, "", "")


def test_waits_for_a_socket_and_for_time(way: str) -> None:
    script = """
    foreground = Foreground(command("exit 3"))
    ours, theirs = socket.socketpair()
    begin = time.monotonic()
    print = lambda *words: os.write(2, (" ".join(map(str, words)) + "\\n").encode())
    print(foreground.wait(ours, select.POLLIN, begin + 0.2), time.monotonic() >= begin + 0.2)
    theirs.send(b"x")
    print(foreground.wait(ours, select.POLLIN, inf))
    ours.recv(1)
    foreground.start({"A": "a"})
    foreground.run(lambda: foreground.wait(ours, select.POLLIN, inf))
    print(foreground.wait(ours, select.POLLIN, time.monotonic()))
    foreground.end_like_command()
    """
    assert finished(way, script) == (3, "", "False True\nTrue\nFalse\n")


def test_ticks_every_second_until_it_starts(way: str) -> None:
    script = """
    ticks = []
    foreground = Foreground(command("sleep 1.2"), lambda: ticks.append(time.monotonic()))
    foreground.wait(None, 0, time.monotonic() + 1.5)
    foreground.start({"A": "a"})
    foreground.run(lambda: foreground.wait(None, 0, inf))
    print(len(ticks), file=sys.stderr)
    foreground.end_like_command()
    """
    assert finished(way, script) == (0, "", "1\n")


def test_what_comes_first_when_it_wakes_up(way: str) -> None:
    """Before a signal is passed on, and before the command's end is seen."""
    script = """
    foreground = Foreground(command('trap "kill -KILL $$" TERM; echo ready; while :; do sleep 0.02; done'))
    foreground.first = lambda: os.write(2, b"first\\n")
    foreground.start({"A": "a"})
    try:
        while True:
            foreground.wait(None, 0, inf)
    except CommandEnded:
        os.write(2, b"ended %d\\n" % foreground.was_ended_by(signal.SIGKILL))
    foreground.end_like_command()
    """
    process = start(way, script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    err = process.communicate(timeout=30)[1]
    assert process.returncode == -signal.SIGKILL
    assert err.startswith("first\n") and err.endswith("first\nended 1\n")


def test_an_addition_that_is_none_is_taken_from_the_environment(way: str) -> None:
    script = """
    foreground = Foreground(command("echo ${A-none} ${B-none} ${C-none}"))
    foreground.start({"A": "a", "B": None, "C": None})
    foreground.run(lambda: foreground.wait(None, 0, inf))
    foreground.end_like_command()
    """
    assert finished(way, script, env={**os.environ, "A": "x", "B": "y"}) == (0, "a none none\n", "")


def test_many_children_end_at_once(way: str) -> None:
    """Their SIGCHLDs become one; here they are those of a caller that has become lockersh by exec."""
    script = """
    for _ in range(50):
        if os.fork() == 0:
            os._exit(1)
    foreground = Foreground(command("sleep 0.1; exit 4"))
    foreground.start({"A": "a"})
    foreground.run(lambda: foreground.wait(None, 0, inf))
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        os.write(2, b"all are reaped\\n")
    foreground.end_like_command()
    """
    assert finished(way, script) == (4, "", "all are reaped\n")


def test_a_caller_that_ignores_its_children(way: str) -> None:
    script = "run('exit 5')"
    code, _, err = finished(way, script, preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert (code, err) == (5, "")


def test_a_look_up_is_cut_short_by_a_signal(way: str) -> None:
    script = """
    foreground = Foreground(command("echo ran"))
    def look_up():
        os.write(2, b"ready\\n")
        time.sleep(1000)
    foreground.interruptibly(look_up)
    """
    process = start(way, script)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM


def test_the_command_dies_with_the_one_that_waits() -> None:
    """On Linux; `way` is not for here since the kernel is asked for it on the way of signalfd."""
    process = start("", "run('echo $$; exec sleep 1000')")
    assert process.stdout is not None
    command = int(process.stdout.readline())
    process.kill()
    process.communicate(timeout=30)  # the command has its end of these pipes until it is gone
    deadline = time.monotonic() + 30
    while Path(f"/proc/{command}").exists() and ") Z " not in Path(f"/proc/{command}/stat").read_text():
        assert time.monotonic() < deadline


@pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 11, 13, 14, 15, 34, 64])
def test_end_by_signal(way: str, number: int) -> None:
    assert finished(way, f"end_by_signal({number})") == (-number, "", "")

"""pidwatch on real processes of this host."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.fake_servers import false_server
from ..support.processes import is_alive
from ..support.site import Site, Tool
from ..support.waiting import wait_for

PYTHON = shlex.quote(sys.executable)
SOON = 1.0  # seconds in which the end of a process of this host is acted on, though "at once" is meant


class Other:
    """A process to be watched."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "1000"])
        self.pid = self.process.pid

    def end(self) -> float:
        """Kill it; when."""
        self.process.kill()
        self.process.wait()
        return time.monotonic()


@pytest.fixture
def other() -> Iterator[Other]:
    other = Other()
    yield other
    other.end()


@pytest.fixture
def site(bare_site: Site) -> Site:
    return bare_site


def run(site: Site, *words: str | Path | int, **more: Any) -> subprocess.CompletedProcess[str]:
    return site.run("pidwatch", *map(str, words), **more)


def start(site: Site, other: Other, *words: str | Path, command: str = "sleep 1000", **more: Any) -> Tool:
    """Start pidwatch; on return the command runs (which is to be a sleep somewhere, if not given)."""
    tool = site.start("pidwatch", "--pid", str(other.pid), *words, command, **more)
    wait_for(lambda: runs(tool, "sleep") or tool.process.poll() is not None, "the command")
    assert tool.process.poll() is None, tool.err
    return tool


def below(pid: int) -> list[int]:
    """The processes below a process."""
    done = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in pairs if its_parent == parent]
    return found[1:]


def runs(tool: Tool, name: str) -> int:
    """The process of that name below a tool; 0 if there is none."""
    for pid in below(tool.pid):
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                return pid
        except OSError:
            continue
    return 0


def pidwatches(other: Other) -> list[int]:
    """The processes that are a pidwatch for that one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"pidwatch" in words and str(other.pid).encode() in words and is_alive(int(entry.name)):
            found.append(int(entry.name))
    return found


# The command


@pytest.mark.parametrize("code", [0, 1, 7, 64, 129, 255])
def test_exit_status(site: Site, other: Other, code: int) -> None:
    done = run(site, "--pid", other.pid, f"exit {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_signal_that_ended_it(site: Site, other: Other) -> None:
    assert run(site, "--pid", other.pid, "kill -USR1 $$").returncode == -signal.SIGUSR1


def test_it_reads_and_writes_what_the_caller_gives(site: Site, other: Other) -> None:
    done = run(site, "--pid", other.pid, "cat; echo error >&2", stdin=None, input="text\n")
    assert (done.stdout, done.stderr) == ("text\n", "error\n")


def test_a_signal_is_passed_on(site: Site, other: Other) -> None:
    tool = start(site, other)
    tool.process.send_signal(signal.SIGTERM)
    assert tool.end() == -signal.SIGTERM


def test_no_such_command(site: Site, other: Other) -> None:
    done = run(site, "--pid", other.pid, "--no-shell", "no-such-command")
    assert (done.returncode, done.stderr) == (
        127,
        "pidwatch: cannot execute 'no-such-command': No such file or directory\n",
    )


def test_words_as_they_are(site: Site, other: Other) -> None:
    assert run(site, "--pid", other.pid, "--no-shell", "echo", "$HOME", "a  b").stdout == "$HOME a  b\n"


def test_nothing_stays_behind(site: Site, other: Other) -> None:
    assert run(site, "--pid", other.pid, "--kill-tree", "--grace", "100", "true").returncode == 0
    assert pidwatches(other) == []


def test_the_command_ends_with_a_killed_pidwatch(site: Site, other: Other) -> None:
    tool = start(site, other)
    command = runs(tool, "sleep")
    tool.process.kill()
    wait_for(lambda: not is_alive(command), "the end of the command")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["true"], "the process to watch is missing"),
        (["--pid", "0", "true"], "'--pid'"),
        (["--pid", "-1", "true"], "'--pid'"),
        (["--pid", "x", "true"], "'--pid'"),
        (["--pid", "99999999999", "true"], "'--pid'"),
        (["--pid", "1"], "the command is missing"),
        (["--pid", "1", ""], "the command is missing"),
        (["--pid", "1", "--foreground", "1", "true"], "with --foreground there is no command"),
        (["--pid", "1", "--foreground", "0"], "'--foreground'"),
        (["--pid", "1", "--signal", "FOO", "true"], "the signal 'FOO' is not known"),
        (["--pid", "1", "--host", "", "true"], "'' is not a host"),
        (["--pid", "1", "--host", "a:b", "true"], "'a:b' is not a host"),
        (["--pid", "1", "--host", "a:1752", "true"], "'1752' in the host list 'a:1752' is a number"),
        (["--pid", "1", "--port", "0", "true"], "the port '0' can't be asked"),
        (["--pid", "1", "--port", "no-such-service", "true"], "the port 'no-such-service'"),
        (["--pid", "1", "--port", "/run/x", "true"], "the port '/run/x' is a UNIX socket's"),
        (["--pid", "1", "--interval", "0", "true"], "'--interval'"),
        (["--pid", "1", "--down-after", "0", "true"], "'--down-after'"),
        (["--pid", "1", "--grace", "-1", "true"], "'--grace'"),
        (["--pid", "1", "--no-such-option", "true"], "--no-such-option"),
    ],
)
def test_a_wrong_command_line(site: Site, words: list[str], complaint: str) -> None:
    done = run(site, *words)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("pidwatch: ") and done.stderr.count("\n") == 1
    assert complaint in done.stderr


# A server for this host


@pytest.mark.parametrize("where", [["--host", "127.0.0.1"], ["--host", "localhost"], []])
def test_with_a_port_the_server_there_is_asked_about_a_process_of_this_host_too(
    site: Site, other: Other, where: list[str]
) -> None:
    state = [b"1"]

    def answers(question: bytes) -> list[bytes]:
        _, pid, host, *_ = question.split()
        return [b"EXIS %b %b %b" % (pid, state[0], host)]

    with false_server(answers) as port:
        tool = start(site, other, *where, "--port", str(port), "--debug")
        tool.says("answers: True")
        state[0] = b"0"
        assert tool.end() == -signal.SIGHUP and is_alive(other.pid)
        state[0] = b"1"
        tool = start(site, other, "--host", f"[127.0.0.1]:{port}", "--debug")
        tool.says("answers: True")
        state[0] = b"0"
        assert tool.end() == -signal.SIGHUP and is_alive(other.pid)


# The folder


def test_cd(site: Site, other: Other, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for folder in (tmp_path / "link", "link"):
        done = run(site, "--cd", folder, "--pid", other.pid, "/bin/pwd; echo $PWD", cwd=tmp_path)
        named = folder if isinstance(folder, Path) else tmp_path / "folder"
        assert (done.stdout, done.stderr) == (f"{tmp_path}/folder\n{named}\n", "")


def test_a_program_of_that_folder(site: Site, other: Other, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    assert run(site, "--cd", tmp_path, "--pid", other.pid, "./program").stdout == "found\n"


def test_cd_to_a_folder_that_is_none(site: Site, other: Other, tmp_path: Path) -> None:
    done = run(site, "--cd", tmp_path / "none", "--pid", other.pid, "pwd", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}\n")
    assert done.stderr == (
        f"pidwatch: cannot go to the folder '{tmp_path}/none': No such file or directory; "
        "the command runs where it is\n"
    )


# The end of the process


@pytest.mark.parametrize("host", [None, "localhost", "127.0.0.1", "::1", socket.gethostname()])
def test_the_command_ends_at_once(site: Site, other: Other, host: str | None) -> None:
    tool = start(site, other, *([] if host is None else ["--host", host]))
    ended = other.end()
    assert tool.end() == -signal.SIGHUP
    assert time.monotonic() - ended < SOON
    assert tool.err == ""


def test_a_zombie_is_gone(site: Site, other: Other) -> None:
    tool = start(site, other)
    other.process.kill()  # and nobody asks for its status
    assert tool.end() == -signal.SIGHUP


def test_gone_at_the_start(site: Site, other: Other) -> None:
    other.end()
    begun = time.monotonic()
    assert run(site, "--pid", other.pid, "sleep 1000").returncode == -signal.SIGHUP
    assert time.monotonic() - begun < 5 * SOON


def test_a_barrier(site: Site, other: Other) -> None:
    script = f"{site.file} pidwatch --pid {other.pid} sleep 9999999; echo after it: $?"
    shell = subprocess.Popen(["sh", "-c", script], env=site.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: pidwatches(other), "pidwatch")
    other.end()
    assert shell.communicate(timeout=30)[0] == b"after it: 129\n"


@pytest.mark.parametrize("text", ["TERM", "SIGTERM", "-TERM", "-SIGTERM", "15", "-15"])
def test_signal(site: Site, other: Other, text: str) -> None:
    tool = start(site, other, "--signal", text)
    other.end()
    assert tool.end() == -signal.SIGTERM


def test_a_command_that_handles_the_signal(site: Site, other: Other) -> None:
    tool = start(site, other, command="trap 'exit 3' HUP; while :; do sleep 0.3; done")
    other.end()
    assert tool.end() == 3


def test_a_signal_that_the_caller_ignores(site: Site, other: Other) -> None:
    tool = start(site, other, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    other.end()
    tool.says("SIGHUP was ignored when pidwatch was started")
    tool.process.terminate()
    assert tool.end() == -signal.SIGTERM


def test_killer(site: Site, other: Other, tmp_path: Path) -> None:
    program = tmp_path / "killer"
    program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called; kill -9 $2\n')
    program.chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    tool = start(site, other, "--killer", "./killer", "--cd", "elsewhere", "--signal", "USR1", cwd=tmp_path)
    command = runs(tool, "sleep")
    other.end()
    assert tool.end() == -signal.SIGKILL
    assert (tmp_path / "called").read_text() == f"-USR1 {command}\n"


def test_debug(site: Site, other: Other) -> None:
    tool = start(site, other, "--debug")
    command = runs(tool, "sleep")
    other.end()
    tool.end()
    assert tool.err.splitlines() == [
        f"pidwatch: process {other.pid} of localhost is watched for process {command}",
        f"pidwatch: process {other.pid} of localhost is gone",
        f"pidwatch: SIGHUP to {command}",
    ]


# All below the command

STUBBORN = "import signal as s, time; s.signal(s.SIGHUP, s.SIG_IGN); print(flush=True); time.sleep(1000)"


def start_tree(site: Site, other: Other, *words: str) -> tuple[Tool, list[int]]:
    """pidwatch with a command that has a stubborn process and a shell with a mild one; these processes."""
    ready = site.folder / "ready"
    tool = start(site, other, *words, command=f"{PYTHON} -c '{STUBBORN}' >{ready} & sh -c 'sleep 1000; :' & wait")
    wait_for(lambda: ready.exists() and ready.read_text(), "the stubborn process")
    pids = below(tool.pid)
    site.ends_with(*pids)
    return tool, pids


def test_without_kill_tree(site: Site, other: Other) -> None:
    tool, pids = start_tree(site, other)
    other.end()
    assert tool.end() == -signal.SIGHUP
    assert sum(map(is_alive, pids)) == 3


def test_kill_tree(site: Site, other: Other) -> None:
    tool, pids = start_tree(site, other, "--kill-tree")
    other.end()
    assert tool.end() == -signal.SIGHUP
    wait_for(lambda: sum(map(is_alive, pids)) == 1, "the end of the mild")


def test_kill_tree_and_grace(site: Site, other: Other) -> None:
    tool, pids = start_tree(site, other, "--kill-tree", "--grace", "0.5")
    ended = other.end()
    assert tool.end() == -signal.SIGHUP
    assert 0.5 <= time.monotonic() - ended < 0.5 + SOON
    wait_for(lambda: not any(map(is_alive, pids)), "the end of all")


def test_grace(site: Site, other: Other) -> None:
    tool = start(site, other, "--grace", "0.5", command="trap '' HUP; while :; do sleep 0.3; done")
    ended = other.end()
    assert tool.end() == -signal.SIGKILL
    assert time.monotonic() - ended >= 0.5


# From the background


@pytest.fixture
def command() -> Iterator[Other]:
    command = Other()
    yield command
    command.end()


def watch(site: Site, other: Other, command: Other, *words: str) -> int:
    """Watch from the background; the process that does."""
    begun = time.monotonic()
    done = run(site, "--foreground", command.pid, "--pid", other.pid, *words)  # which reads stdout to its end
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - begun < 5 * SOON
    (found,) = wait_for(lambda: pidwatches(other), "pidwatch")
    return found


def test_the_process_is_ended(site: Site, other: Other, command: Other) -> None:
    pidwatch = watch(site, other, command)
    ended = other.end()
    assert command.process.wait(30) == -signal.SIGHUP
    assert time.monotonic() - ended < SOON
    wait_for(lambda: not is_alive(pidwatch), "the end of pidwatch")


def test_pidwatch_ends_with_the_process(site: Site, other: Other, command: Other) -> None:
    pidwatch = watch(site, other, command)
    command.end()
    wait_for(lambda: not is_alive(pidwatch), "the end of pidwatch")
    assert is_alive(other.pid)


def test_it_holds_on_to_nothing(site: Site, other: Other, command: Other) -> None:
    pidwatch = watch(site, other, command, "--cd", "/usr")
    assert os.readlink(f"/proc/{pidwatch}/cwd") == "/"
    files = {os.readlink(f"/proc/{pidwatch}/fd/{number}") for number in (0, 1, 2)}
    assert files == {"/dev/null"}
    assert os.getsid(pidwatch) == pidwatch
    left = [os.readlink(entry) for entry in Path(f"/proc/{pidwatch}/fd").iterdir()]
    assert not [name for name in left if name.startswith("pipe:")]


def test_both_gone_already(site: Site, other: Other, command: Other) -> None:
    command.end()
    done = run(site, "--foreground", command.pid, "--pid", other.pid)
    assert (done.returncode, done.stderr) == (0, "")
    wait_for(lambda: not pidwatches(other), "the end of pidwatch")


def test_grace_from_the_background(site: Site, other: Other) -> None:
    stubborn = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    with stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        done = run(site, "--foreground", stubborn.pid, "--pid", other.pid, "--kill-tree", "--grace", "0.5")
        assert done.returncode == 0
        other.end()
        assert stubborn.wait(30) == -signal.SIGKILL


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_process_of_another_user(site: Site, other: Other) -> None:
    words = [site.file, "pidwatch", "--foreground", str(os.getpid()), "--pid", str(other.pid)]
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words]
    done = subprocess.run(as_nobody, env=site.environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (64, "")
    assert f"process {os.getpid()} is another user's" in done.stderr

"""lockersh is as if it were not there: what the command finds, and how it ends, is as without."""

from __future__ import annotations

import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.processes import is_alive, state
from ..support.site import Site, Tool
from ..support.waiting import wait_for

PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    yield shared_site
    shared_site.end_tools()
    shared_site.free("x")


def with_and_without(site: Site, command: str, **more: Any) -> tuple[bytes, bytes]:
    """What a command prints under lockersh, and what it prints without."""
    more = {"env": site.environment, "stdout": subprocess.PIPE, "timeout": 30, **more}
    words = [site.file, "lockersh", "--lock", "x", "--no-shell"]
    mine = subprocess.run([*words, *shlex.split(command)], **more)
    bare = subprocess.run(shlex.split(command), **more)
    assert mine.returncode == bare.returncode
    return mine.stdout, bare.stdout


# How it ends


@pytest.mark.parametrize("code", [0, 1, 2, 7, 64, 75, 100, 126, 127, 128, 129, 143, 200, 254, 255])
def test_exit_status(site: Site, code: int) -> None:
    assert site.lockersh(f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 10, 11, 13, 14, 15, 31, 34, 64])
def test_signal_that_ended_it(site: Site, number: int) -> None:
    program = (
        f"import os, signal as s; s.signal({number}, s.SIG_DFL) if {number} != 9 else 0; os.kill(os.getpid(), {number})"
    )
    assert site.lockersh("--no-shell", sys.executable, "-c", program).returncode == -number
    assert not site.locks()


def test_one_core_only(site: Site, tmp_path: Path) -> None:
    if Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
        pytest.skip("cores go to a program here")
    site.lockersh(
        "ulimit -c unlimited; kill -QUIT $$",
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)),
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_no_such_command(site: Site) -> None:
    assert site.lockersh("no-such-command-here").returncode == 127
    done = site.lockersh("--no-shell", "no-such-command-here")
    assert (done.returncode, done.stderr) == (
        127,
        "lockersh: cannot execute 'no-such-command-here': No such file or directory\n",
    )
    assert not site.locks()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--", "echo one | cat"], "No such file or directory"),
        (["--no-shell", "echo  one"], "No such file or directory"),
        (["--", "A=5", "env"], "No such file or directory"),
        (["--", "/bin/echo one\n/bin/echo two"], "No such file or directory"),
        (["--", f"/bin/echo {'one ' * 100}"], "File name too long"),
    ],
)
def test_a_line_for_a_shell_behind_dashes_is_no_command_and_the_remedy_is_said(
    site: Site, words: list[str], why: str
) -> None:
    done = site.lockersh(*words)
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == (
        f"lockersh: cannot execute '{' '.join(words[1].split())}': {why}; behind -- or --no-shell words are executed "
        "as they are: write sh -c in front of a line, or leave that out\n"
    )
    assert not site.locks()


def test_a_folder_whose_name_has_a_blank_is_one_folder(site: Site, tmp_path: Path) -> None:
    for name in ("old", "dir", "old dir"):
        (tmp_path / name).mkdir()
    assert site.lockersh("rm", "-r", "old dir", cwd=tmp_path).returncode == 0
    assert site.lockersh("--", "rmdir", "--", "dir", cwd=tmp_path).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_the_current_folder_is_not_on_the_path(site: Site, tmp_path: Path) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    assert site.lockersh("--no-shell", "only-here", cwd=tmp_path).returncode == 127
    assert site.lockersh("--no-shell", "./only-here", cwd=tmp_path).stdout == "found\n"


def test_not_executable(site: Site) -> None:
    done = site.lockersh("/etc/passwd")
    assert (done.returncode, done.stderr) == (126, "lockersh: cannot execute '/etc/passwd': Permission denied\n")
    assert site.lockersh("/etc/passwd/x").returncode == 126
    assert site.lockersh("/").returncode == 126


def test_script_without_an_interpreter_line(site: Site, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$0" "$@"\nexit 5\n')
    script.chmod(0o755)
    done = site.lockersh("--no-shell", script, "two words", "*")
    assert (done.returncode, done.stdout) == (5, f"{script} two words *\n")


# Which words make which command


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["echo", "one", "two"], "one two\n"),
        (["echo one two"], "one two\n"),
        (["echo", "two  words"], "two  words\n"),
        (["echo", "two  words;"], "two words\n"),
        (["A=5", "printf", "%s.", "two  words", "", "b"], "two  words..b."),
        (["--no-shell", "echo", "two  words"], "two  words\n"),
        (["--no-shell", "echo", "$HOME", "*"], "$HOME *\n"),
        (["echo one; echo two"], "one\ntwo\n"),
        (["echo", "a", "|", "tr", "a", "b"], "b\n"),
        (["A=5 env | grep ^A="], "A=5\n"),
        (["A=5", "printenv", "A"], "5\n"),
        (["  echo   blanks  "], "blanks\n"),
        (["echo", "--lock", "y"], "--lock y\n"),
        (["--", "echo", "-n"], ""),
        (["--", "echo", "$HOME", "*", "a  b", "#", "|"], "$HOME * a  b # |\n"),
        (["--", "printf", "%s.", "", "a\nb"], ".a\nb."),
        (["--", "sh", "-c", "echo $0 | tr a b", "a"], "b\n"),
        (["--", "echo", "--", "a  b"], "-- a  b\n"),
        (["echo", "--", "a;", "echo", "b"], "-- a\nb\n"),
        (["echo", "a", "# b"], "a\n"),
        (["printf", "a\u00a0b"], "a\u00a0b"),
        (["eval", "echo", "builtin"], "builtin\n"),
        (["printenv", "IPCLOCKER_LOCK"], "x\n"),
    ],
)
def test_words(site: Site, words: list[str], out: str) -> None:
    assert site.lockersh(*words).stdout == out


def test_no_shell_stands_between(site: Site) -> None:
    assert site.lockersh("cat /proc/self/comm").stdout == "cat\n"
    tool = site.start_lockersh("sleep 1000")
    wait_for(lambda: Path(f"/proc/{tool.child()}/comm").read_text() == "sleep\n", "the command")
    assert str(tool.child()) in site.locks()["x"], "the lock is recorded under the command's own pid"
    tool.process.terminate()
    assert tool.end() == -signal.SIGTERM


def test_very_long_command_lines(site: Site) -> None:
    many = ["x" * 1000] * 1000
    assert site.lockersh("--no-shell", "echo", *many).stdout == " ".join(many) + "\n"
    assert site.lockersh("echo", *many).stdout == " ".join(many) + "\n"
    assert site.lockersh(f": {'x' * 100_000}; echo done").stdout == "done\n"
    too_long = site.lockersh(":;", *many)
    assert (too_long.returncode, "Argument list too long" in too_long.stderr) == (126, True)


# What it finds


def test_environment_byte_for_byte(site: Site) -> None:
    environment = {
        b"LANG": b"C",
        b"BYTES": bytes(range(128, 256)),
        b"EMPTY": b"",
        b"with space": b"a=b",
        b"LINES": b"a\nb\n",
        b"PYTHONPATH": b"/nowhere",
        b"IPCLOCKER_PORT": os.fsencode(site.environment["IPCLOCKER_PORT"]),
    }
    mine, bare = with_and_without(site, "/usr/bin/env -0", env=environment)
    start = bare + b"IPCLOCKER_LOCK=x\0IPCLOCKER_TOKEN="
    assert mine.startswith(start)
    assert re.fullmatch(rb"\d+\0IPCLOCKER_SPACE=[0-9a-f]{32}\0", mine[len(start) :])


def test_the_lock_granted_replaces_that_of_the_caller(site: Site) -> None:
    environment = {**site.environment, "IPCLOCKER_LOCK": "w", "IPCLOCKER_TOKEN": "7"}
    lock, token = site.lockersh("printenv IPCLOCKER_LOCK IPCLOCKER_TOKEN", env=environment).stdout.split()
    assert lock == "x" and int(token) > 7


def signal_masks(status: bytes) -> list[bytes]:
    return [line for line in status.splitlines() if line.startswith((b"SigBlk", b"SigIgn", b"SigCgt"))]


@pytest.mark.parametrize(
    "ignored", [[], [signal.SIGHUP], [signal.SIGINT, signal.SIGQUIT], [signal.SIGCHLD, signal.SIGTERM]]
)
def test_ignored_signals_and_the_mask(site: Site, ignored: list[signal.Signals]) -> None:
    def as_caller() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2, signal.SIGALRM})

    mine, bare = with_and_without(site, "cat /proc/self/status", preexec_fn=as_caller, restore_signals=False)
    assert signal_masks(mine) == signal_masks(bare)


def test_limits_umask_folder(site: Site, tmp_path: Path) -> None:
    def as_caller() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 1_000_000))
        os.umask(0o027)

    for command in ("cat /proc/self/limits", "grep Umask /proc/self/status", "pwd"):
        mine, bare = with_and_without(site, command, preexec_fn=as_caller, cwd=tmp_path)
        assert mine == bare


def test_descriptors(site: Site, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        mine, bare = with_and_without(site, "ls -l /proc/self/fd", pass_fds=[file.fileno()])
        assert f"{file.fileno()} -> {file.name}".encode() in mine
        assert [line.split()[8] for line in mine.splitlines()[1:]] == [
            line.split()[8] for line in bare.splitlines()[1:]
        ]


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]])
def test_closed_standard_descriptors(site: Site, closed: list[int], tmp_path: Path) -> None:
    out = tmp_path / "out"
    redirections = " ".join(f"{number}>&-" for number in closed)
    lockersh = f"{shlex.quote(site.file)} lockersh --lock x --no-shell"
    lister = "/bin/sh -c 'for n in 0 1 2; do [ -e /proc/$$/fd/$n ] && echo $n >> \"$0\"; done; exit 3'"
    done = subprocess.run(
        f"{lockersh} {lister} {shlex.quote(str(out))} {redirections}", shell=True, env=site.environment, timeout=30
    )
    assert done.returncode == 3
    found = {int(line) for line in out.read_text().split()} if out.exists() else set()
    assert found == {0, 1, 2} - set(closed)
    # The end of a run that says something, and has nowhere to say it.
    assert subprocess.run(f"{lockersh} {redirections}", shell=True, env=site.environment, timeout=30).returncode == 64


def test_stdin_and_stdout_pass_through(site: Site) -> None:
    data = os.urandom(300_000).hex()
    assert site.lockersh("cat", stdin=None, input=data).stdout == data


def test_process_group_session_and_terminal(site: Site) -> None:
    program = "import os; print(os.getpgrp(), os.getsid(0))"
    mine, bare = with_and_without(site, f"{PYTHON} -c {shlex.quote(program)}")
    assert mine == bare


# Pipelines


def bash(site: Site, script: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {**site.environment, "LOCKERSH": f"{site.file} lockersh --lock x"}
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30, **more)


def test_a_reader_that_has_seen_enough(site: Site) -> None:
    done = bash(site, '$LOCKERSH yes | head -1; echo "${PIPESTATUS[@]}"')
    assert (done.stdout, done.stderr) == ("y\n141 0\n", "")


def test_a_writer_learns_that_the_command_reads_no_more(site: Site) -> None:
    done = bash(site, 'yes | $LOCKERSH "head -1; exec <&-; read line; exit 0" ; echo "${PIPESTATUS[@]}"')
    assert done.stdout.splitlines()[0] == "y"


def test_a_pipe_ends_when_the_command_closes_it(site: Site, tmp_path: Path) -> None:
    """Also while the command goes on, so lockersh has no share in it."""
    os.mkfifo(tmp_path / "go on")
    tool = site.start_lockersh(
        f"echo word; echo three >&3; exec >&- 3>&-; read line < '{tmp_path / 'go on'}'; exit 4",
        stdout=subprocess.PIPE,
    )
    assert tool.process.stdout is not None
    assert tool.process.stdout.read() == "word\n"
    assert tool.process.poll() is None
    (tmp_path / "go on").write_text("go on\n")
    assert tool.end() == 4


def test_a_descriptor_of_the_callers_own(site: Site) -> None:
    ours, theirs = os.pipe()
    program = f"import os, time; os.write({theirs}, b'word'); os.close({theirs}); time.sleep(1000)"
    tool = site.start_lockersh("--no-shell", sys.executable, "-c", program, pass_fds=[theirs])
    os.close(theirs)
    with os.fdopen(ours) as file:
        assert file.read() == "word", "and then its end, while the command still runs"
    assert tool.process.poll() is None
    tool.process.terminate()
    assert tool.end() == -signal.SIGTERM


# Signals


COUNTER = (
    "import os, signal, sys\n"
    "def tell(word): os.write(1, f'{word}\\n'.encode())\n"
    "for number in map(int, sys.argv[1:]): signal.signal(number, lambda n, f: tell(n))\n"
    "signal.signal(signal.SIGALRM, lambda n, f: os._exit(3))\n"
    "tell('ready')\n"
    "while True: signal.pause()\n"
)


def counter(site: Site, *numbers: int, **more: Any) -> Tool:
    """A command that prints the number of each signal it gets, and ends by SIGALRM."""
    words = ["--no-shell", sys.executable, "-c", COUNTER, *map(str, numbers)]
    tool = site.start_lockersh(*words, stdout=subprocess.PIPE, **more)
    assert tool.process.stdout is not None
    assert tool.process.stdout.readline() == "ready\n"
    return tool


@pytest.mark.parametrize("new_session", [False, True])
def test_signals_are_passed_on_once(site: Site, new_session: bool) -> None:
    """Also those that a terminal might have sent, since here somebody sent them to lockersh alone."""
    numbers = [1, 2, 3, 10, 12, 15, 16, 20, 21, 22, 23, 24, 26, 27, 28, 29, 30, 34, 64]
    tool = counter(site, *numbers, start_new_session=new_session)
    assert tool.process.stdout is not None
    for number in numbers:
        tool.process.send_signal(number)
        assert tool.process.stdout.readline() == f"{number}\n"
    tool.process.send_signal(signal.SIGALRM)
    assert tool.out() == ""
    assert tool.end() == 3


def test_what_the_command_sends_to_its_group_reaches_it_once(site: Site) -> None:
    program = (
        "import os, signal, sys, time\n"
        "seen = []\n"
        "signal.signal(signal.SIGTERM, lambda n, f: seen.append(n))\n"
        "os.kill(0, signal.SIGTERM)\n"
        # A sender that is gone by the time that lockersh looks is not known to be of the command.
        "os.spawnlp(os.P_WAIT, sys.executable, 'python', '-c',\n"
        "    'import os, signal, time; signal.signal(15, signal.SIG_IGN); os.kill(0, 15); time.sleep(0.5)')\n"
        "print(seen)\n"
    )
    tool = site.start_lockersh(
        "--no-shell", sys.executable, "-c", program, start_new_session=True, stdout=subprocess.PIPE
    )
    assert tool.out() == "[15, 15]\n"
    assert tool.end() == 0


def test_alarm_of_the_caller(site: Site) -> None:
    """`perl -e 'alarm 5; exec @ARGV'` is an old way to limit a command's time; the alarm is lockersh's now."""
    tool = counter(site, preexec_fn=lambda: signal.setitimer(signal.ITIMER_REAL, 1.5))
    assert tool.end() == 3


def test_ignored_signals_stay_ignored_while_it_runs(site: Site) -> None:
    tool = site.start_lockersh("sleep 1000", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for(lambda: "x" in site.locks(), "the lock")
    wait_for(lambda: Path(f"/proc/{tool.child()}/comm").read_text() == "sleep\n", "the command")
    tool.process.send_signal(signal.SIGHUP)
    tool.process.send_signal(signal.SIGTERM)
    assert tool.end() == -signal.SIGTERM


def test_killed_with_sigkill_it_takes_the_command_with_it(site: Site) -> None:
    tool = site.hold("mortal")
    command = tool.child()
    tool.process.kill()
    wait_for(lambda: not is_alive(command), "the end of the command")
    wait_for(lambda: "mortal" not in site.locks(), "the lock to be free")


def test_stopped_and_continued_by_others(site: Site) -> None:
    """`kill -TSTP` stops command and lockersh, `kill -CONT` continues both.

    The kernel drops that signal in an orphaned process group, which ours may be (of cron, of setsid). So they have a
    group of their own, whose parent, we, is in the same session but in another group.
    """
    tool = site.start_lockersh("sleep 1000", preexec_fn=lambda: os.setpgid(0, 0))
    wait_for(lambda: "x" in site.locks(), "the lock")
    command = tool.child()
    tool.process.send_signal(signal.SIGTSTP)
    for pid in (command, tool.pid):
        wait_for(lambda pid=pid: state(pid) == "T", "the stop")  # type: ignore[misc]
    tool.process.send_signal(signal.SIGCONT)
    for pid in (command, tool.pid):
        wait_for(lambda pid=pid: state(pid) == "S", "going on")  # type: ignore[misc]
    tool.process.send_signal(signal.SIGTERM)
    assert tool.end() == -signal.SIGTERM


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a set-uid program")
def test_a_command_of_another_user(site: Site, tmp_path: Path) -> None:
    """A signal that can't be passed on does no harm."""
    setpriv = site.folder / "setpriv"
    setpriv.write_bytes(Path("/usr/bin/setpriv").read_bytes())
    site.folder.chmod(0o755)
    setpriv.chmod(0o4755)
    (site.folder / "lockerd").chmod(0o777)
    words: list[str | Path] = [
        "--no-shell",
        setpriv,
        "--reuid=0",
        "--regid=0",
        "--clear-groups",
        "sh",
        "-c",
        "trap 'exit 6' USR1; kill -STOP $$; while :; do sleep 0.05; done",
    ]
    environment = {**site.environment, "IPCLOCKER_CACHE": ""}
    tool = site.start_lockersh(*words, user=65534, group=65534, extra_groups=[], env=environment)
    wait_for(lambda: "x" in site.locks(), "the lock")
    command = tool.child()
    wait_for(lambda: state(command) == "T", "the command, which stops itself")
    site.ends_with(command)
    os.kill(command, signal.SIGCONT)
    os.kill(tool.pid, signal.SIGTERM)

    def has_read() -> bool:
        os.kill(tool.pid, signal.SIGCONT)  # in the foreground of a terminal it has stopped with its command
        pending = int(Path(f"/proc/{tool.pid}/status").read_text().partition("ShdPnd:")[2].split()[0], 16)
        return not pending & 1 << signal.SIGTERM - 1

    wait_for(has_read, "the signal to be read")
    os.kill(command, signal.SIGUSR1)
    assert tool.end() == 6, tool.err

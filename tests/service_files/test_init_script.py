"""The init script, run by the shells there are; where it works is said by the file that may change its settings."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipclocker.errors import UsageError
from ipclocker.service_files.init_script import init_script

from ..support.processes import is_alive
from ..support.site import Run
from ..support.waiting import wait_for

SHELLS = [shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(shell[0])]


class Script:
    """An installed script, and the daemon that it starts."""

    def __init__(self, shell: list[str], run: Run, folder: Path) -> None:
        self._shell = shell
        self._run = run
        self.folder = folder
        self.socket = folder / "lockerd"
        self.pid_file = folder / "pid file"
        self.path = folder / "script"
        self.path.write_text(self.text("--state", "none"))
        self.set(OPTIONS=f"--path {self.socket} --log-file {folder}/log")

    def text(self, *options: str) -> str:
        done = subprocess.run(
            [self._run.file, "units", "lockerd", "--sysv", "--", *options],
            env=self._run.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def set(self, **settings: str) -> None:
        """What the administrator sets."""
        settings = {"PIDFILE": str(self.pid_file), "END_WITHIN": "20", **settings}
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
        (self.folder / "defaults").write_text("".join(lines))

    def __call__(self, *words: str) -> tuple[int, str]:
        """Run it; its exit code and all that it said."""
        done = subprocess.run(
            [*self._shell, self.path, *words],
            env=self._run.environment(DEFAULTS=str(self.folder / "defaults")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout

    @property
    def pid(self) -> int:
        """What the pid file says; 0 without one."""
        return int(self.pid_file.read_text()) if self.pid_file.exists() else 0

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            try:
                client.connect(str(self.socket))
            except OSError:
                return False
            client.sendall(b"VERSION\n")
            return client.recv(99).startswith(b"version")


@pytest.fixture(params=SHELLS, ids=lambda shell: str(shell[0]))
def script(request: pytest.FixtureRequest, run: Run) -> Iterator[Script]:
    folder = Path(tempfile.mkdtemp(prefix="ipcl"))  # a UNIX socket's name has to be short
    made = Script(request.param, run, folder)
    yield made
    if made.pid and is_alive(made.pid) and b"--path" in Path(f"/proc/{made.pid}/cmdline").read_bytes():
        os.kill(made.pid, signal.SIGTERM)
        wait_for(lambda: not made.pid, "the end")
    shutil.rmtree(folder)


def test_from_start_to_stop(script: Script) -> None:
    assert script("status") == (3, "lockerd does not run\n")
    assert script("start") == (0, f"lockerd is started: process {script.pid}\n")
    first = script.pid
    assert script.answers()
    assert script("status") == (0, f"lockerd runs: process {first}\n")
    assert script("start") == (0, f"lockerd runs already: process {first}\n")
    assert script("stop") == (0, "lockerd is stopped\n")
    assert not script.answers() and not script.pid
    wait_for(lambda: not is_alive(first), "the kernel to have done with it")
    assert script("stop") == (0, "lockerd does not run\n")


def test_restart_and_reload(script: Script) -> None:
    assert script("reload") == (7, "lockerd does not run\n")
    assert script("try-restart") == (0, "") and not script.pid
    assert script("restart")[0] == 0
    first = script.pid
    for action in ("reload", "force-reload"):
        assert script(action) == (0, f"lockerd is told to start anew: process {first}\n")
    wait_for(lambda: (script.folder / "log").read_text().count("started again") >= 1, "the start anew")
    wait_for(script.answers, "an answer")
    for action in ("restart", "try-restart"):
        before = script.pid
        assert script(action) == (0, f"lockerd is stopped\nlockerd is started: process {script.pid}\n")
        assert script.answers()
        wait_for(lambda before=before: not is_alive(before), "the kernel to have done with it")  # type: ignore[misc]
    assert script("stop")[0] == 0


def test_a_start_that_fails(script: Script) -> None:
    script.set(OPTIONS="--path /nowhere/at/all")
    code, said = script("start")
    assert code == 1 and re.fullmatch(r"lockerd: cannot listen on .*\n", said)
    script.set(DAEMON=str(script.folder / "missing"))
    assert script("start") == (5, f"lockerd: there is no program {script.folder}/missing\n")


def test_a_pid_file_that_was_left(script: Script) -> None:
    """Its number is another process's by now, which must be left alone."""
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            for left in (str(other.pid), "99999999", "", "word", "-1"):
                script.pid_file.write_text(f"{left}\n")
                assert script("status") == (1, f"lockerd is dead, and has left {script.pid_file}\n")
                assert script("stop") == (0, "lockerd does not run\n")
            script.pid_file.write_text(f"{other.pid}\n")
            assert script("start")[0] == 0
            assert script.pid != other.pid and other.poll() is None
            assert script("stop")[0] == 0
        finally:
            other.kill()


def test_one_that_does_not_end(script: Script) -> None:
    assert script("start")[0] == 0
    pid = script.pid
    script.set(END_WITHIN="1")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert script("stop") == (1, f"lockerd: process {pid} has not ended within 1 s\n")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not is_alive(pid), "the end")


def test_actions_that_are_none(script: Script) -> None:
    for words in ((), ("nonsense",), ("",)):
        code, said = script(*words)
        assert code == 2 and said.startswith("Usage: ") and said.count("\n") == 1


def test_words_reach_the_daemon_as_they_are(script: Script) -> None:
    show = script.folder / "show"
    show.write_text('#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done > "$(dirname "$0")/words"\n')
    show.chmod(0o755)
    words = ["", "a b", "'", "it's", '"', "$HOME", "`id`", "\\", "*", "#", "~", "a;b", "ü\t", "\udcff"]
    script.path.write_bytes(os.fsencode(init_script("lockerd", [str(show), "lockerd"], words, {})))
    script.set(OPTIONS="--one --two")
    script("start")
    expected = ["lockerd", "--pid-file", str(script.pid_file), *words, "--one", "--two", ""]
    assert os.fsdecode((script.folder / "words").read_bytes()).split("\0") == expected


def test_the_header_is_that_of_an_init_script(script: Script) -> None:
    text = script.text()
    assert text.startswith("#!/bin/sh\n### BEGIN INIT INFO\n# Provides:          lockerd\n")
    header = text.partition("### END INIT INFO\n")[0].splitlines()[2:]
    assert all(re.fullmatch(r"# [A-Z][A-Za-z-]+: +\S.*", line) for line in header)
    assert "@" not in text


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="this host has no shellcheck")
def test_shellcheck_finds_nothing_wrong(script: Script) -> None:
    script.path.write_text(script.text("--port", "it's $1"))
    done = subprocess.run(["shellcheck", script.path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("words", "options"),
    [(["--nofork"], {"nofork": True}), (["--pid-file", "x"], {"pid_file": "x"}), (["--host", "a\nb"], {})],
)
def test_what_is_the_script_s_own(words: list[str], options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        init_script("lockerd", ["/x/ipclocker", "lockerd"], words, options)


def test_a_tool_that_stays_in_the_foreground() -> None:
    with pytest.raises(UsageError, match="run it by supervise"):
        init_script("prefork", ["/x/ipclocker", "prefork"], [], {})

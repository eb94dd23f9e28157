"""prefork's command line: what is wrong with one, and what it says of itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ..support.processes import run_ipclocker

PREFORK = [sys.executable, "-m", "ipclocker", "prefork"]


def test_help_tells_of_every_option() -> None:
    done = run_ipclocker("prefork", "--help")
    assert done.returncode == 0 and done.stderr == ""
    for option in (
        "listen",
        "processes",
        "start-delay",
        "die-timeout",
        "stop-signal",
        "rolling / --no-rolling",
        "pid-file",
        "title",
        "socket-mode",
        "socket-owner",
        "backlog",
        "log-file",
    ):
        assert f"--{option}" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--listen", "127.0.0.1:0"], 64, "the program is missing"),
        (["--", "true"], 64, "the socket is missing"),
        (["--listen", "nowhere", "--", "true"], 64, "'nowhere' is no place to listen"),
        (["--listen", "127.0.0.1:0", "--processes", "0", "--", "true"], 64, "--processes"),
        (["--listen", "127.0.0.1:0", "--start-delay", "-1", "--", "true"], 64, "--start-delay"),
        (["--listen", "127.0.0.1:0", "--stop-signal", "STOPPED", "--", "true"], 64, "the signal 'STOPPED'"),
        (["--listen", "127.0.0.1:0", "--socket-mode", "600", "--", "true"], 64, "mode and owner are of a UNIX"),
        (["--listen", "unix:/nonexistent/x", "--", "true"], 64, "cannot listen on"),
        (["--listen", "unix:/tmp/ipcl.x", "--socket-mode", "rw", "--", "true"], 64, "mode can't be 'rw'"),
        (["--listen", "unix:/tmp/ipcl.x", "--socket-owner", "nobody:nosuch", "--", "true"], 64, "no such group"),
        (["--listen", "fd:99", "--", "true"], 64, "descriptor 99"),
        (["--listen", "127.0.0.1:0", "--pid-file", "/nonexistent/x", "--", "true"], 64, "pid file"),
        (["--listen", "127.0.0.1:0", "--log-file", "/nonexistent/x", "--", "true"], 64, "log file"),
        (["--listen", "127.0.0.1:0", "--", "nosuchprogram"], 127, "cannot execute 'nosuchprogram'"),
        (["--listen", "127.0.0.1:0", "--", "/etc/passwd"], 126, "cannot execute '/etc/passwd'"),
    ],
)
def test_wrong_command_lines(words: list[str], code: int, text: str) -> None:
    done = run_ipclocker("prefork", *words)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("/tmp/ipcl.x").exists()

"""Processes of all sorts to ask about: alive, zombies, gone, somebody else's; each surely ended."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import wait_for

NOBODY = 4194305  # over the kernel's limit: no process ever has it
_SYS_EXIT = {"x86_64": 60, "aarch64": 93}


@contextlib.contextmanager
def alive() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def zombie() -> Iterator[int]:
    """A process that has ended, and whose status nobody has asked for."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        wait_for(lambda: state(pid) == "Z", "the child's end")
        yield pid
    finally:
        os.waitpid(pid, 0)


@contextlib.contextmanager
def half_zombie() -> Iterator[int]:
    """A process whose first thread has ended and looks like a zombie, while another one lives."""
    number = _SYS_EXIT.get(platform.machine())
    if number is None:
        pytest.skip("the number of exit is not known for this machine")
    thread = "threading.Thread(target=time.sleep, args=(1000,)).start()"
    program = f"import ctypes, threading, time; {thread}; ctypes.CDLL(None).syscall({number}, 0)"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            wait_for(lambda: state(process.pid) == "Z", "the end of the first thread")
            yield process.pid
        finally:
            process.kill()


def gone() -> int:
    """A number that a process had a moment ago."""
    with alive() as process:
        process.send_signal(signal.SIGKILL)
    return process.pid


def state(pid: int) -> str:
    """The letter that /proc has for what a process does."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

"""Processes of all sorts to ask about (alive, zombies, gone), and what /proc tells of any process."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ipclocker.process.viewpoint import HOST_PIDNS

from . import PROJECT
from .waiting import DEADLINE, wait_for

NO_PID = 4_194_305  # over the kernel's limit (2**22): no process ever has it
_SYS_EXIT = {"x86_64": 60, "aarch64": 93}


def in_child(call: Callable[[], object]) -> bool:
    """Whether a call in a forked child came to its end and returned something true."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if call() else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


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


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on, which is field 3 in proc_pid_stat(5); [] if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def state(pid: int) -> str:
    """The state of a process as /proc has it: R, S, T, Z and so on; empty if it is gone."""
    return (_stat(pid) or [""])[0]


def is_alive(pid: int) -> bool:
    """True if a process exists and is no zombie (in a container, nobody may reap our orphans)."""
    return state(pid) not in ("", "Z", "X")


def birth(pid: int) -> float:
    """The time at which a process was started, in seconds after the boot."""
    return int(_stat(pid)[19]) / os.sysconf("SC_CLK_TCK")


def cpu_time(pid: int, with_ended: bool = False) -> float:
    """The seconds of processor time that a process has used, on demand with those of its children that have ended.

    Those of its own are exact (/proc/PID/stat counts in ticks of 10 ms, which is too coarse for a short benchmark).
    """
    own = time.clock_gettime(~pid << 3 | 2)  # the number that clock_getcpuclockid(3) has for a process's clock
    return own + (sum(map(int, _stat(pid)[13:15])) / os.sysconf("SC_CLK_TCK") if with_ended else 0.0)


def children(pid: int) -> list[int]:
    """The children of a process of one thread, zombies too."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def living_children(pid: int) -> list[int]:
    """The children of a process of one thread that are no zombies."""
    return [child for child in children(pid) if is_alive(child)]


def command_line(pid: int) -> list[str]:
    """The words of a process; [] if it is gone or a zombie."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    text = words.decode(errors="replace").rstrip("\0")
    return text.split("\0") if text else []


def processes_with(line: str) -> list[int]:
    """The living processes of this host whose command line is this one."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if " ".join(command_line(pid)) == line and is_alive(pid)]


def all_gone(pids: list[int]) -> None:
    """Wait until none of these processes lives."""
    wait_for(lambda: not any(map(is_alive, pids)), f"the end of {pids}")


def run_ipclocker(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run `ipclocker WORDS` from the sources to its end; `more` goes to subprocess.run."""
    more = {"capture_output": True, "text": True, "timeout": DEADLINE, "cwd": PROJECT, **more}
    done: subprocess.CompletedProcess[str] = subprocess.run([sys.executable, "-m", "ipclocker", *words], **more)
    return done


def ignored_signals(status: str) -> int:
    """The ignored signals, as a mask, less those two that are the C library's own (and that a make leaves ignored)."""
    found = re.search(r"SigIgn:\s+([0-9a-f]+)", status)
    assert found is not None, status
    return int(found[1], 16) & ~(0b11 << 31)


def in_no_namespace() -> bool | None:
    """What is known of a process in a pid namespace of this kernel that has none: only who sees all can know that."""
    return False if os.geteuid() == 0 and os.stat("/proc/self/ns/pid").st_ino == HOST_PIDNS else None


def execution(pid: int) -> str:
    """The addresses of a process' stack, words and environment, which its next program has elsewhere."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return " ".join(fields[25:26] + fields[45:49])

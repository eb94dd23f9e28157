"""The identity of a process: what tells it from every other, since a number alone is used again.

A process is named by its machine and host name, the boot of its kernel, its pid namespace, its number there and the
time it was started (and the time namespace that was read in). Linux shows all of these; where a system does not, only
the number is known.

"Is this process still there?" has three answers: True, False, and None where this process can't know, because the
other one belongs to another kernel or pid namespace, or is hidden. Nothing may be freed for a None. A zombie has ended
and only waits for its parent to ask for its status: it is not there any more.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Optional

from ..errors import UsageError
from ..net.ready import READ, new_poller
from .viewpoint import own_view, proc_is_ours

MAX_PID = 2**31 - 1  # no system has a larger pid_t, and os.kill raises OverflowError for one
_STATE, _PARENT, _GROUP, _SESSION, _THREADS, _START = 0, 1, 2, 3, 17, 19  # in what `stat_fields` returns


class ProcessIdentity(NamedTuple):
    """The name of one process.

    start: when it was started, in clock ticks since boot; None if that is not known
    boot, pidns, timens, machine, host: where it is, as in viewpoint.View
    """

    pid: int
    start: Optional[int] = None
    boot: str = ""
    pidns: Optional[int] = None
    timens: Optional[int] = None
    machine: str = ""
    host: str = ""


class Status(NamedTuple):
    """The state of a process as proc(5) shows it.

    ended: True for a zombie without a living thread
    start: in clock ticks since boot
    parent, group, session: the pid of its parent, its process group and its session
    """

    ended: bool
    start: int
    parent: int
    group: int
    session: int


def identify(pid: int) -> ProcessIdentity:
    """Return the identity of a process that this one can see; only its number where the system tells no more."""
    status = proc_status(pid)
    view = own_view()
    if status is None or not view.boot or view.pidns is None:
        return ProcessIdentity(pid)
    return ProcessIdentity(pid, status.start, *view)


def parse_pid(given: int | str) -> int:
    """Return the number of a process that is given as a number or as its digits. Raises UsageError for all else."""
    text = str(given)
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) > 0):
        raise UsageError(f"the pid '{given}' is not a positive number, so it names no process")
    return int(text)


def exists(pid: int, start: int | None = None) -> bool | None:
    """Tell if a process of this kernel exists, and was started at `start` if that is given; None if that is hidden.

    `start` is in clock ticks since boot. Zero and negative numbers mean groups of processes, or all: for them it is
    None, too.
    """
    if pid <= 0:
        return None
    if not has_number(pid):
        return False
    status = proc_status(pid)
    if status is not None:
        return not status.ended and start in (None, status.start)
    if not has_number(pid) or has_ended(pid):
        return False
    return True if start is None else None


def has_number(pid: int) -> bool:
    """Tell if any process, or a zombie, has this number now; any of its group if it is negative. One system call."""
    if pid > MAX_PID:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def has_ended(pid: int) -> bool:
    """Tell if the process with this number is only a zombie, by its pidfd; False where there are no pidfds."""
    try:
        descriptor = open_pidfd(pid)
    except ProcessLookupError:
        return True
    if descriptor is None:
        return False
    try:
        poller = new_poller()
        poller.register(descriptor, READ)
        return bool(poller.poll(0))
    finally:
        os.close(descriptor)


def open_pidfd(pid: int) -> int | None:
    """Open a descriptor that becomes readable when the process ends (pidfd_open(2)); None where that can't be had.

    Raises ProcessLookupError if there is no such process.
    """
    if pid > MAX_PID:
        raise ProcessLookupError
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:  # an older kernel, no descriptor left, a thread's number
        return None


def proc_status(pid: int) -> Status | None:
    """Return what /proc says of a process; None if it says nothing: there is no such process, or it is hidden."""
    return read_status(pid) if proc_is_ours() else None


def read_status(pid: int) -> Status | None:
    """Return the same for a caller that knows already that /proc shows this pid namespace."""
    try:
        fields = stat_fields(pid)
        # The first thread of a process may end before the others: then it is a zombie, and the process lives.
        ended = fields[_STATE] in b"ZX" and int(fields[_THREADS]) <= 1
        return Status(ended, int(fields[_START]), int(fields[_PARENT]), int(fields[_GROUP]), int(fields[_SESSION]))
    except (OSError, ValueError, IndexError):
        return None


def stat_fields(pid: int | str) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the third on (proc(5)). Raises OSError if the process is gone."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()  # the second is the command in brackets, and may hold anything

"""What tells a process from every other: a number alone comes back, on the same host and on others.

A process is its host's boot, its pid namespace, its number there and the time it was started. Linux shows all of
these; where a system does not, the number is what is known.

Whether a process is still there has three answers: True, False, and None where this process can't know, because
the other one belongs to another kernel or pid namespace, or is hidden. Nothing may be freed for a None. A zombie,
which has ended and only waits for its parent to ask for its status, is not there any more.
"""

from __future__ import annotations

import os
import select
from typing import NamedTuple, Optional

from ..net.address import own_host_name

_HOST_PIDNS = 0xEFFFFFFC  # the number of the first pid namespace of every Linux kernel (include/linux/proc_ns.h)
MAX_PID = 2**31 - 1  # a larger number is none of a process on any system


class ProcessIdentity(NamedTuple):
    """A process of this kernel: `start` in clock ticks since boot, `pidns` the number of its pid namespace."""

    pid: int
    start: Optional[int] = None
    boot: str = ""
    pidns: Optional[int] = None


class Status(NamedTuple):
    """What /proc says of a process: `ended` if it is a zombie without a living thread; `start` in clock ticks."""

    ended: bool
    start: int


def identify(pid: int) -> ProcessIdentity:
    """The identity of a process that this one can see; only the number where the system tells no more."""
    status = proc_status(pid)
    boot, pidns = own_boot(), own_pidns()
    if status is None or not boot or pidns is None:
        return ProcessIdentity(pid)
    return ProcessIdentity(pid, status.start, boot, pidns)


def own_boot() -> str:
    """The boot of this kernel; empty where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def own_pidns() -> int | None:
    """The pid namespace of this process; None where the system does not tell."""
    if not _proc_is_ours():
        return None
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def in_container() -> bool:
    """Whether this process is in a pid namespace that does not show all processes of its host."""
    return own_pidns() not in (None, _HOST_PIDNS)


def is_own(process: ProcessIdentity, host: str = "") -> bool:
    """Whether a process is one of this kernel and this pid namespace.

    A classic client tells neither boot nor namespace; then the name of its host decides. (A host without a name of
    its own calls itself localhost, as others do: who knows where a client's connection is from should look at that.)
    """
    if process.boot and process.pidns is not None:
        return process.boot == own_boot() and process.pidns == own_pidns()
    if process.boot and process.boot != own_boot():
        return False
    return host == own_host_name()


def still_there(process: ProcessIdentity, host: str = "") -> bool | None:
    """Whether this very process of the named host is still there; None if it is not one that can be seen here."""
    return exists(process.pid, process.start) if is_own(process, host) else None


def exists(pid: int, start: int | None = None) -> bool | None:
    """Whether a process of this kernel exists, and was started then if `start` is given; None if that is hidden.

    Zero and negative numbers name no process but groups of them, or all: for them it is None, too.
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
    """Whether any process, or what is left of it, has this positive number now. One system call."""
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
    """Whether a process that has this number is only a zombie, as its pidfd tells; False where there are none."""
    try:
        descriptor = open_pidfd(pid)
    except ProcessLookupError:
        return True
    if descriptor is None:
        return False
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(0))
    finally:
        os.close(descriptor)


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends (pidfd_open(2)); None where that can't be had.

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
    """What /proc says of a process; None if it says nothing, because there is none or because it is hidden."""
    if not _proc_is_ours():
        return None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
        # The second field is the command in brackets, and may hold anything.
        fields = stat[stat.rindex(b")") + 2 :].split()
        state, threads, start = fields[0], fields[17], fields[19]
        # The first thread of a process may end before the others: then it is a zombie, and the process lives.
        return Status(state in b"ZX" and int(threads) <= 1, int(start))
    except (OSError, ValueError, IndexError):
        return None


def _proc_is_ours() -> bool:
    """Whether /proc is there, and shows the pid namespace that this process is in."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False

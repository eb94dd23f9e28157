"""Where this process stands: its kernel, its namespaces, its machine and its host's name; Linux shows them in /proc.

It matters where another process is spoken of: relation.py compares the two places.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import NamedTuple, Optional

from ..net.address import own_host_name

# The numbers of the first namespaces of every Linux kernel (include/linux/proc_ns.h).
HOST_PIDNS = 0xEFFFFFFC
HOST_TIMENS = 0xEFFFFFFA


class View(NamedTuple):
    """Where a process stands.

    boot: the boot id of its kernel; empty if that is not known
    pidns: the number of its pid namespace; None if that is not known
    timens: the number of its time namespace, in which it reads start times; None on a kernel that has none (before 5.6)
    machine: a hash of its machine id; empty if it has none
    host: the host's name
    """

    boot: str = ""
    pidns: Optional[int] = None
    timens: Optional[int] = None
    machine: str = ""
    host: str = ""

    @property
    def sees_whole_host(self) -> bool:
        """True if the processes of this host have the same numbers for it as for each other.

        Where there are no pid namespaces, they do. One in a namespace of its own, which may well have the host's
        name and address, knows other processes by the same numbers.
        """
        return self.pidns == HOST_PIDNS or not _has_namespaces()

    @property
    def can_name_processes(self) -> bool:
        """True if it can say of a process which one it is.

        False on Linux where /proc is missing, hidden, or that of another pid namespace.
        """
        return bool(self.boot and self.pidns is not None) or not _has_namespaces()


def own_view() -> View:
    """Return where this process stands, as far as /proc tells."""
    return View(own_boot(), own_pidns(), _namespace("time"), own_machine(), own_host_name())


def own_boot() -> str:
    """Return the boot id of this kernel; empty where the system does not tell."""
    return _first_line("/proc/sys/kernel/random/boot_id")


def own_pidns() -> int | None:
    """Return the number of this process's pid namespace; None where the system does not tell."""
    return _namespace("pid") if proc_is_ours() else None


def own_machine() -> str:
    """Return a hash of this machine's id (machine-id(5) asks not to show it itself); empty if there is none."""
    number = _first_line("/etc/machine-id")
    if len(number) != 32:  # "uninitialized", or another thing that is no id
        return ""
    try:
        from _blake2 import blake2b  # hashlib, which has the same, loads OpenSSL: some milliseconds of each start
    except ImportError:
        from hashlib import blake2b
    return blake2b(number.encode(), digest_size=16, person=b"ipclocker").hexdigest()


def proc_is_ours() -> bool:
    """Tell if /proc shows this process's pid namespace: there may be none, or the one of an outer namespace."""
    return _shows(os.getpid())


def _has_namespaces() -> bool:
    return sys.platform.startswith("linux")


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="latin-1") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _namespace(kind: str) -> int | None:
    try:
        return os.stat(f"/proc/self/ns/{kind}").st_ino
    except OSError:
        return None


@lru_cache(maxsize=1)
def _shows(pid: int) -> bool:
    """Tell if /proc/self is this process, under its own number and no other one (proc(5): NSpid, since Linux 4.1)."""
    try:
        if os.readlink("/proc/self") != str(pid):
            return False
        with open("/proc/self/status", "rb") as file:
            numbers = [line.split()[1:] for line in file if line.startswith(b"NSpid:")]
    except OSError:
        return False
    return all(len(number) == 1 for number in numbers)

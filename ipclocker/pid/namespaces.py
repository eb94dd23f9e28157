"""Processes of other pid namespaces of this kernel, such as those of containers, found by the numbers they have there.

/proc says of each process in which namespace it is (ns/pid), and its number in that (NSpid in status). One that is not
found is gone only if every process could be looked at: so this takes the first pid namespace, which sees all others,
the right to look into every process (CAP_SYS_PTRACE in the first user namespace: root of another one is nobody here,
and a /proc with hidepid shows it less without a word), and a look without a refusal. Else nobody can tell.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from math import inf
from typing import Callable, NamedTuple

from ..process.identity import ProcessIdentity, exists, read_status
from ..process.relation import comparable_start
from ..process.viewpoint import HOST_PIDNS, View

_HOST_USERNS = 0xEFFFFFFD  # the number of the first one (include/linux/proc_ns.h)
_CAP_SYS_PTRACE = 19  # its bit in CapEff (capabilities(7)); without it a /proc may hide other users' processes
_MAX_AGE = 1.0  # seconds that one look at all processes serves for: it takes milliseconds, and many may be asked about
_MOST_FOUND = 10_000  # processes remembered
_SHARE = 10  # a look may take one in so many parts of the time, so that the other questions have theirs


class _Look(NamedTuple):
    """One look at all processes: when it began (seconds, monotonic), and the pids in each pid namespace."""

    began: float
    is_complete: bool
    pids: dict[int, list[int]]


class NamespaceSearch:
    """Finds processes of other pid namespaces, as a process with `view` sees them."""

    def __init__(self, view: View, clock: Callable[[], float] = time.monotonic) -> None:
        self._view = view
        self._clock = clock
        self._look = _Look(-inf, False, {})
        self._next_look = -inf
        self._found: dict[ProcessIdentity, tuple[int, int]] = {}  # number and start here of those that were found

    def exists(self, process: ProcessIdentity, silent: float) -> bool | None:
        """Tell if a process of another pid namespace of this kernel exists; None if that can't be known just now.

        It was there at the latest `silent` seconds ago: so a look that began after that, and did not find it, will do.
        """
        if self._view.pidns != HOST_PIDNS or not _may_see_all():
            return None
        here = self._found.get(process)
        if here is not None:
            if exists(*here):
                return True
            del self._found[process]
        now = self._clock()
        if now - self._look.began > min(silent, _MAX_AGE):
            if now < self._next_look:
                return None
            self._look = _look_around(now)
            self._next_look = now + _SHARE * (self._clock() - now)
        return self._search(process)

    def _search(self, process: ProcessIdentity) -> bool | None:
        """Look at the processes that were in its namespace when all were looked at last."""
        can_tell = self._look.is_complete
        for pid in self._look.pids.get(process.pidns or 0, ()):
            numbers, status = _numbers(pid), read_status(pid)
            if status is None or status.ended:
                continue
            if not numbers:
                can_tell = False  # an older kernel does not say
            elif numbers[-1] == process.pid and comparable_start(process, self._view) in (None, status.start):
                if len(self._found) >= _MOST_FOUND:
                    self._found.clear()
                self._found[process] = (pid, status.start)
                return True
        return False if can_tell else None


def _look_around(now: float) -> _Look:
    pids: dict[int, list[int]] = {}
    is_complete = True
    for entry in os.listdir("/proc"):
        if entry.isdigit() and entry != "1":  # that one is in the first namespace, and lets nobody look on some hosts
            try:
                pids.setdefault(os.stat(f"/proc/{entry}/ns/pid").st_ino, []).append(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has ended meanwhile
            except OSError:
                is_complete = False
    return _Look(now, is_complete, pids)


def _numbers(pid: int) -> Sequence[int]:
    """Return the numbers of a process, from this namespace's to its own; none if it has ended."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"NSpid:"):
                return [int(number) for number in line.split()[1:]]
    return []


def _may_see_all() -> bool:
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status", "rb") as file:
        if os.stat("/proc/self/ns/user").st_ino != _HOST_USERNS:
            return False
        for line in file:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_PTRACE & 1)
    return False

"""The processes below a process: those that it has started, those that they have started, and so on.

One whose parent has ended belongs to nobody here: the system gives it to process 1. So who wants to send all of them
a signal has to look before the first one ends, or to have put a mark into the environment, which each of them inherits
and keeps, wherever it goes, unless it drops that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from .identity import ProcessIdentity, own_pidns


def can_be_seen() -> bool:
    """Whether this system tells whose child a process is: whether there is a /proc, and it is this namespace's."""
    return own_pidns() is not None


def with_descendants(processes: Iterable[ProcessIdentity]) -> list[ProcessIdentity]:
    """These processes and all below them, parents before their children; this process is left out."""
    children = _children() if can_be_seen() else {}
    found = list(processes)
    seen = {process.pid for process in found} | {os.getpid()}
    for process in found:  # which grows meanwhile
        new = [child for child in children.get(process.pid, ()) if child.pid not in seen]
        seen.update(child.pid for child in new)
        found += new
    return found


def marked(variable: str, mark: str) -> Iterator[ProcessIdentity]:
    """The processes that were started with this mark in a variable, a list with colons, as far as it may be read.

    Each is given out as soon as it is seen, the youngest first: one that lives but a moment is seen so, too.
    """
    if can_be_seen():
        start, wanted = os.fsencode(f"{variable}="), os.fsencode(mark)
        yield from (process for process, _ in _processes() if wanted in _marks_of(process.pid, start))


def last_started() -> str:
    """A word that is another one once any process was started; empty where the system does not tell."""
    try:
        with open("/proc/loadavg") as file:
            return file.read().split()[4]
    except (OSError, IndexError):
        return ""


def ancestors(pid: int) -> set[int]:
    """The numbers of a process's parent, of that one's parent, and so on."""
    parents = {process.pid: parent for process, parent in _processes()} if can_be_seen() else {}
    found: set[int] = set()
    while pid in parents and parents[pid] not in found:
        pid = parents[pid]
        found.add(pid)
    return found


def _children() -> dict[int, list[ProcessIdentity]]:
    """The children of each process that has any."""
    children: dict[int, list[ProcessIdentity]] = {}
    for process, parent in _processes():
        children.setdefault(parent, []).append(process)
    return children


def _processes() -> Iterator[tuple[ProcessIdentity, int]]:
    """Each process, and the number of its parent; the youngest first, as far as the numbers tell."""
    for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int, reverse=True):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # the second field, in brackets, may hold anything
            yield ProcessIdentity(int(name), int(fields[19])), int(fields[1])
        except (OSError, IndexError):  # it has ended meanwhile
            continue


def _marks_of(pid: int, start: bytes) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return []
    return [mark for entry in entries if entry.startswith(start) for mark in entry[len(start) :].split(b":")]

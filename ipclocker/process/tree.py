"""The processes below a process: those that it has started, those that they have started, and so on.

A process whose parent has ended is found below nobody: the system gives it to process 1. So a caller that wants to
send all of them a signal looks before the first one ends. Or it has put a mark into the environment of the first one:
each process inherits that and keeps it, wherever it goes, unless it changes its environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping

from ..errors import UsageError
from .identity import ProcessIdentity, Status, proc_status, read_status
from .viewpoint import own_pidns


def can_be_seen() -> bool:
    """Tell if this system shows whose child a process is: if there is a /proc, and it is this pid namespace's."""
    return own_pidns() is not None


def require_sight(option: str) -> None:
    """Refuse an option that ends all that a command has started where /proc hides that. Raises UsageError.

    Systems without a /proc of that kind do what they can.
    """
    if sys.platform.startswith("linux") and not can_be_seen():
        raise UsageError(
            f"{option} has to see all that the command starts, and /proc is missing or shows another pid namespace: "
            f"mount one of this namespace (unshare --mount-proc does it), or leave {option} out"
        )


def all_processes() -> Iterator[tuple[int, Status]]:
    """Yield each process that /proc shows now, the youngest first, as far as the numbers tell."""
    if not can_be_seen():
        return
    for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc"))), reverse=True):
        status = read_status(pid)
        if status is not None:  # else it has ended meanwhile
            yield pid, status


def own_children() -> list[int]:
    """Return the children of all threads of this process, zombies too; none where the system does not show them."""
    if not can_be_seen():
        return []
    children: list[int] = []
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children") as file:
                children += map(int, file.read().split())
    except OSError:  # a kernel without these files, or a thread that has ended meanwhile
        return [pid for pid, status in all_processes() if status.parent == os.getpid()]
    return children


def with_descendants(processes: Iterable[ProcessIdentity]) -> list[ProcessIdentity]:
    """Return these processes and all below them, parents before their children; this process is left out."""
    roots = list(processes)
    statuses = dict(all_processes())
    below = below_any([process.pid for process in roots], statuses)
    return roots + [ProcessIdentity(pid, statuses[pid].start) for pid in below]


def below_any(roots: Iterable[int], statuses: Mapping[int, Status]) -> list[int]:
    """Return the pids of all that are below these in a snapshot of `all_processes`, parents before their children.

    The roots and this process are left out.
    """
    children: dict[int, list[int]] = {}
    for pid, status in statuses.items():
        children.setdefault(status.parent, []).append(pid)
    queue = list(roots)
    seen = {*queue, os.getpid()}
    below: list[int] = []
    for pid in queue:  # which grows meanwhile
        new = [child for child in children.get(pid, ()) if child not in seen]
        seen.update(new)
        queue += new
        below += new
    return below


def ancestors(pid: int) -> set[int]:
    """Return the pids of a process's parent, of the parent's parent, and so on, as far as the system shows them."""
    found: set[int] = set()
    while (status := proc_status(pid)) is not None and status.parent not in found:
        pid = status.parent
        found.add(pid)
    return found


def descends_from(pid: int, ancestor: int) -> bool:
    """Tell if a process is that other one or below it, as far as the system shows that."""
    return pid == ancestor or ancestor in ancestors(pid)


def marked(variable: str, mark: str) -> Iterator[ProcessIdentity]:
    """Yield the processes that were started with this mark in an environment variable, as far as it can be read.

    The variable is a list of marks with colons between. Each process is yielded as soon as it is seen, the youngest
    first: so one that lives only for a moment is seen, too.
    """
    for pid, status in all_processes():
        if mark in marks_of(pid, variable):
            yield ProcessIdentity(pid, status.start)


def marks_of(pid: int, variable: str) -> list[str]:
    """Return the marks in that variable of the environment a process was started with; none if it can't be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return []
    start = os.fsencode(f"{variable}=")
    values = (os.fsdecode(entry[len(start) :]) for entry in entries if entry.startswith(start))
    return [mark for value in values for mark in value.split(":")]


def last_started() -> str:
    """Return a word that changes when any process is started (proc(5), loadavg); empty where there is none."""
    try:
        with open("/proc/loadavg") as file:
            return file.read().split()[4]
    except (OSError, IndexError):
        return ""

"""The processes below a process: those that it has started, those that they have started, and so on.

One whose parent has ended belongs to nobody here: the system gives it to process 1. So who wants to send all of them
a signal has to look before the first one ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..pid.identity import Identity, own_pidns


def can_be_seen() -> bool:
    """Whether this system tells whose child a process is: whether there is a /proc, and it is this namespace's."""
    return own_pidns() is not None


def with_descendants(processes: Iterable[Identity]) -> list[Identity]:
    """These processes and all below them, parents before their children; this process is left out."""
    children = _children() if can_be_seen() else {}
    found = list(processes)
    seen = {process.pid for process in found} | {os.getpid()}
    for process in found:  # which grows meanwhile
        new = [child for child in children.get(process.pid, ()) if child.pid not in seen]
        seen.update(child.pid for child in new)
        found += new
    return found


def _children() -> dict[int, list[Identity]]:
    """The children of each process that has any."""
    children: dict[int, list[Identity]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # the second field, in brackets, may hold anything
            children.setdefault(int(fields[1]), []).append(Identity(int(name), int(fields[19])))
        except (OSError, IndexError):  # it has ended meanwhile
            continue
    return children

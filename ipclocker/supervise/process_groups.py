"""Which processes belong to which program, however they were started and wherever they went.

A program's first process leads a session and a group; what it starts is in them, unless it leaves them. This process
has asked the kernel for the orphans below it (libc.adopt_orphans), so that whatever a program has started stays below
this process: either below the program's leader, or, when its own parent has ended, as a child of ours, a *stray*.
A stray belongs to the program whose session, group or mark in the environment it has. So a program whose leader is
dead has left nothing if its group is empty and no stray is its own, and that costs next to nothing to know.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import NamedTuple

from ..net.loop import Loop
from ..process.identity import ProcessIdentity, own_pidns
from ..process.send_signal import send_signal

# In the environment of each program: the marks of those that it belongs to, separated by colons: that of a supervisor,
# which is its number and start, and the same with the program's name.
MARKS = "IPCLOCKER_SUPERVISED"


class Leader(NamedTuple):
    """A program's first process, and the mark in its environment."""

    pid: int
    mark: str


class Process(NamedTuple):
    """A process as /proc shows it."""

    pid: int
    parent: int
    group: int
    session: int
    start: int


class ProcessGroups:
    """Finds all processes of a program and sends them signals; it asks /proc once a turn of the loop at most."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._leaders: set[int] = set()  # those that live
        self._marked: dict[int, list[str]] = {}  # the marks of strays
        self._strays_at = self._processes_at = -1.0  # the turn of the loop in which they were looked for
        self._strays: list[int] = []
        self._processes: dict[int, Process] = {}
        self._can_see = own_pidns() is not None

    def began(self, leader: Leader) -> None:
        """A program was started."""
        self._leaders.add(leader.pid)

    def ended(self, pid: int) -> None:
        """A child of this process, of whatever kind, has ended and its status was asked for."""
        self._leaders.discard(pid)
        self._marked.pop(pid, None)
        self._strays_at = self._processes_at = -1.0

    def has_left(self, leader: Leader) -> bool:
        """Whether a leader that is dead has left others."""
        if self._can_see:
            return any(self._belongs(stray, leader) for stray in self._find_strays())
        try:
            os.killpg(leader.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # they are another user's
            return True
        return True

    def signal(self, leader: Leader, number: int) -> list[int]:
        """Send a signal to all that there is of a program, as far as that may be; to which processes."""
        members = self._members(leader)
        lives = leader.pid in self._leaders
        grouped = {process.pid for process in members if process.group == leader.pid}
        if lives or grouped or not self._can_see:  # else the group's number may be somebody else's by now
            with contextlib.suppress(OSError):
                os.killpg(leader.pid, number)
        if lives and leader.pid not in grouped:
            with contextlib.suppress(OSError):  # it has not got as far as to lead a group
                os.kill(leader.pid, number)
        for process in members:
            if process.pid != leader.pid and process.pid not in grouped:
                with contextlib.suppress(OSError):
                    send_signal(ProcessIdentity(process.pid, process.start), number)
        return sorted({process.pid for process in members} | ({leader.pid} & self._leaders))

    def _members(self, leader: Leader) -> list[Process]:
        processes = self._look()
        roots = {stray for stray in self._find_strays() if self._belongs(stray, leader)}
        if leader.pid in self._leaders:
            roots |= {pid for pid, process in processes.items() if leader.pid in (pid, process.group, process.session)}
        return [processes[pid] for pid in _with_children(roots, processes.values()) if pid in processes]

    def _belongs(self, stray: int, leader: Leader) -> bool:
        if leader.mark in self._marks_of(stray):
            return True
        with contextlib.suppress(OSError):
            return leader.pid in (os.getpgid(stray), os.getsid(stray))
        return False

    def _marks_of(self, stray: int) -> list[str]:
        marks = self._marked.get(stray) or marks_of(stray)
        if marks:
            self._marked[stray] = marks
        return marks

    def _find_strays(self) -> list[int]:
        if self._strays_at != self._loop.now:
            children = _children()
            if children is None:
                children = [process.pid for process in self._look().values() if process.parent == os.getpid()]
            self._strays = [pid for pid in children if pid not in self._leaders]
            self._strays_at = self._loop.now
        return self._strays

    def _look(self) -> dict[int, Process]:
        if self._processes_at != self._loop.now:
            self._processes = {process.pid: process for process in _all_processes()} if self._can_see else {}
            self._processes_at = self._loop.now
        return self._processes


def marks_of(pid: int) -> list[str]:
    """The marks in the environment that a process was started with; none if it does not show them."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return []
    start = f"{MARKS}=".encode()
    return next((os.fsdecode(entry[len(start) :]).split(":") for entry in entries if entry.startswith(start)), [])


def _with_children(roots: set[int], processes: Iterable[Process]) -> list[int]:
    children: dict[int, list[int]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process.pid)
    found = list(roots)
    seen = set(roots) | {os.getpid()}
    for pid in found:  # which grows meanwhile
        new = [child for child in children.get(pid, ()) if child not in seen]
        seen.update(new)
        found += new
    return found


def _children() -> list[int] | None:
    """The children of this process, whichever of its threads has made them; None if the system does not tell."""
    children: list[int] = []
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children") as file:
                children += map(int, file.read().split())
    except OSError:
        return None
    return children


def _all_processes() -> Iterable[Process]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # the second field, in brackets, may hold anything
            yield Process(int(name), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))
        except (OSError, IndexError):  # it has ended meanwhile
            continue

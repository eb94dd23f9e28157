"""The processes that belong to each program, however they were started and wherever they went.

A program's first process leads a session and a group; what it starts is in them, unless it leaves them. This process
has asked the kernel for the orphans below it (libc.adopt_orphans): so whatever a program has started stays below this
process, either below the program's leader or, when its own parent has ended, as a child of ours: an *orphan*. An
orphan belongs to the program whose session, group or mark in the environment it has. So a program whose leader is
dead has left nothing behind if no orphan belongs to it, and that costs next to nothing to know.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from ..net.loop import Loop
from ..process.identity import ProcessIdentity, Status, has_number
from ..process.kill_leftovers import MARKS
from ..process.send_signal import send_signal
from ..process.tree import all_processes, below_any, can_be_seen, marks_of, own_children


class GroupLeader(NamedTuple):
    """A program's first process, which leads its group and session, and the mark in its environment."""

    pid: int
    mark: str


class ProcessGroups:
    """Finds all processes of a program and sends them signals; it reads /proc once in a turn of the loop at most."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._leaders: set[int] = set()  # those that live
        self._marks: dict[int, list[str]] = {}  # of orphans
        self._orphans_at = self._processes_at = -1.0  # the turn of the loop in which they were looked for
        self._orphans: list[int] = []
        self._processes: dict[int, Status] = {}
        self._can_see = can_be_seen()

    def add(self, leader: GroupLeader) -> None:
        """Take note that a program was started."""
        self._leaders.add(leader.pid)

    def remove(self, pid: int) -> None:
        """Take note that a child of this process, of whatever kind, has ended and was waited for."""
        self._leaders.discard(pid)
        self._marks.pop(pid, None)
        self._orphans_at = self._processes_at = -1.0

    def has_orphans(self, leader: GroupLeader) -> bool:
        """Tell if a leader that is dead has left others behind."""
        if self._can_see:
            return any(self._belongs(orphan, leader) for orphan in self._find_orphans())
        return has_number(-leader.pid)

    def signal(self, leader: GroupLeader, number: int) -> list[int]:
        """Send a signal to all processes of a program, as far as that is allowed; return their pids."""
        members = self._members(leader)
        lives = leader.pid in self._leaders
        grouped = {pid for pid, status in members.items() if status.group == leader.pid}
        if lives or grouped or not self._can_see:  # else the group's number may be somebody else's by now
            with contextlib.suppress(OSError):
                os.killpg(leader.pid, number)
        if lives and leader.pid not in grouped:
            with contextlib.suppress(OSError):  # it has not got as far as to lead a group
                os.kill(leader.pid, number)
        for pid, status in members.items():
            if pid != leader.pid and pid not in grouped:
                with contextlib.suppress(OSError):
                    send_signal(ProcessIdentity(pid, status.start), number)
        return sorted(members.keys() | ({leader.pid} & self._leaders))

    def _members(self, leader: GroupLeader) -> dict[int, Status]:
        processes = self._snapshot()
        roots = {orphan for orphan in self._find_orphans() if self._belongs(orphan, leader)}
        if leader.pid in self._leaders:
            roots |= {pid for pid, it in processes.items() if leader.pid in (pid, it.group, it.session)}
        return {pid: processes[pid] for pid in [*roots, *below_any(roots, processes)] if pid in processes}

    def _belongs(self, orphan: int, leader: GroupLeader) -> bool:
        if leader.mark in self._marks_of(orphan):
            return True
        with contextlib.suppress(OSError):
            return leader.pid in (os.getpgid(orphan), os.getsid(orphan))
        return False

    def _marks_of(self, orphan: int) -> list[str]:
        marks = self._marks.get(orphan) or marks_of(orphan, MARKS)
        if marks:
            self._marks[orphan] = marks
        return marks

    def _find_orphans(self) -> list[int]:
        if self._orphans_at != self._loop.now:
            self._orphans = [pid for pid in own_children() if pid not in self._leaders]
            self._orphans_at = self._loop.now
        return self._orphans

    def _snapshot(self) -> dict[int, Status]:
        if self._processes_at != self._loop.now:
            self._processes = dict(all_processes())
            self._processes_at = self._loop.now
        return self._processes

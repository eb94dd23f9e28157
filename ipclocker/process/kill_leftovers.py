"""Kills all that a manager of processes has started until none is left: when nobody can end it more gently.

What a manager starts has marks in its environment (`marks_of` in tree.py), by which it is found when its manager is
gone: the manager's own, and one of the process that was started, behind those of managers further up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from .identity import ProcessIdentity, exists, identify
from .kill_until_gone import kill_until_gone
from .tree import marked, with_descendants
from .wait import ended_children

MARKS = "IPCLOCKER_SUPERVISED"  # the variable with the marks, separated by colons
_WITHIN = 5.0  # seconds; what has not ended by then is stuck in the kernel


def manager_mark(manager: ProcessIdentity) -> str:
    """Return the mark of a manager, which no other one of its host has."""
    return f"{manager.pid}.{manager.start or 0}"


def with_marks(environment: Mapping[str, str], *marks: str) -> dict[str, str]:
    """Return an environment for a process, with its marks behind those that are there."""
    outer = environment.get(MARKS)
    return {**environment, MARKS: ":".join([*([outer] if outer else []), *marks])}


def sweep() -> None:
    """Kill every process below this one. Gives up after 5 seconds.

    Asks for the status of all children that have ended. Where this process does not get the orphans
    (libc.adopt_orphans), or the system does not show which processes are below it, some may be missed.
    """
    this = identify(os.getpid())

    def find() -> list[ProcessIdentity]:
        list(ended_children())
        return living(with_descendants([this])[1:])

    kill_until_gone(find, _WITHIN)


def kill_processes_of(manager: ProcessIdentity, mark: str) -> None:
    """Kill every process below a manager, which may be stopped, or that carries its mark if it is gone by now.

    Gives up after 5 seconds.
    """
    kill_until_gone(lambda: living([*with_descendants([manager])[1:], *marked(MARKS, mark)]), _WITHIN)


def living(processes: list[ProcessIdentity]) -> list[ProcessIdentity]:
    """Return those that have not ended, each once, but for this process."""
    others = (process for process in dict.fromkeys(processes) if process.pid != os.getpid())
    return [process for process in others if exists(process.pid, process.start) is not False]

"""Kills all processes of a supervisor until none is left: when nobody is there to end them more gently."""

from __future__ import annotations

import os

from ..process.identity import ProcessIdentity, exists, identify
from ..process.kill_until_gone import kill_until_gone
from ..process.tree import marked, with_descendants
from ..process.wait import ended_children
from .process_groups import MARKS

_WITHIN = 5.0  # seconds; what has not ended by then is stuck in the kernel


def sweep() -> None:
    """Kill every process below this one. Gives up after 5 seconds.

    Asks for the status of all children that have ended. Where this process does not get the orphans
    (libc.adopt_orphans), or the system does not show which processes are below it, some may be missed.
    """
    this = identify(os.getpid())

    def find() -> list[ProcessIdentity]:
        list(ended_children())
        return _living(with_descendants([this])[1:])

    kill_until_gone(find, _WITHIN)


def kill_programs_of(supervisor: ProcessIdentity, mark: str) -> None:
    """Kill every process below a supervisor, which may be stopped, or that carries its mark if it is gone by now.

    Gives up after 5 seconds.
    """
    kill_until_gone(lambda: _living([*with_descendants([supervisor])[1:], *marked(MARKS, mark)]), _WITHIN)


def _living(processes: list[ProcessIdentity]) -> list[ProcessIdentity]:
    others = (process for process in dict.fromkeys(processes) if process.pid != os.getpid())
    return [process for process in others if exists(process.pid, process.start) is not False]

"""Asking for the status of children that have ended (waitpid(2)), and what it means."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .signal_names import signal_name


def ended_children(more: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the pid and the status of each child that has ended, without waiting: of all children, whoever made them.

    `more`: further options of waitpid(2), as WUNTRACED.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | more)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def how_it_ended(status: int) -> str:
    """Describe a status in words, for a log."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"killed by SIG{signal_name(-code)}"

"""Asking for the status of children that have ended (waitpid(2))."""

from __future__ import annotations

import os
from collections.abc import Iterator


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

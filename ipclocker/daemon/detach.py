"""Going to the background: leaving the caller's terminal, folder and files."""

from __future__ import annotations

import contextlib
import os


def detach(keep_stderr: bool = False) -> None:
    """Leave the terminal, the folder and everything else of the caller that a process would hold on to.

    To be called in a new process, whose parent returns to the caller.
    """
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1) if keep_stderr else (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    with contextlib.suppress(OSError):
        for number in map(int, os.listdir("/dev/fd")):
            # Python's own descriptors are never inheritable: what is, somebody left open for us by chance.
            with contextlib.suppress(OSError):
                if number > 2 and os.get_inheritable(number):
                    os.close(number)

"""Going to the background: leave the caller's terminal, folder and files."""

from __future__ import annotations

import contextlib
import os


def detach(keep_stderr: bool = False) -> None:
    """Leave the terminal, the folder, the umask and the open files of the caller, all that a process would keep in use.

    Call it in a new process, whose parent returns to the caller. With `keep_stderr` descriptor 2 stays as it is.
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

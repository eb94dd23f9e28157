"""The pid files that a manager has written: the one of its parameter, or others by their names."""

from __future__ import annotations

import os

from ..daemon.pid_file import PidFile, remove_unheld


class PidFiles:
    """Pid files, each of which is held as long as this process lives: so no second manager takes it."""

    def __init__(self) -> None:
        self._held: dict[str, PidFile] = {}

    def write(self, path: str) -> None:
        """Write this process's pid. Raises UsageError if the file can't be written, or belongs to another manager."""
        path = os.path.abspath(path)
        file = self._held.get(path)
        if file is not None:
            file.write()
            return
        file = PidFile(path)
        file.acquire()
        self._held[path] = file

    def remove(self, path: str) -> None:
        """Remove a file. Raises OSError, also if another manager holds it."""
        path = os.path.abspath(path)
        file = self._held.pop(path, None)
        if file is not None:
            file.remove()
        else:
            remove_unheld(path)

    def close_after_fork(self) -> None:
        """Give up the files in a process that was forked: they are the parent's."""
        for file in self._held.values():
            file.close_in_parent()
        self._held.clear()

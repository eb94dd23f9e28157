"""The pid files that a manager has written: the one by its parameter, or others by their names."""

from __future__ import annotations

import os

from ..daemon.pid_file import PidFile


class PidFiles:
    """Each is held for as long as its process lives, so that no second manager takes it."""

    def __init__(self) -> None:
        self._held: dict[str, PidFile] = {}

    def write(self, path: str) -> None:
        """Write this process's pid. Raises UsageError if the file can't be written, or is another manager's."""
        path = os.path.abspath(path)
        file = self._held.get(path)
        if file is not None:
            file.write()
            return
        file = PidFile(path)
        file.acquire()
        self._held[path] = file

    def remove(self, path: str) -> None:
        """Remove a file, unless it was written here and is another manager's by now. Raises OSError."""
        path = os.path.abspath(path)
        file = self._held.pop(path, None)
        if file is not None:
            file.remove()
        else:
            os.unlink(path)

    def forget(self) -> None:
        """In a process that was forked: the files are the parent's."""
        for file in self._held.values():
            file.close_in_parent()
        self._held.clear()

"""A state file of a lockerd that has ended, read without changing anything in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator

from ...errors import StateError
from .base import StoredState
from .open_store import open_store

# Where SQLite locks a file (its "PENDING_BYTE" and what follows); who has it open for good has that locked to write.
_LOCKED_FROM, _LOCKED_BYTES = 0x40000000, 512


@contextlib.contextmanager
def reading(path: str) -> Iterator[StoredState]:
    """Read a state file. Within the `with` no lockerd can open it. Raises StateError.

    It is a copy that is opened: SQLite writes into what it opens, as does a lockerd that finds an older version.
    """
    try:
        with open(path, "rb") as file, tempfile.TemporaryDirectory(prefix="ipclocker-") as folder:
            _lock(file.fileno(), path)
            if not os.fstat(file.fileno()).st_size:
                raise StateError(f"the state file {path} is empty: name the one that lockerd has kept its locks in")
            copy = os.path.join(folder, "state.db")
            with open(copy, "wb") as target:
                shutil.copyfileobj(file, target)
            with contextlib.suppress(FileNotFoundError):  # what was committed last, if lockerd was killed
                shutil.copyfile(f"{path}-wal", f"{copy}-wal")
            shutil.copystat(path, copy)  # its time says when a lockerd was last there
            yield _read(copy, path)
    except OSError as error:
        raise StateError(f"the state file {path} can't be read: {error.strerror or error}") from error


def _lock(file: int, path: str) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, _LOCKED_BYTES, _LOCKED_FROM)
    except (BlockingIOError, PermissionError):
        raise StateError(f"the state file {path} is in use by a lockerd: end that one first") from None


def _read(copy: str, path: str) -> StoredState:
    try:
        store = open_store(copy)
        with contextlib.closing(store):
            return store.load()
    except StateError as problem:
        raise StateError(str(problem).replace(copy, path)) from problem

"""The store that a place names. Its module is imported only when it is asked for."""

from __future__ import annotations

from ...errors import StateError
from .base import Store


def open_store(path: str) -> Store:
    """The store in a file. Raises StateError."""
    try:
        from .sqlite import SqliteStore  # a server that keeps nothing does without SQLite
    except ImportError as error:
        raise StateError(
            f"the state file {path} can't be used, since this Python has no SQLite ({error}): install its package, or "
            "keep nothing with --state none"
        ) from error
    return SqliteStore(path)

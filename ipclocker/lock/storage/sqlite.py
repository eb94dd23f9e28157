"""Held locks on disk, in one SQLite file that a single lock server has open.

A batch of changes is one transaction in SQLite's write-ahead log, and `commit` returns when it is flushed to the
disk (synchronous=FULL). So a file that the server left at any instant, by a kill or a power cut, holds each batch
that was committed, and none in part. Rows are written many to a statement, because each statement that is
stepped gives up the interpreter's lock and takes it again, which costs more than the row.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from ...errors import StateError
from ..model import Record
from .base import StoredState

_APPLICATION = 0x69706C6B  # "iplk", in the file's header: this file is ours
_VERSION = 2  # of the tables below; version 1 had the name as its key
_TABLES = """
    CREATE TABLE grants (
        token INTEGER PRIMARY KEY, name BLOB NOT NULL, user BLOB NOT NULL, session BLOB NOT NULL,
        since REAL NOT NULL, hold REAL NOT NULL, lease INTEGER NOT NULL, outlived INTEGER NOT NULL,
        confirmed INTEGER NOT NULL, command BLOB NOT NULL, host BLOB NOT NULL, pid INTEGER NOT NULL, start INTEGER,
        boot BLOB NOT NULL, pidns INTEGER, address TEXT NOT NULL
    );
    CREATE TABLE tokens (last INTEGER NOT NULL);
    INSERT INTO tokens VALUES (0);
"""
_FROM_VERSION_1 = f"""
    ALTER TABLE grants RENAME TO grants_by_name;
    ALTER TABLE tokens RENAME TO tokens_before;
    {_TABLES}
    INSERT INTO grants SELECT {", ".join(Record._fields)} FROM grants_by_name;
    UPDATE tokens SET last = (SELECT last FROM tokens_before);
    DROP TABLE grants_by_name;
    DROP TABLE tokens_before;
"""
_RESERVE = 1_000_000  # tokens that are passed over at a restart, so that not each batch has to write the last one
_ROWS_AT_ONCE = (32, 8, 1)  # so that there are few different statements; SQLite takes 999 values at least
_ROW = f"({', '.join('?' * len(Record._fields))})"
_REPLACE = {rows: f"REPLACE INTO grants VALUES {', '.join([_ROW] * rows)}" for rows in _ROWS_AT_ONCE}
_DELETE = {rows: f"DELETE FROM grants WHERE token IN ({', '.join('?' * rows)})" for rows in _ROWS_AT_ONCE}


class SqliteStore:
    """A store in the file `path`, which is made if there is none.

    Raises StateError if it can't be opened, is no such file, is damaged, of a newer version, or open elsewhere.
    """

    def __init__(self, path: str) -> None:
        self.location = path
        try:
            # Sessions are secrets: who knows one can give the lock back. SQLite gives its log the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            pass  # and it is not to be opened and closed here: that would give back a lock that this process has on it
        except OSError as error:
            raise self._problem(f"can't be made: {error.strerror}") from error
        self._reserved = 0
        with self._errors_explained():
            self._file = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._file.close()
                raise

    def load(self) -> StoredState:
        """All that was committed."""
        with self._errors_explained():
            grants = [Record(*row) for row in self._file.execute(f"SELECT {', '.join(Record._fields)} FROM grants")]
            tokens = [token for (token,) in self._file.execute("SELECT last FROM tokens")]
        if len(tokens) != 1 or not isinstance(tokens[0], int) or not all(map(_is_sound, grants)):
            raise self._problem(_DAMAGED)
        return StoredState(grants, tokens[0])

    def commit(self, changed: Sequence[Record], freed: Sequence[int], last_token: int) -> None:
        """Write these grants in the place of what has their tokens, delete those tokens; on return it is on disk."""
        with self._errors_explained():
            self._write(changed, freed, last_token)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _write(self, changed: Sequence[Record], freed: Sequence[int], last_token: int) -> None:
        execute = self._file.execute
        try:
            execute("BEGIN IMMEDIATE")
            for records in _pieces(changed):
                execute(_REPLACE[len(records)], list(chain.from_iterable(records)))
            for tokens in _pieces(freed):
                execute(_DELETE[len(tokens)], tokens)
            reserved = self._reserved
            if last_token > reserved or not (changed or freed):  # an empty batch is to show whether it can be written
                reserved = max(last_token + _RESERVE, reserved + 1)
                execute("UPDATE tokens SET last = ?", (reserved,))
            execute("COMMIT")
            self._reserved = reserved
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                execute("ROLLBACK")
            raise

    def _open(self) -> None:
        execute = self._file.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        # Only with a lock taken may the file be looked at: another server may be writing it.
        execute("BEGIN EXCLUSIVE")
        version = self._version()
        execute("COMMIT")
        if execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise self._problem(_DAMAGED)
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        if version < _VERSION:
            marks = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION};"
            self._file.executescript(f"BEGIN; {_TABLES if version == 0 else _FROM_VERSION_1} {marks} COMMIT;")

    def _version(self) -> int:
        """The version of the tables, 0 if there are none yet. Raises StateError for a file that is not ours."""
        (application,) = self._file.execute("PRAGMA application_id").fetchone()
        (version,) = self._file.execute("PRAGMA user_version").fetchone()
        (tables,) = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0 and application in (0, _APPLICATION):
            return 0
        if application != _APPLICATION:
            raise self._problem("is no state file of lockerd: name another one with --state")
        if version > _VERSION:
            raise self._problem(f"is of version {version}, and this lockerd knows {_VERSION}: use a newer lockerd")
        return int(version)

    @contextlib.contextmanager
    def _errors_explained(self) -> Iterator[None]:
        """Turn SQLite's errors within the `with` block into StateErrors for the administrator."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._problem(_reason(error)) from error

    def _problem(self, reason: str) -> StateError:
        return StateError(f"the state file {self.location} {reason}")


_DAMAGED = "is damaged: move it away, or bring back a copy of it"


def _reason(error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text:
        return "is in use by another lockerd: end that one, or name another file with --state"
    if "malformed" in text or "not a database" in text:
        return _DAMAGED
    if "unable to open" in text:
        return "can't be opened: it has to be a file that lockerd may read and write, in a folder where it may write"
    if "full" in text:
        return "can't be written: the disk is full"
    if "readonly" in text:
        return "can't be written: it is read-only"
    return f"can't be used: {text}"


def _is_sound(record: Record) -> bool:
    """Tell whether a row has the types that its columns should have; SQLite itself lets each hold anything."""
    return all(
        isinstance(value, kind) or (value is None and column in ("start", "pidns"))
        for column, value, kind in zip(Record._fields, record, _KINDS)
    )


_KINDS: tuple[Any, ...] = (
    int, bytes, bytes, bytes, float, float, int, int, int, bytes, bytes, int, int, bytes, int, str
)  # fmt: skip


def _pieces(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    start = 0
    for size in _ROWS_AT_ONCE:
        while len(items) - start >= size:
            yield items[start : start + size]
            start += size

"""Held locks on disk, in one SQLite file that a single lock server has open.

A batch of changes is one transaction in SQLite's write-ahead log, and `commit` returns when it is flushed to the
disk (synchronous=FULL). So a file that the server left at any instant, by a kill or a power cut, holds each batch
that was committed, and none in part. Rows are written many to a statement, because each statement that is
stepped gives up the interpreter's lock and takes it again, which costs more than the row.

A file that is deleted while it is open can be read and written as before, but a restart would not find it. So `touch`
looks whether it is still there, and if not, puts a copy there and goes on with that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from ...errors import StateError
from ..model import Record
from .base import Freed, StoredState, new_space

_APPLICATION = 0x69706C6B  # "iplk", in the file's header: this file is ours
_VERSION = 4  # of the tables below
_TABLES = """
    CREATE TABLE grants (
        token INTEGER PRIMARY KEY, name BLOB NOT NULL, user BLOB NOT NULL, session BLOB NOT NULL,
        since REAL NOT NULL, hold REAL NOT NULL, lease INTEGER NOT NULL, outlived INTEGER NOT NULL,
        confirmed INTEGER NOT NULL, recalled INTEGER NOT NULL, heard REAL, command BLOB NOT NULL, host BLOB NOT NULL,
        pid INTEGER NOT NULL, start INTEGER, boot BLOB NOT NULL, pidns INTEGER, address TEXT NOT NULL,
        machine BLOB NOT NULL, timens INTEGER, slots INTEGER NOT NULL, min_hold REAL NOT NULL, keep_until REAL,
        kept INTEGER NOT NULL
    );
    CREATE TABLE tokens (last INTEGER NOT NULL);
    INSERT INTO tokens VALUES (0);
"""
# A release that knows nothing of it reads and writes such a file as before, so it is of the same version.
_SPACE = "CREATE TABLE IF NOT EXISTS space (id TEXT NOT NULL)"
# What the columns hold that came after version 1. (Version 1 had the name as its key.)
_NEW = {
    "recalled": "0",
    "heard": "NULL",
    "machine": "x''",
    "timens": "NULL",
    "slots": "1",
    "min_hold": "0.0",
    "keep_until": "NULL",
    "kept": "0",
}
_FROM_OLDER = """
    ALTER TABLE grants RENAME TO grants_before;
    ALTER TABLE tokens RENAME TO tokens_before;
    {tables}
    INSERT INTO grants SELECT {columns} FROM grants_before;
    UPDATE tokens SET last = (SELECT last FROM tokens_before);
    DROP TABLE grants_before;
    DROP TABLE tokens_before;
"""
_RESERVE = 1_000_000  # tokens that are passed over at a restart, so that not each batch has to write the last one
_ROWS_AT_ONCE = (32, 8, 1)  # so that there are few different statements; SQLite takes 999 values at least
_ROW = f"({', '.join('?' * len(Record._fields))})"
_REPLACE = {rows: f"REPLACE INTO grants VALUES {', '.join([_ROW] * rows)}" for rows in _ROWS_AT_ONCE}
_DELETE = {rows: f"DELETE FROM grants WHERE token IN ({', '.join('?' * rows)})" for rows in _ROWS_AT_ONCE}

log = logging.getLogger(__name__)


class SqliteStore:
    """A store in the file `path`, which is made if there is none.

    Raises StateError if it can't be opened, is no such file, is damaged, of a newer version, or open elsewhere.
    """

    is_shared = False

    def __init__(self, path: str) -> None:
        self.location = path
        try:
            _make(path)
        except FileExistsError:
            pass  # and it is not to be opened and closed here: that would give back a lock that this process has on it
        except OSError as error:
            raise self._problem(f"can't be made: {error.strerror}") from error
        self._reserved = 0
        self._served = os.stat(path).st_mtime  # as `touch` left it: SQLite writes into the file as soon as it opens it
        self._place = self._find()
        with self._errors_explained():
            self._connect()

    def load(self) -> StoredState:
        """All that was committed."""
        with self._errors_explained():
            with contextlib.suppress(sqlite3.OperationalError):  # no room: the time is known less well the next time
                # Nobody can have heard of a client after that. It has to be kept: a second restart knows a later time.
                self._file.execute("UPDATE grants SET heard = ? WHERE heard IS NULL AND pid > 0", (self._served,))
            grants = [Record(*row) for row in self._file.execute(f"SELECT {', '.join(Record._fields)} FROM grants")]
            tokens = [token for (token,) in self._file.execute("SELECT last FROM tokens")]
            spaces = [space for (space,) in self._file.execute("SELECT id FROM space")]
        if len(tokens) != 1 or not isinstance(tokens[0], int) or not all(map(_is_sound, grants)):
            raise self._problem(_DAMAGED)
        if len(spaces) != 1 or not isinstance(spaces[0], str):
            raise self._problem(_DAMAGED)
        return StoredState(grants, tokens[0], self._served, spaces[0])

    def commit(self, changed: Sequence[Record], freed: Sequence[Freed], last_token: int) -> None:
        """Write these grants in the place of what has their tokens, delete those others; on return it is on disk."""
        with self._errors_explained():
            self._write(changed, [token for _, token in freed], last_token)

    def confirm_term(self) -> None:
        """Do nothing: the file is locked for as long as this server has it open."""

    def touch(self) -> None:
        """Note that a server has the file open at this moment; if it is gone, put a copy of it there.

        Raises StateError if another file is there, or the copy can't be made.
        """
        found = self._find()
        if found is None:
            self._put_back()
        elif found != self._place:
            raise self._problem(
                "was replaced by another file, so a restart would not find what is held: move that file away, and it "
                "is written again"
            )
        with contextlib.suppress(OSError):
            os.utime(self.location)

    def copy_to(self, path: str) -> None:
        """Copy all that was committed to another file, in the place of what is there.

        Raises StateError, too, if this file is not to be found any more where it was: who opens that has another one.
        """
        if self._find() != self._place:
            raise self._problem("is gone from its place")
        try:
            self._back_up_to(path, "OFF")
        except OSError as error:
            raise StateError(f"{path}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _find(self) -> tuple[int, int] | None:
        """Return which file is in the place of ours now; None if there is none."""
        try:
            found = os.stat(self.location)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _put_back(self) -> None:
        copy = f"{self.location}.copy"
        try:
            try:
                self._back_up_to(copy, "FULL")
                os.link(copy, self.location)  # not in the place of one that somebody has made meanwhile
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(copy)
            _sync_folder(os.path.dirname(os.path.abspath(self.location)))
        except OSError as error:
            raise self._problem(f"is gone, and can't be written again: {error.strerror}") from error
        self._place = self._find()
        # The old connection has to go first, since it deletes its log by the name that the new one's will have.
        self._file.close()
        self._is_open = False
        with self._errors_explained():
            self._connect()
        log.warning("the state file %s was gone: what is held was written to a new one", self.location)

    def _back_up_to(self, path: str, synchronous: str) -> None:
        """Write all that was committed to another file, in the place of what is there. Raises OSError, StateError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        _make(path)
        with self._errors_explained(), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
            copy.execute(f"PRAGMA synchronous = {synchronous}")
            self._file.backup(copy)

    def _connect(self) -> None:
        self._file = sqlite3.connect(self.location, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise
        self._is_open = True

    def _write(self, changed: Sequence[Record], freed: Sequence[int], last_token: int) -> None:
        if not self._is_open:
            self._connect()
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
            self._file.executescript(f"BEGIN; {_TABLES if version == 0 else self._from_older()} {marks} COMMIT;")
        execute("BEGIN")
        execute(_SPACE)
        if execute("SELECT count(*) FROM space").fetchone() == (0,):
            execute("INSERT INTO space VALUES (?)", (new_space(),))
        execute("COMMIT")

    def _from_older(self) -> str:
        """Return the statements that move what is in the tables of an older version to those of this one."""
        there = {row[1] for row in self._file.execute("PRAGMA table_info(grants)")}
        columns = (column if column in there else _NEW.get(column, "NULL") for column in Record._fields)
        return _FROM_OLDER.format(tables=_TABLES, columns=", ".join(columns))

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


def _make(path: str) -> None:
    """Make an empty file that nobody else can read: who knows a session can give its lock back."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _sync_folder(path: str) -> None:
    """Have the names in a folder on disk."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
        isinstance(value, kind) or (value is None and column in _MAY_BE_NULL)
        for column, value, kind in zip(Record._fields, record, _KINDS)
    )


_MAY_BE_NULL = frozenset(("heard", "keep_until", "start", "pidns", "timens"))
_KINDS: tuple[Any, ...] = (
    int, bytes, bytes, bytes, float, float, int, int, int, int, float, bytes,
    bytes, int, int, bytes, int, str, bytes, int, int, float, float, int,
)  # fmt: skip


def _pieces(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    start = 0
    for size in _ROWS_AT_ONCE:
        while len(items) - start >= size:
            yield items[start : start + size]
            start += size

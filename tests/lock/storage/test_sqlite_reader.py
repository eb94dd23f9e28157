"""A state file that is read without changing it, also one that was left by a kill, and what can't be read."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from ipclocker.errors import StateError
from ipclocker.lock.model import Record
from ipclocker.lock.storage.open_store import open_store
from ipclocker.lock.storage.sqlite_reader import reading

from ...support.servers import Lockerd

A_RECORD = Record(
    7, b"x", b"u", b"", 1.0, 0.0, False, False, True, False, None, b"", b"h", 12, None, b"", None, "", b"", None
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "state.db"
    store = open_store(str(path))
    store.load()
    store.commit([A_RECORD], [], 7)
    store.close()
    os.utime(path, (5.0, 5.0))
    return path


def contents(folder: Path) -> dict[str, tuple[bytes, float]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime) for path in folder.iterdir()}


def read(path: Path) -> None:
    with reading(str(path)):
        pass


def test_what_is_in_it_and_nothing_changes(file: Path) -> None:
    before = contents(file.parent)
    with reading(str(file)) as kept:
        pass
    assert [(record.name, record.token, record.heard) for record in kept.grants] == [(b"x", 7, 5.0)]
    assert kept.last_token >= 7 and kept.served == 5.0 and len(kept.space) == 32
    assert contents(file.parent) == before
    store = open_store(str(file))
    assert store.load().space == kept.space
    store.close()


def test_what_a_killed_server_has_left(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with Lockerd("--state", str(path)) as server:
        assert server.ask("user u; locks a; LOCK")
        server.kill(signal.SIGKILL)
    before = contents(tmp_path)
    assert "state.db-wal" in before, "the lock is not in the file itself yet"
    with reading(str(path)) as kept:
        assert [record.name for record in kept.grants] == [b"a"]
    assert contents(tmp_path) == before


def test_no_server_can_open_it_meanwhile(file: Path) -> None:
    with reading(str(file)), pytest.raises(AssertionError, match="in use by another lockerd"):
        Lockerd("--state", str(file))
    with Lockerd("--state", str(file)) as server:
        assert server.holders() == {"x": "u"}


def test_one_that_a_server_has_open_is_refused(file: Path) -> None:
    with Lockerd("--state", str(file)), pytest.raises(StateError, match=f"{file} is in use by a lockerd: end that"):
        read(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"not a database, but something else, and long enough to be one" * 40, "is damaged"),
        (None, "can't be read: No such file"),
    ],
)
def test_what_is_no_state_file(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "other"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StateError, match=f"^the state file {path} {said}"):
        read(path)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match=f"^the state file {path} is no state file of lockerd"):
        read(path)
    assert path.read_bytes() == before


def test_a_folder_is_none(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="can't be read: Is a directory"):
        read(tmp_path)

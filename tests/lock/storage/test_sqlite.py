"""The file that held locks are kept in: what was committed is there, and a file that is no good is said to be so."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclocker.errors import StateError
from ipclocker.lock.model import Record
from ipclocker.lock.storage.open_store import open_store
from ipclocker.lock.storage.sqlite import SqliteStore

words = st.binary(min_size=1, max_size=5)
tokens = st.integers(0, 5) | st.integers(0, 2**62)
records = st.builds(
    Record,
    name=st.sampled_from([b"a", b"b", b"\xff", b"d" * 300]),
    token=tokens,
    user=words,
    session=st.binary(max_size=5),
    since=st.floats(0, 4e9),
    hold=st.floats(0, 1e12),
    lease=st.booleans(),
    outlived=st.booleans(),
    confirmed=st.booleans(),
    recalled=st.booleans(),
    heard=st.none() | st.floats(0, 4e9),
    command=st.binary(max_size=5),
    host=st.binary(max_size=5),
    pid=st.integers(0, 2**31 - 1),
    start=st.none() | st.integers(0, 2**62),
    boot=st.binary(max_size=5),
    pidns=st.none() | st.integers(0, 2**62),
    address=st.sampled_from(["", "127.0.0.1", "::1"]),
    machine=st.binary(max_size=5),
    timens=st.none() | st.integers(0, 2**62),
    slots=st.integers(0, 2**63 - 1),
    min_hold=st.floats(0, 1e12),
    keep_until=st.none() | st.floats(0, 1e12),
    kept=st.booleans(),
)
batches = st.tuples(st.lists(records, max_size=4, unique_by=lambda record: record.token), st.lists(tokens, max_size=3))
A_RECORD = Record(
    7, b"x", b"u", b"", 1.0, 0.0, False, False, True, False, None, b"", b"", 0, None, b"", None, "", b"", None
)


def loaded(path: Path) -> dict[int, Record]:
    store = SqliteStore(str(path))
    try:
        state = store.load()
        return {record.token: without_time(record, state.served) for record in state.grants}
    finally:
        store.close()


def without_time(record: Record, served: float) -> Record:
    """Return the record as it was committed: a holder that was not silent was heard of until the file was closed."""
    return record._replace(heard=None) if record.heard == served else record


@given(batches_=st.lists(batches, max_size=6))
def test_what_was_committed_is_there(tmp_path_factory: pytest.TempPathFactory, batches_: list[tuple]) -> None:  # type: ignore[type-arg]
    path = tmp_path_factory.mktemp("store") / "s.db"
    expected: dict[int, Record] = {}
    store = SqliteStore(str(path))
    for changed, freed in batches_:
        freed = [token for token in freed if token not in {record.token for record in changed}]
        store.commit(changed, [(b"any", token) for token in freed], 0)
        expected = {token: record for token, record in expected.items() if token not in freed}
        expected.update({record.token: record for record in changed})
    store.close()
    assert loaded(path) == expected


def test_a_batch_of_any_size_is_kept_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    for size in (1, 7, 8, 9, 41, 1000):
        store = SqliteStore(str(path))
        store.commit([A_RECORD._replace(token=token) for token in range(size)], [], 0)
        store.commit([], [(b"x", token) for token in range(1, size)], 0)
        store.close()
        assert set(loaded(path)) == {0}


def test_the_token_that_is_loaded_is_never_below_one_that_was_given(tmp_path: Path) -> None:
    last = 0
    for token in (1, 2, 5_000_000, 5_000_001):
        store = SqliteStore(str(tmp_path / "s.db"))
        assert store.load().last_token >= last
        last = max(store.load().last_token, token)
        store.commit([], [], last)
        store.close()


def test_only_its_owner_may_read_the_file_since_sessions_are_secrets(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "s.db"))
    store.commit([A_RECORD], [], 1)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    store.close()


def test_a_second_server_on_the_file_is_told_so(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    store = SqliteStore(path)
    second = f"from ipclocker.lock.storage.sqlite import SqliteStore; SqliteStore({path!r})"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", second], capture_output=True, text=True, timeout=60, check=False)
        assert f"the state file {path} is in use by another lockerd" in done.stderr
    store.close()
    assert subprocess.run([sys.executable, "-c", second], timeout=60, check=False).returncode == 0


def test_a_second_server_in_the_same_process_is_told_so_and_leaves_the_first_one_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    store = SqliteStore(path)
    with pytest.raises(StateError, match="in use by another lockerd"):
        SqliteStore(path)
    test_locked = f"import sqlite3; sqlite3.connect({path!r}, timeout=0).execute('SELECT * FROM grants')"
    done = subprocess.run([sys.executable, "-c", test_locked], capture_output=True, timeout=60, check=False)
    assert b"database is locked" in done.stderr
    store.close()


def test_when_a_client_was_last_heard_of_is_known_after_each_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    store = SqliteStore(path)
    silent, talking, unwatched = (
        A_RECORD._replace(token=1, name=b"a", pid=5, heard=100.5),
        A_RECORD._replace(token=2, name=b"b", pid=5),
        A_RECORD._replace(token=3, name=b"c"),
    )
    store.commit([silent, talking, unwatched], [], 3)
    store.close()
    os.utime(path, (2000.0, 2000.0))  # as `touch` does it
    for _ in range(2):
        store = SqliteStore(path)
        assert [(record.token, record.heard) for record in sorted(store.load().grants)] == [
            (1, 100.5),
            (2, 2000.0),
            (3, None),
        ]
        before = time.time()
        store.touch()
        store.close()
    assert os.stat(path).st_mtime >= before - 1.0


# The file as version 1 had it, byte for byte what its lockerd would execute.
VERSION_1 = """
    PRAGMA journal_mode = WAL;
    BEGIN;
    CREATE TABLE grants (
        name BLOB PRIMARY KEY, token INTEGER NOT NULL, user BLOB NOT NULL, session BLOB NOT NULL,
        since REAL NOT NULL, hold REAL NOT NULL, lease INTEGER NOT NULL, outlived INTEGER NOT NULL,
        confirmed INTEGER NOT NULL, command BLOB NOT NULL, host BLOB NOT NULL, pid INTEGER NOT NULL, start INTEGER,
        boot BLOB NOT NULL, pidns INTEGER, address TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE tokens (last INTEGER NOT NULL);
    INSERT INTO tokens VALUES (1000041);
    INSERT INTO grants VALUES (X'61', 40, X'75', X'', 1.5, 0.0, 0, 0, 1, X'', X'', 0, NULL, X'', NULL, '');
    INSERT INTO grants VALUES (X'62', 41, X'76', X'73', 2.5, 60.0, 1, 1, 0, X'63', X'68', 7, 9, X'42', 4, '::1');
    PRAGMA application_id = 0x69706C6B;
    PRAGMA user_version = 1;
    COMMIT;
"""


def test_a_file_of_the_version_before_is_moved_over_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    file = sqlite3.connect(path)
    file.executescript(VERSION_1)
    file.close()
    heard = os.stat(path).st_mtime
    for _ in range(2):  # the second time it is of this version
        store = SqliteStore(str(path))
        state = store.load()
        assert state.last_token == 1000041
        assert sorted(state.grants) == [
            A_RECORD._replace(token=40, name=b"a", since=1.5),
            Record(
                41,
                b"b",
                b"v",
                b"s",
                2.5,
                60.0,
                True,
                True,
                False,
                False,
                heard,
                b"c",
                b"h",
                7,
                9,
                b"B",
                4,
                "::1",
                b"",
                None,
            ),
        ]
        store.close()
    store = SqliteStore(str(path))
    store.commit([A_RECORD], [(b"x", 40)], 50)
    store.close()
    assert set(loaded(path)) == {7, 41}
    file = sqlite3.connect(path)
    names = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"grants", "tokens", "space"} and file.execute("PRAGMA user_version").fetchone() == (4,)
    file.close()


def damaged_page(path: Path) -> None:
    store = SqliteStore(str(path))
    store.commit([A_RECORD._replace(token=token) for token in range(1000)], [], 1)
    store.close()
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)


def other_types(path: Path) -> None:
    SqliteStore(str(path)).close()
    with sqlite3.connect(path) as file:
        file.execute(
            "INSERT INTO grants (name, "
            + ", ".join(Record._fields[2:])
            + ") VALUES ('text'"
            + ", 1" * len(Record._fields[2:])
            + ")"
        )
    file.close()


def newer(path: Path) -> None:
    SqliteStore(str(path)).close()
    file = sqlite3.connect(path)
    file.execute("PRAGMA user_version = 99")
    file.close()


def of_another_program(path: Path) -> None:
    file = sqlite3.connect(path)
    file.execute("CREATE TABLE mails (text)")
    file.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_text("no database at all" * 100), "is damaged: move it away"),
        (damaged_page, "is damaged: move it away"),
        (other_types, "is damaged: move it away"),
        (newer, "is of version 99, and this lockerd knows 4"),
        (of_another_program, "is no state file of lockerd"),
        (lambda path: path.mkdir(), "can't be opened"),
    ],
)
def test_a_file_that_is_no_good_is_left_as_it_is_and_said_to_be_so(
    tmp_path: Path,
    spoil: object,
    message: str,
) -> None:
    path = tmp_path / "s.db"
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StateError, match=message) as caught:
        loaded(path)
    assert str(path) in str(caught.value)
    assert before == (path.read_bytes() if path.is_file() else None)
    with pytest.raises(StateError, match="can't be made"):
        SqliteStore(str(tmp_path / "no folder" / "s.db"))


def test_a_python_without_sqlite_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipclocker.lock.storage.sqlite", None)
    with pytest.raises(StateError, match=r"has no SQLite .*--state none"):
        open_store("/tmp/x")


def test_a_copy_has_all_that_was_committed_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path, copy = tmp_path / "s.db", tmp_path / "copy"
    copy.write_text("of an earlier time")
    copy.chmod(0o666)
    store = SqliteStore(str(path))
    store.commit([A_RECORD], [], 7)
    store.copy_to(str(copy))
    assert list(loaded(copy)) == [7] and copy.stat().st_mode & 0o777 == 0o600
    store.commit([], [(b"x", 7)], 7)  # it goes on
    store.close()
    assert loaded(path) == {} and list(loaded(copy)) == [7]


def test_a_file_that_is_not_in_its_place_any_more_is_not_copied(tmp_path: Path) -> None:
    path, copy = tmp_path / "s.db", str(tmp_path / "copy")
    store = SqliteStore(str(path))
    path.rename(tmp_path / "away")
    with pytest.raises(StateError, match=r"s\.db is gone from its place"):
        store.copy_to(copy)
    path.touch()
    with pytest.raises(StateError, match=r"s\.db is gone from its place"):
        store.copy_to(copy)
    store.close()


def test_a_copy_that_cant_be_made_is_said_to_be_so(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "s.db"))
    with pytest.raises(StateError, match="no folder/copy: No such file"):
        store.copy_to(str(tmp_path / "no folder" / "copy"))
    store.close()

"""The identity of a lock space: one for a file, whatever server has it open; a new one for each start in memory."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from ipclocker.lock.server.table import RESERVED

from ...support.servers import Lockerd

QUESTION = "space 1; locks x; STATUS"


def space_of(server: Lockerd) -> str:
    peer = server.connect()
    space, *others = peer.ask(QUESTION)
    assert others == ["owner ", "locked 0"]
    word, identity = space.split()
    assert word == "space" and re.fullmatch("[0-9a-f]{32}", identity)
    return identity


def test_it_is_told_once_a_connection_and_only_to_those_who_ask() -> None:
    with Lockerd() as server:
        peer = server.connect()
        assert peer.ask("space 0; locks x; STATUS") == ["owner ", "locked 0"]
        assert peer.ask(QUESTION)[0].startswith("space ")
        assert peer.ask(QUESTION) == ["owner ", "locked 0"]
        assert peer.ask("space; locks x; STATUS") == ["owner ", "locked 0"]


def test_a_file_keeps_it_and_another_file_has_another(tmp_path: Path) -> None:
    spaces = []
    for file in ("a.db", "a.db", "b.db"):
        with Lockerd("--state", str(tmp_path / file)) as server:
            spaces.append(space_of(server))
    assert spaces[0] == spaces[1] != spaces[2]


def test_each_start_in_memory_is_a_new_one() -> None:
    spaces = set()
    for _ in range(2):
        with Lockerd("--state", "none") as server:
            spaces.add(space_of(server))
    assert len(spaces) == 2


def test_a_file_of_a_release_that_knew_none_gets_one(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    with Lockerd("--state", str(file)) as server:
        before = space_of(server)
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE space")
    connection.close()
    spaces = set()
    for _ in range(2):
        with Lockerd("--state", str(file)) as server:
            spaces.add(space_of(server))
    assert len(spaces) == 1 and before not in spaces


def test_who_has_waited_longest_has_the_lock_first_after_a_restart(tmp_path: Path) -> None:
    file = str(tmp_path / "a.db")
    with Lockerd("--state", file) as server:
        holder = server.connect()
        assert holder.ask("user h; session 1; locks x; LOCK")[1] == "locked 1"
    with Lockerd("--state", file) as server:
        holder, late, early = (server.connect() for _ in range(3))
        late.say("user late; session 2; locks x; block 1; waited 5; LOCK")
        assert late.hear_line() == "print_waiting h"
        assert holder.ask("user h; session 1; locks x; UNLOCK") == ["owner ", "locked 0"]
        early.say("user early; session 3; locks x; block 1; waited 60.5; LOCK")
        assert early.hear_line() == f"print_waiting {RESERVED[0].decode()}"
        assert early.hear() == ["print_obtained", "owner early", "locked 1", "lockname x"]
        assert early.ask("UNLOCK")[0] == "owner late"
        assert late.hear() == ["print_obtained", "owner late", "locked 1", "lockname x"]


def test_what_is_no_time_is_refused() -> None:
    with Lockerd() as server:
        assert server.connect().ask("user u; locks x; waited -1; LOCK") == ["error bad_waited"]

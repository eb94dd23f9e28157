"""Held locks written down, for people and as JSON."""

from __future__ import annotations

import json
import time
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclocker.lock.report import (
    details,
    document,
    duration,
    escape_controls,
    json_text,
    outcome_line,
    outcomes_document,
    ping_document,
    ping_line,
    table,
    text,
)
from ipclocker.lock.snapshot import BROKEN, FREE, HELD, RECALLED, Outcome, Ping, Snapshot
from ipclocker.lock.wire.info import HeldInfo, WaiterInfo
from ipclocker.net.text import encode_text

NOON = time.mktime((2026, 7, 1, 12, 0, 0, 0, 0, -1))
PLAIN = HeldInfo(b"nightly", b"worker12_4711_ann", 1763732002123456, 63.0, b"worker12", 4711, b"10.0.0.12")
LEASE = PLAIN._replace(name=b"disk", lease=30.0, left=21.5, command=b"make -C /proj regress")
WAITER = WaiterInfo(b"disk", b"worker7_33_bob", 12.25, b"worker7", 33, b"10.0.0.7", b"vi\x1b[2J\n")
HELD_KEYS = {
    *("name", "holder", "token", "since", "age", "hold", "lease", "left", "recalled", "outlived", "confirmed"),
    *("mode", "slots", "min_hold", "kept", "host", "pid", "address", "command", "holders", "waiters"),
}
WAITER_KEYS = {"user", "mode", "slots", "since", "age", "host", "pid", "address", "command"}


def snapshot(*locks: HeldInfo, detailed: bool = True) -> Snapshot:
    return Snapshot("lockhost:1751", NOON, locks, detailed)


def test_table() -> None:
    assert table(snapshot(LEASE._replace(waiters=(WAITER,)), PLAIN._replace(hold=1800.0), PLAIN)) == (
        "NAME     HOLDER             HOST       PID  SINCE     HOLD      TOKEN             WAIT\n"
        "disk     worker12_4711_ann  worker12  4711  11:58:57  lease 30  1763732002123456     1\n"
        "nightly  worker12_4711_ann  worker12  4711  11:58:57  1800      1763732002123456     0\n"
        "nightly  worker12_4711_ann  worker12  4711  11:58:57  for ever  1763732002123456     0\n"
    )


def test_a_usual_table_fits_into_100_columns() -> None:
    lock = PLAIN._replace(name=b"nightly.build", pid=4194303, lease=3600.0, age=10 * 86400.0)
    assert max(map(len, table(snapshot(lock)).splitlines())) <= 100


def test_a_table_of_what_is_out_of_the_ordinary() -> None:
    lines = table(snapshot(LEASE._replace(recalled=True, outlived=True), PLAIN._replace(confirmed=False), PLAIN))
    assert [line.rpartition("  ")[2] for line in lines.splitlines()[:3]] == [
        "STATE",
        "recalled, outlived",
        "unconfirmed",
    ]
    assert lines.splitlines()[3].endswith(" 0")


def test_a_table_of_what_is_not_known() -> None:
    assert table(snapshot(HeldInfo(b"x", b"u"), detailed=False)).splitlines()[1].split() == ["x", "u", *"------"]
    nameless = HeldInfo(b"x", b"u", address=b"10.0.0.1", age=nan)
    assert table(snapshot(nameless)).splitlines()[1].split() == [
        "x",
        "u",
        "10.0.0.1",
        "-",
        "-",
        "for",
        "ever",
        "-",
        "0",
    ]


def test_a_long_name_moves_its_own_line_only() -> None:
    lines = table(snapshot(PLAIN._replace(name=b"n" * 60_000), PLAIN)).splitlines()
    assert len(lines[0]) < 120 and len(lines[2]) < 120 and len(lines[1]) > 60_000


@pytest.mark.parametrize(("days", "written"), [(0.2, "07:12:00"), (1, "06-30 12:00"), (400, "2025-05-27")])
def test_a_lock_held_for_long(days: float, written: str) -> None:
    assert f"  {written}  " in table(snapshot(PLAIN._replace(age=days * 86400)))


def test_page() -> None:
    lock = LEASE._replace(waiters=(WAITER, WaiterInfo(b"disk", b"old", 3700.0, address=b"10.0.0.9")))
    assert details(lock, snapshot(lock)) == (
        "lock     disk\n"
        "holder   worker12_4711_ann\n"
        "host     worker12 (10.0.0.12)\n"
        "pid      4711\n"
        "command  make -C /proj regress\n"
        "since    2026-07-01 11:58:57, 1 min 3 s ago\n"
        "hold     a lease of 30 s, 21.5 s left\n"
        "token    1763732002123456\n"
        "waiters  2\n"
        "   1. worker7_33_bob, waits for 12.2 s, on worker7 (10.0.0.7), pid 33, vi\\x1b[2J\\x0a\n"
        "   2. old, waits for 1 h 1 min, on 10.0.0.9\n"
    )


def test_a_page_on_a_lock_of_a_classic_server() -> None:
    lines = details(HeldInfo(b"x", b"u"), snapshot(detailed=False))
    assert lines.startswith("lock     x\nholder   u\n") and "classic" in lines and "token" not in lines


def test_a_page_in_words() -> None:
    lock = LEASE._replace(recalled=True, outlived=True, confirmed=False)
    words = details(lock, snapshot(lock))
    assert words.count("\nstate ") == 3
    assert "give it back" in words and "known to live" in words and "granted after a wait" in words
    assert "for ever" in details(PLAIN, snapshot(PLAIN))
    assert "1800000 s" in details(PLAIN._replace(hold=1_800_000.0), snapshot(PLAIN))


def test_document() -> None:
    lock = LEASE._replace(waiters=(WAITER,))
    found = document(snapshot(lock))
    assert set(found) == {"server", "time", "locks"}
    assert (found["server"], found["time"]) == ("lockhost:1751", NOON)
    (held,) = found["locks"]
    assert set(held) == HELD_KEYS and set(held["waiters"][0]) == WAITER_KEYS
    assert (held["name"], held["holder"], held["token"]) == ("disk", "worker12_4711_ann", 1763732002123456)
    assert (held["since"], held["age"], held["hold"], held["lease"], held["left"]) == (NOON - 63, 63, None, 30, 21.5)
    assert (held["recalled"], held["outlived"], held["confirmed"]) == (False, False, True)
    assert (held["host"], held["pid"], held["address"]) == ("worker12", 4711, "10.0.0.12")
    assert held["command"] == "make -C /proj regress"
    assert held["waiters"][0]["since"] == NOON - 12.25


def test_a_document_of_a_classic_server() -> None:
    (held,) = document(snapshot(HeldInfo(b"x", b"u"), detailed=False))["locks"]
    assert set(held) == HELD_KEYS
    assert {key: value for key, value in held.items() if value is not None} == {"name": "x", "holder": "u"}


@given(st.binary(), st.binary())
def test_json_text_tells_all_bytes_apart(one: bytes, other: bytes) -> None:
    written = json_text(one)
    assert written is not None
    assert written.encode().decode() == written, "nothing that UTF-8 does not have"
    assert (one == other) == (written == json_text(other))


def test_json_text() -> None:
    assert json_text(b"build") == "build"
    assert json_text("gr\u00fcn".encode()) == "gr\u00fcn"
    assert json_text(b"a\xffb\\c\x1b") == "a\\xffb\\x5cc\x1b"
    assert json_text(None) is None


WORDS = st.binary(max_size=20)
NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, -1.0, 1e300, inf, nan]), st.floats())
WAITERS = st.builds(WaiterInfo, WORDS, WORDS, st.floats(), st.none() | WORDS, st.none() | st.integers())
ONE_HOLDER = st.builds(
    HeldInfo,
    WORDS,
    WORDS,
    token=st.integers(),
    age=st.floats(),
    host=st.none() | WORDS,
    pid=st.none() | st.integers(),
    hold=NUMBERS,
    lease=NUMBERS,
    left=NUMBERS,
    command=st.none() | WORDS,
    slots=st.integers(),
    minhold=NUMBERS,
    kept=st.booleans(),
    waiters=st.just(()) | st.tuples(WAITERS),
    others=st.just(()),  # else they would have others, and so on
)
LOCKS = st.builds(HeldInfo._replace, ONE_HOLDER, others=st.lists(ONE_HOLDER, max_size=2).map(tuple))


@given(st.lists(LOCKS, max_size=3), st.booleans())
def test_whatever_a_server_says_can_be_written(locks: list[HeldInfo], detailed: bool) -> None:
    taken = snapshot(*locks, detailed=detailed)
    assert isinstance(encode_text(table(taken)), bytes)
    assert all(encode_text(details(lock, taken)).endswith(b"\n") for lock in locks)
    written = json.dumps(document(taken), allow_nan=False)
    assert json.loads(written)["time"] == NOON


def test_text_is_written_as_it_came() -> None:
    for word in (b"a\xff\x1b\xc3\xbc", bytes(range(256))):
        assert encode_text(text(word)) == word


def test_nothing_moves_the_cursor_of_a_terminal() -> None:
    assert escape_controls("a\x1b[2J\tb\u009bc\x7f\n\u00fc") == "a\\x1b[2J\\x09b\\x9bc\\x7f\n\u00fc"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (12.34, "12.3 s"),
        (59.99, "1 min 0 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (86399, "23 h 59 min"),
        (100_000, "1 d 3 h"),
    ],
)
def test_span(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_outcomes() -> None:
    assert outcome_line(Outcome("x", BROKEN, b"u")) == "lock x was taken from u"
    assert outcome_line(Outcome("x", RECALLED, b"u", 2.5)) == "lock x was taken back from u after 2.5 s"
    assert outcome_line(Outcome("x", FREE)).startswith("lock x is free")
    for lives in (False, True):
        line = outcome_line(Outcome("x", HELD, b"u", 35.0, lives))
        assert line.startswith("lock x is still held by u after 35.0 s") and "--force" in line
        assert ("known to live" in line) is lives
    assert outcomes_document("h:1", [Outcome("x", BROKEN, b"u"), Outcome("y", FREE)]) == {
        "server": "h:1",
        "locks": [
            {"name": "x", "outcome": "broken", "holder": "u"},
            {"name": "y", "outcome": "free", "holder": None},
        ],
    }


def test_ping() -> None:
    pong = Ping("h:1", 0.01234567, "2.0", NOON)
    assert ping_line(pong) == "h:1 answered in 0.012 s: version 2.0, running since 2026-07-01 12:00:00"
    found = ping_document(pong)
    assert set(found) == {"server", "seconds", "version", "started", "age"}
    assert (found["server"], found["seconds"], found["version"], found["started"]) == ("h:1", 0.012346, "2.0", NOON)
    assert ping_line(Ping("h:1", 0.01, "", None)) == "h:1 answered in 0.010 s: version -"
    assert ping_document(Ping("h:1", 0.01, "", None))["age"] is None


def test_locks_that_several_hold_or_that_are_kept() -> None:
    reader = LEASE._replace(user=b"ann", slots=0, lease=None, left=None)
    shared = reader._replace(others=(reader._replace(user=b"bob", token=8, host=b"h2", pid=9, command=b"ls"),))
    limited = shared._replace(slots=4)
    kept = PLAIN._replace(kept=True, minhold=60.0, left=21.5)
    assert [row.split()[-4:] for row in table(snapshot(shared)).splitlines()[1:]] == [["2", "of", "any", "number"]]
    assert table(snapshot(limited)).rstrip().endswith("2 of 4") and table(snapshot(kept)).rstrip().endswith(" 0  kept")
    text = details(shared, snapshot())
    assert "slots    2 of any number\n" in text and "and      bob on h2" in text and "token 8, ls\n" in text
    assert "hold     at least 60 s, 21.5 s left\n" in details(kept, snapshot())

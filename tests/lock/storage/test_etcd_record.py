"""A grant as a key and a value of etcd: all of it comes back, and what newer and older versions wrote can be read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclocker.lock.model import Record
from ipclocker.lock.storage.etcd_record import MAX_COMMAND, read_record, record_key, record_value

words = st.binary(max_size=20)
numbers = st.none() | st.integers(0, 2**63 - 1)
times = st.floats(0, 1e12)
records = st.builds(
    Record,
    name=st.binary(min_size=1, max_size=20) | st.sampled_from([b"/", b"a/b", b".", b"%2F", b"\xff\0", b"d" * 1024]),
    token=st.integers(0, 2**63 - 1),
    user=words,
    session=words,
    since=times,
    hold=times,
    lease=st.booleans(),
    outlived=st.booleans(),
    confirmed=st.booleans(),
    recalled=st.booleans(),
    heard=st.none() | times,
    command=words,
    host=words,
    pid=st.integers(0, 2**31 - 1),
    start=numbers,
    boot=words,
    pidns=numbers,
    address=st.sampled_from(["", "127.0.0.1", "::1"]),
    machine=words,
    timens=numbers,
    slots=st.integers(0, 2**63 - 1),
    min_hold=st.floats(0, 1e12),
    keep_until=st.none() | st.floats(0, 1e12),
    kept=st.booleans(),
)
USUAL = Record(
    7, b"x", b"u", b"", 1.0, 0.0, False, False, True, False, None, b"", b"", 0, None, b"", None, "", b"", None
)


@given(record=records)
def test_all_of_a_grant_comes_back_whatever_bytes_it_has(record: Record) -> None:
    key, value = record_key(record.name, record.token), record_value(record)
    assert key.count(b"/") == 1 and key.isascii() and b"\n" not in value
    again = read_record(key, value)
    assert again == record
    assert [type(field) for field in again] == [type(field) for field in record]


@given(one=records, other=records)
def test_two_grants_never_share_a_key(one: Record, other: Record) -> None:
    same = (one.name, one.token) == (other.name, other.token)
    assert (record_key(one.name, one.token) == record_key(other.name, other.token)) == same


def test_a_record_with_numbers_for_flags_as_sqlite_has_them_comes_back_with_flags() -> None:
    kept = USUAL._replace(lease=1, outlived=1, confirmed=0, recalled=1)  # type: ignore[arg-type]
    again = read_record(b"x/7", record_value(kept))
    assert (again.lease, again.outlived, again.confirmed, again.recalled) == (True, True, False, True)
    assert all(type(flag) is bool for flag in again[6:10])


def test_a_long_command_is_cut() -> None:
    long = USUAL._replace(command=b"m" * 65_536)
    assert read_record(b"x/7", record_value(long)) == USUAL._replace(command=b"m" * MAX_COMMAND)
    assert len(record_value(long)) < MAX_COMMAND + 200


def test_members_of_a_newer_version_are_passed_over_and_missing_ones_have_their_usual_value() -> None:
    assert read_record(b"x/7", b'{"user":"u","since":1,"colour":{"r":[1]}}') == USUAL


@pytest.mark.parametrize("key", ["x", "x/", "/7", "x/y", "x/-7", "x/07", "x/7/8", "a/b/7", "%78/7", "x/7 ", "x/\u0667"])
def test_a_key_that_is_not_of_a_grant_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="does not end in a name and a number"):
        read_record(key.encode(), record_value(USUAL))


@pytest.mark.parametrize(
    "value",
    ["", "x", "[]", "7", "null", "{}", '{"since":1}', "\xff", '{"user":"u","since":NaN}', '{"user":"\\ud800"}']
    + [
        json.dumps({"user": "u", member: value})
        for member, value in {"session": 7, "since": "1", "hold": None, "lease": 1, "heard": True}.items()
    ]
    + [
        json.dumps({"user": "u", member: value})
        for member, value in {"pid": 1.5, "start": "1", "pidns": False, "address": 1, "user": None}.items()
    ],
)
def test_a_value_that_is_not_of_a_grant_is_refused(value: str) -> None:
    with pytest.raises(ValueError):
        read_record(b"x/7", value.encode("latin-1"))

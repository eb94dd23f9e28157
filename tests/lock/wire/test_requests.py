"""Requests and answers, byte by byte: what one side writes the other reads, however it is cut into pieces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipclocker.lock.wire import requests
from ipclocker.lock.wire.requests import VARIABLES, RequestVariables
from ipclocker.net.line_buffer import split_lines

from ...support.memory import MemoryServer

words = st.binary(min_size=1, max_size=12).filter(lambda word: len(word.split()) == 1 and word.split()[0] == word)
numbers = st.integers(0, 2**63 - 1)

# Bytes that come near to the protocol, since bytes of pure chance hardly ever reach a command.
_VERBS = [*VARIABLES, *b"LOCK UNLOCK STATUS BREAK_LOCK DEAD_PID LOCK_LIST VERSION RESTART EOF GOT RENEW CHECK".split()]
near_words = st.one_of(
    st.sampled_from([b"0", b"1", b"2.5", b"-1", b"x", b"a", b"b", b"ann", b"h", b"99999999999999999999999", b"\xff\0"]),
    words,
)
near_lines = st.one_of(
    st.builds(lambda verb, rest: b" ".join([verb, *rest]), st.sampled_from(_VERBS), st.lists(near_words, max_size=4)),
    st.sampled_from([b"", b"   ", b"\r", b"user ann", b"user bob", b"locks a b", b"block 1", b"block 0", b"token 1"]),
    st.sampled_from([b"timeout 5", b"autounlock 1", b"pid 7", b"hostname h", b"LOCK", b"UNLOCK", b"session s"]),
    st.binary(max_size=30),
)
near_streams = st.lists(near_lines, max_size=40).map(b"\n".join)
streams = st.one_of(near_streams, near_streams.map(lambda stream: stream + b"\n"), st.binary(max_size=200))


def heard_in_pieces(stream: bytes, cuts: list[int]) -> tuple[bytes, bytes, bool]:
    """All that is answered to a stream cut at these places, while another client holds b and waits for a."""
    server = MemoryServer()
    server.service.started = 1.0
    other = server.connect("1.2.3.4")
    other.say("user zed; locks b; LOCK; locks a b zed; LOCK; locks a; session z; block 1; LOCK")
    peer = server.connect("1.2.3.4")
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, end in zip(places, places[1:]):
        peer.send(stream[start:end])
    table = server.service.table
    held = [grant for name in (b"a", b"b") for grant in table.holders(name)]
    server.service.apply(table.break_grants(held, server.now))  # those that wait are served
    return peer.heard, other.heard, peer.closed


@settings(max_examples=400, deadline=None)
@given(streams, st.lists(st.integers(0, 10_000), max_size=12))
@example(b"user u\nlocks b\nblock 1\nLOCK\nSTATUS\nUNLOCK\nLOCK\nEOF\nVERSION\n", [30, 31, 32])
@example(b"user zed\nlocks a b\nblock 1\nLOCK\nUNLOCK\n", [])
def test_any_bytes_in_any_pieces_are_answered_as_in_one_piece(stream: bytes, cuts: list[int]) -> None:
    whole = heard_in_pieces(stream, [])
    assert heard_in_pieces(stream, cuts) == whole
    assert heard_in_pieces(stream, list(range(len(stream)))) == whole


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=3), st.integers(60_000, 70_000), st.lists(st.integers(0, 70_000), max_size=5))
def test_a_line_of_any_length_is_taken_or_refused(piece: bytes, length: int, cuts: list[int]) -> None:
    line = b"user " + (piece.replace(b"\n", b"x") * length)[: length - 5] + b"\nSTATUS\n"
    heard, _, closed = heard_in_pieces(line, cuts)
    refused = heard == b"error line_too_long\n\n\n"
    assert refused == closed == (length > 65_536)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), near_streams, st.booleans()), max_size=12))
def test_no_crowd_brings_the_service_down(steps: list[tuple[int, bytes, bool]]) -> None:
    """Three clients say anything in any order and hang up at any time; what is held and what waits stays in order."""
    server = MemoryServer()
    table = server.service.table
    peers = [server.connect() for _ in range(3)]
    for number, stream, hangs_up in steps:
        peers[number].send(stream + b"\n")
        if hangs_up:
            peers[number].hang_up()
        if hangs_up or peers[number].closed:
            peers[number] = server.connect()
        server.pass_time(0.5)
        for peer in peers:
            request = peer.handler.waiting
            assert request is None or request in table.waiters(request.names[0])
        waiting = [peer.handler.waiting for peer in peers if peer.handler.waiting is not None]
        assert set(waiting) == {request for name in table.held for request in table.waiters(name)}


def read_back(request: bytes) -> RequestVariables:
    variables = RequestVariables()
    lines, rest = split_lines(b"", request)
    assert rest == b""
    for line in lines[:-1]:
        read = line.split()
        assert VARIABLES[read[0]](variables, read) is None
    return variables


@settings(max_examples=200)
@given(
    user=words,
    session=words,
    locks=st.lists(words, min_size=1, max_size=9, unique=True).map(tuple),
    block=st.booleans(),
    timeout=st.one_of(
        st.integers(0, 10**12 - 1), st.floats(0, 999_999_999_999, allow_nan=False).map(lambda x: round(x, 3))
    ),
    autounlock=st.booleans(),
    pid=st.integers(0, 2**31 - 1),
    hostname=words,
    start=numbers,
    boot=words,
    pidns=numbers,
    token=st.booleans(),
)
def test_what_a_client_asks_for_is_what_the_server_reads(**asked: Any) -> None:
    request = requests.request(b"LOCK", **asked)
    assert request.endswith(b"\nLOCK\n")
    got = read_back(request)
    assert asked == {
        "user": got.user,
        "session": got.session,
        "locks": got.names,
        "block": got.waits,
        "timeout": got.hold,
        "autounlock": got.autounlock,
        "pid": got.pid,
        "hostname": got.hostname,
        "start": got.start,
        "boot": got.boot,
        "pidns": got.pidns,
        "token": got.confirms,
    }


def test_a_variable_that_is_none_is_not_sent() -> None:
    assert requests.request(b"LOCK", user=b"u", pid=None) == b"user u\nLOCK\n"


@pytest.mark.parametrize("hold", [0.0001, 0.0004, 1e-9])
def test_the_shortest_hold_does_not_become_one_for_ever(hold: float) -> None:
    assert read_back(requests.request(b"LOCK", timeout=hold)).hold > 0


@pytest.mark.parametrize("variable", ["block", "timeout", "autounlock", "pid", "start", "pidns", "token"])
@pytest.mark.parametrize(
    "value", [b"", b"-1", b"x", b"1x", b"0x10", b"1e3", b"nan", b"inf", b"+1", b"1_0", b"\xb2", b"9" * 30]
)
def test_a_number_that_is_none_raises(variable: str, value: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        read_back(b"%b %b\nLOCK\n" % (variable.encode(), value))


def test_trailing_words_are_skipped_and_names_come_once() -> None:
    got = read_back(b"user u v\ntimeout 600 extra words\nlocks a b a\n\tblock   1\t\r\nLOCK\n")
    assert (got.user, got.hold, got.names, got.waits) == (b"u", 600, (b"a", b"b"), True)

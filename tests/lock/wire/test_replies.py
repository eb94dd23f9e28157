"""Answers: what a server writes a client reads, however it is cut into pieces; the rest is skipped."""

from __future__ import annotations

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from ipclocker.lock.model import Grant, HolderProcess, LockRequest
from ipclocker.lock.wire import replies
from ipclocker.lock.wire.replies import Answer, AnswerReader, Broke, LookFor, Member, Obtained, Reply, Space, Waiting
from ipclocker.net.line_buffer import split_lines

from ...support.memory import MemoryServer

words = st.binary(min_size=1, max_size=12).filter(lambda word: len(word.split()) == 1 and word.split()[0] == word)
numbers = st.integers(0, 2**63 - 1)


def make_grant(user: bytes, name: bytes, token: int) -> Grant:
    return Grant(name, token, LockRequest((user, b""), (name,)), 0.0)


def answers(user: bytes, name: bytes, number: int) -> list[tuple[bytes, Reply]]:
    """What the server writes, with what the client is to read."""
    grant, own, other = make_grant(user, name, number), (user, b""), (b"", b"s")
    process = HolderProcess(name, number, None, b"", None, "")
    return [
        (replies.granted(grant, False), Answer(owner=user, locked=True, name=name)),
        (replies.granted(grant, True), Answer(owner=user, locked=True, name=name, token=number)),
        (replies.status(None, own), Answer()),
        (replies.status(grant, own), Answer(owner=user, locked=True, name=name)),
        (replies.status(grant, other), Answer(owner=user)),
        (replies.waiting(grant), Waiting(user)),
        (replies.OBTAINED, Obtained()),
        (replies.broke(grant), Broke(user)),
        (replies.look_for(name, process), LookFor(name, name, number)),
        (replies.listed(grant) + replies.END, Answer(locks=((name, user),))),
        (replies.listed(grant) * 3 + replies.END, Answer(locks=((name, user),) * 3)),
        (replies.version("9.1", 12.7), Answer(version=b"9.1 12")),
        (replies.renewed(name, number), Answer(renewed=True)),
        (replies.current(True), Answer(current=True)),
        (replies.current(False), Answer(current=False)),
        (replies.error(name), Answer(error=name)),
    ]


@settings(max_examples=200, deadline=None)
@given(words, words, numbers, st.lists(st.integers(0, 15), max_size=12), st.lists(st.integers(0, 5000), max_size=8))
def test_the_client_reads_what_the_server_writes_in_any_pieces(
    user: bytes, name: bytes, number: int, chosen: list[int], cuts: list[int]
) -> None:
    written = [answers(user, name, number)[which] for which in chosen]
    stream = b"".join(data for data, _ in written)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    reader, rest = AnswerReader(), b""
    read: list[Reply] = []
    for start, end in zip(places, places[1:]):
        lines, rest = split_lines(rest, stream[start:end])
        read += reader.read(lines)
    assert read == [reply for _, reply in written]
    assert rest == b""


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_a_client_reads_any_bytes_without_an_exception(data: bytes) -> None:
    list(AnswerReader().read(data.split(b"\n")))


def test_a_client_skips_lines_and_words_that_it_does_not_know() -> None:
    lines = b"news of 2040\nowner u or so\nlocked 1 x\nweather fine\nlockname n m\ntoken 7 8\n\n\n"
    assert list(AnswerReader().read(lines.split(b"\n")[:-1])) == [
        Answer(owner=b"u", locked=True, name=b"n", token=7),
    ]


def test_names_come_back_as_they_were_sent_whatever_their_encoding() -> None:
    everything = bytes(byte for byte in range(256) if bytes([byte]) not in string.whitespace.encode())
    peer = MemoryServer().connect()
    peer.send(b"user " + everything + b"\nlocks " + everything + b"\nLOCK\n")
    assert peer.heard == b"owner %b\nlocked 1\nlockname %b\n\n\n" % (everything, everything)


def test_a_client_is_told_of_the_lock_space_before_what_comes_behind_it() -> None:
    """However the lines come; the members are told one by one."""
    lines = replies.space("5a", 5) + replies.member("h1", ["h1:1", "[::1]:1"]) + replies.member("h2", [])
    members = (Member(b"h1", (b"h1:1", b"[::1]:1")), Member(b"h2"))
    for behind, reply in (
        (b"print_waiting ann\n", Waiting(b"ann")),
        (replies.version("9.1", 12), Answer(version=b"9.1 12")),
        (b"\n\n", Answer()),
        (replies.current(True), Answer(current=True)),
    ):
        for written, space in ((replies.space("5a"), Space(b"5a")), (lines, Space(b"5a", 5, members))):
            reader = AnswerReader()
            read = [found for line in (written + behind).split(b"\n")[:-1] for found in reader.read([line])]
            assert read[0] == space and reply in read and len(read) == 2


def test_what_is_said_of_a_lock_space_and_means_nothing_is_skipped() -> None:
    lines = [b"space", b"member h", b"space 5a later", b"member", b"member h a", b"owner", b"locked 0", b"", b""]
    assert list(AnswerReader().read(lines)) == [Space(b"5a", None, (Member(b"h", (b"a",)),)), Answer()]
    assert next(AnswerReader().read([b"space 5a replicated x", b""])) == Space(b"5a", 0)

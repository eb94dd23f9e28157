"""Answers: what a server writes a client reads, however it is cut into pieces; the rest is skipped."""

from __future__ import annotations

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from ipclocker.lock.model import Grant, HolderProcess, LockRequest
from ipclocker.lock.wire import replies
from ipclocker.lock.wire.replies import Answer, AnswerReader, Broke, LookFor, Obtained, Reply, Waiting
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

"""What a client reads of LOCK_INFO, of losses and recalls: what the server writes, and anything else."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipclocker.lock.model import Grant, HolderProcess, LockRequest
from ipclocker.lock.wire import info, replies, requests
from ipclocker.lock.wire.info import HeldInfo, WaiterInfo, decode_command
from ipclocker.lock.wire.replies import Answer, AnswerReader, Lost, Recall, Recalled, Reply

words = st.binary(min_size=1, max_size=12).filter(lambda word: len(word.split()) == 1 and word.split()[0] == word)
processes = st.none() | st.builds(
    HolderProcess,
    words,
    st.integers(1, 2**31 - 1),
    st.none() | st.integers(0, 2**63),
    st.just(b"") | words,
    st.none() | st.integers(0, 2**63),
    st.sampled_from(["", "::1"]),
)
times = st.integers(0, 10**6).map(lambda number: number / 8)


def read(data: bytes) -> list[Reply]:
    return list(AnswerReader().read(data.split(b"\n")[:-1]))


def ask(
    user: bytes, process: Optional[HolderProcess], command: bytes, hold: float = 0.0, lease: bool = False
) -> LockRequest:
    return LockRequest((user, b""), (), hold, lease, process, requests.encode_command(command))


asks = st.builds(ask, words, processes, st.binary(max_size=60), times, st.booleans())


def about(process: HolderProcess | None) -> tuple[bytes | None, int | None, bytes | None]:
    return (None, None, None) if process is None else (process.host, process.pid, process.address.encode() or None)


def with_identity(held: HeldInfo, process: HolderProcess | None) -> HeldInfo:
    """What is told of a lock in full."""
    if process is None:
        return held
    return held._replace(start=process.start, boot=process.boot or None, pidns=process.pidns, timens=process.timens)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(words, asks, times, st.booleans(), st.booleans(), st.lists(asks, max_size=3)), max_size=4),
    st.booleans(),
)
def test_a_client_reads_what_the_server_writes(
    locks: list[tuple[bytes, LockRequest, float, bool, bool, list[LockRequest]]], in_full: bool
) -> None:
    locks = list({lock[0]: lock for lock in locks}.values())
    written, expected = b"", []
    for number, (name, holder, age, recalled, outlived, waiters) in enumerate(locks):
        grant = Grant(name, number, holder, 1000.0)
        grant.recalled, grant.outlived = recalled, outlived
        written += info.held_line(grant, 1000.0 + age, in_full)
        for waiter in waiters:
            waiter.address, waiter.queued_at = "", 1000.0
        written += b"".join(info.waiter_line(name, waiter, 1002.5) for waiter in waiters)
        expected.append(
            HeldInfo(
                name,
                holder.owner[0],
                number,
                age,
                *about(holder.process),
                hold=holder.hold or None if not holder.lease else None,
                lease=holder.hold or None if holder.lease else None,
                left=max(holder.hold - age, 0.0) if holder.hold else None,
                recalled=recalled,
                outlived=outlived,
                command=decode_command(holder.command) or None,
                waiters=tuple(
                    WaiterInfo(
                        name, waiter.owner[0], 2.5, *about(waiter.process), decode_command(waiter.command) or None
                    )
                    for waiter in waiters
                ),
            )
        )
    if in_full:
        expected = [with_identity(held, lock[1].process) for held, lock in zip(expected, locks)]
    assert read(written + replies.END) == [Answer(held=tuple(expected))]


def test_what_is_not_known_or_means_nothing_is_skipped() -> None:
    lines = (
        b"held a weather fine user u token x age 1.5 pid 7 lease 30 left soon later\n"
        b"weather fine\nheld\nwaiter\nwaiter a age 2 user w colour blue\nwaiter b user nobody\n\n\n"
    )
    waiter = WaiterInfo(b"a", b"w", 2.0)
    assert read(lines) == [Answer(held=(HeldInfo(b"a", b"u", age=1.5, pid=7, lease=30.0, waiters=(waiter,)),))]


def test_an_answer_knows_nothing_of_the_one_before() -> None:
    assert read(b"held a user u\n\n\n\n\nowner u\nlocked 0\n\n\n") == [
        Answer(held=(HeldInfo(b"a", b"u"),)),
        Answer(),
        Answer(owner=b"u"),
    ]


@given(words, st.integers(0, 10**20))
def test_losses_and_recalls(name: bytes, token: int) -> None:
    grant = Grant(name, token, LockRequest((name, b""), (name,)), 0.0)
    written = replies.lost(grant) + replies.recall(grant) + replies.recalled(grant) + replies.END
    assert read(written) == [Lost(name, token), Recall(name, token), Recalled(name), Answer()]


@pytest.mark.parametrize("line", [b"lost", b"lost a", b"lost a b", b"recall a -1", b"recall", b"print_recalled"])
def test_lines_that_are_none(line: bytes) -> None:
    assert [reply for reply in read(line + b"\n\n\n") if reply != Recalled(b"")] == [Answer()]


@given(st.binary(max_size=400))
@example(b"make -C /proj 'a b' 50%\n")
@example(b"\xff" * 300)
def test_a_command_comes_through_as_one_word_and_cut(command: bytes) -> None:
    word = requests.encode_command(command)
    assert len(word) <= requests.MAX_COMMAND and len(word.split()) == bool(command)
    assert all(0x21 <= byte <= 0x7E for byte in word)
    decoded = decode_command(word)
    assert command.startswith(decoded)
    assert decoded == command or len(word) > requests.MAX_COMMAND - 3

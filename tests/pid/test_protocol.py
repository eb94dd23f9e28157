"""The datagrams: what one side writes the other reads, and whatever is sent is read or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclocker.pid.protocol import (
    MAX_DATAGRAM,
    PidAnswer,
    PidQuestion,
    is_wanted,
    read_answer,
    read_question,
    write_answer,
    write_question,
)

hosts = st.binary(min_size=1, max_size=60).filter(lambda word: word.split() == [word])
pids = st.integers(1, 10**20 - 1)
numbers = st.integers(0, 10**20 - 1)
boots = st.just("") | st.uuids().map(str)
names = st.just("") | st.from_regex(r"[a-z0-9.=-]{1,20}", fullmatch=True)
maybe = st.none() | numbers
questions = st.builds(
    PidQuestion,
    pids,
    hosts,
    st.integers(0, 7),
    maybe,
    boots,
    maybe,
    timens=maybe,
    machine=names,
    name=names,
    silent=maybe,
)
near_words = st.sampled_from(
    [
        b"PIDR",
        b"EXIS",
        b"UNKN",
        b"na",
        b"0",
        b"1",
        b"7",
        b"-1",
        b"+1",
        b"1_0",
        b"007",
        b"x",
        b"start=",
        b"start=5",
        b"boot=",
        b"pidns=x",
        b"silent=",
        b"silent=3",
        b"machine=m",
        b"\xb2",
        b"9" * 30,
        b"\x00",
        b"\xff",
    ]
)
datagrams = st.binary(max_size=80) | st.lists(near_words, max_size=8).map(b" ".join)


@given(questions)
def test_a_question_is_read_as_it_was_written(question: PidQuestion) -> None:
    assert read_question(write_question(question)) == question


@given(pids, st.sampled_from([True, False, None]), hosts)
def test_an_answer_is_read_as_it_was_written(pid: int, exists: bool | None, host: bytes) -> None:
    assert read_answer(write_answer(PidAnswer(pid, exists, host))) == PidAnswer(pid, exists, host)


@given(datagrams)
def test_any_datagram_is_read_or_refused(datagram: bytes) -> None:
    question = read_question(datagram)
    assert question is None or question.pid > 0
    read_answer(datagram)


@given(questions, st.sampled_from([True, False, None]))
def test_an_answer_is_no_longer_than_its_question_and_a_name(question: PidQuestion, exists: bool | None) -> None:
    answer = write_answer(PidAnswer(question.pid, exists, question.host))
    assert len(answer) <= len(write_question(question)) + 1


def test_what_is_left_out() -> None:
    assert read_question(b"PIDR 5\n") == PidQuestion(5, b"", 3)
    assert read_question(b"PIDR 5 h") == PidQuestion(5, b"h", 3)
    assert read_question(b"PIDR 5 h 7 more start=9 words") == PidQuestion(5, b"h", 7, start=9)


@pytest.mark.parametrize("number", [b"0", b"-1", b"+1", b"1_0", b"abc", b"1.0", b"", b"\xd9\xa1", b"0x1", b"1" * 21])
def test_what_is_no_positive_number_is_no_question(number: bytes) -> None:
    assert read_question(b"PIDR " + number + b" h 7") is None


@pytest.mark.parametrize("words", [b"PIDR 1 h x", b"PIDR 1 h -1", b"PIDR 1 h 7 start=x", b"PIDR 1 h 7 pidns="])
def test_what_makes_no_sense_is_no_question(words: bytes) -> None:
    assert read_question(words) is None


def test_what_is_too_long_is_no_question() -> None:
    assert read_question(b"PIDR 1 ".ljust(MAX_DATAGRAM, b"h")) is not None
    assert read_question(b"PIDR 1 ".ljust(MAX_DATAGRAM + 1, b"h")) is None


def test_flags() -> None:
    wanted = [[is_wanted(flags, exists) for exists in (True, False, None)] for flags in range(8)]
    assert wanted == [[bool(flags & 1), bool(flags & 2), bool(flags & 4)] for flags in range(8)]

"""Lines out of a stream, however it was cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclocker.net.line_buffer import MAX_LINE, LineTooLong, split_lines


def lines_of(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    lines, rest = [], b""
    for piece in pieces:
        more, rest = split_lines(rest, piece)
        lines += more
    return lines, rest


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"a", b"\n")), max_size=12))
def test_any_pieces_give_the_same_lines(pieces: list[bytes]) -> None:
    *lines, rest = b"".join(pieces).split(b"\n")
    assert lines_of(pieces) == (lines, rest)


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE])
@pytest.mark.parametrize("cut", [1, 1000, MAX_LINE])
def test_a_line_as_long_as_may_be(length: int, cut: int) -> None:
    stream = b"x" * length + b"\nrest"
    pieces = [stream[start : start + cut * 64] for start in range(0, len(stream), cut * 64)]
    assert lines_of(pieces) == ([b"x" * length], b"rest")


@pytest.mark.parametrize("end", [b"", b"\n", b"\nrest"])
@pytest.mark.parametrize("before", [b"", b"short\n"])
def test_a_longer_one_is_refused_whether_it_ends_or_not(before: bytes, end: bytes) -> None:
    stream = before + b"x" * (MAX_LINE + 1) + end
    with pytest.raises(LineTooLong):
        lines_of([stream])
    with pytest.raises(LineTooLong):
        lines_of([stream[start : start + 999] for start in range(0, len(stream), 999)])


def test_many_short_lines_at_once_are_no_long_line() -> None:
    assert len(lines_of([b"x" * 99 + b"\n"] * 2000)[0]) == 2000
    assert len(lines_of([(b"x" * 99 + b"\n") * 2000])[0]) == 2000

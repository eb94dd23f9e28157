"""Output cut into lines, in whatever pieces it comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipclocker.supervise.output.line_splitter import LONGEST, LineSplitter


def cut(*pieces: bytes) -> list[bytes]:
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.split(piece)] + splitter.finish()


def test_lines() -> None:
    assert cut(b"a\nb", b"c\n\nd\n") == [b"a", b"bc", b"", b"d"]


def test_a_last_line_without_an_end() -> None:
    splitter = LineSplitter()
    assert splitter.split(b"a\nb") == [b"a"]
    assert splitter.finish() == [b"b"]
    assert splitter.finish() == []


def test_lines_of_other_systems() -> None:
    assert cut(b"a\r\nb\r", b"\nc\r") == [b"a", b"b", b"c"]


def test_what_is_no_text_is_shown() -> None:
    assert cut(b"\0\1\x7f\x08 \xc3\xa9\xff\tx\r1\n") == [b"\\x00\\x01\\x7f\\x08 \xc3\xa9\xff\tx\\x0d1"]
    assert cut(b"\x1b[31mred\x1b[0m\n") == [b"\x1b[31mred\x1b[0m"]


def test_a_line_without_end_is_cut() -> None:
    splitter = LineSplitter()
    assert splitter.split(b"x" * LONGEST) == []
    assert splitter.split(b"y") == [b"x" * LONGEST]
    assert splitter.split(b"z\n") == [b"yz"]
    assert [len(line) for line in cut(b"x" * (3 * LONGEST + 1))] == [LONGEST, LONGEST, LONGEST, 1]
    assert [len(line) for line in cut(b"x" * (2 * LONGEST) + b"\n")] == [LONGEST, LONGEST]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
def test_the_pieces_do_not_matter(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in zip(edges, edges[1:])]
    assert cut(*pieces) == cut(data)
    assert all(len(line) <= 4 * LONGEST for line in cut(data))

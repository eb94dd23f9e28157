"""Cutting bytes from a stream into lines, with a bound on the memory that one line may take."""

from __future__ import annotations

MAX_LINE = 65_536  # bytes; room for 256 lock names (requests.MAX_NAMES) of 250 bytes each


class LineTooLong(ValueError):
    """A line went on for more bytes than it may have without an end."""


def split_lines(kept: bytes, data: bytes, longest: int = MAX_LINE) -> tuple[list[bytes], bytes]:
    """Cut `kept` + `data` at each newline; return the complete lines, and the beginning of the next one to keep.

    However the stream was cut into pieces, the same lines come out. Raises LineTooLong if a line,
    complete or not, is longer than `longest` bytes.
    """
    lines = (kept + data if kept else data).split(b"\n")
    rest = lines.pop()
    # No line can be too long while all that arrived is short: the common case costs one comparison.
    if len(kept) + len(data) > longest and max([len(rest), *map(len, lines)]) > longest:
        raise LineTooLong
    return lines, rest

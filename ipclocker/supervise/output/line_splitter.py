"""Splits what a program writes into lines, to be written after the time and its name (pure: bytes in, lines out).

Whatever comes, a line that is written is a line of bounded length: one without an end is cut, and control characters,
of which binary data is full, are written as `\\x00`. A tab and the escape that begins a colour are left as they are.
"""

from __future__ import annotations

import re

LONGEST = 8192  # bytes of a line, what is longer becomes several: more than people read, and little to keep
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")


class LineSplitter:
    """The lines of one stream of bytes, without their ends."""

    def __init__(self) -> None:
        self._rest = b""

    def split(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete with these bytes."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        done = [piece for line in lines for piece in _pieces(line.removesuffix(b"\r"))]
        while len(self._rest) > LONGEST:
            done.append(self._rest[:LONGEST])
            self._rest = self._rest[LONGEST:]
        return [_shown(line) for line in done]

    def finish(self) -> list[bytes]:
        """Return the last line, if it has no end: nothing more will come."""
        rest, self._rest = self._rest, b""
        return [_shown(piece) for piece in _pieces(rest.removesuffix(b"\r"))] if rest else []


def _pieces(line: bytes) -> list[bytes]:
    if len(line) <= LONGEST:
        return [line]
    return [line[at : at + LONGEST] for at in range(0, len(line), LONGEST)]


def _shown(line: bytes) -> bytes:
    return _CONTROL.sub(lambda found: b"\\x%02x" % found[0][0], line)

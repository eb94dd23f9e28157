"""Reads the list of programs as people write it (pure: text in, programs out).

`NAME: COMMAND` or `COMMAND`, which is called by the base name of its first word. In a file they stand one on a line;
`#` at the beginning of a word, and not in quotes, begins a comment, as it does for a shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9_@+%-][A-Za-z0-9_.@+%-]*")  # it may become a file's name
_LONGEST_NAME = 64  # characters: with ".log" it fits into a file name anywhere
_QUOTED = re.compile(r"""['"\\]""")
_NAMED = re.compile(r"([^\s:]+):(?:\s+(.*))?", re.DOTALL)
# One step of a shell's way through a line: what is quoted, or any other character.
_STEP = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*"|.""")


class Program(NamedTuple):
    """A program to keep alive. `origin` says for messages where it was given."""

    name: str
    command: str
    origin: str


def parse_program(text: str, origin: str = "", name: str | None = None) -> Program:
    """Return the program of one command, with its name before it or given.

    Raises UsageError if the command is missing or the name is not allowed.
    """
    origin = origin or f"the program '{text}'"
    text = text.strip()
    if "\0" in text:
        raise UsageError(f"{origin}: there is a NUL byte in it")
    named = _NAMED.fullmatch(text) if name is None else None
    if named is not None and _is_name(named[1]):
        name, text = named[1], (named[2] or "").strip()
    if not text:
        raise UsageError(f"{origin}: the command is missing")
    if name is None:
        word = text.split(None, 1)[0]
        name = word.rpartition("/")[2]
        if not _is_name(name) or _QUOTED.search(word):
            raise UsageError(f"{origin}: '{name}' is no name for a program: write NAME: COMMAND")
    elif not _is_name(name):
        raise UsageError(
            f"{origin}: '{name}' is no name for a program: use up to {_LONGEST_NAME} of a-z 0-9 _ - . @ + %"
        )
    return Program(name, text, origin)


def parse_file(text: str, path: str) -> list[Program]:
    """Return the programs of a file's text; `path` is for messages. Raises UsageError as `parse_program` does."""
    lines = ((number, without_comment(line)) for number, line in enumerate(text.split("\n"), 1))
    return [parse_program(line, f"{path}, line {number}") for number, line in lines if line.strip()]


def by_name(programs: Iterable[Program]) -> dict[str, Program]:
    """Return the programs by their names, in their order. Raises UsageError if two have the same name."""
    found: dict[str, Program] = {}
    for program in programs:
        other = found.setdefault(program.name, program)
        if other is not program:
            raise UsageError(
                f"{program.origin}: there is a program called '{program.name}' already ({other.origin}): "
                "write another NAME: before the command"
            )
    return found


def without_comment(line: str) -> str:
    """Return the line up to its comment."""
    starts_word = True
    for step in _STEP.finditer(line):
        if starts_word and step[0] == "#":
            return line[: step.start()]
        starts_word = step[0].isspace()
    return line


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and len(text) <= _LONGEST_NAME

"""Quoting words for unit files (systemd.syntax(7), systemd.service(5), "Command lines") and for shells."""

from __future__ import annotations

import re
import shlex

from ..errors import UsageError
from ..net.text import encode_text

_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")


def command_line(program: list[str], words: list[str]) -> str:
    """Write a command line for ExecStart=, so that systemd passes the words on exactly as they are.

    Raises UsageError if the program's name has characters that systemd does not take there.
    """
    name, *first = program
    if any(c in "\"'\\" or not c.isprintable() for c in name):
        raise UsageError(f"systemd does not start a program that is called '{name}': copy the file to another place")
    # In the program's name alone, a $ stands for itself.
    return " ".join([_quoted(name), *(_quoted(word).replace("$", "$$") for word in (*first, *words))])


def shell_words(words: list[str]) -> str:
    """Quote words for /bin/sh. Raises UsageError if one has a line end in it, since no option of ours needs one."""
    if any("\n" in word for word in words):
        raise UsageError("an option has a line end in it, which has no place in an init script")
    return shlex.join(words)


def setting(value: str) -> str:
    """Write the value of a setting that goes to the end of its line. Raises UsageError if it can't be written so."""
    if not value.isprintable() or value != value.strip() or value.endswith("\\"):
        raise UsageError(f"'{value}' has characters that can't be written into a unit")
    return value.replace("%", "%%")


def _quoted(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    return '"' + "".join(map(_escaped, word)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character == "%":
        return "%%"
    if character.isprintable():
        return character
    # A byte that is not UTF-8, or a character that nobody could see in the unit.
    return "".join(f"\\x{byte:02x}" for byte in encode_text(character))

"""Turns the words of a command line into what is executed: directly where that is the same, else by a shell."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

SHELL = "/bin/sh"
# What makes Perl's exec of one string call a shell, which the classic tools rely on (perldoc -f exec).
_SHELL_CHARACTERS = re.compile(r"[$&*(){}\[\]'\";\\|?<>~`\n]")
_ASSIGNMENT = re.compile(r"[ \t]*\w+=")
_BLANKS = re.compile(r"[ \t]+")  # what parts words for a shell; to Python's split() a no-break space does, too


def command_line(words: Sequence[str], environment: Mapping[str, str], no_shell: bool = False) -> list[str]:
    """Return the words to execute for a command. `no_shell`: always the words as they are.

    The words are joined by a space. If that has characters which mean something to a shell, or begins with an
    assignment or with a word that is not a program on the PATH (a builtin, say), `/bin/sh -c` gets it. Otherwise
    a shell would only stand between the caller and the command, so its words are executed as they are.
    """
    if no_shell:
        return list(words)
    text = " ".join(words)
    if not _SHELL_CHARACTERS.search(text) and not _ASSIGNMENT.match(text):
        plain = _BLANKS.split(text.strip(" \t"))
        if find_program(plain[0], environment) is not None:
            return plain
    return [SHELL, "-c", text]


def find_program(name: str, environment: Mapping[str, str]) -> str | None:
    """Return the path of a command, as execvp(3) looks for it; None if it is not on the PATH."""
    if "/" in name:
        return name
    for folder in environment.get("PATH", os.defpath).split(os.pathsep):
        candidate = f"{folder or '.'}/{name}"
        if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return candidate
    return None

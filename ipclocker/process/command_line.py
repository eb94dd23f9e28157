"""Turns the words of a command line into what is executed: directly where that is the same, else by a shell."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

SHELL = "/bin/sh"
# What makes Perl's exec of one string call a shell, which the classic tools rely on (perldoc -f exec), and #, behind
# which a shell would see a comment.
_SHELL_CHARACTERS = re.compile(r"[$&*(){}\[\]'\";\\|?<>~`#\n]")
_ASSIGNMENT = re.compile(r"[ \t]*\w+=")
_BLANKS = re.compile(r"[ \t]+")  # what parts words for a shell; to Python's split() a no-break space does, too


def command_line(words: Sequence[str], environment: Mapping[str, str], exact: bool = False) -> list[str]:
    """Return the words to execute for a command. `exact`: always the words as they are.

    The words are joined by a space, as the classic tools join them. If that has characters which mean something to a
    shell, or begins with an assignment or with a word that is not a program on the PATH (a builtin, say),
    `/bin/sh -c` gets it. Otherwise a shell would only stand between the caller and the command, so its words are
    executed directly.

    A word behind the first that has a blank was quoted by the caller. Where the words have no shell characters, it
    stays one word.
    """
    if exact:
        return list(words)
    text = " ".join(words)
    if _SHELL_CHARACTERS.search(text):
        return [SHELL, "-c", text]
    if any(map(_BLANKS.search, words[1:])):
        parted = list(words)
        text = " ".join(f"'{word}'" if not word or _BLANKS.search(word) else word for word in words)
    else:
        parted = _BLANKS.split(text.strip(" \t"))
    if _ASSIGNMENT.match(text) or find_program(parted[0], environment) is None:
        return [SHELL, "-c", text]
    return parted


def shell_remedy(words: Sequence[str]) -> str:
    """Say what to do about words that begin with a line for a shell in a program's place; empty if they do not."""
    first = words[0]
    if not (_SHELL_CHARACTERS.search(first) or _BLANKS.search(first) or _ASSIGNMENT.match(first)):
        return ""
    return "; behind -- or --no-shell words are executed as they are: write sh -c in front of a line, or leave that out"


def find_program(name: str, environment: Mapping[str, str]) -> str | None:
    """Return the path of a command, as execvp(3) looks for it; None if it is not on the PATH."""
    if "/" in name:
        return name
    for folder in environment.get("PATH", os.defpath).split(os.pathsep):
        candidate = f"{folder or '.'}/{name}"
        if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return candidate
    return None

"""Shells at work: a line is typed, the shell is asked to complete it, and what it offers is read from it.

bash and zsh are asked as a person asks them, on a terminal, by a key that puts all that they offer into the line; then
the line is run, and what it runs writes down its words. fish has a command that says what it would offer.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..support.waiting import wait_for
from .terminal import Terminal

# How each is started, and what makes ^X a insert all completions and has it say when it is ready for a line.
_SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        """
        bind 'set enable-bracketed-paste off' 2>/dev/null
        bind '"\\C-xa": insert-completions'
        PROMPT_COMMAND='echo >{ready}'
        """,
    ),
    "zsh": (
        ["zsh", "-i"],
        """
        zle -C all-matches complete-word _generic
        bindkey '^Xa' all-matches
        zstyle ':completion:all-matches::::' completer _all_matches _complete
        zstyle ':completion:all-matches:*' insert yes
        unset zle_bracketed_paste
        zle-line-init() {{ echo >{ready} }}
        zle -N zle-line-init
        """,
    ),
}
SHELLS = (*_SHELLS, "fish")


class Shell:
    """A running shell that completes; `complete` gives what it offers for a line's last word."""

    def __init__(self, name: str, setup: str, programs: list[str], folder: Path, environment: dict[str, str]) -> None:
        words, keys = _SHELLS[name]
        self._noted, self._ready = folder / "noted", folder / "ready"
        script = folder / "setup"
        script.write_text(f"{setup}\n{keys.format(ready=self._ready)}")
        stubs = _stubs(programs, folder / "stubs", self._noted)
        self._terminal = Terminal(words, {**environment, **stubs, "TERM": "dumb"})
        self._terminal.resize(50, 250)
        self._terminal.expect("[$%#] ")  # what is typed before the first prompt may be lost
        self._terminal.line(f". {script}")

    def complete(self, line: str) -> set[str]:
        """The words that are offered for the last word of the line."""
        self._await(self._ready, "the shell to be ready")
        self._ready.unlink()
        self._terminal.type(line)
        self._terminal.type("\x18a")
        self._terminal.line("")
        self._await(self._noted, "the line to be run")
        found = self._noted.read_text().split("\n")[:-2]
        self._noted.unlink()
        given = shlex.split(line)[1:]
        typed = "" if line.endswith(" ") else given.pop()
        offered = set(found[len(given) :])
        return set() if offered == {typed} else offered - {""}  # where nothing is offered, the line stays as it was

    def _await(self, file: Path, what: str) -> None:
        def is_there() -> bool:
            self._terminal.look()  # one that nobody reads from holds up whoever writes to it
            return file.exists()

        wait_for(is_there, what)

    def end(self) -> None:
        """End the shell."""
        self._terminal.clean_up()


class Fish:
    """fish, which tells what it would offer."""

    def __init__(self, setup: str, environment: dict[str, str]) -> None:
        self._setup, self._environment = setup, environment

    def complete(self, line: str) -> set[str]:
        """The words that are offered for the last word of the line."""
        program = shutil.which("fish")
        assert program is not None
        command = [program, "-c", f"{self._setup}\ncomplete -C {shlex.quote(line)}"]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return {offer.partition("\t")[0] for offer in done.stdout.splitlines()}


@contextmanager
def shell(
    name: str, setup: str, programs: list[str], folder: Path, environment: dict[str, str]
) -> Iterator[Shell | Fish]:
    """A shell that has run these lines; `programs` are those whose command lines are to be completed."""
    if name == "fish":  # which completes nothing for programs that there are not
        yield Fish(setup, {**environment, **_stubs(programs, folder / "stubs", folder / "noted")})
        return
    running = Shell(name, setup, programs, folder, environment)
    try:
        yield running
    finally:
        running.end()


def _stubs(programs: list[str], folder: Path, noted: Path) -> dict[str, str]:
    """Programs that write down their words, and the environment in which they are found."""
    folder.mkdir()
    new, file = shlex.quote(f"{noted}.new"), shlex.quote(str(noted))
    for program in programs:
        (folder / program).write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" end >{new}\nmv {new} {file}\n")
        (folder / program).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}

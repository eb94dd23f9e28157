"""This program as it was started, so that it can be started again, from its file as that is then."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn, Optional

from ..version import VERSION
from .inheritance import VARIABLE, Takeover


class Program(NamedTuple):
    """A program and how it was started.

    words: the interpreter, its options, the file and the words of the command line
    file: the file's path, for people to read
    folder: where it was started, which relative names depend on; None: it is still there
    private: variables that it was started with, and that no program but itself is to have
    """

    words: list[str]
    file: str
    folder: Optional[str] = None
    private: dict[str, str] = {}  # noqa: RUF012 - it is never changed

    def describe(self) -> str:
        """Describe what runs here, as "version 1.0.0 (build 0123abcd) from /usr/local/bin/ipclocker"."""
        build = getattr(sys.modules.get("__main__"), "BUILD", "")
        return f"version {VERSION}{f' (build {build})' if build else ''} from {self.file}"

    def environment(self, takeover: Takeover) -> dict[str, str]:
        """Make the environment for a start that takes over."""
        return {**os.environ, VARIABLE: takeover.write()}

    def execute(self, takeover: Takeover) -> NoReturn:
        """Become the program from its file as it is now. Raises OSError, and then all is as it was before.

        Signals that are blocked stay so, and are not lost.
        """
        here = os.getcwd() if self.folder is not None else None
        descriptors = takeover.descriptors()
        try:
            if self.folder is not None:
                os.chdir(self.folder)
            for number in descriptors:
                os.set_inheritable(number, True)
            os.execve(self.words[0], self.words, {**self.environment(takeover), **self.private})
        finally:  # it has failed
            for number in descriptors:
                os.set_inheritable(number, False)
            if here is not None:
                os.chdir(here)


def this_program(private: dict[str, str], leaves_folder: bool) -> Program:
    """Return the program that runs here; `leaves_folder` says that it is going to leave the folder it was started in.

    Call it before that.
    """
    folder = None
    if leaves_folder:
        with suppress(OSError):  # the folder is gone: nothing depends on it
            folder = os.getcwd()
    return Program([sys.executable, *own_words()], os.path.abspath(sys.argv[0]), folder, private)


def own_words() -> list[str]:
    """Return the command line without the interpreter's name: the interpreter's options, the file, and the rest."""
    given: list[str] | None = getattr(sys, "orig_argv", None)  # from Python 3.10 on
    if given is None:
        try:
            given = os.fsdecode(Path("/proc/self/cmdline").read_bytes()).split("\0")[:-1]
        except OSError:  # no such place here: the built file is run so
            given = ["", "-ISXutf8", *sys.argv]
    return given[1:]

"""uriexec: run a command that was encoded to pass through shells. It starts often, so its few options are read here."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

from ..errors import CANNOT_EXECUTE, NOT_FOUND, OK, IpclockerError, UsageError
from ..run.child import caller_environment, restore_signals
from ..run.uri import SHELL, Command, decode_command, encode, show
from ..run.words import find_program
from ..version import VERSION

HELP = f"""Usage: uriexec [OPTIONS] COMMAND...
       uriexec --encode WORDS...

  Decode a command and become it.

  Each %XX of the command's words is the byte of that number, each + is a
  space; other % stay as they are. The words, with a space between, are what
  the shell gets. So a command passes unchanged through any number of shells:
  encode it with --encode, or with URI::Escape.

Options:
  --cd FOLDER    Go to this folder first. URI-encoded.
  --shell WORDS  What is executed with the command as its last word; if empty,
                 the command's words are executed themselves. URI-encoded.
                 [default: {SHELL.decode()}]
  --show         Execute nothing; print what would be, with the commands of
                 uriexecs within it below, a level deeper each. For people.
  --encode       Execute nothing; print the words, encoded.
  --version      Show the version and exit.
  --help         Show this message and exit.

  Other exit codes than the command's: 64 the command line is wrong, 126 the
  command can't be executed, 127 there is no such command.

  Example: uriexec --cd /tmp echo %24HOME

  Version: {VERSION}"""

_FLAGS = ("--show", "--encode", "--version", "--help")
_WITH_VALUE = ("--cd", "--shell")


class _CannotExecute(IpclockerError):
    def __init__(self, text: str, code: int = CANNOT_EXECUTE) -> None:
        super().__init__(text)
        self.exit_code = code


def main(words: list[str]) -> int:
    """Do what the command line says; the exit code, if it is not to become a command."""
    options, rest = _options(words)
    if "--help" in options:
        print(HELP)
        return OK
    if "--version" in options:
        print(f"Version: {VERSION}")
        return OK
    if not rest:
        raise UsageError("the command is missing: give it after the options; see uriexec --help")
    encoded = [os.fsencode(word) for word in rest]
    if "--encode" in options:
        _print(encode(encoded))
        return OK
    folder = os.fsencode(options["--cd"]) if "--cd" in options else None
    command = decode_command(encoded, os.fsencode(options.get("--shell", os.fsdecode(SHELL))), folder)
    if "--show" in options:
        for line in show(command):
            _print(line)
    else:
        _become(command)
    return OK


def _options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options before the first word that is none, and the words from there on. Raises UsageError."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name in _WITH_VALUE:
            if not equals:
                if not rest:
                    raise UsageError(f"option '{name}' requires an argument; see uriexec --help")
                value = rest.pop(0)
        elif name not in _FLAGS or equals:
            raise UsageError(f"there is no option '{word}'; see uriexec --help")
        options[name] = value
    return options, rest


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")


def _become(command: Command) -> NoReturn:
    environment = caller_environment()
    restore_signals()
    words = [os.fsdecode(word) for word in command.argv()]
    if any("\0" in word for word in words):
        raise UsageError("the command has a null byte (%00), which no word of a command can hold")
    if command.folder is not None:
        try:
            os.chdir(command.folder)
        except (OSError, ValueError) as problem:
            why = getattr(problem, "strerror", None) or problem
            raise _CannotExecute(f"cannot change to the folder '{os.fsdecode(command.folder)}': {why}") from None
    program = find_program(words[0], environment)
    try:
        if program is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        os.execve(program, words, environment)
    except OSError as problem:
        code = NOT_FOUND if problem.errno == errno.ENOENT else CANNOT_EXECUTE
        raise _CannotExecute(f"cannot execute '{words[0]}': {problem.strerror}", code) from None

"""uriexec: run a command that was encoded to pass through shells. It starts often, so its few options are read here."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

from ..errors import CANNOT_EXECUTE, NOT_FOUND, OK, IpclockerError, UsageError
from ..process.command_line import find_program
from ..process.spawn import caller_environment, restore_signals
from ..run.uri_command import SHELL, DecodedCommand, decode_command, encode, show
from ..version import VERSION

# As they are declared in uriexec_help.py.
FLAGS = ("--show", "--encode", "--version", "--help")
WITH_VALUE = ("--cd", "--shell")


class _CannotExecute(IpclockerError):
    def __init__(self, text: str, code: int = CANNOT_EXECUTE) -> None:
        super().__init__(text)
        self.exit_code = code


def main(words: list[str]) -> int:
    """Do what the command line says; the exit code, if it is not to become a command."""
    options, rest = _options(words)
    if "--help" in options:
        from .uriexec_help import show_help

        show_help()
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
        if name in WITH_VALUE:
            if not equals:
                if not rest:
                    raise UsageError(f"option '{name}' requires an argument; see uriexec --help")
                value = rest.pop(0)
        elif name not in FLAGS or equals:
            raise UsageError(f"there is no option '{word}'; see uriexec --help")
        options[name] = value
    return options, rest


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")


def _become(command: DecodedCommand) -> NoReturn:
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

"""uriexec: run a command that was encoded to pass through shells."""

from __future__ import annotations

import os
import sys

from ..errors import CANNOT_EXECUTE, OK, IpclockerError, UsageError
from ..process.command_line import find_program
from ..process.spawn import become, caller_environment, restore_signals
from ..run.uri_command import SHELL, DecodedCommand, decode_command, encode, show
from .command_line import CommandLine, argument, flag, option


class Uriexec(CommandLine, name="uriexec", example="uriexec --cd /tmp echo %24HOME"):
    """Decode a command and become it.

    Each %XX of the command's words is the byte of that number, each + is a space; other % stay as they are. The words,
    with a space between, are what the shell gets. So a command passes unchanged through any number of shells: encode
    it with --encode, or with URI::Escape.

    Other exit codes than the command's: 64 the command line is wrong, 126 the command can't be executed, 127 there is
    no such command.
    """

    command: list[str] = argument(
        "COMMAND...", "The command's words, URI-encoded; with --encode, as they are.", many=True, required=True
    )
    cd: str | None = option("Go to this folder first. URI-encoded.", value="FOLDER")
    shell: str = option(
        "What is executed with the command as its last word; if empty, the command's words are executed themselves. "
        "URI-encoded.",
        value="WORDS",
        default=SHELL.decode(),
    )
    show: bool = flag(
        "Execute nothing; print what would be, with the commands of uriexecs within it below, a level deeper each. For "
        "people."
    )
    encode: bool = flag("Execute nothing; print the words, encoded.")

    def run(self) -> int:
        """Do what the command line says; the exit code, if it is not to become a command."""
        encoded = [os.fsencode(word) for word in self.command]
        if self.encode:
            _print(encode(encoded))
            return OK
        folder = None if self.cd is None else os.fsencode(self.cd)
        command = decode_command(encoded, os.fsencode(self.shell), folder)
        if self.show:
            for line in show(command):
                _print(line)
            return OK
        return _become(command)


def _print(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")


def _become(command: DecodedCommand) -> int:
    """Execute the command; the exit code if that fails."""
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
            text = f"cannot change to the folder '{os.fsdecode(command.folder)}': {why}"
            raise IpclockerError(text, CANNOT_EXECUTE) from None
    return become("uriexec", find_program(words[0], environment), words, None, environment)


COMMAND_LINES = (Uriexec,)

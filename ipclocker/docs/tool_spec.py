"""The tools as data: what their command lines take, and what is said about it. No command line library is behind it."""

from __future__ import annotations

from typing import NamedTuple

FAMILY = "ipclocker"  # the name of the whole
# Tools that go by no name of their own: hosts have other programs of these names, and other pages and completions.
UNLINKED = frozenset({"doctor", "man", "units"})


class Argument(NamedTuple):
    """A word, or words, that are no option: what stands for it, and its help."""

    word: str
    help: str


class Option(NamedTuple):
    """An option: its names, the short ones first; what stands for its value, if it has one; its help, default
    included; the words that its value may be, if there are only these."""

    names: tuple[str, ...]
    value: str
    help: str
    choices: tuple[str, ...] = ()


class Command(NamedTuple):
    """A command line: the words it begins with, what comes behind them, and paragraphs of text."""

    name: str
    usage: str
    text: str
    arguments: tuple[Argument, ...]
    options: tuple[Option, ...]
    example: str


class Tool(NamedTuple):
    """A tool: its name, what it does in a line, its command line, its sub-commands (with names of two words), and
    texts with titles, to be shown as they are."""

    name: str
    what: str
    command: Command
    subcommands: tuple[Command, ...] = ()
    sections: tuple[tuple[str, str], ...] = ()

    @property
    def command_lines(self) -> tuple[Command, ...]:
        """All that can be run: a command without a text is only the first word of sub-commands."""
        return (self.command, *self.subcommands) if self.command.text else self.subcommands


def called(tool: str) -> str:
    """The words that a tool is called by."""
    return f"{FAMILY} {tool}" if tool in UNLINKED else tool


def page_name(tool: str) -> str:
    """The name of a tool's manual page."""
    return called(tool).replace(" ", "-")

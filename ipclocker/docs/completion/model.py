"""The model of the command lines, of which the shells' completion scripts are made: a node for each tool and command.

The scripts are static: they know all options and sub-commands, and start nothing of ours when TAB is pressed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..tool_spec import FAMILY, UNLINKED, Command, Option, Tool

SHELLS = ("bash", "zsh", "fish")
# Kinds of words: one that no shell can know; those that shells know themselves; one of a list of words.
NOTHING, FILE, FOLDER, HOST = "nothing", "file", "folder", "host"
PROGRAM, COMMAND, WORDS = "program", "command", "words"


class Kind(NamedTuple):
    """The kind of a word; for WORDS with the list of words that it may be."""

    name: str
    words: tuple[str, ...] = ()


_SIGNALS = ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP")
_BY_PLACEHOLDER = {
    "SIGNAL": Kind(WORDS, _SIGNALS),
    "FOLDER": Kind(FOLDER),
    "HOST": Kind(HOST),
    "PROGRAM": Kind(PROGRAM),
    "COMMAND": Kind(PROGRAM),
    "FILE": Kind(FILE),
    "SHELL": Kind(WORDS, SHELLS),
}


class Node(NamedTuple):
    """A command line: the words that it begins with ("lockstat show"), its options and its arguments.

    `subcommands` are those that may be its first argument, each with what it does; `rest` is the kind of the others.
    """

    name: str
    options: tuple[Option, ...]
    subcommands: tuple[tuple[str, str], ...]
    rest: Kind

    @property
    def identifier(self) -> str:
        """The name in the form that a shell's function may have."""
        return re.sub(r"\W", "_", self.name)


def nodes(family: Tool, tools: Iterable[Tool]) -> list[Node]:
    """Make the nodes of the whole, whose sub-commands are the tools, of the tools, and of their sub-commands."""
    tools = list(tools)
    names = tuple(tool.name for tool in tools)
    found = [Node(FAMILY, family.command.options, tuple((tool.name, tool.what) for tool in tools), Kind(NOTHING))]
    for tool in tools:
        first = tuple((command.name.split()[-1], _first_sentence(command.text)) for command in tool.subcommands)
        found.append(Node(tool.name, tool.command.options, first, _rest(tool.command, names)))
        found += [Node(command.name, command.options, (), _rest(command, names)) for command in tool.subcommands]
    return found


def linked(found: Iterable[Node]) -> list[str]:
    """Return the names that programs may have: of the whole, and of the tools that are called by their own names."""
    return [node.name for node in found if " " not in node.name and node.name not in UNLINKED]


def kind_of(option: Option) -> Kind | None:
    """Find the kind of an option's value, by its placeholder and its name; None if it has no value."""
    if not option.value:
        return None
    if option.choices:
        return Kind(WORDS, option.choices)
    placeholder = option.value.strip("[]")
    if "|" in placeholder:
        return Kind(WORDS, tuple(word for word in placeholder.split("|") if word.islower()))
    if placeholder in _BY_PLACEHOLDER:
        return _BY_PLACEHOLDER[placeholder]
    if {"--host", "--dhost"} & set(option.names):
        return Kind(HOST)
    if any(name.endswith("-dir") for name in option.names):
        return Kind(FOLDER)
    if placeholder == "TEXT" and re.search(r"\b(file|socket|write|log) ?", option.text, re.IGNORECASE):
        return Kind(FILE)
    return Kind(NOTHING)


def _rest(command: Command, tools: tuple[str, ...]) -> Kind:
    """Find the kind of a command's arguments, by their placeholder in its usage."""
    if not command.arguments:
        return Kind(NOTHING)
    word = command.arguments[0].word
    if "COMMAND" in word:
        return Kind(COMMAND)
    if "TOOL" in word:
        return Kind(WORDS, tools)
    exact = tuple(re.findall(r"\b[a-z]+\b", word))
    if exact:
        return Kind(WORDS, exact)
    return Kind(NOTHING) if re.search(r"\b(NAME|NAMES|PID|TOKEN)\b", word) else Kind(FILE)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"[.:](?: |$)", paragraph)[0]

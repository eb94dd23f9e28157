"""Manual pages, made of what the tools declare (tool_spec.py): the sections of a page, and the contents of each.

A page is data. roff.py writes it for man and for packagers, plain_text.py for hosts without man.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Union

from .exit_codes import exit_codes
from .tool_spec import FAMILY, Command, Option, Tool, page_name


class Paragraph(NamedTuple):
    """Text that is filled; words between backquotes are to be typed as they are."""

    text: str


class Tagged(NamedTuple):
    """A term, such as an option, and its meaning."""

    term: str
    text: str


class Literal(NamedTuple):
    """A block of lines that are shown as they are."""

    text: str


class Heading(NamedTuple):
    """The title of a part of a section."""

    text: str


Block = Union[Paragraph, Tagged, Literal, Heading]


class Page(NamedTuple):
    """A manual page: its name, the version of the tools, and the sections, each a title and blocks."""

    name: str
    version: str
    sections: tuple[tuple[str, tuple[Block, ...]], ...]


class Reference(NamedTuple):
    """A variable of the environment or a file: its meaning, and the tools on whose pages it is.

    These are the tools whose texts have its name, or the text `where`; "" for `where` is in all of them.
    """

    meaning: str
    where: str | None = None


ENVIRONMENT = {
    "IPCLOCKER_HOST": Reference(
        "Where lockerd is, unless an option says it: a host, or [HOST]:PORT, or several with colons between."
    ),
    "IPCLOCKER_PORT": Reference(
        "Port number or service name of lockerd, or the name of its UNIX socket, unless an option says it."
    ),
    "IPCLOCKER_LOCK": Reference("Set for the command: the name of the lock that was granted."),
    "IPCLOCKER_TOKEN": Reference("Set for the command: the number of the grant, which grows with each."),
    "IPCLOCKER_SPACE": Reference(
        "Set for the command: the identity of the lock space in which the lock was granted, which all servers of that "
        "space share; of a classic server HOST:PORT or the path of its UNIX socket. With the two before it says to a "
        "lockersh within the command under which lock it runs."
    ),
    "IPCLOCKER_PROGRAM": Reference("Set for a program that is kept alive: its name."),
    "IPCLOCKER_ETCD": Reference("The etcd that lockerd keeps its locks in, unless --etcd says it."),
    **{
        f"IPCLOCKER_ETCD_{name.upper().replace('-', '_')}": Reference(f"The same for --etcd-{name}.")
        for name in ("prefix", "cacert", "cert", "key", "user", "password-file")
    },
    "STATE_DIRECTORY": Reference("The state folder, as systemd sets it, unless an option says it.", "state folder"),
    "XDG_STATE_HOME": Reference("For other users than root: below it is the state folder.", "state folder"),
    "IPCLOCKER_CACHE": Reference("Below it the compiled modules are kept, which must be a folder of the user.", ""),
    "IPCLOCKER_PYTHON": Reference("The interpreter to be used where /usr/bin/python3 is too old.", ""),
    "IPCLOCKER_DEBUG": Reference("If it is set, a fault of ours shows where it was.", ""),
}
FILES = {
    "/etc/services": Reference(
        "Where service names, and the ports of lockerd and pidstatd, are looked up.", "the service "
    ),
    "/var/lib/ipclocker": Reference("The state folder of servers that root runs.", "state folder"),
    "~/.local/state/ipclocker": Reference("The state folder of any other user.", "state folder"),
    "/var/cache/ipclocker-0": Reference("The compiled modules, of root."),
    "/var/tmp/ipclocker-UID": Reference(
        "The same of any other user; or in /run/user/UID or /tmp, if it can't be there."
    ),
}


def manual_page(tool: Tool, version: str, tools: dict[str, str]) -> Page:
    """Make the page of a tool, or of the whole; `tools` has all tools with a line on what each does."""
    command = tool.command
    commands = tool.command_lines
    shared = _shared_options(tool)
    sections: list[tuple[str, Sequence[Block]]] = [
        ("NAME", [Paragraph(f"{page_name(tool.name)} - {tool.what}")]),
        ("SYNOPSIS", [Literal("\n".join(f"{each.name} {each.usage}".strip() for each in commands))]),
        ("DESCRIPTION", _paragraphs(command.text or f"{tool.what[:1].upper()}{tool.what[1:]}.")),
        ("TOOLS", [Tagged(f"`{name}`", what) for name, what in tools.items()] if tool.name == FAMILY else []),
        ("COMMANDS", [block for each in tool.subcommands for block in _subcommand(each, shared)]),
        ("ARGUMENTS", [Tagged(argument.word, argument.text) for argument in command.arguments]),
        ("OPTIONS", [_option(option) for option in shared]),
        *((title.upper(), [Literal(text.strip("\n"))]) for title, text in tool.sections),
        ("EXIT STATUS", [Tagged(code, meaning) for code, meaning in exit_codes(tool.name)]),
        ("ENVIRONMENT", _references(ENVIRONMENT, tool)),
        ("FILES", _references(FILES, tool)),
        ("EXAMPLES", [Literal("\n".join(dict.fromkeys(each.example for each in commands)))]),
        ("SEE ALSO", [Paragraph(", ".join(f"{page_name(name)}(1)" for name in [FAMILY, *tools] if name != tool.name))]),
    ]
    return Page(page_name(tool.name), version, tuple((title, tuple(blocks)) for title, blocks in sections if blocks))


def _shared_options(tool: Tool) -> list[Option]:
    """Return the options of a tool; if it has only sub-commands, the options that all of them have."""
    if tool.command.text:
        return list(tool.command.options)
    first, *others = tool.subcommands
    shared = [option for option in first.options if all(option in other.options for other in others)]
    own = [option for option in tool.command.options if option not in shared]
    return [*own, *shared]


def _subcommand(command: Command, shared: list[Option]) -> Iterable[Block]:
    yield Heading(command.name)
    yield from _paragraphs(command.text)
    yield from (Tagged(argument.word, argument.text) for argument in command.arguments)
    yield from (_option(option) for option in command.options if option not in shared)


def _paragraphs(text: str) -> list[Block]:
    """Split a docstring into paragraphs; one with click's mark for lines as they are (a backspace) is literal."""
    parts = [part.strip("\n") for part in text.split("\n\n") if part.strip()]
    return [Literal(part[2:]) if part.startswith("\b\n") else Paragraph(" ".join(part.split())) for part in parts]


def _option(option: Option) -> Tagged:
    return Tagged(f"{', '.join(f'`{name}`' for name in option.names)} {option.value}".strip(), option.text)


def _references(table: dict[str, Reference], tool: Tool) -> list[Tagged]:
    """Select the references for a tool's page; the page of the whole has all of them."""
    said = repr(tool)
    return [
        Tagged(name, reference.meaning)
        for name, reference in table.items()
        if tool.name == FAMILY
        or re.search(rf"{re.escape(name)}\b(?!/)", said)
        or (reference.where is not None and reference.where in said)
    ]

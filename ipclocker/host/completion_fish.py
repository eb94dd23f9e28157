"""The completion script for fish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .completion import COMMAND, FILE, FOLDER, HOST, NOTHING, PROGRAM, Kind, Node, kind_of
from .described import FAMILY, UNLINKED

_VALUES = {
    FOLDER: "(__fish_complete_directories)",
    HOST: "(__fish_print_hostnames)",
    PROGRAM: "(__fish_complete_command)",
}


def fish_script(found: Sequence[Node]) -> str:
    """What fish is to read."""
    lines = ["# Completion for fish, made by: ipclocker --show-completion fish", *_family(found)]
    for node in found[1:]:
        words = node.name.split()
        if words[0] not in UNLINKED:
            lines += _lines(node, words[0], words[1:], found)
        lines += _lines(node, FAMILY, words, found)
    return "\n".join(lines) + "\n"


def _family(found: Sequence[Node]) -> Iterator[str]:
    """Nothing is a file where nothing is said to be one."""
    for name in dict.fromkeys(node.name.split()[0] for node in found):
        if name not in UNLINKED:
            yield f"complete -c {name} -f"
    yield from _lines(found[0], FAMILY, [], found)


def _lines(node: Node, program: str, before: list[str], found: Sequence[Node]) -> Iterator[str]:
    """The lines for a command line that begins with a program and some sub-commands."""
    subcommands = [word for word, _ in node.subcommands]
    conditions = [f"__fish_seen_subcommand_from {word}" for word in before]
    inside = "; and ".join(
        [*conditions, *([f"not __fish_seen_subcommand_from {' '.join(subcommands)}"] * bool(subcommands))]
    )
    start = f"complete -c {program}" + (f" -n {_quoted(inside)}" if inside else "")
    for word, what in node.subcommands:
        yield f"{start} -x -a {word} -d {_quoted(what)}"
    for option in node.options:
        kind = kind_of(option)
        names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
        yield f"{start} {names}{_value(kind)} -d {_quoted(' '.join(option.help.split()))}"
    if node.rest.name == COMMAND:
        with_value = " ".join(name for option in node.options if kind_of(option) for name in option.names)
        skipped = 1 + len(before)
        yield f"{start} -x -a {_quoted(f'(__fish_complete_subcommand --fcs-skip={skipped} -- {with_value})')}"
    elif node.rest.name == FILE:
        yield f"{start} -F"
    elif node.rest.words:
        yield f"{start} -x -a {_quoted(' '.join(node.rest.words))}"


def _value(kind: Kind | None) -> str:
    if kind is None:
        return ""
    if kind.name == FILE:
        return " -r -F"
    if kind.name == NOTHING:
        return " -x"
    return f" -x -a {_quoted(' '.join(kind.words) if kind.words else _VALUES[kind.name])}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

"""The completion script for zsh: a function for each command line, made of what _arguments takes (zshcompsys(1))."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..tool_spec import Option
from .model import COMMAND, FILE, FOLDER, HOST, NOTHING, PROGRAM, Kind, Node, kind_of, linked

_ACTIONS = {
    NOTHING: "()",  # not a blank: with that, options behind a word are not completed
    FILE: "_files",
    FOLDER: "_files -/",
    HOST: "_hosts",
    PROGRAM: "_command_names",
    COMMAND: "_normal",
}


def zsh_script(found: Sequence[Node]) -> str:
    """Write the script for zsh, for a file _ipclocker in a folder of its fpath."""
    names = linked(found)
    functions = "\n".join(_function(node, found) for node in found)
    return (
        f"#compdef {' '.join(names)}\n"
        "# Completion for zsh, made by: ipclocker --show-completion zsh\n\n"
        f"{functions}\n"
        "case $service in\n"
        + "".join(f"{name}) _ipclocker_of_{name.replace('-', '_')} ;;\n" for name in names)
        + "esac\n"
    )


def _function(node: Node, found: Sequence[Node]) -> str:
    specs = [spec for option in node.options for spec in _option(option)]
    if not node.subcommands:
        # Where a command begins, options end.
        ends = "-A '-*' " if node.rest.name == COMMAND else ""
        return _body(node, f"    _arguments {ends}{_lines([*specs, _rest(node)])}\n")
    whole = "" if node.name == "ipclocker" else f"{node.name} "
    cases = "".join(
        f"        {word}) _ipclocker_of_{other.identifier} ;;\n"
        for word, _ in node.subcommands
        for other in found
        if other.name == f"{whole}{word}"
    )
    described = " ".join(_quoted(f"{word}:{what}") for word, what in node.subcommands)
    return _body(
        node,
        "    local context state state_descr line\n    typeset -A opt_args\n"
        f"    local -a subcommands=({described})\n"
        f"    _arguments -C -A '-*' {_lines([*specs, _quoted('1: :->first'), _quoted('*:: :->rest')])}\n"
        "    case $state in\n"
        "    first) _describe -t commands command subcommands ;;\n"
        f"    rest)\n        case $line[1] in\n{cases}        esac\n        ;;\n    esac\n",
    )


def _body(node: Node, body: str) -> str:
    return f"_ipclocker_of_{node.identifier}() {{\n{body}}}\n"


def _lines(specs: list[str]) -> str:
    return "".join(f" \\\n        {spec}" for spec in specs).lstrip()


def _option(option: Option) -> list[str]:
    kind = kind_of(option)
    text = re.sub(r"([\\\[\]:])", r"\\\1", " ".join(option.text.split()))
    value = "" if kind is None else f":{re.sub(r'[^A-Za-z ]', ' ', option.value)}:{_action(kind)}"
    written = [name if kind is None else f"{name}=" if name.startswith("--") else f"{name}+" for name in option.names]
    return [_quoted(f"*{name}[{text}]{value}") for name in written]


def _rest(node: Node) -> str:
    return _quoted(f"*::command:{_action(node.rest)}" if node.rest.name == COMMAND else f"*:word:{_action(node.rest)}")


def _action(kind: Kind) -> str:
    return f"({' '.join(kind.words)})" if kind.words else _ACTIONS[kind.name]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"

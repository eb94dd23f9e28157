"""The completion script for bash."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from .completion import Kind, Node, kind_of, linked

_HEAD = """\
# Completion for bash, made by: ipclocker --show-completion bash

# What there is for the command line $1, and what the value of its option $2 may be.
_ipclocker_about() {
    subcommands= options= rest=nothing value=
    case $1 in
"""

_TAIL = r"""    esac
}

# Completes $2, which is of the kind $1: a kind, or words with "words:" before them.
_ipclocker_word() {
    local line
    COMPREPLY=()
    case $1 in
    nothing) return ;;
    file | command) set -- -f "$2"; compopt -o filenames 2>/dev/null ;;
    folder) set -- -d "$2"; compopt -o filenames 2>/dev/null ;;
    host) set -- -A hostname "$2" ;;
    program) set -- -c "$2" ;;
    words:*) set -- -W "${1#words:}" "$2" ;;
    esac
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen "${@:1:$#-1}" -- "${!#}")
}

# Completes the word at COMP_CWORD of a command that begins at $1.
_ipclocker_command() {
    if declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif ((COMP_CWORD == $1)); then
        _ipclocker_word program "${COMP_WORDS[COMP_CWORD]}"
    else
        _ipclocker_word file "${COMP_WORDS[COMP_CWORD]}"
    fi
}

_ipclocker() {
    local current=${COMP_WORDS[COMP_CWORD]} node=${COMP_WORDS[0]##*/} pending= place word words=0 ended=
    local subcommands options rest value
    _ipclocker_about "$node" ''
    for ((place = 1; place < COMP_CWORD; place++)); do
        word=${COMP_WORDS[place]}
        if [[ $pending ]]; then
            [[ $word == '=' ]] || pending=
        elif [[ $word == -- && ! $ended ]]; then
            ended=1
        elif [[ $word == -?* && ! $ended ]]; then
            _ipclocker_about "$node" "$word"
            pending=$value
        elif [[ $words == 0 && " $subcommands " == *" $word "* ]]; then
            if [[ $node == ipclocker ]]; then node=$word; else node="$node $word"; fi
            _ipclocker_about "$node" ''
        elif [[ $rest == command ]]; then
            _ipclocker_command "$place"
            return
        else
            words=1
        fi
    done
    if [[ $pending ]]; then
        [[ $current == '=' ]] && current=
        _ipclocker_word "$pending" "$current"
    elif [[ $current == -* && ! $ended ]]; then
        _ipclocker_word "words:$options" "$current"
    elif [[ $words == 0 && $subcommands ]]; then
        _ipclocker_word "words:$subcommands" "$current"
    elif [[ $rest == command ]]; then
        _ipclocker_command "$COMP_CWORD"
    else
        _ipclocker_word "$rest" "$current"
    fi
}

"""


def bash_script(found: Sequence[Node]) -> str:
    """What bash is to read."""
    about = "".join(_about(node) for node in found)
    return f"{_HEAD}{about}{_TAIL}complete -F _ipclocker {' '.join(linked(found))}\n"


def _about(node: Node) -> str:
    lines = [f"    {shlex.quote(node.name)})"]
    if node.subcommands:
        lines.append(f"        subcommands={shlex.quote(' '.join(word for word, _ in node.subcommands))}")
    names = " ".join(name for option in node.options for name in option.names)
    lines.append(f"        options={shlex.quote(names)} rest={shlex.quote(_written(node.rest))}")
    lines.append("        case $2 in")
    for option in node.options:
        kind = kind_of(option)
        if kind is not None:
            lines.append(f"        {' | '.join(option.names)}) value={shlex.quote(_written(kind))} ;;")
    return "\n".join([*lines, "        esac", "        ;;", ""])


def _written(kind: Kind) -> str:
    return f"words:{' '.join(kind.words)}" if kind.words else kind.name

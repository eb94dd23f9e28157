"""The completion script for bash."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from .model import Kind, Node, kind_of, linked

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
    host) set -- -A hostname "${2##*:}" ;;
    program) set -- -c "$2" ;;
    words:*) set -- -W "${1#words:}" "$2" ;;
    esac
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen "${@:1:$#-1}" -- "${!#}")
}

# Completes a word of a command that begins at bash's word $1; $2 is what there is of it.
_ipclocker_command() {
    local function
    for function in _comp_command_offset _command_offset; do
        if declare -F $function >/dev/null; then
            $function "$1"
            return
        fi
    done
    if ((COMP_CWORD == $1)); then
        _ipclocker_word program "$2"
    else
        _ipclocker_word file "$2"
    fi
}

_ipclocker() {
    local node=${COMP_WORDS[0]##*/} rest_of_line=$COMP_LINE current pending= place word words=0 ended=
    local subcommands options rest value
    local -a typed=() starts=()
    # bash has split words at = and :, which is undone; what was put in quotes is one word, quotes and all.
    for ((place = 0; place <= COMP_CWORD; place++)); do
        word=${COMP_WORDS[place]}
        if [[ $place != 0 && $word && $rest_of_line == "$word"* ]]; then
            typed[${#typed[@]} - 1]+=$word
        else
            starts+=("$place")
            typed+=("$word")
        fi
        rest_of_line=${rest_of_line#*"$word"}
    done
    current=${typed[${#typed[@]} - 1]}
    _ipclocker_about "$node" ''
    for ((place = 1; place < ${#typed[@]} - 1; place++)); do
        word=${typed[place]}
        if [[ $pending ]]; then
            pending=
        elif [[ $word == -- && ! $ended ]]; then
            ended=1
        elif [[ $word == -?* && ! $ended ]]; then
            _ipclocker_about "$node" "$word"
            pending=$value
        elif [[ $words == 0 && " $subcommands " == *" $word "* ]]; then
            if [[ $node == ipclocker ]]; then node=$word; else node="$node $word"; fi
            _ipclocker_about "$node" ''
        elif [[ $rest == command ]]; then
            _ipclocker_command "${starts[place]}" "$current"
            return
        else
            words=1
        fi
    done
    if [[ $pending ]]; then
        _ipclocker_word "$pending" "$current"
    elif [[ $current == -*=* && ! $ended ]]; then
        _ipclocker_about "$node" "${current%%=*}"
        current=${current#*=}
        _ipclocker_word "${value:-nothing}" "$current"
    elif [[ $current == -* && ! $ended ]]; then
        _ipclocker_word "words:$options" "$current"
    elif [[ $words == 0 && $subcommands ]]; then
        _ipclocker_word "words:$subcommands" "$current"
    elif [[ $rest == command ]]; then
        _ipclocker_command "${starts[place]}" "$current"
        return
    else
        _ipclocker_word "$rest" "$current"
    fi
    # What bash replaces begins behind the last colon.
    COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
}

"""


def bash_script(found: Sequence[Node]) -> str:
    """Write the script for bash."""
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

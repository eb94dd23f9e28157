"""The completion script for fish: one function for all names, and tables of what stands behind each.

fish's own conditions know whether a word is somewhere on the line, not whether it is a tool, an option's value, or a
word of the command that a tool is to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..tool_spec import FAMILY
from .model import Kind, Node, kind_of, linked

_SCRIPT = r"""# Completion for fish, made by: ipclocker --show-completion fish

# The options of a command line, each with the kind of its value behind a =, and what it is for.
function __ipclocker_options
    switch $argv[1]
{options}
    end
end

function __ipclocker_subcommands
    switch $argv[1]
{subcommands}
    end
end

# What the other words of a command line are.
function __ipclocker_rest
    switch $argv[1]
{rest}
    end
end

# The kind of the value of option $argv[2].
function __ipclocker_value
    for option in (__ipclocker_options $argv[1] | string replace -r '\t.*' '')
        if string match -q -- '*=*' $option; and test (string replace -r '=.*' '' -- $option) = $argv[2]
            string replace -r '^[^=]*=' '' -- $option
        end
    end
end

# What a word of a kind may be of which there is $argv[2].
function __ipclocker_word
    switch $argv[1]
        case nothing
        case file
            __fish_complete_path $argv[2]
        case folder
            __fish_complete_directories $argv[2]
        case host
            __fish_print_hostnames
        case program command
            complete -C $argv[2]
        case '*'
            string split -n ' ' -- $argv[1]
    end
end

function __ipclocker
    set -l typed (commandline -opc)
    set -l current (commandline -ct)
    set -l node (string replace -r '.*/' '' -- $typed[1])
    set -l ended
    set -l words 0
    set -l place 2
    while test $place -le (count $typed)
        set -l word $typed[$place]
        set -l rest (__ipclocker_rest $node)
        if test "$word" = --; and test -z "$ended"
            set ended 1
        else if string match -q -- '-?*' $word; and test -z "$ended"
            set -l kind (__ipclocker_value $node $word)
            if test -n "$kind"
                set place (math $place + 1)
                if test $place -gt (count $typed)
                    __ipclocker_word $kind $current
                    return
                end
            end
        else if test $words = 0; and contains -- $word (__ipclocker_subcommands $node | string replace -r '\t.*' '')
            if test $node = {family}
                set node $word
            else
                set node "$node $word"
            end
        else if test "$rest" = command
            complete -C (string join ' ' -- (string escape -- $typed[$place..-1]) $current)
            return
        else
            set words 1
        end
        set place (math $place + 1)
    end
    if string match -q -- '-*=*' $current; and test -z "$ended"
        set -l name (string replace -r '=.*' '' -- $current)
        set -l value (string replace -r '^[^=]*=' '' -- $current)
        set -l kind (__ipclocker_value $node $name)
        test -n "$kind"
        and __ipclocker_word $kind $value | string replace -r '^' -- $name=
    else if string match -q -- '-*' $current; and test -z "$ended"
        __ipclocker_options $node | string replace -r '^([^=\t]*)=[^\t]*' '$1'
    else
        test $words = 0
        and __ipclocker_subcommands $node
        __ipclocker_word (__ipclocker_rest $node) $current
    end
end

for name in {names}
    complete -c $name -f -a '(__ipclocker)'
end
"""


def fish_script(found: Sequence[Node]) -> str:
    """Write the script for fish."""
    options: list[str] = []
    subcommands: list[str] = []
    rest: list[str] = []
    for node in found:
        options += _case(node, _options(node))
        subcommands += _case(node, node.subcommands)
        rest += [f"        case {_quoted(node.name)}", f"            echo {_quoted(_written(node.rest))}"]
    return _SCRIPT.format(
        options="\n".join(options),
        subcommands="\n".join(subcommands),
        rest="\n".join(rest),
        family=FAMILY,
        names=" ".join(linked(found)),
    )


def _case(node: Node, rows: Iterable[tuple[str, str]]) -> list[str]:
    printed = [f"            printf '%s\\t%s\\n' {_quoted(name)} {_quoted(text)}" for name, text in rows]
    return [f"        case {_quoted(node.name)}", *printed] if printed else []


def _options(node: Node) -> Iterable[tuple[str, str]]:
    for option in node.options:
        kind = kind_of(option)
        for name in option.names:
            yield name if kind is None else f"{name}={_written(kind)}", " ".join(option.text.split())


def _written(kind: Kind) -> str:
    return " ".join(kind.words) if kind.words else kind.name


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

"""Reads command lines that are well formed, without typer, whose import takes longer than most of our tools run.

typer is the reference (typer_support.py). Of a line this reader either finds the same, or it declines, and typer
reads it. It declines all that it is not sure of: unknown options, --help and --version, clusters of short options,
values that are wrong or written in an unusual way, words that are missing or too many.
"""

from __future__ import annotations

from typing import Any

from ..docs.tool_spec import Argument, Command, Option
from ..errors import UsageError

_LONGEST_NUMBER = 18  # digits; some Pythons take no number of more than 4300


class _Declined(Exception):
    """The line is for typer."""


def read_quickly(command: Command, words: list[str]) -> dict[str, Any] | None:
    """The values of options and words by their attributes; None if typer is to read the line."""
    try:
        given, others, dashes = _split(command, words)
        values = {option.attribute: _value(option, given) for option in command.options if option.attribute}
        values.update(_arguments(command.arguments, others))
        values.update({argument.dashes: dashes for argument in command.arguments if argument.dashes})
    except _Declined:
        return None
    return values


def _split(command: Command, words: list[str]) -> tuple[dict[str, list[tuple[str, str]]], list[str], bool]:
    """The options that are given, each a list of its names and values as they came, by attributes; other words.

    With them, whether `--` ended the options.
    """
    options = {name: option for option in command.options if option.attribute for name in option.names}
    given: dict[str, list[tuple[str, str]]] = {}
    others: list[str] = []
    dashes = False
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            dashes = True
            break
        if word[:1] != "-" or word == "-":
            others.append(word)
            if not command.interspersed:
                break
            continue
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is None or (equals and not (option.value and name.startswith("--"))):
            raise _Declined
        if option.value and not equals:
            if not rest:
                raise _Declined
            value = rest.pop()
        given.setdefault(option.attribute, []).append((name, value))
    return given, [*others, *reversed(rest)], dashes


def _value(option: Option, given: dict[str, list[tuple[str, str]]]) -> Any:
    found = given.get(option.attribute, [])
    if option.many:
        return [_read(option, text) for _, text in found]
    if not found:
        return option.read(option.default) if isinstance(option.default, str) else option.default
    name, text = found[-1]
    if not option.value:
        return not option.default or name == option.names[0]
    return _read(option, text)


def _read(option: Option, text: str) -> Any:
    if option.limits is not None:
        lowest, highest = option.limits
        if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
            raise _Declined
        if int(text) < lowest or (highest is not None and int(text) > highest):
            raise _Declined
    if option.choices and text not in option.choices:
        raise _Declined
    try:
        return option.read(text)
    except (ValueError, UsageError):
        raise _Declined from None


def _arguments(arguments: tuple[Argument, ...], words: list[str]) -> dict[str, Any]:
    """Give the words that are not options to the arguments; at most the last argument takes many."""
    values: dict[str, Any] = {}
    rest = list(words)
    for argument in arguments:
        if argument.required and not rest:
            raise _Declined
        if argument.many:
            values[argument.attribute], rest = rest, []
        else:
            values[argument.attribute] = rest.pop(0) if rest else None
    if rest:
        raise _Declined
    return values

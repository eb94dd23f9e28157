"""What each tool's command line is, as data: what its --help shows, its manual page and its completion show as well.

A tool's module (NAME_args, where there is one) has a typer function that is named after the tool, and an EXAMPLE
beside it. One that has sub-commands, too, has `declarations()`, the first of which is the tool itself. If it has
SECTIONS, titles with texts that are shown as they are, these are parts of its page.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Callable, NamedTuple, Optional

import click

from ..docs.tool_spec import FAMILY, Argument, Command, Option, Tool, called
from . import OPTIONS, SUMMARY, TOOLS


class Declaration(NamedTuple):
    """A command line: the words that it begins with, its typer function, an example.

    Without a function it is the first word of sub-commands, and `usage` is what comes behind it.
    """

    name: str
    function: Optional[Callable[..., Any]]
    example: str
    usage: str = ""


def describe(tool: str) -> Tool:
    """All that is declared about one of TOOLS, or about the whole."""
    if tool == FAMILY:
        return Tool(FAMILY, SUMMARY, _family())
    module = _module(tool)
    if hasattr(module, "declarations"):
        declared = list(module.declarations())
    else:
        declared = [Declaration(called(tool), getattr(module, tool.replace("-", "_")), module.EXAMPLE)]
    whole, *others = [_command(declaration) for declaration in declared]
    return Tool(tool, TOOLS[tool], whole, tuple(others), tuple(getattr(module, "SECTIONS", {}).items()))


def _family() -> Command:
    options = []
    for words, what in OPTIONS.items():
        name, _, value = words.partition(" ")
        options.append(Option((name,), value, what))
    text = (
        f"{SUMMARY.capitalize()}. Each tool has a page of its own, which `ipclocker man TOOL` shows, and --help. A "
        "link to this file that is named after a tool is that tool."
    )
    return Command(FAMILY, "TOOL [OPTIONS] [ARGUMENTS]", text, (), tuple(options), "ipclocker lockersh --lock a true")


def _module(tool: str) -> ModuleType:
    name = f"{__package__}.{tool.replace('-', '_')}"
    for suffix in ("_args", "_help"):
        if find_spec(name + suffix):
            return import_module(name + suffix)
    return import_module(name)


def _command(declaration: Declaration) -> Command:
    from .typer_support import command_of

    name, function, example, usage = declaration
    if function is None:
        return Command(name, usage, "", (), (_HELP, _VERSION), example)
    command = command_of(function, name, example)
    context = click.Context(command, info_name=name)
    context.help_option_names = ["--help"]
    arguments, options = [], []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:  # it is hidden
            continue
        if isinstance(parameter, click.Option):
            names = (*parameter.opts, *parameter.secondary_opts)
            value = "" if parameter.is_flag or parameter.count else _placeholder(parameter)
            options.append(
                Option(
                    tuple(sorted(names, key=lambda name: name.startswith("--"))), value, record[1], _choices(parameter)
                )
            )
        else:
            arguments.append(Argument(record[0], record[1]))
    usage = " ".join(command.collect_usage_pieces(context))
    text = inspect.cleandoc(command.help or "")
    return Command(name, usage, text, tuple(arguments), tuple(options), example)


def _placeholder(option: click.Option) -> str:
    return option.metavar or option.make_metavar()


def _choices(option: click.Option) -> tuple[str, ...]:
    return tuple(option.type.choices) if isinstance(option.type, click.Choice) else ()


_HELP = Option(("--help",), "", "Show this message and exit.")
_VERSION = Option(("--version",), "", "Show the version and exit.")

"""Descriptions of the tools as data: a tool's manual page and its completion are made of that."""

from __future__ import annotations

import inspect

from ..docs.tool_spec import FAMILY, Command, Option, Tool
from . import OPTIONS, SUMMARY, TOOLS, command_lines, module_of


def describe(tool: str) -> Tool:
    """All that is declared about one of TOOLS, or about the whole."""
    if tool == FAMILY:
        return Tool(FAMILY, SUMMARY, _family())
    whole, *others = [_shown(line.SPEC) for line in command_lines(tool)]
    sections = getattr(module_of(tool), "SECTIONS", {})
    return Tool(tool, TOOLS[tool], whole, tuple(others), tuple(sections.items()))


def _family() -> Command:
    options = []
    for words, what in OPTIONS.items():
        name, _, value = words.partition(" ")
        options.append(Option("", (name,), what, value))
    text = (
        f"{SUMMARY.capitalize()}. Each tool has a page of its own, which `ipclocker man TOOL` shows, and --help. A "
        "link to this file that is named after a tool is that tool."
    )
    example = "ipclocker lockersh --lock a -- true"
    return Command(FAMILY, "TOOL [OPTIONS] [ARGUMENTS]", text, (), tuple(options), example)


def _shown(command: Command) -> Command:
    """A declared command line as its reader sees it."""
    arguments = tuple(argument for argument in command.arguments if argument.help)
    return command._replace(text=inspect.cleandoc(command.text), arguments=arguments)

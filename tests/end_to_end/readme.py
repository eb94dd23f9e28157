"""The README taken apart: sections, paragraphs, tables, commands, blocks of code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from ipclocker.cli import TOOLS
from ipclocker.cli.tool_specs import describe
from ipclocker.docs.tool_spec import FAMILY, Command

from ..support import PROJECT

TEXT = (PROJECT / "README.md").read_text()
# Programs that stand in front of a command and run it.
_CARRIERS = re.compile(r"^ssh \w+ (?=ipclocker )")
# What is described before it is there.
COMING = {"prefork"} - set(TOOLS)
_COMING_ROW = rf"\| ({'|'.join(COMING) or '$.'}) "


class Paragraph(NamedTuple):
    """A paragraph, an item of a list, a row of a table or a block of code, and the heading that it is under."""

    heading: str
    text: str

    @property
    def is_code(self) -> bool:
        return self.text.startswith("    ")

    def tools(self) -> list[str]:
        """The tools that it speaks of: those in its heading, else those that it names, else those of its section."""
        section = " ".join(other.text for other in paragraphs() if other.heading == self.heading)
        for text in (self.heading, self.text, section):
            if named := tools_in(text):
                return named
        return []


def paragraphs() -> list[Paragraph]:
    """All that stands in the README about what is there, in its order."""
    return [one for one in _all_paragraphs() if one.heading not in COMING and not re.match(_COMING_ROW, one.text)]


def _all_paragraphs() -> Iterator[Paragraph]:
    heading = ""
    for block in re.split(r"\n\n+", TEXT.strip("\n")):
        if block.startswith("#"):
            heading = block.lstrip("# ")
        elif block.startswith("    "):
            yield Paragraph(heading, block)
        else:
            for part in re.split(r"\n(?=- |\|)", block):
                yield Paragraph(heading, part)


def code_under(heading: str) -> list[str]:
    """The blocks of code in a section, without their indentation."""
    blocks = []
    after = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    for found in re.finditer(r"(?:^    .*\n|^\n(?=    ))+", after, re.MULTILINE):
        blocks.append(re.sub(r"^    ", "", found[0].strip("\n"), flags=re.MULTILINE) + "\n")
    assert blocks, f"there is no code under '{heading}'"
    return blocks


def rows(first_column: str) -> list[list[str]]:
    """The rows of the tables whose first column has that title, as cells."""
    found = []
    for table in re.findall(rf"^\| {first_column} \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE):
        found += [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    assert found, f"there is no table of '{first_column}'"
    return found


def examples() -> dict[str, str]:
    """The example of each row of the table of tools, by the first tool there."""
    return {row[0].split(",")[0]: row[2].strip("`| ") for row in rows("tool")}


def tools_in(text: str) -> list[str]:
    """The tools that a text names."""
    return [tool for tool in TOOLS if re.search(rf"(?<![\w/-]){tool}(?![\w-])", text)]


def codes_in(text: str) -> set[int]:
    """The numbers in a text."""
    return {int(word) for word in re.findall(r"\b\d+\b", text)}


def options_in(text: str) -> set[str]:
    """The options that a text names; short ones are in commands only, where other programs have them, too."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def spans(text: str) -> list[str]:
    """The parts that are marked as code within a text."""
    return re.findall(r"`([^`]+)`", text)


def commands() -> Iterator[str]:
    """All complete commands of ours in the README; those that are to be filled in by the reader are not."""
    for paragraph in paragraphs():
        for line in paragraph.text.splitlines() if paragraph.is_code else spans(paragraph.text.replace("\n", " ")):
            yield from re.findall(r"\$\(([^)]+)\)", line)
            command = _CARRIERS.sub("", re.sub(r"\$\([^)]+\)", "WORD", line.strip()))
            if command.startswith("ipclocker ") and not re.search(r"\bTOOL\b", command):
                yield command


def unknown_options(command: str) -> list[str]:
    """The options in a command of ours that the tool does not know; it has to be a tool."""
    words = [word for word in shlex.split(command.partition(">")[0]) if word]
    assert words.pop(0) == FAMILY, command
    if words[0].startswith("--"):
        return [] if words[0] in _all_options(FAMILY) else words[:1]
    tool = words.pop(0)
    assert tool in TOOLS or tool in COMING, command
    if tool in COMING:
        return []
    described = describe(tool)
    whole = described.command
    for subcommand in described.subcommands:
        if words and subcommand.name.split()[-1] == words[0]:
            whole = subcommand
            words.pop(0)
    unknown, rest = _read(whole, words)
    if tool == "units" and len(rest) > 1:
        assert rest[1] == "--", command
        unknown += _read(describe(rest[0]).command, rest[2:])[0]
    return unknown


def _read(command: Command, words: list[str]) -> tuple[list[str], list[str]]:
    """The unknown options before the first other word, and what is from there on."""
    takes = {name: bool(option.value) for option in command.options for name in option.names}
    unknown = []
    while words and words[0].startswith("-") and words[0] != "--":
        word, *words = words
        if word not in takes:
            unknown.append(word)
        elif takes[word]:
            assert words, f"{command.name} {word} wants a value"
            words = words[1:]
    return unknown, words


def options_of(tools: list[str]) -> set[str]:
    """All options of these tools and of their sub-commands, and those of the whole."""
    return set().union(*map(_all_options, [*tools, FAMILY]))


def _all_options(tool: str) -> set[str]:
    described = describe(tool)
    lines = (described.command, *described.subcommands)
    return {name for line in lines for option in line.options for name in option.names}

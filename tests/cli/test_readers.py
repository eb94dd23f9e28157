"""The two readers of command lines: of any line the quick one finds what typer finds, or declines it."""

from __future__ import annotations

import shlex
from functools import cache
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipclocker.cli import OPTIONS, TOOLS, command_lines
from ipclocker.cli.command_line import CommandLine, flag, option, to_seconds, to_some_seconds
from ipclocker.cli.monitoring_plugin import threshold
from ipclocker.cli.quick_reader import read_quickly
from ipclocker.cli.typer_support import read_by_typer
from ipclocker.docs.tool_spec import FAMILY, Command, Option
from ipclocker.process.signal_names import signal_number

from ..end_to_end.readme import commands


class Everything(CommandLine, name="everything", example="everything"):
    """Has what no tool has yet."""

    colour: str = option("One of a few.", "-c", "--colour", choices=("red", "green"), default="red")
    several: list[float] = option("Times.", value="SECONDS", read=to_seconds, many=True)
    cold: bool = flag("Short, too.", "-C", "--cold")


LINES = [line for tool in TOOLS for line in command_lines(tool) if line.SPEC.text] + [Everything]
each_line = pytest.mark.parametrize("line", LINES, ids=lambda line: line.SPEC.name)
# What a command line can be: the bytes that are no UTF-8 come as halves of surrogate pairs.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.characters(
    categories=["Cs"], min_codepoint=0xDC80, max_codepoint=0xDCFF
)
TEXT = st.text(CHARACTERS, max_size=5)
ODD = ["", "-", "--", "---", "=", "--=", "-1", "0", "00", "1_0", "٣", " 5 ", "1e3", "nan", "9" * 30, "9" * 5000, "HUP"]
ODD += ["\udcff", "é", "--help", "--version", "-h", "--no-such=1", "a:b", "exists", "%s", "\n", "true"]
VALUES = TEXT | st.sampled_from(ODD)


def right_values(option: Option) -> st.SearchStrategy[str]:
    if option.limits is not None:
        return st.integers(option.limits.lowest, option.limits.highest).filter(lambda n: n < 10**18).map(str)
    if option.choices:
        return st.sampled_from(option.choices)
    if option.read is signal_number:
        return st.sampled_from(["HUP", "SIGTERM", "-INT", "9", "usr1"])
    if option.read in (to_seconds, to_some_seconds):
        return st.floats(0.001, 1e11).map(str) | st.sampled_from(["5", "1e3"])
    if option.read is threshold:
        return st.sampled_from(["5", "0.5:", "~:5", "1:2", "@1:2"])
    return VALUES


@cache
def right_options(command: Command) -> st.SearchStrategy[list[str]]:
    """An option that the command has, as it may be written."""

    def written(option: Option) -> st.SearchStrategy[list[str]]:
        names = st.sampled_from(option.names)
        if not option.value:
            return names.map(lambda name: [name])
        return st.builds(
            lambda name, value, equals: [f"{name}={value}"] if equals and name.startswith("--") else [name, value],
            names,
            right_values(option),
            st.booleans(),
        )

    return st.one_of([written(option) for option in command.options if option.attribute])


@cache
def pieces(command: Command) -> st.SearchStrategy[list[str]]:
    """Part of a line: a right option, or what may be wrong in any way."""
    names = st.sampled_from([name for option in command.options for name in option.names])
    cut = st.builds(lambda name, length: name[:length], names, st.integers(1, 12))
    stuck = st.builds(lambda name, equals, value: f"{name}{equals}{value}", names, st.sampled_from(["", "="]), VALUES)
    wrong = st.one_of(names, cut, stuck, VALUES).map(lambda word: [word])
    return st.one_of(right_options(command), right_options(command), wrong)


def joined(parts: list[list[str]]) -> list[str]:
    return [word for part in parts for word in part]


@cache
def variables(command: Command) -> st.SearchStrategy[dict[str, str]]:
    """Variables of the environment, ours and such as typer could take for the options'."""
    prefix = command.name.replace(" ", "_").replace("-", "_").upper()
    names = {f"{prefix}_{option.attribute.upper()}" for option in command.options} | {f"_{prefix}_COMPLETE"}
    names |= {option.environment for option in command.options if option.environment}
    values = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=5)
    return st.dictionaries(st.sampled_from(sorted(names)), values, max_size=3)


def expect_the_same(command: Command, words: list[str]) -> None:
    found = read_quickly(command, words)
    if found is not None:
        assert list(map(repr, sorted(found.items()))) == list(map(repr, sorted(read_by_typer(command, words).items())))


@each_line
@settings(deadline=None)
@given(data=st.data())
def test_both_find_the_same_or_the_quick_one_declines(line: type[CommandLine], data: st.DataObject) -> None:
    words = joined(data.draw(st.lists(pieces(line.SPEC), max_size=6)))
    words += data.draw(st.sampled_from([[], ["--"], ["--", "a"], ["--", "--"]]))
    with mock.patch.dict("os.environ", data.draw(variables(line.SPEC))):
        expect_the_same(line.SPEC, words)


@each_line
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_the_quick_one_declines_no_line_of_right_options(line: type[CommandLine], data: st.DataObject) -> None:
    command = line.SPEC
    words = joined(data.draw(st.lists(right_options(command), max_size=6)))
    others = [data.draw(TEXT) for argument in command.arguments if argument.required or data.draw(st.booleans())]
    if others and command.interspersed and others[0][:1] != "-":
        words.insert(0, others.pop(0))
    words += ["--", *others] if others else []
    assert read_quickly(command, words) is not None
    expect_the_same(command, words)


DASHES = [
    ([], False),
    (["--"], True),
    (["--", "a"], True),
    (["a"], False),
    (["a", "--", "b"], False),
    (["--", "a", "--", "b"], True),
    (["--", "--", "a"], True),
    (["--", "--"], True),
    (["--debug", "--"], True),
    (["--port", "--"], False),
    (["--port", "--", "a"], False),
    (["--port", "--", "--", "a"], True),
    (["--port=--", "a"], False),
    (["--port=--", "--", "a"], True),
]


@pytest.mark.parametrize("tool", ["lockersh", "pidwatch"])
@pytest.mark.parametrize(("words", "dashes"), DASHES)
def test_both_tell_whether_dashes_stood_in_front_of_the_command(tool: str, words: list[str], dashes: bool) -> None:
    [line] = command_lines(tool)
    for values in (read_quickly(line.SPEC, words), read_by_typer(line.SPEC, words)):
        assert values is not None
        assert values["exact"] is dashes


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_the_quick_one_declines_no_command_of_the_readme(command: str) -> None:
    words = [word for word in shlex.split(command.partition(">")[0].replace("$$", "4711")) if word]
    assert words.pop(0) == FAMILY
    if words[0] in {name.split()[0] for name in OPTIONS} or words[-1] in ("--help", "--version"):
        return
    whole, *subcommands = command_lines(words.pop(0))
    line = next((line for line in subcommands if line.SPEC.name.split()[-1] == words[0]), None)
    spec = whole.SPEC if line is None else line.SPEC
    words = words if line is None else words[1:]
    assert read_quickly(spec, words) is not None
    expect_the_same(spec, words)


@each_line
@pytest.mark.parametrize("word", ["--help", "--version", "--no-such", "-x", "--=", "---"])
def test_what_is_for_typer(line: type[CommandLine], word: str) -> None:
    assert read_quickly(line.SPEC, [word]) is None


@pytest.mark.parametrize(
    "words",
    [
        ["--timeout"],
        ["--timeout", "soon"],
        ["--verbose=1"],
        ["--verb"],
        ["--connect-tries", "0"],
        ["--connect-tries", "٣"],
        ["--lost-signal", "NONE"],
    ],
)
def test_wrong_lines_of_lockersh(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    [lockersh] = command_lines("lockersh")
    assert read_quickly(lockersh.SPEC, words) is None


@each_line
def test_values_are_of_the_types_that_are_declared(line: type[CommandLine]) -> None:
    annotations = {
        name: kind for base in reversed(line.__mro__) for name, kind in vars(base).get("__annotations__", {}).items()
    }
    for each in (each for each in line.SPEC.options if each.attribute):
        kind = "int" if each.limits or each.read is signal_number else "str" if each.read is str else "float"
        if not each.value:
            kind = "bool"
        if each.read is threshold:
            kind = "Threshold"
        expected = f"list[{kind}]" if each.many else f"{kind} | None" if each.default is None else kind
        assert annotations[each.attribute] == expected, each.names
    for argument in line.SPEC.arguments:
        expected = "list[str]" if argument.many else "str" if argument.required else "str | None"
        assert annotations[argument.attribute] == expected
        assert not argument.dashes or annotations[argument.dashes] == "bool"


@each_line
def test_what_may_stand_in_a_declaration(line: type[CommandLine]) -> None:
    """What both readers rely on."""
    command = line.SPEC
    assert not any(argument.many for argument in command.arguments[:-1])
    names = [name for option in command.options for name in option.names]
    assert len(names) == len(set(names))
    for each in command.options:
        assert all(name.startswith("--") or len(name) == 2 for name in each.names)
        assert not (each.default is True and len(each.names) != 2)

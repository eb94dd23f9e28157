"""Programs as people write them down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipclocker.errors import UsageError
from ipclocker.supervise.program_list import by_name, parse_file, parse_program, without_comment


@pytest.mark.parametrize(
    ("text", "name", "command"),
    [
        ("web: /opt/web --port 80", "web", "/opt/web --port 80"),
        ("web:\t sleep 1 ", "web", "sleep 1"),
        ("/opt/web/server --port 80", "server", "/opt/web/server --port 80"),
        ("  sleep 1", "sleep", "sleep 1"),
        ("./run.sh", "run.sh", "./run.sh"),
        ("sh -c 'echo a: b'", "sh", "sh -c 'echo a: b'"),
        ("http://x/y: z", "y:", None),  # what is before the colon is no name, and the first word has none either
        ("web:80 x", "web:80", None),
        ("a: b: c", "a", "b: c"),
        ("two: echo 1\necho 2", "two", "echo 1\necho 2"),
    ],
)
def test_a_program(text: str, name: str, command: str | None) -> None:
    if command is None:
        with pytest.raises(UsageError, match=f"'{name}' is no name for a program: write NAME: COMMAND"):
            parse_program(text)
    else:
        program = parse_program(text, "here")
        assert (program.name, program.command, program.origin) == (name, command, "here")


@pytest.mark.parametrize("text", ["", "  ", "web:  ", "web: \t"])
def test_a_program_without_a_command(text: str) -> None:
    with pytest.raises(UsageError, match=r"the command is missing"):
        parse_program(text)


@pytest.mark.parametrize("text", ["(cd x; y)", "X=1 y", "'/opt/a b/c' d", ".hidden", "/", "a" * 65])
def test_a_first_word_that_makes_no_name(text: str) -> None:
    with pytest.raises(UsageError, match="is no name for a program: write NAME: COMMAND"):
        parse_program(text)
    assert parse_program(f"x: {text}").command == text


def test_a_name_that_is_given_apart() -> None:
    assert parse_program("a: b", name="web").command == "a: b"
    with pytest.raises(UsageError, match="'a b' is no name"):
        parse_program("x", name="a b")


def test_no_command_has_a_nul_byte() -> None:
    with pytest.raises(UsageError, match="NUL"):
        parse_program("a\0b")


def test_a_file() -> None:
    text = """
# the programs
web: /opt/web --port 80   # on all addresses
    sleep 1000 \r
   # nothing here
mail: sh -c 'echo "# no comment" #none' x#y "#" \\# # but this
"""
    assert [tuple(program) for program in parse_file(text, "list")] == [
        ("web", "/opt/web --port 80", "list, line 3"),
        ("sleep", "sleep 1000", "list, line 4"),
        ("mail", """sh -c 'echo "# no comment" #none' x#y "#" \\#""", "list, line 6"),
    ]
    assert parse_file("", "list") == []


def test_a_fault_in_a_file_says_where() -> None:
    with pytest.raises(UsageError, match=r"^list, line 2: the command is missing"):
        parse_file("a: b\nc: # d\n", "list")


def test_two_of_one_name() -> None:
    programs = parse_file("sleep 1\nsleep 2\n", "list")
    message = "^list, line 2: there is a program called 'sleep' already \\(list, line 1\\): write another NAME: before"
    with pytest.raises(UsageError, match=message):
        by_name(programs)
    assert list(by_name(parse_file("b: 1\na: 2\n", "list"))) == ["b", "a"]


@given(st.text(st.characters(exclude_characters="\n")))
def test_any_line_is_understood_or_refused(line: str) -> None:
    assert line.startswith(without_comment(line))
    try:
        programs = parse_file(line, "list")
    except UsageError as error:
        assert str(error).startswith("list, line 1: ")
    else:
        assert all(program.command.strip() and program.name for program in programs)

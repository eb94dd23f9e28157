"""A tool's command line, declared once: a class whose attributes are its options and words, a row for each.

    class Greet(CommandLine, name="greet", example="greet --times 2 world"):
        '''Say hello to somebody.'''

        whom: str = argument("NAME", "Somebody.", required=True)
        times: int = number("N", "How often.", default=1, lowest=1)

        def run(self) -> int: ...

Help, errors, manual page, completion and both readers are made of the rows (docs/tool_spec.py). What was read is an
object of the class, whose attributes are the values, of the types that the rows are annotated with.
"""

from __future__ import annotations

import math
from typing import Any, Callable, ClassVar, TypeVar

from ..docs.tool_spec import HELP_OPTION, VERSION_OPTION, Argument, Command, Limits, Option
from ..errors import UsageError
from .quick_reader import read_quickly

Self = TypeVar("Self", bound="CommandLine")
MOST_SECONDS = 999_999_999_999  # as the lock protocol has it: 12 digits, and no fraction beyond


class CommandLine:
    """A command line of a tool: its declaration is SPEC; an object of it has the values of one that was read."""

    SPEC: ClassVar[Command]

    def __init_subclass__(cls, name: str = "", example: str = "", interspersed: bool = False) -> None:
        """Make SPEC of the rows, unless the class has one: its own rows come before those that it inherits."""
        if "SPEC" in vars(cls):
            return
        arguments, options = [], []
        for attribute in dict.fromkeys(attribute for base in cls.__mro__[:-2] for attribute in vars(base)):
            row = getattr(cls, attribute)
            if isinstance(row, Argument):
                arguments.append(row._replace(attribute=attribute))
            elif isinstance(row, Option):
                names = row.names or ("--" + attribute.replace("_", "-"),)
                options.append(row._replace(attribute=attribute, names=names))
        usage = " ".join(["[OPTIONS]", *(argument.word for argument in arguments)])
        shown = (*options, VERSION_OPTION, HELP_OPTION)
        cls.SPEC = Command(name, usage, cls.__doc__ or "", tuple(arguments), shown, example, interspersed)

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    @classmethod
    def main(cls, words: list[str]) -> int:
        """Do what a command line says; the exit code."""
        return cls.read(words).run()

    @classmethod
    def read(cls: type[Self], words: list[str]) -> Self:
        """Read a command line. Raises UsageError if it is wrong. Ends by SystemExit when it has shown the help."""
        values = read_quickly(cls.SPEC, words)
        return cls(cls.read_by_typer(words) if values is None else values)

    @classmethod
    def read_by_typer(cls, words: list[str]) -> dict[str, Any]:
        """Read any command line, by attributes. Raises as `read` does."""
        from .typer_support import read_by_typer

        return read_by_typer(cls.SPEC, words)

    def run(self) -> int:
        """Do what the command line says; the exit code."""
        raise NotImplementedError

    def wrong(self, problem: str) -> UsageError:
        """An error of a command line whose words are understood, but do not go together."""
        return UsageError(f"{problem}; see {self.SPEC.name} --help")


def argument(word: str, text: str = "", *, many: bool = False, required: bool = False, dashes: str = "") -> Any:
    """A row for words that are no option (Argument)."""
    return Argument("", word, text, many, required, dashes)


def option(text: str, *names: str, value: str = "TEXT", **more: Any) -> Any:
    """A row for an option with a value, which is text unless `more` says otherwise (Option); named as its attribute."""
    return Option("", names, text, value, **more)


def flag(text: str, *names: str, default: bool = False) -> Any:
    """A row for an option without a value."""
    return Option("", names, text, default=default)


def number(value: str, text: str, *names: str, lowest: int, highest: int | None = None, **more: Any) -> Any:
    """A row for an option whose value is a whole number."""
    return Option("", names, text, value, int, Limits(lowest, highest), **more)


def seconds(text: str, *names: str, read: Callable[[str], float] | None = None, **more: Any) -> Any:
    """A row for an option whose value is a time in seconds, 0 or more."""
    return Option("", names, text, "SECONDS", read or to_seconds, **more)


def to_seconds(text: str) -> float:
    """A number of seconds, 0 or more. Raises ValueError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= MOST_SECONDS:
        raise ValueError(f"'{text}' is no number of seconds.")
    return number


def to_some_seconds(text: str) -> float:
    """A number of seconds above 0. Raises ValueError."""
    number = to_seconds(text)
    if not number:
        raise ValueError("0 is too short a time.")
    return number

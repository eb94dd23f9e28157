"""The tools as data: what their command lines take, and what is said about it.

All that is shown or read is made of this: --help, errors, manual pages, completion, and what a command line means. It
imports nothing but typing, since lockersh reads it at each start.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

FAMILY = "ipclocker"  # the name of the whole
# Tools that go by no name of their own: hosts have other programs of these names, and other pages and completions.
UNLINKED = frozenset({"doctor", "man", "units"})


class Limits(NamedTuple):
    """The smallest and the largest number that a value may be; None: there is no largest."""

    lowest: int
    highest: int | None = None

    def __str__(self) -> str:
        """Say it as click does."""
        return f"x>={self.lowest}" if self.highest is None else f"{self.lowest}<=x<={self.highest}"


class Argument(NamedTuple):
    """A word, or words, that are no option.

    attribute: what its value is called in the code
    word: what stands for it, with brackets if it may be missing
    help: what it is; "": it is not shown
    many: any number of words
    required: there has to be one
    dashes: the attribute that tells whether `--` stood in front of the words; "": it makes no difference
    """

    attribute: str
    word: str
    help: str
    many: bool = False
    required: bool = False
    dashes: str = ""

    @property
    def text(self) -> str:
        """The help with all that goes with it."""
        return f"{self.help} [required]" if self.required else self.help


class Option(NamedTuple):
    """An option.

    attribute: what its value is called in the code; "": it has none there, but is only shown
    names: the short ones first. The second name of a flag that is set by default unsets it
    help: what it does
    value: what stands for its value; "": it is a flag, which has none
    read: turns the value's text into what it means; raises ValueError, with a sentence that says why it can't, or
        UsageError, whose message says all
    limits: its value is a whole number between these
    choices: the words that its value may be, if there are only these
    default: its value if it is not given (text is read as if it were), which is shown unless one of the next two is
    environment: the variable that then says the value; whoever uses the value reads it
    otherwise: what then holds if no variable says it, in words
    many: it may be given several times; its value is the list of all
    """

    attribute: str
    names: tuple[str, ...]
    help: str
    value: str = ""
    read: Callable[[str], Any] = str
    limits: Limits | None = None
    choices: tuple[str, ...] = ()
    default: Any = None
    environment: str = ""
    otherwise: str = ""
    many: bool = False

    @property
    def note(self) -> str:
        """The default in words, if it is no value."""
        said = ", else ".join(filter(None, (self.environment, self.otherwise)))
        return f" [default: {said}]" if said else ""

    @property
    def text(self) -> str:
        """The help with all that goes with it."""
        default = self.names[0].lstrip("-") if self.default is True else self.default
        shown = "" if self.note or default in (None, False) else f"default: {default}"
        extra = "; ".join(filter(None, (shown, str(self.limits or ""))))
        return self.help + self.note + (f" [{extra}]" if extra else "")


VERSION_OPTION = Option("", ("-V", "--version"), "Show the version and exit.")
HELP_OPTION = Option("", ("-h", "--help"), "Show this message and exit.")


class Command(NamedTuple):
    """A command line: the words it begins with, what comes behind them, paragraphs of text, and an example.

    interspersed: options may stand behind other words, too; else the first other word ends them
    """

    name: str
    usage: str
    text: str
    arguments: tuple[Argument, ...]
    options: tuple[Option, ...]
    example: str
    interspersed: bool = False


class Tool(NamedTuple):
    """A tool: its name, what it does in a line, its command line, its sub-commands (with names of two words), and
    texts with titles, to be shown as they are."""

    name: str
    what: str
    command: Command
    subcommands: tuple[Command, ...] = ()
    sections: tuple[tuple[str, str], ...] = ()

    @property
    def command_lines(self) -> tuple[Command, ...]:
        """All that can be run: a command without a text is only the first word of sub-commands."""
        return (self.command, *self.subcommands) if self.command.text else self.subcommands


def page_name(tool: str) -> str:
    """The name of a tool's manual page."""
    return f"{FAMILY}-{tool}" if tool in UNLINKED else tool

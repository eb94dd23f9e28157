"""What the tools' command lines have in common: typer set up plainly, --version, and errors as one line.

A module with a typer function has no `from __future__ import annotations`: Python 3.9 would hide its options.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click
import typer

from ..errors import USAGE
from ..process.stderr import print_stderr
from ..version import VERSION


def parse(
    function: Callable[..., Any], tool: str, words: list[str], example: str, *, interspersed: bool = False
) -> Any:
    """Call a typer function with the options and words of a command line; what it returns.

    With `interspersed` options may stand behind words, too; else the first word ends them.
    Ends by SystemExit, with what there was to say printed, if the line is wrong, or asks for help or the version.
    """
    try:
        result = command_of(function, tool, example, interspersed).main(
            args=words,
            prog_name=tool,
            complete_var="",  # else a variable of the environment turns a tool into a helper of shells
            standalone_mode=False,
        )
    except click.UsageError as error:
        _end(tool, error.format_message())
    except click.Abort:
        raise SystemExit(USAGE) from None
    except SystemExit:  # what click makes of a pipe that nobody reads
        raise BrokenPipeError from None
    if isinstance(result, int):  # the help was shown
        sys.stdout.flush()
        raise SystemExit(result)
    return result


def options_of(function: Callable[..., Any], tool: str, words: list[str]) -> dict[str, Any]:
    """What options and words of a command line mean to a typer function, by its parameters' names; not called.

    Ends by SystemExit as `parse` does.
    """
    try:
        return command_of(function, tool, "").make_context(tool, list(words)).params
    except click.exceptions.Exit as end:  # the help or the version was shown
        raise SystemExit(end.exit_code) from None
    except click.UsageError as error:
        _end(tool, error.format_message())


def command_of(function: Callable[..., Any], tool: str, example: str, interspersed: bool = False) -> click.Command:
    """What click makes of a typer function: its options, arguments and texts."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    settings = {"help_option_names": ["--help"], "allow_interspersed_args": interspersed, "max_content_width": 100}
    epilog = f"Example: {example}\n\nVersion: {VERSION}"
    app.command(tool, context_settings=settings, epilog=epilog)(function)
    return typer.main.get_command(app)


def _end(tool: str, problem: str) -> NoReturn:
    print_stderr(f"{tool}: {' '.join(problem.split()).rstrip('.')}; see {tool} --help")
    raise SystemExit(USAGE)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"Version: {VERSION}")
        raise typer.Exit


def version_option() -> Any:
    """The --version option of a tool."""
    return typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")


def seconds(text: str) -> float:
    """A number of seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1e12:
        raise click.BadParameter(f"'{text}' is no number of seconds.")
    return number

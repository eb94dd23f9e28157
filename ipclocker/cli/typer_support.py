"""typer, set up plainly: reads any command line, and shows help and errors. It is the reference of the quick reader."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import click
from typer.core import TyperArgument, TyperCommand, TyperOption

from ..docs.tool_spec import HELP_OPTION, VERSION_OPTION, Argument, Command, Option
from ..errors import UsageError
from ..version import VERSION


def read_by_typer(command: Command, words: list[str]) -> dict[str, Any]:
    """The values of options and words by their attributes.

    Raises UsageError if the line is wrong. Ends by SystemExit, with what there was to say printed, if it asks for help
    or the version.
    """
    _refuse_single_dash(command, words)
    try:
        context = typer_command(command).make_context(command.name, list(words))
    except click.exceptions.Exit as end:  # the help or the version was shown
        sys.stdout.flush()
        raise SystemExit(end.exit_code) from None
    except click.UsageError as error:
        raise _wrong(command, error.format_message()) from None
    several = {option.attribute for option in command.options if option.many}
    several |= {argument.attribute for argument in command.arguments if argument.many}
    values = {name: list(value or ()) if name in several else value for name, value in context.params.items()}
    for argument in command.arguments:
        if argument.dashes:
            values[argument.dashes] = _has_dashes(context, words, values[argument.attribute])
    return values


def _refuse_single_dash(command: Command, words: list[str]) -> None:
    """Raise UsageError for -lock, as the Perl programs take it: it would be -l and the name ock."""
    values = {name: bool(option.value) for option in command.options for name in option.names}
    others = iter(words)
    for word in others:
        name = word.partition("=")[0]
        if word == "--" or (word[:1] != "-" and not command.interspersed):
            return
        if len(name) > 2 and name[1] != "-" and any(long.startswith(f"-{name}") for long in values):
            raise _wrong(command, f"{name} begins with one dash: an option of several letters has two, -{name}")
        if values.get(word):
            next(others, None)


def _has_dashes(context: click.Context, words: list[str], arguments: list[str]) -> bool:
    """Tell whether `--` stood in front of the arguments, which click does not say.

    There it can be an option's value, too: then the line would be wrong without it.
    """
    before = words[: len(words) - len(arguments)]
    if before[-1:] != ["--"]:
        return False
    try:
        context.command.make_parser(context).parse_args(before[:-1])
    except click.UsageError:
        return False
    return True


def typer_command(command: Command) -> TyperCommand:
    """Build typer's command from a declaration."""
    version = TyperOption(
        param_decls=[*VERSION_OPTION.names],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help=VERSION_OPTION.help,
    )
    options = [_option(option) for option in command.options if option.attribute]
    return TyperCommand(
        command.name,
        context_settings={
            "help_option_names": [*HELP_OPTION.names],
            "allow_interspersed_args": command.interspersed,
            "max_content_width": 100,
        },
        params=[*map(_argument, command.arguments), *options, version],
        help=inspect.cleandoc(command.text),
        epilog=f"Example: {command.example}\n\nVersion: {VERSION}",
        rich_markup_mode=None,
    )


def _argument(argument: Argument) -> TyperArgument:
    return TyperArgument(
        param_decls=[argument.attribute],
        type=click.STRING,
        nargs=-1 if argument.many else 1,
        required=argument.required,
        metavar=argument.word,
        help=argument.help,
        hidden=not argument.help,
    )


def _option(option: Option) -> TyperOption:
    is_flag = not option.value
    names = ["/".join(option.names)] if is_flag and option.default else option.names
    return TyperOption(
        param_decls=[option.attribute, *names],
        type=_type(option),
        is_flag=is_flag or None,
        multiple=option.many,
        default=option.default,
        show_default=not option.note,
        metavar=option.value or None,
        help=option.help + option.note,
    )


def _type(option: Option) -> click.ParamType | None:
    if option.limits is not None:
        return click.IntRange(*option.limits)
    if option.choices:
        return click.Choice(option.choices)
    return _Value(option) if option.value else None


class _Value(click.ParamType):
    """A value that is read as its option says."""

    def __init__(self, option: Option) -> None:
        self.name = option.value
        self._option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):  # a default
            return value
        try:
            return self._option.read(value)
        except UsageError:
            raise
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _show_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        print(f"Version: {VERSION}")
        context.exit()


def _wrong(command: Command, problem: str) -> UsageError:
    return UsageError(f"{' '.join(problem.split()).rstrip('.')}; see {command.name} --help")

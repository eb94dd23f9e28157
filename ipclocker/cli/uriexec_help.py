"""uriexec's command line as it is explained. uriexec starts often, so it reads its few options itself (uriexec.py)."""

from typing import Annotated, Optional

import typer

from ..run.uri_command import SHELL
from .typer_support import parse, version_option

EXAMPLE = "uriexec --cd /tmp echo %24HOME"


def show_help() -> None:
    """Print the help, and end by SystemExit."""
    parse(uriexec, "uriexec", ["--help"], EXAMPLE)


def uriexec(
    command: Annotated[list[str], typer.Argument(help="The command's words, URI-encoded; with --encode, as they are.")],
    cd: Annotated[
        Optional[str],
        typer.Option(metavar="FOLDER", help="Go to this folder first. URI-encoded.", show_default=False),
    ] = None,
    shell: Annotated[
        str,
        typer.Option(
            metavar="WORDS",
            help="What is executed with the command as its last word; if empty, the command's words are executed "
            "themselves. URI-encoded.",
        ),
    ] = SHELL.decode(),
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            help="Execute nothing; print what would be, with the commands of uriexecs within it below, a level deeper "
            "each. For people.",
        ),
    ] = False,
    encode: Annotated[bool, typer.Option("--encode", help="Execute nothing; print the words, encoded.")] = False,
    version: Annotated[bool, version_option()] = False,
) -> None:
    """Decode a command and become it.

    Each %XX of the command's words is the byte of that number, each + is a space; other % stay as they are. The words,
    with a space between, are what the shell gets. So a command passes unchanged through any number of shells: encode
    it with --encode, or with URI::Escape.

    Other exit codes than the command's: 64 the command line is wrong, 126 the command can't be executed, 127 there is
    no such command.
    """

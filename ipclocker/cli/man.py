"""man: the manual pages of the tools."""

import os
import sys
from typing import Annotated, Optional

import typer

from ..docs.manpage import manual_page
from ..docs.pager import show_by_man
from ..docs.plain_text import plain
from ..docs.roff import roff
from ..docs.tool_spec import FAMILY
from ..errors import OK, UsageError
from ..version import VERSION
from . import TOOLS
from .tool_specs import describe
from .typer_support import parse, version_option

EXAMPLE = "ipclocker man lockersh --roff >/usr/local/share/man/man1/lockersh.1"


def main(words: list[str]) -> int:
    """Run man; the exit code."""
    return int(parse(man, "ipclocker man", words, EXAMPLE, interspersed=True)["code"])


def man(
    tool: Annotated[
        Optional[str], typer.Argument(help="The tool. [default: ipclocker, the whole]", show_default=False)
    ] = None,
    as_roff: Annotated[
        bool, typer.Option("--roff", help="Print the source of the page, for packages and man folders.")
    ] = False,
    version: Annotated[bool, version_option()] = False,
) -> dict[str, int]:
    """Show the manual page of a tool.

    It is shown by man(1) where there is one and stdout is a terminal, else as plain text. It is made of what --help
    is made of.
    """
    name = FAMILY if tool is None else tool
    if name not in TOOLS and name != FAMILY:
        raise UsageError(f"there is no tool '{name}': one of {', '.join([FAMILY, *TOOLS])}")
    page = manual_page(describe(name), VERSION, TOOLS)
    if as_roff:
        print(roff(page), end="")
    elif not show_by_man(roff(page)):
        print(plain(page, _columns()), end="")
    return {"code": OK}


def _columns() -> int:
    """As wide as the terminal is, if it is one that knows."""
    return (os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0) or 80

"""man: the manual pages of the tools."""

from __future__ import annotations

import os
import sys

from ..docs.manpage import manual_page
from ..docs.pager import show_by_man
from ..docs.plain_text import plain
from ..docs.roff import roff
from ..docs.tool_spec import FAMILY
from ..errors import OK, UsageError
from ..version import VERSION
from . import TOOLS
from .command_line import CommandLine, argument, flag
from .tool_specs import describe


class Man(
    CommandLine,
    name="ipclocker man",
    example="ipclocker man lockersh --roff >/usr/local/share/man/man1/lockersh.1",
    interspersed=True,
):
    """Show the manual page of a tool.

    It is shown by man(1) where there is one and stdout is a terminal, else as plain text. It is made of what --help
    is made of.
    """

    tool: str | None = argument("[TOOL]", "The tool. [default: ipclocker, the whole]")
    as_roff: bool = flag("Print the source of the page, for packages and man folders.", "--roff")

    def run(self) -> int:
        """Show the page; the exit code."""
        name = FAMILY if self.tool is None else self.tool
        if name not in TOOLS and name != FAMILY:
            raise UsageError(f"there is no tool '{name}': one of {', '.join([FAMILY, *TOOLS])}")
        page = manual_page(describe(name), VERSION, TOOLS)
        if self.as_roff:
            print(roff(page), end="")
        elif not show_by_man(roff(page)):
            print(plain(page, _columns()), end="")
        return OK


def _columns() -> int:
    """As wide as the terminal is, if it is one that knows."""
    return (os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0) or 80


COMMAND_LINES = (Man,)

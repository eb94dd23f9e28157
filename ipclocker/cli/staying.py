"""The command line of a tool that stays beside a command it runs, for as long as that runs.

typer takes more memory than all the rest. So what the quick reader declines is read in a process of its own, and
neither the process that stays nor the one that becomes the command carries typer.
"""

from __future__ import annotations

from typing import Any

from ..process.spawn import call_in_child
from .command_line import CommandLine


class StayingCommandLine(CommandLine):
    """A command line that never brings typer into the process that asks for it."""

    @classmethod
    def read_by_typer(cls, words: list[str]) -> dict[str, Any]:
        """Read any command line, in a process of its own. If it is wrong, that process says so, and both end.

        So here it is SystemExit that is raised for a line that is wrong.
        """
        return call_in_child(super().read_by_typer, words)

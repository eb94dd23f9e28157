"""The options that every server has, once."""

from typing import Annotated, Optional

import typer

Nofork = Annotated[bool, typer.Option("--nofork", help="Stay in the foreground and log to stderr.")]
PidFile = Annotated[
    Optional[str], typer.Option(help="Write the process id there; removed at the end.", show_default=False)
]
LogFile = Annotated[
    Optional[str], typer.Option(help="Log there. [default: stderr with --nofork, else syslog]", show_default=False)
]
Debug = Annotated[bool, typer.Option("--debug", help="Log what is of use only to find a fault.")]

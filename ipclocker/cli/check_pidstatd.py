"""check-pidstatd: whether a pid server answers, as a monitoring plugin."""

from typing import Annotated, Optional

import typer

from ..pid.client import PidStat
from . import monitoring_plugin as plugin
from .typer_support import version_option

EXAMPLE = "check-pidstatd -H host1 -w 0.1 -c 1"


def main(words: list[str]) -> int:
    """Run check-pidstatd; the exit code."""
    return plugin.run(check_pidstatd, "check-pidstatd", words, EXAMPLE)


def check_pidstatd(
    host: Annotated[str, typer.Option("-H", "--host", help="Host of pidstatd.")] = "localhost",
    port: Annotated[
        Optional[str],
        typer.Option(
            "-p",
            "--port",
            help="Port number or service name of pidstatd, or the name of its UNIX datagram socket (it has a slash). "
            "[default: the service pidstatd, else 1752]",
            show_default=False,
        ),
    ] = None,
    pid: Annotated[int, typer.Option(min=1, help="Process that has to exist there.")] = 1,
    warning: Annotated[Optional[float], plugin.warning()] = None,
    critical: Annotated[Optional[float], plugin.critical()] = None,
    version: Annotated[bool, version_option()] = False,
) -> dict[str, int]:
    """Say whether a pid server answers that a process exists, and how fast, in one line with performance data.

    Exit codes: 0 it does, 1 it is slow, 2 it does not or is too slow, 3 the check could not be done.
    """
    with PidStat(host, port) as stat:
        ping = stat.ping_status(pid=pid)
    return plugin.report("PIDSTATD", ping["ok"], ping["status"], warning, critical)

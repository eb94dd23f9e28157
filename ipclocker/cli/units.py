"""units: what starts the daemons at boot: systemd units and init scripts."""

import os
import sys
from functools import partial
from importlib import import_module
from typing import Annotated, Callable, Optional

import click
import typer

from ..errors import OK, UsageError
from ..process.stderr import print_stderr
from ..service_files.init_script import init_script
from ..service_files.own_command import own_command
from ..service_files.systemd_units import DAEMONS, hides, service_unit, socket_unit
from . import TOOLS
from .typer_support import options_of, parse, version_option

EXAMPLE = "ipclocker units lockerd -- --host 0.0.0.0 >/etc/systemd/system/lockerd.service"
_DAEMONS = [tool for tool in DAEMONS if tool in TOOLS]


def main(words: list[str]) -> int:
    """Run units; the exit code."""
    # Done afterwards, since the daemon's options are read by a command line of their own.
    print_it: Callable[[], int] = parse(units, "units", words, EXAMPLE, interspersed=True)
    return print_it()


def units(
    words: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="TOOL [-- OPTIONS...]",
            help=f"The daemon, {' or '.join(_DAEMONS)}, and options that it is to be started with.",
            show_default=False,
        ),
    ] = None,
    socket: Annotated[
        bool, typer.Option("--socket", help="Print the .socket unit that goes with the service: systemd listens.")
    ] = False,
    sysv: Annotated[bool, typer.Option("--sysv", help="Print an init script, for a host without systemd.")] = False,
    version: Annotated[bool, version_option()] = False,
) -> Callable[[], int]:
    """Print what starts a daemon at boot: a systemd unit, or an init script.

    The daemon is this very file, at the place where it is now; its first lines say where to put what is printed. With
    --socket systemd opens the sockets that the options name, so that no client is turned away while the daemon is
    started or restarted; the .service unit is the same with and without it.
    """
    if not words:
        raise click.UsageError(f"say which daemon: {', '.join(_DAEMONS)}")
    tool, options = words[0], words[1:]
    if tool not in _DAEMONS:
        raise UsageError(f"there is no daemon '{tool}': it is one of {', '.join(_DAEMONS)}")
    if socket and sysv:
        raise click.UsageError("--socket and --sysv were given: choose one of them")
    return partial(_print, tool, options, socket, sysv)


def _print(tool: str, options: list[str], socket: bool, sysv: bool) -> int:
    meaning = options_of(getattr(import_module(f"{__package__}.{tool}"), tool), tool, options)
    program = own_command(tool, TOOLS)
    if sysv:
        text = init_script(tool, program, options, meaning)
    elif socket:
        text = socket_unit(tool, options, meaning)
    else:
        text = service_unit(tool, program, options)
        for path in filter(os.path.isabs, program):
            if hides(tool, path):
                print_stderr(f"units: the service will not see {path}: have it below /usr/local, and call it there")
    sys.stdout.buffer.write(os.fsencode(text))  # a name may have bytes that are no characters
    return OK

"""pidstat: whether processes of other hosts exist."""

from typing import Annotated, Optional

import click
import typer

from ..pid.client import PidStat
from ..pid.survey import DOWN, UP, Place, survey
from ..process.stderr import print_stderr
from .typer_support import parse, version_option

EXAMPLE = "pidstat exists 3459 host1:4220 host2:9821"
ALL_UP, SOME_DOWN, SOME_NOT_KNOWN = 0, 1, 2  # exit codes, as the classic pidstat has them


def main(words: list[str]) -> int:
    """Run pidstat; the exit code."""
    return int(parse(pidstat, "pidstat", words, EXAMPLE)["code"])


def pidstat(
    words: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="exists PID...",
            help="The command, exists, and processes: PID or HOST:PID, with an IPv6 address in brackets.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Host of the processes that are given without one.")] = "localhost",
    port: Annotated[
        Optional[str],
        typer.Option(
            help="Port number or service name of pidstatd, or the name of its UNIX datagram socket (it has a slash). "
            "[default: the service pidstatd, else 1752]",
            show_default=False,
        ),
    ] = None,
    silent: Annotated[bool, typer.Option("--silent", help="Print nothing; the exit code tells.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show on stderr what is asked and answered.")] = False,
    version: Annotated[bool, version_option()] = False,
) -> dict[str, int]:
    """Say whether processes exist, here or on other hosts, as the pidstatd there sees them.

    Prints a line HOST:PID up, down, unknown or host_down for each, in their order. The exit code is 0 if all
    exist, 1 if one does not, 2 if one is unknown or its host does not answer; 64 if the command line is wrong.
    """
    if not words:
        raise click.UsageError("the command is missing: say exists and the processes")
    if words[0] != "exists":
        raise click.UsageError(f"there is no command '{words[0]}': it is exists")
    if len(words) == 1:
        raise click.UsageError("the processes are missing: give PID or HOST:PID after exists")
    places = [_place(word, host) for word in words[1:]]
    with PidStat(host, port, trace=print_stderr if debug else None) as stat:
        states = survey(stat, places)
    if not silent:
        for place in places:
            print(f"{_written(place)} {states[place]}")
    found = set(states.values())
    code = SOME_NOT_KNOWN if found - {UP, DOWN} else SOME_DOWN if DOWN in found else ALL_UP
    return {"code": code}


def _place(word: str, host: str) -> Place:
    before, colon, number = word.rpartition(":")
    named = before.strip("[]") if colon else host
    is_pid = number.isascii() and number.isdigit() and len(number) <= 20 and int(number) > 0
    if not named or not is_pid:
        raise click.UsageError(f"'{word}' is no PID and no HOST:PID")
    return named, int(number)


def _written(place: Place) -> str:
    host, pid = place
    return f"[{host}]:{pid}" if ":" in host else f"{host}:{pid}"
